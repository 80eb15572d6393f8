"""Training with replay buffers that users wrote: draws, feedback, checkpoints, several Learners, remote runners."""

import numpy as np
import pytest
import torch
from users_replays import FetchingReplay, PlainReplay, PrioritizedReplay, ShortDraws

from rllib_maddpg import MADDPG, MADDPGConfig

pytestmark = pytest.mark.usefixtures("ray_session")

BATCH = 16
PRIORITIZED = "users_replays.PrioritizedReplay"


def config_for(kind, rate=1e-3, learners=0, **settings):
    """Ten updates in each call of the Learners, from the second fragment of 50 env steps on."""
    config = MADDPGConfig().environment("simple_spread", env_config={"continuous_actions": True, "max_cycles": 25})
    config.env_runners(rollout_fragment_length=50).learners(num_learners=learners, num_cpus_per_learner=0.5)
    config.rl_module(model_config={"fcnet_hiddens": [16]}).debugging(seed=4)
    config.training(train_batch_size_per_learner=BATCH, num_env_steps_per_update=5, lr=rate, **settings)
    config.training(num_steps_sampled_before_learning_starts=100, replay_buffer_config={"type": kind, "capacity": 2000})
    return config.reporting(min_sample_timesteps_per_iteration=150)


@torch.no_grad()
def errors_by_hand(learner, batch, per_module):
    """Mean |TD error| of the agents of each row, each of which has its own module; or that of the row's only module."""
    layout, columns = learner.layout, batch.columns
    modules = [learner.module[slot.module].unwrapped() for slot in layout.slots]
    parts = zip(modules, layout.slots, strict=True)
    next_actions = torch.cat([torch.tanh(m.target_actor(columns["new_obs"][:, slot.obs])) for m, slot in parts], -1)
    errors = []
    for k, m in enumerate(modules):
        next_q = m.q_values(m.target_critic, columns["new_obs"], next_actions)
        target = columns["rewards"][:, [k]] + 0.95 * (1 - columns["terminateds"][:, [k]]) * next_q
        errors.append((m.q_values(m.critic, columns["obs"], columns["actions"]) - target).abs())
    errors = torch.cat(errors, 1)
    assert errors.shape == (len(batch), 3)
    return errors[torch.arange(len(batch)), torch.arange(len(batch)) % 3] if per_module else errors.mean(1)


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
