"""Checks of agents and their spaces: each `ValueError` names the agent, what is wrong, and the fix."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

import gymnasium as gym

from rllib_maddpg.rows.observations import Flattener, part_name

# Names of what says which actions are allowed, in Gymnasium, PettingZoo, RLlib, PyMARL, OpenSpiel and others.
MASK = re.compile(r"(^|[\W_])act(ion)?s?([\W_].*)?mask|mask(.*[\W_])?act(ion)?s?($|[\W_])")
# The same, if it is as wide as the actions.
MAYBE_MASK = re.compile("masks?|(avail|available|legal|valid|allowed|feasible|possible)_(acts?|actions?|moves?)")


def check_agents(agents: Iterable[Hashable]) -> None:
    """No two agents have the same string form, by which metrics, recordings and checkpoints tell them apart.

    Raises:
        ValueError: Naming both.
    """
    agent_of: dict[str, Any] = {}
    for agent in agents:
        other = agent_of.setdefault(str(agent), agent)
        if other is not agent:
            raise ValueError(
                f"Agents {other!r} ({type(other).__name__}) and {agent!r} ({type(agent).__name__}) have the same string form "
                f"{str(agent)!r}, and metrics, recordings and checkpoints could not tell them apart. Rename one in the env."
            )


def check_observation_space(space: gym.Space, agent: Any) -> None:
    """An agent's observations can become a vector, and are no images.

    Raises:
        ValueError: If not.
    """
    Flattener(space, agent)
    if isinstance(space, gym.spaces.Box) and len(space.shape) >= 3:
        raise ValueError(
            f"Agent {agent!r}: observation space {space} looks like an image, for which MADDPG has no encoder. Wrap the env "
            "so that the agent observes features, or, if a long vector is what you want, with SuperSuit's `flatten_v0`."
        )


def check_action_mask(observation_space: gym.Space, action_space: gym.Space, agent: Any) -> None:
    """An agent that chooses among actions does not observe which of them are allowed.

    Raises:
        ValueError: If it does: actors and critics would take the mask for a feature, and choose what it forbids.
    """
    if not isinstance(action_space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return
    width = gym.spaces.flatdim(action_space)
    sizes: Counter = Counter()  # of all that lies under a path
    for part in Flattener(observation_space, agent).parts:
        for depth in range(1, len(part.path) + 1):
            sizes[part.path[:depth]] += math.prod(part.shape)
    for path, size in sizes.items():
        key = path[-1].lower() if isinstance(path[-1], str) else ""
        if MASK.search(key) or (MAYBE_MASK.fullmatch(key) and size == width):
            raise ValueError(
                f"Agent {agent!r}: {part_name(path)} looks like an action mask, and MADDPG does not support action masks yet: "
                "it would learn from the mask as from any other number, and choose actions that the mask forbids. Take it out "
                "of the observation (with a wrapper) and let the env treat a forbidden action as one that does nothing. If it "
                "is no mask of actions, give it another name."
            )
