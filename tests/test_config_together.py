"""Settings that are refused for what others say, or for what the machine has; and values that mean the same."""

import pytest
import torch

from rllib_maddpg import MADDPGConfig


def config_for(**env_config):
    return MADDPGConfig().environment("simple_adversary", env_config=env_config)


def test_gpus_that_nobody_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for key in ("num_gpus_per_learner", "num_gpus_per_env_runner"):
        config = config_for()
        setattr(config, key, 1)
        with pytest.raises(ValueError, match=f"`{key}`=1 is not allowed: it must be 0 where there is no GPU"):
            config.validate()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = config_for().learners(num_gpus_per_learner=1, local_gpu_idx=1)
    with pytest.raises(ValueError, match="`local_gpu_idx`=1 is not allowed: it must be below 1"):
        config.validate()
    config.learners(local_gpu_idx=0).validate()


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
        ({"num_env_runners": 2}, "without ['num_env_runners'], which RLlib overwrites"),
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
