"""The command `rllib-maddpg`."""

from rllib_maddpg.cli.program import main, make_parser

__all__ = ["main", "make_parser"]
