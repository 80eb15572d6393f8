"""Modules that approximate the others' policies ask nobody: neither rules, nor other actors."""

import pytest
from learner_games import build, config_of
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from small_games import small_game, updates

from rllib_maddpg import MADDPGTorchLearner, MADDPGTorchRLModule
from rllib_maddpg.learning.stages import LossStage, TargetStage
from rllib_maddpg.modules.specs import ACTOR, CRITIC, NetworkSpec
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
        actor, _ = super().networks()[:2]
        return [actor, NetworkSpec("critic", CRITIC, lambda: self.build_critic(self.input_dim(ALL)), "critic_lr", view=ALL)]


def test_a_critic_that_sees_all_without_approximations_takes_the_target_actors():
    """It would learn from what nobody has said."""
    game = small_game()
    spec = RLModuleSpec(module_class=SeesAll)
    given = {"critic_view": "own", "others_actions": "current"}
    config = config_of(game, **given).rl_module(rl_module_spec=spec)
    plain = build(config, game)
    config = config_of(game, infer_other_policies=True, **given).rl_module(rl_module_spec=spec)
    config.multi_agent(algorithm_config_overrides_per_module={m: {"infer_other_policies": True} for m in game.modules})
    with pytest.raises(ValueError, match="none has a critic that asks what these do"):
        build(config, game)
    assert updates(plain, game, [1])["m0"]["td_error_mean"] is not None


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
