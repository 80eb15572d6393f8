"""Action masks on the env runners: what they allow, and that they leave agents that act something to choose."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Any

import numpy as np

from rllib_maddpg.envs.errors import EnvFailure
from rllib_maddpg.envs.step_checks import failure_of
from rllib_maddpg.rows.actions import MASKED
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.observations import Flattener, ObservationError


class JointMasks:
    """Which actions the masks in joint observations allow.

    A *part* is what one number of an action chooses among: a Discrete has one, a MultiDiscrete several. Where a mask allows no
    action of a part at all, as those of agents that are not in the game, all of the part are.
    """

    def __init__(self, layout: JointLayout):
        """
        Args:
            layout: Order of agents.
        """
        slots = [(i, slot) for i, slot in enumerate(layout.slots) if slot.mask is not None]
        self._parts = [(i, slot, number) for i, slot in slots for number in range(len(slot.codec.nvec))]
        self._sizes = [slot.codec.nvec[number] for _, slot, number in self._parts]
        # Of all masks, one after the other: where they are in the observation, and of which head output they are.
        self._seen = _joined(
            [np.arange(slot.obs.start + slot.mask.start, slot.obs.start + slot.mask.stop) for _, slot in slots]
        )
        self._outputs = _joined([np.arange(slot.actions.start, slot.actions.stop) for _, slot in slots])
        self._starts = np.cumsum([0, *self._sizes[:-1]]) if slots else np.zeros(0, int)
        self._agents = np.array([i for i, _, _ in self._parts], int)

    def __bool__(self) -> bool:
        """Whether there is a mask at all."""
        return bool(self._parts)

    def masked(self, obs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Head outputs `[E, action_dim]` with `MASKED` for what joint observations `[E, obs_dim]` do not allow."""
        allowed = obs[:, self._seen] > 0.5
        some = np.logical_or.reduceat(allowed, self._starts, axis=1)
        if not some.all():
            allowed |= ~some.repeat(self._sizes, axis=1)
        masked = outputs.copy()
        masked[:, self._outputs] = np.where(allowed, outputs[:, self._outputs], np.float32(MASKED))
        return masked

    def all_can_act(self, obs: np.ndarray) -> bool:
        """Whether all agents have something to choose in all of the joint observations `[E, obs_dim]`."""
        return bool(np.logical_or.reduceat(obs[:, self._seen] > 0.5, self._starts, axis=1).all())

    def check(self, obs: np.ndarray, acting: np.ndarray) -> None:
        """The agents that act next have something to choose.

        Args:
            obs: A joint observation, `[obs_dim]`.
            acting: Which agents act on it, `[N]` bool.

        Raises:
            EnvFailure: Naming the first that has not.
        """
        nothing = ~np.logical_or.reduceat(obs[self._seen] > 0.5, self._starts) & acting[self._agents]
        if nothing.any():
            _, slot, number = self._parts[np.flatnonzero(nothing)[0]]
            raise nothing_allowed(slot.agent, number, len(slot.codec.nvec))


class ObservedMasks:
    """The masks in observations as an env gives them."""

    def __init__(self, layout: JointLayout):
        """
        Args:
            layout: Of the agents.
        """
        self._of = {s.agent: (Flattener(s.observed, s.agent), s.codec) for s in layout.slots if s.mask is not None}

    def check(self, observations: Mapping[Hashable, Any], acting: Collection[Hashable]) -> None:
        """Looks at the masks of all agents that are observed, as `JointMasks.check` and the columnar loop do.

        Args:
            observations: By agent.
            acting: Those that act on them.

        Raises:
            EnvFailure: If a mask is none, or an agent that acts has nothing to choose.
        """
        for agent, (flattener, codec) in self._of.items():
            if agent not in observations:
                continue
            try:
                mask = flattener.read_mask(observations[agent])
            except ObservationError as error:
                raise failure_of(error) from None
            for part, (start, size) in enumerate(zip(codec.offsets, codec.nvec, strict=True)):
                if agent in acting and not mask[start : start + size].any():
                    raise nothing_allowed(agent, part, len(codec.nvec))


def nothing_allowed(agent: Any, part: int, parts: int) -> EnvFailure:
    """The failure of an env that has an agent act and leaves it nothing to choose.

    Args:
        agent: Its id.
        part: Number of the part of its action.
        parts: How many there are.
    """
    what = "" if parts == 1 else f" for number {part} of its action"
    return EnvFailure(
        f"The action mask of agent {agent!r} allows nothing{what}, though the agent is to act,",
        "Let the mask allow at least one action, such as one that does nothing, or end the agent's part in the episode.",
    )


def _joined(columns: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(columns) if columns else np.zeros(0, int)
