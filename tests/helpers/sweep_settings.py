"""Settings of sweeps whose trials end in a moment."""

SETTINGS = {
    "train_batch_size_per_learner": 32,
    "num_steps_sampled_before_learning_starts": 50,
    "num_env_steps_per_update": 20,
    "model_config.fcnet_hiddens": [16, 16],
    "replay_buffer_config.capacity": 2000,
    "metrics_num_episodes_for_smoothing": 10,
}
