"""Brings the ways in which environments report the end of an agent into one form."""

from collections.abc import Collection, Hashable, Iterable
from typing import Any

import gymnasium as gym

from rllib_maddpg.envs.api import check_reset_result, check_step_result


def nobody_ends(terminateds: dict, truncateds: dict) -> bool:
    """Whether no flag is set, as in nearly all steps."""
    return not any(terminateds.values()) and not any(truncateds.values())


def flags_of_nobody(living: Iterable[Hashable]) -> tuple[dict, dict]:
    """Returns what `settle_flags` does if nobody ends."""
    flags = dict.fromkeys((*living, "__all__"), False)
    return flags, flags.copy()


def settle_flags(living: Collection[Hashable], terminateds: dict, truncateds: dict) -> tuple[dict, dict]:
    """Returns terminateds and truncateds of the agents that were living up to this step, and `__all__`; all bools.

    - An agent that terminates is not called truncated as well.
    - If `__all__` is given, each agent that ends with it has a flag of its own.
    - If nobody lives on exactly one `__all__` is set: in terminateds if one of them terminates, else in truncateds.
    """
    terminated = {agent for agent in living if terminateds.get(agent)}
    truncated = {agent for agent in living if truncateds.get(agent)} - terminated
    if terminateds.get("__all__"):
        terminated |= set(living) - truncated
    elif truncateds.get("__all__"):
        truncated |= set(living) - terminated
    over = len(terminated) + len(truncated) == len(living)
    return (
        {**{agent: agent in terminated for agent in living}, "__all__": over and bool(terminated)},
        {**{agent: agent in truncated for agent in living}, "__all__": over and not terminated},
    )


class ReadableEndings(gym.Wrapper):
    """Makes an agent's end readable from RLlib's episodes, also where a user's own `MultiAgentEnv` reports it otherwise.

    It terminated if and only if its episode is terminated and not truncated. RLlib marks all agents that end in a step with
    that step's `__all__` flags, too. So one that terminates while the env says `truncateds["__all__"]` would come out as both,
    just as one that was cut off by a time limit does (RLlib also calls an episode terminated when all agents were truncated).
    Here the flags are those of `settle_flags`, and an agent that terminates without a last observation has its previous one
    again.
    """

    def reset(self, **kwargs: Any) -> tuple[dict, dict]:
        result = self.env.reset(**kwargs)
        check_reset_result(result)
        observations, infos = result
        self._last = dict(observations)  # agents in the game, with their last observation
        return observations, infos

    def step(self, action: dict) -> tuple[dict, dict, dict, dict, dict]:
        result = self.env.step(action)
        try:
            observations, rewards, terminateds, truncateds, infos = result
            last = self._last
            last.update(observations)
            if last and nobody_ends(terminateds, truncateds):
                return observations, rewards, *flags_of_nobody(last), infos
            terminateds, truncateds = settle_flags(last, terminateds, truncateds)
            observations = {**{agent: obs for agent, obs in last.items() if terminateds[agent]}, **observations}
            self._last = {agent: obs for agent, obs in last.items() if not (terminateds[agent] or truncateds[agent])}
        except (AttributeError, TypeError, ValueError):
            check_step_result(result)
            raise
        return observations, rewards, terminateds, truncateds, infos
