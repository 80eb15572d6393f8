"""Whether a running algorithm can take the states in a checkpoint, found out before it takes any of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import (
    COMPONENT_ENV_RUNNER,
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_METRICS_LOGGER,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    COMPONENT_OPTIMIZER,
    COMPONENT_RL_MODULE,
)
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.checkpoints import Checkpointable, try_import_msgpack
from ray.tune.result import TRAINING_ITERATION

from rllib_maddpg.algorithm.checkpoint_files import RL_MODULE, CheckpointFiles, damaged, is_in
from rllib_maddpg.modules.normalizing import STATE_OF, check_same_normalization
from rllib_maddpg.modules.sub_policies import MOST, sub_policy_names
from rllib_maddpg.ray_compat import metrics_logger
from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.replay.choice import takes_state_of
from rllib_maddpg.replay.protocol import JointReplay

REPLAY_BUFFER = "replay_buffer"
COUNTS = "counts"
CONNECTORS = COMPONENT_ENV_TO_MODULE_CONNECTOR, COMPONENT_MODULE_TO_ENV_CONNECTOR


def check_states(algo: Any, files: CheckpointFiles, component: str = "", skipped: tuple[str, ...] = ()) -> None:
    """Reads every state that the algorithm would restore, and compares it with what the algorithm has.

    Args:
        algo: A `MADDPG`.
        files: The checkpoint's folder, or that of a component.
        component: That component's name, such as "learner_group/learner"; "": all.
        skipped: Components whose states need not be read.

    Raises:
        ValueError: Naming the folder of the checkpoint in which a state is missing, damaged or of another shape.
    """
    for name, (state_file, is_needed, check) in _expected(algo).items():
        if not is_in(name, component) or name in skipped:
            continue
        folder = name[len(component) :].lstrip("/")
        if is_needed or files.is_dir(folder):
            check_state(files, folder, state_file, check, name)


def check_state(files: CheckpointFiles, folder: str, state_file: str, check: Callable[[Any], None], name: str) -> None:
    """Reads one component's state and has it checked; the errors name the component."""
    try:
        state = _read(files, folder, state_file)
        if not isinstance(state, dict):
            raise TypeError(f"{type(state).__name__} instead of a dict")
        check(state)
    except ValueError as error:
        raise ValueError(
            f"Checkpoint {files.path} does not fit this algorithm, or is damaged: {name or 'algorithm'}: {error}"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{name or 'algorithm'}: {type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("numpy."):
            reason += ": NumPy 1 cannot read what NumPy 2 has written"
        raise damaged(files.path, reason) from error


def check_connector(files: CheckpointFiles, name: str, connector: ConnectorV2) -> None:
    """As `check_states`, for a connector or a pipeline of them."""
    for part, (state_file, is_needed, check) in _runner_parts(name, connector, needed=True).items():
        if is_needed or files.is_dir(part):
            check_state(files, part, state_file, check, part)


def check_weights(state: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Refuses weights that are not of the same names and shapes as a module's own.

    Raises:
        ValueError: Naming the first weights that differ.
    """
    check_same_normalization(state, mine, tuple(STATE_OF), "its weights")
    for name in sorted(state.keys() | mine.keys()):
        here, there = (np.shape(w[name]) if name in w else None for w in (mine, state))
        if here != there:
            raise ValueError(
                f"weights {name!r} have shape {there} there and {here} here. Use the `model_config` and the modules that the "
                "checkpoint was made with."
            )


def check_replay_type(files: CheckpointFiles, replay: JointReplay) -> None:
    """Refuses the rows of a replay buffer of another class, unless `replay` can take them.

    Raises:
        ValueError: Naming both classes.
    """
    # Those of before there were others have no name, and are of ours.
    saved, own = files.read_metadata().get(REPLAY_BUFFER, JointReplayBuffer.__qualname__), replay.real_class
    if files.is_dir(REPLAY_BUFFER) and not takes_state_of(own, saved):
        raise ValueError(
            f"Checkpoint {files.path} has the state of a {saved}, which a {own.__qualname__} does not take. Set "
            f"`replay_buffer_config['type']` to that class, or go on without the rows: "
            "`config.training(store_buffer_in_checkpoints=False)`."
        )


def _read(files: CheckpointFiles, folder: str, state_file: str) -> Any:
    path = f"{folder}/{state_file}".lstrip("/")
    if files.is_file(f"{path}.msgpack"):  # RLlib, too, prefers it
        return try_import_msgpack(error=True).unpackb(files.read(f"{path}.msgpack"), strict_map_key=False)
    if not files.is_file(f"{path}.pkl"):
        raise ValueError(f"{path}.pkl is missing")
    return pickle.loads(files.read(f"{path}.pkl"))


# For each component: its file of state without ending, whether it must be there, and what checks the state.
_Expected = dict[str, tuple[str, bool, Callable[[Any], None]]]


def _expected(algo: Any) -> _Expected:
    learner = f"{COMPONENT_LEARNER_GROUP}/{COMPONENT_LEARNER}"
    shapes = next(iter(algo.learner_group.foreach_learner(lambda own: own.optimizer_shapes()))).get()
    config = algo.config
    expected: _Expected = {
        "": (algo.STATE_FILE_NAME, True, lambda state: _check_algorithm(state, config)),
        COMPONENT_LEARNER_GROUP: (Checkpointable.STATE_FILE_NAME, True, _anything),
        learner: (Checkpointable.STATE_FILE_NAME, True, lambda state: _check_learner(state, shapes, config)),
        RL_MODULE: (RLModule.STATE_FILE_NAME, True, _anything),
    }
    for module, weights in algo.learner_group.get_weights().items():
        check = lambda state, weights=weights: check_weights(state, weights)  # noqa: E731
        expected[f"{RL_MODULE}/{module}"] = RLModule.STATE_FILE_NAME, True, check
    for name, component in algo.get_checkpointable_components():
        if name == REPLAY_BUFFER:
            expected[name] = component.STATE_FILE_NAME, False, component.check_state
        elif name != COMPONENT_LEARNER_GROUP:
            # Evaluation takes its connectors' states from training, and may be new.
            needed = name in (COMPONENT_ENV_RUNNER, *CONNECTORS)
            expected |= _runner_parts(name, component, needed)
    return expected


def _runner_parts(name: str, component: Any, needed: bool) -> _Expected:
    """A component beside the learners, and its own ones; of the connectors those that have a state are needed."""
    is_stateful = isinstance(component, ConnectorV2) and bool(component.get_state())
    check = getattr(component, "check_state", _anything)
    parts: _Expected = {name: (component.STATE_FILE_NAME, needed and is_stateful, check)}
    for own_name, own in component.get_checkpointable_components():
        if own_name != COMPONENT_RL_MODULE:
            parts |= _runner_parts(f"{name}/{own_name}", own, needed)
    return parts


def _anything(state: Any) -> None:
    pass


# ------------------------------------------------------------------------------------------ what single states must have


def _check_algorithm(state: dict[str, Any], config: AlgorithmConfig) -> None:
    counts = {TRAINING_ITERATION: state[TRAINING_ITERATION], **state.get(COUNTS, {})}
    for name, count in counts.items():
        if not isinstance(count, (int, np.integer)) or count < 0:
            raise ValueError(f"{name}={count!r} is no count")
    _check_metrics(state, config)


def _check_learner(state: dict[str, Any], shapes: dict[str, list[tuple]], config: AlgorithmConfig) -> None:
    optimizers = state[COMPONENT_OPTIMIZER]
    for module in config.policies:
        there, here = (sum(f"{module}_{name}" in own for name in sub_policy_names(MOST)) for own in (optimizers, shapes))
        if there != here:
            raise ValueError(
                f"module {module!r} has {there} sub-policies there and {here} here. Set `num_sub_policies={there}` for it, as "
                "the checkpoint was made, or train again"
            )
    if optimizers.keys() != shapes.keys():
        raise ValueError(f"it has optimizers {sorted(optimizers)}, not {sorted(shapes)}")
    for name, optimizer in optimizers.items():
        own = dict(enumerate(shapes[name]))
        saved = optimizer["state"]
        params = [p for group in saved["param_groups"] for p in group["params"]]
        if params != list(own):
            raise ValueError(
                f"optimizer {name!r} has {len(params)} parameters, not {len(own)}. Use the `model_config`, and settings such "
                "as `critic_type`, that the checkpoint was made with"
            )
        for p, moments in saved["state"].items():
            for moment, value in moments.items():
                if np.shape(value) not in ((), own[p]):
                    raise ValueError(f"{moment!r} of optimizer {name!r} has shape {np.shape(value)}, not {own[p]}")
    _check_metrics(state, config)


def _check_metrics(state: dict[str, Any], config: AlgorithmConfig) -> None:
    if COMPONENT_METRICS_LOGGER in state:
        # There is no other check than to have some logger take it.
        metrics_logger(config, root=False).set_state(state[COMPONENT_METRICS_LOGGER])
