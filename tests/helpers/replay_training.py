"""A small training whose replay buffer is told TD errors, and these errors by hand."""

import torch

from rllib_maddpg import MADDPGConfig

BATCH = 16


def config_for(kind, rate=1e-3, learners=0, **settings):
    """Ten updates in each call of the Learners, from the second fragment of 50 env steps on."""
    config = MADDPGConfig().environment("simple_spread", env_config={"continuous_actions": True, "max_cycles": 25})
    config.env_runners(rollout_fragment_length=50).learners(num_learners=learners, num_cpus_per_learner=0.5)
    config.rl_module(model_config={"fcnet_hiddens": [16]}).debugging(seed=4)
    config.training(train_batch_size_per_learner=BATCH, num_env_steps_per_update=5, lr=rate, **settings)
    config.training(num_steps_sampled_before_learning_starts=100, replay_buffer_config={"type": kind, "capacity": 2000})
    return config.reporting(min_sample_timesteps_per_iteration=150)


@torch.no_grad()
def errors_by_hand(learner, batch, per_module):
    """Mean |TD error| of the agents of each row, each of which has its own module; or that of the row's only module."""
    layout, columns = learner.layout, batch.columns
    modules = [learner.module[slot.module].unwrapped() for slot in layout.slots]
    parts = zip(modules, layout.slots, strict=True)
    next_actions = torch.cat([torch.tanh(m.target_actor(columns["new_obs"][:, slot.obs])) for m, slot in parts], -1)
    errors = []
    for k, m in enumerate(modules):
        next_q = m.q_values(m.target_critic, columns["new_obs"], next_actions)
        target = columns["rewards"][:, [k]] + 0.95 * (1 - columns["terminateds"][:, [k]]) * next_q
        errors.append((m.q_values(m.critic, columns["obs"], columns["actions"]) - target).abs())
    errors = torch.cat(errors, 1)
    assert errors.shape == (len(batch), 3)
    return errors[torch.arange(len(batch)), torch.arange(len(batch)) % 3] if per_module else errors.mean(1)
