"""What people watch while it trains, read from a training result: returns, env steps, speed, replay fill, updates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray._private.dict import unflattened_lookup

from rllib_maddpg.ray_compat import THROUGHPUT

# Keys of a result, as Tune writes nested ones.
ENV_STEPS = "num_env_steps_sampled_lifetime"
TEAM = "env_runners/episode_return_mean"
AGENTS = "env_runners/agent_episode_returns_mean"
RATE = f"env_runners/num_env_steps_sampled_lifetime_throughput{THROUGHPUT}"
FILL = "replay_buffer/fill"
UPDATES = "learners/__all_modules__/num_updates_lifetime"


@dataclass(frozen=True)
class Progress:
    """Where a run stands; NaN: not known yet.

    Attributes:
        env_steps: In all.
        team: Mean return of recent training episodes, sum over agents.
        agents: The same of each agent, sorted by name.
        rate: Env steps per second in the last iteration.
        fill: Filled share of the replay buffer.
        updates: In all.
    """

    env_steps: float
    team: float
    agents: dict[str, float] = field(default_factory=dict)
    rate: float = math.nan
    fill: float = math.nan
    updates: float = math.nan

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Progress:
        """From a result of `algo.train()` or of a Tune trial."""
        agents = lookup(result, AGENTS, {})
        return cls(
            env_steps=lookup(result, ENV_STEPS),
            team=lookup(result, TEAM),
            agents={agent: agents[agent] for agent in sorted(agents)},
            rate=lookup(result, RATE),
            fill=lookup(result, FILL),
            updates=lookup(result, UPDATES),
        )


def lookup(result: Mapping[str, Any], key: str, default: Any = math.nan) -> Any:
    """The value at a key such as "env_runners/episode_return_mean"; `default` where there is none."""
    value = unflattened_lookup(key, result, default=None)
    return default if value is None else value
