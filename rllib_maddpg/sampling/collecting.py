"""Getting rollouts from the env runners while the Learner works: synchronous, pipelined or asynchronous."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.exceptions import ActorDiedError, RayTaskError
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.sampling.env_runner import sample_fragment

logger = logging.getLogger(__name__)

SAMPLE_MODES = ("pipelined", "sync", "async")


@dataclass
class Collected:
    """What one round brought.

    Attributes:
        rollouts: In the order of the runners.
        metrics: Un-reduced metrics of the runners that were asked for them.
        error: To be raised when the rollouts are stored.
    """

    rollouts: list[JointRollout] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    error: Exception | None = None


class RolloutCollector:
    """Asks env runners for fragments and collects them.

    - `sync`: a round asks all runners with the newest weights and waits for them.
    - `pipelined`: a round asks for the next fragments and then waits for those that the round before has asked for, so runners
      always have something to do. Weights lag by exactly one fragment.
    - `async`: a round takes what is there, one fragment at least, and asks those runners again. New weights are sent
      every `broadcast_interval` rounds.

    A runner that is not back after `sample_timeout_s` is late: nobody waits for it any more, and its rows are taken
    when they come. A runner that died has its rows missing until Ray has restarted it. Without remote runners the local
    one samples in each round.
    """

    def __init__(self, group: EnvRunnerGroup, config: AlgorithmConfig):
        self.group = group
        self.config = config
        self.broadcast_interval = config.broadcast_interval if config.sample_mode == "async" else 1
        self._asked: set[int] = set()  # runners that owe a fragment
        self._late: set[int] = set()  # of those the ones that nobody waits for
        self._queued: set[int] = set()  # of those the ones that were asked for the next one already
        self._turn: Counter[int] = Counter()  # fragments that a runner has returned
        self._pinged: set[int] = set()  # runners that died and were asked whether they are back
        self._dead: set[int] = set()  # runners that Ray will not restart
        self._newest: Any = None  # weights that wait for the next broadcast
        self._weights: Any = None
        self._rounds = 0
        self._empty_rounds = 0  # in a row
        self._error: Exception | None = None

    def collect(self, weights: Any = None, want_metrics: bool = True) -> Collected:
        """One round.

        Args:
            weights: What `MADDPGEnvRunner.set_actors` takes, if there are new ones.
            want_metrics: Whether the fragments that are asked for now shall bring the runners' metrics.
        """
        if not self.group.num_remote_env_runners():
            runner = self.group.local_env_runner
            rollouts = runner.sample()
            return Collected(rollouts, [runner.get_metrics()] if want_metrics else [])
        if weights is not None:
            self._newest = weights
        if self._newest is not None and self._rounds % self.broadcast_interval == 0:
            self._weights, self._newest = self._packed(self._newest), None
        self._rounds += 1
        # Those that have nothing to do: all in `sync` mode, at the start, and runners that were away.
        self._ask(set(self.group.healthy_env_runner_ids()) - self._asked, want_metrics)
        if self.config.sample_mode == "pipelined":
            in_time = self._asked - self._late - self._queued
            self._queued |= in_time
            self._ask(in_time, want_metrics)
        timeout = self.config.sample_timeout_s
        results = self._wait_for_any(timeout) if self.config.sample_mode == "async" else self._wait_for_all(timeout)
        self._count_empty_rounds(results)
        results.sort(key=lambda result: result[0])
        if self.config.sample_mode == "async":
            self._ask([runner for runner, _ in results], want_metrics)
        error, self._error = self._error, None
        return Collected(
            [rollout for _, (rollouts, _) in results for rollout in rollouts],
            [metrics for _, (_, metrics) in results if metrics is not None],
            error,
        )

    def _packed(self, weights: tuple[int, np.ndarray]) -> Any:
        # Ray sends small arguments with the request itself, which is quicker for a few runners than an object of its own.
        number, vector = weights
        small = vector.nbytes < 90_000 and self.group.num_remote_env_runners() <= 8
        return (number, vector) if small else ray.put((number, vector))

    def tell(self, state: dict[str, Any]) -> None:
        """Sets a state on all runners as soon as they have done what they were asked for; waits for nobody."""
        if self.group.num_remote_env_runners():
            self._results("tell", 0.0)
            self.group.foreach_env_runner_async("set_state", tag="tell", kwargs={"state": state})

    def probe(self) -> list[int]:
        """Runners that died and are back; waits for nobody, so that they do not stop the others."""
        if not self.group.num_remote_env_runners():
            return []
        back = [runner for runner, _ in self._results("ping", 0.0, mark_healthy=True)]
        self._pinged.difference_update(self.group.healthy_env_runner_ids())
        self._dead.difference_update(back)
        away = set(self._manager.actor_ids()) - set(self.group.healthy_env_runner_ids())
        for runner in sorted(away - self._pinged):
            self._manager.foreach_actor_async("ping", "ping", healthy_only=False, remote_actor_ids=[runner])
            self._pinged.add(runner)
        return back

    def forget(self, runners: Collection[int]) -> None:
        """Runners that were restarted owe nothing any more."""
        self._asked.difference_update(runners)
        self._late.difference_update(runners)
        self._queued.difference_update(runners)

    @property
    def _manager(self) -> Any:
        # The group itself raises at the first error, and what others have sent at the same time is lost.
        return self.group._worker_manager

    def _ask(self, runners: Collection[int], want_metrics: bool) -> None:
        for runner in sorted(runners):
            self._asked.add(runner)
            self.group.foreach_env_runner_async(
                sample_fragment,
                tag=self._tag(runner, ahead=runner in self._queued),
                kwargs={"weights": self._weights, "want_metrics": want_metrics},
                remote_worker_ids=[runner],
            )

    def _wait_for_all(self, timeout: float | None) -> list[tuple[int, Any]]:
        """Fragments of all runners that are in time, and what has come from late ones."""
        in_time = self._asked - self._late
        if not in_time:
            # There is no use in coming back at once.
            return self._wait_for_any(timeout)
        late = set(self._late)
        results = self._fetch(in_time, timeout)
        missing = (in_time & self._asked) - {runner for runner, _ in results}
        results += self._fetch(late, 0.0)
        for runner in sorted(missing):
            logger.warning(
                "Env runner %d has not returned its fragment after sample_timeout_s=%s s. Training goes on without it; its "
                "rows are taken when they come.",
                runner,
                timeout,
            )
        self._late |= missing
        return results

    def _wait_for_any(self, timeout: float | None) -> list[tuple[int, Any]]:
        """What comes first."""
        if not self._asked:
            time.sleep(0.1)  # all are away
        end = time.monotonic() + (math.inf if timeout is None else timeout)
        results = []
        while not results and self._asked and time.monotonic() < end:
            results = self._fetch(self._asked, 0.01)
        return results

    def _fetch(self, runners: Collection[int], timeout: float | None) -> list[tuple[int, Any]]:
        if not runners:
            return []
        results = self._results([self._tag(runner) for runner in runners], timeout)
        # RLlib takes a runner that died out of service, with what it was asked for.
        self.forget(self._asked.difference(self.group.healthy_env_runner_ids()))
        for runner, _ in results:
            self._turn[runner] += 1
            self._late.discard(runner)
            if runner in self._queued:
                self._queued.discard(runner)  # it goes on with what was asked for ahead
            else:
                self._asked.discard(runner)
        return results

    def _tag(self, runner: int, ahead: bool = False) -> str:
        """Of the fragment that the runner owes first, or of the one after it; RLlib allows one request for each tag."""
        return f"sample-{runner}-{(self._turn[runner] + ahead) % 2}"

    def _results(self, tags: str | list[str], timeout: float | None, mark_healthy: bool = False) -> list[tuple[int, Any]]:
        """What has come, by runner; errors are noted."""
        results = []
        fetched = self._manager.fetch_ready_async_reqs(tags=tags, timeout_seconds=timeout, mark_healthy=mark_healthy)
        for result in fetched:
            if result.ok:
                results.append((result.actor_id, result.get()))
            else:
                self._on_failure(result.actor_id, result.get())
        return results

    def _on_failure(self, runner: int, error: Exception) -> None:
        """Training goes on while Ray restarts the runner, as often as the settings allow."""
        self._pinged.discard(runner)
        config = self.config
        # Before 2.56, RLlib lets a runner live that has raised an error and is not to be restarted: it would raise it for ever.
        raised = isinstance(error, RayTaskError) and not config.restart_failed_env_runners
        if not raised and not isinstance(error, ActorDiedError):
            return
        self._dead.add(runner)
        goes_on = config.ignore_env_runner_failures and not config.restart_failed_env_runners
        if not goes_on or self._dead == set(self._manager.actor_ids()):
            allowed = config.max_num_env_runner_restarts if config.restart_failed_env_runners else 0
            self._error = RuntimeError(
                f"Env runner {runner} died, and Ray does not restart it any more: max_num_env_runner_restarts={allowed} are "
                "used up, or it could not be rebuilt. Its log has the cause."
            )
            self._error.__cause__ = error

    def _count_empty_rounds(self, results: list) -> None:
        """Gives up when all runners hang; those that died have Ray's own limit."""
        self._empty_rounds = self._empty_rounds + 1 if self._asked and not results else 0
        tolerance = self.config.num_consecutive_env_runner_failures_tolerance
        if self._empty_rounds > tolerance:
            self._empty_rounds = 0
            self._error = TimeoutError(
                f"No env runner has returned a fragment in {tolerance + 1} rounds of sample_timeout_s="
                f"{self.config.sample_timeout_s} s. Raise `sample_timeout_s`, shorten `rollout_fragment_length`, or fix the "
                "environment; see also `fault_tolerance(num_consecutive_env_runner_failures_tolerance=...)`."
            )
