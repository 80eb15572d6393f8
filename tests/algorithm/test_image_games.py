"""PettingZoo's butterfly games train from what their agents see."""

import math

import pytest
import torch

from rllib_maddpg import MADDPGConfig

SMALL = [["resize_v1", {"x_size": 16, "y_size": 12, "linear_interp": True}]]
# Name, settings of the env, and agent -> module.
GAMES = {
    "pistonball": (
        "butterfly/pistonball_v6",
        {"n_pistons": 5, "max_cycles": 15, "wrappers": [["color_reduction_v0", {"mode": "R"}], *SMALL, ["frame_stack_v2", {}]]},
        {f"piston_{k}": "piston" for k in range(5)},
    ),
    "cooperative_pong": (
        "butterfly/cooperative_pong",
        {"max_cycles": 15, "wrappers": SMALL},
        {"paddle_0": "left", "paddle_1": "right"},
    ),
    "knights_archers_zombies": (
        "butterfly/knights_archers_zombies",
        {"obs_method": "image", "spawn_delay": 1, "max_cycles": 150, "line_death": True, "wrappers": SMALL},
        {"archer_0": "archers", "archer_1": "archers", "knight_0": "knights", "knight_1": "knights"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_game_trains(game, build):
    """Updates are made of images of bytes, in which agents die; all networks learn."""
    env, env_config, module_of = GAMES[game]
    config = (
        MADDPGConfig()
        .environment(env, env_config=env_config)
        .multi_agent(policies=set(module_of.values()), policy_mapping_fn=module_of)
        .rl_module(model_config={"conv_filters": [[4, 4, 2], [8, 3, 2]], "fcnet_hiddens": [16]})
        .training(
            train_batch_size_per_learner=16,
            num_env_steps_per_update=20,
            num_steps_sampled_before_learning_starts=40,
            replay_buffer_config={"capacity": 1000},
        )
        .reporting(min_sample_timesteps_per_iteration=100)
        .debugging(seed=1)
    )
    algo = build(config)
    learner = algo.learner_group._learner
    assert learner.schema.observes_bytes and all(slot.image for slot in learner.layout.slots)
    before = {m: [p.detach().clone() for p in learner.module[m].unwrapped().parameters()] for m in module_of.values()}
    for _ in range(3):
        result = algo.train()
    for module, old in before.items():
        found = result["learners"][module]
        assert math.isfinite(found["critic_loss"]) and math.isfinite(found["actor_loss"])
        for p, was in zip(learner.module[module].unwrapped().parameters(), old, strict=True):
            assert (p != was).any()
    columns = algo.replay_buffer.sample(300).columns
    assert columns["obs"].dtype == torch.float32 and columns["obs"].max() > 100
    assert (columns["alive"].min() == 0) == (game == "knights_archers_zombies")
