"""MADDPG (Lowe et al. 2017, arXiv 1706.02275) as a Ray RLlib algorithm.

`import rllib_maddpg` makes the name "MADDPG" known to RLlib and Tune.
"""

from importlib.metadata import PackageNotFoundError, version

from rllib_maddpg.config import MADDPGConfig
from rllib_maddpg.env_runner import MADDPGEnvRunner
from rllib_maddpg.envs import resolve_env
from rllib_maddpg.learner import MADDPGTorchLearner
from rllib_maddpg.maddpg import MADDPG
from rllib_maddpg.registration import register
from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.rl_module import MADDPGTorchRLModule

try:
    __version__ = version("rllib-maddpg")
except PackageNotFoundError:  # run from a source tree
    __version__ = "0.0.0"

__all__ = [
    "MADDPG",
    "JointReplayBuffer",
    "MADDPGConfig",
    "MADDPGEnvRunner",
    "MADDPGTorchLearner",
    "MADDPGTorchRLModule",
    "register",
    "resolve_env",
]

register()
