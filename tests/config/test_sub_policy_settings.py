"""Settings of policy ensembles: which values are refused, and which column and networks they ask for."""

import re

import pytest
from learner_games import build, config_of
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from reference.maddpg import Discrete, random_game

from rllib_maddpg import MADDPGConfig, MADDPGTorchRLModule
from rllib_maddpg.config.own_columns import own_columns

GAME = random_game(3, n_agents=3, kinds=[Discrete(3)], obs_dim=2, shared=False, frozen=False, dead=False, waiting=False)
FIRST, SECOND, THIRD = GAME.agents


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"num_sub_policies": 0}, "`num_sub_policies`=0 is not allowed: it must be a whole number > 0. 1: no ensemble"),
        (
            {"num_sub_policies": 65},
            "`num_sub_policies`=65 is not allowed: it must be a whole number > 0. 1: no ensemble; the paper uses 3. At most 64",
        ),
        ({"n_step": 1001}, "`n_step`=1001 is not allowed: it must be a whole number > 0. 1: one-step targets. At most 1,000."),
        (
            {"gumbel_rao_samples": 1001},
            "`gumbel_rao_samples`=1001 is not allowed: it must be a whole number > 0. Try 10. At most 1,000.",
        ),
        ({"num_sub_policies": 1.5}, "`num_sub_policies`=1.5 is not allowed"),
        ({"sub_policy": -1}, "`sub_policy`=-1 is not allowed: it must be a whole number >= 0, or None."),
        ({"sub_policy": 1}, "`sub_policy`=1 is not allowed: module 'm0' has one policy, 0. Name one that all have."),
        (
            {"sub_policy": 1, "num_sub_policies": 2},
            "`sub_policy`=1 is not allowed: it must be None in training, where all sub-policies learn. Set it for evaluation",
        ),
        ({"share_sub_policy_draw": 1}, "`share_sub_policy_draw`=1 is not allowed: it must be True, False or lists of agents."),
        (
            {"share_sub_policy_draw": [FIRST, SECOND]},
            "is not allowed: it must be True, False or lists of agents. For example [[",
        ),
        (
            {"share_sub_policy_draw": [[FIRST, "a9"]]},
            f"`share_sub_policy_draw`=[['{FIRST}', 'a9']] is not allowed: there is no agent 'a9'.",
        ),
        ({"share_sub_policy_draw": [[FIRST, SECOND], [FIRST]]}, f"is not allowed: agent '{FIRST}' is in it twice."),
    ],
)
def test_bad_values(settings, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        config_of(GAME, **settings).validate()


def of_modules(share, **numbers):
    config = config_of(GAME, share_sub_policy_draw=share)
    overrides = {m: MADDPGConfig.overrides(num_sub_policies=number) for m, number in numbers.items()}
    return config.multi_agent(algorithm_config_overrides_per_module=overrides)


def test_who_draws_together_has_equally_many():
    text = (
        f"is not allowed: agents '{FIRST}' and '{SECOND}' would draw together, and have 3 and 2 sub-policies. Give their "
        "modules the same `num_sub_policies`, or let them draw by themselves."
    )
    for share in ([[FIRST, SECOND]], True):
        with pytest.raises(ValueError, match=re.escape(text)):
            of_modules(share, m0=3, m1=2).validate()
    of_modules([[FIRST, THIRD], [SECOND]], m0=3, m1=2, m2=3).validate()
    of_modules(True, m0=3, m2=3).validate()  # one with a single policy has nothing to draw
    with pytest.raises(ValueError, match="have 1 and 3 sub-policies"):
        of_modules([[SECOND, THIRD]], m2=3).validate()


def test_bad_values_of_modules():
    with pytest.raises(ValueError, match=re.escape("['m1']`: `num_sub_policies`=0 is not allowed")):
        of_modules(False, m1=0).validate()
    with pytest.raises(ValueError, match=r"`evaluation_config`=.*`sub_policy`=2 is not allowed: module 'm1' has"):
        of_modules(False, m0=3, m1=2, m2=3).evaluation(evaluation_config={"sub_policy": 2}).validate()
    of_modules(False, m0=3, m1=2, m2=3).evaluation(evaluation_config={"sub_policy": 1}).validate()


def test_a_column_and_networks_only_where_there_are_several():
    config = config_of(GAME)
    config.validate()
    assert own_columns(config) == [] and "sub_policies" not in build(config).schema
    learner = build(of_modules(False, m1=3))
    assert learner.schema.column("sub_policies").dtype == "uint8"
    assert learner.schema.bytes_per_row == build(config_of(GAME)).schema.bytes_per_row + 4
    names = {m: [spec.name for spec in learner.module[m].unwrapped().network_specs] for m in GAME.modules}
    assert names == {"m0": ["actor", "critic"], "m1": ["actor", "actor_1", "actor_2", "critic"], "m2": ["actor", "critic"]}


class OneActor(MADDPGTorchRLModule):
    """Declares its networks itself."""

    def networks(self):
        return [spec for spec in super().networks() if spec.name in ("actor", "critic")]


def test_modules_with_networks_of_their_own_must_have_as_many_actors():
    config = config_of(GAME, num_sub_policies=2).rl_module(rl_module_spec=RLModuleSpec(module_class=OneActor))
    text = (
        "OneActor: `networks()` has 1 networks of the role 'actor' (['actor']). `num_sub_policies`=2 asks for 2, with "
        "`on_runners=True`: add `*self.actor_networks()` to what it returns, or set `num_sub_policies=1` for this module."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        config.validate()
