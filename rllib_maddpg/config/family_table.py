"""Settings that make a member of the family of MADDPG: MATD3's, and those of inferred policies. See `docs/family.md`.

Sources of defaults: Fujimoto et al. 2018 (TD3) and Ackermann et al. 2019 (MATD3) for the clip of the noise; Lowe et al. 2017
(section 4.2 and its appendix) for inferred policies.
"""

from __future__ import annotations

from rllib_maddpg.config.kinds import BOOL, RATE, TEAMS, between, one_of, whole
from rllib_maddpg.config.setting import Setting
from rllib_maddpg.modules.sub_policies import MOST

INFERRED_TARGETS = ("probabilities", "greedy")
ESTIMATORS = ("straight_through", "tags", "gapped_straight_through", "gumbel_rao")

FAMILY: tuple[Setting, ...] = (
    # MATD3.
    Setting(
        "twin_q",
        False,
        BOOL.but("True: two critics for each module, as in MATD3."),
        "True: each module has two critics, both of which learn from the smaller of their targets' values.",
        per_module=True,
        structural=True,
    ),
    Setting(
        "policy_delay",
        1,
        whole(1).but("1: in every update; MATD3 uses 2."),
        "Actors and targets learn in every so many updates; critics in all of them.",
        mutable=True,
    ),
    Setting(
        "target_policy_noise",
        0.0,
        between(0, 1e10).but("Set 0 to switch it off; MATD3 uses 0.2."),
        "Standard deviation of the noise on the actions in TD targets: on tanh boxes' codes, which lie in [-1, 1]; on the head "
        "output of all others.",
        per_module=True,
        mutable=True,
    ),
    Setting(
        "target_noise_clip",
        0.5,
        between(1e-10, 1e10).but("MATD3 uses 0.5."),
        "Limit of that noise, on both sides.",
        per_module=True,
        mutable=True,
    ),
    # Inferred policies.
    Setting(
        "infer_other_policies",
        False,
        BOOL.but("True: each module learns approximations of the others' policies."),
        "True: each module learns approximations of the other modules' policies from what they were seen to do, and needs no "
        "actor but its own (paper, section 4.2).",
        per_module=True,
        structural=True,
    ),
    Setting(
        "inferred_policy_entropy",
        1e-3,
        between(0, 1e10).but("The paper uses 0.001; set 0 to switch it off."),
        "Weight of the entropy of approximations in their loss (paper, equation 7).",
        per_module=True,
        mutable=True,
    ),
    Setting(
        "inferred_lr",
        None,
        RATE.or_none("None: as `lr`."),
        "Adam's rate for approximations, float or schedule. None: `lr`.",
        per_module=True,
        mutable=True,
    ),
    Setting(
        "inferred_target",
        "probabilities",
        one_of(*INFERRED_TARGETS),
        'What critics see of discrete approximations in TD targets: their "probabilities" (the paper), or the "greedy" action.',
        per_module=True,
        structural=True,
    ),
    # Policy ensembles.
    Setting(
        "num_sub_policies",
        1,
        whole(1, MOST).but(f"1: no ensemble; the paper uses 3. At most {MOST}."),
        "Sub-policies of each agent, one of which is drawn for each episode (paper, section 4.3).",
        per_module=True,
        structural=True,
    ),
    Setting(
        "share_sub_policy_draw",
        False,
        TEAMS.but('For example [["agent_0", "agent_1"]]: these two play the sub-policies of one number.'),
        "True: all agents play the sub-policies of one number in an episode; lists of agents: those of each list do, such as "
        "those of a team.",
    ),
    Setting(
        "sub_policy",
        None,
        whole(0).or_none("None: one is drawn for each episode."),
        'The sub-policy that acts in evaluation: `evaluation_config={"sub_policy": 0}`. None: one is drawn for each episode.',
    ),
    # Discrete actions.
    Setting(
        "discrete_gradient_estimator",
        "straight_through",
        one_of(*ESTIMATORS),
        'How a gradient passes through a draw of discrete actors: "straight_through" Gumbel-Softmax; "tags", the same with a '
        'falling temperature; "gapped_straight_through"; "gumbel_rao". See docs/family.md.',
        per_module=True,
        structural=True,
    ),
    Setting(
        "straight_through_gap",
        1.0,
        between(0, 1e6).but("The authors use 1."),
        'By how much the logit of a drawn action is to stand above all others, for "gapped_straight_through".',
        per_module=True,
        mutable=True,
    ),
    Setting(
        "gumbel_rao_samples",
        10,
        whole(1, 1000).but("Try 10. At most 1,000."),
        'Draws over which "gumbel_rao" averages.',
        per_module=True,
        structural=True,
    ),
)
