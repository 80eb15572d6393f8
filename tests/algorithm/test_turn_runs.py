"""Whole runs in games of turns: best replies, bit-exact resume, all ways of sampling and storing; play and export."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from bidding_game import Bidding, Truthful, seen
from members import assert_same, learned_by
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from reference.bidding import best_reply, expected_return, truthful

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.deploy.export import export_actors
from rllib_maddpg.deploy.maddpg_actors import load_actors
from rllib_maddpg.runs.cross_play import evaluate_cross_play
from rllib_maddpg.runs.evaluation import evaluate_checkpoint

pytestmark = pytest.mark.usefixtures("ray_session")
AGENTS = ("a", "b", "c")
LENGTH = 12


class Rounds(MultiAgentEnv):
    """Three agents in turns, 12 steps; to take the forbidden action is an error, and everybody is paid at each step."""

    def __init__(self, config=None):
        self.possible_agents = self.agents = list(AGENTS)
        super().__init__()
        box = gym.spaces.Box(-9.0, 9.0, (3,), np.float32)
        self.observation_spaces = dict.fromkeys(AGENTS, gym.spaces.Dict(observation=box, action_mask=gym.spaces.MultiBinary(3)))
        self.action_spaces = dict.fromkeys(AGENTS, gym.spaces.Discrete(3))
        self.render_mode = None

    def _see(self, agents):
        mask = (np.arange(3) != self.t % 3).astype(np.int8)
        return {agent: {"observation": self.world, "action_mask": mask} for agent in agents}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.t, self.world = 0, self.np_random.normal(size=3).astype(np.float32)
        return self._see("a"), {}

    def step(self, actions):
        ((agent, action),) = actions.items()
        assert agent == AGENTS[self.t % 3] and action != self.t % 3
        self.t += 1
        self.world = np.roll(0.9 * self.world, action)
        over = self.t == LENGTH
        rewards = {a: float(x) for a, x in zip(AGENTS, self.world, strict=True)}
        observed = AGENTS if over else (AGENTS[self.t % 3],)
        return self._see(observed), rewards, {"__all__": False}, {"__all__": over}, {}


def config_of(seed=1, **training):
    """Three updates in each iteration after the first; all fragments end with an episode."""
    config = MADDPGConfig().environment(Rounds, disable_env_checking=True)
    config.training(train_batch_size_per_learner=32, num_steps_sampled_before_learning_starts=40, num_env_steps_per_update=24)
    config.training(replay_buffer_config={"capacity": 1000}, lr=0.01)
    config.training(**training)
    config.rl_module(model_config={"fcnet_hiddens": [8]})
    config.env_runners(num_envs_per_env_runner=2, rollout_fragment_length=LENGTH)
    return config.reporting(min_sample_timesteps_per_iteration=72).debugging(seed=seed)


def test_learned_play_is_the_best_reply_to_a_truthful_bidder(build):
    """Against a rule, as the recursion over all policies has it; a truthful bidder itself gets 0.042 less."""
    config = (
        MADDPGConfig()
        .environment(Bidding)
        .env_runners(num_envs_per_env_runner=4)
        .multi_agent(policies={"first", "second"}, policies_to_train=["first"])
        .rl_module(
            rl_module_spec=MultiRLModuleSpec(rl_module_specs={"second": RLModuleSpec(module_class=Truthful)}),
            model_config={"fcnet_hiddens": [32]},
        )
        .training(gamma=1.0, tau=0.05, actor_lr=0.003, critic_lr=0.01, train_batch_size_per_learner=64)
        .training(num_env_steps_per_update=4, num_steps_sampled_before_learning_starts=500)
        .reporting(min_sample_timesteps_per_iteration=1500)
        .debugging(seed=0)
    )
    algo = build(config)
    assert algo.config.turn_based
    algo.train()
    actor = algo.get_module("first").actor

    @torch.no_grad()
    def learned(value, price):
        return int(actor(torch.tensor(seen(value, price))).argmax())

    best, _ = best_reply(truthful)
    assert expected_return((learned, truthful))[0] == best


def test_env_steps_are_counted_and_not_rows(build):
    algo = build(config_of())
    for k in range(1, 4):
        results = algo.train()
        assert results["num_env_steps_sampled_lifetime"] == 72 * k
        # Each step of an episode begins the one transition of the agent that acts: as many rows as steps.
        assert len(algo.replay_buffer) == 72 * k
    assert results["learners"]["__all_modules__"]["num_updates_lifetime"] == 3 * 72 / 24 - 1
    assert results["env_runners"]["episode_len_mean"] == LENGTH
    rows = algo.replay_buffer.sample(64).columns
    assert (rows["acts"].sum(1) == 1).all() and (rows["truncateds"].sum(1) <= 1).all()


def test_a_restored_run_goes_on_bit_for_bit(build, tmp_path):
    settings = {"normalize_observations": True, "twin_q": True, "target_policy_noise": 0.3, "num_sub_policies": 2}
    straight, halfway = build(config_of(**settings)), build(config_of(**settings))
    for algo in (straight, halfway):
        for _ in range(3):
            algo.train()
    resumed = build(config_of(**settings))
    resumed.restore_from_path(halfway.save_to_path(str(tmp_path / "half")))
    for algo in (straight, resumed):
        for _ in range(2):
            algo.train()
    assert straight.learner_group.get_state()["learner"]["num_updates"] > 10
    assert_same(learned_by(straight), learned_by(resumed))


@pytest.mark.parametrize("fragment", [1, 5])
def test_fragments_that_end_within_turns_lose_no_transition(build, fragment):
    """Also those in which no transition ends."""
    config = config_of(replay_buffer_config={"capacity": 1000, "type": "PrioritizedJointReplayBuffer"})
    algo = build(config.env_runners(num_envs_per_env_runner=1, rollout_fragment_length=fragment))
    for _ in range(2):
        results = algo.train()
    steps = results["num_env_steps_sampled_lifetime"]
    assert 144 <= steps <= 150
    # Open are no more than the three agents' last turns, and none at an episode's end.
    assert steps - 3 <= len(algo.replay_buffer) <= steps
    assert np.isfinite(results["learners"]["a"]["critic_loss"])


@pytest.mark.slow
def test_remote_runners_and_shards_keep_all_rows(build):
    config = config_of(replay_buffer_config={"capacity": 1000, "num_shards": 2})
    algo = build(config.env_runners(num_env_runners=2, num_envs_per_env_runner=1, rollout_fragment_length=7))
    for _ in range(4):
        results = algo.train()
    steps = results["num_env_steps_sampled_lifetime"]
    assert steps % 7 == 0 and steps - 6 <= len(algo.replay_buffer) <= steps
    assert np.isfinite(results["learners"]["a"]["critic_loss"])


@pytest.fixture(scope="module")
def checkpoints(ray_session, tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("turns"), []
    for seed in (1, 2):
        algo = config_of(seed).build_algo()
        for _ in range(2):
            algo.train()
        with torch.no_grad():  # so that actions depend on what is seen
            for module in algo.learner_group._learner.module.values():
                for p in module.unwrapped().actor.parameters():
                    p.mul_(3.0)
        algo.env_runner.module.set_state(algo.learner_group.get_weights())
        made.append(algo.save_to_path(str(folder / str(seed))))
        algo.stop()
    return made


def returns_by_hand(actors, seeds):
    """Of episodes with these seeds, played by exported actors without any of our loops."""
    returns = []
    for seed in seeds:
        env, paid, over = Rounds(), dict.fromkeys(AGENTS, 0.0), False
        observations, _ = env.reset(seed=seed)
        while not over:
            acting = {AGENTS[env.t % 3]: observations[AGENTS[env.t % 3]]}
            observations, rewards, _, truncateds, _ = env.step(actors.act(acting))
            over = truncateds["__all__"]
            paid = {agent: paid[agent] + rewards[agent] for agent in AGENTS}
        returns.append(paid)
    return returns


def test_evaluation_cross_play_and_exported_actors_play_the_same_games(checkpoints, tmp_path):
    seeds = [int(np.random.SeedSequence(0, spawn_key=(1, 0, number, 0)).generate_state(1)[0] >> 1) for number in range(4)]
    evaluation = evaluate_checkpoint(checkpoints[0], episodes=4, seed=0)
    actors = load_actors(export_actors(checkpoints[0], "safetensors", tmp_path / "exported").folder)
    by_hand = returns_by_hand(actors, seeds)
    for record, own in zip(evaluation.records, by_hand, strict=True):
        # Rewards before the first turns of b and c are in the returns, too.
        assert record.length == LENGTH and record.returns == pytest.approx(own, abs=1e-5)
    crossed = evaluate_cross_play(checkpoints[0], {"b": checkpoints[1]}, episodes=4, seed=0)
    assert [record.length for record in crossed.evaluation.records] == [LENGTH] * 4
    assert crossed.players["b"] != crossed.players["a"]
    assert [r.returns for r in crossed.evaluation.records] != [r.returns for r in evaluation.records]
