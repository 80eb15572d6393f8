"""Training with replay buffers that users wrote: draws, feedback, checkpoints, several Learners, remote runners."""

import threading

import numpy as np
import pytest
import ray
import torch
from replay_training import BATCH, config_for, errors_by_hand
from sample_rows import SCHEMA, rows
from users_replays import Answers, FetchingReplay, FetchingRing, NoSuper, PlainReplay, PrioritizedReplay, ShortDraws

from rllib_maddpg import MADDPG
from rllib_maddpg.replay import Stored
from rllib_maddpg.replay.remote import RemoteRollout
from rllib_maddpg.rows.joint_batch import JointBatch

pytestmark = pytest.mark.usefixtures("ray_session")

PRIORITIZED = "users_replays.PrioritizedReplay"


@pytest.mark.parametrize("per_module", [False, True])
def test_feedback_is_the_td_error_of_each_row_and_draws_follow_it(build, per_module):
    algo = build(config_for(PRIORITIZED, rate=0.0, minibatch_per_module=per_module))
    algo.train()
    replay, learner = algo.replay_buffer, algo.learner_group._learner
    assert isinstance(replay, PrioritizedReplay) and len(replay) == 150
    rows = BATCH * (3 if per_module else 1)
    # Two calls of ten updates: after 100 and 150 env steps.
    assert algo._num_updates == 20 and [[e.shape for e in errors] for errors in replay.errors] == [[(10 * rows,)]] * 2
    # The networks do not change at a rate of 0.
    for _ in range(2):
        (places,), (errors,) = replay.drawn, replay.errors[-1]
        assert errors.dtype == np.float32 and errors.std() > 0.01
        expected = errors_by_hand(learner, replay.rows_at(places), per_module)
        np.testing.assert_allclose(errors, expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(replay.priorities[places[-1]], errors[-1] + 1e-3)
        replay.priorities[:150] = np.where(np.arange(150) % 10 == 3, 1.0, 0.0)
        algo._update(1)
        assert set(replay.drawn[0] % 10) == {3} and len(replay.drawn[0]) == rows


def test_nobody_who_learns_has_no_td_errors(build):
    algo = build(config_for(PRIORITIZED).multi_agent(policies_to_train=[]))
    algo.train()
    assert [errors.tolist() for (errors,) in algo.replay_buffer.errors] == [[0.0] * 10 * BATCH] * 2


def test_each_learner_tells_of_its_own_rows(build):
    algo = build(config_for(PRIORITIZED, rate=0.0, learners=2))
    algo.train()
    replay = algo.replay_buffer
    local = algo.config.copy(copy_frozen=False).learners(num_learners=0)
    group = local.build_learner_group(spaces=algo.env_runner_group.get_spaces())
    group.set_state(algo.learner_group.get_state())
    assert len(replay.drawn) == 2 and not np.array_equal(*replay.drawn)
    for places, errors in zip(replay.drawn, replay.errors[-1], strict=True):
        assert places.shape == errors.shape == (10 * BATCH,)
        expected = errors_by_hand(group._learner, replay.rows_at(places), per_module=False)
        np.testing.assert_allclose(errors, expected, rtol=1e-3, atol=1e-4)


def test_a_resumed_run_goes_on_bit_for_bit(build, tmp_path):
    straight, halfway = build(config_for(PRIORITIZED)), build(config_for(PRIORITIZED))
    for algo in (straight, halfway):
        algo.train()
    path = halfway.save_to_path(str(tmp_path / "half"))
    halfway.stop()
    resumed = MADDPG.from_checkpoint(path)
    try:
        np.testing.assert_array_equal(resumed.replay_buffer.priorities, straight.replay_buffer.priorities)
        for algo in (straight, resumed):
            algo.train()
        one, two = straight.replay_buffer, resumed.replay_buffer
        np.testing.assert_array_equal(one.drawn, two.drawn)
        np.testing.assert_array_equal(one.errors[-1], two.errors[-1])
        np.testing.assert_array_equal(one.priorities, two.priorities)
        assert one.priorities[:300].std() > 0.01 and straight._num_updates == resumed._num_updates == 50
        nets = [algo.get_weights() for algo in (straight, resumed)]
        for module, weights in nets[0].items():
            for name, value in weights.items():
                np.testing.assert_array_equal(value, nets[1][module][name], err_msg=f"{module}/{name}")
    finally:
        resumed.stop()


def test_checkpoints_of_other_classes(build, tmp_path):
    ring, other = build(config_for("JointReplayBuffer")), build(config_for(PRIORITIZED))
    for algo, name in ((ring, "ring"), (other, "other")):
        algo.train()
        algo.save_to_path(str(tmp_path / name))
    before = other.replay_buffer.get_state(), other.get_weights()["agent_0"]
    for component in ({}, {"component": "replay_buffer"}):
        folder = tmp_path / "ring" / component.get("component", "")
        with pytest.raises(ValueError, match=r"has the state of a JointReplayBuffer, which a PrioritizedReplay does not take"):
            other.restore_from_path(str(folder), **component)
    with pytest.raises(ValueError, match=r"has the state of a PrioritizedReplay, .*store_buffer_in_checkpoints=False") as error:
        ring.restore_from_path(str(tmp_path / "other"))
    assert "Set `replay_buffer_config['type']` to that class" in str(error.value)
    after = other.replay_buffer.get_state(), other.get_weights()["agent_0"]
    np.testing.assert_array_equal(before[0]["priorities"], after[0]["priorities"])
    assert all(np.array_equal(value, after[1][name]) for name, value in before[1].items())
    # Without the rows.
    bare = build(config_for("JointReplayBuffer", store_buffer_in_checkpoints=False))
    bare.restore_from_path(str(tmp_path / "other"))
    assert bare._env_steps == 150 and len(bare.replay_buffer) == 0


def test_a_class_that_has_the_protocol_only(build, tmp_path):
    algo = build(config_for(PlainReplay))
    result = algo.train()
    assert result["replay_buffer"] == {"num_rows": 150, "fill": 150 / 2000}
    assert algo._num_updates == 20 and algo.replay_buffer.turn == 20 * BATCH
    path = algo.save_to_path(str(tmp_path / "plain"))
    algo.stop()
    assert algo.replay_buffer.stopped == 1
    other = build(config_for(PlainReplay))
    other.restore_from_path(path)
    assert other.replay_buffer.turn == 20 * BATCH
    np.testing.assert_array_equal(other.replay_buffer.rows, algo.replay_buffer.rows)
    other.train()
    assert len(other.replay_buffer) == 300


def test_rollouts_stay_with_their_runners_until_they_are_fetched(build):
    algo = build(config_for(FetchingReplay).env_runners(num_env_runners=1))
    algo.train()
    assert isinstance(algo.replay_buffer, FetchingReplay)
    assert len(algo.replay_buffer) == algo._env_steps >= 150 and algo._num_updates > 0


def test_draws_of_a_wrong_size_are_named(build):
    algo = build(config_for(ShortDraws))
    with pytest.raises(
        ValueError, match=r"`ShortDraws.draw\(1, 10, 16\)` gave batches of \[16\] rows, not one of 160 for each"
    ):
        algo.train()


def test_what_store_returns_is_checked(build):
    algo = build(config_for(Answers))
    replay = algo.replay_buffer
    algo.train()
    for wrong, shown in [
        (lambda right: [Stored(rows=-5)], "[Stored(rows=-5, error='', lost=False)]"),
        (lambda right: [Stored(rows=float("nan"))], "[Stored(rows=nan, "),
        (lambda right: [Stored(rows=50.0)], "[Stored("),
        (lambda right: [Stored(rows=True)], "[Stored("),
        (lambda right: [Stored(rows=None)], "[Stored("),
        (lambda right: None, "None"),
        (lambda right: [], "[]"),
        (lambda right: [*right, *right], "[Stored("),
        (lambda right: [stored.rows for stored in right], "[50]"),
        (lambda right: right[0], "Stored("),
        (lambda right: 50, "50"),
    ]:
        replay.stored = wrong
        with pytest.raises(ValueError) as error:
            algo.train()
        assert f"`Answers.store` returned {shown}" in str(error.value)
        assert "for 1 rollouts. It must return a list of rllib_maddpg.replay.Stored, one for each" in str(error.value)
        assert algo._env_steps == 150
    # Whole numbers of NumPy are some, and so is a tuple.
    replay.stored = lambda right: tuple(Stored(np.int64(stored.rows)) for stored in right)
    algo.train()
    assert algo._env_steps == 300


def test_what_draw_returns_is_checked(build):
    algo = build(config_for(Answers))
    replay, width = algo.replay_buffer, algo.schema.row_width
    algo.train()
    rows = 10 * BATCH

    def batch_of(tensor):
        return lambda right: [JointBatch(replay.schema, tensor)]

    for wrong, text in [
        (lambda right: None, "gave a NoneType, not a list with one batch for each of the 1 Learners"),
        (lambda right: right[0], "gave a JointBatch, not a list with one batch"),
        (lambda right: [], "gave 0 batches, not a list"),
        (lambda right: [*right, *right], "gave 2 batches, not a list"),
        (lambda right: [None], "gave a NoneType, not a JointBatch, nor anything with `len(batch)` and `batch.to`"),
        (lambda right: [right[0].joint_rows], "gave a Tensor, not a JointBatch"),
        (lambda right: [right[0].joint_rows.numpy()], "gave a ndarray, not a JointBatch"),
        (batch_of(torch.zeros(rows, width, dtype=torch.float64)), f"gave a JointBatch of torch.float64 [160, {width}], not of"),
        (
            batch_of(torch.zeros(rows, width - 3)),
            f"of torch.float32 [160, {width - 3}], not of a tensor of torch.float32 [rows, ",
        ),
        (batch_of(torch.zeros(rows * width)), f"of torch.float32 [{rows * width}], not of"),
        (batch_of(np.zeros((rows, width), np.float32)), "of a ndarray, not of a tensor"),
        (batch_of(torch.zeros(rows - 1, width)), "gave batches of [159] rows, not one of 160"),
    ]:
        replay.drawn = wrong
        with pytest.raises(ValueError) as error:
            algo.train()
        assert str(error.value).startswith("`Answers.draw(1, 10, 16)` gave ") and text in str(error.value)
        assert str(error.value).endswith("Correct its `draw`.")
        assert algo._num_updates == 20


def test_a_state_that_cannot_be_saved_is_refused(build, tmp_path):
    algo = build(config_for(Answers))
    algo.train()
    good = algo.save_to_path(str(tmp_path / "kept"))
    replay = algo.replay_buffer
    for wrong, text in [
        (lambda right: None, "`Answers.get_state` returned None, from which nothing can be restored. It must return a dict"),
        (lambda right: [right], "`Answers.get_state` returned [{"),
        (
            lambda right: {**right, "lock": threading.Lock()},
            "A Answers cannot be saved (TypeError: cannot pickle '_thread.lock'",
        ),
    ]:
        replay.state = wrong
        for name in ("kept", "new"):
            with pytest.raises(ValueError) as error:
                algo.save_to_path(str(tmp_path / name))
            assert text in str(error.value) and "`store_buffer_in_checkpoints=False`" in str(error.value)
    # The checkpoint that was there still is.
    replay.rows = []
    algo.restore_from_path(good)
    assert len(replay) == 150


def test_a_class_that_does_not_call_its_base(build):
    with pytest.raises(ValueError, match=r"A NoSuper has no `capacity`: call `super\(\).__init__\(schema, capacity, seed\)`"):
        build(config_for(NoSuper))


@pytest.mark.parametrize("runners", [0, 1])
def test_a_ring_fetches_the_rollouts_that_it_asks_for(build, runners):
    algo = build(config_for(FetchingRing).env_runners(num_env_runners=runners))
    algo.train()
    assert len(algo.replay_buffer) == algo._env_steps >= 150 and algo._num_updates > 0
    assert algo.replay_buffer.latest(150).columns["rewards"].std() > 0


@ray.remote
class Sampler:
    """Samples a fragment that stays here."""

    def sample(self):
        return RemoteRollout(rows(0, 2000))  # too large to travel with the reply


def test_a_ring_tells_of_a_rollout_that_is_lost_with_its_runner():
    sampler, ring = Sampler.remote(), FetchingRing(SCHEMA, 100)
    lost = ray.get(sampler.sample.remote())
    ray.kill(sampler)
    with pytest.raises(ray.exceptions.OwnerDiedError):  # as soon as Ray knows
        while True:
            ray.get(lost.rows, timeout=60)
    stored = ring.store([rows(0, 3), lost, RemoteRollout(rows(3, 7))])
    assert [(s.rows, s.lost) for s in stored] == [(3, False), (0, True), (4, False)] and len(ring) == 7
