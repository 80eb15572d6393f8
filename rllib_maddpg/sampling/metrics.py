"""Metrics of the columnar loop: RLlib's keys and values, logged when they are asked for and not at each step."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from functools import partial
from typing import Any

from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.utils.metrics import (
    ENV_STEP_TIMER,
    EPISODE_DURATION_SEC_MEAN,
    EPISODE_LEN_MAX,
    EPISODE_LEN_MEAN,
    EPISODE_LEN_MIN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
    RLMODULE_INFERENCE_TIMER,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_maddpg.ray_compat import (
    EPISODE_AGENT_RETURN_MEAN,
    EPISODE_AGENT_STEPS,
    EPISODE_MODULE_RETURN_MEAN,
    log_value,
)
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.sampling.games import FinishedEpisode
from rllib_maddpg.sampling.joint_sampler import Sample


class Tally:
    """What a runner has sampled since its metrics were last asked for."""

    def __init__(self) -> None:
        self._total = Sample()

    def add(self, runner: MultiAgentEnvRunner, sample: Sample) -> None:
        """Counts what one call of the columnar loop brought."""
        if sample.num_failures:
            log_value(runner.metrics, NUM_ENV_STEP_FAILURES_LIFETIME, sample.num_failures, reduce="lifetime_sum")
        total = self._total
        total.episodes += sample.episodes
        for name in ("num_episodes", "env_steps", "rounds", "env_seconds", "actor_seconds"):
            setattr(total, name, getattr(total, name) + getattr(sample, name))
        for agent, steps in sample.agent_steps.items():
            total.agent_steps[agent] = total.agent_steps.get(agent, 0) + steps

    def log(self, runner: MultiAgentEnvRunner, layout: JointLayout) -> None:
        """Logs to the runner's metrics what RLlib's own loop would have logged for the same steps, and starts over."""
        sample, self._total = self._total, Sample()
        log = partial(log_value, runner.metrics)
        module_of = {slot.agent: slot.module for slot in layout.slots}
        if sample.rounds:
            # RLlib times each step of the vector env; this is their mean.
            log(ENV_STEP_TIMER, sample.env_seconds / sample.rounds)
            log(RLMODULE_INFERENCE_TIMER, sample.actor_seconds / sample.rounds)
            runner._log_env_steps(metric=runner._metrics_num_try_env_step, num_steps=sample.rounds)
        if sample.env_steps:
            runner._log_env_steps(metric=runner._metrics_num_env_steps_sampled, num_steps=sample.env_steps)
            log(NUM_ENV_STEPS_SAMPLED, sample.env_steps, reduce="sum")
            log(NUM_ENV_STEPS_SAMPLED_LIFETIME, sample.env_steps, reduce="lifetime_sum", with_throughput=True)
        if sample.num_episodes:
            log(NUM_EPISODES, sample.num_episodes, reduce="sum")
            log(NUM_EPISODES_LIFETIME, sample.num_episodes, reduce="lifetime_sum")
        module_steps: Counter[str] = Counter()
        for agent, steps in sample.agent_steps.items():
            module_steps[module_of[agent]] += steps
            if steps:
                log((NUM_AGENT_STEPS_SAMPLED, str(agent)), steps, reduce="sum")
                log((NUM_AGENT_STEPS_SAMPLED_LIFETIME, str(agent)), steps, reduce="lifetime_sum")
        for module, steps in module_steps.items():
            if steps:
                log((NUM_MODULE_STEPS_SAMPLED, module), steps, reduce="sum")
                log((NUM_MODULE_STEPS_SAMPLED_LIFETIME, module), steps, reduce="lifetime_sum")
        _log_episodes(runner, sample.episodes, module_of)


def _log_episodes(runner: MultiAgentEnvRunner, episodes: list[FinishedEpisode], module_of: dict[str, str]) -> None:
    """The keys of `MultiAgentEnvRunner._log_episode_metrics`, whose walk through trees takes five times as long."""
    config = runner.config
    window = max(1, math.ceil(config.metrics_num_episodes_for_smoothing / (config.num_env_runners or 1)))
    series: dict[tuple[tuple[str, ...], str], list[float]] = defaultdict(list)
    for episode in episodes:
        modules: Counter[str] = Counter()
        for agent, value in episode.returns.items():
            modules[module_of[agent]] += value
            series[(EPISODE_AGENT_RETURN_MEAN, str(agent)), "mean"].append(value)
            series[(EPISODE_AGENT_STEPS, str(agent)), "mean"].append(episode.agent_steps[agent])
        for module, value in modules.items():
            series[(EPISODE_MODULE_RETURN_MEAN, module), "mean"].append(value)
        for mean, least, most, value in (
            (EPISODE_LEN_MEAN, EPISODE_LEN_MIN, EPISODE_LEN_MAX, episode.length),
            (EPISODE_RETURN_MEAN, EPISODE_RETURN_MIN, EPISODE_RETURN_MAX, sum(episode.returns.values())),
        ):
            series[(mean,), "mean"].append(value)
            series[(least,), "min"].append(value)
            series[(most,), "max"].append(value)
        series[(EPISODE_DURATION_SEC_MEAN,), "mean"].append(episode.seconds)
    for (key, reduce), values in series.items():
        _log_values(runner.metrics, key, values, reduce=reduce, window=window)


def _log_values(metrics: MetricsLogger, key: tuple[str, ...], values: list[float], **how: Any) -> None:
    """`metrics.log_value(key, value, **how)` for each of the values; RLlib would look up the key each time."""
    first, *others = values
    log_value(metrics, key, first, **how)
    stats: Any = metrics.stats
    for part in key:
        stats = stats[part]
    for value in others:
        stats.push(value)
