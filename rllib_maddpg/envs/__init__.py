"""Environments: from a name, class or callable to an RLlib `MultiAgentEnv`.

`resolve_env` makes a creator, `probe_env` reads agents and spaces, `SeededEpisodes` gives each episode its own seed,
`scenario_metrics` measures what the MPE papers report.
"""

from rllib_maddpg.envs.endings import ReadableEndings
from rllib_maddpg.envs.errors import EnvError
from rllib_maddpg.envs.joint_gym import JointGymGame
from rllib_maddpg.envs.metrics import ScenarioMetrics, scenario_metrics
from rllib_maddpg.envs.parallel import ParallelPettingZoo
from rllib_maddpg.envs.probe import EnvSpaces, probe_env
from rllib_maddpg.envs.recording import EpisodeRecord, RecordedEpisodes
from rllib_maddpg.envs.resolver import EnvCreator, resolve_env
from rllib_maddpg.envs.seeding import SeededEpisodes
from rllib_maddpg.envs.single_agent import SingleAgentGame
from rllib_maddpg.envs.turns import TurnBasedPettingZoo

__all__ = [
    "EnvCreator",
    "EnvError",
    "EnvSpaces",
    "EpisodeRecord",
    "JointGymGame",
    "ParallelPettingZoo",
    "ReadableEndings",
    "RecordedEpisodes",
    "ScenarioMetrics",
    "SeededEpisodes",
    "SingleAgentGame",
    "TurnBasedPettingZoo",
    "probe_env",
    "resolve_env",
    "scenario_metrics",
]
