"""A config that brings a module class itself, as RLlib's algorithms do: it is checked like one that a user gives."""

import re

import pytest
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from torch import nn

from rllib_maddpg import MADDPGConfig, MADDPGTorchLearner, MADDPGTorchRLModule
from rllib_maddpg.learning.stages import LossStage
from rllib_maddpg.modules.specs import NetworkSpec


class Modelled(MADDPGTorchRLModule):
    def networks(self):
        return [*super().networks(), NetworkSpec("model", "model", lambda: nn.Linear(2, self.model_config.get("out", 1)))]


class ModelLearner(MADDPGTorchLearner):
    @classmethod
    def stages(cls, config):
        return [LossStage(role="model", losses=lambda learner, ctx: {}), *super().stages(config)]


def config_with(default):
    class Mine(MADDPGConfig):
        def get_default_rl_module_spec(self):
            return default

        def get_default_learner_class(self):
            return ModelLearner

    return Mine().environment("simple_spread")


def test_its_networks_are_known():
    config_with(RLModuleSpec(module_class=Modelled)).validate()
    config_with(RLModuleSpec(module_class=Modelled, model_config={"out": 3, "fcnet_hiddens": [8]})).validate()
    with pytest.raises(ValueError, match="networks of the role 'model', but module 'agent_0' has only networks of"):
        config_with(RLModuleSpec(module_class=MADDPGTorchRLModule)).validate()


def test_it_holds_where_a_users_spec_names_no_class():
    config = config_with(RLModuleSpec(module_class=Modelled))
    config.rl_module(
        rl_module_spec=RLModuleSpec(model_config=DefaultModelConfig(fcnet_hiddens=[8, 8], fcnet_activation="tanh"))
    )
    config.validate()
    plain = RLModuleSpec(module_class=MADDPGTorchRLModule)
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs={"agent_1": plain}))
    config.validate()
    everywhere = dict.fromkeys(config.policies, plain)
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=everywhere))
    with pytest.raises(ValueError, match="networks of the role 'model', but module 'agent_0' has only networks of"):
        config.validate()


@pytest.mark.parametrize(
    ("default", "text"),
    [
        (RLModuleSpec(), "must be an RLModuleSpec with a class"),
        (None, "`get_default_rl_module_spec()`=None is not allowed: it must be an RLModuleSpec with a class."),
        (MultiRLModuleSpec(rl_module_specs={}), "must be an RLModuleSpec with a class"),
        (RLModuleSpec(module_class=RLModule), "`policies_to_train`=None is not allowed"),
        (RLModuleSpec(module_class=int), "`rl_module_spec`='int' is not allowed"),
        (RLModuleSpec(module_class=Modelled, model_config={"out": "x"}), "could not be made (TypeError"),
    ],
)
def test_what_does_not_fit_is_named(default, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        config_with(default).validate()
