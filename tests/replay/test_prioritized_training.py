"""Training with prioritized replay and n-step returns: feedback, checkpoints, shards, several Learners and runners."""

import numpy as np
import pytest
import ray
import torch
from replay_training import BATCH, config_for, errors_by_hand
from scipy import stats

from rllib_maddpg import MADDPG
from rllib_maddpg.replay import PrioritizedJointReplayBuffer
from rllib_maddpg.replay.prioritized_shards import PrioritizedShardedReplayBuffer

pytestmark = pytest.mark.usefixtures("ray_session")

KIND = "PrioritizedJointReplayBuffer"


def config_of(rate=1e-3, learners=0, n_step=1, **buffer):
    config = config_for(KIND, rate=rate, learners=learners, n_step=n_step)
    return config.training(replay_buffer_config=buffer)


@pytest.mark.parametrize("priority", ["mean", "max"])
def test_priorities_are_the_td_errors_of_the_rows(build, priority):
    """At a rate of 0 the networks do not change."""
    algo = build(config_of(rate=0.0, priority=priority))
    algo.train()
    ring = algo.replay_buffer
    places = np.unique(ring._drawn.flatten().numpy())
    assert isinstance(ring, PrioritizedJointReplayBuffer) and len(places) > 50 and algo._num_updates == 20
    mean = errors_by_hand(algo.learner_group._learner, ring.rows_at(places), per_module=False)
    told = ring.get_state()["beside"]["priorities"][places]
    if priority == "mean":
        np.testing.assert_allclose(told, mean, rtol=1e-3, atol=1e-4)
    else:
        assert (told > mean.numpy() * 1.001).all() and (told <= 3 * mean.numpy() * 1.001).all()
    drawn = ring.draw(1, 1, BATCH)[0]
    assert drawn.columns["weights"].std() > 0.01


@pytest.mark.parametrize(("priority", "n_step"), [("mean", 1), ("max", 3)])
def test_a_resumed_run_goes_on_bit_for_bit(build, tmp_path, priority, n_step):
    straight, halfway = (build(config_of(priority=priority, n_step=n_step)) for _ in range(2))
    for algo in (straight, halfway):
        algo.train()
    path = halfway.save_to_path(str(tmp_path / "half"))
    halfway.stop()
    resumed = MADDPG.from_checkpoint(path)
    try:
        for algo in (straight, resumed):
            algo.train()
        one, two = straight.replay_buffer, resumed.replay_buffer
        assert torch.equal(one._drawn, two._drawn) and straight._num_updates == resumed._num_updates == 50
        for mine, theirs in zip(one._tree._levels, two._tree._levels, strict=True):
            assert torch.equal(mine, theirs)
        nets = [algo.get_weights() for algo in (straight, resumed)]
        for module, weights in nets[0].items():
            for name, value in weights.items():
                np.testing.assert_array_equal(value, nets[1][module][name], err_msg=f"{module}/{name}")
        assert n_step == 1 or float(one.latest(100).columns["steps"].max()) == n_step
    finally:
        resumed.stop()


def test_uniform_rows_are_taken_over_and_given_back(build, tmp_path):
    uniform, by_priority = build(config_for("JointReplayBuffer")), build(config_of(n_step=2))
    for algo, other, name in ((uniform, by_priority, "uniform"), (by_priority, uniform, "prioritized")):
        algo.train()
        path = algo.save_to_path(str(tmp_path / name))
        other.restore_from_path(path)
        assert len(other.replay_buffer) == len(algo.replay_buffer)
        other.train()


@pytest.mark.parametrize(("fast", "runners"), [(True, 2), (False, 0), pytest.param(False, 2, marks=pytest.mark.slow)])
def test_rows_of_runners_are_linked(build, fast, runners):
    """In both loops, also with pipelined fragments, of five steps: rows of an episode of 25 steps follow each other."""
    config = config_of(n_step=4).env_runners(
        num_env_runners=runners,
        num_envs_per_env_runner=2 if runners else 4,
        rollout_fragment_length=5,
        env_runner_fast_path=fast,
    )
    algo = build(config)
    algo.train()
    algo.train()
    ring = algo.replay_buffer
    assert len(ring) >= 300
    columns = {name: value.numpy() for name, value in ring.rows_at(np.arange(len(ring))).columns.items()}
    steps, t = columns["steps"][:, 0], columns["t"][:, 0]
    # Rows whose episode goes on for four steps, and is known that far.
    ends = 25 - t
    assert (steps == np.minimum(4, ends))[t < 20].mean() > 0.85 and (steps <= np.minimum(4, ends)).all()
    # What the last step says of itself: the place in which the next row's x is this one's x'.
    by_x = {row.tobytes(): k for k, row in enumerate(columns["obs"])}
    found = [(k, by_x[x.tobytes()]) for k, x in enumerate(columns["new_obs"]) if x.tobytes() in by_x]
    assert len(found) > 150 and all(t[there] == t[k] + steps[k] for k, there in found)


@pytest.mark.slow
def test_two_learners_share_the_rows(build):
    algo = build(config_of(learners=2, n_step=2))
    algo.train()
    ring = algo.replay_buffer
    assert ring._drawn.shape == (10, 2, BATCH)
    assert ring.get_state()["beside"]["priorities"].std() > 0.01


# Shards.


def test_shards_draw_by_all_priorities_and_are_told(build, tmp_path):
    config = config_of(n_step=3, num_shards=2, priority="max").training(minibatch_per_module=True)
    algo = build(config)
    algo.train()
    replay = algo.replay_buffer
    assert isinstance(replay, PrioritizedShardedReplayBuffer) and algo._num_updates == 20
    parts = [shard["beside"]["priorities"] for shard in replay.get_state()["shards"]]
    assert all(part.std() > 0.01 for part in parts) and sum(map(len, parts)) == 150
    batch = replay.sample(400)
    steps = batch.columns["steps"]
    assert set(steps.flatten().tolist()) == {1.0, 2.0, 3.0}
    # Weights and numbers of draws are those of all rows side by side.
    numbers = np.clip(np.rint(np.concatenate(parts).astype(np.float64) ** 0.6 * 2**22), 1, 2**62 // 1000)
    chances = numbers / numbers.sum()
    expected = np.sort(np.unique((150 * chances) ** -0.4))
    weights = batch.columns["weights"].flatten().numpy()
    nearest = expected[np.abs(expected[:, None] - weights).argmin(0)]
    np.testing.assert_allclose(weights, nearest, rtol=1e-5)
    rows = [len(part) for part in parts]
    share = np.add.reduceat(chances, [0, rows[0]])
    drawn = sum(replay.draw(1, 1, 1000)[0].counts.sum(0) for _ in range(20))
    assert stats.chisquare(drawn, 20_000 * share).pvalue > 1e-3
    # One that had no row in the last draw is told of none.
    replay.feedback([np.ones(1, np.float32) for _ in replay.draw(1, 1, 1)])
    ray.get([shard.feedback.remote(np.zeros(0, np.float32)) for shard in replay._shards])
    parts = [shard["beside"]["priorities"] for shard in replay.get_state()["shards"]]
    # One ring takes them over, and shards those of one ring.
    path = algo.save_to_path(str(tmp_path / "shards"))
    other = build(config_of(n_step=3))
    other.restore_from_path(path)
    state = other.replay_buffer.get_state()
    replay.set_state(state)
    dealt = [shard["beside"]["priorities"] for shard in replay.get_state()["shards"]]
    for told in ([state["beside"]["priorities"]], dealt):
        np.testing.assert_array_equal(np.sort(np.concatenate(told)), np.sort(np.concatenate(parts)))
    for each in (other, algo):
        each.train()
