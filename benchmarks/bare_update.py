"""The baseline of part `update`: MADDPG's update in bare PyTorch, one agent after the other. No framework, no metrics.

It is that of `examples/maddpg_in_one_file.py`, written plainly, and as fast as that allows:

- The next actions of all target actors are computed once an update, not once an agent.
- Critic and actor inputs are put together with `torch.cat` where they are needed.
- The actor's loss is differentiated by the actor's parameters only (`torch.autograd.grad`).
- `torch.optim.Adam` and `torch.nn.utils.clip_grad_norm_` as they come; one `torch._foreach_lerp_` for all targets.
- Rows come as numpy arrays, as from a replay buffer; `torch.from_numpy` shares their memory on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from examples.maddpg_in_one_file import MADDPG, Agent, Settings, mlp

NETWORKS = ("actor", "critic", "target_actor", "target_critic")
COLUMNS = ("obs", "actions", "rewards", "new_obs", "terminateds")
# Agent -> name of a tensor, such as "target_critic.layers.0.weight" -> its value.
Weights = Mapping[str, Mapping[str, np.ndarray]]


class BareMADDPG(MADDPG):
    """Networks, optimizers and the update of N agents with one module each, tanh actors and ReLU MLPs."""

    DOES = (
        "bare PyTorch, agent by agent: next actions of all once, torch.cat of all inputs, critic backward, clip, Adam, actor "
        "backward by the actor's weights only, clip, Adam; then one foreach polyak. No metrics, no masks"
    )

    def __init__(self, weights: Weights, settings: Settings, device: str = "cpu", capturable: bool = False):
        """
        Args:
            weights: Where to start.
            settings: The numbers of the update.
            device: "cpu" or "cuda".
            capturable: Whether a CUDA graph is to hold the update: Adam's rate and clock are on the device, its step is fused.
        """
        self.device = torch.device(device)
        adam: dict[str, Any] = {"lr": settings.lr}
        if capturable:
            adam = {"lr": torch.tensor(settings.lr, device=self.device), "capturable": True, "fused": True}
        agents = {}
        for name, own in weights.items():
            actor, critic, *targets = (_network(own, network).to(self.device) for network in NETWORKS)
            agents[name] = Agent.new(actor, critic, targets, **adam)
        super().__init__(agents, settings)

    @property
    def nets(self) -> dict[str, dict[str, nn.Module]]:
        """Agent -> name -> network."""
        return {a: {name: getattr(agent, name) for name in NETWORKS} for a, agent in self.agents.items()}

    @property
    def optimizers(self) -> dict[str, dict[str, torch.optim.Optimizer]]:
        """Agent -> name of a network that learns -> its optimizer."""
        return {a: {"actor": agent.actor_optimizer, "critic": agent.critic_optimizer} for a, agent in self.agents.items()}

    def update(self, batch: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """One update of all agents.

        Args:
            batch: Agent -> column of `COLUMNS` -> `[B, 1, dim]` or `[B, 1]`, float32; every agent takes part in every row.
        """
        self.learn({a: {c: self._tensor(batch[a][c]) for c in COLUMNS} for a in self.agents})
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _tensor(self, values: np.ndarray) -> Tensor:
        """`[B, dim]`; one number an agent becomes `[B, 1]`, as critics return it."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device).reshape(len(values), -1)

    def weights(self) -> dict[str, dict[str, list[np.ndarray]]]:
        """Agent -> network -> its tensors in order."""
        return {
            a: {name: [p.detach().cpu().numpy().copy() for p in net.parameters()] for name, net in nets.items()}
            for a, nets in self.nets.items()
        }


def tensors_of(weights: Mapping[str, Any], network: str) -> list[np.ndarray]:
    """The tensors of one network of a module's state, in order: weight, bias, weight, bias ..."""
    return [np.array(value) for name, value in weights.items() if name.startswith(f"{network}.")]


def _network(weights: Mapping[str, Any], name: str) -> nn.Sequential:
    tensors = [torch.from_numpy(t) for t in tensors_of(weights, name)]
    network = mlp(tensors[0].shape[1], tensors[-1].shape[0], [t.shape[0] for t in tensors[:-2:2]])
    for parameter, tensor in zip(network.parameters(), tensors, strict=True):
        parameter.data = tensor.clone()
    return network
