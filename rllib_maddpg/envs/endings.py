"""Brings the ways in which environments report the end of an agent into one form."""

from typing import Any

import gymnasium as gym


class ReadableEndings(gym.Wrapper):
    """Makes an agent's end readable from RLlib's episodes.

    It terminated if and only if its episode is terminated and not truncated. RLlib marks all agents that end in a step with
    that step's `__all__` flags, too. So one that terminates while the env says `truncateds["__all__"]` would come out as both,
    just as one that was cut off by a time limit does (RLlib also calls an episode terminated when all agents were truncated).
    Here:

    - an agent that terminates is not called truncated as well;
    - if the episode ends, each agent that ends with it has a flag of its own, and `__all__` is set in terminateds if one
      of them terminates, else in truncateds;
    - an agent that terminates without a last observation has its previous one again.
    """

    def reset(self, **kwargs: Any) -> tuple[dict, dict]:
        observations, infos = self.env.reset(**kwargs)
        self._last = dict(observations)  # agents in the game, with their last observation
        return observations, infos

    def step(self, action: dict) -> tuple[dict, dict, dict, dict, dict]:
        observations, rewards, terminateds, truncateds, infos = self.env.step(action)
        living = self._last.keys() | observations.keys()
        all_terminated, all_truncated = terminateds.get("__all__", False), truncateds.get("__all__", False)
        terminated = {a for a in living if terminateds.get(a)}
        truncated = {a for a in living if truncateds.get(a)} - terminated
        if all_terminated or all_truncated:
            rest = living - terminated - truncated
            terminated, truncated = (terminated | rest, truncated) if all_terminated else (terminated, truncated | rest)
        over = not living - terminated - truncated
        observations = {**{a: self._last[a] for a in terminated if a in self._last}, **observations}
        terminateds = {**{a: a in terminated for a in living}, "__all__": over and bool(terminated)}
        truncateds = {**{a: a in truncated for a in living}, "__all__": over and not terminated}
        self._last = {a: obs for a, obs in {**self._last, **observations}.items() if a not in terminated | truncated}
        return observations, rewards, terminateds, truncateds, infos
