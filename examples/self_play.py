"""Self-play: the newest player against a league of its own past, beside a player that follows a rule.

    python examples/self_play.py
    python examples/self_play.py --generations 8 --iterations 10

Three players race to a hill and push each other away from it. "newest" learns. "past" has the same networks and is frozen:
before each generation it gets the weights of some earlier "newest" (`set_weights`), and after it the newest player joins the
league. "rule" has no parameters at all. MADDPG's modules are fixed, but their weights are not, so a league needs no more than
that. At the end the newest player meets every snapshot.
"""

import argparse

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.runs.evaluation import evaluate_algorithm

PLAYERS = ("newest", "past", "rule")
RADIUS = 0.15  # of a player's body
STEPS = 25


class HillGame(MultiAgentEnv):
    """Zero-sum: each step a player gets the mean distance of the others from the hill, less its own.

    A player observes its velocity, the hill, and both others, as seen from itself: first "newest" or "past", then "rule". It
    chooses a force `[2]` in [-1, 1].
    """

    def __init__(self, config=None):
        super().__init__()
        self.possible_agents = self.agents = list(PLAYERS)
        self.observation_spaces = dict.fromkeys(PLAYERS, gym.spaces.Box(-np.inf, np.inf, (8,), np.float32))
        self.action_spaces = dict.fromkeys(PLAYERS, gym.spaces.Box(-1.0, 1.0, (2,), np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.time = 0
        self.hill = self.np_random.uniform(-0.5, 0.5, 2)
        self.places = self.np_random.uniform(-1.0, 1.0, (3, 2))
        self.speeds = np.zeros((3, 2))
        return self._observations(), {}

    def step(self, actions):
        self.time += 1
        forces = np.array([actions[player] for player in PLAYERS])
        between = self.places[:, None] - self.places[None]  # [i, j]: from j to i
        distance = np.linalg.norm(between, axis=-1, keepdims=True)
        push = np.maximum(2.0 * RADIUS - distance, 0.0) * between / np.maximum(distance, 1e-6)
        self.speeds = 0.85 * self.speeds + 0.05 * forces + push.sum(1)
        self.places = self.places + self.speeds
        away = np.linalg.norm(self.places - self.hill, axis=-1)
        rewards = (away.sum() - away) / 2.0 - away
        rewards = dict(zip(PLAYERS, rewards.tolist(), strict=True))
        return self._observations(), rewards, {"__all__": False}, {"__all__": self.time == STEPS}, {}

    def _observations(self):
        others = {0: (1, 2), 1: (0, 2), 2: (0, 1)}
        seen = {}
        for i, player in enumerate(PLAYERS):
            points = np.array([self.hill, *self.places[list(others[i])]]) - self.places[i]
            seen[player] = np.concatenate([self.speeds[i], points.ravel()]).astype(np.float32)
        return seen


class StraightToTheHill(RLModule):
    """Pushes towards the hill with all its force, and flies past it."""

    def _forward(self, batch, **kwargs):
        return {"actions": torch.clip(20.0 * batch["obs"][:, 2:4], -1.0, 1.0)}


def make_config(iteration_steps: int, seed: int) -> MADDPGConfig:
    """Only "newest" is trained."""
    specs = {"newest": RLModuleSpec(), "past": RLModuleSpec(), "rule": RLModuleSpec(module_class=StraightToTheHill)}
    return (
        MADDPGConfig()
        .environment(HillGame)
        .multi_agent(policies_to_train=["newest"])
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs), model_config={"fcnet_hiddens": [64, 64]})
        .env_runners(num_envs_per_env_runner=8)
        .training(
            lr=0.002,
            num_env_steps_per_update=16,
            num_steps_sampled_before_learning_starts=400,
            train_batch_size_per_learner=256,
            # Rows of opponents long gone teach little.
            replay_buffer_config={"capacity": 20_000},
        )
        .reporting(min_sample_timesteps_per_iteration=iteration_steps)
        .debugging(seed=seed)
    )


def play(algo, past, episodes):
    """Mean returns of an episode by player, without noise, against `past` (weights of a "newest")."""
    algo.set_weights({"past": past})
    return {player: estimate.mean for player, estimate in evaluate_algorithm(algo, episodes).agents.items()}


def main(arguments: list[str] | None = None) -> None:
    """The program; `arguments` as in the command line, None: those."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=2, help="of each generation")
    parser.add_argument("--env-steps", type=int, default=1000, help="of each iteration")
    parser.add_argument("--episodes", type=int, default=32, help="against each snapshot at the end")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)

    rng = np.random.default_rng(args.seed)
    algo = make_config(args.env_steps, args.seed).build_algo()
    league = [algo.get_weights(["newest"])["newest"]]
    for generation in range(1, args.generations + 1):
        # The latest snapshot half of the time, else any.
        number = len(league) - 1 if rng.random() < 0.5 else int(rng.integers(len(league)))
        algo.set_weights({"past": league[number]})
        for _ in range(args.iterations):
            result = algo.train()
        mean = result["env_runners"]["agent_episode_returns_mean"]["newest"]
        print(f"generation {generation} trained against snapshot {number}: return {mean:.1f}", flush=True)
        league.append(algo.get_weights(["newest"])["newest"])

    print(f"\n{'opponent':<12}{'newest':>10}{'snapshot':>10}{'rule':>10}{'lead':>10}")
    for number, past in enumerate(league):
        means = play(algo, past, args.episodes)
        columns = [means["newest"], means["past"], means["rule"], means["newest"] - means["past"]]
        print(f"snapshot {number:<3}" + "".join(f"{value:>10.1f}" for value in columns))
    algo.stop()


if __name__ == "__main__":
    main()
