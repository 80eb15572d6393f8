"""The attention critic in plain loops and float64, written from the equations of `rllib_maddpg.modules.attention`.

Weights are plain tensors by name; an agent of the game is a dict with its observation's and code's width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def attention_q(
    weights: Mapping[str, Tensor],
    kinds: Sequence[int],
    obs: Sequence[Tensor],
    actions: Sequence[Tensor],
    present: Sequence[bool],
    judged: int,
    heads: int,
    columns: Tensor | None = None,
) -> Tensor:
    """Q of one agent in one row, a scalar.

    Args:
        weights: `embeddings` (a list), `agent_bias`, `queries`, `keys`, `values`, and `head`: pairs of weight and bias.
        kinds: For each agent the number of its embedding.
        obs, actions: Of each agent, `[dim]`.
        present: Whether each agent is in the game.
        judged: Number of the agent.
        heads: How many.
        columns: What else is shown, `[dim]`.
    """
    embedded = []
    for j, kind in enumerate(kinds):
        x = torch.cat([obs[j], actions[j]])
        embedded.append(torch.relu(weights["embeddings"][kind] @ x + weights["agent_bias"][j]))
    width = len(embedded[0]) // heads
    attended = []
    for h in range(heads):
        rows = slice(h * width, (h + 1) * width)
        query = weights["queries"][rows] @ embedded[judged]
        others = [j for j in range(len(kinds)) if j != judged and present[j]]
        fits = [query @ (weights["keys"][rows] @ embedded[j]) / math.sqrt(width) for j in others]
        total = torch.zeros(width, dtype=query.dtype)
        if others:
            shares = [torch.exp(fit) for fit in fits]
            for share, j in zip(shares, others, strict=True):
                total = total + share / sum(shares) * (weights["values"][rows] @ embedded[j])
        attended.append(total)
    x = torch.cat([embedded[judged], *attended, *([] if columns is None else [columns])])
    for k, (weight, bias) in enumerate(weights["head"]):
        x = weight @ (torch.relu(x) if k else x) + bias
    return x[0]
