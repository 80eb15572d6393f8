"""`MADDPGReporter`: the live table of a Tune run in the terminal, a row for each trial."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

from ray.tune import CLIReporter
from ray.tune.experiment import Trial
from ray.tune.utils.log import Verbosity, has_verbosity, set_verbosity

from rllib_maddpg.config.text_settings import SHORT_NAMES
from rllib_maddpg.results.progress import AGENTS, ENV_STEPS, FILL, RATE, TEAM, UPDATES, lookup

# Tune's newer output engine takes no reporters (ray/tune/tune.py: "ignoring passed-in ProgressReporter"); this turns it off.
NEW_OUTPUT = "RAY_AIR_NEW_OUTPUT"
COLUMNS = {TEAM: "return", AGENTS: "", ENV_STEPS: "env steps", RATE: "steps/s", FILL: "fill", UPDATES: "updates"}
# Only where trials have one.
SLOT = "shared_learner/slot"
# More agents than this share two columns: the table must stay as narrow as a terminal.
MAX_AGENT_COLUMNS = 4
_LOWEST, _HIGHEST = f"{AGENTS}:lowest", f"{AGENTS}:highest"
_FORMATS = {TEAM: "{:,.2f}", _LOWEST: "{:,.2f}", _HIGHEST: "{:,.2f}", FILL: "{:.0%}"}
_FORMATS.update(dict.fromkeys((ENV_STEPS, RATE, UPDATES), "{:,.0f}"))
_ORDER = (Trial.RUNNING, Trial.PAUSED, Trial.ERROR, Trial.TERMINATED, Trial.PENDING)


class MADDPGReporter(CLIReporter):
    """Prints a table of all trials: return of the team and of each agent, env steps, steps/s, replay fill, updates.

    Trials in a shared Learner have a column more: their slot.

    ```python
    tune.run("MADDPG", ..., progress_reporter=MADDPGReporter())
    tune.Tuner("MADDPG", ..., run_config=tune.RunConfig(progress_reporter=MADDPGReporter()))
    ```

    Agents are named as the results name them; from five agents on, the lowest and the highest return stand for all.
    To make Tune listen to it, a reporter sets `RAY_AIR_NEW_OUTPUT=0` for this process, unless the variable is set already.
    It also keeps back the whole results that Tune prints by default; with `verbose=2` Tune adds a line for each result.

    Args:
        metric_columns: Other columns instead, as `CLIReporter` takes them.
        print_intermediate_tables: False: no table before the end.
        **kwargs: As for `CLIReporter`: `parameter_columns`, `metric`, `mode`, `sort_by_metric`, `max_progress_rows`,
            `max_report_frequency` (seconds between tables, 5), ...
    """

    def __init__(
        self,
        *,
        metric_columns: Sequence[str] | Mapping[str, str] | None = None,
        print_intermediate_tables: bool | None = True,
        **kwargs: Any,
    ):
        columns = dict(COLUMNS) if metric_columns is None else metric_columns
        super().__init__(metric_columns=columns, print_intermediate_tables=print_intermediate_tables, **kwargs)
        self._last_body = ""
        os.environ.setdefault(NEW_OUTPUT, "0")

    def __setstate__(self, state: dict[str, Any]) -> None:
        # `Tuner.restore` unpickles the reporter in another process.
        self.__dict__.update(state)
        os.environ.setdefault(NEW_OUTPUT, "0")

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Called by Tune when a run begins."""
        super().setup(*args, **kwargs)
        if has_verbosity(Verbosity.V3_TRIAL_DETAILS):  # Tune's default: hundreds of lines for each result
            set_verbosity(Verbosity.V1_EXPERIMENT)
        self._start_time = time.time()
        self._last_body = ""

    def set_search_properties(self, metric: str | None, mode: str | None) -> bool:
        """Takes Tune's metric and mode, also where they are the reporter's own already."""
        same = (metric, mode) == (self._metric, self._mode)
        return super().set_search_properties(*((None, None) if same else (metric, mode)))

    def report(self, trials: list[Trial], done: bool, *sys_info: str) -> None:
        """Prints the table if something in it has changed."""
        body = self._body(trials, done)
        if body == self._last_body and not done:
            return
        self._last_body = body
        news = [text for text in sys_info if text and "FIFO" not in text]  # no scheduler at all
        self._print("\n".join([self._headline(trials), *news, body, ""]))

    # ------------------------------------------------------------------------------------------ lines

    def _headline(self, trials: Sequence[Trial]) -> str:
        states = Counter(trial.status for trial in trials)
        total = f" of {self._total_samples:,}" if (self._total_samples or 0) > len(trials) and self._total_samples < 1e9 else ""
        minutes, seconds = divmod(round(time.time() - self._start_time), 60)
        counts = ", ".join(f"{states[state]} {state}" for state in _ORDER if states[state])
        return f"== {len(trials)}{total} trials after {minutes}:{seconds:02d} min: {counts} =="

    def _body(self, trials: list[Trial], done: bool) -> str:
        lines = []
        best, metric = self._current_best_trial(trials)
        if best is not None:
            value = _text(metric, lookup(best.last_result, metric))
            settings = ", ".join(f"{name}={_parameter(best, key)}" for key, name in self._parameters(trials).items())
            lines.append(f"Best {self._heading(metric)}: {value}, trial {_name(best)}" + (f" ({settings})" if settings else ""))
        if trials and (done or self._print_intermediate_tables):
            lines += self._table(trials, None if done else self._max_progress_rows)
        failed = [trial for trial in trials if trial.error_file]
        for trial in failed if done else failed[: self._max_error_rows]:
            again = "" if trial.status == Trial.ERROR else ", started again"
            failures = trial.run_metadata.num_failures
            lines.append(f"Trial {_name(trial)} failed ({failures} failure(s){again}): {trial.error_file}")
        return "\n".join(lines)

    def _table(self, trials: Sequence[Trial], max_rows: int | None) -> list[str]:
        ordered = self._ordered(trials)
        shown, hidden = ordered[:max_rows], ordered[max_rows:] if max_rows else []
        metrics, parameters = self._metrics(trials), self._parameters(trials)
        head = ["trial", "status", *parameters.values(), *metrics.values()]
        rows = [
            [_name(t), t.status, *(self._cut(_parameter(t, key)) for key in parameters), *(_metric(t, key) for key in metrics)]
            for t in shown
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = []
        for row in [head, ["-" * width for width in widths], *rows]:
            # Names to the left, numbers to the right.
            pairs = list(zip(row, widths, strict=True))
            cells = [text.ljust(width) for text, width in pairs[:2]] + [text.rjust(width) for text, width in pairs[2:]]
            lines.append("  ".join(cells).rstrip())
        if hidden:
            counts = Counter(trial.status for trial in hidden)
            lines.append(f"... and {len(hidden)} more: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
        return lines

    def _ordered(self, trials: Sequence[Trial]) -> list[Trial]:
        """By state; of the finished ones the best first, if they are to be sorted."""

        def rank(trial: Trial) -> float:
            value = lookup(trial.last_result, self._metric) if self._sort_by_metric and self._metric and self._mode else 0.0
            if trial.status != Trial.TERMINATED:
                return 0.0
            return math.inf if math.isnan(value) else -value if self._mode == "max" else value

        return sorted(trials, key=lambda trial: (_ORDER.index(trial.status) if trial.status in _ORDER else -1, rank(trial)))

    # ------------------------------------------------------------------------------------------ columns

    def _metrics(self, trials: Sequence[Trial]) -> dict[str, str]:
        """Result key -> heading; the agents as the results name them."""
        columns = self._metric_columns
        columns = dict(columns) if isinstance(columns, Mapping) else {key: key for key in columns}
        found = {}
        for key, heading in columns.items():
            found.update(self._agents(trials) if key == AGENTS else {key: self._cut(heading)})
        if columns == COLUMNS and any(not math.isnan(lookup(trial.last_result or {}, SLOT)) for trial in trials):
            found[SLOT] = "slot"
        return found

    def _agents(self, trials: Sequence[Trial]) -> dict[str, str]:
        agents = sorted({agent for trial in trials for agent in lookup(trial.last_result or {}, AGENTS, {})})
        if len(agents) == 1:  # the team's return says it
            return {}
        if len(agents) > MAX_AGENT_COLUMNS:
            return {_LOWEST: "lowest agent", _HIGHEST: "highest agent"}
        return {f"{AGENTS}/{agent}": self._cut(str(agent)) for agent in agents}

    def _parameters(self, trials: Sequence[Trial]) -> dict[str, str]:
        """Config key -> heading; without `parameter_columns`, what the search varies."""
        if isinstance(self._parameter_columns, Mapping):
            return dict(self._parameter_columns)
        keys = self._parameter_columns or sorted(set().union(*(trial.evaluated_params for trial in trials)))
        names = [key.rsplit("/", 1)[-1] for key in keys]
        # Two settings may end alike, such as those of a dict.
        return {k: SHORT_NAMES.get(k, n if names.count(n) == 1 else k) for k, n in zip(keys, names, strict=True)}

    def _heading(self, metric: str) -> str:
        known = {**COLUMNS, **(self._metric_columns if isinstance(self._metric_columns, Mapping) else {})}
        return known.get(metric) or metric

    def _cut(self, text: str) -> str:
        return text if len(text) <= self._max_column_length else f"{text[: self._max_column_length - 1]}…"


def _name(trial: Trial) -> str:
    # Tune's own name repeats the algorithm and the env in each row.
    return trial.custom_trial_name or trial.trial_id


def _metric(trial: Trial, key: str) -> str:
    result = trial.last_result or {}
    if key in (_LOWEST, _HIGHEST):
        values = lookup(result, AGENTS, {}).values()
        return _text(key, (min if key == _LOWEST else max)(values, default=math.nan))
    return _text(key, lookup(result, key))


def _parameter(trial: Trial, key: str) -> str:
    value = lookup(trial.config, key, None)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, Number):
        return str(value)
    if math.isnan(value):
        return "-"
    if key.startswith(f"{AGENTS}/"):
        return _FORMATS[TEAM].format(value)
    return _FORMATS.get(key, "{:,}" if isinstance(value, int) else "{:.4g}").format(value)
