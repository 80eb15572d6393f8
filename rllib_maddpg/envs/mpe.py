"""mpe2's scenarios stepped without their turn order, number for number as `parallel_env` steps them.

mpe2 plays by turns (AEC): `parallel_env` hands each agent's action through three wrappers, observes every agent twice in a
step, and the world moves after the last turn. That takes half of its time. Scenarios' own code (observations, rewards) is
called as it is.

Import this module only where mpe2 is installed.
"""

import logging
from collections.abc import Sequence
from typing import Any

import mpe2
import numpy as np
from mpe2._mpe_utils.simple_env import SimpleEnv
from pettingzoo import ParallelEnv
from pettingzoo.utils import wrappers
from pettingzoo.utils.conversions import aec_to_parallel_wrapper
from pettingzoo.utils.wrappers import BaseParallelWrapper
from ray.util import log_once

from rllib_maddpg.envs.mpe_world import is_stock, make_quick

# What these do in a step is repeated here; other versions may do something else, and are stepped in turns.
_KNOWN_VERSIONS = ("1.1.0", "1.1.1")
logger = logging.getLogger(__name__)
_FLOAT32 = np.dtype(np.float32)  # one object, also in every array of that type


def can_step_directly(env: ParallelEnv) -> bool:
    """Whether `env` is what the `parallel_env` of an mpe2 scenario returns, with nothing added, and mpe2's version is known.

    Where only the version is not, a warning says so, once in a process.
    """
    if not _is_bare(env):
        return False
    is_known = mpe2.__version__ in _KNOWN_VERSIONS
    if not is_known and log_once(f"mpe2 {mpe2.__version__} in turns"):
        logger.warning(
            "mpe2 %s is stepped turn by turn, which takes about twice the time: stepping all agents at once was checked against"
            " mpe2 %s only. Install one of these to have it.",
            mpe2.__version__,
            " and ".join(_KNOWN_VERSIONS),
        )
    return is_known


def _is_bare(env: ParallelEnv) -> bool:
    if type(env) is not aec_to_parallel_wrapper:
        return False
    raw = env.unwrapped
    if not (isinstance(raw, SimpleEnv) and type(raw).__module__.startswith("mpe2.")):
        return False
    bounds = wrappers.ClipOutOfBoundsWrapper if raw.continuous_actions else wrappers.AssertOutOfBoundsWrapper
    order = env.aec_env
    wrapped = type(order) is wrappers.OrderEnforcingWrapper and type(order.env) is bounds and order.env.env is raw
    return wrapped and is_stock(raw, SimpleEnv, "step", "reset", "observe")


class DirectMPE(BaseParallelWrapper):
    """Steps all agents of an mpe2 scenario at once; everything but `step` is the parallel env's.

    Args:
        env: An env for which `can_step_directly` holds. It is still right to step it itself.

    Attributes:
        agents: As in `env`: all agents while an episode runs, none after it, missing before the first reset.
    """

    def __init__(self, env: ParallelEnv) -> None:
        super().__init__(env)
        self._raw: SimpleEnv = env.unwrapped
        self._shapes = {agent: space.shape for agent, space in self._raw.action_spaces.items()}
        make_quick(self._raw)

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts an episode. Returns agent -> observation and agent -> info."""
        result = self.env.reset(seed=seed, options=options)
        self.agents = self.env.agents
        return result

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Steps the world once.

        Returns:
            observations, rewards, terminations, truncations, infos, each by agent; empty if the episode is over.
        """
        if not (self._has_no_turns() and self._are_sound(actions)):
            result = self.env.step(actions)
            self.agents = self.env.agents
            return result
        rewards, terminated, truncated = self._move([actions[agent] for agent in self._raw.agents])
        return self._by_agent(rewards, terminated, truncated)

    def step_joint(self, actions: Sequence[Any], observations: Sequence[np.ndarray]) -> list | tuple:
        """Steps the world once, for callers that need no dicts.

        Args:
            actions: Of all agents in the env's order, as the action spaces have them; this is not checked.
            observations: Arrays, in the same order, into which they are written unless the episode is over.

        Returns:
            rewards in the env's order; what `step` returns if the episode is over.
        """
        raw = self._raw
        if not self._has_no_turns():
            return self.step(dict(zip(raw.agents, actions, strict=True)))
        rewards, terminated, truncated = self._move(list(actions))
        if terminated or truncated:
            return self._by_agent(rewards, terminated, truncated)
        for agent, observation in zip(raw.world.agents, observations, strict=True):
            observation[:] = raw.scenario.observation(agent, raw.world)  # as `observe` does, in float32
        return rewards

    def _move(self, actions: list) -> tuple[list, bool, bool]:
        """Rewards of all agents, and whether the episode has terminated or is truncated."""
        raw = self._raw
        raw.current_actions = actions
        raw._execute_world_step()
        raw.steps += 1
        truncated = raw.steps >= raw.max_cycles
        terminated = not truncated and bool(raw.scenario.is_terminal(raw.world))
        # Summed up over the turns: never -0.0.
        return [0 + reward for reward in raw.rewards.values()], terminated, truncated

    def _by_agent(self, rewards: list, terminated: bool, truncated: bool) -> tuple:
        """What `step` returns; ends the episode if it is over."""
        raw, agents = self._raw, self._raw.agents
        result = (
            {agent: raw.observe(agent) for agent in agents},
            dict(zip(agents, rewards, strict=True)),
            dict.fromkeys(agents, terminated),
            dict.fromkeys(agents, truncated),
            dict(raw.infos),
        )
        self.agents = self.env.agents = agents
        if terminated or truncated:
            for of_agents in (agents, raw.rewards, raw._cumulative_rewards, raw.terminations, raw.truncations, raw.infos):
                of_agents.clear()
        return result

    def _has_no_turns(self) -> bool:
        """Whether an episode is running, with nobody in the middle of a turn and no window to be drawn after each."""
        raw = self._raw
        agents = raw.agents  # none after an episode; before the first reset nobody is selected
        return bool(agents) and raw.render_mode != "human" and getattr(raw, "agent_selection", None) == agents[0]

    def _are_sound(self, actions: dict) -> bool:
        """Whether no turn would refuse or clip its action."""
        raw = self._raw
        for agent in raw.agents:
            action = actions.get(agent)
            if raw.continuous_actions:
                if type(action) is not np.ndarray or action.dtype is not _FLOAT32 or action.shape != self._shapes[agent]:
                    return False
                for number in action.tolist():
                    if not 0.0 <= number <= 1.0:  # nan is not, either
                        return False
            elif type(action) not in (int, np.int64) or not 0 <= action < raw.action_spaces[agent].n:
                return False
        return True
