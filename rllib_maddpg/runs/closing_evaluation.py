"""The evaluation at the end of a run: as long as a small share of the training, and never what makes it fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rllib_maddpg.runs.evaluation import Evaluation, evaluate_algorithm
from rllib_maddpg.runs.stop_signals import StopSignals

# Unless another number of episodes is asked for.
DEFAULT_EPISODES, DEFAULT_ENV_STEPS = 100, 20_000
# Of the env steps and of the wall time of the training.
SHARE = 0.1


@dataclass
class ClosingEvaluation:
    """Noise-free episodes after training.

    Attributes:
        asked: How many at most; 0: none; None: 100, or what 20,000 env steps have room for.
        result: What was found; None: nothing was.
        why_not: Why there is no result, or of fewer episodes than announced; empty: there is one.
    """

    asked: int | None = None
    result: Evaluation | None = None
    why_not: str = ""

    def episodes(self, env_steps: int, episode_length: float) -> int:
        """The most that are played after so many env steps of training: as many as a tenth of them has room for."""
        room = SHARE * env_steps if self.asked is not None else min(SHARE * env_steps, DEFAULT_ENV_STEPS)
        return min(DEFAULT_EPISODES if self.asked is None else self.asked, int(room / episode_length))

    def play(
        self,
        algo: Any,
        env_steps: int,
        seconds: float,
        episode_length: float,
        announce: Callable[[int, float], None],
        stop: StopSignals,
    ) -> None:
        """Plays them, in a tenth of the `seconds` that the training took at most; a signal ends them, and nothing else.

        `episode_length` is the mean of the training's; infinity: no episode has ended.
        """
        if self.asked == 0:
            return
        if episode_length == float("inf"):
            self.why_not = f"no episode has ended in training ({env_steps:,} env steps)"
            return
        try:
            episodes = self.episodes(env_steps, episode_length)
            if not episodes:
                self.why_not = f"an episode is longer than a tenth of the training ({env_steps:,} env steps)"
                return
            announce(episodes, SHARE * seconds)
            self.result = evaluate_algorithm(algo, episodes, seconds=SHARE * seconds, stopped=lambda: stop.signal is not None)
        except KeyboardInterrupt:
            self.why_not = "stopped"
        except Exception as error:
            self.why_not = " ".join(f"{type(error).__name__}: {error}".split())
        else:
            if stop.signal is not None:
                self.why_not = "stopped"
            elif self.result is None or self.result.episodes < episodes:
                self.why_not = f"a tenth of the training's time is over ({SHARE * seconds:.1f} s)"
