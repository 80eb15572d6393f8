"""One actor with all that surrounds it, as a torch module that can be traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rllib_maddpg.rows.actions import ActionCodec, BoxCodec


class ActorProgram(nn.Module):
    """Parts of an observation `[B, ...]` -> environment actions `[B, ...]`, greedy.

    No step depends on the size of the batch, which a trace would hold on to.
    """

    def __init__(
        self,
        actor: nn.Module,
        inputs: Sequence[dict[str, Any]],
        codec: ActionCodec,
        obs_filter: nn.Module | None = None,
    ):
        """
        Args:
            actor: `[B, obs_dim]` -> head output `[B, dim]`.
            inputs: `describe_observation` of what the agent observes.
            codec: Of the agent's action space.
            obs_filter: What normalizes observations `[B, obs_dim]` for the actor, if anything does.
        """
        super().__init__()
        self.actor, self.inputs, self.codec, self.obs_filter = actor, list(inputs), codec, obs_filter
        self.dtype = getattr(torch, np.dtype(codec.space.dtype).name)
        if isinstance(codec, BoxCodec):
            low, high = torch.from_numpy(codec.space.low), torch.from_numpy(codec.space.high)
            for name, bound in {"low": low, "high": high, "span": high - low}.items():
                self.register_buffer(name, bound)
        for i, spec in enumerate(self.inputs):
            for j, values in enumerate(spec.get("columns", ())):
                self.register_buffer(f"values_{i}_{j}", torch.tensor(values))

    def forward(self, *parts: Tensor) -> Tensor:
        """Parts in the order of `inputs`."""
        vectors = [self._vector(i, part) for i, part in enumerate(parts)]
        obs = torch.cat(vectors, -1)
        output = self.actor(obs if self.obs_filter is None else self.obs_filter(obs))
        masks = [vector for vector, spec in zip(vectors, self.inputs, strict=True) if spec.get("mask")]
        if masks:
            output = self.codec.masked(output, self.codec.allowed(torch.cat(masks, -1)))
        action = self._scaled(output) if isinstance(self.codec, BoxCodec) else self._choices(output)
        return action.reshape(-1, *self.codec.space.shape).to(self.dtype)

    def example(self, batch: int) -> tuple[Tensor, ...]:
        """Inputs to trace with."""
        return tuple(
            torch.zeros(batch, *spec["shape"], dtype=getattr(torch, spec["dtype"]))
            if "start" not in spec
            else torch.tensor(spec["start"]).reshape(spec["shape"]).expand(batch, *spec["shape"]).contiguous()
            for spec in self.inputs
        )

    def _vector(self, i: int, part: Tensor) -> Tensor:
        rows = part.reshape(-1, int(np.prod(self.inputs[i]["shape"], dtype=int)))
        if "columns" not in self.inputs[i]:
            return rows.to(torch.float32)  # images may be bytes
        blocks = [rows[:, j : j + 1] == getattr(self, f"values_{i}_{j}") for j in range(len(self.inputs[i]["columns"]))]
        return torch.cat(blocks, -1).to(torch.float32)

    def _scaled(self, output: Tensor) -> Tensor:
        code = self.codec.greedy(output).reshape(-1, *self.codec.space.shape)
        return torch.minimum(torch.maximum(self.low + (code + 1.0) * self.span / 2.0, self.low), self.high)

    def _choices(self, output: Tensor) -> Tensor:
        parts = output.split(self.codec.nvec, -1)
        return torch.stack([part.argmax(-1) + int(s) for part, s in zip(parts, self.codec.starts, strict=True)], -1)
