"""Settings: `MADDPGConfig`, its checks, and how they are read from text and files."""

from rllib_maddpg.config.agent_mapping import AgentMapping
from rllib_maddpg.config.maddpg_config import MADDPGConfig

__all__ = ["AgentMapping", "MADDPGConfig"]
