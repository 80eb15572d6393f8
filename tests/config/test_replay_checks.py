"""`replay_buffer_config` with values that are not allowed; no actor is started."""

import sys

import pytest
from users_replays import FetchingReplay, LacksLatest, LatestAlone, NoSeed, NoShuffled, NoStore, Other, PlainReplay, StoresOne

from rllib_maddpg import MADDPG, MADDPGConfig

PRIORITIZED = "users_replays.PrioritizedReplay"


def config_for(**buffer):
    return MADDPGConfig().environment("simple_spread").training(replay_buffer_config=buffer)


@pytest.mark.parametrize(
    ("buffer", "text"),
    [
        ({"type": "nowhere.at_all.Replay"}, "There is no module 'nowhere': correct the path, or put it on PYTHONPATH."),
        ({"type": "users_replays.inner.Replay"}, "There is no module 'users_replays.inner'"),
        ({"type": "users_replays.Prioritised"}, "Module 'users_replays' has no 'Prioritised'. Its classes are ["),
        ({"type": "JointReplayBufer"}, "Did you mean 'JointReplayBuffer'"),
        ({"type": ""}, "'' is no path of the form 'package.module.Class'"),
        ({"type": ".x"}, "'.x' is no path of the form 'package.module.Class'"),
        ({"type": "..x.y"}, "Module '..x' cannot be imported (TypeError"),
        ({"type": "users_replays.np"}, "It is no class, but of type module."),
        ({"type": 3}, "It is no class, but of type int."),
        ({"type": None}, "It is no class, but of type NoneType."),
        ({"type": ["JointReplayBuffer"]}, "It is no class, but of type list."),
        ({"type": "users_replays.Other"}, "Other is no subclass of rllib_maddpg.replay.JointReplay."),
        ({"type": Other}, "Other is no subclass of rllib_maddpg.replay.JointReplay."),
        ({"type": LacksLatest}, "LacksLatest lacks ['latest'] of rllib_maddpg.replay.JointReplay."),
        (
            {"type": "ray.rllib.utils.replay_buffers.MultiAgentEpisodeReplayBuffer"},
            "RLlib's own buffers take joint transitions apart",
        ),
    ],
)
def test_classes_that_are_none(buffer, text):
    with pytest.raises(ValueError) as error:
        config_for(**buffer).validate()
    start = f"`replay_buffer_config['type']`={buffer['type']!r} is not allowed: it must be one of ['JointReplayBuffer', "
    assert str(error.value).startswith(start) and text in str(error.value)


@pytest.mark.parametrize(
    ("buffer", "text"),
    [
        ({"type": NoSeed}, "NoSeed takes ['capacity'], and got an unexpected keyword argument 'seed'."),
        ({"type": PlainReplay, "alpha": 1}, "PlainReplay takes ['capacity', 'seed'], and got an unexpected keyword argument"),
        ({"type": PlainReplay, "num_shards": 2}, "got an unexpected keyword argument 'num_shards'"),
        ({"type": PlainReplay, "device": "cuda"}, "got an unexpected keyword argument 'device'"),
        (
            {"type": PRIORITIZED, "beta": 1},
            "takes ['capacity', 'seed', 'alpha'], and got an unexpected",
        ),
        ({"type": PRIORITIZED, "alpha": 2}, "it must be what PrioritizedReplay accepts. alpha=2 does not lie in [0, 1]."),
        (
            {"type": PRIORITIZED, "alpha": "x"},
            "it must be what PrioritizedReplay accepts. `PrioritizedReplay.check` raised TypeError: '<='",
        ),
        ({"type": PRIORITIZED, "seed": 3}, "The seed is that of the config"),
        ({"type": PRIORITIZED, "schema": 3}, "'schema'"),
        (
            {"alpha": 0.6},
            "takes ['capacity', 'seed', 'device'], and got an unexpected keyword argument 'alpha'",
        ),
        ({"type": "ShardedReplayBuffer"}, "It needs `num_shards` of at least 1"),
    ],
)
def test_keys_that_a_class_does_not_take(buffer, text):
    with pytest.raises(ValueError) as error:
        config_for(**buffer).validate()
    assert str(error.value).startswith("`replay_buffer_config`={'type': ") and text in str(error.value)


def test_methods_that_do_not_take_what_they_are_called_with():
    for cls, method, text in [
        (NoShuffled, "draw", "takes (self, learners, updates, rows, shuffled). `NoShuffled.draw`: got an unexpected"),
        (StoresOne, "store", "`StoresOne.store`: too many positional arguments."),
        (LatestAlone, "latest", "`LatestAlone.latest`: missing a required argument: 'columns'."),
        (NoStore, "store", "`NoStore.store`: None is not a callable object."),
    ]:
        with pytest.raises(ValueError) as error:
            config_for(type=cls).validate()
        start = f"`replay_buffer_config['type']`={cls!r} is not allowed: it must be a class whose `{method}` takes (self, "
        assert str(error.value).startswith(start) and text in str(error.value)


@pytest.mark.parametrize(
    ("method", "answer", "text"),
    [
        ("parts", lambda: 0, "a class whose `parts` returns a whole number >= 1. `Own.parts` returned 0."),
        ("parts", lambda: "a", "`Own.parts` returned 'a'."),
        ("parts", lambda: 2.0, "`Own.parts` returned 2.0."),
        ("parts", lambda: {}["gone"], "`Own.parts` raised KeyError: 'gone'"),
        ("resources", lambda: {"CPU": 1}, "a list of dicts with numbers >= 0, one dict for each actor, such as [{'CPU': 1}]"),
        ("resources", lambda: None, "`Own.resources` returned None."),
        ("resources", lambda: ["CPU"], "`Own.resources` returned ['CPU']."),
        ("resources", lambda: [{"CPU": "1"}], "`Own.resources` returned [{'CPU': '1'}]."),
        ("resources", lambda: [{"CPU": -1}], "`Own.resources` returned [{'CPU': -1}]."),
        ("resources", lambda: {}["gone"], "`Own.resources` raised KeyError: 'gone'"),
        ("check", lambda: {}["gone"], "it must be what Own accepts. `Own.check` raised KeyError: 'gone'"),
    ],
)
def test_class_methods_that_fail_or_answer_something_else(method, answer, text):
    own = type("Own", (PlainReplay,), {method: classmethod(lambda cls, settings: answer())})
    own.__qualname__ = "Own"
    config = config_for(type=own)
    for ask in (config.validate, lambda: MADDPG.default_resource_request(config.to_dict())):
        with pytest.raises(ValueError) as error:
            ask()
        assert str(error.value).startswith("`replay_buffer_config") and text in str(error.value)


def test_names_of_the_classes_whose_states_are_taken():
    for restores in (3, None, [PlainReplay]):
        with pytest.raises(ValueError, match=r"a class whose `restores` has names of classes. `Own.restores` is "):
            config_for(type=type("Own", (PlainReplay,), {"restores": restores})).validate()
    for restores in ("PlainReplay", ["PlainReplay"], {"PlainReplay"}):
        config_for(type=type("Own", (PlainReplay,), {"restores": restores})).validate()


def test_a_config_without_words_as_keys():
    with pytest.raises(
        ValueError, match=r"`replay_buffer_config`=\{.* 1: 2\} is not allowed: it must be a dict with words as keys"
    ):
        MADDPGConfig().environment("simple_spread").training(replay_buffer_config={1: 2}).validate()


def test_only_classes_that_a_module_defines_are_its_classes():
    with pytest.raises(ValueError, match=r"Module 'users_replays' has no 'Nothing'") as error:
        config_for(type="users_replays.Nothing").validate()
    assert "'PlainReplay'" in str(error.value) and "'JointBatch'" not in str(error.value)
    # What a package's modules define is the package's, too.
    with pytest.raises(
        ValueError, match=r"Its classes are \['JointReplayBuffer', 'PrioritizedJointReplayBuffer', 'JointReplay', 'Stored'\]"
    ):
        config_for(type="rllib_maddpg.replay.Nothing").validate()


def test_checks_of_ours_hold_for_all_classes(monkeypatch):
    with pytest.raises(ValueError, match=r"`replay_buffer_config\['capacity'\]`=7 .* total train batch size of 1024"):
        config_for(type=PlainReplay, capacity=7).validate()
    with pytest.raises(ValueError, match=r"`replay_buffer_config\['capacity'\]`=1000000000000 rows .* GiB"):
        config_for(type=PlainReplay, capacity=10**12).validate()
    with pytest.raises(ValueError, match=r"`rollout_fragment_length`=2000 .* capacity of 1024 rows"):
        config_for(type=PlainReplay, capacity=1024).env_runners(rollout_fragment_length=2000).validate()
    # One of several parts needs less memory of each machine, and holds shorter fragments.
    monkeypatch.setattr(FetchingReplay, "parts", classmethod(lambda cls, settings: 10**6))
    config_for(type=FetchingReplay, capacity=10**12).validate()
    with pytest.raises(ValueError, match=r"`rollout_fragment_length`=50 .* capacity of 2 rows of each shard"):
        config_for(type=FetchingReplay, capacity=2 * 10**6).env_runners(rollout_fragment_length=50).validate()


def test_modules_that_fail(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, code, text in [
        (
            "needs_more",
            "import not_installed_at_all",
            "'needs_more' needs 'not_installed_at_all', which is not installed.",
        ),
        ("breaks", "1 / 0", "Module 'breaks' cannot be imported (ZeroDivisionError: division by zero)."),
        ("unreadable", "def", "Module 'unreadable' cannot be imported (SyntaxError"),
    ]:
        (tmp_path / f"{name}.py").write_text(code)
        with pytest.raises(ValueError) as error:
            config_for(type=f"{name}.Replay").validate()
        assert text in str(error.value) and name not in sys.modules


def test_room_for_actors():
    """As Tune asks for it."""

    def bundles(**buffer):
        return MADDPG.default_resource_request(config_for(**buffer).to_dict()).bundles

    usual = bundles()
    assert bundles(type=PRIORITIZED, alpha=0.5) == usual
    assert bundles(num_shards=2) == [*usual, {"CPU": 1}, {"CPU": 1}]
    assert bundles(type="ShardedReplayBuffer", num_shards=1) == [*usual, {"CPU": 1}]
    assert bundles(type=FetchingReplay) == [*usual, {"CPU": 0.5}]
    for buffer, text in [({"num_shards": "x"}, "a whole number >= 0"), ({"type": "nowhere.Replay"}, "no module 'nowhere'")]:
        with pytest.raises(ValueError, match=text):
            bundles(**buffer)
