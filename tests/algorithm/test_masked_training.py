"""Whole runs in a game that refuses masked actions: training in both loops, evaluation, cross-play, resume, and export."""

import json

import numpy as np
import pytest
import torch
from masked_game import ACTIONS, NVEC, MaskedGame
from members import assert_same, learned_by

from rllib_maddpg import InferredMADDPGConfig, MADDPGConfig
from rllib_maddpg.deploy.export import export_actors
from rllib_maddpg.deploy.maddpg_actors import load_actors
from rllib_maddpg.runs.cross_play import evaluate_cross_play
from rllib_maddpg.runs.evaluation import evaluate_checkpoint

pytestmark = pytest.mark.usefixtures("ray_session")
EVERYTHING = {"twin_q": True, "target_policy_noise": 0.5, "others_actions": "current", "actor_output_reg": 0.01}


def config_of(where="observation", config_class=InferredMADDPGConfig, fast=True, seed=1, **training):
    """Three updates in each iteration after the first; all fragments end with an episode."""
    config = config_class().environment(MaskedGame, env_config={"where": where}, disable_env_checking=True)
    config.training(train_batch_size_per_learner=32, num_steps_sampled_before_learning_starts=40, num_env_steps_per_update=24)
    config.training(replay_buffer_config={"capacity": 1000}, lr=0.01, **{**EVERYTHING, **training})
    config.rl_module(model_config={"fcnet_hiddens": [8]})
    config.env_runners(num_envs_per_env_runner=2, rollout_fragment_length=12, env_runner_fast_path=fast)
    return config.reporting(min_sample_timesteps_per_iteration=72).debugging(seed=seed)


def finite(results):
    """Whether all losses, and what else is reported of agent a, are numbers; RLlib's counts may be NaN."""
    own = {k: v for k, v in results["learners"]["a"].items() if not k.startswith("num_") and k != "weights_seq_no"}
    return all(np.isfinite(float(value)) for value in own.values())


@pytest.mark.parametrize(("where", "fast"), [("observation", True), ("tuple", False), ("infos", True)])
def test_training_takes_nothing_masked(build, where, fast):
    """The game raises an error else, which would end the run. Replayed rows obey the masks that they hold."""
    algo = build(config_of(where, fast=fast))
    for _ in range(4):
        results = algo.train()
    assert finite(results) and {"critic_loss", "actor_loss"} <= results["learners"]["a"].keys()
    rows = algo.replay_buffer.sample(64)
    for slot in algo.layout.slots:
        if slot.mask is not None:
            allowed = rows.allowed((slot.module,), "obs")[0, 0]
            codes, alive = rows.stack((slot.module,), "actions")[0, 0], rows.stack((slot.module,), "alive")[0, 0]
            assert not codes[~allowed].any() and (codes.sum(-1) == alive * len(slot.codec.nvec)).all()
            assert 0.2 < float(allowed[alive > 0].float().mean()) < 0.95


def test_a_restored_run_goes_on_bit_for_bit(build, tmp_path):
    straight, halfway = build(config_of("infos")), build(config_of("infos"))
    for algo in (straight, halfway):
        for _ in range(3):
            algo.train()
    resumed = build(config_of("infos"))
    resumed.restore_from_path(halfway.save_to_path(str(tmp_path / "half")))
    for algo in (straight, resumed):
        for _ in range(2):
            algo.train()
    assert straight.learner_group.get_state()["learner"]["num_updates"] > 10
    assert_same(learned_by(straight), learned_by(resumed))


@pytest.fixture(scope="module")
def checkpoints(ray_session, tmp_path_factory):
    """By place of the masks a run's checkpoint; one more of another seed."""
    folder, made = tmp_path_factory.mktemp("masked"), {}
    for name, where, seed in (("tuple", "tuple", 1), ("infos", "infos", 1), ("other", "infos", 2)):
        algo = config_of(where, MADDPGConfig, seed=seed, target_policy_noise=0.0).build_algo()
        for _ in range(2):
            algo.train()
        with torch.no_grad():  # so that actions depend on what is seen
            for module in algo.learner_group._learner.module.values():
                for p in module.unwrapped().actor.parameters():
                    p.mul_(3.0)
        made[name] = algo.save_to_path(str(folder / name))
        algo.stop()
    return made


def test_evaluation_and_cross_play(checkpoints):
    evaluation = evaluate_checkpoint(checkpoints["tuple"], episodes=20, num_envs=4)
    assert evaluation.episodes == 20 and evaluation.length.mean == 6.0
    game = evaluate_cross_play(checkpoints["infos"], {"[ad]": checkpoints["other"]}, episodes=20, num_envs=4)
    assert game.evaluation.length.mean == 6.0
    assert {agent for agent, path in game.players.items() if str(path) == str(checkpoints["other"])} == {"a", "d"}


@pytest.mark.parametrize(
    ("file_format", "where"),
    [("onnx", "tuple"), ("torchscript", "infos"), ("safetensors", "tuple")],
)
def test_exported_actors_take_nothing_masked(checkpoints, tmp_path, where, file_format):
    """Each has been checked against its RLModule by the export, with random masks; here they play the game itself."""
    folder = export_actors(checkpoints[where], file_format, tmp_path / "exported").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    masked = {a: [spec["name"] for spec in e["observation"] if spec.get("mask")] for a, e in manifest["agents"].items()}
    parts = ["observation.action_mask.0", "observation.action_mask.1"]
    one = ["observation.action_mask"]
    assert masked == {"a": one, "b": parts if where == "tuple" else one, "c": [], "d": one}
    actors, game = load_actors(folder), MaskedGame(where)
    for seed in range(10):
        observations, infos = game.reset(seed=seed)
        while game.agents:
            if where == "infos":  # the actors take the observation with the mask beside it
                observations = {
                    a: {"observation": obs, "action_mask": infos[a]["action_mask"]} if a in NVEC else obs
                    for a, obs in observations.items()
                    if a in game.agents
                }
            actions = actors.act({agent: observations[agent] for agent in game.agents})
            assert all(ACTIONS[agent].contains(np.asarray(action)) or agent in "ad" for agent, action in actions.items())
            observations, _, _, _, infos = game.step(actions)
    chosen = {agent: {choice for who, choice, _ in game.done if who == agent} for agent in NVEC}
    assert all(len(choices) > 1 for choices in chosen.values()) and len(game.done) > 150
    obs = {"observation": np.zeros(3), "action_mask": [0, 0, 1, 0]}
    assert int(actors["a"](obs)) == 2
    batch = {"observation": np.zeros((4, 3)), "action_mask": np.eye(4)}
    assert actors["a"].batch(batch).tolist() == [0, 1, 2, 3]
    for mask, says in (([0, 0, 0, 0], "its action mask allows nothing"), ([0, 2, 0, 0], "action_mask must be ones and zeros")):
        with pytest.raises(ValueError, match=f"Agent 'a': .*{says}"):
            actors["a"]({**obs, "action_mask": mask})
