"""Checks of agents and their spaces: each `ValueError` names the agent, what is wrong, and the fix."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np

from rllib_maddpg.config.image_spaces import check_image_space
from rllib_maddpg.rows.observations import MASK, Flattener, part_name

# Names of what says which actions are allowed, in Gymnasium, PettingZoo, RLlib, PyMARL, OpenSpiel and others.
MASK_NAME = re.compile(r"(^|[\W_])act(ion)?s?([\W_].*)?mask|mask(.*[\W_])?act(ion)?s?($|[\W_])")
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
    """An agent's observations can become a vector; if they are images, one that encoders take.

    Raises:
        ValueError: If not.
    """
    Flattener(space, agent)
    check_image_space(space, agent)


def check_action_mask(observation_space: gym.Space, action_space: gym.Space, agent: Any) -> None:
    """An agent that observes which of its actions are allowed does so in a way that is understood.

    Raises:
        ValueError: If there is a mask that does not fit the actions, or what looks like one has another name: actors and
            critics would take it for a feature, and choose what it forbids.
    """
    masked = isinstance(observation_space, gym.spaces.Dict) and MASK in observation_space.spaces
    if not isinstance(action_space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return  # boxes cannot be masked: it is a feature of that name
    if masked:
        _check_fits(observation_space.spaces[MASK], action_space, agent)
    width = gym.spaces.flatdim(action_space)
    sizes: Counter = Counter()  # of all that lies under a path
    for part in Flattener(observation_space, agent).parts:
        for depth in range(1, len(part.path) + 1):
            sizes[part.path[:depth]] += math.prod(part.shape)
    for path, size in sizes.items():
        key = path[-1].lower() if isinstance(path[-1], str) else ""
        if path[0] != MASK and (MASK_NAME.search(key) or (MAYBE_MASK.fullmatch(key) and size == width)):
            raise ValueError(
                f"Agent {agent!r}: {part_name(path)} looks like an action mask, and is none by its name or its place: it would "
                f"be learned from as any other number, and what it forbids would be chosen. Let the agent observe a Dict with "
                f"{MASK!r} beside 'observation', or put the mask into `infos[agent][{MASK!r}]`. If it is no mask of actions, "
                "give it another name."
            )


def _check_fits(mask: gym.Space, action_space: gym.Space, agent: Any) -> None:
    """A mask has a number for each action."""
    what = f"Agent {agent!r}: {part_name((MASK,))} is {mask}"
    numbers = [action_space.n] if isinstance(action_space, gym.spaces.Discrete) else np.ravel(action_space.nvec).tolist()
    parts = list(mask.spaces) if isinstance(mask, gym.spaces.Tuple) else [mask]
    sizes = [math.prod(part.shape) for part in parts if isinstance(part, gym.spaces.Box | gym.spaces.MultiBinary)]
    if len(sizes) != len(parts) or sizes not in ([sum(numbers)], numbers):
        each = "" if len(numbers) == 1 else f", or a Tuple of {len(numbers)} with {numbers}"
        raise ValueError(
            f"{what}, which does not fit the action space {action_space}. Give a Box or MultiBinary of {sum(numbers)} numbers, "
            f"1 for each action that is allowed and 0 for the others{each}."
        )
