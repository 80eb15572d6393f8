"""Which numbers a result of MADDPG holds, so that a sweep over a number that never comes is refused at once."""

from __future__ import annotations

from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.envs import probe_env
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.sweeps.schema import Sweep

_EPISODES = (
    "episode_return_mean",
    "episode_return_min",
    "episode_return_max",
    "episode_len_mean",
    "episode_len_min",
    "episode_len_max",
    "episode_duration_sec_mean",
    "num_episodes",
    "num_episodes_lifetime",
    "num_env_steps_sampled",
    "num_env_steps_sampled_lifetime",
)
_LOSSES = ("actor_loss", "critic_loss", "total_loss", "td_error_mean", "qf_mean")
_TOP = ("num_env_steps_sampled_lifetime", "training_iteration", "time_total_s", "time_this_iter_s")


def known_metrics(config: MADDPGConfig) -> list[str]:
    """Metrics of a validated config's results that a sweep can be ranked by; those of callbacks are not known."""
    agents = probe_env(config.env, config.env_config).agents
    modules = sorted(config.policies)
    episodes = [*_EPISODES, *(f"agent_episode_returns_mean/{agent}" for agent in agents)]
    episodes += [f"module_episode_returns_mean/{module}" for module in modules]
    names = [f"env_runners/{name}" for name in episodes]
    if config.evaluation_interval:
        names += [f"evaluation/env_runners/{name}" for name in episodes]
    names += [f"learners/{module}/{loss}" for module in modules for loss in _LOSSES]
    return names + list(_TOP)


def check_metric(sweep: Sweep, config: MADDPGConfig) -> None:
    """Raises a ValueError if no result of `config` can have the sweep's metric."""
    metric, file, known = sweep.metric, sweep.file, known_metrics(config)
    if not isinstance(metric, str):
        raise file.error(("metric",), f"{metric!r} must be a name, such as {known[0]}.")
    # Callbacks may log what they like.
    if metric in known or config.callbacks_class is not MADDPGConfig().callbacks_class or config.callbacks_on_train_result:
        return
    if metric.startswith("evaluation/") and not config.evaluation_interval:
        fix = "Add `evaluation_interval: 10` (iterations) and `evaluation_duration: 50` (episodes) to `settings`."
        raise file.error(("metric",), f"no result has {metric!r}: the trials do not evaluate. {fix}")
    hint = did_you_mean(metric, known) or f" There are, among others: {', '.join(known[:6])}."
    raise file.error(("metric",), f"no result has {metric!r}.{hint}")
