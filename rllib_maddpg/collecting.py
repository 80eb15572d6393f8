"""Getting rollouts from the env runners while the Learner works: synchronous, pipelined or asynchronous."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_maddpg.replay import JointRollout

logger = logging.getLogger(__name__)

SAMPLE_MODES = ("pipelined", "sync", "async")


@dataclass
class Collected:
    """What one round brought.

    Attributes:
        rollouts: In the order of the runners.
        metrics: Un-reduced metrics of the runners that were asked for them.
    """

    rollouts: list[JointRollout] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)


class RolloutCollector:
    """Asks env runners for fragments and collects them.

    - `sync`: a round asks all runners with the newest weights and waits for them.
    - `pipelined`: a round waits for the fragments that the round before has asked for and asks for the next ones at once, so
      runners sample while the Learner updates. Weights lag by exactly one fragment.
    - `async`: a round takes what is there, one fragment at least, and asks those runners anew. New weights are sent
      every `broadcast_interval` rounds.

    A runner that is not back after `sample_timeout_s` is late: nobody waits for it any more, and its rows are taken
    when they come. Without remote runners the local one samples in each round.
    """

    def __init__(self, group: EnvRunnerGroup, mode: str, sample_timeout_s: float | None, broadcast_interval: int = 1):
        """
        Args:
            group: The env runners.
            mode: One of `SAMPLE_MODES`.
            sample_timeout_s: Seconds to wait for fragments; None: as long as it takes.
            broadcast_interval: Rounds from one sending of weights to the next, in `async` mode.
        """
        self.group = group
        self.mode = mode
        self.sample_timeout_s = sample_timeout_s
        self.broadcast_interval = broadcast_interval if mode == "async" else 1
        self._asked: set[int] = set()  # runners that owe a fragment
        self._late: set[int] = set()  # of those the ones that nobody waits for
        self._weights: Any = None
        self._rounds = 0

    def collect(self, weights: Any = None, want_metrics: bool = True) -> Collected:
        """One round.

        Args:
            weights: What `MADDPGEnvRunner.set_weights` takes, if there are new ones.
            want_metrics: Whether the fragments that are asked for now shall bring the runners' metrics.
        """
        if not self.group.num_remote_env_runners():
            runner = self.group.local_env_runner
            rollouts = runner.sample()
            return Collected(rollouts, [runner.get_metrics()] if want_metrics else [])
        if weights is not None and self._rounds % self.broadcast_interval == 0:
            self._weights = ray.put(weights)
        self._rounds += 1
        # Those that have nothing to do: all in `sync` mode, at the start, and runners that were away.
        self._ask(set(self.group.healthy_env_runner_ids()) - self._asked, want_metrics)
        results = self._wait_for_any() if self.mode == "async" else self._wait_for_all()
        results.sort(key=lambda result: result[0])
        if self.mode != "sync":
            self._ask([runner for runner, _ in results], want_metrics)
        return Collected(
            [rollout for _, (rollouts, _) in results for rollout in rollouts],
            [metrics for _, (_, metrics) in results if metrics is not None],
        )

    def forget(self, runners: Collection[int]) -> None:
        """Runners that were restarted owe nothing any more."""
        self._asked.difference_update(runners)
        self._late.difference_update(runners)

    def _ask(self, runners: Collection[int], want_metrics: bool) -> None:
        for runner in sorted(runners):
            self.group.foreach_env_runner_async(
                "sample_fragment",
                tag=_tag(runner),
                kwargs={"weights": self._weights, "want_metrics": want_metrics},
                remote_worker_ids=[runner],
            )
            self._asked.add(runner)

    def _wait_for_all(self) -> list[tuple[int, Any]]:
        """Fragments of all runners that are in time, and what has come from late ones."""
        in_time = self._asked - self._late
        # With nobody in time there is still no use in coming back at once.
        results = self._fetch(in_time, self.sample_timeout_s) if in_time else self._fetch(self._late, 1.0)
        results += self._fetch(self._late, 0.0)
        for runner in self._asked - self._late:
            logger.warning(
                "Env runner %d has not returned its fragment after sample_timeout_s=%s s. Training goes on without it; its "
                "rows are taken when they come.",
                runner,
                self.sample_timeout_s,
            )
        self._late = set(self._asked)
        return results

    def _wait_for_any(self) -> list[tuple[int, Any]]:
        end = time.monotonic() + (self.sample_timeout_s or 60.0)
        results = []
        while not results and self._asked and time.monotonic() < end:
            results = self._fetch(self._asked, 0.005)
        return results

    def _fetch(self, runners: Collection[int], timeout: float | None) -> list[tuple[int, Any]]:
        if not runners:
            return []
        results = self.group.fetch_ready_async_reqs(tags=[_tag(runner) for runner in runners], timeout_seconds=timeout)
        # RLlib takes a runner that died out of service, with what it was asked for.
        self._asked.intersection_update(self.group.healthy_env_runner_ids())
        self._asked.difference_update(runner for runner, _ in results)
        self._late.intersection_update(self._asked)
        return results


def _tag(runner: int) -> str:
    return f"sample-{runner}"
