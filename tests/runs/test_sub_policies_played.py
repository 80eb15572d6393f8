"""Chosen and drawn sub-policies in evaluation, cross-play and exports, by what their actors were made to do."""

import json
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.cli.program import main
from rllib_maddpg.deploy.export import export_actors
from rllib_maddpg.deploy.maddpg_actors import load_actors
from rllib_maddpg.runs.cross_play import evaluate_cross_play, evaluate_pairings
from rllib_maddpg.runs.evaluation import evaluate_checkpoint

pytestmark = pytest.mark.usefixtures("ray_session")
slow = partial(pytest.param, marks=pytest.mark.slow)
AGENTS = ("fox", "hen_0", "hen_1")
STEPS = 3


class Yard(MultiAgentEnv):
    """Three steps; each agent earns the number of its action."""

    def __init__(self, config=None):
        super().__init__()
        self.possible_agents = self.agents = list(AGENTS)
        self.observation_spaces = {agent: gym.spaces.Box(-9, 9, (2,), np.float32) for agent in AGENTS}
        self.action_spaces = {agent: gym.spaces.Discrete(24) for agent in AGENTS}

    def seen(self):
        return {agent: np.full(2, self.time, np.float32) for agent in AGENTS}

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self.seen(), {}

    def step(self, actions):
        self.time += 1
        rewards = {agent: float(action) for agent, action in actions.items()}
        return self.seen(), rewards, {"__all__": False}, {"__all__": self.time == STEPS}, {}


def action_of(agent, k, base=0):
    """What agents were made to do: 0, 1, 2 for the fox's sub-policies, 3, 4, 5 for those of hen_0 ..."""
    return base + 3 * AGENTS.index(agent) + k


def config_of(**settings):
    config = MADDPGConfig().environment(Yard).debugging(seed=3).rl_module(model_config={"fcnet_hiddens": [4]})
    config.training(num_sub_policies=3, train_batch_size_per_learner=8, num_env_steps_per_update=20)
    config.training(num_steps_sampled_before_learning_starts=1000).training(**settings)
    return config.reporting(min_sample_timesteps_per_iteration=30)


@torch.no_grad()
def make(algo, base):
    for m, module in algo.learner_group._learner.module.items():
        for k, network in enumerate(module.unwrapped().acting_networks):
            last = network.linears[-1]
            last.weight.zero_()
            last.bias.zero_()[action_of(m, k, base)] = 1.0


def saved(folder, base=0, **settings):
    algo = config_of(**settings).build_algo()
    make(algo, base)
    algo.save_to_path(str(folder))
    algo.stop()
    return folder


@pytest.fixture(scope="module")
def runs(ray_session, tmp_path_factory):
    """Checkpoints of three runs: three sub-policies, the same with hens that draw together, and one policy."""
    root = tmp_path_factory.mktemp("runs")
    team = [["hen_0", "hen_1"]]
    kinds = {"three": (0, {}), "team": (12, {"share_sub_policy_draw": team}), "one": (12, {"num_sub_policies": 1})}
    return {name: saved(root / name, base, **settings) for name, (base, settings) in kinds.items()}


def played(evaluation):
    """Per episode the action of each agent, which is the same in all steps."""
    return np.array([[record.returns[agent] / STEPS for agent in AGENTS] for record in evaluation.records])


def sub_policies(evaluation, base=0):
    return played(evaluation) - [action_of(agent, 0, base) for agent in AGENTS]


@pytest.mark.parametrize("k", [0, 1, 2])
def test_the_chosen_one_plays_all_episodes(runs, k):
    assert (sub_policies(evaluate_checkpoint(runs["three"], episodes=5, sub_policy=k)) == k).all()


def test_others_are_drawn_for_each_episode(runs):
    numbers = sub_policies(evaluate_checkpoint(runs["three"], episodes=40, seed=1))
    assert all(set(own) == {0, 1, 2} for own in numbers.T)
    assert (numbers == sub_policies(evaluate_checkpoint(runs["three"], episodes=40, seed=1))).all()
    assert (numbers != sub_policies(evaluate_checkpoint(runs["three"], episodes=40, seed=2))).any()
    team = sub_policies(evaluate_checkpoint(runs["team"], episodes=40, seed=1), base=12)
    assert (team[:, 1] == team[:, 2]).all() and (team[:, 0] != team[:, 1]).any()


def test_a_sub_policy_that_is_not_there_is_refused(runs, tmp_path):
    text = r"`sub_policy`=3 is not allowed: module 'fox' has sub-policies 0 to 2. Name one that all have."
    with pytest.raises(ValueError, match=text):
        evaluate_checkpoint(runs["three"], sub_policy=3)
    with pytest.raises(ValueError, match=text):
        export_actors(runs["three"], "safetensors", tmp_path / "new", sub_policy=3)
    with pytest.raises(ValueError, match=r"one: `sub_policy`=1 is not allowed: module 'fox' has one policy, 0."):
        evaluate_cross_play(runs["three"], {"fox": runs["one"]}, sub_policy=1)
    with pytest.raises(ValueError, match=text):
        config_of().evaluation(evaluation_config={"sub_policy": 3}).validate()


@pytest.mark.parametrize("whose", [("one", "three"), ("three", "team"), slow(("three", "one")), slow(("team", "three"))])
def test_cross_play_of_unlike_runs(runs, whose):
    """Also where one has no ensembles: each agent plays its own run's sub-policies, and its run's agents draw as there."""
    own, other = whose
    base = {"three": 0, "team": 12, "one": 12}
    game = evaluate_cross_play(runs[own], {"hen_*": runs[other]}, episodes=40, seed=4).evaluation
    actions = played(game)
    for place, (agent, run) in enumerate(zip(AGENTS, (own, other, other), strict=True)):
        expected = {action_of(agent, k, base[run]) for k in range(1 if run == "one" else 3)}
        assert set(actions[:, place]) == expected, agent
    assert (actions[:, 1] - actions[:, 2] == actions[0, 1] - actions[0, 2]).all() == (other in ("team", "one"))
    chosen = played(evaluate_cross_play(runs[own], {"hen_*": runs[other]}, episodes=4, sub_policy=0).evaluation)
    assert (chosen == [action_of(a, 0, base[run]) for a, run in zip(AGENTS, (own, other, other), strict=True)]).all()


def test_all_pairings_with_a_chosen_one(runs):
    games = evaluate_pairings(runs["three"], {"fox": runs["team"]}, episodes=3, sub_policy=2)
    foxes = [game.evaluation.agents["fox"].mean / STEPS for game in games]
    assert foxes == [action_of("fox", 2, base) for base in (0, 12, 0, 12)]


def test_the_command_line_evaluates_a_chosen_one(runs, capsys):
    words = ["evaluate", str(runs["three"]), "--episodes", "3", "--json", "--sub-policy", "2"]
    assert main(words) == 0
    data = json.loads(capsys.readouterr().out)
    assert {a: e["mean"] for a, e in data["agent_return"].items()} == {a: STEPS * action_of(a, 2) for a in AGENTS}
    assert main([*words[:-1], "7"]) == 2
    assert "`sub_policy`=7 is not allowed: module 'fox'" in capsys.readouterr().err


@pytest.mark.parametrize("file_format", ["onnx", "torchscript", "safetensors"])
def test_all_sub_policies_are_exported_and_drawn(runs, tmp_path, file_format):
    export = export_actors(runs["team"], file_format, tmp_path / "all")
    assert len(export.manifest["files"]) == 9 and export.manifest["draw_together"] == [["hen_0", "hen_1"]]
    actors = load_actors(export.folder, seed=5)
    observations = {agent: np.ones(2, np.float32) for agent in AGENTS}
    seen = []
    for _ in range(60):
        numbers = actors.reset()
        assert actors.act(observations) == {agent: action_of(agent, numbers[agent], 12) for agent in AGENTS}
        seen.append([numbers[agent] for agent in AGENTS])
    seen = np.array(seen)
    assert (
        all(set(own) == {0, 1, 2} for own in seen.T) and (seen[:, 1] == seen[:, 2]).all() and (seen[:, 0] != seen[:, 1]).any()
    )
    assert [load_actors(export.folder, seed=5).reset() for _ in range(2)] != [actors.reset() for _ in range(2)]
    chosen = load_actors(export.folder, sub_policy=1)
    for _ in range(5):
        assert set(chosen.reset().values()) == {1}
        assert chosen.act(observations) == {agent: action_of(agent, 1, 12) for agent in AGENTS}
    with pytest.raises(ValueError, match=r"sub_policy=3: agent 'fox' has \[0, 1, 2\]."):
        load_actors(export.folder, sub_policy=3)


def test_one_sub_policy_is_exported_by_itself(runs, tmp_path, capsys):
    out = tmp_path / "chosen"
    assert main(["export", str(runs["three"]), "--format", "safetensors", "--out", str(out), "--sub-policy", "2"]) == 0
    assert sorted(path.name for path in out.glob("*.safetensors")) == [f"{agent}.safetensors" for agent in AGENTS]
    assert "fox.safetensors" in capsys.readouterr().out
    actors = load_actors(out)
    assert actors.act({a: np.ones(2) for a in AGENTS}) == {agent: action_of(agent, 2) for agent in AGENTS}
    assert set(actors.reset().values()) == {2} and load_actors(out, sub_policy=2)["fox"].sub_policy == 2
    with pytest.raises(ValueError, match=r"sub_policy=0: agent 'fox' has \[2\]."):
        load_actors(out, sub_policy=0)
    plain = export_actors(runs["one"], "safetensors", tmp_path / "one")
    assert all("sub_policies" not in entry for entry in plain.manifest["agents"].values())
    assert set(load_actors(plain.folder, sub_policy=0).reset().values()) == {0}


@pytest.mark.parametrize("fast", [True, False])
def test_evaluation_of_a_running_algorithm(build, fast):
    """By the chosen one, on the runner that samples for training, which then goes on with drawn ones."""
    config = config_of(num_steps_sampled_before_learning_starts=0, lr=0.0, exploration_temperature=0.0)
    config.env_runners(env_runner_fast_path=fast).evaluation(evaluation_interval=1, evaluation_duration=4)
    algo = build(config.evaluation(evaluation_config={"sub_policy": 1}))
    make(algo, 0)
    algo.env_runner.module.set_state(algo.learner_group.get_weights())
    for _ in range(2):
        result = algo.train()
        returns = result["evaluation"]["env_runners"]["agent_episode_returns_mean"]
        assert returns == {agent: STEPS * action_of(agent, 1) for agent in AGENTS}
    columns = algo.replay_buffer.get_state()["columns"]
    numbers = np.asarray(columns["sub_policies"])
    assert len(numbers) >= 60 and all(set(own) == {0, 1, 2} for own in numbers.T)


@pytest.mark.parametrize(("there", "here"), [(1, 3), (3, 1), slow(3, 2)])
def test_a_checkpoint_of_another_number_is_refused(build, tmp_path, there, here):
    folder = saved(tmp_path / "there", num_sub_policies=there)
    algo = build(config_of(num_sub_policies=here))
    before = algo.learner_group.get_weights()
    text = f"module 'fox' has {there} sub-policies there and {here} here. Set `num_sub_policies={there}`"
    with pytest.raises(ValueError, match="'sub_policies', which this run has not.*`num_sub_policies`" if here == 1 else text):
        algo.restore_from_path(str(folder))
    after = algo.learner_group.get_weights()
    assert all(np.array_equal(after[m][name], before[m][name]) for m in before for name in before[m])
