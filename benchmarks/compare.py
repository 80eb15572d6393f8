"""How contenders are compared: measured in turn, medians, and claims about their ratios. No Ray here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: Short, as in the table.
        does: What it does, in one line.
        measure: Makes one measurement, in the unit of the table.
    """

    name: str
    does: str
    measure: Callable[[], float]


@dataclass(frozen=True)
class Claim:
    """A number that is held against a bar.

    Attributes:
        text: What the number is.
        value: The number, of medians.
        low: Its smallest value in a single round.
        high: Its largest value in a single round.
        relation: ">=", "<=" or "" where there is no bar.
        limit: The bar, or None.
    """

    text: str
    value: float
    low: float
    high: float
    relation: str = ""
    limit: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the value keeps to the bar; None without one."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.relation == ">=" else self.value <= self.limit

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


@dataclass
class Table:
    """One comparison; `to_dict` is what JSON holds and the printers take.

    Attributes:
        part: "sampling", "replay", "update", "gradients", "family", "critics", "ensembles", "draws", "train", "scale" or
            "shared".
        title: What is compared.
        setting: Scenario and sizes.
        unit: Of all values.
        contenders: In the order in which they were measured.
        values: Per contender's name every measurement, one a round.
        claims: Ratios and their bars.
        notes: What a reader should know.
    """

    part: str
    title: str
    setting: str
    unit: str
    contenders: Sequence[Contender]
    values: Mapping[str, Sequence[float]]
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("part", "title", "setting", "unit")},
            "rows": [{"name": c.name, "does": c.does, **summary(self.values[c.name])} for c in self.contenders],
            "claims": [claim.to_dict() for claim in self.claims],
            "notes": list(self.notes),
        }


def summary(repeats: Sequence[float]) -> dict[str, Any]:
    """All repeats with their median, smallest and largest."""
    return {"repeats": list(repeats), "median": median(repeats), "min": min(repeats), "max": max(repeats)}


def measure_in_turn(contenders: Sequence[Contender], repeats: int) -> dict[str, list[float]]:
    """Measures A B C A B C ..., so that a change of the machine's load meets all of them.

    Returns:
        Per contender's name one value a round. A first round is thrown away: it fills caches and allocates.
    """
    values: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for round_number in range(repeats + 1):
        for contender in contenders:
            value = contender.measure()
            if round_number > 0:
                values[contender.name].append(value)
    return values


def seconds_per_unit(call: Callable[[], float], seconds: float, wait: Callable[[], Any] = lambda: None) -> float:
    """Calls until `seconds` are over, at least once.

    Args:
        call: Does some work and returns how many units of it.
        seconds: Wall time of the measurement.
        wait: Waits for what a device still has to do, which counts, too.
    """
    wait()
    units, elapsed, start = 0.0, 0.0, time.perf_counter()
    while not units or elapsed < seconds:
        units += call()
        elapsed = time.perf_counter() - start
    wait()
    return (time.perf_counter() - start) / units


def ratio(
    values: Mapping[str, Sequence[float]],
    of: str,
    to: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Claim:
    """The ratio of two contenders' medians; its spread is that of the ratios within the rounds."""
    rounds = [a / b for a, b in zip(values[of], values[to], strict=True)]
    value = median(values[of]) / median(values[to])
    return Claim(f"{of} / {to}", value, min(rounds), max(rounds), *_bar(at_least, at_most))


def absolute(
    values: Mapping[str, Sequence[float]], of: str, *, at_least: float | None = None, at_most: float | None = None
) -> Claim:
    """One contender's median by itself."""
    return Claim(of, median(values[of]), min(values[of]), max(values[of]), *_bar(at_least, at_most))


def _bar(at_least: float | None, at_most: float | None) -> tuple[str, float | None]:
    if at_least is not None:
        return ">=", at_least
    return ("<=", at_most) if at_most is not None else ("", None)
