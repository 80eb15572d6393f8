"""RLlib's own runner and replay buffer, as a stock off-policy algorithm (SAC) uses them."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env

from benchmarks.games import make_bare_env
from benchmarks.options import FRAGMENT

RUNNER_DOES = (
    f"RLlib's MultiAgentEnvRunner in SAC: an MLP [64, 64] for each agent, ParallelPettingZooEnv, fragments of {FRAGMENT}"
)
BUFFER_DOES = "RLlib's MultiAgentEpisodeReplayBuffer, which draws for each agent by itself, as SAC sets it up"


def make_stock_config(
    scenario: str, *, num_envs: int, batch: int = 1024, rows: int = 100_000, device: str = "cpu"
) -> SACConfig:
    """SAC with one MLP [64, 64] for each agent; arguments as in `games.make_config`."""
    agents = sorted(make_bare_env(scenario).possible_agents)
    name = f"rllib_maddpg_bench_{scenario}"
    register_env(name, lambda _: ParallelPettingZooEnv(make_bare_env(scenario)))
    return (
        SACConfig()
        .environment(name)
        .multi_agent(policies=set(agents), policy_mapping_fn=lambda agent, *_, **__: agent)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs, rollout_fragment_length=FRAGMENT)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="relu", head_fcnet_hiddens=[]))
        .learners(num_gpus_per_learner=int(device == "cuda"))
        .training(
            train_batch_size_per_learner=batch,
            n_step=1,
            replay_buffer_config={"type": "MultiAgentEpisodeReplayBuffer", "capacity": rows},
        )
        .debugging(seed=0)
    )


def fill(algo: Algorithm, env_steps: int) -> None:
    """Puts at least `env_steps` sampled env steps into the algorithm's replay buffer."""
    runner, added = algo.env_runner_group.local_env_runner, 0
    while added < env_steps:
        episodes = runner.sample()
        algo.local_replay_buffer.add(episodes)
        added += sum(episode.env_steps() for episode in episodes)


def draw(algo: Algorithm) -> Any:
    """A train batch of tensors, by the calls that SAC's training step makes (ray/rllib/algorithms/dqn/dqn.py)."""
    config = algo.config
    episodes = algo.local_replay_buffer.sample(
        num_items=config.total_train_batch_size,
        n_step=config.n_step,
        batch_length_T=0,
        lookback=0,
        min_batch_length_T=0,
        gamma=config.gamma,
        beta=None,
        sample_episodes=True,
    )
    # What RLlib's Learner does with episodes before a loss sees them.
    return algo.learner_group._learner._make_batch_if_necessary(TrainingData(episodes=episodes))
