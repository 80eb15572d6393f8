"""The Learner against the oracle, and its promises about frozen modules, bad numbers, schedules, state and metrics."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import gymnasium as gym
import numpy as np
import pytest
import torch
from learner_games import (
    NextNoise,
    SpacesEnv,
    build,
    columns_of,
    config_of,
    draw_noise,
    env_steps,
    interleaved,
    multi_agent_batch,
    parameters,
    weights_of,
)
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from reference.maddpg import NETS, Box, Discrete, Game, Hyper, clip_gradients, flat, random_game

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning.gradients import ClippedGradients
from rllib_maddpg.learning.group_optimizer import GroupOptimizer
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.modules import critic_inputs
from rllib_maddpg.modules.critic_inputs import CriticInputs
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import Column, RowSchema

# A game has boxes of one head only, because `actor_head` is one setting for all agents.
KINDS = (
    ("tanh", "discrete", "multi_discrete"),
    ("softmax", "multi_discrete", "discrete"),
    ("discrete", "tanh"),
    ("multi_discrete", "softmax"),
)
SEEDS = range(16)


def game_of(seed: int) -> Game:
    # `waiting=False`: in our rows an agent acts whenever it is alive.
    return random_game(seed, kinds=KINDS[seed % len(KINDS)], waiting=False)


def small_game(**settings) -> Game:
    """Three agents with a module each: box, discrete, box."""
    settings = {"n_agents": 3, "shared": False, "frozen": False, "dead": False} | settings
    return random_game(1, kinds=("tanh", "discrete"), waiting=False, **settings)


def per_module(seed: int) -> bool:
    """Whether the seed's Learner runs with `minibatch_per_module`."""
    return seed % 3 == 2


def rows_and_noise(game: Game, learner, seed: int, size: int = 16):
    """Rows for the Learner, and the oracle's arguments: the same rows, and the noise that the Learner will draw."""
    noise = NextNoise(learner)
    if not learner.config.minibatch_per_module:
        batch = game.batch(size, seed)
        return batch, (batch, draw_noise(game, noise, size))
    batches = {m: game.batch(size, seed + 1000 * (d + 1)) for d, m in enumerate(game.modules)}
    noises = {m: draw_noise(game, noise, size, d, len(batches)) for d, m in enumerate(game.modules)}
    return interleaved(list(batches.values())), (batches, noises)


def vector(tensors) -> torch.Tensor:
    return torch.cat([t.detach().double().flatten() for t in tensors])


def oracle_weights(weights: Mapping) -> dict[tuple[str, str], torch.Tensor]:
    return {(m, net): vector(flat(weights[m][net])) for m in weights for net in NETS}


def metrics_of(results: Mapping, module_id: str) -> dict[str, float]:
    return {name: float(stats.peek()) for name, stats in results[module_id].items()}


# ---------------------------------------------------------------------------------------------------------------------
# The update is the oracle's.


def test_the_random_games_have_everything():
    games = [game_of(seed) for seed in SEEDS]
    for seen, everything in (
        ({type(k).__name__ for g in games for k in g.kinds.values()}, {"Box", "Discrete", "MultiDiscrete"}),
        ({k.head for g in games for k in g.kinds.values() if isinstance(k, Box)}, {"tanh", "softmax"}),
        ({(g.hyper.grad_clip is None) or g.hyper.grad_clip_by for g in games}, {True, "global_norm", "norm", "value"}),
        ({g.hyper.critic_loss for g in games}, {"mse", "huber"}),
        ({(g.hyper.others_actions, per_module(s)) for s, g in zip(SEEDS, games, strict=True)}, 4),
        ({(g.dead, bool(g.frozen)) for g in games}, 4),
        ({(len(g.modules) < len(g.agents), bool(g.frozen)) for g in games}, 4),
        ({g.hyper.policy_reg > 0 for g in games}, 2),
    ):
        assert seen == everything or len(seen) == everything


@pytest.fixture
def kept_gradients(monkeypatch):
    """Has all optimizers leave clipped gradients in `param.grad`, from where torch's own take them."""
    step = GroupOptimizer.step

    def keep_and_step(self, gradients, members, skip=None):
        self._hand_out(gradients)
        step(self, gradients, members)

    monkeypatch.setattr(GroupOptimizer, "step", keep_and_step)


@pytest.fixture(params=["as drawn", "empty columns"])
def picks_columns(request, monkeypatch):
    """In "empty columns" every other one of x and x' is zero, others in later updates, and critics pick out what is left."""
    if request.param == "empty columns":
        draw = Game.batch

        def emptied(game, size, seed):
            batch = draw(game, size, seed)
            for i, rows in enumerate(batch.values()):
                first = (seed + i) % 2
                rows.obs[:, first::2] = 0.0
                rows.next_obs[:, 1 - first :: 2] = 0.0
            return batch

        monkeypatch.setattr(Game, "batch", emptied)
        monkeypatch.setattr(critic_inputs, "MIN_VALUES", 0)
        monkeypatch.setattr(critic_inputs, "PICKING_COSTS_ROWS", 0)
    return request.param == "empty columns"


@pytest.mark.parametrize("seed", SEEDS)
def test_update_is_the_oracles_in_float64(seed, kept_gradients, picks_columns):
    """Losses, clipped gradients and all weights, over three updates, so that Adam's moments and the targets matter.

    Both sides are float64, so they may differ by rounding only: errors are measured in units of 1 or, if that is more,
    of the largest entry. Some 1e-16 is what is seen; 1e-10 leaves room for Adam, whose first step divides a gradient by
    itself.
    """

    def same(ours, expected, what):
        error = float((ours - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        assert error < 1e-10, f"update {k}: {what} is off by {error}"

    game = game_of(seed)
    learner = build(config_of(game, minibatch_per_module=per_module(seed)), game, double=True)
    oracle = game.reference()
    for k in range(3):
        rows, oracle_args = rows_and_noise(game, learner, 10 * seed + k)
        record = oracle.update(*oracle_args)
        joint = JointBatch.from_modules(learner.schema, columns_of(game, rows))
        learner._uncompiled_update(joint)
        assert (
            CriticInputs(joint.joint_rows[:, : learner.layout.obs_dim + learner.layout.action_dim]).columns is not None
        ) == picks_columns
        for m in oracle.trained:
            for name, loss, grads in (
                ("critic", record.critic_loss[m], record.critic_grads[m]),
                ("actor", record.actor_loss[m], record.actor_grads[m]),
            ):
                same(
                    learner._update_metrics.noted[m, f"{name}_loss"],
                    torch.tensor(loss, dtype=torch.float64),
                    f"{name} loss of {m}",
                )
                norm = vector(grads).norm()
                same(learner._update_metrics.noted[m, f"{name}_gradients_norm"], norm, f"{name} gradient norm of {m}")
                clipped = vector(clip_gradients(grads, game.hyper.grad_clip, game.hyper.grad_clip_by))
                same(vector(p.grad for p in parameters(learner, m, name)), clipped, f"{name} gradient of {m}")
        for (m, net), weights in oracle_weights(record.weights).items():
            same(weights_of(learner)[m, net], weights, f"{net} of {m}")


@pytest.mark.parametrize(("rows", "empty", "picks"), [(1024, 64, True), (1024, 16, False), (256, 700, False), (256, 850, True)])
def test_critics_pick_columns_where_it_pays(rows, empty, picks):
    """Of 320 or 1024 columns some are zero, one of them but for a NaN, which must not get lost."""
    values = torch.ones(rows, 320 if rows == 1024 else 1024)
    values[:, -empty:] = 0.0
    values[5, -1] = float("nan")
    inputs = CriticInputs(values)
    if not picks:
        assert inputs.columns is None and inputs.picked is values
        return
    kept = [*range(values.shape[1] - empty), values.shape[1] - 1]
    assert inputs.columns.tolist() == kept
    torch.testing.assert_close(inputs.picked, values[:, kept], equal_nan=True)


@pytest.mark.parametrize("seed", SEEDS[::2])
def test_update_through_rllib_is_the_oracles_in_float32(seed):
    """The whole way of a batch through `Learner.update`, three times.

    The error of each network is measured against how far the network has moved. That is hard on small moves: float32
    rounds a weight to 3e-8 of itself, and a move may be a thousandth of it. On top of that Adam turns a gradient near
    its epsilon of 1e-8, where there is little but rounding, into a step that is not small. 1.1e-5 is the most seen.
    """
    game = game_of(seed)
    learner = build(config_of(game, minibatch_per_module=per_module(seed)), game)
    oracle = game.reference()
    start, start32 = oracle_weights(game.weights), weights_of(learner)
    for k in range(3):
        rows, oracle_args = rows_and_noise(game, learner, 10 * seed + k)
        expected = oracle_weights(oracle.update(*oracle_args).weights)
        learner.update(batch=multi_agent_batch(game, rows), timesteps=env_steps(k))
        for (m, net), ours in weights_of(learner).items():
            if m in game.frozen:
                assert torch.equal(ours, start32[m, net])
                continue
            moved = (expected[m, net] - start[m, net]).norm()
            error = (ours - expected[m, net]).norm() / moved
            assert error < 1e-4, f"update {k}: {net} of {m} is off by {error} of its move"


# ---------------------------------------------------------------------------------------------------------------------
# Frozen modules.


@pytest.mark.parametrize("trained", [["m0", "m2"], lambda module_id, batch=None: module_id != "m1", []])
def test_modules_outside_policies_to_train_stay_bit_for_bit(trained):
    game = small_game()
    learner = build(config_of(game).multi_agent(policies_to_train=trained), game)
    before = weights_of(learner)
    results = learner.update(batch=multi_agent_batch(game, game.batch(16, 0)), timesteps=env_steps(0))
    after = weights_of(learner)
    moving = {"m0", "m2"} if trained else set()
    for m, net in before:
        assert torch.equal(before[m, net], after[m, net]) == (m not in moving), (m, net)
    assert {m for m in game.modules if "critic_loss" in results[m]} == moving


def test_a_frozen_module_may_have_a_critic_of_another_shape():
    """Its actor is computed with the trained ones, its critic by itself."""
    box = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    specs = {"b": RLModuleSpec(model_config={"critic_fcnet_hiddens": [5]})}
    config = (
        MADDPGConfig()
        .environment(SpacesEnv, env_config={kind: dict.fromkeys("abc", box) for kind in ("obs_spaces", "action_spaces")})
        .multi_agent(policies_to_train=["a", "c"])
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    )
    learner = build(config)
    before = weights_of(learner)
    rows = torch.rand(16, learner.schema.row_width)
    learner.update(batch=JointBatch(learner.schema, rows), timesteps=env_steps(0))
    after = weights_of(learner)
    for m, net in before:
        assert torch.equal(before[m, net], after[m, net]) == (m == "b"), (m, net)


class DecayingLearner(MADDPGTorchLearner):
    """AdamW with weights and biases apart, as many write it: parameters in another order than the network's."""

    def configure_optimizers_for_module(self, module_id, config=None):
        for name in ("critic", "actor"):
            params = list(getattr(self.module[module_id].unwrapped(), name).parameters())
            groups = [
                {"params": [p for p in params if p.dim() > 1], "weight_decay": 0.0},
                {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0},
            ]
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.AdamW(groups),
                params=params,
                lr_or_lr_schedule=config.learning_rate(name),
            )


def test_an_optimizer_may_have_its_parameters_in_another_order():
    game = small_game()
    learners = [build(config_of(game).training(learner_class=cls), game) for cls in (DecayingLearner, None)]
    for learner in learners:
        for k in range(2):
            learner.update(batch=multi_agent_batch(game, game.batch(16, k)), timesteps=env_steps(k))
    one, other = map(weights_of, learners)
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-5, atol=1e-7)


def test_actions_of_a_frozen_agent_enter_the_others_critics():
    game = small_game()
    config = config_of(game, gamma=0.0).multi_agent(policies_to_train=["m0", "m2"])
    batch = game.batch(16, 0)
    frozen_agent = next(a for a in game.agents if game.module_of[a] == "m1")

    def critic_losses():
        learner = build(config.copy(copy_frozen=False), game)
        results = learner.update(batch=multi_agent_batch(game, batch), timesteps=env_steps(0))
        return {m: metrics_of(results, m)["critic_loss"] for m in ("m0", "m2")}

    before = critic_losses()
    batch[frozen_agent].action = batch[frozen_agent].action.roll(1, dims=1)
    after = critic_losses()
    for m in before:
        # gamma = 0: the targets are the rewards, so only Q(x, a) can have changed.
        assert abs(after[m] - before[m]) > 1e-3 * before[m]


# ---------------------------------------------------------------------------------------------------------------------
# NaN and infinity.


def spoil(game: Game, column: str, value: float):
    batch = multi_agent_batch(game, game.batch(16, 0))
    batch.policy_batches["m1"][column][3, 0] = value
    return batch


@pytest.mark.parametrize(
    ("column", "value"),
    [("rewards", np.nan), ("rewards", np.inf), ("obs", np.nan), ("new_obs", np.nan), ("actions", np.inf)],
)
def test_bad_number_in_a_batch_is_refused_before_anything_changes(column, value):
    game = small_game()
    learner = build(config_of(game), game)
    before = weights_of(learner)
    with pytest.raises(ValueError, match=rf"column '{column}' of module 'm1'.*`torch_skip_nan_gradients=True`"):
        learner.update(batch=spoil(game, column, value), timesteps=env_steps(0))
    after = weights_of(learner)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_column_that_may_be_nan_is_not_blamed():
    schema = RowSchema(build(config_of(small_game())).layout, [Column("hint", "env", finite=False)])
    batch = JointBatch(schema, torch.from_numpy(schema.empty(4)))
    batch.columns["hint"][:] = torch.nan
    norms = {"critic": {"m0": torch.tensor(1.0), "m1": torch.tensor(torch.inf)}}
    found = ClippedGradients([], {"m0": torch.tensor(1.0), "m1": torch.tensor(2.0)}, norms)
    assert not found.are_finite(schema.layout)
    assert found.what_is_not_finite("critic", [batch]) == ["the critic gradient of module 'm1'"]
    batch.columns["rewards"][2, 0] = torch.nan
    assert found.what_is_not_finite("critic", [batch])[0] == "column 'rewards' of module 'm0'"


def test_bad_gradient_is_refused_by_name():
    """A reward of 1e38 is a number; its square is none in float32."""
    game = small_game(hyper={"critic_loss": "mse"})
    learner = build(config_of(game), game)
    before = weights_of(learner)
    with pytest.raises(ValueError, match=r"^NaN or infinity in the critic loss of module 'm1' .*the critic gradient of module"):
        learner.update(batch=spoil(game, "rewards", 1e38), timesteps=env_steps(0))
    after = weights_of(learner)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_bad_actor_gradient_leaves_actors_and_targets():
    """By then the critics have made their step, and the message says so."""
    game = small_game(hyper={"others_actions": "replay"})
    learner = build(config_of(game), game)
    with torch.no_grad():
        parameters(learner, "m2", "actor")[0][0, 0] = torch.nan
    before = weights_of(learner)
    with pytest.raises(ValueError, match=r"^NaN or infinity in the actor loss of module 'm2'.* No actor and no target was"):
        learner.update(batch=multi_agent_batch(game, game.batch(16, 0)), timesteps=env_steps(0))
    after = weights_of(learner)
    changed = {net for m, net in before if not torch.allclose(before[m, net], after[m, net], 0, 0, equal_nan=True)}
    assert changed == {"critic"}


def test_skipped_updates_are_counted_and_change_nothing():
    game = small_game()
    config = config_of(game).framework(torch_skip_nan_gradients=True)
    learner, undisturbed = build(config, game), build(config.copy(copy_frozen=False), game)
    before, logger = weights_of(learner), MetricsLogger(root=True)
    for count in (1, 2):
        results = learner.update(batch=spoil(game, "rewards", np.nan), timesteps=env_steps(0))
        logger.aggregate([results])
        after = weights_of(learner)
        assert all(torch.equal(before[key], after[key]) for key in before)
        for m in game.modules:
            assert logger.peek((m, "num_updates_skipped_lifetime")) == count
            assert "critic_loss" not in results[m]
    # Nor does Adam know of them; the noise is that of the third update.
    undisturbed._num_updates = 2
    for each in (learner, undisturbed):
        each.update(batch=multi_agent_batch(game, game.batch(16, 1)), timesteps=env_steps(1))
    after, expected = weights_of(learner), weights_of(undisturbed)
    assert all(torch.equal(after[key], expected[key]) for key in expected)


# ---------------------------------------------------------------------------------------------------------------------
# Targets and learning rates in env steps.


def test_targets_are_updated_every_so_many_env_steps():
    game = small_game()
    learner = build(config_of(game, target_network_update_freq=100, tau=1.0), game)
    batch = multi_agent_batch(game, game.batch(16, 0))
    for steps, due in ((60, False), (99, False), (100, True), (199, False), (230, True), (300, False), (330, True)):
        before = weights_of(learner)
        learner.update(batch=batch, timesteps=env_steps(steps))
        after = weights_of(learner)
        for m in game.modules:
            for net in ("actor", "critic"):
                # tau = 1 copies the network, to the bit.
                expected = after[m, net] if due else before[m, f"target_{net}"]
                assert torch.equal(after[m, f"target_{net}"], expected), (steps, m, net)


def test_learning_rate_schedules_follow_env_steps():
    """RLlib moves a schedule after an update: what an update logs is the rate that the next one uses."""
    game = small_game()
    learner = build(config_of(game, actor_lr=[[0, 0.008], [200, 0.0]], critic_lr=[[0, 0.001], [100, 0.003]]), game)
    batch = multi_agent_batch(game, game.batch(16, 0))
    for steps, actor_lr, critic_lr in ((50, 0.006, 0.002), (100, 0.004, 0.003), (200, 0.0, 0.003)):
        results = learner.update(batch=batch, timesteps=env_steps(steps))
        for m in game.modules:
            metrics = metrics_of(results, m)
            assert metrics["actor_learning_rate"] == pytest.approx(actor_lr, abs=1e-9)
            assert metrics["critic_learning_rate"] == pytest.approx(critic_lr, abs=1e-9)
    before = weights_of(learner)
    learner.update(batch=batch, timesteps=env_steps(300))
    after = weights_of(learner)
    for m in game.modules:
        assert torch.equal(before[m, "actor"], after[m, "actor"])
        assert not torch.equal(before[m, "critic"], after[m, "critic"])


def first_step_sizes(config: MADDPGConfig, game: Game) -> dict[tuple[str, str], float]:
    """The largest change of a weight in the first update: the learning rate, as Adam divides a gradient by its size."""
    learner = build(config, game)
    before = weights_of(learner)
    learner.update(batch=multi_agent_batch(game, game.batch(16, 0)), timesteps=env_steps(0))
    after = weights_of(learner)
    return {(m, net): float((after[m, net] - before[m, net]).abs().max()) for m, net in before}


def test_lr_sets_both_rates():
    game = small_game()
    sizes = first_step_sizes(config_of(game, lr=0.02, actor_lr=None, critic_lr=None), game)
    sizes = {key: size for key, size in sizes.items() if key[1] in ("actor", "critic")}
    # To 1e-4 of it: Adam's epsilon of 1e-8 beside gradients of some 1e-3 and more.
    assert sizes == pytest.approx(dict.fromkeys(sizes, 0.02), rel=1e-4)


def test_settings_of_one_module():
    game = small_game()
    overrides = {"m1": MADDPGConfig.overrides(critic_lr=0.001, tau=1.0)}
    config = config_of(game, actor_lr=0.03, critic_lr=0.02, tau=0.5)
    sizes = first_step_sizes(config.multi_agent(algorithm_config_overrides_per_module=overrides), game)
    rates = {(m, net): lr for m in game.modules for net, lr in (("actor", 0.03), ("critic", 0.02))}
    rates["m1", "critic"] = 0.001
    assert {key: sizes[key] for key in rates} == pytest.approx(rates, rel=1e-4)
    # With tau = 1 m1's targets jumped to the networks; the others' went half the way.
    learner = build(config.copy(copy_frozen=False), game)
    learner.update(batch=multi_agent_batch(game, game.batch(16, 0)), timesteps=env_steps(0))
    weights = weights_of(learner)
    assert torch.equal(weights["m1", "target_critic"], weights["m1", "critic"])
    assert not torch.equal(weights["m0", "target_critic"], weights["m0", "critic"])


# ---------------------------------------------------------------------------------------------------------------------
# State.


def train(learner, game: Game, updates: range) -> None:
    for k in updates:
        learner.update(batch=multi_agent_batch(game, game.batch(16, k)), timesteps=env_steps(60 * k))


@pytest.mark.parametrize("into", ["fresh", "itself"])
def test_restored_learner_goes_on_bit_for_bit(into):
    """Adam's moments, targets and when they are due, schedules and the Gumbel noise's generator are in the state."""
    game = small_game()
    config = config_of(game, target_network_update_freq=100, actor_lr=[[0, 0.01], [400, 0.0]], others_actions="current")
    learner = build(config, game)
    train(learner, game, range(1, 4))
    state = pickle.loads(pickle.dumps(learner.get_state()))
    at_state = weights_of(learner)
    train(learner, game, range(4, 8))
    expected = weights_of(learner)
    restored = learner
    if into == "fresh":
        restored = build(config.copy(copy_frozen=False).debugging(seed=8))
    restored.set_state(state)
    assert all(torch.equal(weights_of(restored)[key], at_state[key]) for key in at_state)
    train(restored, game, range(4, 8))
    weights = weights_of(restored)
    for key in expected:
        assert torch.equal(weights[key], expected[key]), key
        assert not torch.equal(at_state[key], expected[key]), key


# ---------------------------------------------------------------------------------------------------------------------
# Metrics.


def test_metrics_of_a_case_worked_by_hand():
    """Linear networks. Box agent a0 has Q = o0 + 2 a0[1] + 0.5, Discrete agent a1 has Q = o1 + 3 whatever it does.

    a0 is dead in the last row. The critics' rate is 0, so the actor losses are by the same critics.

    a0: Q = 2.5, 1.5, 3.5 and y = r + 0.5 (1 - terminated) 3 = 1, 1.5, 3.5, so the TD errors are 1.5, 0, 0.
    a1: Q = 5, 2, 3, 4 and y = r - 0.5 (1 - terminated) 2 = 0, -1, -1, -1, so the TD errors are 5, 3, 4, 5.
    """
    linear = {
        "m0": {"actor": ([[0.0], [0.0]], [0.0, 10.0]), "critic": ([[1.0, 0, 0, 2, 0, 0, 0]], [0.5])},
        "m1": {"actor": ([[0.0]] * 3, np.log([1.0, 1.0, 2.0])), "critic": ([[0.0, 1, 0, 0, 3, 3, 3]], [0.0])},
    }
    for nets, value in zip(linear.values(), (3.0, -2.0), strict=True):
        nets["target_actor"], nets["target_critic"] = nets["actor"], ([[0.0] * 7], [value])
    game = Game(
        agents=["a0", "a1"],
        module_of={"a0": "m0", "a1": "m1"},
        kinds={"a0": Box(2), "a1": Discrete(3)},
        obs_dims={"a0": 1, "a1": 1},
        weights={m: {net: [(torch.tensor(w), torch.tensor(b))] for net, (w, b) in nets.items()} for m, nets in linear.items()},
        hyper=Hyper(gamma=0.5, actor_lr=0.25, critic_lr=0.0, policy_reg=0.1, grad_clip=0.01),
        activation="relu",
        frozen=frozenset(),
        dead=True,
        waiting=False,
    )
    rows = game.batch(4, 0)

    def put(agent, **columns):
        for name, values in columns.items():
            column = getattr(rows[agent], name)
            column.copy_(torch.tensor(values).reshape(column.shape))

    put("a0", obs=[1.0, 2, 3, 0], action=[[0.0, 0.5], [0, -0.5], [0, 0], [0, 0]], reward=[1.0, 0, 2, 0])
    put("a0", terminated=[1.0, 0, 0, 1], alive=[1.0, 1, 1, 0], next_acting=[0.0, 1, 1, 0])
    put("a1", obs=[2.0, -1, 0, 1], action=np.eye(3)[[0, 1, 2, 0]], reward=[0.0, 0, 0, 0])
    put("a1", terminated=[1.0, 0, 0, 0], alive=[1.0, 1, 1, 1], next_acting=[0.0, 1, 1, 1])
    results = build(config_of(game), game).update(batch=multi_agent_batch(game, rows), timesteps=env_steps(0))

    expected = {
        "m0": {
            "critic_loss": 1.5**2 / 3,
            "td_error_mean": 0.5,
            "qf_mean": 2.5,
            "qf_min": 1.5,
            "qf_max": 3.5,
            # dloss/dQ is 2 * 1.5 / 3 = 1 in row 0 only, where the input is (1, 2, 0, 0.5, 1, 0, 0), and 1 for the bias.
            "critic_gradients_norm": np.sqrt(1 + 4 + 0.25 + 1 + 1),
            # tanh(10) = 1 and mean(o0) = 2 over the living: Q = 2 + 2 + 0.5; mean(output^2) = 100 / 2.
            "actor_loss": -4.5 + 0.1 * 50,
            # dloss/doutput[1] is 0.1 * 2 * 10 / 2 = 1, since tanh is flat there; mean(o0) = 2 times that for W.
            "actor_gradients_norm": np.sqrt(1 + 4),
            "action_saturation": 0.5,
        },
        "m1": {
            "critic_loss": (25 + 9 + 16 + 25) / 4,
            "td_error_mean": 4.25,
            "qf_mean": 3.5,
            "qf_min": 2.0,
            "qf_max": 5.0,
            # Mean of 2 * e * input, for each of the inputs o0, o1, a0[0], a0[1], a1[0], a1[1], a1[2], and the bias.
            "critic_gradients_norm": np.linalg.norm(
                0.5 * np.array([5 + 6 + 12, 10 - 3 + 0 + 5, 0, 2.5 - 1.5, 5 + 5, 3, 4, 17])
            ),
            "actor_loss": -3.5 + 0.1 * np.log(2) ** 2 / 3,
            # Only the pull to zero is left, as no choice is better than another; mean(o1) = 0.5.
            "actor_gradients_norm": 0.1 * 2 * np.log(2) / 3 * np.sqrt(1 + 0.25),
            # Of probabilities 1/4, 1/4, 1/2.
            "action_entropy": 1.5 * np.log(2),
        },
    }
    for m, values in expected.items():
        values |= {"actor_learning_rate": 0.25, "critic_learning_rate": 0.0}
        values["total_loss"] = values["critic_loss"] + values["actor_loss"]
        metrics = metrics_of(results, m)
        # float32
        assert {name: metrics[name] for name in values} == pytest.approx(values, rel=1e-5, abs=1e-6)
        assert ("action_entropy" in metrics) == (m == "m1")


# ---------------------------------------------------------------------------------------------------------------------
# Compiled.


@pytest.mark.slow
def test_compiled_update_is_the_eager_one():
    """RLlib's `torch_compile_learner`, traced through autograd. Compilers may fuse, so to 1e-5 and not to the bit."""
    game = small_game()
    compiled = {"torch_compile_learner": True, "torch_compile_learner_what_to_compile": "complete_update"}
    compiled["torch_compile_learner_dynamo_backend"] = "aot_eager"
    one, two = build(config_of(game), game), build(config_of(game).framework(**compiled), game)
    assert two._torch_compile_complete_update
    for k in range(4):
        for learner in (one, two):
            learner.update(batch=multi_agent_batch(game, game.batch(16, k)), timesteps=env_steps(k))
        ours, expected = weights_of(two), weights_of(one)
        assert max(float((ours[key] - expected[key]).abs().max()) for key in expected) < 1e-5
