"""Failures of environments: for which of them new ones are made, and what is said."""

from __future__ import annotations

import logging

from rllib_maddpg.envs.errors import EnvFailure

logger = logging.getLogger(__name__)


class Failures:
    """The failures of the envs of one env runner.

    What an env's code does in every episode ends the sampling at once, since a new env would do the same: a wrong API, a
    turn-based game, a wrong shape. An env that misses the same agent at the same step twice running is turn-based, too.

    Attributes:
        in_a_row: Failures since this was last set to 0.
    """

    def __init__(self, allowed: int, worker_index: int):
        """
        Args:
            allowed: Failures in a row after which an env is still rebuilt.
            worker_index: Number of the env runner, for messages.
        """
        self.allowed, self.worker_index = allowed, worker_index
        self.in_a_row = 0
        # By env the agent and step at which it last was like a turn-based game, since it last finished an episode.
        self._turns: dict[int, tuple[str, int]] = {}

    def has_finished(self, env: int) -> None:
        """Takes note of an episode that has gone well."""
        self._turns.pop(env, None)

    def note(self, failure: Exception, step: int, env: int) -> str:
        """Takes note of a failure and logs it.

        Args:
            failure: What was raised.
            step: Number of the step in the episode; 0: the reset.
            env: Number of the env, -1 if that is not known.

        Returns:
            An error if the env may not be rebuilt, else nothing.
        """
        self.in_a_row += 1
        known = isinstance(failure, EnvFailure)
        what = failure.what if known else f"{type(failure).__name__}: {failure}"
        fix = failure.fix if known else "Fix the environment; its log has the traceback."
        where = f"in env {env} of" if env >= 0 else "in one of the envs of"
        message = f"{what} at step {step} of the episode {where} env runner {self.worker_index}. {fix}"
        if known and not failure.can_pass:
            return message
        if known and failure.is_turn:
            turn = failure.what, step
            if self._turns.get(env) == turn:
                return f"{message} This happens in every episode."
            self._turns[env] = turn
        trace = None if known else failure
        if self.in_a_row <= self.allowed:
            counted = f"{self.in_a_row} of at most {self.allowed} failures in a row"
            logger.warning("%s The env is rebuilt (%s).", message, counted, exc_info=trace)
            return ""
        if trace:
            logger.error("%s", message, exc_info=trace)
        if self.allowed:
            key = "num_consecutive_env_runner_failures_tolerance"
            return f"{message} It failed more often in a row than `{key}`={self.allowed} allows."
        return f"{message} If the fault may pass, set `restart_failed_sub_environments` in `.fault_tolerance()`."
