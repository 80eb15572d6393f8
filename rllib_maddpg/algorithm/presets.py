"""Members of the family that are MADDPG with other defaults: what RLlib and Tune run under their names."""

from __future__ import annotations

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.annotations import override

from rllib_maddpg.algorithm.maddpg import MADDPG
from rllib_maddpg.config.presets import IDDPGConfig, InferredMADDPGConfig, MATD3Config


class MATD3(MADDPG):
    """Multi-agent TD3 (Ackermann et al. 2019, arXiv 1910.01465; Fujimoto et al. 2018), see `MATD3Config`."""

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> MATD3Config:
        return MATD3Config()


class IDDPG(MADDPG):
    """Independent DDPG, the baseline of the paper (Lowe et al. 2017, section 5), see `IDDPGConfig`."""

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> IDDPGConfig:
        return IDDPGConfig()


class InferredMADDPG(MADDPG):
    """MADDPG that infers the policies of other agents (Lowe et al. 2017, section 4.2), see `InferredMADDPGConfig`."""

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> InferredMADDPGConfig:
        return InferredMADDPGConfig()
