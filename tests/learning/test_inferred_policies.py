"""Inferred policies: who depends on whom, what is learned from which rows, how it goes on. Numbers: test_family_updates.py."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from family_learners import NEWEST, family_config, family_learner, joint_batch, next_update, oracle_weights
from learner_games import build, config_of, env_steps, parameters, weights_of
from reference.family_games import FamilyGame, random_family_game

from rllib_maddpg.modules.views import View

# All that may bring others' actors into an update.
EVERYTHING = {"twin_q": True, "policy_delay": 1, "target_policy_noise": 0.2, "target_noise_clip": 0.5}


def inferring_game(seed: int = 3, kinds=("tanh", "discrete"), hyper=None, **given) -> FamilyGame:
    """Three agents with a module each, or two modules of which one is shared. All infer."""
    given = {"n_agents": 3, "shared": False, "frozen": False, "dead": True, "per_module": {}} | given
    own = {"infer_other_policies": True, "critic_view": "all", **EVERYTHING, "exploration_temperature": 0.6, **(hyper or {})}
    return random_family_game(seed, kinds=kinds, waiting=False, hyper=own, **given)


def differing(one: dict, other: dict) -> set:
    return {key for key in one if not torch.equal(one[key], other[key])}


def networks_of(learner, module: str) -> set[str]:
    return {name for spec in learner.module[module].unwrapped().network_specs for name in spec.attributes}


# ---------------------------------------------------------------------------------------------------------------------
# No agent reads another agent's actor.


ACTORS, ALL_NETS = ("actor", "target_actor"), ("all",)
SHARED = 4  # a seed of a shared module and another one


def poison(learner, modules, nets) -> None:
    """NaN in all parameters of these networks, or of `ALL_NETS`."""
    with torch.no_grad():
        for m in modules:
            for net in networks_of(learner, m) if nets == ALL_NETS else nets:
                for param in parameters(learner, m, net):
                    param.fill_(torch.nan)


@pytest.mark.parametrize("others_actions", ["replay", "current"])
@pytest.mark.parametrize(
    ("kinds", "shared"),
    [
        (("tanh", "discrete"), False),
        (("discrete",), False),
        (("softmax",), False),
        (("multi_discrete", "softmax"), False),
        (("tanh", "discrete"), True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else ("shared" if value else "alone"),
)
def test_nan_in_others_networks_does_not_matter(kinds, shared, others_actions):
    """Only one module learns, and nobody wants a report: its updates are to the bit what they are beside sound others.

    Without inference they are not: NaN or, where an argmax makes a choice of it, other numbers get in.
    """
    game = inferring_game(SHARED if shared else 3, kinds, {"others_actions": others_actions}, shared=shared)
    assert len(game.modules) == (2 if shared else 3)

    def learned(me, game, poisoned):
        learner = build(family_config(game).multi_agent(policies_to_train=[me]), game)
        others = [m for m in game.modules if m != me]
        if poisoned:
            poison(learner, others, poisoned)
        start = weights_of(learner)
        for k in range(2):
            joint, _ = next_update(game, learner, k, double=False)
            assert learner.update(batch=joint, timesteps=env_steps(k), _no_metrics_reduce=True) == {}
        end = weights_of(learner)
        for key, value in end.items():
            if key[0] != me:
                torch.testing.assert_close(value, start[key], rtol=0, atol=0, equal_nan=True)
        mine = {key: value for key, value in end.items() if key[0] == me}
        assert differing(mine, start) == set(mine)
        return mine

    for me in game.modules if shared else game.modules[:1]:
        expected = learned(me, game, ())
        assert all(torch.isfinite(value).all() for value in expected.values())
        assert any(net.startswith("inferred") for _, net in expected)
        assert differing(learned(me, game, ALL_NETS), expected) == set()
        knowing = replace(game, hyper=replace(game.hyper, infer_other_policies=False))
        knowing.weights = {m: {n: w for n, w in nets.items() if "inferred" not in n} for m, nets in game.weights.items()}
        expected = learned(me, knowing, ())
        try:
            assert differing(learned(me, knowing, ACTORS), expected) != set()
        except ValueError as error:
            assert "NaN or infinity in the" in str(error)


@pytest.mark.parametrize("kinds", [("tanh", "discrete"), ("discrete",), ("tanh",)])
def test_inferring_changes_nothing_for_the_other_modules(kinds):
    """Only the first module infers: in an update the others learn what they would learn beside one that does not."""
    game = inferring_game(4, kinds, {"infer_other_policies": False, "others_actions": "current"})
    inferring = inferring_game(
        4,
        kinds,
        {"infer_other_policies": False, "others_actions": "current"},
        per_module={"m0": {"infer_other_policies": True}},
    )
    for m, nets in inferring.weights.items():
        nets.update(game.weights[m])
    results = []
    for each in (game, inferring):
        learner = family_learner(each)
        learner._uncompiled_update(next_update(each, learner, 0)[0])
        results.append(weights_of(learner))
    plain, changed = results
    errors = {key: float((changed[key] - value).abs().max()) for key, value in plain.items()}
    assert errors["m0", "critic"] > 0.0
    for (m, net), error in errors.items():
        assert m == "m0" or error < 1e-12, (m, net, error)


# ---------------------------------------------------------------------------------------------------------------------
# What there is to learn.


def test_networks():
    """One for each other module, by its number among the sorted ids; with standard deviations for tanh boxes; none where the
    critic sees its own agent only."""
    game = inferring_game(3, ("tanh", "discrete"), {"twin_q": False}, per_module={"m2": {"critic_view": "own"}})
    plain = {"actor", "critic", "target_actor", "target_critic"}
    learner = family_learner(game)
    assert networks_of(learner, "m0") - plain == {
        "inferred_1",
        "target_inferred_1",
        "inferred_2",
        "target_inferred_2",
        "inferred_2_std",
    }
    assert networks_of(learner, "m1") - plain == {
        *("inferred_0", "target_inferred_0", "inferred_0_std"),
        *("inferred_2", "target_inferred_2", "inferred_2_std"),
    }
    assert networks_of(learner, "m2") == plain
    everything = build(config_of(game, critic_view=View("everybody"), infer_other_policies=True, twin_q=False))
    assert "inferred_0" in networks_of(everything, "m2")


def test_a_shared_module_has_one_network_which_knows_the_agent():
    game = inferring_game(SHARED, ("discrete",), {"twin_q": False}, shared=True)
    (shared,) = [m for m in game.modules if list(game.module_of.values()).count(m) == 2]
    (alone,) = [m for m in game.modules if m != shared]
    learner = family_learner(game)
    widths = {}
    for me, other in ((alone, shared), (shared, alone)):
        names = {name for name in networks_of(learner, me) if "inferred" in name}
        net = f"inferred_{game.modules.index(other)}"
        assert names == {net, f"target_{net}"}
        widths[other] = parameters(learner, me, net)[0].shape[1]
    dims = {game.module_of[a]: game.obs_dims[a] for a in game.agents}
    assert widths == {shared: dims[shared] + 2, alone: dims[alone]}


def test_reports_are_of_pairs():
    game = inferring_game(3, ("tanh", "discrete"))
    learner = family_learner(game, double=False)
    joint, arguments = next_update(game, learner, 0, double=False)
    results = learner.update(batch=joint, timesteps=env_steps(0))
    expected = game.reference().update(**arguments).reports
    for m in game.modules:
        found = {name for name in results[m] if name.startswith("inferred_") and "gradients" not in name and "rate" not in name}
        assert found - {"inferred_loss"} == set(expected[m]) and len(expected[m]) == 6
        for name, value in expected[m].items():
            assert float(results[m][name].peek()) == pytest.approx(value, rel=1e-4, abs=1e-5), (m, name)
        for j in game.agents:
            last = "kl" if hasattr(game.kinds[j], "n") else "rmse"
            names = {f"inferred_{j}_{name}" for name in ("log_likelihood", "entropy", last)}
            assert names <= found if game.module_of[j] != m else not names & found
        assert float(results[m]["inferred_0_learning_rate" if m != "m0" else "inferred_1_learning_rate"].peek()) > 0.0


@pytest.mark.parametrize(("inferred_lr", "rate"), [(None, 0.02), (0.003, 0.003)])
def test_rate_of_approximations(inferred_lr, rate):
    """Adam's first step is the rate."""
    game = inferring_game()
    learner = family_learner(game, inferred_lr=inferred_lr, lr=0.02)
    start = weights_of(learner)
    learner._uncompiled_update(next_update(game, learner, 0)[0])
    steps = {key: float((value - start[key]).abs().max()) for key, value in weights_of(learner).items()}
    inferred = {key: step for key, step in steps.items() if key[1].startswith("inferred")}
    assert len(inferred) >= 6 and inferred == pytest.approx(dict.fromkeys(inferred, rate), rel=1e-3)


@pytest.mark.parametrize(("steps", "temperature"), [(50, 1.25), (150, 0.5)])
@pytest.mark.parametrize("kinds", [("softmax",), ("discrete",)])
def test_exploration_temperature_is_that_of_the_present_env_step(kinds, steps, temperature):
    """It is in what softmax heads did, and in the policy that reports compare discrete approximations with."""
    game = inferring_game(5, kinds)
    learner = family_learner(game, exploration_temperature=[[0, 2.0], [100, 0.5]])
    joint, arguments = next_update(game, learner, 0)
    record = game.with_hyper(exploration_temperature=temperature).reference().update(**arguments)
    result = learner.update(batch=joint, timesteps=env_steps(steps))
    ours = weights_of(learner)
    for key, expected in oracle_weights(record.weights).items():
        torch.testing.assert_close(ours[key], expected, rtol=1e-10, atol=1e-10)
    for m, reports in record.reports.items():
        for name, value in reports.items():
            assert float(result[m][name].peek()) == pytest.approx(value, rel=1e-6), name


# ---------------------------------------------------------------------------------------------------------------------
# Rows.


def test_approximations_learn_from_the_newest_rows_only():
    game = inferring_game()
    drawn, newest = game.batch(16, 0), game.newest(NEWEST, 0)

    def learned(drawn, newest):
        learner = family_learner(game)
        learner._uncompiled_update(joint_batch(game, learner.schema, drawn, newest))
        return weights_of(learner)

    expected = learned(drawn, newest)
    inferred = {key for key in expected if "inferred" in key[1] and not key[1].startswith("target")}
    by_drawn, by_newest = learned(game.batch(16, 9), newest), learned(drawn, game.newest(NEWEST, 9))
    assert differing(by_drawn, expected) >= {(m, net) for m in game.modules for net in ("critic", "twin_critic", "actor")}
    assert not differing(by_drawn, expected) & inferred
    # Critics learn from targets of before.
    assert differing(by_newest, expected) & {k for k in expected if k[1].endswith("critic")} == set()
    assert differing(by_newest, expected) >= inferred


@pytest.mark.parametrize("kinds", [("tanh", "discrete"), ("softmax", "multi_discrete")])
def test_rows_of_dead_agents_do_not_count(kinds):
    game = inferring_game(6, kinds)
    drawn, newest = game.batch(16, 0), game.newest(NEWEST, 0)
    garbled = {
        a: replace(rows, **{name: torch.where(rows.alive[:, None] > 0, getattr(rows, name), 0.7) for name in ("obs", "action")})
        for a, rows in newest.items()
    }
    assert all(0 < rows.alive.sum() < NEWEST for rows in newest.values())
    results = []
    for latest in (newest, garbled):
        learner = family_learner(game)
        learner._uncompiled_update(joint_batch(game, learner.schema, drawn, latest))
        results.append(weights_of(learner))
    assert differing(*results) == set()


def test_an_agent_that_nobody_saw_alive_is_not_learned():
    """Its approximations stay, with finite numbers."""
    game = inferring_game(6, ("tanh", "discrete"), {"inferred_policy_entropy": 0.3})
    newest = game.newest(NEWEST, 0)
    gone = next(a for a in game.agents if game.module_of[a] == "m0")
    newest[gone] = replace(newest[gone], alive=0 * newest[gone].alive, acting=0 * newest[gone].acting)
    learner = family_learner(game)
    start = weights_of(learner)
    learner._uncompiled_update(joint_batch(game, learner.schema, game.batch(16, 0), newest))
    moved = differing(weights_of(learner), start)
    for m in ("m1", "m2"):
        assert (m, "inferred_0") not in moved and (m, "inferred_0_std") not in moved
        assert (m, "inferred_2" if m == "m1" else "inferred_1") in moved
    assert all(torch.isfinite(value).all() for value in weights_of(learner).values())


# ---------------------------------------------------------------------------------------------------------------------
# State.


@pytest.mark.parametrize("into", ["fresh", "itself"])
def test_restored_learner_goes_on_bit_for_bit(into):
    game = inferring_game(7, ("tanh", "discrete", "multi_discrete"), {"others_actions": "current", "policy_delay": 2})
    config = family_config(game, exploration_temperature=[[0, 2.0], [10, 0.5]])
    learner = build(config, game)

    def train(learner, numbers):
        for k in numbers:
            joint, _ = next_update(game, learner, k, double=False)
            learner.update(batch=joint, timesteps=env_steps(k))

    train(learner, range(3))
    state = pickle.loads(pickle.dumps(learner.get_state()))
    at_state = weights_of(learner)
    train(learner, range(3, 7))
    expected = weights_of(learner)
    restored = learner if into == "itself" else build(config.copy(copy_frozen=False).debugging(seed=8))
    restored.set_state(state)
    assert differing(weights_of(restored), at_state) == set()
    train(restored, range(3, 7))
    assert differing(weights_of(restored), expected) == set()
    assert differing(expected, at_state) == set(expected)


def test_newest_rows_travel():
    """To other processes, and with parts of a batch."""
    game = inferring_game()
    learner = family_learner(game, double=False)
    joint, _ = next_update(game, learner, 0, double=False)
    arrived = pickle.loads(pickle.dumps(joint.rows(slice(4, 8)))).to(torch.device("cpu"), learner.schema)
    for one, other in ((arrived, joint.rows(slice(4, 8))), (arrived.newest, joint.newest)):
        torch.testing.assert_close(one.joint_rows, other.joint_rows, rtol=0, atol=0, equal_nan=True)
    assert arrived.newest.layout is learner.layout and arrived.newest.newest is None
