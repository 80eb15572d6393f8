"""The random numbers of one update. No Ray here.

Shapes: B rows; A the width of all agents' action codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from rllib_maddpg.rows import counter_random
from rllib_maddpg.rows.joint_batch import JointBatch

KINDS: dict[str, Callable[[Tensor, torch.dtype], Tensor]] = {
    "gumbel": counter_random.gumbel,
    "normal": counter_random.normal,
}


class NoiseSource(Protocol):
    """Where an update has its noise from."""

    def draw(self, kind: str, joints: list[JointBatch], extra: int = 0) -> list[Tensor]:
        """Noise for the action codes of all agents, `[B, A]` for each of several joint rows.

        Args:
            kind: "gumbel" or "normal", both standard.
            joints: All rows of this Learner's part of the update, interleaved: row r of the d-th of M is row `r * M + d`.
            extra: 0, or the number K of other draws beside that one: then `[K * B, A]`, one draw after the other.
        """


class CounterNoise:
    """Noise that is a pure function of (seed, number of the update, row, column).

    It is the same on every device, and for any number of Learners. The elements of the rows of all Learners come first, then
    those of a second draw for the same rows, and so on.

    Keys and number are on the device, so that a recorded update sees other ones later.

    Attributes:
        number: That of the update, int64 `[1]`.
    """

    def __init__(self, keys: dict[str, int], rank: int, device: torch.device, world: int = 1):
        """
        Args:
            keys: By kind, as `keys_of` makes them.
            rank: Number of this Learner.
            device: That of the rows.
            world: Number of Learners.
        """
        self._rank, self._world = rank, world
        self.number = torch.zeros(1, dtype=torch.int64, device=device)
        self._keys = {kind: torch.zeros_like(self.number) for kind in KINDS}
        self.set_keys(keys)

    @staticmethod
    def keys_of(seed: Any) -> dict[str, int]:
        """The keys of a seed, which is as `numpy.random.default_rng` takes it."""
        return {kind: counter_random.key_of(seed, kind) for kind in KINDS}

    def move_to(self, number: Tensor, keys: Mapping[str, Tensor]) -> None:
        """Lets number and keys lie in other tensors, int64 `[1]`, to which their values are copied."""
        self.number = number.copy_(self.number)
        self._keys = {kind: keys[kind].copy_(key) for kind, key in self._keys.items()}

    def stand_alone(self) -> None:
        """As `move_to`, to new ones."""
        self.move_to(torch.empty_like(self.number), {kind: torch.empty_like(key) for kind, key in self._keys.items()})

    def keys(self) -> dict[str, int]:
        """The keys, by kind."""
        return {kind: int(key) for kind, key in self._keys.items()}

    def set_keys(self, keys: dict[str, int]) -> None:
        """Goes on with other keys."""
        for kind, key in self._keys.items():
            key.fill_(keys[kind])

    def draw(self, kind: str, joints: list[JointBatch], extra: int = 0) -> list[Tensor]:
        """As in `NoiseSource`."""
        like, width = joints[0].joint_rows, joints[0].layout.action_dim
        rows = sum(map(len, joints))
        first = self._rank * rows * width
        elements = torch.arange(first, first + rows * width, device=like.device)
        if extra:
            elements = _further(elements, extra, self._world * rows * width)
        noise = KINDS[kind](counter_random.random_bits(self._keys[kind], self.number, elements), like.dtype)
        noise = noise.view(-1, rows, width)
        return [noise[:, d :: len(joints)].reshape(-1, width) for d in range(len(joints))]


def _further(elements: Tensor, draws: int, each: int) -> Tensor:
    """Elements of the draws after the first one, side by side: `[draws * elements]`.

    Args:
        elements: Of the first draw.
        draws: How many more.
        each: Elements of a draw, of all Learners together.
    """
    starts = each * torch.arange(1, draws + 1, device=elements.device)
    return (starts.unsqueeze(1) + elements).flatten()


class SlotsNoise:
    """The noise of several Learners: for each slot that of its own `CounterNoise`, whose tensors lie here.

    Attributes:
        number: That of the update of each slot, int64 `[S]`.
    """

    def __init__(self, slots: int, device: torch.device):
        self.number = torch.zeros(slots, dtype=torch.int64, device=device)
        self._keys = {kind: torch.zeros_like(self.number) for kind in KINDS}

    def take(self, own: CounterNoise, slot: int) -> None:
        """Lets the tensors of a slot's noise lie here."""
        place = slice(slot, slot + 1)
        own.move_to(self.number[place], {kind: key[place] for kind, key in self._keys.items()})

    def draw(self, kind: str, joints: list[JointBatch], extra: int = 0) -> list[Tensor]:
        """As in `NoiseSource`, for the rows `[S, B, A]` of all slots; all modules have the same rows."""
        (joint,) = joints
        like, width = joint.joint_rows, joint.layout.action_dim
        elements = torch.arange(len(joint) * width, device=like.device)
        if extra:
            elements = _further(elements, extra, len(joint) * width)
        bits = counter_random.random_bits(self._keys[kind].unsqueeze(1), self.number.unsqueeze(1), elements)
        return [KINDS[kind](bits, like.dtype).view(len(self.number), -1, width)]


class GeneratorNoise:
    """Noise from torch's generator, drawn module by module on the CPU: that of older checkpoints, which go on so.

    Attributes:
        generator: In the same state on all Learners.
    """

    def __init__(self, state: Tensor, rank: int, world: int):
        """
        Args:
            state: Of the generator.
            rank: Number of this Learner.
            world: Number of Learners. Each draws for the rows of all and takes its own.
        """
        self.generator = torch.Generator().set_state(state)
        self._rank, self._world = rank, world

    def draw(self, kind: str, joints: list[JointBatch], extra: int = 0) -> list[Tensor]:
        """As in `NoiseSource`."""
        return [torch.cat([self._draw(kind, joint) for _ in range(extra or 1)]) for joint in joints]

    def _draw(self, kind: str, joint: JointBatch) -> Tensor:
        layout, rows = joint.layout, len(joint)
        noise = joint.joint_rows.new_zeros(rows, layout.action_dim)
        for module_id in layout.modules:
            codec, agents = layout.codec_of(module_id), len(layout.slots_of(module_id))
            if kind == "normal" or codec.categorical:
                drawn = self._numbers(kind, (self._world * rows, agents * codec.dim))
                noise[:, layout.span((module_id,), "actions")] = drawn[self._rank * rows : (self._rank + 1) * rows]
        return noise

    def _numbers(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        if kind == "normal":
            return torch.randn(shape, generator=self.generator)
        tiny = torch.finfo(torch.float32).tiny
        u = torch.rand(shape, generator=self.generator).clamp_(min=tiny, max=1.0 - 2**-24)
        return -torch.log(-torch.log(u))


class UpdateNoise:
    """Noise for the rows of an update. A kind is drawn when somebody first asks for it, for all rows at once, so that the
    numbers do not depend on who asks first.
    """

    def __init__(self, source: NoiseSource, joints: Iterable[JointBatch]):
        """
        Args:
            source: Where it comes from.
            joints: All rows that modules learn from, interleaved.
        """
        self._source, self._joints = source, list(dict.fromkeys(joints))
        self._drawn: dict[tuple[str, int], list[Tensor]] = {}

    def of(self, kind: str, joint: JointBatch, modules: tuple[str, ...]) -> Tensor:
        """Noise for the action codes of G modules of n agents each, `[G, n, B, dim]`.

        Args:
            kind: "gumbel" or "normal", both standard.
            joint: The rows.
            modules: Ids of the modules.
        """
        return self._of(kind, joint, modules, 0)

    def more_of(self, kind: str, joint: JointBatch, modules: tuple[str, ...], draws: int) -> Tensor:
        """Further draws beside that of `of`, `[K, G, n, B, dim]`."""
        drawn = self._of(kind, joint, modules, draws)
        return drawn.unflatten(2, (draws, -1)).movedim(2, 0)

    def _of(self, kind: str, joint: JointBatch, modules: tuple[str, ...], extra: int) -> Tensor:
        if (kind, extra) not in self._drawn:
            self._drawn[kind, extra] = self._source.draw(kind, self._joints, extra)
        return joint.layout.stack(self._drawn[kind, extra][self._joints.index(joint)], modules, "actions")
