"""Training with a replay buffer in shards: counts, checkpoints, Learners that fetch their rows, lost shards, Tune, settings."""

import copy
import os

import numpy as np
import psutil
import pytest
import ray
import torch
from ray import tune
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from shards import end_shard
from tally_env import TallyEnv, broken_rows

from rllib_maddpg import MADDPG, MADDPGConfig
from rllib_maddpg.replay.resharding import merged
from rllib_maddpg.rows.joint_batch import JointBatch

pytestmark = pytest.mark.usefixtures("ray_session")


def config_for(runners=2, shards=2, learners=0, **env_config):
    config = MADDPGConfig().environment(TallyEnv, env_config=env_config).debugging(seed=3)
    config.env_runners(num_env_runners=runners, rollout_fragment_length=10).learners(num_learners=learners)
    config.rl_module(model_config={"fcnet_hiddens": [8]})
    config.training(num_steps_sampled_before_learning_starts=40, train_batch_size_per_learner=16, lr=1e-3)
    config.training(num_env_steps_per_update=5, replay_buffer_config={"capacity": 10_000, "num_shards": shards})
    return config.reporting(min_sample_timesteps_per_iteration=100)


def weights_of(learner):
    return {f"{m}/{k}": v.clone() for m in sorted(learner.module.keys()) for k, v in learner.module[m].state_dict().items()}


def test_training_with_remote_runners(build, tmp_path):
    """Counts, rows, a checkpoint, and a seed's weights."""
    algo = build(config_for())
    for _ in range(3):
        result = algo.train()
    state = algo.replay_buffer.get_state()
    columns = merged(state)["columns"]
    steps = algo._env_steps
    assert steps == len(columns["rewards"]) == len(algo.replay_buffer) == result["num_env_steps_sampled_lifetime"] >= 300
    assert result["replay_buffer"]["num_rows"] == steps
    assert broken_rows(columns) == []
    assert [len(shard["columns"]["rewards"]) for shard in state["shards"]] == [steps // 2] * 2
    trained = result["learners"]["__all_modules__"]
    assert algo._num_updates == trained["num_updates_lifetime"] == steps // 5 - 4  # those of the first rounds are not made
    assert trained["num_env_steps_trained_lifetime"] == 16 * algo._num_updates
    weights = weights_of(algo.learner_group._learner)
    path = algo.save_to_path(str(tmp_path / "c"))
    algo.stop()

    other = build(config_for())
    for _ in range(3):
        other.train()
    for name, value in weights_of(other.learner_group._learner).items():
        assert torch.equal(value, weights[name]), name
    other.train()
    other.restore_from_path(path)
    restored = other.replay_buffer.get_state()
    for one, two in zip(state["shards"], restored["shards"], strict=True):
        assert all(np.array_equal(one["columns"][name], two["columns"][name]) for name in other.schema.columns)
        assert one["stream_key"] == two["stream_key"] and one["rng"] == two["rng"]
    assert restored["num_updates_drawn"] == state["num_updates_drawn"] == algo._num_updates > 0
    assert other._env_steps == steps
    other.train()
    assert len(other.replay_buffer) == other._env_steps > steps
    other.stop()

    alone = build(config_for(runners=0, shards=0))
    alone.restore_from_path(path)
    assert len(alone.replay_buffer) == steps and broken_rows(alone.replay_buffer.get_state()["columns"]) == []


def test_learners_learn_the_same_from_shards(build):
    """An update from references is that from the rows, for a local Learner and for two remote ones."""
    algo = build(config_for(runners=0))
    algo.train()
    learner, group = algo.learner_group._learner, None
    start = copy.deepcopy(learner.get_state())
    try:
        # The game's own numbers differ too much in size: Adam would make a difference in their last digits a large one.
        state = algo.replay_buffer.get_state()
        generator = np.random.default_rng(1)
        for shard in state["shards"]:
            for name in ("obs", "new_obs", "rewards"):
                shard["columns"][name] = generator.normal(size=shard["columns"][name].shape).astype(np.float32)
        algo.replay_buffer.set_state(state)
        batches = algo.replay_buffer.draw(2, 6, 16)
        gathered = [batch.gather().unflatten(0, (6, 16)) for batch in batches]
        steps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: algo._env_steps}
        # As one Learner sees what two have: both shares of each update side by side.
        whole = JointBatch(algo.schema, torch.cat(gathered, 1).flatten(0, 1))
        learner.update(batch=whole, minibatch_size=32, timesteps=steps)
        expected = weights_of(learner)
        learner.set_state(start)
        learner.update(batch=batches[0], minibatch_size=16, timesteps=steps)
        single = weights_of(learner)
        learner.set_state(start)
        learner.update(batch=JointBatch(algo.schema, gathered[0].flatten(0, 1)), minibatch_size=16, timesteps=steps)
        for name, value in weights_of(learner).items():
            assert torch.equal(value, single[name]), name
        config = algo.config.copy(copy_frozen=False).learners(num_learners=2, num_cpus_per_learner=0.5)
        group = config.build_learner_group(spaces=algo.env_runner_group.get_spaces())
        group.foreach_learner(lambda learner: learner.set_state(start))
        group.update(batch_refs=[ray.put(batch) for batch in batches], minibatch_size=16, timesteps=steps)
        for result in group.foreach_learner(weights_of):
            for name, value in result.get().items():
                # Six steps of Adam go some 1e-3 each; sums over the rows of two Learners are added up in another order.
                assert float((value - expected[name]).abs().max()) < 1e-5, name
    finally:
        if group is not None:
            group.shutdown()


def test_a_run_goes_on_without_a_shard_and_ends_without_all(build):
    algo = build(config_for(runners=0))
    algo.train()
    steps = algo._env_steps
    end_shard(algo.replay_buffer, 0)
    result = algo.train()
    assert algo._env_steps == algo.replay_buffer.num_rows_added == result["num_env_steps_sampled_lifetime"] > steps
    for shard in algo.replay_buffer._shards:
        ray.kill(shard)
    # The second text where a shard dies between being asked for rows and giving them.
    died = "All 2 shards of the replay buffer have died.*num_shards|None of the replay buffer's shards .* is there any more"
    with pytest.raises(RuntimeError, match=died) as error:
        for _ in range(3):
            algo.train()
    folder = os.path.join(algo.logdir, "checkpoint_before_error")
    assert folder in error.value.__notes__[0]
    other = build(config_for(runners=0, shards=0))
    other.restore_from_path(folder)
    assert other._env_steps == algo._env_steps and len(other.replay_buffer) == 0


def test_tune_makes_room_for_shards(tmp_path):
    config = config_for(runners=1, shards=1)
    request = MADDPG.default_resource_request(config)
    assert [bundle.get("CPU") for bundle in request.bundles] == [1, 1, 1]
    assert [b.get("CPU") for b in MADDPG.default_resource_request(config_for(runners=1, shards=0)).bundles] == [1, 1]
    tuner = tune.Tuner(
        MADDPG,
        param_space=config,
        run_config=tune.RunConfig(stop={"training_iteration": 2}, storage_path=str(tmp_path), verbose=0),
    )
    result = tuner.fit()[0]
    assert result.error is None and result.metrics["replay_buffer"]["num_rows"] >= 200


# ------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("buffer", "text"),
    [
        ({"num_shards": -1}, r"`replay_buffer_config\['num_shards'\]`=-1 .* a whole number >= 0"),
        ({"num_shards": 1.5}, r"`replay_buffer_config\['num_shards'\]`=1.5 .* a whole number >= 0"),
        ({"num_shards": True}, r"`replay_buffer_config\['num_shards'\]`=True"),
        ({"num_shards": 200, "capacity": 100}, r"\['num_shards'\]`=200 .* at most the capacity of 100 rows"),
        ({"num_shards": 4, "capacity": 36}, r"`rollout_fragment_length`=10 .* capacity of 9 rows of each shard"),
        ({"num_shards": 2, "device": "cuda"}, r"`replay_buffer_config\['device'\]`='cuda' .* 'cpu' with `num_shards`"),
    ],
)
def test_bad_settings(monkeypatch, buffer, text):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = config_for().training(replay_buffer_config=buffer)
    with pytest.raises(ValueError, match=text):
        config.validate()


def test_shards_divide_the_memory_that_is_needed():
    """A capacity that no machine alone could hold is allowed in shards."""
    capacity = int(1.5 * psutil.virtual_memory().available / (4 * (2 * 14 + 4 + 8)))
    with pytest.raises(ValueError, match="GiB"):
        config_for(shards=0).training(replay_buffer_config={"capacity": capacity}).validate()
    config_for(shards=2).training(replay_buffer_config={"capacity": capacity}).validate()
