"""Discrete estimators and temperatures in updates: against the oracle, in slots, in recorded updates, over env steps."""

from __future__ import annotations

import re

import pytest
import reference.maddpg as plain
import torch
from fake_graph import FakeGraph
from family_learners import family_config, family_learner, next_update, oracle_weights
from learner_games import NextNoise, build, env_steps, weights_of
from reference.estimators import estimated
from reference.family_games import random_family_game
from reference.maddpg import Box, Discrete

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning import slot_stack
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates
from rllib_maddpg.learning.update_noise import CounterNoise

PLAIN = {"twin_q": False, "policy_delay": 1, "target_policy_noise": 0.0, "infer_other_policies": False, "critic_view": "all"}
PLAIN |= {"actor_lr": 2**-7, "critic_lr": 2**-7}  # graphs have rates in single precision
ESTIMATORS = ("straight_through", "tags", "gapped_straight_through", "gumbel_rao")
FIXED = {"waiting": False, "frozen": False, "per_module": {}}
ALIKE = {"n_agents": 3, "shared": False, "dead": True, "obs_dim": 4, "hidden": [8, 8], "kinds": [Discrete(3)]}
DRAWS = 5


class Graphed(MADDPGTorchLearner):
    """As on a GPU."""

    graph_class = FakeGraph


def alike(**hyper):
    return random_family_game(2, hyper={**PLAIN, **hyper}, **FIXED, **ALIKE)


def further_draws(game, learner, size, draws):
    """The Gumbel noise that the Learner's next update draws beside the first one: by agent `[draws, size, code]`."""
    in_order = [a for m in game.modules for a in game.agents if game.module_of[a] == m]
    widths = [game.kinds[a].code_dim for a in in_order]
    drawn = NextNoise(learner).draw("gumbel", (draws + 1) * size, sum(widths))[size:].view(draws, size, -1)
    return dict(zip(in_order, drawn.split(widths, 2), strict=True))


# ------------------------------------------------------------------------------------------ the oracle


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("shape", ["shared", "current others, boxes", "inferred", "graphs"])
def test_updates_are_the_oracles_in_float64(estimator, shape, monkeypatch):
    """To 1e-9 of each network's largest weight over five updates, as the oracle's gradients are added up in another order."""
    inferred = {"infer_other_policies": True, "others_actions": "current"}
    hyper, given, settings = {
        "shared": ({}, {"kinds": ["multi_discrete", "discrete"], "n_agents": 4, "shared": True, "dead": True}, {}),
        "current others, boxes": ({"others_actions": "current"}, {"kinds": ["discrete", "tanh"], "n_agents": 3}, {}),
        "inferred": (inferred, {"kinds": ["discrete", "multi_discrete"], "n_agents": 3, "shared": False}, {}),
        "graphs": ({"others_actions": "replay"}, ALIKE, {"learner_class": Graphed}),
    }[shape]
    # The exploration's temperature has no say in the actor loss.
    game = random_family_game(6, hyper={**PLAIN, **hyper, "gumbel_softmax_temperature": 0.7}, **FIXED, **given)
    learner = family_learner(
        game,
        discrete_gradient_estimator=estimator,
        straight_through_gap=0.6,
        gumbel_rao_samples=DRAWS,
        gumbel_softmax_temperature=[[0, 0.5], [4, 0.9]],
        **settings,
    )
    oracle = game.reference()
    for k in range(5):
        learner._env_steps = k
        # 0.5 to 0.9 over four steps: linear, or by the fourth root of 1.8 in each.
        temperature = 0.5 * 1.8 ** (k / 4) if estimator == "tags" else 0.5 + 0.1 * k
        joint, arguments = next_update(game, learner, 50 + k)
        further = further_draws(game, learner, len(joint), DRAWS)
        more = {id(noise): further[a] for a, noise in arguments["noise"].items()}

        def by_estimator(kind, logits, noise, _, temperature=temperature, more=more):
            return estimated(estimator, kind.parts, logits, noise, temperature, 0.6, more[id(noise)])

        monkeypatch.setattr(plain, "straight_through", by_estimator)
        record = oracle.update(**arguments)
        learner._updates_to_report = None
        learner._uncompiled_update(joint)
    learner.finish_updates()
    ours = weights_of(learner)
    for (m, net), expected in oracle_weights(record.weights).items():
        error = float((ours[m, net] - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        assert error < 1e-9, f"{net} of {m} is off by {error}"


def test_estimators_differ():
    """Else the tests above would prove nothing; actors only, for critics learn from rows."""
    game, found = alike(), {}
    for estimator in ESTIMATORS:
        learner = family_learner(game, discrete_gradient_estimator=estimator)
        for k in range(2):
            learner.update(batch=next_update(game, learner, k)[0], timesteps=env_steps(10_000))
        found[estimator] = weights_of(learner)
    for one in ESTIMATORS:
        for other in ESTIMATORS:
            same = {key[1] for key, w in found[one].items() if torch.equal(w, found[other][key])}
            assert ("actor" in same) == (one == other)


# ------------------------------------------------------------------------------------------ noise


class _Rows:
    """So many rows of a width, as noise asks for them."""

    def __init__(self, rows, width):
        self.joint_rows = torch.zeros(rows, 1, dtype=torch.float64)
        self.layout = self
        self.action_dim = width

    def __len__(self):
        return len(self.joint_rows)


def test_further_draws_are_the_same_for_any_number_of_learners():
    """And have nothing to do with the first draw, which is as it was; of interleaved rows each has its own."""
    keys, cpu = CounterNoise.keys_of(3), torch.device("cpu")
    assert set(keys) == {"gumbel", "normal"}  # what checkpoints have
    whole = CounterNoise(keys, 0, cpu)
    (first,), (further,) = whole.draw("gumbel", [_Rows(8, 3)]), whole.draw("gumbel", [_Rows(8, 3)], 2)
    assert first.shape == (8, 3) and further.shape == (16, 3)
    assert len(torch.cat([first, further]).unique()) == 24 * 3
    halves = [CounterNoise(keys, rank, cpu, world=2) for rank in range(2)]
    parts = [noise.draw("gumbel", [_Rows(4, 3)], 2)[0].view(2, 4, 3) for noise in halves]
    assert torch.equal(torch.cat(parts, 1), further.view(2, 8, 3))
    assert torch.equal(torch.cat([noise.draw("gumbel", [_Rows(4, 3)])[0] for noise in halves]), first)
    apart = whole.draw("gumbel", [_Rows(4, 3), _Rows(4, 3)], 2)
    assert torch.equal(torch.stack([own.view(2, 4, 3) for own in apart], 2).view(16, 3), further)


def test_further_draws_of_an_old_checkpoint():
    """Whose noise is a generator's."""
    learner = family_learner(alike(), discrete_gradient_estimator="gumbel_rao", gumbel_rao_samples=3)
    game = alike()
    state = learner.get_state()
    state["gumbel_rng"] = torch.Generator().manual_seed(3).get_state().numpy()
    del state["noise_keys"]
    learner.set_state(state)
    before = weights_of(learner)
    learner.update(batch=next_update(game, family_learner(game), 1)[0], timesteps=env_steps(1))
    assert not torch.equal(weights_of(learner)["m0", "actor"], before["m0", "actor"])


# ------------------------------------------------------------------------------------------ temperatures


def temperatures(learner):
    learner._tie()
    return {m: float(t) for g in learner._groups["actor"] for m, t in zip(g.modules, gs(g), strict=True)}


def gs(group):
    return group.settings.gumbel_softmax_temperature.flatten()


def test_a_module_has_its_own_schedule():
    """Modules are computed as one all the same; what never changes is not written."""
    game = alike()
    own = {"m1": MADDPGConfig.overrides(gumbel_softmax_temperature=[[0, 2.0], [100, 1.0]])}
    config = family_config(game, gumbel_softmax_temperature=0.5).multi_agent(algorithm_config_overrides_per_module=own)
    learner = build(config, game, double=True)
    for steps, expected in ((0, 2.0), (50, 1.5), (1000, 1.0)):
        learner.update(batch=next_update(game, learner, steps)[0], timesteps=env_steps(steps))
        assert temperatures(learner) == {"m0": 0.5, "m1": expected, "m2": 0.5}
    assert len(learner._groups["actor"]) == 1
    learner._groups = {}  # as after a change of networks
    assert temperatures(learner)["m1"] == 1.0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_number_is_a_schedule_that_stands_still(estimator):
    """Bit for bit."""
    game, found = alike(), []
    still = [[0, 0.7], [10, 0.7]]
    for value in (0.7, still) if estimator != "tags" else ([[0, 0.7], [1_000_000, 0.07]], 0.7):
        learner = family_learner(game, double=False, gumbel_softmax_temperature=value, discrete_gradient_estimator=estimator)
        for k in range(3):
            learner.update(batch=next_update(game, learner, k, double=False)[0], timesteps=env_steps(5000 * k))
        found.append(weights_of(learner))
    assert all(torch.equal(w, found[1][key]) for key, w in found[0].items())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_checkpoint_goes_on_at_its_temperature(estimator):
    game = alike()
    settings = {"gumbel_softmax_temperature": [[0, 3.0], [100, 0.2]], "discrete_gradient_estimator": estimator}
    whole, first, second = (family_learner(game, double=False, **settings) for _ in range(3))
    for k in range(4):
        joint, _ = next_update(game, whole, k, double=False)
        whole.update(batch=joint, timesteps=env_steps(20 * k))
        learner = first if k < 2 else second
        if k == 2:
            second.set_state(first.get_state())
        learner.update(batch=joint, timesteps=env_steps(20 * k))
    assert all(torch.equal(w, weights_of(second)[key]) for key, w in weights_of(whole).items())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_recorded_updates_see_the_temperature_of_their_time(estimator):
    """Those that are replayed are as those that are not, bit for bit."""
    game = alike()
    settings = {
        "gumbel_softmax_temperature": [[0, 3.0], [100, 0.2]],
        "discrete_gradient_estimator": estimator,
        "gumbel_rao_samples": 3,
    }
    eager, graph = family_learner(game, **settings), family_learner(game, learner_class=Graphed, **settings)
    for k in range(6):
        joint, _ = next_update(game, eager, k)
        for learner in (eager, graph):
            learner.update(batch=joint, timesteps=env_steps(15 * k))
    assert graph._graphs is not None and graph._num_updates == 6
    assert all(torch.equal(w, weights_of(graph)[key]) for key, w in weights_of(eager).items())


@pytest.mark.parametrize(
    ("estimator", "member"),
    [*((name, {}) for name in ESTIMATORS), ("gumbel_rao", {"infer_other_policies": True, "others_actions": "current"})],
)
def test_slots_have_temperatures_of_their_own(estimator, member, monkeypatch):
    """Trials of other schedules and gaps, in one pass. To 1e-9: products of several games are added up in another order."""
    monkeypatch.setattr(slot_stack.SlotStack, "pays", lambda self, due, rows: True)
    game, slots, pairs = alike(**member), SlotUpdates(), []
    for seed, temperature in enumerate((0.5, [[0, 3.0], [40, 0.3]], [[0, 0.2], [20, 2.0]])):
        settings = {"gumbel_softmax_temperature": temperature, "straight_through_gap": 0.5 + seed, "gumbel_rao_samples": 3}
        config = family_config(game, discrete_gradient_estimator=estimator, **settings).debugging(seed=seed)
        pairs.append([build(config.copy(copy_frozen=False), game, double=True) for _ in range(2)])
        slots.add(pairs[-1][0])
    for k in range(4):
        calls = []
        for number, (ours, alone) in enumerate(pairs):
            joint, _ = next_update(game, alone, 10 * number + k)
            calls.append(SlotCall(ours, ours.begin_call(joint, env_steps(10 * k), len(joint), True)))
            alone.update(batch=joint, timesteps=env_steps(10 * k))
        slots.make(calls)
        assert all(call.error is None for call in calls)
    for ours, alone in pairs:
        assert temperatures(ours) == temperatures(alone)
        expected = weights_of(alone)
        for key, weights in weights_of(ours).items():
            assert (weights - expected[key]).norm() <= 1e-9 * expected[key].norm(), key


def test_boxes_pass_them_over():
    game = random_family_game(2, hyper=PLAIN, **FIXED, **{**ALIKE, "kinds": [Box(2)]})
    learners = [family_learner(game, discrete_gradient_estimator=name) for name in ("straight_through", "gumbel_rao")]
    for learner in learners:
        learner.update(batch=next_update(game, learner, 1)[0], timesteps=env_steps(1))
    assert all(torch.equal(w, weights_of(learners[1])[key]) for key, w in weights_of(learners[0]).items())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"discrete_gradient_estimator": "reinforce"}, "must be one of ['straight_through', 'tags', 'gapped_straight_through'"),
        ({"straight_through_gap": -1}, "`straight_through_gap`=-1 is not allowed: it must be a number >= 0"),
        ({"gumbel_rao_samples": 0}, "`gumbel_rao_samples`=0 is not allowed: it must be a whole number > 0"),
        (
            {"gumbel_softmax_temperature": 0},
            "it must be a number > 0, from 1e-06 to 1e+06, or a schedule [[0, v], [env_steps, v], ...]",
        ),
        ({"gumbel_softmax_temperature": [[0, 1.0], [10, 0.0]]}, "it must be a number > 0, from 1e-06 to 1e+06, or a schedule"),
        ({"gumbel_softmax_temperature": [[5, 1.0], [10, 0.5]]}, "it must be a number > 0, from 1e-06 to 1e+06, or a schedule"),
        ({"gumbel_softmax_temperature": "cold"}, "`gumbel_softmax_temperature`='cold' is not allowed"),
    ],
)
def test_validate_refuses(settings, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        MADDPGConfig().environment("simple_adversary").training(**settings).validate()
