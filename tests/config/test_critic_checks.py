"""Settings that attention critics leave no choice, each refused by its key before anything starts."""

from __future__ import annotations

import pytest
from pairs_game import PairsGame
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_maddpg import MADDPGConfig, MADDPGTorchLearner
from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule
from rllib_maddpg.modules.views import View


class OwnCritic(MADDPGTorchRLModule):
    def build_critic(self, input_dim):
        return MLP(input_dim, 1)


def config_of(model=None, own=None, **settings) -> MADDPGConfig:
    config = MADDPGConfig().environment(PairsGame).training(**{"critic_type": "attention", **settings})
    config.rl_module(model_config={"fcnet_hiddens": [8, 8], **(model or {})})
    overrides = {m: MADDPGConfig.overrides(**settings) for m, settings in (own or {}).items()}
    return config.multi_agent(algorithm_config_overrides_per_module=overrides)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"critic_type": "graph"}, r"`critic_type`='graph' is not allowed: it must be one of \['mlp', 'attention'\]"),
        ({"minibatch_per_module": True}, "`minibatch_per_module`=True is not allowed: it must be False with attention critics"),
        ({"critic_view": "own"}, "`critic_view`='own' is not allowed: it must be 'all' or 'state.all', or a View .*module 'a'"),
        ({"critic_view": View("blind", columns=("state",), observations=False)}, "`critic_view`=.*blind.* is not allowed"),
        ({"own": {"b": {"critic_view": "own"}}}, "`critic_view`='own' .*module 'b', which compares what agents"),
        ({"own": {"b": {"tau": 0.5}}}, "`tau`=0.5 of module 'b' and 0.01 of 'a' are not allowed: they must be equal"),
        ({"own": {"c": {"critic_lr": 0.5}}}, "`critic_lr`=0.5 of module 'c' and None of 'a' are not allowed"),
        ({"own": {"c": {"lr": 0.5}}}, "`lr`=0.5 of module 'c'"),
        ({"own": {"c": {"grad_clip": 7.0}}}, "`grad_clip`=7.0 of module 'c' and 0.5 of 'a'"),
        ({"model": {"critic_attention_heads": 3}}, r"`model_config\['fcnet_hiddens'\]`=\[8, 8\] .* divisible by 3"),
        ({"model": {"critic_fcnet_hiddens": [6]}}, r"`model_config\['critic_fcnet_hiddens'\]`=\[6\] .* divisible by 4"),
        ({"model": {"critic_attention_heads": 0}}, r"`model_config\['critic_attention_heads'\]`=0 is not allowed"),
        (
            {"critic_type": "mlp", "model": {"critic_attention_heads": 2}},
            r"`model_config\['critic_attention_heads'\]`=2 .*None where no critic is an attention critic",
        ),
    ],
)
def test_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        config_of(**settings).validate()


def test_a_class_with_another_critic_is_refused():
    config = config_of().rl_module(rl_module_spec=RLModuleSpec(module_class=OwnCritic))
    with pytest.raises(ValueError, match="`critic_type`='attention' of module 'a': OwnCritic overrides `build_critic`"):
        config.validate()


class Alone(MADDPGTorchLearner):
    stacks_modules = False


class OwnLosses(MADDPGTorchLearner):
    def compute_actor_losses(self, ctx):
        return super().compute_actor_losses(ctx)


@pytest.mark.parametrize(
    ("learner", "why"),
    [(Alone, "Alone has `stacks_modules = False`"), (OwnLosses, "OwnLosses overrides `compute_actor_losses`")],
)
def test_a_learner_that_computes_modules_one_by_one_is_refused(learner, why):
    with pytest.raises(ValueError, match=rf"`critic_type`='attention' is not allowed: .*another `learner_class`: {why}"):
        config_of(learner_class=learner).validate()
    config_of(learner_class=learner, critic_type="mlp").validate()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"own": {"b": {"gamma": 0.5, "critic_loss": "huber", "others_actions": "current", "actor_lr": 0.1}}},
        {"own": {"b": {"critic_type": "mlp", "critic_view": "own", "tau": 0.5}}},
        {"critic_lr": 0.1, "own": {"b": {"lr": 0.5}}},
        {"model": {"critic_fcnet_hiddens": [6], "critic_attention_heads": 2}},
        {"twin_q": True, "infer_other_policies": True},
    ],
)
def test_allowed(settings):
    config_of(**settings).validate()
