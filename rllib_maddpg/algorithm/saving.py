"""Checkpoints of the algorithm: what is in them, and that they are whole and fit before anything of them is taken."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.fs
from ray.exceptions import RayError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import (
    COMPONENT_ENV_RUNNER,
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_EVAL_ENV_RUNNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
)
from ray.rllib.utils.annotations import override

from rllib_maddpg.algorithm import class_file
from rllib_maddpg.algorithm.checkpoint_files import CLASS_FILE, HAS_HASHES, METADATA_FILE, CheckpointFiles, damaged
from rllib_maddpg.algorithm.checkpoints import LAYOUT, SCHEMA, check_layout, check_ray, check_schema, forget_unused, read_class
from rllib_maddpg.algorithm.state_checks import COUNTS, REPLAY_BUFFER, check_replay_type, check_states
from rllib_maddpg.replay.answers import check_own_state
from rllib_maddpg.sampling.env_runner import EPISODE_NUMBERS

STEPS_SINCE_UPDATE = "env_steps_since_update"
# All that a checkpoint can have.
_PARTS = (
    METADATA_FILE,
    CLASS_FILE,
    f"{Algorithm.STATE_FILE_NAME}.pkl",
    f"{Algorithm.STATE_FILE_NAME}.msgpack",
    COMPONENT_LEARNER_GROUP,
    COMPONENT_ENV_RUNNER,
    COMPONENT_EVAL_ENV_RUNNER,
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    REPLAY_BUFFER,
)


class SavedAlgorithm(Algorithm):
    """The part of `MADDPG` that saves and restores it."""

    def __init__(self, config: Any = None, env: Any = None, **kwargs: Any):
        # A config's state, with which RLlib makes an algorithm from a checkpoint.
        if isinstance(config, dict) and "class" in config:
            config = dict(config)
            forget_unused(config)
        super().__init__(config, env, **kwargs)

    @override(Algorithm)
    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        components = super().get_checkpointable_components()
        if self.config.store_buffer_in_checkpoints:
            components.append((REPLAY_BUFFER, self.replay_buffer))
        return components

    @override(Algorithm)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self.config.store_buffer_in_checkpoints and self._check_component(REPLAY_BUFFER, components, not_components):
            state[REPLAY_BUFFER] = self.replay_buffer.get_state()
            check_own_state(self.replay_buffer, state[REPLAY_BUFFER])
        state[STEPS_SINCE_UPDATE] = self._env_steps_since_update
        state[COUNTS] = {"env_steps": self._env_steps, "updates": self._num_updates}
        state[EPISODE_NUMBERS] = self._episode_numbers
        return state

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if REPLAY_BUFFER in state:
            self.replay_buffer.set_state(state[REPLAY_BUFFER])
        self._env_steps_since_update = state.get(STEPS_SINCE_UPDATE, self._env_steps_since_update)
        if COUNTS in state:
            self._env_steps, self._num_updates = state[COUNTS]["env_steps"], state[COUNTS]["updates"]
            self._reported_at, self._iteration_began = self._env_steps, None
        if EPISODE_NUMBERS in state:
            self._episode_numbers = dict(state[EPISODE_NUMBERS])
            self._push_episode_numbers()

    @override(Algorithm)
    def get_metadata(self) -> dict[str, Any]:
        rows = {LAYOUT: self.layout.description(), SCHEMA: self.schema.stored.description()}
        replay = {REPLAY_BUFFER: self.replay_buffer.real_class.__qualname__}
        return {**super().get_metadata(), **rows, **replay, HAS_HASHES: True}

    # ------------------------------------------------------------------------------------------ saving

    @override(Algorithm)
    def save_to_path(self, path: Any = None, *, filesystem: pyarrow.fs.FileSystem | None = None, **kwargs: Any) -> str:
        """As RLlib's, and writes down the hashes of all files at the end.

        A checkpoint that is in the folder already is replaced, see `CheckpointFiles.replaced`.
        """
        files = CheckpointFiles(tempfile.mkdtemp() if path is None else path, filesystem)
        with files.replaced(_PARTS) as new:
            super().save_to_path(new.root.as_posix(), filesystem=new.filesystem, **kwargs)
            if class_file.is_actors(type(self)):  # as Tune's trials are
                new.write(CLASS_FILE, class_file.dumps(self))
            if self.config.num_learners and "state" not in kwargs:
                self._check_what_a_learner_wrote(new)
            new.write_hashes(_PARTS)
        return files.root.as_posix()

    def _check_what_a_learner_wrote(self, files: CheckpointFiles) -> None:
        """RLlib does not look whether the remote Learner that wrote its part has failed to."""
        try:
            check_states(self, CheckpointFiles(files.at(COMPONENT_LEARNER_GROUP), files.filesystem), COMPONENT_LEARNER_GROUP)
        except ValueError as error:
            raise OSError(f"A Learner could not write its part of checkpoint {files.path}: {error.__cause__}") from error

    # ------------------------------------------------------------------------------------------ restoring

    @override(Algorithm)
    def restore_from_path(
        self,
        path: Any,
        *,
        component: str | None = None,
        filesystem: pyarrow.fs.FileSystem | None = None,
        _checked: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Restores a checkpoint, or one component of it; arguments as RLlib's.

        Args:
            path: Of the checkpoint, or of the component's folder in it.
            component: Name of the component, such as "learner_group/learner/rl_module/agent_0".
            filesystem: That of `path`; None: as the path says.
            _checked: From `from_checkpoint`, which has compared the files: whether their content is known to be right.
            **kwargs: RLlib's.

        Raises:
            ValueError: If it is missing, damaged, or of another environment, layout or model, with nothing changed.
        """
        try:
            self._restore(CheckpointFiles(path, filesystem), component or "", _checked, **kwargs)
        except BaseException:
            if _checked is not None:
                self.stop()  # nobody else knows of it
            raise

    def _restore(self, files: CheckpointFiles, component: str, is_right: bool | None, **kwargs: Any) -> None:
        whole = files.whole_of(component)
        if is_right is None:
            is_right = whole is not None and whole.check((component,))
        if not component:
            metadata = files.read_metadata()
            check_ray(metadata, files.path)
            check_layout(metadata, self.layout, files.path)
            if self.config.store_buffer_in_checkpoints and files.is_dir(REPLAY_BUFFER):
                check_schema(metadata, self.schema.stored, files.path)
        if whole is not None and component in ("", REPLAY_BUFFER) and self.config.store_buffer_in_checkpoints:
            check_replay_type(whole, self.replay_buffer)
        with files.on_this_machine() as local:
            # Rows of the right layout fit.
            check_states(self, local, component, skipped=(REPLAY_BUFFER,) if is_right else ())
            with self._unchanged_on_error(files.path):
                only = {"component": component} if component else {}
                super().restore_from_path(str(local.root), filesystem=local.filesystem, **only, **kwargs)
                if not component:
                    # At the end some Rays tell remote runners another clock.
                    self._push_episode_numbers()

    @contextmanager
    def _unchanged_on_error(self, path: Any) -> Iterator[None]:
        """Takes back what was restored when a component cannot be, such as a connector of the user's.

        Replay rows are not: they come after all others, and were found to fit.
        """
        before = copy.deepcopy(self.get_state(not_components=[REPLAY_BUFFER]))
        try:
            yield
        except Exception as error:
            self.set_state(before)
            if isinstance(error, RayError):
                raise
            raise damaged(path, error) from error

    @classmethod
    @override(Algorithm)
    def from_checkpoint(cls, path: Any, filesystem: pyarrow.fs.FileSystem | None = None, **kwargs: Any) -> SavedAlgorithm:
        """A new algorithm in the state of a checkpoint; errors as in `restore_from_path`."""
        files = CheckpointFiles(path, filesystem)
        is_right = files.check()
        metadata = files.read_metadata()
        check_ray(metadata, files.path)
        version = metadata.get("checkpoint_version")
        if not str(version).startswith("2."):
            raise damaged(files.path, f"{METADATA_FILE}: checkpoint_version={version!r} is not one of RLlib's new API stack")
        given = {name: kwargs.pop(name) for name in ("config", "env") if name in kwargs}
        try:
            # RLlib would go on without a config where it cannot read this, as for an actor's class of another version.
            saved, _, args, own = read_class(files)
        except ValueError:
            if "config" not in given:
                raise
            saved, args, own = cls, [], {}
        if not issubclass(saved, cls):
            raise ValueError(f"Checkpoint {files.path} is one of {saved.__name__}, not of {cls.__name__}.")
        if "config" in given:
            args = [given.pop("config"), *args[1:]]
        algo = saved(*args, **{**own, **given})
        algo.restore_from_path(files.root.as_posix(), filesystem=files.filesystem, _checked=is_right, **kwargs)
        return algo
