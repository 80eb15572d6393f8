"""The rows of an update as the modules of one group learn from them. No Ray here."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from rllib_maddpg.rows.drawn_columns import LATER_REWARDS, STEPS, WEIGHTS
from rllib_maddpg.rows.joint_batch import JointBatch, lazy


class GroupRows:
    """The rows from which the modules of a group learn.

    `rows["rewards"]` is a column's share of G modules of n agents each, `[G, n, B]`, or `[G, n, B, dim]` for observations and
    actions. What an earlier stage has added (`UpdateContext.add_column`) is a column, too.

    Attributes:
        joint: The rows of all agents.
        modules: Ids of the G modules.
    """

    def __init__(
        self,
        joint: JointBatch,
        modules: tuple[str, ...],
        distributed: bool,
        added: Mapping[str, Mapping[str, Tensor]],
    ):
        self.joint = joint
        self.modules, self._distributed, self._added = modules, distributed, added
        self._counts: dict[str, Tensor] = {}
        self._weights: Tensor | None = None

    def __getitem__(self, column: str) -> Tensor:
        if column in self._added:
            return self._stack_added(column)
        if column not in self.joint.schema:
            known = [*self.joint.schema.columns, *self.joint.schema.aliases, *self._added]
            raise ValueError(f"Rows have no column {column!r}, and no stage of this update has added one. There are: {known}.")
        return self.joint.stack(self.modules, column)

    def _stack_added(self, column: str) -> Tensor:
        # Modules that do not learn may have been left out.
        absent = torch.zeros_like(self["alive"][0])
        return torch.stack([self._added[column].get(m, absent) for m in self.modules])

    @lazy
    def allowed(self) -> Tensor | None:
        """Which actions the agents' observations allow, bool `[G, n, B, code_dim]`; None: all are, always."""
        return self.joint.allowed(self.modules, "obs")

    def weighted(self, column: str) -> Tensor:
        """A column of zeros and ones, times the weights of the rows over the largest weight of the update, `[G, n, B]`.

        It is the column itself where rows have no weights (`JointReplay.weighs_rows`). Losses are sums over `weighted("acts")`
        divided by `count("acts")` (Schaul et al. 2016, section 3.4).
        """
        if WEIGHTS not in self.joint.schema:
            return self[column]
        if self._weights is None:
            weights = self[WEIGHTS].squeeze(-1)
            largest = weights.amax((1, 2), keepdim=True)
            if self._distributed:
                dist.all_reduce(largest, dist.ReduceOp.MAX)
            self._weights = weights / largest
        return self[column] * self._weights

    def returns(self, gamma: Tensor) -> Tensor:
        """The rewards from x to x', discounted: r_0 + gamma r_1 + ... + gamma^(n-1) r_(n-1), `[G, n, B]`.

        With `n_step=1` it is `rows["rewards"]`.

        Args:
            gamma: `[G, 1, 1]`.
        """
        rewards = self["rewards"]
        if LATER_REWARDS not in self.joint.schema:
            return rewards
        later = self[LATER_REWARDS].reshape(*rewards.shape, -1)
        powers = torch.arange(1, later.shape[-1] + 1, device=later.device)
        return rewards + (later * gamma.unsqueeze(-1) ** powers).sum(-1)

    def discount(self, gamma: Tensor) -> Tensor:
        """gamma^n of the value at x', n steps after x; with `n_step=1` it is `gamma` itself, `[G, 1, 1]`, else `[G, n, B]`."""
        return gamma ** self[STEPS].squeeze(-1) if STEPS in self.joint.schema else gamma

    def count(self, column: str) -> Tensor:
        """Sum of a column of zeros and ones over rows, agents and Learners, at least 1, `[G]`."""
        name = self.joint.schema.real_name(column)  # columns that are one are counted once
        if name not in self._counts:
            count = self[name].sum((1, 2))
            if self._distributed:
                dist.all_reduce(count)
            self._counts[name] = count.clamp(min=1.0)
        return self._counts[name]
