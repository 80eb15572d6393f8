"""Checkpoints that are whole, overwritten, elsewhere, of another game, or without what connectors have learnt."""

import json
import logging
import os
import pickle
import shutil
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pyarrow.fs
import pytest
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import EnvToModulePipeline, MeanStdFilter
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.tune import Checkpoint
from tiny_algorithm import same, state_of, tiny_config

from rllib_maddpg import MADDPG, MADDPGConfig
from rllib_maddpg.algorithm.checkpoint_files import CLASS_FILE, HASHES_FILE, METADATA_FILE, CheckpointFiles, is_whole
from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.cli.program import main
from rllib_maddpg.results.run_folder import find_checkpoint
from rllib_maddpg.runs.evaluation import evaluate_checkpoint
from rllib_maddpg.sampling.connectors import AgentMeanStdFilter

pytestmark = pytest.mark.usefixtures("ray_session")
RL_MODULE = "learner_group/learner/rl_module"
FILTER = "env_runner/env_to_module_connector/AgentMeanStdFilter"


@pytest.fixture(scope="module")
def algo(ray_session):
    """A tiny trained algorithm; what a test does to its state is its own affair."""
    algo = tiny_config().build_algo()
    algo.train()
    yield algo
    algo.stop()


def make_old(checkpoint):
    """Takes away what older checkpoints did not have."""
    (checkpoint / HASHES_FILE).unlink()
    metadata = json.loads((checkpoint / METADATA_FILE).read_text())
    del metadata["content_hashes"]
    for agent in metadata["layout"]["agents"]:
        del agent["observes"]
    (checkpoint / METADATA_FILE).write_text(json.dumps(metadata))


def make_unused_settings(checkpoint, settings):
    """Puts settings into the config of a checkpoint without hashes, as earlier versions accepted them."""
    make_old(checkpoint)
    file = checkpoint / CLASS_FILE
    content = pickle.loads(file.read_bytes())
    state = content["ctor_args_and_kwargs"][0][0]
    assert settings.keys() <= vars(MADDPGConfig()).keys()
    state.update(settings)
    file.write_bytes(pickle.dumps(content))


# ------------------------------------------------------------------------------------------ saving


def test_each_file_of_the_checkpoint_is_listed_and_files_of_others_are_tolerated(algo, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    algo.save_to_path(tmp_path)
    (tmp_path / ".is_checkpoint").touch()
    listed = set(json.loads((tmp_path / HASHES_FILE).read_text()))
    found = {f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file()}
    assert found - listed == {HASHES_FILE, "notes.txt", ".is_checkpoint"} and listed < found
    assert CheckpointFiles(tmp_path).check() is True
    (tmp_path / "replay_buffer" / "state.pkl").unlink()
    with pytest.raises(ValueError, match=r"replay_buffer/state\.pkl is missing"):
        CheckpointFiles(tmp_path).check()


def test_an_overwritten_checkpoint_has_nothing_of_the_old_one(build, algo, tmp_path):
    other = build(tiny_config().training(store_buffer_in_checkpoints=False))
    (tmp_path / "notes.txt").write_text("mine")
    algo.save_to_path(tmp_path)
    other.save_to_path(tmp_path)
    assert not (tmp_path / "replay_buffer").exists() and (tmp_path / "notes.txt").read_text() == "mine"
    rows = len(algo.replay_buffer)
    algo.restore_from_path(tmp_path)
    assert len(algo.replay_buffer) == rows and algo._env_steps == 0


def test_on_this_machine_a_crash_while_overwriting_leaves_the_old_checkpoint(build, tmp_path):
    algo = build(tiny_config())
    algo.save_to_path(tmp_path / "c")
    (tmp_path / "c" / "notes.txt").write_text("mine")
    right = state_of(algo)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    algo.train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(algo.replay_buffer, "get_state", lambda: 1 / 0)  # while other components are written already
        with pytest.raises(ZeroDivisionError):
            algo.save_to_path(tmp_path / "c")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    # Whenever the old one's place is being taken, there is no whole one.
    after = state_of(algo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.replace", lambda source, target: 1 / 0 if target.endswith(HASHES_FILE) else os.rename(source, target))
        with pytest.raises(ZeroDivisionError):
            algo.save_to_path(tmp_path / "c")
    assert not is_whole(tmp_path / "c")
    assert algo.save_to_path(tmp_path / "c") == str(tmp_path / "c")
    algo.restore_from_path(tmp_path / "c")
    assert same(state_of(algo), after) and not same(after, right)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == set(before)


def test_a_checkpoint_elsewhere_that_a_crash_left_half_overwritten_is_no_whole_one(build, tmp_path):
    filesystem = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    algo = build(tiny_config())
    algo.save_to_path("c", filesystem=filesystem)
    algo.train()
    algo.replay_buffer.get_state = lambda: 1 / 0  # while other components are written already
    with pytest.raises(ZeroDivisionError):
        algo.save_to_path("c", filesystem=filesystem)
    assert not is_whole(tmp_path / "c")
    with pytest.raises(ValueError, match=f"{HASHES_FILE} is missing"):
        algo.restore_from_path(tmp_path / "c")


def test_older_checkpoints_are_checked_by_the_sizes_that_they_have(tmp_path):
    (tmp_path / METADATA_FILE).write_text("{}")
    (tmp_path / "rows.pkl").write_bytes(b"12345")
    assert CheckpointFiles(tmp_path).check() is False
    (tmp_path / "file_sizes.json").write_text('{"rllib_checkpoint.json": 2, "rows.pkl": 5}')
    assert CheckpointFiles(tmp_path).check() is False
    (tmp_path / "rows.pkl").write_bytes(b"1234")
    with pytest.raises(ValueError, match=r"rows\.pkl has 4 bytes, not the 5 that were written"):
        CheckpointFiles(tmp_path).check()
    assert CheckpointFiles(tmp_path).check([METADATA_FILE]) is False
    (tmp_path / "file_sizes.json").write_text('{"rows.pkl": []}')
    with pytest.raises(ValueError, match=r"file_sizes\.json: TypeError"):
        CheckpointFiles(tmp_path).check()
    (tmp_path / METADATA_FILE).write_text('{"folders": ["replay_buffer"]}')
    with pytest.raises(ValueError, match="the folder replay_buffer is missing"):
        CheckpointFiles(tmp_path).check()


def test_a_list_of_hashes_has_the_metadata_in_it(tmp_path):
    (tmp_path / METADATA_FILE).write_text("{}")
    (tmp_path / HASHES_FILE).write_text("{}")
    with pytest.raises(ValueError, match=f"{HASHES_FILE} does not list {METADATA_FILE}"):
        CheckpointFiles(tmp_path).check()


def test_in_a_trial_a_checkpoint_that_says_nothing_of_its_files_is_not_taken(tmp_path):
    half, whole = tmp_path / "checkpoint_000001", tmp_path / "checkpoint_000000"
    for folder in (half, whole):
        folder.mkdir()
        (folder / METADATA_FILE).write_text("{}")
    (whole / "file_sizes.json").write_text(f'{{"{METADATA_FILE}": 2}}')
    assert is_whole(whole) and not is_whole(half)
    assert find_checkpoint(tmp_path)[0] == whole
    assert CheckpointFiles(half).check() is False, "who names it gets it"


def test_the_module_that_a_checkpoint_needs_is_named(build, tmp_path, monkeypatch):
    (tmp_path / "their_game.py").write_text(
        "from ray.rllib.examples.envs.classes.multi_agent import MultiAgentPendulum\n"
        "class Game(MultiAgentPendulum):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import their_game

    path = build(MADDPGConfig().environment(their_game.Game, env_config={"num_agents": 2})).save_to_path(tmp_path / "c")
    monkeypatch.delattr(their_game, "Game")
    with pytest.raises(ValueError, match=r"needs something that cannot be imported \(.*'Game'.*put the module"):
        load_config(path)
    monkeypatch.delitem(sys.modules, "their_game")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    with pytest.raises(ValueError, match="needs the module their_game, which cannot be imported: put it on PYTHONPATH"):
        load_config(path)


# ------------------------------------------------------------------------------------------ other places, parts of it


def test_other_file_systems_and_components_are_checked_too(algo, tmp_path):
    filesystem = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    algo.save_to_path("c", filesystem=filesystem)
    right = state_of(algo)
    algo.train()
    algo.restore_from_path("c", filesystem=filesystem)
    assert same(state_of(algo), right)
    for m in algo.layout.modules:  # RLlib itself would leave the env runners their old actors
        for name, value in algo.env_runner.module[m].get_state().items():
            np.testing.assert_array_equal(value, algo.get_weights()[m][name])
    weights = tmp_path / "c" / RL_MODULE / "agent_1" / "module_state.pkl"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    before, text = state_of(algo), r"agent_1/module_state\.pkl has another content than was written"
    component = f"{RL_MODULE}/agent_1"
    readers = (
        lambda: algo.restore_from_path("c", filesystem=filesystem),
        lambda: algo.restore_from_path(f"c/{component}", component=component, filesystem=filesystem),
        lambda: algo.restore_from_path(tmp_path / "c" / component, component=component),
        lambda: algo.restore_from_path(f"file://{tmp_path}/c"),
        lambda: MADDPG.from_checkpoint("c", filesystem=filesystem),
        lambda: MADDPG.from_checkpoint(Checkpoint(str(tmp_path / "c"))),
    )
    for read in readers:
        with pytest.raises(ValueError, match=text):
            read()
    assert same(state_of(algo), before)
    component = f"{RL_MODULE}/agent_0"  # whose files are whole
    algo.restore_from_path(tmp_path / "c" / component, component=component)


@pytest.mark.parametrize("kind", ["sub tree", "memory", "relative"])
def test_file_systems_that_write_paths_in_another_way(kind, algo, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.chdir(tmp_path)
    filesystem, path = {
        "sub tree": lambda: (pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem()), "/s2/c"),
        "memory": lambda: (pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fsspec.filesystem("memory"))), "m/c"),
        "relative": lambda: (pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fsspec.filesystem("file"))), "m/c"),
    }[kind]()
    right = state_of(algo)
    algo.save_to_path(path, filesystem=filesystem)
    listed = json.loads(CheckpointFiles(path, filesystem).read(HASHES_FILE))
    assert f"{RL_MODULE}/agent_0/module_state.pkl" in listed and "replay_buffer/state.pkl" in listed
    algo.train()
    algo.restore_from_path(path, filesystem=filesystem)
    assert same(state_of(algo), right)


def test_of_a_run_the_newest_whole_checkpoint_is_taken_and_said_so(algo, tmp_path, caplog):
    names = [tmp_path / "checkpoints" / name for name in ("000000040", "000000080", "000000120")]
    algo.save_to_path(names[0])
    for name in names[1:]:
        shutil.copytree(names[0], name)
    (names[2] / HASHES_FILE).unlink()
    rows = names[1] / "replay_buffer" / "state.pkl"
    rows.write_bytes(rows.read_bytes().replace(b"rewards", b"rewardz"))
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path)[0] == names[0]
    said = [record.getMessage() for record in caplog.records if "Taking" in record.getMessage()]
    assert len(said) == 2 and all("Taking 000000040" in text for text in said)
    assert f"{HASHES_FILE} is missing" in said[0] and "replay_buffer/state.pkl has another content" in said[1]


# ------------------------------------------------------------------------------------------ what does not fit


class Game(MultiAgentEnv):
    """One step; the spaces are those of the class at the time."""

    obs_dim, action_space_of_b = 2, gym.spaces.Box(-1, 1, (1,))

    def __init__(self, config=None):
        super().__init__()
        self.possible_agents = self.agents = list((config or {}).get("agents", "ab"))
        self.observation_spaces = {a: gym.spaces.Box(-1, 1, (2 if a == "a" else Game.obs_dim,)) for a in self.agents}
        self.action_spaces = {a: gym.spaces.Box(-1, 1, (1,)) if a == "a" else Game.action_space_of_b for a in self.agents}

    def reset(self, *, seed=None, options=None):
        return {a: np.zeros(space.shape, np.float32) for a, space in self.observation_spaces.items()}, {}

    def step(self, actions):
        return self.reset()[0], dict.fromkeys(self.agents, 1.0), {"__all__": True}, {"__all__": False}, {}


@pytest.mark.parametrize("change", [{"obs_dim": 3}, {"action_space_of_b": gym.spaces.Discrete(2)}])
def test_the_checkpoint_of_a_game_that_has_changed_since_is_refused(build, tmp_path, monkeypatch, change):
    build(MADDPGConfig().environment(Game)).save_to_path(tmp_path)
    for key, value in change.items():
        monkeypatch.setattr(Game, key, value)
    for read in (MADDPG.from_checkpoint, lambda path: evaluate_checkpoint(path, episodes=1)):
        with pytest.raises(ValueError, match="belongs to another environment or layout: agent 'b'"):
            read(tmp_path)


def test_actors_may_play_in_a_game_of_more_agents_if_asked_to(build, tmp_path, monkeypatch):
    config = MADDPGConfig().environment(Game).multi_agent(policies={"all"}, policy_mapping_fn=lambda agent, episode: "all")
    build(config).save_to_path(tmp_path)
    result = evaluate_checkpoint(tmp_path, episodes=1, env_config={"agents": "abc"})
    assert {agent: estimate.mean for agent, estimate in result.agents.items()} == {"a": 1, "b": 1, "c": 1}
    monkeypatch.setattr(Game, "action_space_of_b", gym.spaces.Box(-1, 1, (2,)))
    with pytest.raises(ValueError, match="agent 'b'"):
        evaluate_checkpoint(tmp_path, episodes=1, env_config={"agents": "bc"})


def test_networks_of_another_size_are_refused_and_change_nothing(build, algo, tmp_path):
    other = build(tiny_config().rl_module(model_config={"fcnet_hiddens": [5]}))
    other.save_to_path(tmp_path)
    before, component = state_of(algo), f"{RL_MODULE}/agent_0"
    text = r"weights '\S+' have shape \(5\S* .*there and \(4\S* .*here\. Use the `model_config`"
    for path, part in ((tmp_path, {}), (tmp_path / component, {"component": component})):
        with pytest.raises(ValueError, match=text):
            algo.restore_from_path(path, **part)
    assert same(state_of(algo), before)


def test_remote_learners_and_runners_keep_their_state_when_a_restore_is_refused(build, tmp_path):
    algo = build(tiny_config().learners(num_learners=1).env_runners(num_env_runners=1))
    algo.train()
    algo.save_to_path(tmp_path / "c")
    assert is_whole(tmp_path / "c")
    right = state_of(algo)
    algo.restore_from_path(tmp_path / "c")
    assert same(state_of(algo), right)
    make_old(tmp_path / "c")
    # RLlib does not look whether a remote Learner could restore its part.
    weights = tmp_path / "c" / RL_MODULE / "agent_1" / "module_state.pkl"
    weights.write_bytes(weights.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"{RL_MODULE}/agent_1: "):
        algo.restore_from_path(tmp_path / "c")
    assert same(state_of(algo), right)


def test_an_older_checkpoint_is_restored(algo, tmp_path):
    algo.save_to_path(tmp_path / "c")
    right = state_of(algo)
    make_old(tmp_path / "c")
    algo.train()
    assert not same(state_of(algo), right)
    algo.restore_from_path(tmp_path / "c")
    assert same(state_of(algo), right)
    again = MADDPG.from_checkpoint(str(tmp_path / "c"))
    assert same(state_of(again), right)
    again.stop()


class Moody(ConnectorV2):
    """Takes back no state."""

    mood = "good"

    def __call__(self, *, batch, **kwargs):
        return batch

    def get_state(self, *args, **kwargs):
        return {"mood": self.mood}

    def set_state(self, state):
        if state["mood"] == "bad":
            raise RuntimeError("not in the mood")


def test_a_connector_that_cannot_restore_leaves_the_algorithm_as_it_was(build, tmp_path):
    algo = build(tiny_config().env_runners(env_to_module_connector=lambda env, spaces, device: Moody()))
    next(p for p in algo.env_runner._env_to_module.connectors if isinstance(p, Moody)).mood = "bad"
    algo.save_to_path(tmp_path)
    next(p for p in algo.env_runner._env_to_module.connectors if isinstance(p, Moody)).mood = "good"
    algo.train()
    before = state_of(algo)
    with pytest.raises(ValueError, match="not in the mood"):
        algo.restore_from_path(tmp_path)
    assert same(state_of(algo), before)


# ------------------------------------------------------------------------------------------ filters


def filtered_config():
    return tiny_config().env_runners(env_to_module_connector=lambda env, spaces, device: MeanStdFilter(multi_agent=True))


@pytest.fixture(scope="module")
def filtered(ray_session, tmp_path_factory):
    """An algorithm with a filter, and its checkpoint."""
    algo = filtered_config().build_algo()
    algo.train()
    yield algo, Path(algo.save_to_path(tmp_path_factory.mktemp("filtered") / "c"))
    algo.stop()


def test_a_pipeline_of_the_checkpoint_filters_with_the_statistics_of_the_training(filtered):
    algo, checkpoint = filtered
    pipeline = EnvToModulePipeline.from_checkpoint(checkpoint / "env_runner" / "env_to_module_connector")
    again, trained = (p[AgentMeanStdFilter][0] for p in (pipeline, algo.env_runner._env_to_module))
    obs = np.arange(10, dtype=np.float32)
    mean, std = (getattr(trained._filters["agent_0"].running_stats, name) for name in ("mean", "std"))
    assert std.shape == (10,) and not np.allclose(mean, 0)
    np.testing.assert_allclose(
        again._filters["agent_0"](obs, update=False), np.clip((obs - mean) / (std + 1e-8), -10, 10), 1e-5
    )
    assert again._multi_agent and again.clip_by_value == 10.0


@pytest.mark.parametrize("old", [False, True])
def test_lost_statistics_of_a_filter_are_noticed(filtered, tmp_path, old):
    algo, checkpoint = filtered
    shutil.copytree(checkpoint, tmp_path / "c")
    if old:
        make_old(tmp_path / "c")
        algo.restore_from_path(tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / FILTER)
    before = state_of(algo)
    for read in (algo.restore_from_path, MADDPG.from_checkpoint, lambda path: evaluate_checkpoint(path, episodes=1)):
        with pytest.raises(ValueError, match=r"AgentMeanStdFilter\S* is missing"):
            read(tmp_path / "c")
    assert same(state_of(algo), before)


def test_statistics_of_other_observations_are_refused(filtered):
    trained = filtered[0].env_runner._env_to_module[AgentMeanStdFilter][0]
    state = trained.get_state()
    with pytest.raises(ValueError, match=r"agent 'agent_0' have shapes None there and \[\(10,\)\] here"):
        trained.set_state({agent: own for agent, own in state.items() if agent != "agent_0"})
    with pytest.raises(ValueError, match=r"agent 'agent_0' have shapes \[\(8,\)\] there"):
        trained.set_state({**state, "agent_0": state["adversary_0"]})
    trained.set_state(state)


# ------------------------------------------------------------------------------------------ settings that were accepted


@pytest.mark.parametrize("cls", [MADDPG, Algorithm])
def test_settings_that_never_had_an_effect_do_not_keep_a_checkpoint_from_being_restored(algo, tmp_path, caplog, cls):
    algo.save_to_path(tmp_path)
    unused = {
        "clip_actions": True,
        "num_gpus": 1,
        "compress_observations": True,
        "observation_space": gym.spaces.Box(-1, 1, (2,)),
        "buffer_size": 500,
        "batch_mode": "complete_episodes",
        "model": {"fcnet_hiddens": [len(cls.__name__)]},
    }
    own = {"explore": True, "log_gradients": True}
    make_unused_settings(tmp_path, {**unused, "evaluation_config": own, "render_env": cls is MADDPG})
    restored = cls.from_checkpoint(tmp_path)
    default = MADDPGConfig()
    try:
        assert same(state_of(restored), state_of(algo))
        assert {key: getattr(restored.config, key) for key in unused} == {key: getattr(default, key) for key in unused}
        assert restored.config.evaluation_config == {"explore": True} and restored.config.tau == algo.config.tau
        restored.train()
    finally:
        restored.stop()
    told = [record.message for record in caplog.records if "never had an effect" in record.message]
    assert len(told) == 1
    for key in (*unused, "evaluation_config['log_gradients']"):
        assert key in told[0]
    assert ("render_env" in told[0]) == (cls is MADDPG)


def test_a_run_with_such_a_setting_is_resumed(tmp_path, capsys):
    run = tmp_path / "run"
    settings = ["num_steps_sampled_before_learning_starts=20", "train_batch_size_per_learner=8", "num_env_steps_per_update=10"]
    settings += ["min_sample_timesteps_per_iteration=40"]
    assert (
        main(["train", "simple_spread", "--out", str(run), "--env-steps", "40", "--eval-episodes", "0", "--set", *settings])
        == 0
    )
    checkpoint = find_checkpoint(run)[0]
    make_unused_settings(checkpoint, {"clip_actions": True, "max_requests_in_flight_per_env_runner": 9})
    assert main(["train", "--resume", str(run), "--env-steps", "80", "--eval-episodes", "0"]) == 0
    assert json.loads((run / "params.json").read_text())["clip_actions"] is False
    assert load_config(find_checkpoint(run)[0]).max_requests_in_flight_per_env_runner == 1
