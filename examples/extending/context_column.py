"""A column of your own: a context that the env tells in its infos, which critics see and actors do not.

    python examples/extending/context_column.py
    python examples/extending/context_column.py --wind 0 --env-steps 20000

Two agents want to stay at the origin. A wind pushes them, another one in each episode; they do not observe it. Its two numbers
become a column of the joint rows, `extra_columns`, and part of what the critics see, a `View` with `columns`. A critic that
knows the wind knows where it takes the agents: the program trains with and without it, and compares the errors.
"""

import argparse

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.modules.views import View
from rllib_maddpg.rows.schema import Column

AGENTS = ["left", "right"]


class WindyPlane(MultiAgentEnv):
    """Each agent observes where both are, and is paid for being near the origin. `env_config["wind"]`: how strong it is."""

    def __init__(self, config=None):
        super().__init__()
        self.strength = (config or {}).get("wind", 0.3)
        self.agents = self.possible_agents = AGENTS
        self.observation_spaces = dict.fromkeys(AGENTS, gym.spaces.Box(-np.inf, np.inf, (4,), np.float32))
        self.action_spaces = dict.fromkeys(AGENTS, gym.spaces.Box(-1.0, 1.0, (2,), np.float32))
        self.rng = np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.wind = self.strength * self.rng.standard_normal(2).astype(np.float32)
        self.places = self.rng.uniform(-1.0, 1.0, (2, 2)).astype(np.float32)
        self.time = 0
        return self._observations(), self._infos()

    def step(self, actions):
        moves = np.stack([actions[agent] for agent in AGENTS])
        self.places = self.places + 0.3 * moves + self.wind
        self.time += 1
        rewards = {agent: -float(np.abs(place).sum()) for agent, place in zip(AGENTS, self.places, strict=True)}
        ends = dict.fromkeys([*AGENTS, "__all__"], False)
        return self._observations(), rewards, ends, dict.fromkeys(ends, self.time == 20), self._infos()

    def _observations(self):
        return dict.fromkeys(AGENTS, self.places.ravel())

    def _infos(self):
        return {agent: {"wind": self.wind} for agent in AGENTS}


def wind_of(infos):
    """The column's source: `[2]`, from what `reset` or `step` gave."""
    return infos["left"]["wind"]


def make_config(sees_wind: bool, wind: float = 0.3, seed: int = 0) -> MADDPGConfig:
    """Rows have the wind in any case; critics see it if `sees_wind`."""
    return (
        MADDPGConfig()
        .environment(WindyPlane, env_config={"wind": wind})
        .env_runners(num_envs_per_env_runner=4)
        .training(
            extra_columns=[Column("wind", "env", width=2, at_next=True, source=wind_of)],
            critic_view=View("all and wind", columns=("wind",)) if sees_wind else "all",
            lr=0.002,
            num_env_steps_per_update=10,
            num_steps_sampled_before_learning_starts=500,
            train_batch_size_per_learner=256,
        )
        .debugging(seed=seed)
    )


def train(config: MADDPGConfig, env_steps: int) -> tuple[float, float]:
    """TD error (mean of both critics) and return, each the mean over the second half of the training."""
    algo, seen = config.build_algo(), []
    done = 0
    while done < env_steps:
        result = algo.train()
        done = int(result["num_env_steps_sampled_lifetime"])
        if done > env_steps / 2:
            errors = [result["learners"][agent]["td_error_mean"] for agent in AGENTS]
            seen.append((np.mean(errors), result["env_runners"]["episode_return_mean"]))
    algo.stop()
    return tuple(np.mean(seen, 0))


def main(arguments: list[str] | None = None) -> None:
    """The program; `arguments` as in the command line, None: those."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wind", type=float, default=0.3, help="standard deviation of the wind; an agent's own speed is 0.3")
    parser.add_argument("--env-steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args(arguments)

    for seed in range(args.seeds):
        for name, sees_wind in (("with", True), ("without", False)):
            error, episode_return = train(make_config(sees_wind, args.wind, seed), args.env_steps)
            print(f"seed {seed}, {name:>7} the wind: TD error {error:.3f}, return {episode_return:.1f}", flush=True)


if __name__ == "__main__":
    main()
