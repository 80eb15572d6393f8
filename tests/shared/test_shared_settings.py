"""Settings that a trial in a shared learner cannot have; no actor is started."""

import pytest
import torch
from users_replays import FetchingReplay

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.config.shared_checks import shared_learner_name
from rllib_maddpg.learning.learner import MADDPGTorchLearner


class OwnLearner(MADDPGTorchLearner):
    """Is not quite MADDPG's."""


def shared_config(name=True):
    return MADDPGConfig().environment("simple_spread").learners(shared_learner=name)


@pytest.mark.parametrize(("value", "name"), [(None, None), (False, None), (True, "default"), ("sweep-1:a.b", "sweep-1:a.b")])
def test_names(value, name):
    config = shared_config(value)
    config.validate()
    assert shared_learner_name(config) == name and config.shared_learner is value


@pytest.mark.parametrize("value", ["", "two words", "a/b", 3, 1.0, ["default"], "x" * 201])
def test_what_is_no_name(value):
    with pytest.raises(ValueError, match=r"^`shared_learner`=.* is not allowed: it must be the name of a shared learner"):
        shared_config(value).validate()


@pytest.mark.parametrize(
    ("method", "settings", "key", "allowed"),
    [
        ("learners", {"num_learners": 1}, "num_learners", "0"),
        ("learners", {"num_gpus_per_learner": 0.5}, "num_gpus_per_learner", "0"),
        ("learners", {"local_gpu_idx": 1}, "local_gpu_idx", "0"),
        ("framework", {"torch_compile_learner": True}, "torch_compile_learner", "False"),
        ("training", {"cuda_graph": True}, "cuda_graph", "'auto' or False"),
        ("training", {"replay_buffer_config": {"num_shards": 2}}, "replay_buffer_config['num_shards']", "0"),
        (
            "training",
            {"replay_buffer_config": {"type": FetchingReplay}},
            "replay_buffer_config['type']",
            "one that starts no actors",
        ),
    ],
)
def test_what_cannot_share_is_refused_by_its_key(method, settings, key, allowed):
    config = getattr(shared_config(), method)(**settings)
    with pytest.raises(ValueError) as error:
        config.validate()
    text = str(error.value)
    assert text.startswith(f"`{key}`=") and f"is not allowed: it must be {allowed} with `shared_learner`. " in text
    assert text.endswith("Set `shared_learner=None` to let the trial learn for itself.")


def test_other_learners_are_refused():
    config = shared_config()
    config._learner_class = OwnLearner
    with pytest.raises(
        ValueError, match=r"^`learner_class`=<class .*OwnLearner'> is not allowed: it must be MADDPGTorchLearner"
    ):
        config.validate()


def test_rows_may_lie_on_a_gpu_that_the_trial_does_not_see():
    config = shared_config().training(replay_buffer_config={"device": "cuda", "capacity": 10**12})
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device"):
            config.copy().learners(shared_learner=None).validate()
    config.validate()


def test_evaluation_may_share_too():
    config = shared_config().evaluation(evaluation_interval=1, evaluation_duration=1)
    config.validate()
    assert config.get_evaluation_config_object().shared_learner is True
