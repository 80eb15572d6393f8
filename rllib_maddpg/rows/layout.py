"""The layout: the fixed order of agents in a joint row, and which module serves which agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rllib_maddpg.rows.actions import ActionCodec, make_codec
from rllib_maddpg.rows.observations import (
    Flattener,
    differs_from_rllib,
    flatteners,
    image_shape,
    is_byte_image,
    is_flat_box,
    mask_columns,
)

# Key of an agent in `JointLayout.description`.
OBSERVES = "observes"


@dataclass(frozen=True)
class AgentSlot:
    """Where one agent lies in a joint row.

    Attributes:
        agent: Agent id as the environment gives it.
        module: Id of the module that acts for it.
        codec: Its action codec.
        obs: Columns of its observation in the joint observation `[obs_dim]`.
        actions: Columns of its action code in the joint action `[action_dim]`.
        observed: What the env gives it to observe, of which those columns are made; None: not known.
        mask: Columns within its observation that say which of its actions are allowed; None: all are, always.
    """

    agent: str
    module: str
    codec: ActionCodec
    obs: slice
    actions: slice
    observed: gym.Space | None = None
    mask: slice | None = None

    @property
    def image(self) -> tuple[int, int, int] | None:
        """Height, width and channels, if it observes an image; its columns are the image row by row. Else None."""
        return image_shape(self.observed)


@dataclass(frozen=True)
class ActionGroup:
    """Agents side by side in the joint action whose action spaces are equal, so that one array operation serves them all.

    Attributes:
        agents: Their ids, in order.
        codec: The codec of each of them.
        actions: Their columns in the joint action.
    """

    agents: tuple[str, ...]
    codec: ActionCodec
    actions: slice

    def part(self, joint: np.ndarray) -> np.ndarray:
        """Their share of joint actions or head outputs `[B, action_dim]`: `[B, n, dim]`."""
        return joint[:, self.actions].reshape(len(joint), len(self.agents), self.codec.dim)


class JointLayout:
    """Fixed order of agents and modules; built alike in every process from the same spaces.

    Agents are ordered by module id, then by agent id, so the agents of one module lie side by side and a module's share
    of a joint row is one slice. With one module per agent (the default) this is the sorted order of the agents.
    """

    def __init__(
        self,
        obs_spaces: Mapping[str, gym.Space],
        action_spaces: Mapping[str, gym.Space],
        agent_to_module: Callable[[str], str],
        actor_head: str = "tanh",
        observed: Mapping[str, gym.Space] | None = None,
    ):
        """
        Args:
            obs_spaces: One-dimensional Box per agent.
            action_spaces: Action space per agent.
            agent_to_module: Maps an agent id to a module id.
            actor_head: Head of Box actions, see `make_codec`.
            observed: What the env gives each agent to observe, of which the boxes in `obs_spaces` are made.

        Raises:
            ValueError: If a space is not supported, or agents of one module differ in their spaces.
        """
        modules = {agent: agent_to_module(agent) for agent in obs_spaces}
        check_shared_modules(modules, obs_spaces, action_spaces)
        slots: list[AgentSlot] = []
        obs_at = action_at = 0
        for agent in sorted(modules, key=lambda a: (str(modules[a]), str(a))):
            space = obs_spaces[agent]
            if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
                raise ValueError(
                    f"Agent {agent!r}: observation space {space} is not a one-dimensional Box. Add RLlib's "
                    "`FlattenObservations(multi_agent=True)` env-to-module connector or a SuperSuit `flatten_v0` wrapper."
                )
            codec = make_codec(action_spaces[agent], actor_head, agent)
            obs_dim = space.shape[0]
            seen = (observed or {}).get(agent)
            slots.append(
                AgentSlot(
                    agent=agent,
                    module=modules[agent],
                    codec=codec,
                    obs=slice(obs_at, obs_at + obs_dim),
                    actions=slice(action_at, action_at + codec.dim),
                    observed=seen,
                    mask=mask_columns(seen, agent) if codec.categorical else None,
                )
            )
            obs_at += obs_dim
            action_at += codec.dim
        self.slots = tuple(slots)
        self.agents = tuple(s.agent for s in slots)
        self.modules = tuple(dict.fromkeys(s.module for s in slots))
        self.obs_dim = obs_at
        self.action_dim = action_at
        self._slots_of = {m: tuple(s for s in slots if s.module == m) for m in self.modules}
        self._index = {agent: i for i, agent in enumerate(self.agents)}

    def __len__(self) -> int:
        return len(self.slots)

    def index(self, agent: str) -> int:
        """Position of an agent in the joint row, 0 ... N-1."""
        return self._index[agent]

    def __contains__(self, agent: str) -> bool:
        return agent in self._index

    def slots_of(self, module: str) -> tuple[AgentSlot, ...]:
        """The agents of a module, in order; they lie side by side in the joint row."""
        return self._slots_of[module]

    def obs_dim_of(self, module: str) -> int:
        """Width of the observation of each agent of a module."""
        slot = self.slots_of(module)[0]
        return slot.obs.stop - slot.obs.start

    def codec_of(self, module: str) -> ActionCodec:
        """The codec that the agents of a module share."""
        return self.slots_of(module)[0].codec

    @property
    def has_images(self) -> bool:
        """Whether some agent observes an image."""
        return any(slot.image for slot in self.slots)

    @property
    def observes_bytes(self) -> bool:
        """Whether all agents observe images of bytes, so that rows have a byte for each number that is observed."""
        return all(is_byte_image(slot.observed) for slot in self.slots)

    def action_groups(self) -> list[ActionGroup]:
        """All agents in order, neighbours with equal action spaces together."""
        groups = []
        for _, equals in groupby(self.slots, key=lambda slot: (slot.codec.space, getattr(slot.codec, "head", None))):
            slots = list(equals)
            columns = slice(slots[0].actions.start, slots[-1].actions.stop)
            groups.append(ActionGroup(tuple(s.agent for s in slots), slots[0].codec, columns))
        return groups

    def flatteners(self) -> dict[str, Flattener]:
        """Agent -> what makes vectors of its observations; empty if all observe vectors already."""
        spaces = {s.agent: s.observed for s in self.slots if s.observed is not None}
        return {} if all(map(is_flat_box, spaces.values())) else flatteners(spaces)

    def split(self, joint: np.ndarray, module: str, what: str, width: int = 1) -> np.ndarray:
        """A module's share of a joint column, as a view.

        Args:
            joint: `[B, obs_dim]`, `[B, action_dim]` or, for `what="agents"`, `[B, N * width]`.
            module: Module id.
            what: "obs", "actions" or "agents" (`width` numbers per agent, such as rewards).
            width: Numbers per agent.

        Returns:
            `[B, n, dim]` for n agents of the module, or `[B, n]` where there is one number per agent.
        """
        part, agents = joint[:, self.span((module,), what, width)], len(self.slots_of(module))
        return part if what == "agents" and width == 1 else part.reshape(len(joint), agents, -1)

    def span(self, modules: Sequence[str], what: str, width: int = 1) -> slice | None:
        """Where some modules in layout order lie in a joint column, as in `split`; None unless they lie side by side."""
        first, last = self.modules.index(modules[0]), self.modules.index(modules[-1])
        if last - first + 1 != len(modules):
            return None
        start, stop = self.slots_of(modules[0])[0], self.slots_of(modules[-1])[-1]
        if what == "agents":
            return slice(width * self.index(start.agent), width * (self.index(stop.agent) + 1))
        return slice(getattr(start, what).start, getattr(stop, what).stop)

    def stack(self, joint: Tensor, modules: Sequence[str], what: str, width: int = 1) -> Tensor:
        """The share of G modules of n agents each in a joint column, as in `split`: `[G, n, B, dim]` or `[G, n, B]`."""
        span = self.span(modules, what, width)
        if span is None:
            return torch.stack([self.split(joint, m, what, width).transpose(0, 1) for m in modules])
        # A view does it.
        numbers = () if what == "agents" and width == 1 else (-1,)
        return joint[:, span].unflatten(1, (len(modules), len(self.slots_of(modules[0])), *numbers)).movedim(0, 2)

    @property
    def of_one_game(self) -> JointLayout:
        """The layout itself; where there are several games (`SlotsLayout`), that of each."""
        return self

    def everywhere(self, module: str) -> tuple[str, ...]:
        """The module; where there are several games (`SlotsLayout`), that of each."""
        return (module,)

    def beside(self, modules: Sequence[str], other: str) -> tuple[str, ...]:
        """Another module for whatever belongs to some modules; where there are several games, for each that of its game."""
        return (other,)

    def join(self, codes: Mapping[str, Tensor]) -> Tensor:
        """Action codes `[n, B, code_dim]` of all modules -> the joint action, `[B, action_dim]`."""
        return torch.cat([codes[m].transpose(0, 1).flatten(1) for m in self.modules], -1)

    def by_game(self, values: Sequence[tuple[str, Tensor]]) -> Tensor:
        """Numbers of modules as one vector; where there are several games (`SlotsLayout`), one of each, `[S, ...]`."""
        return torch.stack([value for _, value in values])

    def description(self) -> dict:
        """Plain data that two equal layouts share: agents, modules, spaces. Kept in checkpoints."""
        return {
            "agents": [
                {
                    "agent": str(s.agent),
                    "module": str(s.module),
                    "obs_dim": s.obs.stop - s.obs.start,
                    "action_space": str(s.codec.space),
                    "head": getattr(s.codec, "head", "categorical"),
                    # None: a vector, of which the width says it all.
                    OBSERVES: None if s.observed is None or is_flat_box(s.observed) else str(s.observed),
                }
                for s in self.slots
            ]
        }

    def check_same(self, other: dict, what: str) -> None:
        """Refuses data of another layout.

        Args:
            other: `description()` of the other layout.
            what: What carries the other layout, for the message.

        Raises:
            ValueError: Naming the first agent that differs.
        """
        mine = {a["agent"]: a for a in self.description()["agents"]}
        theirs = {a["agent"]: a for a in other["agents"]}
        for slot in self.slots:
            name = str(slot.agent)
            if name not in theirs or OBSERVES in theirs[name]:
                continue
            # Of a version that did not write it down, and flattened with RLlib's connector.
            theirs[name] = {**theirs[name], OBSERVES: mine[name][OBSERVES]}
            if slot.observed is not None and differs_from_rllib(slot.observed):
                raise ValueError(
                    f"{what} was made by a version that put the observations of agent {slot.agent!r}, {slot.observed}, into "
                    "other columns, so its networks and replay rows do not fit this one. Use that version, or train again."
                )
        for agent in sorted(mine.keys() | theirs.keys()):
            if mine.get(agent) != theirs.get(agent):
                raise ValueError(
                    f"{what} belongs to another environment or layout: agent {agent!r} is {theirs.get(agent)} there and "
                    f"{mine.get(agent)} here. Use the env, `env_config`, `policies` and `actor_head` it was made with."
                )


def check_shared_modules(
    module_of: Mapping[str, str], obs_spaces: Mapping[str, gym.Space], action_spaces: Mapping[str, gym.Space]
) -> None:
    """Agents of one module have one actor and so need equal spaces.

    Raises:
        ValueError: Naming module, agents and spaces.
    """
    first_of: dict[str, str] = {}
    for agent in sorted(module_of, key=str):
        first = first_of.setdefault(module_of[agent], agent)
        if obs_spaces[agent] != obs_spaces[first] or action_spaces[agent] != action_spaces[first]:
            raise ValueError(
                f"Module {module_of[agent]!r} serves agents {first!r} and {agent!r}, whose spaces differ: "
                f"{obs_spaces[first]} / {action_spaces[first]} and {obs_spaces[agent]} / {action_spaces[agent]}. Map them to "
                "different modules or pad the spaces with SuperSuit's `pad_observations_v0` and `pad_action_space_v0`."
            )
