"""The command `rllib-maddpg`."""

from rllib_maddpg.cli.program import PROGRAM, main, make_parser

__all__ = ["PROGRAM", "main", "make_parser"]
