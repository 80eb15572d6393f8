"""Settings that are refused for what others say, or for what the machine has; and values that mean the same."""

import gymnasium as gym
import numpy as np
import pytest
import ray
import torch
from ray.rllib.policy.policy import PolicySpec

from rllib_maddpg import MADDPGConfig


def config_for(**env_config):
    return MADDPGConfig().environment("simple_adversary", env_config=env_config)


def test_gpus_of_this_process_must_be_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    config = config_for().learners(num_gpus_per_learner=1)
    with pytest.raises(ValueError, match="`num_gpus_per_learner`=1 is not allowed: it must be 0 where there is no GPU"):
        config.validate()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config.learners(local_gpu_idx=1)
    with pytest.raises(ValueError, match="`local_gpu_idx`=1 is not allowed: it must be below 1"):
        config.validate()
    config.learners(local_gpu_idx=0).validate()


def test_gpus_of_remote_actors_may_be_anywhere(monkeypatch, ray_session, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    remote = [
        ("num_gpus_per_learner", config_for().learners(num_learners=1, num_gpus_per_learner=1)),
        ("num_gpus_per_env_runner", config_for().env_runners(num_env_runners=1, num_gpus_per_env_runner=0.5)),
        ("num_gpus_per_env_runner", config_for().env_runners(num_gpus_per_env_runner=0.5)),
    ]
    with monkeypatch.context() as before_ray:
        before_ray.setattr(ray, "is_initialized", lambda: False)
        for _, config in remote:
            config.copy().validate()
    assert "GPU" not in caplog.text
    for key, config in remote:
        caplog.clear()
        config.validate()
        told = config.num_learners + config.num_env_runners
        assert caplog.text.count(f"`{key}`={getattr(config, key)}, but the Ray cluster has no GPU") == told


def test_compilation_of_what_never_runs():
    with pytest.raises(ValueError, match=r"`torch_compile_learner_what_to_compile`=.*'complete_update'"):
        config_for().framework(torch_compile_learner=True).validate()
    compiled = {"torch_compile_learner": True, "torch_compile_learner_what_to_compile": "complete_update"}
    config_for().framework(**compiled).validate()
    with pytest.raises(ValueError, match="`torch_compile_learner_dynamo_backend`='induktor' is not allowed: it must be one of"):
        config_for().framework(**compiled, torch_compile_learner_dynamo_backend="induktor").validate()


def test_the_config_of_an_evaluation_is_checked_before_training():
    for own, text in [
        ({"explore": "no"}, "`evaluation_config`={'explore': 'no'} is not allowed: `explore`='no'"),
        ({"num_env_runners": 2}, "it must not contain `num_env_runners`, which RLlib overwrites"),
    ]:
        with pytest.raises(ValueError) as error:
            config_for().evaluation(evaluation_config=own).validate()
        assert text in str(error.value)


def test_tuples_are_lists():
    config = config_for().training(lr=((0, 0.1), (10, 0.0)))
    config.model["fcnet_hiddens"] = tuple(config.model["fcnet_hiddens"])
    config.rl_module(model_config={"fcnet_hiddens": (8, 4)}).validate()
    config.model["fcnet_hiddens"] = (8,)
    with pytest.raises(ValueError, match=r"`model`: \['fcnet_hiddens'\] are not allowed here"):
        config.validate()


def test_mappings_to_what_is_no_module():
    config = config_for().multi_agent(policy_mapping_fn=lambda agent, episode, **kwargs: None)
    with pytest.raises(ValueError, match="`policy_mapping_fn` maps agent 'adversary_0' to None, which is no module's name"):
        config.validate()


@pytest.mark.parametrize("overrides", [None, 3, [("tau", 1)]])
def test_overrides_that_are_no_dict(overrides):
    config = config_for().rl_module(algorithm_config_overrides_per_module={"agent_0": overrides})
    with pytest.raises(ValueError, match=r"`algorithm_config_overrides_per_module\['agent_0'\]`=.* must be a dict"):
        config.validate()


def test_numpy_scalars_become_numbers():
    overrides = {"agent_0": {"tau": np.float32(0.5), "lr": [[0, np.float32(0.5)], [np.int64(9), 0.0]]}}
    config = config_for().training(
        gamma=np.float32(0.5),
        lr=[[0, np.float64(0.25)], [np.int64(10), 0.0]],
        train_batch_size_per_learner=np.int64(64),
        minibatch_per_module=np.bool_(True),
        critic_loss=np.str_("huber"),
        replay_buffer_config={"capacity": np.int32(1000)},
    )
    config.evaluation(evaluation_interval=np.int64(1), evaluation_duration=np.int64(3)).debugging(seed=np.int64(7))
    config.rl_module(model_config={"fcnet_hiddens": [np.int64(8)]}, algorithm_config_overrides_per_module=overrides)
    env_config = {"max_cycles": np.int64(5)}
    config.environment(env_config=env_config).validate()
    for key, value in [
        ("gamma", 0.5),
        ("lr", [[0, 0.25], [10, 0.0]]),
        ("train_batch_size_per_learner", 64),
        ("minibatch_per_module", True),
        ("critic_loss", "huber"),
        ("evaluation_duration", 3),
        ("seed", 7),
    ]:
        # NumPy's equal Python's, but are shown otherwise.
        assert repr(getattr(config, key)) == repr(value)
    assert repr(config.replay_buffer_config["capacity"]) == "1000"
    assert repr(config.model_config["fcnet_hiddens"]) == "[8]"
    given = config.algorithm_config_overrides_per_module["agent_0"]
    assert repr(given) == "{'tau': 0.5, 'lr': [[0, 0.5], [9, 0.0]]}"
    assert type(overrides["agent_0"]["tau"]) is np.float32  # the user's dict stays as it was
    assert type(config.env_config["max_cycles"]) is np.int64  # so does what only the env reads


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tau", np.float32("nan")),
        ("tau", np.bool_(True)),
        ("num_env_runners", np.bool_(True)),
        ("train_batch_size_per_learner", np.float64(64)),
        ("train_batch_size_per_learner", np.int64(0)),
        ("minibatch_per_module", np.int64(1)),
        ("seed", np.datetime64("2026-01-01")),
    ],
)
def test_numpy_scalars_of_other_kinds_are_refused(key, value):
    with pytest.raises(ValueError, match=f"`{key}`=.* is not allowed"):
        config_for().update_from_dict({key: value}).validate()


def test_members_of_enums_stand_for_their_values():
    config_for().env_runners(gym_env_vectorize_mode=gym.VectorizeMode.SYNC).validate()
    with pytest.raises(
        ValueError, match=r"`gym_env_vectorize_mode`=.*ASYNC.* must be '(sync|SYNC)'\. RLlib steps multi-agent envs synchr"
    ):
        config_for().env_runners(gym_env_vectorize_mode=gym.VectorizeMode.ASYNC).validate()


def test_no_timeout():
    config_for().fault_tolerance(env_runner_health_probe_timeout_s=None, env_runner_restore_timeout_s=None).validate()


SPACES = {"adversary_0": 8, "agent_0": 10, "agent_1": 10}  # widths of observations


def config_with_specs(specs):
    policies = {"bad": PolicySpec(), "good": PolicySpec(), **specs}
    mapping = {agent: "bad" if agent == "adversary_0" else "good" for agent in SPACES}
    return config_for().multi_agent(policies=policies, policy_mapping_fn=mapping)


@pytest.mark.parametrize("as_tuple", [False, True])
def test_spaces_in_policies_are_those_of_the_env(as_tuple):
    def spec(observation_space, action_space):
        values = (None, observation_space, action_space, {})
        return values if as_tuple else PolicySpec(*values)

    observes, acts = gym.spaces.Box(-np.inf, np.inf, (10,)), gym.spaces.Discrete(5)
    config_with_specs({"good": spec(observes, acts)}).validate()
    config_with_specs({"good": spec(None, acts)}).validate()
    with pytest.raises(ValueError, match=r"`policies\['good'\]` has the observation_space .*its agent 'agent_0' has Box"):
        config_with_specs({"good": spec(gym.spaces.Box(-1, 1, (10,)), None)}).validate()
    with pytest.raises(
        ValueError, match=r"`policies\['bad'\]` has the action_space Discrete\(4\), but its agent 'adversary_0'"
    ):
        config_with_specs({"bad": spec(None, gym.spaces.Discrete(4))}).validate()


class WithOldNames(MADDPGConfig):
    """Settings of a user's under names that older RLlibs had."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class)
        self.sample_batch_size = 1
        self.horizon = None


def test_subclasses_may_have_settings_with_old_names():
    config = WithOldNames().environment("simple_adversary").update_from_dict({"sample_batch_size": 3, "tau": 0.5})
    config.horizon = 7
    config.validate()
    assert (config.sample_batch_size, config.horizon, config.tau) == (3, 7, 0.5)
    again = WithOldNames().update_from_dict(config)
    assert (again.sample_batch_size, again.horizon) == (3, 7)
    for key in ("buffer_size", "hiddens"):
        with pytest.raises(ValueError, match=f"`{key}` is a key of an older RLlib"):
            WithOldNames().update_from_dict({key: 3})
    config.buffer_size = 3
    with pytest.raises(ValueError, match="`buffer_size` is a key of an older RLlib"):
        config.validate()
