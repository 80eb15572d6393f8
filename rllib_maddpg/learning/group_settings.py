"""The settings of modules that are computed as one. No Ray here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class GroupSettings:
    """Settings that a module can have for itself, of G modules: `settings.gamma`, `settings.critic_loss`.

    Numbers are tensors `[G, 1, 1]`, to stand beside tensors `[G, n, B]`; so modules may differ in them and still be computed as
    one. All else is a setting that says what is computed: it is the same for all of them.
    """

    def __init__(self, numbers: Sequence[Mapping[str, float]], words: Mapping[str, Any], like: Tensor):
        """
        Args:
            numbers: Of each module its numbers by key.
            words: The other settings by key.
            like: Has the dtype and the device for the numbers.
        """
        self._words = dict(words)
        self._numbers = {
            key: torch.tensor([own[key] for own in numbers], dtype=like.dtype, device=like.device).view(-1, 1, 1)
            for key in numbers[0]
        }

    def write(self, key: str, values: Sequence[float]) -> None:
        """Gives a number other values, of each module, where it lies: a recorded update sees them, too."""
        numbers = self._numbers[key]
        numbers.copy_(torch.tensor(values, dtype=numbers.dtype).view(-1, 1, 1))

    @property
    def words(self) -> dict[str, Any]:
        """What is the same for all of them, by key."""
        return self._words

    def repeated(self, times: int) -> GroupSettings:
        """The settings of so many groups of such modules, one after the other."""
        new = object.__new__(GroupSettings)  # `copy` asks for attributes that are not there yet
        new._words = self._words
        new._numbers = {key: numbers.repeat(times, 1, 1) for key, numbers in self._numbers.items()}
        return new

    def move_to(self, other: GroupSettings, part: Callable[[Tensor], Tensor]) -> None:
        """Lets the numbers lie in those of others, to which their values are copied; `part` of them."""
        for key, numbers in self._numbers.items():
            self._numbers[key] = part(other._numbers[key]).copy_(numbers)

    def __getattr__(self, key: str) -> Any:
        for known in (vars(self).get("_numbers", {}), vars(self).get("_words", {})):
            if key in known:
                return known[key]
        raise AttributeError(
            f"{key!r} is no setting that a module can have for itself. There are: {sorted([*self._numbers, *self._words])}."
        )
