"""Updates from normalized rows: the oracle gets rows that the test normalizes itself, from plain sums of all that was drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_learners import draw_all_noise, family_learner, joint_batch, oracle_weights
from large_numbers import ActsOnRawObservations, PlainSums, enlarged
from learner_games import interleaved, spaces_of, weights_of
from masked_learners import masked_learner
from reference.family_games import FamilyGame, random_family_game
from reference.maddpg import Discrete
from reference.masks import masked_game

from rllib_maddpg.learning.normalizer import Normalizer
from rllib_maddpg.learning.slot_stack import SlotStack
from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates
from rllib_maddpg.modules.rl_module import HEAD_OUTPUT
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import Column, RowSchema
from rllib_maddpg.sampling.actors import JointActors

UPDATES, ROWS, NEWEST = 20, 16, 12
BOTH = {"normalize_observations": True, "normalize_rewards": True}


def next_update(game: FamilyGame, learner, sums: PlainSums, seed: int, newest: bool = True):
    """Raw rows for the Learner's next update, and the oracle's arguments: the same rows, normalized."""
    apart = learner.config.minibatch_per_module
    batches = {m: enlarged(game, game.batch(ROWS, seed + 1000 * d)) for d, m in enumerate(game.modules)}
    if not apart:
        batches = dict.fromkeys(game.modules, batches[game.modules[0]])
    for batch in batches.values() if apart else [batches[game.modules[0]]]:
        sums.add(batch)
    latest = enlarged(game, game.newest(NEWEST, seed)) if newest else None
    noises, smoothings = draw_all_noise(game, learner, [ROWS] * (len(batches) if apart else 1))
    by_module = [dict(zip(batches, own if apart else own * len(batches), strict=True)) for own in (noises, smoothings)]
    arguments = {
        "batches": {m: sums.normalized(batch) for m, batch in batches.items()},
        "noise": by_module[0],
        "smoothing": by_module[1],
        "newest": sums.normalized(latest) if newest else None,
    }
    rows = interleaved(list(batches.values())) if apart else batches[game.modules[0]]
    return joint_batch(game, learner.schema, rows, latest), arguments


def assert_are_the_oracles(learner, record, what: str) -> None:
    ours = weights_of(learner)
    for key, weights in oracle_weights(record.weights).items():
        error = float((ours[key] - weights).abs().max()) / max(1.0, float(weights.abs().max()))
        assert error < 1e-8, f"{what}: {key} is off by {error}"


def game_of(seed: int, **given) -> FamilyGame:
    kinds = [("tanh", "discrete"), ("softmax", "multi_discrete")][seed % 2]
    given = {"waiting": False, "dead": True, "frozen": False, **given}
    return random_family_game(seed, kinds=kinds, **given)


CASES = {
    "plain": (game_of(3, n_agents=3, shared=False, hyper={"infer_other_policies": False}, per_module={}), BOTH),
    "shared": (game_of(4, n_agents=4, shared=True, per_module={}), BOTH),
    "rows_per_module": (game_of(6, n_agents=3, shared=True), {**BOTH, "minibatch_per_module": True}),
    "inferred": (game_of(7, n_agents=3, shared=True, per_module={}, hyper={"infer_other_policies": True}), BOTH),
    "frozen": (game_of(9, n_agents=4, shared=True, frozen=True, per_module={}), BOTH),
    "own_view": (game_of(3, n_agents=3, hyper={"critic_view": "own"}, per_module={}), BOTH),
    "observations": (game_of(10, n_agents=3), {"normalize_observations": True}),
    "rewards": (game_of(11, n_agents=3), {"normalize_rewards": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_updates_are_the_oracles_in_float64(case):
    """20 updates; 1e-8 of the largest weight leaves room for sums in another order, which Adam enlarges."""
    game, settings = CASES[case]
    learner, oracle = family_learner(game, **settings), game.reference()
    sums = PlainSums(game, settings.get("normalize_observations", False), settings.get("normalize_rewards", False))
    if game.frozen:
        oracle.__class__, oracle.sums = ActsOnRawObservations, sums
    for k in range(UPDATES):
        joint, arguments = next_update(game, learner, sums, 10 * k)
        record = oracle.update(**arguments)
        learner._uncompiled_update(joint)
        assert_are_the_oracles(learner, record, f"update {k}")
    start = oracle_weights(game.weights)
    assert all(torch.equal(weights_of(learner)[key], own) == (key[0] in game.frozen) for key, own in start.items())


def test_the_cases_are_what_they_say():
    assert CASES["frozen"][0].frozen and not CASES["plain"][0].frozen
    assert all(len(game.agents) > len(game.modules) for game, _ in (CASES["shared"], CASES["frozen"]))
    assert any(game.reference().inferred_modules(m) for game in [CASES["inferred"][0]] for m in game.modules)
    game = CASES["plain"][0]
    rows = [enlarged(game, game.batch(ROWS, 0))[a] for a in game.agents]
    assert any((own.alive == 0).any() for own in rows)
    assert max(float(own.obs.abs().max()) for own in rows) > 100 > 1e-2 > max(float(own.reward.abs().max()) for own in rows)


def small(**given) -> FamilyGame:
    hyper = {"infer_other_policies": False, "policy_delay": 1, "twin_q": False}
    return game_of(3, n_agents=3, shared=True, per_module={}, hyper=hyper, **given)


def moments(learner) -> dict[str, torch.Tensor]:
    """All that is counted, and what actors see, of all modules."""
    return {
        f"{m}.{name}": value.clone()
        for m in learner.layout.modules
        for name, value in learner.module[m].unwrapped().named_buffers()
    }


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_moments_are_those_of_all_living_rows():
    """A shared module counts its agents together. Rounding only: 1e-12 of float64 sums."""
    game = small()
    learner, sums = family_learner(game, **BOTH), PlainSums(game)
    for k in range(3):
        learner._uncompiled_update(next_update(game, learner, sums, k)[0])
    for m in game.modules:
        own = learner.module[m].unwrapped()
        seen, earned = np.concatenate(sums.seen[m]), np.concatenate(sums.earned[m])
        assert float(own.moments.obs_count) == float(own.moments.reward_count) == len(seen) > 0
        np.testing.assert_allclose(own.moments.obs_mean.numpy(), seen.mean(0), rtol=1e-12)
        np.testing.assert_allclose(own.moments.obs_deviations.numpy(), len(seen) * seen.var(0), rtol=1e-10)
        np.testing.assert_allclose(float(own.moments.reward_squares), np.square(earned).sum(), rtol=1e-12)
        np.testing.assert_allclose(own.obs_filter.mean.numpy(), seen.mean(0), rtol=1e-12)
        np.testing.assert_allclose(own.obs_filter.scale.numpy(), 1.0 / seen.std(0), rtol=1e-10)


def with_observations(game: FamilyGame, values: np.ndarray, seed: int = 0):
    """Rows in which everybody lives and observes one of `values` `[B]` in all columns, in float32 as a buffer has it."""
    batch = game.batch(len(values), seed)
    column = torch.tensor(values.astype(np.float32).astype(np.float64))
    for rows in batch.values():
        rows.obs, rows.next_obs = (column[:, None].expand_as(rows.obs).clone() for _ in range(2))
    return batch


def test_a_small_width_far_from_zero_is_found():
    """Of 1e4 +- 1 in float32. Sums of squares about 0 in float32 would leave nothing of it; the first batch's, in float64,
    leave 1e16 * 1e-16 / 1e-8 of it, so 1e-7."""
    game = small(dead=False)
    learner = family_learner(game, double=False, **BOTH)
    rng, seen = np.random.default_rng(0), []
    for k in range(30):
        values = 1e4 + rng.normal(size=ROWS)
        seen.append(values.astype(np.float32).astype(np.float64))
        learner._uncompiled_update(joint_batch(game, learner.schema, with_observations(game, values, k), None, double=False))
    own = learner.module[game.modules[0]].unwrapped()
    expected = np.concatenate(seen)
    np.testing.assert_allclose(own.moments.obs_mean.numpy(), expected.mean(), rtol=1e-13)
    np.testing.assert_allclose(own.obs_filter.scale.numpy(), 1.0 / expected.std(), rtol=1e-6)  # float32
    np.testing.assert_allclose((own.moments.obs_deviations / own.moments.obs_count).sqrt().numpy(), expected.std(), rtol=1e-7)
    # What networks see of these rows has mean 0 (but for the rounding of the mean: 5e-4) and width 1.
    x = own.obs_filter(torch.tensor(expected, dtype=torch.float32)[:, None].expand(-1, len(own.obs_filter.mean)))
    assert abs(float(x.mean())) < 1e-3 and abs(float(x.std()) - 1.0) < 1e-2


@pytest.mark.parametrize("value", [0.0, 12345.678, -3e-20, 1e30])
def test_a_constant_column_is_zero(value):
    game = small(dead=False)
    learner = family_learner(game, double=False, **BOTH)
    for k in range(3):
        rows = joint_batch(game, learner.schema, with_observations(game, np.full(ROWS, value), k), None, double=False)
        seen, _ = learner._normalizer.normalized(rows, game.modules) if k else (None, learner._uncompiled_update(rows))
        if k:
            assert float(seen.columns["obs"].abs().max()) == 0.0
            learner._uncompiled_update(rows)
    own = learner.module[game.modules[0]].unwrapped()
    assert own.obs_filter.scale.tolist() == [1.0] * len(own.obs_filter.scale)
    assert all(bool(torch.isfinite(p).all()) for p in weights_of(learner).values())


def test_zeros_of_agents_that_are_not_there_stay_zeros_and_rows_stay_raw():
    game = small()
    learner, sums = family_learner(game, **BOTH), PlainSums(game)
    joint, _ = next_update(game, learner, sums, 0)
    before = joint.joint_rows.clone()
    learner._uncompiled_update(joint)
    seen, _ = learner._normalizer.normalized(joint, game.modules)
    for rows in (joint, seen.raw):
        assert torch.equal(rows.joint_rows.view(torch.int64), before.view(torch.int64))
    for agent, slot in zip(learner.layout.agents, learner.layout.slots, strict=True):
        k = learner.layout.index(agent)
        alive, next_alive = (joint.columns[name][:, k] > 0 for name in ("alive", "next_alive"))
        assert not seen.columns["obs"][~alive, slot.obs].any()
        assert not seen.columns["new_obs"][~alive & ~next_alive, slot.obs].any()
        assert (seen.columns["obs"][alive, slot.obs] != joint.columns["obs"][alive, slot.obs]).all()
    for name in ("actions", "terminateds", "alive", "next_alive", "truncateds", "episodes", "t"):
        assert torch.equal(seen.columns[name], joint.columns[name]), name


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("column", ["rewards", "obs"])
def test_bad_updates_leave_the_moments_as_they_were(column, skip):
    game = small(dead=False)
    learner, sums = family_learner(game, **BOTH), PlainSums(game)
    learner.config = learner.config.copy(copy_frozen=False).framework(torch_skip_nan_gradients=skip)
    learner._uncompiled_update(next_update(game, learner, sums, 0)[0])
    before, bad = moments(learner), next_update(game, learner, sums, 1)[0]
    bad.columns[column][3, 0] = np.nan
    if skip:
        learner._uncompiled_update(bad)
    else:
        with pytest.raises(ValueError, match=f"column '{column}' of module 'm0'"):
            learner._uncompiled_update(bad)
    assert same(moments(learner), before)
    learner._uncompiled_update(next_update(game, learner, sums, 2)[0])
    assert not same(moments(learner), before)


def test_what_a_frozen_module_sees_stays():
    """Its observations are counted for the critics of the others."""
    game, settings = CASES["frozen"]
    (frozen,) = game.frozen
    learner, sums = family_learner(game, **settings), PlainSums(game)
    learner._tie()
    own = learner.module[frozen].unwrapped()
    own.obs_filter.mean.fill_(2.0)
    for k in range(2):
        learner._uncompiled_update(next_update(game, learner, sums, k)[0])
    assert own.obs_filter.mean.tolist() == [2.0] * len(own.obs_filter.mean)
    assert own.obs_filter.scale.tolist() == [1.0] * len(own.obs_filter.scale)
    assert float(own.moments.obs_count) == len(np.concatenate(sums.seen[frozen]))


def test_it_stays_in_a_pass_over_several_learners(monkeypatch):
    """Everything is as of each Learner alone; to 1e-9, for products of several games are added up in another order."""
    monkeypatch.setattr(SlotStack, "pays", lambda self, due, rows: True)
    game, settings = CASES["frozen"]
    (frozen,) = game.frozen
    slots, pairs = SlotUpdates(), [[family_learner(game, **settings) for _ in range(2)] for _ in range(2)]
    for ours, _ in pairs:
        slots.add(ours)
    for k in range(3):
        rows = [next_update(game, alone, PlainSums(game), 10 * k + i)[0] for i, (_, alone) in enumerate(pairs)]
        calls = [SlotCall(ours, ours.begin_call(own, {}, ROWS)) for (ours, _), own in zip(pairs, rows, strict=True)]
        slots.make(calls)
        for (_, alone), own in zip(pairs, rows, strict=True):
            alone.update(batch=own)
    assert slots.passes == 3
    for ours, alone in pairs:
        found = {**moments(ours), **weights_of(ours)}
        for key, expected in {**moments(alone), **weights_of(alone)}.items():
            torch.testing.assert_close(found[key], expected, rtol=1e-9, atol=1e-9, msg=str(key))
        assert moments(ours)[f"{frozen}.obs_filter.mean"].abs().max() == 0.0


def test_later_rewards_are_scaled_alike():
    """Those of n-step returns: as many numbers for each agent as there are later steps."""
    game = small(dead=False)
    learner = family_learner(game, **BOTH)
    learner._tie()
    schema = RowSchema(learner.layout, own=[Column("later_rewards", "agents", width=2, stored=False)])
    rows = joint_batch(game, schema, enlarged(game, game.batch(ROWS, 0)), None).joint_rows
    batch = JointBatch(schema, rows)
    batch.columns["later_rewards"].copy_(torch.arange(ROWS * 6, dtype=torch.float64).view(ROWS, 6))
    seen, _ = learner._normalizer.normalized(batch, game.modules)
    ratio = seen.columns["rewards"] / batch.columns["rewards"]
    later = seen.columns["later_rewards"][1:] / batch.columns["later_rewards"][1:]
    torch.testing.assert_close(later.unflatten(1, (3, 2)), ratio[1:, :, None].expand(-1, -1, 2))
    assert ratio.min() > 100


def test_a_global_state_is_normalized_and_belongs_to_no_module():
    """Also at x', by the moments of the states at x; a user's column beside it stays as it is."""
    game = small(dead=False)
    learner = family_learner(game, **BOTH)
    learner._tie()
    state, users = Column("state", "env", width=2, at_next=True), Column("mine", "env", width=2, at_next=True)
    schema = RowSchema(learner.layout, extra=[users], own=[state])
    modules = {m: learner.module[m].unwrapped() for m in game.modules}

    def new_normalizer(old=None):
        return Normalizer(schema, modules, True, True, next(modules["m0"].parameters()), old=old)

    normalizer, rng, states = new_normalizer(), np.random.default_rng(0), []
    for k in range(3):
        batch = JointBatch(schema, joint_batch(game, schema, enlarged(game, game.batch(ROWS, k)), None).joint_rows)
        for name in ("state", "new_state", "mine", "new_mine"):
            batch.columns[name].copy_(torch.tensor(1e4 + rng.normal(size=(ROWS, 2))))
        states.append(batch.columns["state"].numpy().copy())
        seen, moments = normalizer.normalized(batch, game.modules)
        moments.keep(None)
    mean, std = np.concatenate(states).mean(0), np.concatenate(states).std(0)
    for name in ("state", "new_state"):
        expected = (batch.columns[name].numpy() - mean) / std
        np.testing.assert_allclose(seen.columns[name].numpy(), expected, rtol=1e-6, atol=1e-6)  # 1e4 in float64's squares
    assert torch.equal(seen.columns["mine"], batch.columns["mine"])
    saved, other = normalizer.left_out(), new_normalizer()
    assert list(saved) == [""] and saved[""]["state_count"][0] == 3 * ROWS
    other.set_left_out(saved)
    assert all(np.array_equal(other.left_out()[""][name], value) for name, value in saved[""].items())
    assert all(np.array_equal(new_normalizer(old=other).left_out()[""][name], value) for name, value in saved[""].items())


def test_columns_of_an_action_mask_are_as_they_were():
    game = masked_game(1, kinds=[Discrete(3)], n_agents=3, shared=False, frozen=False, dead=True, per_module={})
    learner = masked_learner(game, **BOTH)
    joint = joint_batch(game, learner.schema, game.batch(ROWS, 0), game.newest(NEWEST, 0))
    learner._uncompiled_update(joint)
    seen, _ = learner._normalizer.normalized(joint, game.modules)
    for slot in learner.layout.slots:
        own = learner.module[slot.module].unwrapped().obs_filter
        for column in ("obs", "new_obs"):
            mine, raw = (batch.columns[column][:, slot.obs] for batch in (seen, joint))
            assert torch.equal(mine[:, slot.mask], raw[:, slot.mask]) and 0.0 < raw[:, slot.mask].mean() < 1.0
            assert not torch.equal(mine, raw)
        assert own.mean[slot.mask].tolist() == [0.0] * 3 and own.scale[slot.mask].tolist() == [1.0] * 3


def test_without_the_settings_there_is_nothing():
    game = small()
    learner = family_learner(game)
    learner._uncompiled_update(joint_batch(game, learner.schema, game.batch(ROWS, 0), None))
    module = learner.module[game.modules[0]].unwrapped()
    assert learner._normalizer is None and not list(module.buffers())
    assert "moments" not in learner.get_state() and module.actor_state() == [*module.actor.parameters()]


@pytest.mark.parametrize("kind", [Discrete(3), "tanh"])
def test_a_runner_does_what_the_learner_says(kind):
    """NumPy's forward and torch's, on raw observations, for a shared and a single module, to 1e-6."""
    game = random_family_game(3, n_agents=3, kinds=[kind], shared=True, frozen=False, waiting=False, per_module={})
    learner, sums = family_learner(game, double=False, **BOTH), PlainSums(game)
    for k in range(3):
        rows = enlarged(game, game.batch(ROWS, k))
        latest = enlarged(game, game.newest(NEWEST, k))
        learner._uncompiled_update(joint_batch(game, learner.schema, rows, latest, double=False))
        sums.add(rows)
    modules = learner.config.get_multi_rl_module_spec(spaces=spaces_of(learner.config), inference_only=True).build()
    runner = {m: modules[m].unwrapped() for m in learner.layout.modules}
    networks, filters = ({m: getattr(x, name) for m, x in runner.items()} for name in ("acting_networks", "obs_filter"))
    actors = JointActors(learner.layout, networks, filters)
    mine = [t for x in runner.values() for t in x.actor_state()]
    torch._foreach_copy_([t.data for t in mine], [t.data for t in learner.actor_state()])
    assert actors.is_current(networks, filters)
    obs = joint_batch(game, learner.schema, rows, None, double=False).columns["obs"].numpy()
    outputs = actors(obs)
    for slot in learner.layout.slots:
        module = learner.module[slot.module].unwrapped()
        expected = module.forward_exploration({"obs": torch.from_numpy(obs[:, slot.obs].copy())})[HEAD_OUTPUT]
        np.testing.assert_allclose(outputs[:, slot.actions], expected.numpy(), rtol=1e-6, atol=1e-6)
        plain = module.actor(torch.from_numpy(obs[:, slot.obs].copy())).detach().numpy()
        assert np.abs(plain - expected.numpy()).max() > 0.01
