"""What differs between the versions of Ray that this package runs on. No other file asks which one is installed.

Each shim names the versions that it serves, and can go when `setup.cfg` no longer asks for them.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Mapping
from typing import Any

import ray
import tree
from packaging.version import Version
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_METRICS_LOGGER
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.metrics import EVALUATION_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from ray.rllib.utils.torch_utils import convert_to_torch_tensor
from ray.tune import Trainable
from ray.util import log_once

__all__ = [
    "EPISODE_AGENT_RETURN_MEAN",
    "EPISODE_AGENT_STEPS",
    "EPISODE_MODULE_RETURN_MEAN",
    "THROUGHPUT",
    "AuthenticationError",
    "FlattenObservations",
    "StockAlgorithm",
    "StockEnvRunner",
    "forget_episodes",
    "in_trial",
    "keys_to_remove",
    "log_value",
    "metrics_logger",
    "restore_optimizers",
    "since",
    "warn_if_untested",
    "why_not_restored",
    "without_counted",
]

# The minor versions that the tests ran with; `setup.cfg` allows those between them, and the next one.
TESTED = ("2.51", "2.52", "2.55", "2.60")

INSTALLED = Version(ray.__version__)

logger = logging.getLogger(__name__)


def since(version: str) -> bool:
    """Whether the installed Ray is of this version, or newer."""
    return Version(version) <= INSTALLED


def why_not_restored(written_with: str) -> str | None:
    """Why this Ray cannot restore a checkpoint that another one has written; None if it can.

    Args:
        written_with: The other one's version.
    """
    if since("2.53") or Version(written_with) < Version("2.53"):
        return None
    return "Ray writes metrics in another form since 2.53, which older ones cannot read. Install Ray 2.53 or newer"


def warn_if_untested() -> None:
    """A line in the log, once a process, for a Ray that the tests did not run with."""
    minor = f"{INSTALLED.major}.{INSTALLED.minor}"
    if minor not in TESTED and log_once(f"Ray {minor} is untested"):
        logger.warning(
            "MADDPG was not tested with Ray %s, but with %s. Most is likely to work; if something does not, run its tests with "
            "your Ray: `tests/versions.sh %s %d.%d`.",
            ray.__version__,
            ", ".join(TESTED),
            ray.__version__,
            *sys.version_info[:2],
        )


# -------------------------------------------------------------------------------------------------- Ray before 2.52

try:
    from ray.exceptions import AuthenticationError
except ImportError:

    class AuthenticationError(Exception):  # type: ignore[no-redef]
        """Never raised: this Ray has no tokens."""


try:
    from ray.rllib.connectors.common.flatten_observations import FlattenObservations
except ImportError:
    from ray.rllib.connectors.env_to_module.flatten_observations import FlattenObservations


def keys_to_remove(piece: FlattenObservations) -> Any:
    """What the connector leaves out: nothing before 2.52."""
    return getattr(piece, "_keys_to_remove", None)


# -------------------------------------------------------------------------------------------------- Ray before 2.53

# After the key of a throughput: where in a result is the one since the last report. Older Rays report no other.
THROUGHPUT = "/throughput_since_last_reduce" if since("2.53") else ""

if since("2.53"):
    log_value = MetricsLogger.log_value
else:

    def log_value(
        metrics: MetricsLogger, key: Any, value: Any, *, reduce: str | None = None, with_throughput: bool = False, **how: Any
    ) -> None:
        """`MetricsLogger.log_value` of newer Rays: an endless sum is a "lifetime_sum" there, all else begins again.

        What has a window still goes back over reports, as all that RLlib itself logs does here.
        """
        if reduce == "lifetime_sum":
            how |= {"reduce": "sum", "with_throughput": with_throughput}
        elif reduce is not None:
            how |= {"reduce": reduce, "clear_on_reduce": reduce != "mean" and "window" not in how}
        metrics.log_value(key, value, **how)


def metrics_logger(config: AlgorithmConfig, root: bool) -> MetricsLogger:
    """`MetricsLogger`, which takes users' own ways of reducing since 2.53."""
    return MetricsLogger(root=root, **({"stats_cls_lookup": config.stats_cls_lookup} if since("2.53") else {}))


def without_counted(learner: TorchLearner, state: dict[str, Any]) -> dict[str, Any]:
    """A Learner's state without its metrics, which older Algorithms would add again to the restored sums of their own.

    The Learner itself begins to count again, too.
    """
    if since("2.53"):
        return state
    learner.metrics.reset()
    return {key: value for key, value in state.items() if key != COMPONENT_METRICS_LOGGER}


def forget_episodes(metrics: MetricsLogger, *key: str) -> None:
    """Empties the windows of metrics, under a key or all of them; sums stay. Newer Rays do it at each report."""
    stats: Any = metrics.stats
    for part in key:
        stats = stats.get(part, {})
    for one in tree.flatten(stats):
        if one._reduce_method != "sum":
            one._set_values([])


# -------------------------------------------------------------------------------------------------- Ray before 2.55

try:
    from ray.rllib.utils.metrics import EPISODE_AGENT_RETURN_MEAN, EPISODE_AGENT_STEPS, EPISODE_MODULE_RETURN_MEAN
except ImportError:  # they were no constants yet
    EPISODE_AGENT_RETURN_MEAN = "agent_episode_returns_mean"
    EPISODE_AGENT_STEPS = "agent_steps"
    EPISODE_MODULE_RETURN_MEAN = "module_episode_returns_mean"


class EvaluationBefore55(Algorithm):
    """RLlib's algorithm, which evaluates the actors of a training runner, where newer ones take the Learner's."""

    def _before_evaluate(self) -> None:
        super()._before_evaluate()
        if self.eval_env_runner_group is not None:
            # Runners refuse what is older than what they have: RLlib's own copy comes after this one.
            self.eval_env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)


class EvaluationBefore53(EvaluationBefore55):
    """RLlib's algorithm, which would add earlier episodes to those of an evaluation."""

    def _before_evaluate(self) -> None:
        super()._before_evaluate()
        forget_episodes(self.metrics, EVALUATION_RESULTS)
        if self.eval_env_runner_group is not None:
            self.eval_env_runner_group.foreach_env_runner(
                lambda runner: forget_episodes(runner.metrics), local_env_runner=False
            )

    def _evaluate_on_local_env_runner(self, env_runner: MultiAgentEnvRunner) -> tuple:
        forget_episodes(env_runner.metrics)
        try:
            return super()._evaluate_on_local_env_runner(env_runner)
        finally:
            forget_episodes(env_runner.metrics)


StockAlgorithm = Algorithm if since("2.55") else EvaluationBefore55 if since("2.53") else EvaluationBefore53


class RunnerBefore55(MultiAgentEnvRunner):
    """RLlib's runner, which makes envs only from classes and registered names."""

    def make_env(self) -> None:
        """RLlib's, of a class that makes what the callable makes."""
        make = self.config.env
        self.config.env = type("EnvClass", (), {"__new__": lambda cls, context: make(context)})
        try:
            super().make_env()
        finally:
            self.config.env = make


class RunnerBefore54(RunnerBefore55):
    """RLlib's runner, with its later name for what it has."""

    def _sample(self, **asked: Any) -> list[MultiAgentEpisode]:
        """RLlib's. After a failed step it calls `self._sample`, which a subclass may have overridden: it shall find its own.

        What was finished in the fragment before is lost; newer Rays keep it.
        """
        sample = super()._sample
        self._sample = sample
        try:
            return sample(**asked)
        finally:
            del self._sample

    @property
    def _ongoing_episodes(self) -> list[MultiAgentEpisode]:
        return self._episodes


class RunnerBefore53(RunnerBefore54):
    """RLlib's runner, whose clock is a metric."""

    num_env_steps_sampled_lifetime = 0

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's; the clock is the attribute."""
        return {**super().get_state(*args, **kwargs), NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}

    def set_state(self, state: dict[str, Any]) -> None:
        """RLlib's; the clock is the attribute."""
        self.num_env_steps_sampled_lifetime = state.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, self.num_env_steps_sampled_lifetime)
        super().set_state({key: value for key, value in state.items() if key != NUM_ENV_STEPS_SAMPLED_LIFETIME})


if since("2.55"):
    StockEnvRunner = MultiAgentEnvRunner
else:
    StockEnvRunner = RunnerBefore55 if since("2.54") else RunnerBefore54 if since("2.53") else RunnerBefore53


def in_trial(trial: Trainable) -> dict[str, Any]:
    """Arguments of an algorithm that is a part of a trial, whose folder it gets to save itself before an error.

    Rays before 2.55 would have it write result files of its own.
    """
    arguments = {"storage": trial._storage}
    if "logger_creator" in inspect.signature(Trainable).parameters:
        from ray.tune.logger import NoopLogger

        arguments["logger_creator"] = lambda config: NoopLogger(config, trial.logdir)
    return arguments


# -------------------------------------------------------------------------------------------------- Ray before 2.56


def restore_optimizers(learner: TorchLearner, states: Mapping[str, Any]) -> None:
    """Loads the states of optimizers again, which older RLlibs have just loaded with tensors for all numbers in them.

    Those for the parameters' numbers match no parameter: Adam's moments would be lost, and its betas be tensors.

    Args:
        learner: That has taken the states.
        states: By optimizer `{"state": optimizer.state_dict(), ...}`.
    """
    if since("2.56"):
        return
    for name in states.keys() & learner._named_optimizers.keys():
        saved = states[name]["state"]
        moments = convert_to_torch_tensor(saved["state"], device=learner._device)
        learner._named_optimizers[name].load_state_dict({**saved, "state": moments})
