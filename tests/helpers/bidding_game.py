"""An auction in turns: two bidders with private values raise the price by one or pass; who passes leaves the good to the other.

Whoever raises pays a fee to the other one at once, also to one that has not had a turn yet. A bidder observes its own value and
the price. It is a `MultiAgentEnv`; episode number k of a seed k has the pair of values `VALUES[k % 9]`.
"""

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from reference.bidding import CAP, FEE, VALUES, truthful

BIDDERS = ("first", "second")


def seen(value, price):
    """One-hot of value and price, `[3 + CAP]` float32."""
    observation = np.zeros(3 + CAP, np.float32)
    observation[value - 1] = observation[3 + price] = 1.0
    return observation


class Bidding(MultiAgentEnv):
    """Actions: 0 passes, 1 raises."""

    def __init__(self, config=None):
        self.possible_agents = self.agents = list(BIDDERS)
        super().__init__()
        self.observation_spaces = {b: gym.spaces.Box(0.0, 1.0, (3 + CAP,), np.float32) for b in BIDDERS}
        self.action_spaces = {b: gym.spaces.Discrete(2) for b in BIDDERS}
        self.render_mode = None

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.values = VALUES[seed % len(VALUES)]
        self.price, self.turn = 0, 0
        return {BIDDERS[0]: seen(self.values[0], 0)}, {}

    def step(self, actions):
        ((bidder, action),) = actions.items()
        me = self.turn
        assert bidder == BIDDERS[me]
        other, over, rewards = 1 - me, True, {}
        if action == 1:
            self.price += 1
            rewards = {BIDDERS[me]: -FEE, BIDDERS[other]: FEE}
            over = self.price == CAP
            if over:
                rewards[BIDDERS[me]] += self.values[me] - self.price
        elif self.price:
            rewards = {BIDDERS[other]: float(self.values[other] - self.price)}
        self.turn = other
        observations = {} if over else {BIDDERS[other]: seen(self.values[other], self.price)}
        return observations, rewards, {"__all__": over}, {"__all__": False}, {}


class Truthful(RLModule):
    """The rule of `reference.bidding.truthful`."""

    def _forward_inference(self, batch, **kwargs):
        obs = torch.as_tensor(batch[Columns.OBS])
        chosen = [truthful(int(o[:3].argmax()) + 1, int(o[3:].argmax())) for o in obs]
        return {Columns.ACTIONS: torch.tensor(chosen)}

    _forward_exploration = _forward_inference
