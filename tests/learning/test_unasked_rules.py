"""Modules that approximate the others' policies ask nobody: neither rules, nor other actors."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from learner_games import build, config_of, weights_of
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from small_games import small_game, updates

from rllib_maddpg import MADDPGTorchLearner, MADDPGTorchRLModule
from rllib_maddpg.learning.stages import LossStage, TargetStage
from rllib_maddpg.modules.specs import ACTOR, CRITIC
from rllib_maddpg.modules.views import ALL


class Person(MADDPGTorchRLModule):
    """Acts by a rule that nobody can ask."""

    def _forward_inference(self, batch, **kwargs):
        raise RuntimeError("a person cannot be asked")


def game_with_a_person(**settings):
    game = small_game()
    specs = {m: RLModuleSpec(module_class=Person if m == "m2" else MADDPGTorchRLModule) for m in game.modules}
    config = config_of(game, **settings).rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    return game, config.multi_agent(policies_to_train=["m0", "m1"])


@pytest.mark.parametrize("others_actions", ["replay", "current"])
def test_a_rule_is_approximated_and_not_asked(others_actions):
    game, config = game_with_a_person(infer_other_policies=True, others_actions=others_actions)
    results = updates(build(config, game), game, [1, 2])
    assert {"inferred_loss", "qf_mean", "actor_loss"} <= results["m0"].keys()
    (agent,) = [a for a in game.agents if game.module_of[a] == "m2"]
    assert f"inferred_{agent}_log_likelihood" in results["m0"] and f"inferred_{agent}_kl" not in results["m0"]
    game, config = game_with_a_person(others_actions=others_actions)
    with pytest.raises(ValueError, match="a person cannot be asked"):
        updates(build(config, game), game, [1])


class SeesAll(MADDPGTorchRLModule):
    """Its critic sees all agents, whatever the setting says."""

    def networks(self):
        actor, critic, *_ = super().networks()
        build = partial(self.build_critic, self.input_dim(ALL))
        return [actor, replace(critic, build=build, view=ALL), *self.inferred_networks()]


def test_critics_without_approximations_take_the_target_actors():
    """A module that is said to see its own agent only has none, but its critic asks what others do all the same."""

    def learned(**settings):
        game = small_game()
        config = config_of(game, critic_view="own", **settings).rl_module(rl_module_spec=RLModuleSpec(module_class=SeesAll))
        config.multi_agent(algorithm_config_overrides_per_module={"m1": {"critic_view": "all"}})
        learner = build(config, game)
        updates(learner, game, [1, 2])
        return weights_of(learner)

    approximating, plain = learned(infer_other_policies=True), learned()
    same = {key for key in plain if torch.equal(approximating[key], plain[key])}
    assert {m for m, _ in same} >= {"m0", "m2"} and same >= {(m, net) for m in ("m0", "m2") for net in ("critic", "actor")}
    assert ("m1", "critic") not in same


class OwnStages(MADDPGTorchLearner):
    """Lists all of its stages."""

    @classmethod
    def stages(cls, config):
        critics = LossStage(role=CRITIC, losses=cls.compute_critic_losses)
        return [critics, LossStage(role=ACTOR, losses=cls.compute_actor_losses), TargetStage()]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"infer_other_policies": True}, "`stages\\(\\)` of OwnStages has no stage that trains approximations"),
        (
            {"policy_delay": 5},
            "`policy_delay`=5 is not allowed: it must be 1, because `stages\\(\\)` of OwnStages",
        ),
    ],
)
def test_a_learner_with_stages_of_its_own_does_what_settings_say(settings, text):
    build(config_of(small_game()).training(learner_class=OwnStages))
    with pytest.raises(ValueError, match=text):
        build(config_of(small_game(), **settings).training(learner_class=OwnStages))


class OneCritic(MADDPGTorchRLModule):
    """Has one critic, whatever the setting says."""

    def networks(self):
        return [spec for spec in super().networks() if spec.name != "twin_critic"]


def test_twin_q_needs_two_critics():
    config = config_of(small_game(), twin_q=True).rl_module(rl_module_spec=RLModuleSpec(module_class=OneCritic))
    with pytest.raises(
        ValueError, match="class OneCritic: `twin_q` is set, and `networks\\(\\)` has one network of the role 'critic'"
    ):
        build(config)
