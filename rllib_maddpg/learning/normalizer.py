"""Normalization of the rows of an update, by running moments of all rows that were drawn. No Ray here.

Two means and scales are kept for what a module's agents observe. What the networks that learn see, critics above all, goes by
the moments of all rows so far, also where a module does not learn or acts by a rule. What a module's own actor sees is part of
the module (`ObservationFilter`): while the module learns, it is the same; while it does not, it stays what it was, since its
actor does. Rewards are divided by their root mean square; nothing is taken away, which would change what is worth doing.

Shapes: B rows, N agents and M modules of each of S games; `[...]` is `[S]`, or nothing where there is one game. D is the width
of one observation of each module, side by side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rllib_maddpg.modules.normalizing import standardized
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import AgentSlot, JointLayout

# Below this share of its mean a standard deviation is what float32 makes of a constant; the second number is for a mean of 0.
CONSTANT, TINY = 1e-6, 1e-30
# Columns of rewards: in the row's first step, and with n-step returns in its later ones.
REWARD_COLUMNS = ("rewards", "later_rewards")


class Normalizer:
    """Moments, means and scales of all modules, side by side; those of the modules are views.

    Attributes:
        observations, rewards: What is normalized.
    """

    def __init__(
        self,
        layout: JointLayout,
        modules: Mapping[str, Any],
        observations: bool,
        rewards: bool,
        like: Tensor,
        distributed: bool = False,
        old: Normalizer | None = None,
    ):
        """
        Args:
            layout: Of one game.
            modules: Module id -> `MADDPGTorchRLModule`; others, which act by rules, are left out.
            observations, rewards: What is normalized.
            like: Has the dtype and the device of the modules' networks.
            distributed: Whether there are other Learners, which see other rows.
            old: Where moments of modules that are left out were before.
        """
        self.observations, self.rewards = observations, rewards
        self._layout, self._distributed = layout, distributed
        self._modules = dict(modules)
        device = like.device
        dims = {m: layout.obs_dim_of(m) if observations else 0 for m in layout.modules}
        each = dict.fromkeys(layout.modules, 1)
        # Each part of the moments with its width for each module.
        parts = {"obs_count": each, "obs_mean": dims, "obs_deviations": dims} if observations else {}
        parts |= {"reward_count": each, "reward_squares": each} if rewards else {}
        self._parts, self._places = _places(parts)
        width = sum(sum(own.values()) for own in parts.values())
        self._moments = torch.zeros(width, dtype=torch.float64, device=device)
        if old is not None:
            self._moments.copy_(old._moments)
        # Mean and scale of what actors see.
        self._acting_parts, self._acting_places = _places({"mean": dims, "scale": dims})
        self._acting = torch.zeros(2 * sum(dims.values()), dtype=like.dtype, device=device)
        self._make_indices(device)
        self._tie()

    def _make_indices(self, device: torch.device) -> None:
        """Which agent and module each number of a row, and each of the D numbers, belongs to."""
        slots, modules = self._layout.slots, self._layout.modules
        starts = {m: self._acting_places[m, "mean"].start for m in modules}
        widths = [s.obs.stop - s.obs.start for s in slots]
        number = {m: k for k, m in enumerate(modules)}
        own = [range(starts[s.module], starts[s.module] + width) for s, width in zip(slots, widths, strict=True)]
        self._stat_of_column = torch.tensor([i for stats in own for i in stats], device=device)
        self._agent_of_column = torch.tensor([k for k, w in enumerate(widths) for _ in range(w)], device=device)
        self._module_of_agent = torch.tensor([number[s.module] for s in slots], device=device)
        of_stat = [number[m] for m in modules for _ in range(self._layout.obs_dim_of(m))]
        self._module_of_stat = torch.tensor(of_stat, device=device)
        # 0 where a column says which actions are allowed, which stays 0 or 1.
        free = [f for m in modules for f in _free(self._layout.slots_of(m)[0])]
        self._free = torch.tensor(free, dtype=torch.float64, device=device)

    # ------------------------------------------------------------------------------------------ where the numbers lie

    def _tie(self) -> None:
        """Takes over the numbers of the modules, whose tensors become views."""
        self._tied = [*self._views(self._moments, self._acting)]
        for holder, name, view in self._tied:
            view.copy_(holder[name])
            holder[name].data = view
        self._storage = self._pointers()

    def _views(self, moments: Tensor, acting: Tensor) -> Any:
        for module_id, module in self._modules.items():
            for own, places, flat in (
                (module.moments, self._places, moments),
                (module.obs_filter, self._acting_places, acting),
            ):
                for name, buffer in own.named_buffers() if own is not None else ():
                    yield own._buffers, name, flat[places[module_id, name]].view(buffer.shape)

    def _pointers(self) -> list[int]:
        return [holder[name].data_ptr() for holder, name, _ in self._tied]

    def is_tied(self) -> bool:
        """Whether the modules' tensors still lie here."""
        return self._pointers() == self._storage

    def move_to(self, moments: Tensor, acting: Tensor) -> None:
        """Lets all numbers lie in other tensors, to which they are copied."""
        self._moments, self._acting = moments.copy_(self._moments), acting.copy_(self._acting)
        self._tie()

    def repeated(self, times: int) -> Normalizer:
        """For so many games that are alike; `take` gives it their numbers."""
        new = object.__new__(Normalizer)
        new.__dict__.update(self.__dict__)
        new._moments, new._acting = (x.repeat(times, 1) for x in (self._moments, self._acting))
        new._modules, new._tied, new._storage = {}, [], []
        return new

    def take(self, own: Normalizer, game: int) -> None:
        """Lets the numbers of one game's normalizer lie here."""
        own.move_to(self._moments[game], self._acting[game])

    def left_out(self) -> dict[str, dict[str, Any]]:
        """Moments of the modules that have none themselves, by module id, as arrays."""
        return {
            m: {name: self._moments[self._places[m, name]].cpu().numpy().copy() for name in self._parts}
            for m in self._layout.modules
            if m not in self._modules
        }

    def set_left_out(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes over what `left_out` gave."""
        for m, own in state.items():
            for name, values in own.items():
                if (m, name) in self._places and m not in self._modules:
                    self._moments[self._places[m, name]].copy_(torch.as_tensor(values))

    # ------------------------------------------------------------------------------------------ an update

    @torch.no_grad()
    def normalized(self, batch: JointBatch, trained: Collection[str]) -> tuple[JointBatch, NewMoments]:
        """The rows of an update, counted and normalized; and the moments with them, for whom they are not too bad to be kept.

        Args:
            batch: As drawn, `[..., B, row_width]`; the newest rows go along, and are not counted.
            trained: Ids of the modules that learn from it.
        """
        new = self._counted(batch)
        scales = self._reward_scales(new) if self.rewards else None
        seen, acting = self._seen(new)
        frozen = [m for m in self._modules if m not in trained]
        if frozen and self.observations:
            acting = acting.clone()
            for m in frozen:
                for name in ("mean", "scale"):
                    place = self._acting_places[m, name]
                    acting[..., place].copy_(self._acting[..., place])
        result = self._applied(batch, seen, acting if frozen else None, scales)
        if batch.newest is not None:
            result.newest = self._applied(batch.newest, seen, acting if frozen else None, scales)
        return result, NewMoments([(self._moments, new), (self._acting, acting)])

    def _counted(self, batch: JointBatch) -> Tensor:
        """The moments with those of the living agents of a batch, `[..., width]`.

        Sums are taken about the running mean, so that they are small numbers (Chan et al. 1979, of a sample and its sums).
        """
        old, columns = self._split(self._moments), batch.columns
        alive = columns["alive"].double()
        sums = [alive.sum(-2)]
        if self.observations:
            mean = old["obs_mean"].index_select(-1, self._stat_of_column).unsqueeze(-2)
            apart = (columns["obs"].double() - mean) * alive.index_select(-1, self._agent_of_column)
            sums += [apart.sum(-2), apart.square().sum(-2)]
        if self.rewards:
            sums.append((columns["rewards"].double() * alive).square().sum(-2))
        flat = torch.cat(sums, -1)
        if self._distributed:
            dist.all_reduce(flat)
        count, *sums = flat.split([x.shape[-1] for x in sums], -1)
        count, new = self._by_module(count, "agents"), {}
        if self.observations:
            first, second = (self._by_module(x, "obs") for x in sums[:2])
            new["obs_count"] = old["obs_count"] + count
            each = self._count_of_stats(new)
            new["obs_mean"] = old["obs_mean"] + first / each
            new["obs_deviations"] = (old["obs_deviations"] + second - first.square() / each).clamp(min=0.0)
        if self.rewards:
            new["reward_count"] = old["reward_count"] + count
            new["reward_squares"] = old["reward_squares"] + self._by_module(sums[-1], "agents")
        return torch.cat([new[name] for name in self._parts], -1)

    def _split(self, moments: Tensor) -> dict[str, Tensor]:
        return dict(zip(self._parts, moments.split(list(self._parts.values()), -1), strict=True))

    def _by_module(self, sums: Tensor, what: str) -> Tensor:
        """Sums of all agents' numbers -> of all modules', whose agents lie side by side."""
        layout = self._layout
        if len(layout.modules) == len(layout):
            return sums
        spans = [(layout.span((m,), what), len(layout.slots_of(m))) for m in layout.modules]
        return torch.cat([sums[..., span].unflatten(-1, (agents, -1)).sum(-2) for span, agents in spans], -1)

    def _count_of_stats(self, moments: Mapping[str, Tensor]) -> Tensor:
        return moments["obs_count"].clamp(min=1.0).index_select(-1, self._module_of_stat)

    def _seen(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale of observations, side by side `[..., 2 D]`, for networks that learn and for actors: the same."""
        if not self.observations:
            return self._acting, self._acting
        own = self._split(moments)
        mean, std = own["obs_mean"], (own["obs_deviations"] / self._count_of_stats(own)).sqrt()
        varies = std > CONSTANT * mean.abs() + TINY
        scale = torch.where(varies, std, 1.0).reciprocal()
        seen = torch.cat([mean * self._free, torch.where(self._free > 0.0, scale, 1.0)], -1).to(self._acting.dtype)
        return seen, seen

    def _reward_scales(self, moments: Tensor) -> Tensor:
        """One over the root mean square of each agent's rewards, `[..., N]`."""
        own = self._split(moments)
        root = (own["reward_squares"] / own["reward_count"].clamp(min=1.0)).sqrt()
        return torch.where(root > TINY, root, 1.0).reciprocal().index_select(-1, self._module_of_agent)

    def _applied(self, batch: JointBatch, seen: Tensor, acting: Tensor | None, scales: Tensor | None) -> JointBatch:
        """Normalized rows, which know the raw ones, and those that actors see."""
        rows = self._normalized_rows(batch, seen, scales)
        result = batch.with_rows(rows)
        result.raw = batch
        if acting is not None and self.observations:
            result.for_actors = batch.with_rows(self._normalized_rows(batch, acting, scales))
        return result

    def _normalized_rows(self, batch: JointBatch, seen: Tensor, scales: Tensor | None) -> Tensor:
        rows, raw = batch.joint_rows.clone(), batch.columns
        columns = batch.schema.split(rows)
        if self.observations:
            mean, scale = (x.index_select(-1, self._stat_of_column).unsqueeze(-2) for x in seen.chunk(2, -1))
            # An agent that comes into the game is there at x' first. Zeros of all others stay zeros.
            alive, next_alive = raw["alive"], raw["next_alive"]
            for name, there in (("obs", alive), ("new_obs", torch.maximum(alive, next_alive))):
                values = standardized(raw[name], mean, scale) * there.index_select(-1, self._agent_of_column)
                columns[name].copy_(values)
        if scales is not None:
            scale = scales.to(rows.dtype).unsqueeze(-2).unsqueeze(-1)
            for name in REWARD_COLUMNS:
                if name in batch.schema:
                    columns[name].unflatten(-1, (len(self._layout), -1)).mul_(scale)
        return rows


class NewMoments:
    """What an update's rows make of the moments, so long as nobody knows whether its numbers are finite."""

    def __init__(self, changes: list[tuple[Tensor, Tensor]]):
        """
        Args:
            changes: Tensors `[..., width]`, and what will be in them.
        """
        self._changes = changes

    @torch.no_grad()
    def keep(self, skip: Tensor | None) -> None:
        """Keeps them.

        Args:
            skip: As in `FiniteCheck`: without dimensions, or `[S]` of S games; above 0: all stays as it was.
        """
        is_sound = torch.isfinite(self._changes[0][1].sum(-1))
        if skip is not None:
            is_sound = is_sound & (skip == 0.0)
        for old, new in self._changes:
            old.copy_(torch.where(is_sound.unsqueeze(-1), new, old))


def _places(parts: Mapping[str, Mapping[str, int]]) -> tuple[dict[str, int], dict[tuple[str, str], slice]]:
    """Of parts that lie side by side, module by module: width of each part, and place of each module's by (module, part)."""
    places, start = {}, 0
    for name, widths in parts.items():
        for m, width in widths.items():
            places[m, name] = slice(start, start + width)
            start += width
    return {name: sum(widths.values()) for name, widths in parts.items()}, places


def _free(slot: AgentSlot) -> list[float]:
    """Of each column of an agent's observation, 1.0 if it may be normalized."""
    free = [1.0] * (slot.obs.stop - slot.obs.start)
    mask = getattr(slot, "mask", None)
    if mask is not None:
        free[mask] = [0.0] * len(free[mask])
    return free
