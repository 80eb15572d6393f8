"""Training on rows of images: what a ring, shards and checkpoints hold of a whole run, whatever the networks are."""

import numpy as np
import pytest
from image_env import ImageEnv
from tiny_algorithm import same, state_of, tiny_config

from rllib_maddpg.replay.resharding import merged

REPLAYS = {
    "a ring": {},
    "n steps, prioritized": {"n_step": 3, "type": "PrioritizedJointReplayBuffer"},
    "shards": {"num_shards": 2, "type": "ShardedReplayBuffer"},
}
pytestmark = pytest.mark.usefixtures("ray_session")


def config_of(n_step=1, **replay):
    """Agents a and b share a module. Fragments of 14 env steps: in each env one episode."""
    config = tiny_config().environment(ImageEnv, env_config={})
    config.multi_agent(policies=["ab", "c"], policy_mapping_fn=lambda agent, *args, **kwargs: "c" if agent == "c" else "ab")
    config.env_runners(num_envs_per_env_runner=2, rollout_fragment_length=7)
    return config.training(n_step=n_step, replay_buffer_config={"capacity": 60, **replay})


@pytest.mark.parametrize("kind", REPLAYS)
def test_a_resumed_run_goes_on_bit_for_bit(kind, build, tmp_path):
    straight = build(config_of(**REPLAYS[kind]))
    straight.train()
    straight.save_to_path(str(tmp_path))
    resumed = build(config_of(**REPLAYS[kind]))
    resumed.restore_from_path(str(tmp_path))
    one, two = state_of(straight), state_of(resumed)
    assert same(one, two) and sum(values.dtype == np.uint8 for values in one) >= 2
    for algo in (straight, resumed):
        for _ in range(2):
            result = algo.train()
    assert result["num_env_steps_sampled_lifetime"] > 120 > len(resumed.replay_buffer) > 50
    # Rows whose follower came after the checkpoint keep their x' beside the ring in the one that was restored.
    learnt = [algo.learner_group.get_state()["learner"]["rl_module"] for algo in (straight, resumed)]
    assert learnt[0].keys() == learnt[1].keys() == {"ab", "c"}
    for module, weights in learnt[0].items():
        for name, values in weights.items():
            np.testing.assert_array_equal(values, learnt[1][module][name], err_msg=f"{module} {name}")
    rows = [algo.replay_buffer.latest(60).joint_rows.numpy().view(np.int32) for algo in (straight, resumed)]
    np.testing.assert_array_equal(*rows)


def test_rows_of_vectors_are_the_same(build):
    """The same game with vectors of floats, while actions are random: all rows that are drawn have the same numbers."""
    drawn = []
    for vectors in (False, True):
        config = config_of(n_step=2).environment(ImageEnv, env_config={"vectors": vectors})
        algo = build(config.training(num_steps_sampled_before_learning_starts=10**6))
        algo.train()
        assert algo.schema.observes_bytes != vectors
        drawn.append([algo.replay_buffer.draw(1, 2, 16)[0], algo.replay_buffer.latest(60)])
    for one, two in zip(*drawn, strict=True):
        for name, values in one.columns.items():
            np.testing.assert_array_equal(values.numpy(), two.columns[name].numpy(), err_msg=name)


def test_other_buffers_take_over_the_rows(build, tmp_path):
    """From shards to one ring, a smaller one, and back to the shards: every row with its x'."""
    algo = build(config_of(**REPLAYS["shards"]))
    algo.train()
    algo.save_to_path(str(tmp_path))
    rows = bits_of(algo)
    assert len(rows) == len(algo.replay_buffer) > 40
    state = algo.replay_buffer.get_state()
    assert all("new_obs" not in shard["columns"] for shard in state["shards"]) and "new_obs" not in merged(state)["columns"]
    for capacity in (20, 60):
        other = build(config_of(capacity=capacity))
        other.restore_from_path(str(tmp_path))
        assert len(bits_of(other)) == min(capacity, len(rows)) and bits_of(other) <= rows
        other.train()
    algo.replay_buffer.set_state(other.replay_buffer.get_state())
    assert bits_of(algo) == bits_of(other)


def bits_of(algo):
    return {row.tobytes() for row in algo.replay_buffer.latest(60).joint_rows.numpy()}
