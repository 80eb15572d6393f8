"""Part `scale`: what a row, a fragment and an update cost in each place, and with how many runners each place is busy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.compare import Contender, Table, absolute, measure_in_turn, ratio, seconds_per_unit
from benchmarks.games import built, make_config
from benchmarks.options import FRAGMENT, Options
from benchmarks.sampling import env_steps_per_second, our_runner
from rllib_maddpg.algorithm.maddpg import MADDPG, MAX_UPDATES_PER_CALL
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.sampling.env_runner import MADDPGEnvRunner

RUNNERS, PROCESSES, SHARDS = 64, 2, 2
ACTORS = SHARDS  # that need a core for themselves; the others are idle when it matters
# Two sizes of fragments tell what a fragment costs and what a row does.
SHORT, LONG = 2 * FRAGMENT, 32 * FRAGMENT
NETWORK = 1.25e9  # bytes/s of a port of 10 Gbit/s
_ONE_ITERATION = 10**12  # env steps: no metrics in between
HERE, SHARDED = "rows in the driver", f"rows in {SHARDS} shards"

RUNNER, BYTES = "a runner: a row", "a row, bytes"
LEARNER, STORE, DRAW = "a Learner: an update", "a replay ring: a row stored", "a replay ring: an update's rows drawn"


class CannedRunner(MADDPGEnvRunner):
    """Answers at once with a fragment that it has sampled before: nobody waits for environments."""

    _canned: list | None = None

    def prepare(self, rows: int) -> None:
        """Samples what it will answer with."""
        self._canned = None
        self._canned = super().sample(num_timesteps=rows)

    def sample(self, **kwargs: Any) -> list:
        """The same fragment again."""
        return super().sample(**kwargs) if self._canned is None else self._canned


class Driver:
    """An algorithm of `RUNNERS` runners, which are played by a few processes, with its Learner in another process.

    All costs are seconds of CPU time of the driver's main thread: what it cannot do twice at the same time.
    """

    def __init__(self, stack: contextlib.ExitStack, config: MADDPGConfig):
        self.algo: MADDPG = stack.enter_context(built(config))
        manager = self.algo.env_runner_group._worker_manager
        manager.add_actors(list(manager.actors().values()) * (RUNNERS // PROCESSES - 1))
        self.rows = 0
        self.fragments_of(LONG)
        self.algo.training_step()

    def fragments_of(self, rows: int) -> None:
        """Makes the runners answer with fragments of so many rows."""
        if rows == self.rows:
            return
        self.rows, group = rows, self.algo.env_runner_group
        group.foreach_env_runner(
            "prepare", kwargs={"rows": rows}, local_env_runner=False, remote_worker_ids=list(range(1, PROCESSES + 1))
        )
        for _ in range(3):  # what was asked for before
            self.algo.collector.collect(want_metrics=False)

    def fragment(self, rows: int, seconds: float) -> float:
        """To ask for a fragment, receive it and store its rows."""
        self.fragments_of(rows)

        def call() -> int:
            collected = self.algo.collector.collect(want_metrics=False)
            self.algo._store(collected)
            return len(collected.rollouts)

        return busy_per_unit(call, seconds)

    def update(self, seconds: float) -> float:
        """To draw the rows of an update and hand them to the Learner, with as many updates in a call as there may be."""

        def call() -> int:
            self.algo._update(MAX_UPDATES_PER_CALL)
            return MAX_UPDATES_PER_CALL

        return busy_per_unit(call, seconds)

    def broadcast(self, seconds: float) -> float:
        """To get new weights from the Learner and lay them out for all runners, once in a round."""

        def call() -> int:
            self.algo._sync_weights()
            self.algo.collector._packed(self.algo._new_weights)
            return 1

        return busy_per_unit(call, seconds)


def busy_per_unit(call: Callable[[], int], seconds: float) -> float:
    """CPU seconds of this thread for a unit; calls until `seconds` of wall time are over."""
    busy, units = time.thread_time(), 0.0

    def counted() -> int:
        nonlocal units
        done = call()
        units += done
        return done

    seconds_per_unit(counted, seconds)
    return (time.thread_time() - busy) / units


def measure_scale(scenario: str, options: Options) -> list[dict[str, Any]]:
    """Four tables: what things cost; with how many runners each place has no time left; its load with 64 and with 1,024."""
    with contextlib.ExitStack() as stack:
        runner = our_runner(stack, scenario, options.num_envs)
        here, sharded = (Driver(stack, _config(scenario, options, shards)) for shards in (0, SHARDS))
        local = stack.enter_context(built(_learner_config(scenario, options)))
        _fill(local, runner)
        contenders = _contenders(runner, here, sharded, local, options)
        values = measure_in_turn(contenders, options.repeats)
        row_bytes = local.replay_buffer.bytes_per_row
        weights = 4 * sum(t.numel() for t in local.learner_group._learner.actor_state())
    setting = f"{scenario}, {options.num_envs} envs a runner, fragments of {FRAGMENT * options.num_envs} rows, {options.device}"
    notes = [
        f"A joint row has {row_bytes} bytes, the actors' weights {weights:,}.",
        f"{RUNNERS} runners are played by {PROCESSES} processes that answer at once. Times of the driver are CPU times of its "
        "main thread.",
    ]
    costs = Table("scale", "What things cost", setting, "us", contenders, values, [], notes)
    rounds = [{name: v[i] * 1e-6 for name, v in values.items()} for i in range(options.repeats)]
    model = [Model(costs, options, row_bytes) for costs in rounds]
    return [costs.to_dict(), _limits_table(setting, model, options).to_dict(), *_load_tables(setting, model)]


class Model:
    """Arithmetic on the measured costs: seconds that a place is busy for each env step of the whole.

    Args:
        costs: Seconds by contender's name.
        options: Batch and envs.
        row_bytes: Of a joint row.
        env_steps_per_update: The default's.
    """

    def __init__(self, costs: Mapping[str, float], options: Options, row_bytes: int, env_steps_per_update: float = 100.0):
        fragment, per_update = FRAGMENT * options.num_envs, env_steps_per_update
        self.runner = costs[RUNNER]
        self.busy: dict[str, float] = {}
        for name in (HERE, SHARDED):
            row = max(0.0, costs[_cost(name, LONG)] - costs[_cost(name, SHORT)]) / (LONG - SHORT)
            single = max(0.0, costs[_cost(name, SHORT)] - SHORT * row)
            collect = single / fragment + row + costs[_cost(name, "broadcast")] / (RUNNERS * fragment)
            self.busy[f"driver, collecting only, {name}"] = collect
            self.busy[f"driver, {name}"] = collect + costs[_cost(name, "update")] / per_update
            long = costs[_cost(name, LONG)] / LONG + costs[_cost(name, "broadcast")] / (RUNNERS * LONG)
            self.busy[f"driver, long fragments, {name}"] = long + costs[_cost(name, "update")] / per_update
        self.busy["a replay shard, if it were the only one"] = costs[STORE] + costs[DRAW] / per_update
        self.busy["the Learner"] = costs[LEARNER] / per_update
        self.busy["driver's port of 10 Gbit/s, rows in the driver"] = row_bytes * options.batch / per_update / NETWORK
        self.busy["the Learner's port of 10 Gbit/s"] = row_bytes * options.batch / per_update / NETWORK

    def runners(self, place: str) -> float:
        """Runners with which the place is busy all the time."""
        return self.runner / self.busy[place]

    def load(self, place: str, runners: int) -> float:
        """Share of its time that the place would be busy with so many runners; above 1 it cannot keep up."""
        return runners * self.busy[place] / self.runner


DOES = {
    f"driver, {HERE}": "asks for fragments, stores their rows, draws batches and sends them to a Learner",
    f"driver, {SHARDED}": "the same with references: rows go from runners to shards and from there to the Learner",
    f"driver, long fragments, {HERE}": f"with fragments of {LONG} rows",
    f"driver, long fragments, {SHARDED}": "the same",
    f"driver, collecting only, {HERE}": "without drawing and sending, as if the Learner were idle",
    f"driver, collecting only, {SHARDED}": "the same",
    "a replay shard, if it were the only one": "stores all rows and draws all batches; K shards carry K times as many runners",
    "the Learner": "updates of all modules, one after the other",
    "driver's port of 10 Gbit/s, rows in the driver": "what it sends to a Learner on another machine",
    "the Learner's port of 10 Gbit/s": "the rows of its batches",
}


def _config(scenario: str, options: Options, shards: int) -> MADDPGConfig:
    config = make_config(scenario, num_envs=options.num_envs, batch=options.batch, rows=options.rows, num_env_runners=PROCESSES)
    config.env_runners(env_runner_cls=CannedRunner, rollout_fragment_length=FRAGMENT, num_cpus_per_env_runner=0)
    config.reporting(min_sample_timesteps_per_iteration=_ONE_ITERATION)
    config.learners(num_learners=1, num_cpus_per_learner=0, num_gpus_per_learner=int(options.device == "cuda"))
    return config.training(replay_buffer_config={"num_shards": shards, "capacity": max(options.rows, 4 * LONG)})


def _learner_config(scenario: str, options: Options) -> MADDPGConfig:
    config = make_config(scenario, num_envs=options.num_envs, batch=options.batch, rows=options.rows, device=options.device)
    return config.reporting(min_sample_timesteps_per_iteration=_ONE_ITERATION)


def _fill(algo: MADDPG, runner: MADDPGEnvRunner) -> None:
    algo.training_step()
    rollouts = runner.sample()
    while len(algo.replay_buffer) < algo.replay_buffer.capacity:
        algo.replay_buffer.store(rollouts)


def _cost(name: str, what: int | str) -> str:
    what = f"a fragment of {what} rows" if isinstance(what, int) else {"update": "an update", "broadcast": "a broadcast"}[what]
    return f"driver, {name}: {what}"


def _contenders(runner: MADDPGEnvRunner, here: Driver, sharded: Driver, local: MADDPG, options: Options) -> Sequence[Contender]:
    seconds = options.seconds
    rollouts = runner.sample()
    rows = sum(map(len, rollouts))

    def store() -> int:
        local.replay_buffer.store(rollouts)
        return rows

    def draw() -> int:
        local.replay_buffer.sample(MAX_UPDATES_PER_CALL * options.batch)
        return MAX_UPDATES_PER_CALL

    def update() -> int:
        local._update(MAX_UPDATES_PER_CALL)
        return MAX_UPDATES_PER_CALL

    made = [
        Contender(RUNNER, "sampled by one process", lambda: 1e6 / env_steps_per_second(runner, seconds)),
        Contender(STORE, "checked and copied into the ring", lambda: 1e6 * seconds_per_unit(store, seconds)),
        Contender(
            DRAW,
            f"{options.batch:,} rows, {MAX_UPDATES_PER_CALL} updates at once",
            lambda: 1e6 * seconds_per_unit(draw, seconds),
        ),
        Contender(
            LEARNER, f"in this process, {options.device}, drawing included", lambda: 1e6 * seconds_per_unit(update, seconds)
        ),
    ]
    for name, driver in ((HERE, here), (SHARDED, sharded)):
        for size in (SHORT, LONG):
            does = "asked for, received and stored"
            made.append(Contender(_cost(name, size), does, lambda d=driver, n=size: 1e6 * d.fragment(n, seconds)))
        does = f"drawn and handed to a Learner in another process, {MAX_UPDATES_PER_CALL} in a call"
        made.append(Contender(_cost(name, "update"), does, lambda d=driver: 1e6 * d.update(seconds)))
        does = "new weights fetched from the Learner and laid out for all runners, once a round"
        made.append(Contender(_cost(name, "broadcast"), does, lambda d=driver: 1e6 * d.broadcast(seconds)))
    return made


def _limits_table(setting: str, model: Sequence[Model], options: Options) -> Table:
    values = {place: [m.runners(place) for m in model] for place in DOES}
    contenders = [Contender(place, does, lambda: 0.0) for place, does in DOES.items()]
    claims = [
        absolute(values, f"driver, long fragments, {SHARDED}", at_least=RUNNERS),
        ratio(values, f"driver, {SHARDED}", f"driver, {HERE}", at_least=1.0),
        ratio(values, f"driver, long fragments, {SHARDED}", f"driver, long fragments, {HERE}", at_least=1.0),
    ]
    notes = [f"Runners at which a place has no time left, with an update of {options.batch:,} rows each 100 env steps."]
    return Table("scale", "Saturation", setting, "runners", contenders, values, claims, notes)


def _load_tables(setting: str, model: Sequence[Model]) -> list[dict[str, Any]]:
    tables = []
    for runners in (RUNNERS, 1024):
        values = {place: [m.load(place, runners) for m in model] for place in DOES}
        contenders = [Contender(place, does, lambda: 0.0) for place, does in DOES.items()]
        env_steps = sorted(runners / m.runner for m in model)[len(model) // 2]
        notes = [
            f"{env_steps:,.0f} env steps/s and {env_steps / 100:,.0f} updates/s. 1: busy all the time; above: cannot keep up."
        ]
        title = f"Load with {runners:,} runners"
        tables.append(Table("scale", title, setting, "busy", contenders, values, [], notes).to_dict())
    return tables
