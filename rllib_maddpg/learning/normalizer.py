"""Normalization of the rows of an update, by running moments of all rows that were drawn. No Ray here.

Two means and scales are kept for what a module's agents observe. What the networks that learn see, critics above all, goes by
the moments of all rows so far, also where a module does not learn or acts by a rule. What a module's own actor sees is part of
the module (`ObservationFilter`): while the module learns, it is the same; while it does not, it stays what it was, since its
actor does. Rewards are divided by their root mean square; nothing is taken away, which would change what is worth doing.

Shapes: B rows, N agents and M modules of each of S games; `[...]` is `[S]`, or nothing where there is one game. D is the width
of one observation of each module, side by side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rllib_maddpg.learning.moments import TINY, NewMoments, mean_and_scale, merged, placed
from rllib_maddpg.modules.normalizing import standardized
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import AgentSlot
from rllib_maddpg.rows.schema import NEXT, RowSchema

# Columns of rewards: in the row's first step, and with n-step returns in its later ones.
REWARD_COLUMNS = ("rewards", "later_rewards")
# Columns of the env that are normalized as observations are; users' own stay as they are.
ENV_COLUMNS = ("state",)
# In place of a module's id, for what belongs to none.
ENV = ""


class Normalizer:
    """Moments, means and scales of all modules, side by side; those of the modules are views.

    Attributes:
        observations, rewards: What is normalized.
    """

    def __init__(
        self,
        schema: RowSchema,
        modules: Mapping[str, Any],
        observations: bool,
        rewards: bool,
        like: Tensor,
        distributed: bool = False,
        old: Normalizer | None = None,
    ):
        """
        Args:
            schema: Of the rows of one game.
            modules: Module id -> `MADDPGTorchRLModule`; others, which act by rules, are left out.
            observations, rewards: What is normalized.
            like: Has the dtype and the device of the modules' networks.
            distributed: Whether there are other Learners, which see other rows.
            old: Where moments of modules that are left out were before.
        """
        self.observations, self.rewards = observations, rewards
        self._layout = layout = schema.layout
        self._modules, self._distributed = dict(modules), distributed
        self._env_columns = [column.name for column in schema.own if column.name in ENV_COLUMNS and observations]
        device = like.device
        dims = {m: layout.obs_dim_of(m) if observations else 0 for m in layout.modules}
        each = dict.fromkeys(layout.modules, 1)
        # Each part of the moments with its width for each module.
        parts = {"obs_count": each, "obs_mean": dims, "obs_deviations": dims} if observations else {}
        parts |= {"reward_count": each, "reward_squares": each} if rewards else {}
        for name in self._env_columns:
            own = {ENV: schema.width(name)}
            parts |= {f"{name}_count": {ENV: 1}, f"{name}_mean": own, f"{name}_deviations": own}
        self._parts, self._places = placed(parts)
        width = sum(sum(own.values()) for own in parts.values())
        self._moments = torch.zeros(width, dtype=torch.float64, device=device)
        if old is not None:
            self._moments.copy_(old._moments)
        # Mean and scale of what actors see.
        self._acting_parts, self._acting_places = placed({"mean": dims, "scale": dims})
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
        # The ids still say who may be frozen; no module's tensors lie there.
        new._modules, new._tied, new._storage = dict.fromkeys(self._modules), [], []
        return new

    def take(self, own: Normalizer, game: int) -> None:
        """Lets the numbers of one game's normalizer lie here."""
        own.move_to(self._moments[game], self._acting[game])

    def left_out(self) -> dict[str, dict[str, Any]]:
        """Moments of the modules that have none themselves, by module id, as arrays; and of the env."""
        result: dict[str, dict[str, Any]] = {}
        for (m, name), place in self._places.items():
            if m not in self._modules:
                result.setdefault(m, {})[name] = self._moments[place].cpu().numpy().copy()
        return result

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
        moments = self._split(new)
        scales = self._reward_scales(moments) if self.rewards else None
        env = {name: self._of_env(moments, name) for name in self._env_columns}
        seen = acting = self._seen(moments) if self.observations else self._acting
        frozen = [m for m in self._modules if m not in trained]
        if frozen and self.observations:
            acting = acting.clone()
            for m in frozen:
                for name in ("mean", "scale"):
                    place = self._acting_places[m, name]
                    acting[..., place].copy_(self._acting[..., place])

        def applied(rows: JointBatch) -> JointBatch:
            result = rows.with_rows(self._normalized_rows(rows, seen, scales, env))
            result.raw = rows
            if acting is not seen:
                result.for_actors = rows.with_rows(self._normalized_rows(rows, acting, scales, env))
            return result

        result = applied(batch)
        if batch.newest is not None:
            result.newest = applied(batch.newest)
        return result, NewMoments([(self._moments, new), (self._acting, acting)])

    def _counted(self, batch: JointBatch) -> Tensor:
        """The moments with those of the agents that act in the rows of a batch, `[..., width]`.

        Sums are taken about the running mean, so that they are small numbers (Chan et al. 1979, of a sample and its sums).
        """
        old, columns = self._split(self._moments), batch.columns
        acts = columns["acts"].double()
        sums = {"agents": acts.sum(-2)}
        if self.observations:
            mean = old["obs_mean"].index_select(-1, self._stat_of_column).unsqueeze(-2)
            apart = (columns["obs"].double() - mean) * acts.index_select(-1, self._agent_of_column)
            sums |= {"first": apart.sum(-2), "second": apart.square().sum(-2)}
        if self.rewards:
            sums["squares"] = (columns["rewards"].double() * acts).square().sum(-2)
        for name in self._env_columns:
            going_on = acts.amax(-1, keepdim=True)
            apart = (columns[name].double() - old[f"{name}_mean"].unsqueeze(-2)) * going_on
            sums |= {name: going_on.sum(-2), f"{name} first": apart.sum(-2), f"{name} second": apart.square().sum(-2)}
        flat = torch.cat(list(sums.values()), -1)
        if self._distributed:
            dist.all_reduce(flat)
        sums = dict(zip(sums, flat.split([x.shape[-1] for x in sums.values()], -1), strict=True))
        count, new = self._by_module(sums["agents"], "agents"), {}
        if self.observations:
            first, second = (self._by_module(sums[name], "obs") for name in ("first", "second"))
            each = (old["obs_count"] + count).index_select(-1, self._module_of_stat)
            new |= merged(old, "obs", count, each, first, second)
        if self.rewards:
            new["reward_count"] = old["reward_count"] + count
            new["reward_squares"] = old["reward_squares"] + self._by_module(sums["squares"], "agents")
        for name in self._env_columns:
            each = old[f"{name}_count"] + sums[name]
            new |= merged(old, name, sums[name], each, sums[f"{name} first"], sums[f"{name} second"])
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

    def _seen(self, own: Mapping[str, Tensor]) -> Tensor:
        """Mean and scale of observations, side by side `[..., 2 D]`."""
        mean, scale = mean_and_scale(own, "obs", own["obs_count"].index_select(-1, self._module_of_stat))
        return torch.cat([mean * self._free, torch.where(self._free > 0.0, scale, 1.0)], -1).to(self._acting.dtype)

    def _of_env(self, own: Mapping[str, Tensor], name: str) -> list[Tensor]:
        """Mean and scale of a column of the env, to stand beside `[..., B, width]`."""
        return [x.to(self._acting.dtype).unsqueeze(-2) for x in mean_and_scale(own, name, own[f"{name}_count"])]

    def _reward_scales(self, own: Mapping[str, Tensor]) -> Tensor:
        """One over the root mean square of each agent's rewards, `[..., N]`."""
        root = (own["reward_squares"] / own["reward_count"].clamp(min=1.0)).sqrt()
        return torch.where(root > TINY, root, 1.0).reciprocal().index_select(-1, self._module_of_agent)

    def _normalized_rows(
        self, batch: JointBatch, seen: Tensor, scales: Tensor | None, env: Mapping[str, Sequence[Tensor]]
    ) -> Tensor:
        rows, raw = batch.joint_rows.clone(), batch.columns
        columns = batch.schema.split(rows)
        if self.observations:
            mean, scale = (x.index_select(-1, self._stat_of_column).unsqueeze(-2) for x in seen.chunk(2, -1))
            # An agent that comes into the game is there at x' first. Zeros of all others stay zeros.
            alive, next_alive = raw["alive"], raw["next_alive"]
            for name, there in (("obs", alive), ("new_obs", torch.maximum(alive, next_alive))):
                values = standardized(raw[name], mean, scale) * there.index_select(-1, self._agent_of_column)
                columns[name].copy_(values)
        for name, own in env.items():
            for column in (name, NEXT + name):
                columns[column].copy_(standardized(raw[column], *own))
        if scales is not None:
            scale = scales.to(rows.dtype).unsqueeze(-2).unsqueeze(-1)
            for name in REWARD_COLUMNS:
                if name in batch.schema:
                    columns[name].unflatten(-1, (len(self._layout), -1)).mul_(scale)
        return rows


def _free(slot: AgentSlot) -> list[float]:
    """Of each column of an agent's observation, 1.0 if it may be normalized."""
    free = [1.0] * (slot.obs.stop - slot.obs.start)
    mask = getattr(slot, "mask", None)
    if mask is not None:
        free[mask] = [0.0] * len(free[mask])
    return free
