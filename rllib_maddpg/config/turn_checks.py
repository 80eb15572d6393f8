"""`turn_based`: whether the agents of an env act in turns, as it was found out, and what does not go with it."""

from __future__ import annotations

from typing import Any

from rllib_maddpg.config.require import require
from rllib_maddpg.envs import EnvSpaces


def resolve_turns(config: Any, spaces: EnvSpaces) -> None:
    """Writes True into a config whose env was found to have turns, if it does not say so itself.

    Raises:
        ValueError: If it says otherwise, or has settings that do not go with turns.
    """
    fix = f"Agents of env {config.env!r} act in turns: leave it out."
    require(config, "turn_based", config.turn_based is not False or not spaces.has_turns, "True or None with this env", fix)
    if spaces.has_turns:
        config.turn_based = True
    if config.turn_based:
        fix = "An agent's reward is that up to its next turn, after steps of others: what n of those would be is not defined."
        require(config, "n_step", config.n_step == 1, "1 where agents act in turns", fix)
