"""Keys of older RLlibs and of the MADDPG that RLlib once had: refused, with what takes their place.

RLlib itself accepts many of them without a word, and does nothing.
"""

from __future__ import annotations

_NOTHING = "nothing: "
_BUFFER = "`replay_buffer_config={'capacity': ...}`"
_WHOLE = "nothing: whole joint rows are drawn, one env step each"
_PRIORITIZED = "`replay_buffer_config={'type': 'PrioritizedJointReplayBuffer', 'alpha': 0.6, 'beta': 0.4}`"
_NETWORKS = "`.rl_module(model_config={'fcnet_hiddens': [64, 64], 'critic_fcnet_hiddens': [64, 64]})`"
_AGENTS = "one module for each agent, which is the default, or `policy_mapping_fn`"
_FILTER = "`env_to_module_connector=lambda env, spaces, device: MeanStdFilter(multi_agent=True)`"
_FAULTS = "`restart_failed_env_runners` and the other settings of `.fault_tolerance()`"

# Key -> what to use instead. Those that RLlib's config still has are at its deprecated marker.
OLD_SETTINGS: dict[str, str] = {
    # Attributes of RLlib's config.
    "env_task_fn": "a callback that changes the env, such as `on_train_result`",
    "enable_connectors": "nothing: the new API stack always has connectors",
    "monitor": "`rllib-maddpg evaluate --gif`, which draws episodes",
    "evaluation_num_episodes": "`evaluation_duration`, with `evaluation_duration_unit='episodes'`",
    "metrics_smoothing_episodes": "`metrics_num_episodes_for_smoothing`",
    "timesteps_per_iteration": "`min_sample_timesteps_per_iteration`",
    "min_iter_time_s": "`min_time_s_per_iteration`",
    "collect_metrics_timeout": "nothing: metrics come with the rows",
    "min_time_s_per_reporting": "`min_time_s_per_iteration`",
    "min_train_timesteps_per_reporting": "`min_train_timesteps_per_iteration`",
    "min_sample_timesteps_per_reporting": "`min_sample_timesteps_per_iteration`",
    "input_evaluation": "nothing: MADDPG learns from its own env runners only",
    "policy_map_cache": "nothing: all modules stay in memory",
    "worker_cls": "`env_runner_cls`",
    "synchronize_filters": "`merge_env_runner_states` and `broadcast_env_runner_states`",
    "enable_async_evaluation": "`evaluation_parallel_to_training`",
    "custom_async_evaluation_function": "`custom_evaluation_function`",
    "_enable_rl_module_api": "nothing: MADDPG always has RLModules",
    "auto_wrap_old_gym_envs": "an env of Gymnasium's API, such as `shimmy` makes of an old one",
    "always_attach_evaluation_results": "nothing: results of the last evaluation are always there",
    "buffer_size": _BUFFER,
    "prioritized_replay": _PRIORITIZED,
    "learning_starts": "`num_steps_sampled_before_learning_starts`",
    "replay_batch_size": "`train_batch_size_per_learner`",
    "replay_sequence_length": _WHOLE,
    "replay_mode": _WHOLE,
    "prioritized_replay_alpha": _PRIORITIZED,
    "prioritized_replay_beta": _PRIORITIZED,
    "prioritized_replay_eps": "nothing: it is 1e-6",
    "_disable_execution_plan_api": "nothing: there are no execution plans any more",
    # RLlib's old names behind properties, or gone.
    "num_rollout_workers": "`num_env_runners`",
    "num_envs_per_worker": "`num_envs_per_env_runner`",
    "num_cpus_per_worker": "`num_cpus_per_env_runner`",
    "num_gpus_per_worker": "`num_gpus_per_env_runner`",
    "custom_resources_per_worker": "`custom_resources_per_env_runner`",
    "num_learner_workers": "`num_learners`",
    "num_cpus_per_learner_worker": "`num_cpus_per_learner`",
    "num_gpus_per_learner_worker": "`num_gpus_per_learner`",
    "num_cpus_for_local_worker": "`num_cpus_for_main_process`",
    "evaluation_num_workers": "`evaluation_num_env_runners`",
    "ignore_worker_failures": _FAULTS,
    "recreate_failed_workers": _FAULTS,
    "recreate_failed_env_runners": _FAULTS,
    "max_num_worker_restarts": "`max_num_env_runner_restarts`",
    "delay_between_worker_restarts_s": "`delay_between_env_runner_restarts_s`",
    "num_consecutive_worker_failures_tolerance": "`num_consecutive_env_runner_failures_tolerance`",
    "worker_health_probe_timeout_s": "`env_runner_health_probe_timeout_s`",
    "worker_restore_timeout_s": "`env_runner_restore_timeout_s`",
    "validate_workers_after_construction": "`validate_env_runners_after_construction`",
    "sample_batch_size": "`rollout_fragment_length`",
    "sgd_minibatch_size": "`train_batch_size_per_learner`",
    "num_sgd_iter": "`num_env_steps_per_update`, which says how often to update",
    "vf_share_layers": _NETWORKS,
    "hiddens": _NETWORKS,
    "training_intensity": "`num_env_steps_per_update`",
    "store_buffer_in_checkpoint": "`store_buffer_in_checkpoints`",
    "soft_horizon": "an env that truncates its episodes",
    "no_done_at_end": "an env that truncates its episodes instead of terminating them",
    "horizon": "an env that truncates its episodes",
    "synchronize_filter": _FILTER,
    # Keys of RLlib's old contrib/MADDPG.
    "agent_id": _AGENTS,
    "use_local_critic": "nothing: all critics are centralized",
    "use_state_preprocessor": "an `env_to_module_connector`",
    "actor_hiddens": _NETWORKS,
    "actor_hidden_activation": "`.rl_module(model_config={'fcnet_activation': 'relu'})`",
    "critic_hiddens": _NETWORKS,
    "critic_hidden_activation": "`.rl_module(model_config={'critic_fcnet_activation': 'relu'})`",
    "adv_policy": "nothing: all agents are MADDPG's",
    "good_policy": "nothing: all agents are MADDPG's",
    "actor_feature_reg": "`actor_output_reg`",
    "grad_norm_clipping": "`grad_clip`",
    "smooth_target_policy": "nothing: targets are the paper's",
    "pure_exploration_steps": "`num_steps_sampled_before_learning_starts`",
    "worker_side_prioritization": "nothing: new rows have the largest priority so far",
    "compress_replay": _WHOLE,
    "max_weight_sync_delay": "`broadcast_interval`",
    "parameter_noise": "`noise_type` and `noise_scale`",
    "exploration_ou_theta": "`ou_theta`",
    "exploration_ou_sigma": "`ou_sigma`",
    "exploration_noise_scale": "`noise_scale`",
    "ou_base_scale": "`noise_scale`",
}


def old_key_message(key: str) -> str:
    """Text for one of `OLD_SETTINGS`."""
    instead = OLD_SETTINGS[key]
    fix = f"Leave it out: {instead.removeprefix(_NOTHING)}." if instead.startswith(_NOTHING) else f"Use {instead} instead."
    return f"`{key}` is a key of an older RLlib, which has no effect any more. {fix}"
