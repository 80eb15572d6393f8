"""NaN and infinity on the GPU are named as on the CPU, and leave the same networks as they were."""

from __future__ import annotations

import math

import on_cuda
import pytest
import torch
from learner_games import env_steps, parameters, weights_of
from on_cuda import GRAPH, ROWS, both, config_of_member, game_of, rows_of, same, update
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_maddpg.rows.joint_batch import JointBatch

pytestmark = [pytest.mark.cuda, pytest.mark.ray]

BEFORE = 9  # updates that are sound
BAD = [("rewards", math.nan), ("rewards", math.inf), ("obs", math.nan), ("new_obs", -math.inf), ("actions", math.nan)]


def spoiled(batch: JointBatch, column: str, value: float, row: int = 3) -> JointBatch:
    batch.modules["m1"][column][row, 0] = value
    return batch


def several(game, schema, updates: int) -> JointBatch:
    """The rows of several updates, one after the other."""
    parts = [rows_of(game, schema, 50 + k, double=True) for k in range(updates)]
    batch = JointBatch(schema, torch.cat([part.joint_rows for part in parts]))
    batch.newest = parts[0].newest
    return batch


def clocks_of(learner) -> list[float]:
    """How many steps each optimizer of Adam has made."""
    return [
        float(own["step"])
        for _, optimizer in sorted(learner._named_optimizers.items())
        for own in optimizer.state_dict()["state"].values()
    ]


def refused(learner, batch: JointBatch, **given) -> str:
    with pytest.raises(ValueError, match=r"^NaN or infinity in") as error:
        learner.update(batch=batch, timesteps=env_steps(60 * BEFORE), **given)
    return str(error.value)


@GRAPH
@pytest.mark.parametrize(("column", "value"), BAD)
def test_a_bad_number_in_a_row(column, value, graph):
    game = game_of("MADDPG", "discrete")
    learners = both(config_of_member("MADDPG", game), graph, double=True)
    messages = []
    for learner in learners:
        update(learner, game, range(BEFORE), double=True)
        before, clocks = weights_of(learner), clocks_of(learner)
        messages.append(refused(learner, spoiled(rows_of(game, learner.schema, 50, double=True), column, value)))
        assert same(weights_of(learner), before) and clocks_of(learner) == clocks
    assert messages[0] == messages[1] and f"column {column!r} of module 'm1'" in messages[0]


@GRAPH
@pytest.mark.parametrize("member", ["MADDPG", "MATD3", "InferredMADDPG"])
def test_a_loss_that_is_too_large(member, graph):
    """A reward of 1e200 is a number; its square is none."""
    game = game_of(member, "continuous", hyper={"critic_loss": "mse", "policy_delay": 1})
    messages = []
    for learner in both(config_of_member(member, game), graph, double=True):
        update(learner, game, range(BEFORE), double=True)
        before = weights_of(learner)
        messages.append(refused(learner, spoiled(rows_of(game, learner.schema, 50, double=True), "rewards", 1e200)))
        after = weights_of(learner)
        # Approximations of the others' policies have made their step by then.
        changed = {net for m, net in before if not torch.equal(before[m, net], after[m, net])}
        assert all(net.startswith("inferred") for net in changed) and bool(changed) == (member == "InferredMADDPG")
    assert messages[0] == messages[1] and messages[0].startswith("NaN or infinity in the critic loss of module 'm1'")


@GRAPH
def test_a_bad_actor_leaves_actors_and_targets(graph):
    """By then the critics have made their step, and the message says so."""
    game = game_of("MADDPG", "continuous", hyper={"others_actions": "replay"})
    messages, changes, clocks = [], [], []
    for learner in both(config_of_member("MADDPG", game), graph, double=True):
        update(learner, game, range(BEFORE), double=True)
        with torch.no_grad():
            parameters(learner, "m2", "actor")[0][0, 0] = torch.nan
        before = weights_of(learner)
        messages.append(refused(learner, rows_of(game, learner.schema, 50, double=True)))
        after = weights_of(learner)
        changes.append({key for key in before if not torch.allclose(before[key], after[key], 0, 0, equal_nan=True)})
        clocks.append(clocks_of(learner))
    assert messages[0] == messages[1] and "No actor and no target was changed" in messages[0]
    assert messages[0].startswith("NaN or infinity in the actor loss of module 'm2'")
    assert changes[0] == changes[1] == {(m, "critic") for m in game.modules} and clocks[0] == clocks[1]


@GRAPH
@pytest.mark.parametrize("member", ["MADDPG", "MATD3"])
def test_updates_after_a_bad_one_are_not_made(member, graph):
    """Of six updates in one call the third is bad: two are made, and the weights are those after them."""
    game = game_of(member, "discrete")
    cpu, device = both(config_of_member(member, game), graph, double=True)
    messages = []
    for learner in (cpu, device):
        update(learner, game, range(BEFORE), double=True)
        before = weights_of(learner)
        batch = spoiled(several(game, learner.schema, 6), "rewards", math.nan, row=2 * ROWS + 5)
        messages.append(refused(learner, batch, minibatch_size=ROWS))
        after = weights_of(learner)
        assert all(torch.equal(before[m, net], after[m, net]) == (m in game.frozen) for m, net in before)
    assert messages[0] == messages[1]
    assert on_cuda.difference(device, cpu) < 1e-8 and clocks_of(cpu) == clocks_of(device)
    # And both go on from there.
    for learner in (cpu, device):
        update(learner, game, range(20, 26), double=True)
    assert on_cuda.difference(device, cpu) < 1e-8 and clocks_of(cpu) == clocks_of(device)


@GRAPH
@pytest.mark.parametrize("member", ["MADDPG", "MATD3", "InferredMADDPG"])
def test_bad_updates_are_skipped_and_counted(member, graph):
    """With `torch_skip_nan_gradients`: of six updates in one call the third and the fourth."""
    game = game_of(member, "discrete")
    config = config_of_member(member, game).framework(torch_skip_nan_gradients=True)
    cpu, device = both(config, graph, double=True)
    for learner in (cpu, device):
        update(learner, game, range(BEFORE), double=True)
        batch = several(game, learner.schema, 6)
        for bad in (2, 3):
            spoiled(batch, "rewards", math.nan, row=bad * ROWS + 5)
        logger = MetricsLogger(root=True)
        logger.aggregate([learner.update(batch=batch, minibatch_size=ROWS, timesteps=env_steps(60 * BEFORE))])
        assert [logger.peek((m, "num_updates_skipped_lifetime")) for m in game.modules] == [2] * len(game.modules)
        update(learner, game, range(20, 26), double=True)
    assert on_cuda.difference(device, cpu) < 1e-8 and clocks_of(cpu) == clocks_of(device)
    assert all(value.isfinite().all() for value in weights_of(device).values())


@GRAPH
def test_bad_actors_are_skipped_and_critics_go_on(graph):
    game = game_of("MADDPG", "continuous", hyper={"others_actions": "replay"})
    config = config_of_member("MADDPG", game).framework(torch_skip_nan_gradients=True)
    cpu, device = both(config, graph, double=True)
    for learner in (cpu, device):
        update(learner, game, range(BEFORE), double=True)
        with torch.no_grad():
            parameters(learner, "m2", "actor")[0][0, 0] = torch.nan
        before = weights_of(learner)
        learner.update(batch=several(game, learner.schema, 3), minibatch_size=ROWS, timesteps=env_steps(60 * BEFORE))
        after = weights_of(learner)
        changed = {key for key in before if not torch.allclose(before[key], after[key], 0, 0, equal_nan=True)}
        assert changed == {(m, "critic") for m in game.modules}
    ours, expected = on_cuda.on_cpu(weights_of(device)), weights_of(cpu)
    assert all(torch.allclose(ours[key], expected[key], 0, 1e-8, equal_nan=True) for key in expected)
    assert clocks_of(cpu) == clocks_of(device)
