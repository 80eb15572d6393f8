"""The search space: what each swept key may be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune

from rllib_maddpg.config.yaml_file import YamlFile

SECTION = "search_space"
# kind -> (number of arguments, what they are); grid and choice take a list of values.
KINDS = {
    "grid": "a list of values, each of which is tried",
    "choice": "a list of values to draw from",
    "uniform": "[low, high]",
    "loguniform": "[low, high], both above 0",
    "quniform": "[low, high, step]",
    "qloguniform": "[low, high, step], all above 0",
    "randint": "[low, high), whole numbers",
    "lograndint": "[low, high), whole numbers above 0",
}
LISTS = ("grid", "choice")
LOGARITHMIC = ("loguniform", "qloguniform", "lograndint")
_WHOLE = ("randint", "lograndint")
_EXAMPLE = "Write for example `{grid: [0.001, 0.01]}` or `{loguniform: [1e-4, 1e-2]}`."


@dataclass(frozen=True)
class Axis:
    """One swept key.

    Attributes:
        key: As in the file, such as "tau" or "model_config.fcnet_hiddens".
        kind: One of `KINDS`.
        args: Values of a list, else bounds.
    """

    key: str
    kind: str
    args: tuple

    @property
    def is_grid(self) -> bool:
        """Whether every value is tried."""
        return self.kind == "grid"

    def domain(self) -> Any:
        """As Tune knows it."""
        if self.is_grid:
            return tune.grid_search(list(self.args))
        return getattr(tune, self.kind)(list(self.args)) if self.kind in LISTS else getattr(tune, self.kind)(*self.args)

    def mutation(self) -> Any:
        """As PBT takes it."""
        return list(self.args) if self.kind in LISTS else self.domain()

    def examples(self) -> list:
        """All values of a list, else the ends of the range: what can be checked before a trial starts."""
        if self.kind in LISTS:
            return list(self.args)
        low, high = self.args[:2]
        return [low, high - 1] if self.kind in _WHOLE else [low, high]

    def clamp(self, value: Any) -> Any:
        """`value` within the range; PBT multiplies beyond it."""
        if self.kind in LISTS:
            return value
        low, high = self.examples()
        return min(max(value, low), high)


def read_axes(file: YamlFile) -> list[Axis]:
    """The axes of the file's search space, in its order.

    Raises:
        ValueError: If it is empty, or if a key has no known kind or bounds that make no sense.
    """
    space = file.data.get(SECTION)
    if not space or not isinstance(space, dict):
        fix = f"{_EXAMPLE} To train one configuration again and again, give several `seeds`."
        raise file.error((SECTION,), f"the search space is empty: there is nothing to sweep over. {fix}")
    return [_read_axis(file, str(key), value) for key, value in space.items()]


def _read_axis(file: YamlFile, key: str, value: Any) -> Axis:
    path = (SECTION, key)
    if not isinstance(value, dict) or len(value) != 1:
        raise file.error(path, f"{value!r} must say how to choose values. {_EXAMPLE} Fixed values belong under `settings`.")
    file.check_keys(path, value, KINDS, "a search space")
    kind, args = next(iter(value.items()))
    path = (*path, kind)
    if not isinstance(args, list) or not args:
        raise file.error(path, f"{args!r} must be {KINDS[kind]}.")
    if kind in LISTS:
        for n, item in enumerate(args):
            if item in args[:n]:
                raise file.error(path, f"{item!r} stands there twice. Keep one, and use `seeds` to repeat a point.")
    else:
        _check_bounds(file, path, kind, args)
    return Axis(key, kind, tuple(args))


def _check_bounds(file: YamlFile, path: tuple[str, ...], kind: str, args: list) -> None:
    numbers = 3 if kind.startswith("q") else 2
    kinds = int if kind in _WHOLE else (int, float)
    plain = all(isinstance(x, kinds) and not isinstance(x, bool) and math.isfinite(x) for x in args)
    if not plain or len(args) != numbers:
        raise file.error(path, f"{args!r} must be {KINDS[kind]}.")
    if args[0] >= args[1]:
        raise file.error(path, f"{args!r}: low must be below high.")
    if kind in LOGARITHMIC and args[0] <= 0:
        raise file.error(path, f"{args!r}: a logarithmic range must begin above 0, such as at 1e-5.")
    if kind.startswith("q") and not 0 < args[2] <= args[1] - args[0]:
        raise file.error(path, f"{args!r}: the step must be above 0 and at most high - low.")
    if kind.startswith("q") and not all(math.isclose(bound / args[2], round(bound / args[2])) for bound in args[:2]):
        raise file.error(path, f"{args!r}: low and high must be whole multiples of the step, as Tune asks.")


def points(axes: Sequence[Axis]) -> itertools.product:
    """All combinations of the axes' examples, as tuples in the order of `axes`."""
    return itertools.product(*(axis.examples() for axis in axes))
