"""Settings of the members of the family, and how they go together."""

import re

import pytest
from learner_games import config_of
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from reference.maddpg import Discrete, random_game

from rllib_maddpg import MADDPGTorchRLModule
from rllib_maddpg.modules.views import View

GIVEN = {"kinds": [Discrete(3)], "obs_dim": 2, "frozen": False, "dead": False, "waiting": False}
GAME = random_game(3, n_agents=3, shared=False, **GIVEN)
SHARED = random_game(3, n_agents=2, shared=True, **GIVEN)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"twin_q": "yes"}, "`twin_q`='yes' is not allowed: it must be True or False."),
        ({"policy_delay": 0}, "`policy_delay`=0 is not allowed: it must be a whole number > 0. 1: in every update; MATD3"),
        ({"policy_delay": 1.5}, "`policy_delay`=1.5 is not allowed: it must be a whole number > 0."),
        ({"target_policy_noise": -0.1}, "`target_policy_noise`=-0.1 is not allowed: it must be a number >= 0"),
        ({"target_noise_clip": 0}, "`target_noise_clip`=0 is not allowed: it must be a number > 0"),
        ({"infer_other_policies": 1}, "`infer_other_policies`=1 is not allowed: it must be True or False."),
        ({"inferred_policy_entropy": -1e-3}, "`inferred_policy_entropy`=-0.001 is not allowed: it must be a number >= 0"),
        ({"inferred_target": "softmax"}, "`inferred_target`='softmax' is not allowed: it must be one of ['probabilities', 'g"),
        ({"inferred_lr": "fast"}, "`inferred_lr`='fast' is not allowed: it must be a rate >= 0 or a schedule"),
        ({"critic_view": "team"}, "`critic_view`='team' is not allowed: it must be one of ['all', 'own', 'state',"),
    ],
)
def test_bad_values(settings, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        config_of(GAME, **settings).validate()


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"m1": {"inferred_policy_entropy": -1.0}}, "['m1']`: `inferred_policy_entropy`=-1.0 is not allowed"),
        ({"m1": {"critic_view": "team"}}, "['m1']`: `critic_view`='team' is not allowed"),
        (
            {"m9": {"critic_view": "own"}},
            "['m9']` is not allowed: it must be for modules of ['m0', 'm1', 'm2']. There is no",
        ),
        ({"m1": {"policy_delay": 2}}, "['m1']`: `policy_delay` holds for all modules."),
    ],
)
def test_bad_values_of_modules(overrides, text):
    config = config_of(GAME).multi_agent(algorithm_config_overrides_per_module=overrides)
    with pytest.raises(ValueError, match=re.escape(f"`algorithm_config_overrides_per_module{text}")):
        config.validate()


def test_there_must_be_somebody_to_approximate():
    text = (
        "`infer_other_policies`=True is not allowed: it must be False where there is one module only; 'm0' serves all agents, "
        f"which are {SHARED.agents}. Set it to False, or map agents to different modules (`policy_mapping_fn`)."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        config_of(SHARED, infer_other_policies=True).validate()


@pytest.mark.parametrize("view", ["own", View("mine", agents="own")])
def test_critics_must_ask_what_others_do(view):
    text = (
        "`infer_other_policies`=True is not allowed: of the modules that are to approximate others, ['m0', 'm1', 'm2'], none "
        "has a critic that asks what these do. Set `critic_view='all'` for one of them at least, or "
    )
    config = config_of(GAME, infer_other_policies=True, critic_view=view)
    with pytest.raises(ValueError, match=re.escape(text)):
        config.validate()
    config = config_of(GAME, infer_other_policies=True, critic_view=view)
    config.multi_agent(algorithm_config_overrides_per_module={"m1": {"critic_view": "all"}}).validate()


class OwnNetworks(MADDPGTorchRLModule):
    """Declares all of its networks, and no approximations."""

    def networks(self):
        return [spec for spec in super().networks() if spec.role != "inferred"]


def test_modules_with_networks_of_their_own_must_have_approximations():
    config = config_of(GAME, infer_other_policies=True).rl_module(rl_module_spec=RLModuleSpec(module_class=OwnNetworks))
    text = "OwnNetworks: `infer_other_policies` is set, and `networks()` has none of the names ['inferred_1', 'inferred_2']."
    with pytest.raises(ValueError, match=re.escape(text)):
        config.validate()


def test_a_rate_for_each_network():
    rates = {"lr": None, "actor_lr": 1e-3, "critic_lr": 1e-3}
    config_of(GAME, **rates).validate()
    with pytest.raises(ValueError, match="`lr`=None is not allowed"):
        config_of(GAME, infer_other_policies=True, **rates).validate()
    config_of(GAME, infer_other_policies=True, inferred_lr=1e-3, **rates).validate()
