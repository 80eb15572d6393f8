"""Members of the family that are MADDPG with other defaults. Their algorithms: `algorithm/presets.py`; which to use when:
`docs/family.md`."""

from __future__ import annotations

from rllib_maddpg.config.maddpg_config import MADDPGConfig


class MATD3Config(MADDPGConfig):
    """Settings of MATD3 (Ackermann et al. 2019, arXiv 1910.01465), which is TD3 (Fujimoto et al. 2018) for several agents.

    Against values that are too high it has two critics for each module, the smaller of which counts (`twin_q`), noise on the
    actions in TD targets (`target_policy_noise`, `target_noise_clip`), and actors and targets that learn in every second update
    (`policy_delay`). All else is as in `MADDPGConfig`.
    """

    SETTINGS = MADDPGConfig.with_defaults(twin_q=True, policy_delay=2, target_policy_noise=0.2, target_noise_clip=0.5)

    def __init__(self, algo_class: type | None = None):
        from rllib_maddpg.algorithm.presets import MATD3

        super().__init__(algo_class or MATD3)


class IDDPGConfig(MADDPGConfig):
    """Settings of independent DDPG, the baseline of the paper (Lowe et al. 2017, section 5).

    A critic sees its own agent only (`critic_view="own"`): each agent learns as if the others were a part of the environment.
    All else is as in `MADDPGConfig`.
    """

    SETTINGS = MADDPGConfig.with_defaults(critic_view="own")

    def __init__(self, algo_class: type | None = None):
        from rllib_maddpg.algorithm.presets import IDDPG

        super().__init__(algo_class or IDDPG)


class InferredMADDPGConfig(MADDPGConfig):
    """Settings of MADDPG that infers the policies of other agents (Lowe et al. 2017, section 4.2).

    Each module learns approximations of the others' policies from what they were seen to do, and its TD targets take these
    instead of the others' actors (`infer_other_policies`). All else is as in `MADDPGConfig`.
    """

    SETTINGS = MADDPGConfig.with_defaults(infer_other_policies=True)

    def __init__(self, algo_class: type | None = None):
        from rllib_maddpg.algorithm.presets import InferredMADDPG

        super().__init__(algo_class or InferredMADDPG)
