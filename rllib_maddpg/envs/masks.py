"""Action masks that an environment gives in its infos, as a part of what the agents observe."""

import random
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg.envs.adapted import AdaptedGame
from rllib_maddpg.envs.api import check_reset_result, check_step_result
from rllib_maddpg.envs.errors import EnvError, EnvFailure
from rllib_maddpg.rows.observations import MASK

MASKS_KEY = "action_masks"
_KEY = f'env_config["{MASKS_KEY}"]'


class MasksFromInfos(AdaptedGame):
    """Agents whose infos have an "action_mask" observe it: `{"observation": ..., "action_mask": ...}`.

    An agent whose part in the episode ends may have no mask in its last infos; it then observes zeros.

    Args:
        env: A `MultiAgentEnv`, or a wrapper around one.
        agents: Those with masks.

    Raises:
        EnvError: If one of these is no agent of the env, does not choose among actions, or observes a mask already.
    """

    def __init__(self, env: MultiAgentEnv, agents: Collection[Hashable]) -> None:
        game = env.unwrapped
        known = list(game.possible_agents or game.observation_spaces or ())
        observed = {agent: game.get_observation_space(agent) for agent in known}
        acts = {agent: game.get_action_space(agent) for agent in known}
        for agent in agents:
            _check(agent, observed, acts)
        self._widths = {agent: gym.spaces.flatdim(acts[agent]) for agent in agents}
        for agent, width in self._widths.items():
            mask = gym.spaces.Box(0, 1, (width,), np.int8)
            observed[agent] = gym.spaces.Dict({"observation": observed[agent], MASK: mask})
        super().__init__(env, observed, acts)
        self.agents = list(game.agents or known)

    @property
    def unwrapped_env(self) -> Any:
        """The bare env, below all wrappers and adapters."""
        game = self.env.unwrapped
        return getattr(game, "unwrapped_env", game)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts an episode.

        Raises:
            EnvFailure: If an agent has no mask in its infos, or one of another length.
        """
        result = self.env.reset(seed=seed, options=options)
        check_reset_result(result)
        observations, infos = result
        self.agents = list(self.env.unwrapped.agents or observations)
        return self._with_masks(observations, infos or {}, ()), infos

    def step(self, action_dict: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Steps the env; errors as in `reset`."""
        result = self.env.step(action_dict)
        check_step_result(result)
        observations, rewards, terminateds, truncateds, infos = result
        over = terminateds.get("__all__") or truncateds.get("__all__")
        ended = [agent for agent in observations if over or terminateds.get(agent) or truncateds.get(agent)]
        self.agents = list(self.env.unwrapped.agents or ())
        return self._with_masks(observations, infos or {}, ended), rewards, terminateds, truncateds, infos

    def _with_masks(self, observations: Mapping, infos: Mapping, ended: Collection[Hashable]) -> dict:
        return {
            agent: {"observation": observation, MASK: self._mask(agent, infos, agent in ended)}
            if agent in self._widths
            else self._unmasked(agent, observation, infos)
            for agent, observation in observations.items()
        }

    def _mask(self, agent: Hashable, infos: Mapping, has_ended: bool) -> np.ndarray:
        if not has_mask(infos, agent):
            if has_ended:
                return np.zeros(self._widths[agent], np.int8)
            raise EnvFailure(
                f"Agent {agent!r} has no {MASK!r} in its infos,",
                f"It had one at the first reset, or is named in {_KEY}: give one at every step at which it acts.",
                can_pass=False,
            )
        mask = joined(infos[agent][MASK])
        if len(mask) != self._widths[agent]:
            raise EnvFailure(
                f"The {MASK!r} in the infos of agent {agent!r} has {len(mask)} numbers",
                f"Its action space has {self._widths[agent]} actions, and the mask needs a number for each.",
                can_pass=False,
            )
        return mask

    def _unmasked(self, agent: Hashable, observation: Any, infos: Mapping) -> Any:
        if has_mask(infos, agent) and chooses(self.action_spaces[agent]):
            raise EnvFailure(
                f"Agent {agent!r} has an {MASK!r} in its infos, and had none at the first reset,",
                f"Name all agents that have masks: {_KEY}={[*map(str, self._widths), str(agent)]}.",
                can_pass=False,
            )
        return observation


def masks_in_infos(env: MultiAgentEnv) -> list[Hashable]:
    """The agents of an env whose infos have masks after a reset, which is made to find that out; none if it fails.

    Agents that are not in the game yet have masks where all others that choose have them.

    Raises:
        EnvError: If a mask has another length than the agent's actions.
    """
    game = env.unwrapped
    agents = sorted(game.possible_agents or game.observation_spaces or (), key=str)
    choosing = [a for a in agents if chooses(game.get_action_space(a)) and not observes_mask(game.get_observation_space(a))]
    if not choosing:
        return []
    # An env may draw from these in its reset, and nobody shall notice this one.
    states = random.getstate(), np.random.get_state()
    try:
        observations, infos = env.reset(seed=0)
        found = [agent for agent in choosing if has_mask(infos or {}, agent)]
        absent = [agent for agent in choosing if agent not in observations]
    except Exception:  # which is told where it is reset in earnest
        return []
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    for agent in found:
        width, mask = gym.spaces.flatdim(game.get_action_space(agent)), joined(infos[agent][MASK])
        if len(mask) != width:
            raise EnvError(
                f"Agent {agent!r}: the {MASK!r} in its infos has {len(mask)} numbers, and its action space "
                f"{game.get_action_space(agent)} has {width} actions. Give the mask a number for each. If it is no mask of "
                f"actions, say so: {_KEY}=[]."
            )
    all_have_them = found and len(found) + len(absent) == len(choosing)
    return [agent for agent in choosing if agent in found or (all_have_them and agent in absent)]


def allowed_action(space: gym.Space, mask: Any, number: int) -> Any:
    """One of the actions that a mask allows; `number` says which, and those after the last begin again."""
    starts, sizes = np.ravel(space.start), np.ravel(space.n if isinstance(space, gym.spaces.Discrete) else space.nvec)
    chosen = []
    for part, start in zip(np.split(joined(mask), np.cumsum(sizes)[:-1]), starts, strict=True):
        allowed = np.flatnonzero(part if part.any() else part == 0)
        chosen.append(start + allowed[number % len(allowed)])
    return np.reshape(chosen, space.shape).astype(space.dtype)[()]


def has_mask(infos: Mapping, agent: Hashable) -> bool:
    """Whether the infos of an agent have a mask."""
    info = infos.get(agent)
    return isinstance(info, Mapping) and info.get(MASK) is not None


def joined(mask: Any) -> np.ndarray:
    """The numbers of a mask: an array, or a tuple with an array for each number of an action."""
    try:
        return np.concatenate([np.ravel(part) for part in mask]) if isinstance(mask, tuple | list) else np.ravel(mask)
    except ValueError:
        return np.zeros(0)


def chooses(space: gym.Space) -> bool:
    """Whether actions of a space can be masked."""
    return isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete)


def observes_mask(space: gym.Space) -> bool:
    """Whether an agent that observes a space observes a mask."""
    return isinstance(space, gym.spaces.Dict) and MASK in space.spaces


def _check(agent: Hashable, observed: Mapping, acts: Mapping) -> None:
    if agent not in acts:
        raise EnvError(f"{_KEY} has {agent!r}, which is no agent of the env. It has {list(acts)}.")
    if not chooses(acts[agent]):
        raise EnvError(f"{_KEY} has {agent!r}, whose action space {acts[agent]} is not Discrete or MultiDiscrete. Take it out.")
    if observes_mask(observed[agent]):
        raise EnvError(f"{_KEY} has {agent!r}, which observes an {MASK!r} already. Take it out.")
