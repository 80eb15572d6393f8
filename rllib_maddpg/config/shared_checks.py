"""Which settings a trial in a shared learner can have."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.kinds import Kind
from rllib_maddpg.config.replay_checks import check_replay_class
from rllib_maddpg.config.require import require
from rllib_maddpg.shared.names import DEFAULT_NAME, NAME_WORDS, is_name

SHARED_LEARNER = Kind(
    f"{NAME_WORDS}, True, or None",
    lambda x: x is None or isinstance(x, bool) or is_name(x),
    f"True: the one of the name {DEFAULT_NAME!r}. None: the trial learns for itself.",
)
_IN_TURN = "Trials of a shared learner have one Learner each, in its process."


def shared_learner_name(config: AlgorithmConfig) -> str | None:
    """The name of the shared learner that a trial learns in; None: it learns for itself."""
    name = config.shared_learner
    return DEFAULT_NAME if name is True else name or None


def check_shared_learner(config: AlgorithmConfig) -> None:
    """A trial in a shared learner has nothing that only a Learner in a process of its own can have.

    Raises:
        ValueError: If it has.
    """
    if shared_learner_name(config) is None:
        return
    for key, default, fix in (
        ("num_learners", 0, _IN_TURN),
        ("num_gpus_per_learner", 0, "The shared learner has the GPU: trials ask for none."),
        ("local_gpu_idx", 0, "The shared learner has one GPU, which Ray gives it."),
        ("torch_compile_learner", False, "Updates of several trials are made together, which is not compiled."),
    ):
        _require(config, key, not getattr(config, key), repr(default), fix)
    fix = "It makes graphs of several trials' updates, where it has a GPU."
    _require(config, "cuda_graph", config.cuda_graph is not True, "'auto' or False", fix)
    own, cls = config.get_default_learner_class(), config._learner_class
    from rllib_maddpg.learning.learner import MADDPGTorchLearner

    fix = "The updates of several trials are made as one, by MADDPG's own Learner. Leave `shared_learner` out for others."
    _require(config, "learner_class", (cls or own) is MADDPGTorchLearner, "MADDPGTorchLearner", fix, cls or own)
    _check_replay(config)


def _check_replay(config: AlgorithmConfig) -> None:
    cls, settings = check_replay_class(config)
    fix = "Rows lie beside the Learner, in the shared learner."
    shards = config.replay_buffer_config["num_shards"]
    _require(config, "replay_buffer_config['num_shards']", not shards, "0", fix, shards)
    kind = config.replay_buffer_config["type"]
    fix = "A replay buffer that starts actors asks for their resources in the trial's placement group."
    _require(config, "replay_buffer_config['type']", not cls.resources(settings), "one that starts no actors", fix, kind)


def _require(config: AlgorithmConfig, key: str, ok: bool, allowed: str, fix: str, *value: Any) -> None:
    fix = f"{fix} Set `shared_learner=None` to let the trial learn for itself."
    require(config, key, ok, f"{allowed} with `shared_learner`", fix, *value)
