"""MADDPG's update in bare PyTorch, one agent after the other: the baseline of part `update`. No framework, no metrics.

Written plainly, and as fast as that allows:

- The next actions of all target actors are computed once an update, not once an agent.
- Critic and actor inputs are put together with `torch.cat` where they are needed.
- The actor's loss is differentiated by the actor's parameters only (`torch.autograd.grad`).
- `torch.optim.Adam` and `torch.nn.utils.clip_grad_norm_` as they come; one `torch._foreach_lerp_` for all targets.
- Rows come as numpy arrays, as from a replay buffer; `torch.from_numpy` shares their memory on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

NETWORKS = ("actor", "critic", "target_actor", "target_critic")
COLUMNS = ("obs", "actions", "rewards", "new_obs", "terminateds")
# Agent -> name of a tensor, such as "target_critic.layers.0.weight" -> its value.
Weights = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Settings:
    """The numbers of the update, named as in `MADDPGConfig`."""

    lr: float
    gamma: float
    tau: float
    grad_clip: float
    actor_output_reg: float


class BareMADDPG:
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
        self.settings, self.device = settings, torch.device(device)
        lr = torch.tensor(settings.lr, device=self.device) if capturable else settings.lr
        how = {"capturable": True, "fused": True} if capturable else {}
        self.agents = list(weights)
        self.nets = {a: {name: _mlp(weights[a], name).to(self.device) for name in NETWORKS} for a in self.agents}
        self.optimizers = {
            a: {name: torch.optim.Adam(self.nets[a][name].parameters(), lr=lr, **how) for name in NETWORKS[:2]}
            for a in self.agents
        }
        pairs = [(nets[name], nets[f"target_{name}"]) for nets in self.nets.values() for name in NETWORKS[:2]]
        self._sources = [p for net, _ in pairs for p in net.parameters()]
        self._targets = [p.requires_grad_(False) for _, target in pairs for p in target.parameters()]

    def update(self, batch: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """One update of all agents.

        Args:
            batch: Agent -> column of `COLUMNS` -> `[B, 1, dim]` or `[B, 1]`, float32; every agent takes part in every row.
        """
        self.learn({a: {c: self._tensor(batch[a][c]) for c in COLUMNS} for a in self.agents})
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def learn(self, rows: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The same from tensors on the device, `[B, dim]` or `[B, 1]`; waits for nothing."""
        settings = self.settings
        obs, actions, next_obs = ([rows[a][c] for a in self.agents] for c in ("obs", "actions", "new_obs"))
        with torch.no_grad():
            next_actions = [torch.tanh(self.nets[a]["target_actor"](rows[a]["new_obs"])) for a in self.agents]
        for i, agent in enumerate(self.agents):
            nets, own = self.nets[agent], rows[agent]
            with torch.no_grad():
                next_q = nets["target_critic"](torch.cat([*next_obs, *next_actions], -1))
                target = own["rewards"] + settings.gamma * (1.0 - own["terminateds"]) * next_q
            q = nets["critic"](torch.cat([*obs, *actions], -1))
            self._step(agent, "critic", F.mse_loss(q, target))

            output = nets["actor"](own["obs"])
            with_own = [*actions[:i], torch.tanh(output), *actions[i + 1 :]]
            q = nets["critic"](torch.cat([*obs, *with_own], -1))
            self._step(agent, "actor", settings.actor_output_reg * output.square().mean() - q.mean())
        with torch.no_grad():
            torch._foreach_lerp_(self._targets, self._sources, settings.tau)

    def _step(self, agent: str, name: str, loss: Tensor) -> None:
        params = list(self.nets[agent][name].parameters())
        for param, grad in zip(params, torch.autograd.grad(loss, params), strict=True):
            param.grad = grad
        nn.utils.clip_grad_norm_(params, self.settings.grad_clip)
        self.optimizers[agent][name].step()

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


def _mlp(weights: Mapping[str, Any], network: str) -> nn.Sequential:
    tensors = [torch.from_numpy(t) for t in tensors_of(weights, network)]
    layers: list[nn.Module] = []
    for weight, bias in zip(tensors[::2], tensors[1::2], strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight.clone(), bias.clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
