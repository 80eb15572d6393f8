"""Where the wall time of training goes: env steps, actors' forward passes, update arithmetic, and everything else.

The first three are found by wrapping the calls that do them, on the objects of a running algorithm:

- env step: `step`, `step_joint` and `reset` of the environment below our wrappers and adapter (of mpe2's own parallel env, or
  of the env that stands in for it),
- forward pass: `JointActors`, or `forward` of each actor network where RLlib's own loop samples,
- update arithmetic: the Learner's `_update`, RLlib's one door to losses, gradients, optimizers and targets.

A second is counted once, in the innermost of these calls that is running. The rest is the framework's: RLlib's, this package's
runner, buffer and batches, and Python in between. Code that steps envs or evaluates actors by other calls gives itself a
place in `hooks`; a hook that nothing went through is an error, so that its time does not slip into "everything else".
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym

from rllib_maddpg.algorithm.maddpg import MADDPG
from rllib_maddpg.envs import ParallelPettingZoo
from rllib_maddpg.sampling.actors import JointActors

ENV, FORWARD, UPDATE, ELSE = "env step", "forward pass", "update arithmetic", "everything else"
DOES = {
    ENV: "step and reset of the environments themselves",
    FORWARD: "the actors' networks on the runner",
    UPDATE: "the Learner's losses, gradients, clipping, Adam and targets",
    ELSE: "RLlib, runner, noise, replay buffer, batches, metrics, weights to the runner",
}


class Stopwatch:
    """Seconds spent in wrapped calls, by name; inner calls are not counted for outer ones."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._counted = 0.0  # seconds of all calls that are over

    def wrap(self, call: Callable, name: str) -> Callable:
        """The same call, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            counted = self._counted
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                spent = time.perf_counter() - start
                # Calls within this one have counted theirs.
                self.seconds[name] += spent - (self._counted - counted)
                self._counted = counted + spent

        return timed


def hooks(algo: MADDPG) -> list[tuple[str, Any, str]]:
    """What to time: (name, object or class, attribute)."""
    runner = algo.env_runner_group.local_env_runner
    envs, calls = [_innermost(env) for env in runner.env.envs], ("step", "step_joint", "reset")
    found = [(ENV, env, call) for env in envs for call in calls if hasattr(env, call)]
    found += [(FORWARD, module.unwrapped().actor, "forward") for module in runner.module.values()]
    # A class, since runners may make new ones.
    found.append((FORWARD, JointActors, "__call__"))
    return [*found, (UPDATE, algo.learner_group._learner, "_update")]


@contextlib.contextmanager
def timed(algo: MADDPG) -> Iterator[Stopwatch]:
    """While entered, the calls of `hooks` are timed. For a local runner and a local Learner."""
    stopwatch = Stopwatch()
    with contextlib.ExitStack() as undo:
        for name, owner, attribute in hooks(algo):
            if attribute in vars(owner):
                undo.callback(setattr, owner, attribute, vars(owner)[attribute])
            else:
                undo.callback(delattr, owner, attribute)  # the class's own shows again
            setattr(owner, attribute, stopwatch.wrap(getattr(owner, attribute), name))
        yield stopwatch


def shares(algo: MADDPG, seconds: float) -> dict[str, float]:
    """Trains for `seconds` of wall time; returns the share of each name in `DOES`, in percent.

    Raises:
        RuntimeError: If nothing went through a hook.
    """
    with timed(algo) as stopwatch:
        start = time.perf_counter()
        while (total := time.perf_counter() - start) < seconds or not stopwatch.seconds:
            algo.train()
    for name in (ENV, FORWARD, UPDATE):
        if not stopwatch.seconds[name]:
            raise RuntimeError(f"No {name} was seen: it is made by calls that `benchmarks.shares.hooks` does not name.")
    result = {name: 100 * stopwatch.seconds[name] / total for name in (ENV, FORWARD, UPDATE)}
    return {**result, ELSE: 100 - sum(result.values())}


def _innermost(env: Any) -> Any:
    while isinstance(env, gym.Wrapper):
        env = env.env
    return env.env if isinstance(env, ParallelPettingZoo) else env
