"""Another critic: a graph network, in which agents hear of those near them.

    python examples/extending/own_critic.py
    python examples/extending/own_critic.py --rounds 0

Agents are the nodes of a graph, and those of a row that are nearer to each other than a radius have an edge between them. Each
node begins with what its agent observes and does; in each round it hears the mean of its neighbours. Q of an agent is read from
its node. With 0 rounds a critic knows its own agent only.

`build_critic` makes the network. It gets what the view shows, one vector for each row: the observations of all agents in the
order of `self.layout`, who is in the game (`View(..., presence=True)`), and the codes of all actions.
"""

import argparse

import numpy as np
import torch
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import nn

from rllib_maddpg import MADDPGConfig, MADDPGTorchRLModule
from rllib_maddpg.modules.views import View

# Where an agent of simple_spread observes its own place.
PLACE = slice(2, 4)


class GraphCritic(nn.Module):
    """`[..., obs_dim + N + code_dim of all agents]` -> Q of one agent, `[..., 1]`. All agents' spaces are equal."""

    def __init__(self, layout, agent: str, width: int = 32, rounds: int = 1, radius: float = 1.0):
        super().__init__()
        self.sizes = [layout.obs_dim, len(layout), layout.action_dim]
        self.judged, self.radius = layout.index(agent), radius
        self.first = nn.Linear((layout.obs_dim + layout.action_dim) // len(layout), width)
        self.rounds = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(rounds))
        self.last = nn.Linear(width, 1)

    def forward(self, x):
        obs, present, actions = x.split(self.sizes, -1)
        agents = self.sizes[1]
        obs, actions = (part.unflatten(-1, (agents, -1)) for part in (obs, actions))
        weights = self.neighbours(obs[..., PLACE], present)
        nodes = torch.relu(self.first(torch.cat([obs, actions], -1)))
        for layer in self.rounds:
            nodes = torch.relu(layer(torch.cat([nodes, weights @ nodes], -1)))
        return self.last(nodes[..., self.judged, :])

    def neighbours(self, places, present):
        """`[..., N, N]`: the weight of each neighbour, the same for all of them; zeros if there is none."""
        edges = ((places.unsqueeze(-2) - places.unsqueeze(-3)).norm(dim=-1) < self.radius).to(places.dtype)
        edges = edges * present.unsqueeze(-2) * present.unsqueeze(-1)
        edges = edges * (1.0 - torch.eye(edges.shape[-1], dtype=edges.dtype, device=edges.device))
        return edges / edges.sum(-1, keepdim=True).clamp(min=1.0)


class GraphModule(MADDPGTorchRLModule):
    """A module with such a critic. `model_config["graph_rounds"]`: how far agents hear."""

    def build_critic(self, input_dim):
        (slot,) = self.layout.slots_of(self.module_id)
        return GraphCritic(self.layout, slot.agent, rounds=self.model_config.get("graph_rounds", 1))


def make_config(rounds: int = 1, seed: int = 0) -> MADDPGConfig:
    """Three agents of simple_spread with such critics."""
    return (
        MADDPGConfig()
        .environment("simple_spread", env_config={"continuous_actions": True})
        .env_runners(num_envs_per_env_runner=4)
        .rl_module(
            rl_module_spec=RLModuleSpec(module_class=GraphModule),
            model_config={"fcnet_hiddens": [64, 64], "graph_rounds": rounds},
        )
        .training(
            critic_view=View("all in the game", presence=True),
            lr=0.001,
            num_env_steps_per_update=25,
            train_batch_size_per_learner=256,
        )
        .debugging(seed=seed)
    )


def train(config: MADDPGConfig, env_steps: int) -> tuple[float, float]:
    """TD error and return, each the mean over the second half of the training."""
    algo, seen, done = config.build_algo(), [], 0
    while done < env_steps:
        result = algo.train()
        done = int(result["num_env_steps_sampled_lifetime"])
        if done > env_steps / 2 and "agent_0" in result["learners"]:
            seen.append((result["learners"]["agent_0"]["td_error_mean"], result["env_runners"]["episode_return_mean"]))
    algo.stop()
    return tuple(np.mean(seen, 0))


def main(arguments: list[str] | None = None) -> None:
    """The program; `arguments` as in the command line, None: those."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--env-steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    error, episode_return = train(make_config(args.rounds, args.seed), args.env_steps)
    print(f"{args.rounds} rounds: TD error {error:.3f}, return {episode_return:.1f}", flush=True)


if __name__ == "__main__":
    main()
