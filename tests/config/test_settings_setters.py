"""Whatever RLlib's methods and config dicts cannot set is a `ValueError` that names the setting."""

import inspect

import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.policy.policy import PolicySpec

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.config.old_settings import OLD_SETTINGS
from rllib_maddpg.config.setters import METHODS
from rllib_maddpg.config.text_settings import parse_settings, with_booleans
from rllib_maddpg.ray_compat import since

ODD = [None, True, -1, 2.5, float("nan"), "x", "", [], [1], {}, {"a": 1}, {1: 2}, (), object(), set(), b"x"]


@pytest.mark.parametrize("method", METHODS)
def test_methods_set_or_refuse_by_name(method):
    parameters = set(inspect.signature(getattr(AlgorithmConfig, method)).parameters)
    parameters |= set(inspect.signature(getattr(MADDPGConfig, method)).parameters)
    refused = 0
    for name in parameters - {"self", "kwargs"}:
        for value in ODD:
            try:
                getattr(MADDPGConfig(), method)(**{name: value})
            except ValueError as error:
                refused += 1
                assert name in str(error), f"{name}={value!r}: {error}"
    if method in ("environment", "training", "multi_agent", "evaluation") or (method == "learners" and since("2.53")):
        assert refused


def test_dicts_set_or_refuse_by_name():
    refused = set()
    for key in [*vars(MADDPGConfig()), "framework", "callbacks", "num_workers", "multiagent", "model_config", "rl_module_spec"]:
        for value in ODD:
            try:
                MADDPGConfig().update_from_dict({"tau": 0.5, key: value})
            except ValueError as error:
                assert key in str(error), f"{key}={value!r}: {error}"
                refused.add(key)
    assert refused >= {"env_config", "model", "replay_buffer_config", "evaluation_config", "multiagent"} - {
        "replay_buffer_config"
    }
    for settings, text in [
        ([("tau", 0.1)], "A config must be a dict of settings"),
        ({1: 2}, "A config's keys are words, not 1"),
        ({"multiagent": {"policies_to_trian": None}}, "`multiagent`={'policies_to_trian': None} is not allowed"),
        ({"evaluation_intervall": 1}, "`evaluation_intervall` is no setting of MADDPG. Did you mean 'evaluation_interval'"),
        ({"in_evaluation": True}, "`in_evaluation`=True is not allowed: it must be left alone"),
    ]:
        with pytest.raises(ValueError) as error:
            MADDPGConfig().update_from_dict(settings)
        assert text in str(error.value)


@pytest.mark.parametrize("key", OLD_SETTINGS)
def test_old_keys_are_refused_with_what_takes_their_place(key):
    for put in (lambda config: config.update_from_dict({key: 3}), lambda config: setattr(config, key, 3) or config.validate()):
        with pytest.raises(ValueError) as error:
            put(MADDPGConfig().environment("simple_spread"))
        text = str(error.value)
        assert key in text and ("instead" in text or "Leave it out" in text or "deprecated" in text)


def test_dicts_of_whole_configs_are_taken():
    config = MADDPGConfig().environment("simple_spread").training(tau=0.3)
    config.validate()
    again = MADDPGConfig().update_from_dict(config)
    again.validate()
    assert again.tau == 0.3 and again.env == "simple_spread"
    third = MADDPGConfig().update_from_dict({"model_config": {"fcnet_hiddens": [7]}, "num_workers": 2})
    assert third.model_config["fcnet_hiddens"] == [7] and third.num_env_runners == 2


def test_a_key_given_twice_is_refused():
    with pytest.raises(ValueError, match="`env` is given twice: 'a' and 'b'"):
        MADDPGConfig().environment("a", env="b")
    config = MADDPGConfig().environment("a", env_config={"N": 2})
    assert (config.env, config.env_config) == ("a", {"N": 2})


def test_frozen_configs_say_so():
    config = MADDPGConfig()
    config.freeze()
    with pytest.raises(AttributeError, match="frozen"):
        config.training(tau=0.1)


def test_policies_without_specs():
    config = MADDPGConfig().environment("simple_spread", env_config={"N": 2})
    config.multi_agent(policies={"p": None}, policy_mapping_fn=lambda agent, episode, **kwargs: "p").validate()
    assert isinstance(config.policies["p"], PolicySpec)


def test_words_for_booleans_on_the_command_line_only():
    words = parse_settings(["explore=no", "minibatch_per_module=On", "noise_type=off", "env=no", "log_sys_usage=true"], "--set")
    assert with_booleans(words) == {
        "explore": False,
        "minibatch_per_module": True,
        "noise_type": "off",
        "env": "no",
        "log_sys_usage": True,
    }
    for key in ("explore", "minibatch_per_module", "log_sys_usage"):
        config = MADDPGConfig().environment("simple_spread").update_from_dict({key: "no"})
        with pytest.raises(ValueError, match=f"`{key}`='no' is not allowed: it must be True or False"):
            config.validate()
