"""Metrics of the columnar loop: RLlib's keys and values, logged once per `sample()` and not per step."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME
from ray.rllib.utils.metrics import (
    ENV_STEP_TIMER,
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

from rllib_maddpg.sampling import Sample

if TYPE_CHECKING:
    from rllib_maddpg.env_runner import MADDPGEnvRunner


def log_sample(runner: MADDPGEnvRunner, sample: Sample) -> None:
    """Logs to the runner's metrics what RLlib's own loop would have logged for the same steps."""
    log = runner.metrics.log_value
    module_of = {slot.agent: slot.module for slot in runner.layout.slots}
    if sample.rounds:
        # RLlib times each step of the vector env; this is their mean.
        log(ENV_STEP_TIMER, sample.env_seconds / sample.rounds)
        log(RLMODULE_INFERENCE_TIMER, sample.actor_seconds / sample.rounds)
        runner._log_env_steps(metric=runner._metrics_num_try_env_step, num_steps=sample.rounds)
    if sample.num_failures:
        log(NUM_ENV_STEP_FAILURES_LIFETIME, sample.num_failures, reduce="lifetime_sum")
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
    for episode in sample.episodes:
        module_returns: Counter[str] = Counter()
        for agent, value in episode.returns.items():
            module_returns[module_of[agent]] += value
        runner._log_episode_metrics(
            episode.length,
            sum(episode.returns.values()),
            episode.seconds,
            {str(agent): value for agent, value in episode.returns.items()},
            dict(module_returns),
            {str(agent): steps for agent, steps in episode.agent_steps.items()},
        )
