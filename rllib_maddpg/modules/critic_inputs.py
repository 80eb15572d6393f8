"""What centralized critics see of a batch, without the columns that hold nothing. No Ray here."""

from __future__ import annotations

import torch
from torch import Tensor

from rllib_maddpg.modules.stacking import wide_linear, wide_linear_of_games
from rllib_maddpg.rows.joint_batch import lazy

# Values that are worth looking at; and the rows whose products take as long as it takes to pick columns out of the weights.
MIN_VALUES = 2**17
PICKING_COSTS_ROWS = 200


class CriticInputs:
    """(x, a_1 ... a_N) of B rows.

    A column that is zero in all rows adds nothing to a critic's first layer and has no gradient there. Games have many: padded
    observations, messages of agents that are silent, agents that are dead. In `simple_spread` it is up to a third.

    Attributes:
        values: `[B, obs_dim + code_dim of all agents]`.
        columns: Numbers of those that hold something, `[C]`; None: all are taken, since picking some would not pay (small
            batches, few empty columns) or cannot be done (a GPU, a compiled update).
        picked: The values in these columns, `[B, C]`.
    """

    def __init__(self, values: Tensor):
        self.values = values

    @lazy
    def columns(self) -> Tensor | None:
        """As in the attributes."""
        return _worth_picking(self.values)

    @lazy
    def picked(self) -> Tensor:
        """As in the attributes."""
        return self.values if self.columns is None else self.values.index_select(1, self.columns)

    def times(self, weight: Tensor, bias: Tensor) -> Tensor:
        """First layers of G networks, `[G, out, dim]` and `[G, out]`: `[G, B, out]`."""
        return wide_linear(self.picked, weight, bias, self.columns)

    def at(self, columns: Tensor) -> Tensor:
        """Values in some columns of each of G networks, `[G, C]`: `[G, B, C]`."""
        return self.values.index_select(1, columns.flatten()).unflatten(1, columns.shape).transpose(0, 1)


class SlotInputs:
    """(x, a_1 ... a_N) of B rows of each of S games, whose critics lie one game after the other.

    Attributes:
        values: `[S, B, obs_dim + code_dim of all agents]`.
    """

    def __init__(self, values: Tensor):
        self.values = values

    def times(self, weight: Tensor, bias: Tensor) -> Tensor:
        """First layers of S * G networks, `[S * G, out, dim]` and `[S * G, out]`: `[S * G, B, out]`."""
        return wide_linear_of_games(self.values, weight, bias)

    def at(self, columns: Tensor) -> Tensor:
        """Values in some columns of each of S * G networks, `[S * G, C]`: `[S * G, B, C]`."""
        rows = self.values.shape[1]
        columns = columns.unflatten(0, (len(self.values), -1))
        at = columns.flatten(1).unsqueeze(1).expand(-1, rows, -1)
        return self.values.gather(2, at).unflatten(-1, columns.shape[1:]).transpose(1, 2).flatten(0, 1)


def critic_inputs(values: Tensor) -> CriticInputs | SlotInputs:
    """What critics see: `[B, dim]`, or of several games `[S, B, dim]`."""
    return CriticInputs(values) if values.dim() == 2 else SlotInputs(values)


class SeparateInputs:
    """The same x for the critics of G modules, and what each of these modules takes all agents to do.

    Attributes:
        obs: What they see beside actions, of B rows.
        actions: `[G, B, code_dim of all agents]`.
    """

    def __init__(self, obs: CriticInputs | SlotInputs, actions: Tensor):
        self.obs, self.actions = obs, actions

    @property
    def values(self) -> Tensor:
        """As in `CriticInputs`, where there is one module."""
        return torch.cat([self.obs.values, self.actions.squeeze(0)], -1)

    def times(self, weight: Tensor, bias: Tensor) -> Tensor:
        """As in `CriticInputs`."""
        obs_dim = self.obs.values.shape[-1]
        first = self.obs.times(weight[..., :obs_dim], bias)
        return torch.baddbmm(first, self.actions, weight[..., obs_dim:].transpose(1, 2))

    def at(self, columns: Tensor) -> Tensor:
        """As in `CriticInputs`; columns of actions only."""
        columns = (columns - self.obs.values.shape[-1]).unsqueeze(1)
        return self.actions.gather(2, columns.expand(-1, self.actions.shape[1], -1))


class PresentInputs:
    """(x, a) in parts, with who is in the game; as good as `CriticInputs` of all parts side by side.

    Shapes are those of B rows; where there are several games, with a dimension for these before B.

    Attributes:
        obs: Observations, `[B, obs_dim of all agents]`; None: they are not seen.
        columns: What else is seen, `[B, dim]`; None: nothing.
        present: 1 for agents that are in the game, else 0, `[B, N]`.
        actions: `[B, code_dim of all agents]`, or `[G, B, ...]` as in `SeparateInputs`.
    """

    def __init__(self, obs: Tensor | None, columns: Tensor | None, present: Tensor, actions: Tensor):
        self.obs, self.columns, self.present, self.actions = obs, columns, present, actions
        self._joined: CriticInputs | SlotInputs | SeparateInputs | None = None

    def with_actions(self, actions: Tensor) -> PresentInputs:
        """The same with other actions."""
        return PresentInputs(self.obs, self.columns, self.present, actions)

    @property
    def values(self) -> Tensor:
        """Observations, columns, who is in the game, and actions side by side."""
        return self._all().values

    def times(self, weight: Tensor, bias: Tensor) -> Tensor:
        """As in `CriticInputs`."""
        return self._all().times(weight, bias)

    def at(self, columns: Tensor) -> Tensor:
        """As in `CriticInputs`."""
        return self._all().at(columns)

    def _all(self) -> CriticInputs | SlotInputs | SeparateInputs:
        if self._joined is None:
            shown = [part for part in (self.obs, self.columns, self.present.to(self.actions.dtype)) if part is not None]
            if self.actions.shape[:-1] == shown[0].shape[:-1]:
                self._joined = critic_inputs(torch.cat([*shown, self.actions], -1))
            else:
                self._joined = SeparateInputs(critic_inputs(torch.cat(shown, -1)), self.actions)
        return self._joined


def _worth_picking(values: Tensor) -> Tensor | None:
    # A GPU would have to be waited for, and a compiled update cannot have shapes that depend on values.
    if values.numel() < MIN_VALUES or values.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    rows, width = values.shape
    columns = (values.abs().amax(0) != 0).nonzero().flatten()  # NaN is something, too
    return columns if (width - len(columns)) * rows > PICKING_COSTS_ROWS * width else None
