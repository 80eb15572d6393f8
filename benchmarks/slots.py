"""The core of a shared Learner: updates of many Learners in one pass, against one Learner, and against one after the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from benchmarks.bare_update import NETWORKS, tensors_of
from benchmarks.compare import Contender, Table, measure_in_turn, ratio, summary
from benchmarks.devices import config_on_device, waiter
from benchmarks.drawn_update import check_gaps
from benchmarks.games import built, fill
from benchmarks.growth import exponent
from benchmarks.options import Options
from rllib_maddpg.algorithm.maddpg import MADDPG
from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates

TITLE = "Update of many slots"
PASS, WHOLE, SINGLE = "one pass", "one pass, all that belongs to it", "one after the other"
# Updates of a call, as with an update each 10 env steps.
IN_A_CALL = 10
DOES = {
    PASS: "SlotUpdates.make: the next update of each slot, rows drawn before",
    WHOLE: f"a draw and a call of {IN_A_CALL} updates for each slot: begun, {IN_A_CALL} passes, ended; by pass",
    SINGLE: f"learner.update of as many single Learners: a draw and a call of {IN_A_CALL} updates for each; by update of all",
}
# Time of a pass of `MOST` slots, as a ratio to that of one, on a GPU.
MOST, MOST_RATIO = 64, 8.0
# Calls until kinds of updates are recorded.
_BEFORE = 2


@dataclass(frozen=True)
class Sizes:
    """The points that are measured.

    Attributes:
        slots: Numbers of slots, rising.
        seconds: The curve ends before a pass that would take longer, by what the one before it took.
    """

    slots: Sequence[int] = (1, 2, 4, 8, 16, 32, MOST)
    seconds: float = 0.25


class Slots:
    """Learners beside one ring, from which all draw: in one pass (`calls`), or each by itself.

    Args:
        algo: With rows in its buffer; its own Learner is not used.
    """

    def __init__(self, algo: MADDPG):
        self._algo, self._rows = algo, algo.config.train_batch_size_per_learner
        self._wait = waiter("cuda" if algo.config.num_gpus_per_learner else "cpu")
        self.updates = SlotUpdates()
        self.learners: list[Any] = []
        self.singles: list[Any] = []

    def grow(self, slots: int) -> None:
        """Makes Learners until there are so many slots, and as many single ones."""
        for _ in range(slots - len(self.learners)):
            self.learners.append(self._learner())
            self.updates.add(self.learners[-1])
            self.singles.append(self._learner())

    def _learner(self) -> Any:
        return self._algo.config.build_learner(spaces=self._algo.env_runner_group.get_spaces())

    def draw(self) -> Any:
        """Rows of one call."""
        return self._algo.replay_buffer.draw(1, IN_A_CALL, self._rows)[0]

    def one_pass(self, batches: Sequence[Any], seconds: float) -> tuple[float, float]:
        """Milliseconds of a pass of the slots: by itself, and with all that belongs to it, mean over so many seconds.

        Args:
            batches: Of a first call, one for each slot; those of the others are drawn.
            seconds: At least one call of each slot is made.
        """
        inner = outer = 0.0
        passes = 0
        while not passes or outer < seconds:
            self._wait()
            start = time.perf_counter()
            drawn = batches if not passes and batches else [self.draw() for _ in self.learners]
            calls = [SlotCall(one, self._begin(one, batch)) for one, batch in zip(self.learners, drawn, strict=True)]
            self._wait()
            began = time.perf_counter()
            for _ in range(IN_A_CALL):
                self.updates.make(calls)
            self._wait()
            ended = time.perf_counter()
            for call in calls:
                if call.error is not None:
                    raise call.error
                call.learner.end_call(call.call)
            self._wait()
            inner, outer, passes = inner + ended - began, outer + time.perf_counter() - start, passes + IN_A_CALL
        return 1e3 * inner / passes, 1e3 * outer / passes

    def one_by_one(self, batches: Sequence[Any], seconds: float) -> float:
        """Milliseconds of an update of each single Learner, one after the other; arguments as of `one_pass`."""
        updates, elapsed = 0, 0.0
        self._wait()
        start = time.perf_counter()
        while not updates or elapsed < seconds:
            for n, learner in enumerate(self.singles):
                batch = batches[n] if not updates and batches else self.draw()
                learner.update(batch, **self._told())
            self._wait()
            updates, elapsed = updates + IN_A_CALL, time.perf_counter() - start
        return 1e3 * elapsed / updates

    def _begin(self, learner: Any, batch: Any) -> Any:
        told = self._told()
        return learner.begin_call(batch, told["timesteps"], told["minibatch_size"], told["_no_metrics_reduce"])

    def _told(self) -> dict[str, Any]:
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self._algo.replay_buffer.num_rows_added}
        return {"timesteps": timesteps, "minibatch_size": self._rows, "_no_metrics_reduce": True}

    def check(self) -> str:
        """Makes a call with slots and single Learners from the same weights and rows; returns what was found, in a sentence.

        Raises:
            DifferentArithmetic: Naming the network with the largest gap.
        """
        for single, learner in zip(self.singles, self.learners, strict=True):
            single.set_state(learner.get_state())
        batches = [self.draw() for _ in self.learners]
        self.one_pass(batches, 0.0)
        self.one_by_one(batches, 0.0)
        agents = self._algo.layout.agents
        pairs = zip(self.learners, self.singles, strict=True)
        gap = max(check_gaps(_weights(slot, agents), _weights(single, agents), "a slot") for slot, single in pairs)
        return (
            f"Checked before the measurement: {IN_A_CALL} updates of {len(self.learners)} slots and of single Learners lead "
            f"from the same weights and rows to the same weights (largest gap: {gap:.1g} of a network's norm)."
        )


def _weights(learner: Any, agents: Sequence[str]) -> dict[str, dict[str, list[np.ndarray]]]:
    state = learner.module.get_state()
    return {a: {name: tensors_of(state[a], name) for name in NETWORKS} for a in agents}


def measure_slots(
    scenario: str, options: Options, sizes: Sizes | None = None, tell: Callable[[str], None] = lambda text: None
) -> Iterator[dict[str, Any]]:
    """A curve over the number of slots, in ms; then a table of its end, with the bar.

    Args:
        sizes: The points; None: the default ones.
        tell: Is told of each point before it is measured.
    """
    sizes = sizes or Sizes()
    found: dict[str, list[list[float]]] = {name: [] for name in DOES}
    with contextlib.ExitStack() as stack:
        given = {"num_envs": options.num_envs, "batch": options.batch, "rows": options.rows}
        algo = stack.enter_context(built(config_on_device(scenario, options.device, **given)))
        fill(algo, options.rows)
        slots = Slots(algo)
        note, measured = "", []
        for number in sizes.slots:
            if measured and 1e-3 * median(found[WHOLE][-1]) * number / measured[-1] > sizes.seconds:
                break
            measured.append(number)
            tell(f"an update of {number} slots")
            slots.grow(number)
            for _ in range(_BEFORE):
                slots.one_pass([], 0.0)
                slots.one_by_one([], 0.0)
            note = slots.check() if number > 1 and not note else note
            for name, values in _measured(slots, options).items():
                found[name].append(values)
    setting = f"{scenario}, {len(algo.layout)} agents, {options.batch:,} rows an update, networks of 2 x 64, {options.device}"
    lines = []
    for name, points in found.items():
        summaries = [summary(values) for values in points]
        grows = exponent(measured, [p["median"] for p in summaries])
        lines.append({"name": name, "does": DOES[name], "exponent": grows, "points": summaries})
    yield {"title": TITLE, "x_name": "slots", "unit": "ms", "setting": setting, "x": measured, "lines": lines}
    yield _ends(setting, options, measured, found, [note] if note else [])


def _measured(slots: Slots, options: Options) -> dict[str, list[float]]:
    whole: list[float] = []

    def one_pass() -> float:
        inner, outer = slots.one_pass([], options.seconds)
        whole.append(outer)
        return inner

    contenders = [
        Contender(PASS, DOES[PASS], one_pass),
        Contender(SINGLE, DOES[SINGLE], lambda: slots.one_by_one([], options.seconds)),
    ]
    values = measure_in_turn(contenders, options.repeats)
    return {PASS: values[PASS], WHOLE: whole[1:], SINGLE: values[SINGLE]}  # without the first round


def _ends(
    setting: str, options: Options, slots: Sequence[int], found: dict[str, list[list[float]]], notes: list[str]
) -> dict[str, Any]:
    """What one slot costs, and what the most do."""
    most = slots[-1]
    values = {f"{name}: {slots[at]}": found[name][at] for name in DOES for at in dict.fromkeys((0, len(slots) - 1))}
    contenders = [Contender(name, DOES[name.rpartition(":")[0]], lambda: 0.0) for name in values]
    bar = MOST_RATIO if options.device == "cuda" and most == MOST else None
    claims = [
        ratio(values, f"{PASS}: {most}", f"{PASS}: {slots[0]}", at_most=bar),
        ratio(values, f"{WHOLE}: {most}", f"{WHOLE}: {slots[0]}"),
        ratio(values, f"{SINGLE}: {most}", f"{WHOLE}: {most}"),
    ]
    title = "Many slots in one pass"
    return Table("shared", title, setting, "ms", contenders, values, claims, notes).to_dict()
