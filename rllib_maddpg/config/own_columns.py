"""The columns of joint rows that settings ask for, beside the built-in ones and the users'."""

from __future__ import annotations

from typing import Any

from rllib_maddpg.config.replay_checks import drawn_columns
from rllib_maddpg.config.state_columns import state_columns
from rllib_maddpg.config.sub_policy_checks import sub_policy_columns
from rllib_maddpg.rows.schema import Column
from rllib_maddpg.rows.turns import turn_columns


def own_columns(config: Any) -> list[Column]:
    """Of the rows of a config whose `policies` are those of its env.

    Args:
        config: A `MADDPGConfig`.
    """
    turns = turn_columns() if config.turn_based else []
    return [*sub_policy_columns(config), *state_columns(config), *turns, *drawn_columns(config)]
