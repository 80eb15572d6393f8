"""A game whose agents may not do everything everywhere: a masked action is an error of the game."""

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv

EPISODE_LENGTH = 6  # at most, and always for those that live on
ACTIONS = {
    "a": gym.spaces.Discrete(4),
    "b": gym.spaces.MultiDiscrete([2, 3]),
    "c": gym.spaces.Box(-1.0, 1.0, (2,)),
    "d": gym.spaces.Discrete(3, start=5),
}
NVEC = {"a": [4], "b": [2, 3], "d": [3]}
WIDTHS = {"a": 3, "b": 2, "c": 4, "d": 3}


class MaskedGame(ParallelEnv):
    """Agents a, b and d choose among what the state allows, c has a box. Agent d may die; nobody else does before time is up.

    The masks of those that do not go on are all zeros.

    Args:
        where: Where masks are: in the "observation" (PettingZoo) or "observations" (RLlib) of a Dict beside them, as a "tuple"
            of arrays, one for each number of the action, or in "infos".
        trouble: What goes wrong in the third step: agent a is allowed "nothing", has a mask with a "two" in it, or "none".
        deaths: How likely agent d dies in a step.

    Attributes:
        done: The actions of all steps of all episodes, with the masks that they obeyed.
    """

    metadata = {"name": "masked_game"}

    def __init__(self, where="observation", trouble="", deaths=0.3):
        self.possible_agents, self.where, self.trouble, self.deaths = list(ACTIONS), where, trouble, deaths
        self.agents, self.done = [], []

    def observation_space(self, agent):
        seen = gym.spaces.Box(-10.0, 10.0, (WIDTHS[agent],))
        if agent == "c" or self.where == "infos":
            return seen
        size = sum(NVEC[agent])
        mask = gym.spaces.MultiBinary(size) if agent == "d" else gym.spaces.Box(0, 1, (size,), np.int8)
        if self.where == "tuple" and agent == "b":
            mask = gym.spaces.Tuple([gym.spaces.Box(0, 1, (n,), np.int8) for n in NVEC["b"]])
        name = "observations" if self.where == "observations" else "observation"
        return gym.spaces.Dict({name: seen, "action_mask": mask})

    def action_space(self, agent):
        return ACTIONS[agent]

    def reset(self, seed=None, options=None):
        self.random, self.time, self.agents = np.random.default_rng(seed), 0, list(ACTIONS)
        return self._seen(self.agents)

    def step(self, actions):
        assert actions.keys() == set(self.agents), actions
        for agent, mask in self.masks.items():
            self._check(agent, np.ravel(actions[agent] - getattr(ACTIONS[agent], "start", 0)), mask)
        self.time += 1
        acting = list(self.agents)
        common = float(np.sum(actions["c"])) + float(actions["a"]) - float(np.sum(actions["b"]))
        rewards = {agent: 0.1 * (k + 1) * common for k, agent in enumerate(acting)}
        dies = {agent: agent == "d" and bool(self.random.random() < self.deaths) for agent in acting}
        over = {agent: self.time == EPISODE_LENGTH and not dies[agent] for agent in acting}
        self.agents = [agent for agent in acting if not (dies[agent] or over[agent])]
        observations, infos = self._seen(acting)
        return observations, rewards, dies, over, infos

    def _check(self, agent, choices, mask):
        parts = np.split(mask, np.cumsum(NVEC[agent])[:-1])
        for choice, part in zip(choices, parts, strict=True):
            if not part[int(choice)]:
                raise AssertionError(f"agent {agent} did {choice}, and is allowed {part}")
        self.done.append((agent, tuple(map(int, choices)), tuple(map(int, mask))))

    def _seen(self, agents):
        """What these observe, and the masks of those that go on: one action at least is allowed to each."""
        seen = {agent: self.random.normal(size=WIDTHS[agent]).astype(np.float32) for agent in agents}
        masks = {}
        for agent, sizes in NVEC.items():
            if agent in agents:
                parts = [self.random.random(n) < 0.5 for n in sizes]
                for part in parts:
                    part[self.random.integers(len(part))] = True
                masks[agent] = np.concatenate(parts).astype(np.int8) * (agent in self.agents)
        self.masks = {agent: mask for agent, mask in masks.items() if agent in self.agents}
        if self.time == 3 and self.trouble and "a" in self.agents:
            masks["a"] = masks["a"] * 0 if self.trouble == "nothing" else masks["a"] + 1
        infos = {agent: {} for agent in agents}
        for agent, mask in masks.items():
            if self.where == "infos":
                if not (self.time == 3 and self.trouble == "none" and agent == "a") and agent in self.agents:
                    infos[agent]["action_mask"] = mask
                continue
            if self.where == "tuple" and agent == "b":
                mask = tuple(np.split(mask, [2]))
            name = "observations" if self.where == "observations" else "observation"
            seen[agent] = {name: seen[agent], "action_mask": mask}
        return seen, infos
