"""What steps 8 and 9 share: 5,000 games of `simple_adversary` with the settings of the lecture's program."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
from pictures import picture

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.plotting.plots import save_gif
from rllib_maddpg.runs.evaluation import evaluate_checkpoint

GAMES, LENGTH = 5_000, 25


def lecture_config(short: bool, **settings: object) -> MADDPGConfig:
    """Softmax heads, two layers of 64, lr 0.01, gamma 0.95, an update every 100 env steps."""
    return (
        MADDPGConfig()
        .environment("simple_adversary", env_config={"continuous_actions": True})
        .rl_module(model_config={"fcnet_hiddens": [64, 64]})
        .training(
            actor_head="softmax",
            lr=0.01,
            gamma=0.95,
            num_env_steps_per_update=100,
            train_batch_size_per_learner=64 if short else 1024,
            num_steps_sampled_before_learning_starts=100 if short else 1024,
            **settings,
        )
        .reporting(min_sample_timesteps_per_iteration=100 * LENGTH)
        .debugging(seed=0)
    )


def learn(name: str, options: argparse.Namespace, **settings: object) -> None:
    """Trains, draws the score of each 100 games, keeps the best checkpoint of the second half, and plays it.

    In the first half good agents are good by chance only, while their opponent does not know its game yet.

    Args:
        name: Of the picture and of the film.
        options: Of the script.
        **settings: Other settings of MADDPG.
    """
    rounds = (200 if options.short else GAMES) // 100
    was_running, begun = ray.is_initialized(), time.monotonic()
    scores: list[tuple[float, float]] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            algo = lecture_config(options.short, **settings).build_algo()
            try:
                for number in range(rounds):
                    returns = algo.train()["env_runners"]["agent_episode_returns_mean"]
                    scores.append((float(returns["agent_0"]), float(returns["adversary_0"])))
                    late = [good for good, _ in scores[rounds // 2 :]]
                    if late and late[-1] == max(late):
                        best = algo.save_to_path(str(Path(folder) / f"round_{number}"))
            finally:
                algo.stop()
            seconds = time.monotonic() - begun
            played = evaluate_checkpoint(best, episodes=20 if options.short else 500, record_frames=2)
    finally:
        if not was_running:
            ray.shutdown()
    with picture(name, options, "games", "score of 100 games") as axes:
        for label, curve in zip(("good agents", "adversary"), zip(*scores, strict=True), strict=True):
            axes.plot(100 * np.arange(1, len(scores) + 1), curve, label=label)
    save_gif(played.frames, options.out / f"{name}.gif")
    good, bad = played.agents["agent_0"].mean, played.agents["adversary_0"].mean
    print(f"{100 * rounds:,} games in {seconds:.0f} s. {played.episodes} games of the best checkpoint, without noise:")
    print(f"good agents {good:.1f}, adversary {bad:.1f}; good agents succeed in {played.metrics['good_success'].mean:.0%}.")
