"""Learners with graphs whose calls have failed, or that get what they have no graph of; with a stand-in for graphs."""

from __future__ import annotations

import contextlib
import gc
import math
import weakref

import pytest
import torch
from fake_graph import FakeGraph
from family_learners import joint_batch
from learner_games import build, config_of, env_steps, weights_of
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from small_games import small_game

from rllib_maddpg import MADDPGConfig, MADDPGTorchLearner, MATD3Config
from rllib_maddpg.rows.joint_batch import JointBatch

ROWS = 16


class Graphed(MADDPGTorchLearner):
    graph_class = FakeGraph


def learner_of(config_class=MADDPGConfig, skips=False, graph=True, **settings):
    config = config_of(small_game(), config_class, **settings).framework(torch_skip_nan_gradients=skips)
    return build(config.training(learner_class=Graphed if graph else MADDPGTorchLearner))


def rows_of(learner, *numbers, bad=(), double=False) -> JointBatch:
    """Rows of updates of these numbers side by side; those at the places `bad` have a reward that is none."""
    game = small_game()
    parts = [joint_batch(game, learner.schema, game.batch(ROWS, k), None, double).joint_rows for k in numbers]
    batch = JointBatch(learner.schema, torch.cat(parts))
    for place in bad:
        next(iter(batch.modules.values()))["rewards"][place * ROWS + 3, 0] = math.nan
    return batch


def update(learner, *numbers, **given):
    return learner.update(batch=rows_of(learner, *numbers, **given), minibatch_size=ROWS, timesteps=env_steps(60))


@pytest.mark.parametrize("skips", [False, True])
def test_what_a_failed_call_has_found_is_forgotten(skips, monkeypatch):
    """The first of its updates was bad, but nobody has asked: the host failed in the third."""
    learner = learner_of(skips=skips)
    update(learner, *range(8))
    asked = []

    def is_trained(self, module_id, batch):
        asked.append(module_id)
        if len(asked) > 2 * len(self.layout.modules):
            raise KeyboardInterrupt
        return True

    with monkeypatch.context() as patched:
        patched.setattr(Graphed, "_is_trained", is_trained)
        with pytest.raises(KeyboardInterrupt):
            update(learner, *range(8, 16), bad=[0])
    before = weights_of(learner)
    update(learner, *range(16, 24))
    after = weights_of(learner)
    assert all(not torch.equal(after[key], before[key]) and after[key].isfinite().all() for key in before)
    with contextlib.nullcontext() if skips else pytest.raises(ValueError, match="NaN"):
        update(learner, 30, 31, 32, bad=[1])
    assert not any(torch.equal(after[key], value) for key, value in weights_of(learner).items())


def test_no_metric_is_that_of_a_skipped_update():
    """Actors learn in every second update, and the metrics of the last such one are kept; here it is a bad one."""
    noted = []
    for graph in (False, True):
        learner = learner_of(MATD3Config, skips=True, graph=graph, policy_delay=2)
        for k in range(0, 20, 2):
            update(learner, k, k + 1)
        assert any(name == "actor_loss" for _, name in learner._update_metrics.noted)
        logger = MetricsLogger(root=True)
        logger.aggregate([update(learner, 20, 21, 22, bad=[1])])
        skipped = [logger.peek((m, "num_updates_skipped_lifetime")) for m in learner.layout.modules]
        assert skipped == [1] * 3 and not learner._update_metrics.noted
        noted.append([logger.peek((m, "critic_loss")) for m in learner.layout.modules])
    assert noted[0] == pytest.approx(noted[1], rel=1e-4)


def test_rows_of_another_type_are_another_kind_of_update():
    """Which fails as it does without graphs, instead of being made on older rows."""
    learner, eager = learner_of(), learner_of(graph=False)
    for each in (learner, eager):
        for k in range(5):
            update(each, k)
        with pytest.raises(RuntimeError, match="dtype"):
            update(each, 5, double=True)


def test_graphs_of_another_past_are_not_used():
    """`cuda_graph=True` after a checkpoint with which there can be none: not even if somebody tries again."""
    learner = learner_of(cuda_graph=False)
    learner.config = learner.config.copy(copy_frozen=False).training(cuda_graph=True)
    state = learner.get_state()
    for k in range(5):
        update(learner, k)
    state["gumbel_rng"] = torch.Generator().manual_seed(3).get_state().numpy()
    del state["noise_keys"]
    learner.set_state(state)
    before = weights_of(learner)
    for _ in range(2):
        with pytest.raises(ValueError, match="drew its noise on the CPU"):
            update(learner, 5)
    assert all(torch.equal(before[key], value) for key, value in weights_of(learner).items())


def test_nothing_of_an_update_waits_for_garbage_collection():
    """What it has computed would fill a GPU's memory, and autograd's nodes would be those of another stream."""
    made = []

    class Watched(Graphed):
        def _context(self, *args):
            ctx = super()._context(*args)
            made.append(weakref.ref(ctx))
            return ctx

    for cuda_graph in ("auto", False):
        learner = build(config_of(small_game()).training(learner_class=Watched, cuda_graph=cuda_graph))
        made.clear()
        gc.disable()
        try:
            for k in range(4):
                update(learner, k)
            alive = sum(ref() is not None for ref in made)
        finally:
            gc.enable()
        assert alive == 0 and len(made) == (3 if cuda_graph else 4)


def test_ever_new_kinds_of_updates_are_made_as_they_come(monkeypatch):
    """Their graphs would fill a GPU's memory."""
    monkeypatch.setattr("rllib_maddpg.learning.update_graphs.MAX_KINDS", 2)
    learner, eager = learner_of(), learner_of(graph=False)
    for each in (learner, eager):
        for k in range(20):
            batch = rows_of(each, k)
            size = ROWS - k % 4
            each.update(batch=batch.rows(slice(size)), timesteps=env_steps(60))
    kinds = learner._graphs._kinds.values()
    assert len(kinds) == 2 and [kind.graph.replays for kind in kinds] == [3, 3] and len(learner._graphs._static) == 2
    ours, expected = weights_of(learner), weights_of(eager)
    assert all(torch.allclose(ours[key], expected[key], 0, 1e-5) for key in expected)
