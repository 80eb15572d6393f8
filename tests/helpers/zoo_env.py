"""Games of agents with all kinds of spaces, which keep what the agents saw and did."""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from ray.rllib.env.multi_agent_env import MultiAgentEnv

INF = np.inf
LONG_BOX = Box(np.array([-2.0, 0.0, -100.0], np.float32), np.array([1.0, 5.0, 100.0], np.float32))
# agent -> observation space, action space
ZOO = {
    "box": (Box(-INF, INF, (4,), np.float32), LONG_BOX),
    "wide": (Box(-INF, INF, (2, 3), np.float64), Box(-0.25, 0.75, (2, 2), np.float64)),
    "choice": (Discrete(5, start=-1), Discrete(4, start=3)),
    "grid": (MultiDiscrete([[2, 3], [1, 2]], start=[[1, -1], [0, 5]]), Discrete(3)),
    "multi": (MultiDiscrete([2, 3]), MultiDiscrete([3, 2], dtype=np.int32)),
    "nested": (Dict(b=Tuple([Discrete(3), MultiBinary(4)]), a=Box(-INF, INF, (2,), np.float32)), Discrete(2)),
    # Names that are no file names, and one module for both.
    "twin/0": (Box(-INF, INF, (6,), np.float32), MultiDiscrete([[2, 2], [3, 2]], dtype=np.uint8, start=[[0, 1], [0, 7]])),
    "twin-0": (Box(-INF, INF, (6,), np.float32), MultiDiscrete([[2, 2], [3, 2]], dtype=np.uint8, start=[[0, 1], [0, 7]])),
}
# Flat boxes only, which the columnar loop samples; from 0 to 1, for the softmax head.
SIMPLEX = {
    "a": (Box(-INF, INF, (3,), np.float32), Box(0, 1, (2,), np.float32)),
    "b": (Box(-INF, INF, (8,), np.float32), Box(0, 1, (5,), np.float32)),
    "c": (Box(-INF, INF, (8,), np.float32), Box(0, 1, (5,), np.float32)),
}
GAMES = {"zoo": ZOO, "simplex": SIMPLEX}
WIDTHS = (1.0, 100.0, 1e4, 1e6)


class Zoo(MultiAgentEnv):
    """Random observations, 250 in a row of each of `WIDTHS`; `env_config`: `game`.

    Attributes:
        seen: Observations of all agents, by step.
        done: Their actions, by step.
    """

    def __init__(self, config):
        super().__init__()
        game = GAMES[config["game"]]
        self.observation_spaces = {agent: obs for agent, (obs, _) in game.items()}
        self.action_spaces = {agent: action for agent, (_, action) in game.items()}
        self.agents = self.possible_agents = list(game)
        self.seen, self.done = [], []

    def reset(self, *, seed=None, options=None):
        self._rng = np.random.default_rng(0)
        for i, space in enumerate(self.observation_spaces.values()):
            space.seed(i)
        return self._observe(), {}

    def step(self, actions):
        self.done.append(actions)
        return self._observe(), dict.fromkeys(self.agents, 0.0), {"__all__": False}, {"__all__": False}, {}

    def _observe(self):
        width = WIDTHS[min(len(self.seen) // 250, 3)]
        self.seen.append({agent: self._draw(space, width) for agent, space in self.observation_spaces.items()})
        return self.seen[-1]

    def _draw(self, space: gym.Space, width: float):
        if isinstance(space, Dict):
            return {key: self._draw(part, width) for key, part in space.items()}
        if isinstance(space, Tuple):
            return tuple(self._draw(part, width) for part in space)
        if isinstance(space, Box):
            return (width * self._rng.standard_normal(space.shape)).astype(space.dtype)
        return space.sample()


def module_of(agent, episode=None, **kwargs):
    """One module for the twins, one for "b" and "c", own ones for the others."""
    return {"twin/0": "twins", "twin-0": "twins", "b": "bc", "c": "bc"}.get(agent, agent)
