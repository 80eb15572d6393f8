"""MADDPG (Lowe et al. 2017) in one file of plain PyTorch: trains an mpe2 scenario with continuous actions.

    python examples/maddpg_in_one_file.py simple_spread_v3 --env-steps 100000

It reads like Algorithm 1 of the paper. The package's first update from the same weights and rows leads to the same weights, and
the benchmarks measure the package against this one. What the package adds: discrete actions, agents that die or arrive, shared
modules, many envs and runners, checkpoints, the family of MADDPG, and speed.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Settings:
    """Of the paper's appendix and its released code; named as in `MADDPGConfig`."""

    lr: float = 0.01
    gamma: float = 0.95
    tau: float = 0.01
    grad_clip: float = 0.5
    actor_output_reg: float = 1e-3


@dataclass
class Agent:
    """A decentralized actor mu_i(o_i), a centralized critic Q_i(x, a_1 ... a_N), their targets and optimizers."""

    actor: nn.Module
    critic: nn.Module
    target_actor: nn.Module
    target_critic: nn.Module
    actor_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer

    @classmethod
    def new(cls, actor: nn.Module, critic: nn.Module, targets: Sequence[nn.Module] | None = None, **adam: Any) -> Agent:
        """With targets like actor and critic, unless others are given."""
        targets = [deepcopy(network).requires_grad_(False) for network in targets or (actor, critic)]
        return cls(actor, critic, *targets, *(torch.optim.Adam(network.parameters(), **adam) for network in (actor, critic)))


def mlp(in_dim: int, out_dim: int, hiddens: Sequence[int] = (64, 64)) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    widths = [in_dim, *hiddens, out_dim]
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class MADDPG:
    """N agents that learn from joint rows: what all of them observed and did at one and the same step."""

    def __init__(self, agents: Mapping[str, Agent], settings: Settings):
        self.agents, self.settings = dict(agents), settings
        pairs = [(a.actor, a.target_actor) for a in agents.values()] + [(a.critic, a.target_critic) for a in agents.values()]
        self._sources = [p for network, _ in pairs for p in network.parameters()]
        self._targets = [p for _, target in pairs for p in target.parameters()]

    def learn(self, rows: Mapping[str, Mapping[str, Tensor]]) -> None:
        """One update of all agents, the inner loop of Algorithm 1.

        Args:
            rows: Agent -> "obs", "actions" (in [-1, 1]), "rewards", "new_obs", "terminateds" -> `[B, dim]`, or `[B, 1]` for one
                number a row. A time limit is no termination.
        """
        settings, every = self.settings, self.agents.items()
        x, actions, next_x = ([rows[name][column] for name in self.agents] for column in ("obs", "actions", "new_obs"))
        with torch.no_grad():  # a'_k = mu'_k(o'_k), of all agents
            next_actions = [torch.tanh(agent.target_actor(rows[name]["new_obs"])) for name, agent in every]
        for i, (name, agent) in enumerate(every):
            own = rows[name]
            # y = r_i + gamma Q'_i(x', a'_1 ... a'_N); the critic minimizes (Q_i(x, a_1 ... a_N) - y)^2.
            with torch.no_grad():
                next_q = agent.target_critic(torch.cat([*next_x, *next_actions], -1))
                y = own["rewards"] + settings.gamma * (1.0 - own["terminateds"]) * next_q
            q = agent.critic(torch.cat([*x, *actions], -1))
            self._descend(agent.critic_optimizer, F.mse_loss(q, y))
            # The actor climbs Q_i(x, a_1 ... mu_i(o_i) ... a_N): its own action is new, those of others are the row's.
            output = agent.actor(own["obs"])
            q = agent.critic(torch.cat([*x, *actions[:i], torch.tanh(output), *actions[i + 1 :]], -1))
            self._descend(agent.actor_optimizer, settings.actor_output_reg * output.square().mean() - q.mean())
        with torch.no_grad():  # theta' <- tau theta + (1 - tau) theta'
            torch._foreach_lerp_(self._targets, self._sources, settings.tau)

    def _descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        params = optimizer.param_groups[0]["params"]
        for param, grad in zip(params, torch.autograd.grad(loss, params), strict=True):  # no gradient for anybody else
            param.grad = grad
        nn.utils.clip_grad_norm_(params, self.settings.grad_clip)
        optimizer.step()

    @torch.no_grad()
    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What each actor does, in [-1, 1]."""
        return {a: torch.tanh(self.agents[a].actor(torch.from_numpy(obs))).numpy() for a, obs in observations.items()}


class Replay:
    """The replay buffer D: rings of columns, of which a row has the same place in all."""

    def __init__(self, capacity: int):
        self._columns: dict[tuple[str, str], np.ndarray] = {}
        self._capacity, self._added = capacity, 0

    def __len__(self) -> int:
        return min(self._added, self._capacity)

    def add(self, row: Mapping[str, Mapping[str, Any]]) -> None:
        """Agent -> column -> its value at one step."""
        for name, own in row.items():
            for column, value in own.items():
                ring = self._columns.setdefault((name, column), np.zeros((self._capacity, np.size(value)), np.float32))
                ring[self._added % self._capacity] = value
        self._added += 1

    def draw(self, rng: np.random.Generator, rows: int) -> dict[str, dict[str, Tensor]]:
        """As `MADDPG.learn` takes them: the same rows for all agents, uniformly with replacement."""
        places, drawn = rng.integers(0, len(self), rows), {}
        for (name, column), ring in self._columns.items():
            drawn.setdefault(name, {})[column] = torch.from_numpy(ring[places])
        return drawn


def play(env: Any, maddpg: MADDPG, episodes: int, seed: int) -> float:
    """Mean team return without noise."""
    total = 0.0
    for episode in range(episodes):
        observations, _ = env.reset(seed=seed + episode)
        while env.agents:
            observations, rewards, *_ = env.step(to_env(env, maddpg.act(observations)))
            total += sum(rewards.values())
    return total / episodes


def to_env(env: Any, actions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """From [-1, 1] to the bounds of the env's boxes."""
    spaces = {a: env.action_space(a) for a in actions}
    scale = {a: (space.high - space.low) / 2.0 for a, space in spaces.items()}
    return {a: (spaces[a].low + scale[a] * (1.0 + action)).astype(np.float32) for a, action in actions.items()}


def train(scenario: str, env_steps: int, seed: int, noise: float = 0.1, batch: int = 1024, every: int = 100) -> MADDPG:
    """Algorithm 1: acts with noise, stores, and makes an update at every 100th step; prints as it learns."""
    torch.manual_seed(seed)
    rng, settings = np.random.default_rng(seed), Settings()
    env = importlib.import_module(f"mpe2.{scenario}").parallel_env(continuous_actions=True)
    names = env.possible_agents
    obs_dims, action_dims = ([of(a).shape[0] for a in names] for of in (env.observation_space, env.action_space))
    maddpg = MADDPG(
        {
            a: Agent.new(mlp(obs_dim, dim), mlp(sum(obs_dims) + sum(action_dims), 1), lr=settings.lr)
            for a, obs_dim, dim in zip(names, obs_dims, action_dims, strict=True)
        },
        settings,
    )
    replay, observations = Replay(1_000_000), {}
    for step in range(1, env_steps + 1):
        if not observations:
            observations, _ = env.reset(seed=int(rng.integers(2**31)))
        actions = {a: np.clip(mu + noise * rng.normal(size=mu.shape), -1, 1) for a, mu in maddpg.act(observations).items()}
        new_obs, rewards, terminateds, _, _ = env.step(to_env(env, actions))
        columns = {"obs": observations, "actions": actions, "rewards": rewards, "new_obs": new_obs, "terminateds": terminateds}
        replay.add({a: {column: values[a] for column, values in columns.items()} for a in names})
        observations = new_obs if env.agents else {}
        if step % every == 0 and len(replay) >= batch:
            maddpg.learn(replay.draw(rng, batch))
        if step % 10_000 == 0:
            print(f"{step:7d} env steps: team return {play(env, maddpg, 20, seed=10_000):.1f} without noise", flush=True)
            observations = {}
    return maddpg


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="?", default="simple_spread_v3")
    parser.add_argument("--env-steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train(args.scenario, args.env_steps, args.seed)
