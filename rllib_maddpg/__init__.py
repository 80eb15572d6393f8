"""MADDPG (Lowe et al. 2017, arXiv 1706.02275) and its family as Ray RLlib algorithms.

`import rllib_maddpg` makes the names "MADDPG", "MATD3", "IDDPG" and "InferredMADDPG" known to RLlib and Tune.
"""

import os

from rllib_maddpg.algorithm.maddpg import MADDPG
from rllib_maddpg.algorithm.presets import IDDPG, MATD3, InferredMADDPG
from rllib_maddpg.algorithm.registration import register
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.presets import IDDPGConfig, InferredMADDPGConfig, MATD3Config
from rllib_maddpg.envs import resolve_env
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule
from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.results.versions import __version__
from rllib_maddpg.sampling.env_runner import MADDPGEnvRunner
from rllib_maddpg.shared.life import SharedLearner

__all__ = [
    "IDDPG",
    "MADDPG",
    "MATD3",
    "IDDPGConfig",
    "InferredMADDPG",
    "InferredMADDPGConfig",
    "JointReplayBuffer",
    "MADDPGConfig",
    "MADDPGEnvRunner",
    "MADDPGTorchLearner",
    "MADDPGTorchRLModule",
    "MATD3Config",
    "SharedLearner",
    "__version__",
    "register",
    "resolve_env",
]

# Modules are found under the names that they had before, too.
__path__.append(os.path.join(__path__[0], "moved"))

register()
