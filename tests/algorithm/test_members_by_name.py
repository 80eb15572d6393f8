"""The members of the family as RLlib's algorithms: known by name, and their checkpoints say of which member they are."""

import pytest
from members import train_all_elsewhere
from own_members import OwnMember, PlainMember
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.tune.registry import get_trainable_cls
from tiny_algorithm import same, state_of, tiny_config

from rllib_maddpg import IDDPG, MADDPG, MATD3, InferredMADDPG, MADDPGConfig, MATD3Config
from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.algorithm.members import MEMBERS, algorithm_class, algorithm_name, new_config
from rllib_maddpg.deploy.export import export_actors
from rllib_maddpg.plotting.curves import find_runs
from rllib_maddpg.runs.evaluation import evaluate_checkpoint

PRESETS = MATD3, IDDPG, InferredMADDPG


def test_names_are_known_to_rllib_and_tune():
    assert list(MEMBERS.values()) == [MADDPG, *PRESETS]
    for name, cls in MEMBERS.items():
        assert name == cls.__name__ and get_trainable_cls(name) is cls
        found, config = ALGORITHMS[name]()
        assert found is cls and type(config) is type(cls.get_default_config())


@pytest.mark.parametrize("name", [*MEMBERS, "own_members:OwnMember", "own_members:PlainMember"])
def test_a_class_has_the_name_that_it_is_found_by(name):
    assert algorithm_name(algorithm_class(name)) == name
    assert algorithm_class(name.replace(":", ".")) is algorithm_class(name)
    config = new_config(name)
    assert config.algo_class is algorithm_class(name)
    assert type(config) is type(config.algo_class.get_default_config())


def test_no_name_is_maddpg():
    assert algorithm_class(None) is MADDPG and type(new_config(None)) is MADDPGConfig


@pytest.fixture(scope="module")
def saved(ray_session, tmp_path_factory):
    """Of each member an algorithm after one iteration, and its checkpoint."""
    made = {}
    for cls in (*PRESETS, PlainMember, OwnMember):
        algo = tiny_config(config=new_config(algorithm_name(cls))).build_algo()
        algo.train()
        made[cls] = algo, algo.save_to_path(str(tmp_path_factory.mktemp(cls.__name__)))
    yield made
    for algo, _ in made.values():
        algo.stop()


@pytest.mark.parametrize("cls", [*PRESETS, PlainMember, OwnMember])
def test_a_checkpoint_is_one_of_its_member(cls, saved, tmp_path):
    algo, checkpoint = saved[cls]
    assert type(algo) is cls
    config = load_config(checkpoint)
    assert config.algo_class is cls and type(config) is type(cls.get_default_config())
    for key in config.table():
        assert getattr(config, key) == getattr(algo.config, key), key
    again = Algorithm.from_checkpoint(checkpoint)
    assert type(again) is cls and same(state_of(again), state_of(algo))
    again.stop()
    assert evaluate_checkpoint(checkpoint, episodes=2).episodes == 2
    export = export_actors(checkpoint, "safetensors", tmp_path / "exported")
    assert set(export.manifest["agents"]) == {"adversary_0", "agent_0", "agent_1"}


def test_they_go_on_in_another_process(saved, tmp_path):
    train_all_elsewhere({saved[cls][1]: str(tmp_path / cls.__name__) for cls in PRESETS}, 1)
    for cls in PRESETS:
        again, there = (Algorithm.from_checkpoint(path) for path in (saved[cls][1], str(tmp_path / cls.__name__)))
        again.train()
        assert type(there) is cls and same(state_of(again), state_of(there))
        again.stop()
        there.stop()


@pytest.mark.parametrize("how", ["tune.run", "Tuner"])
def test_tune_runs_a_member_by_its_name(how, ray_session, tmp_path):
    stop, config = {"training_iteration": 1}, tiny_config(config=MATD3Config()).training(policy_delay=3)
    if how == "tune.run":
        at_end = {"checkpoint_at_end": True, "storage_path": str(tmp_path), "verbose": 0}
        (trial,) = tune.run("MATD3", config=config.to_dict(), stop=stop, **at_end).trials
        checkpoint = trial.checkpoint
    else:
        at_end = tune.RunConfig(
            stop=stop,
            storage_path=str(tmp_path),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        )
        checkpoint = tune.Tuner("MATD3", param_space=config, run_config=at_end).fit()[0].checkpoint
    had = load_config(checkpoint.path)
    assert (had.algo_class, had.twin_q, had.policy_delay) == (MATD3, True, 3)
    (run,) = find_runs([tmp_path])
    assert (run.settings["algorithm"], run.settings["twin_q"], run.settings["policy_delay"]) == ("MATD3", True, 3)


def test_the_checkpoint_of_another_member_is_refused(saved):
    for cls, other in ((MATD3, IDDPG), (IDDPG, MATD3)):
        with pytest.raises(ValueError, match=f"is one of {other.__name__}, not of {cls.__name__}"):
            cls.from_checkpoint(saved[other][1])
