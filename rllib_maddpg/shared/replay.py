"""What a trial has instead of a replay buffer of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.fs
import torch
from ray import cloudpickle as pickle
from ray.rllib.utils.annotations import override
from ray.rllib.utils.checkpoints import Checkpointable

from rllib_maddpg.replay.buffer import JointReplayBuffer
from rllib_maddpg.replay.choice import replay_class
from rllib_maddpg.replay.protocol import JointReplay, Stored
from rllib_maddpg.replay.state_check import check_buffer_state
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.shared.calls import Draw, ReplayAnswer
from rllib_maddpg.shared.client import SlotClient

# Rows that wait for the next update; more are sent by themselves.
MAX_WAITING = 4096


class DrawnThere:
    """Stands for a batch that the shared learner draws when it learns from it.

    Attributes:
        draw: What is to be drawn.
        replay: Of which replay buffer.
    """

    def __init__(self, draw: Draw, replay: SharedReplay):
        self.draw, self.replay = draw, replay

    def __len__(self) -> int:
        return len(self.draw)

    def to(self, device: torch.device, schema: RowSchema) -> JointBatch:
        """Draws the rows now, and fetches them."""
        return self.replay.fetch(self.draw).to(device, schema)


class SharedReplay(JointReplay):
    """The replay protocol of a buffer that lies in the shared learner, beside the trial's Learner.

    Rollouts are checked and counted here, and travel with the next update. Batches are drawn there; which rows are in them is
    the same as if the buffer were here. A class of the user's that stores or counts in its own way gets its rollouts at once.

    Attributes:
        real_class: The class of the buffer there.
    """

    def __init__(self, client: SlotClient, schema: RowSchema, config: Mapping[str, Any]):
        """
        Args:
            client: The trial's place in the shared learner.
            schema: The columns of a row.
            config: A `replay_buffer_config`.
        """
        super().__init__(schema, config["capacity"])
        self._real_class = cls = replay_class(config)
        self.fetches_rollouts = cls.fetches_rollouts
        self._client = client
        own = JointReplayBuffer
        self._counts_here = not cls.fetches_rollouts and issubclass(cls, own)
        self._counts_here &= all(getattr(cls, name, None) is getattr(own, name) for name in ("store", "_store", "__len__"))
        self._waiting: list[JointRollout] = []
        self._rows_waiting = 0
        self._made_with: tuple[tuple, dict[str, Any]] | None = None
        self._stored = 0  # rows that it held when it was asked last

    @property
    @override(JointReplay)
    def real_class(self) -> type[JointReplay]:
        return self._real_class

    def __len__(self) -> int:
        """Rows held, with those on their way."""
        return min(self.capacity, self._stored + self._rows_waiting) if self._rows_waiting else self._stored

    # ------------------------------------------------------------------------------------------ rollouts on their way

    def waiting(self) -> list[JointRollout]:
        """Rollouts that the next call takes with it; `have_gone` says that it has."""
        return self._waiting

    def have_gone(self) -> None:
        """The rollouts that were waiting are stored there."""
        self._stored, self._waiting, self._rows_waiting = len(self), [], 0

    def note(self, stored: int) -> None:
        """How many rows the buffer holds."""
        self._stored = stored

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """What a method of the buffer returns, after all rollouts so far are stored."""
        try:
            answer: ReplayAnswer = self._client.call("replay", self._waiting, method, args, kwargs)
        finally:
            self.have_gone()
        self.note(answer.stored)
        return answer.value

    # ------------------------------------------------------------------------------------------ the protocol

    @override(JointReplay)
    def store(self, rollouts: Sequence[Any]) -> list[Stored]:
        if not self._counts_here:
            return self._call("store", list(rollouts))
        stored = [self._store(rollout) for rollout in rollouts]
        if self._rows_waiting > MAX_WAITING:
            self._call("")
        return stored

    def _store(self, rollout: JointRollout) -> Stored:
        """As `JointReplayBuffer` answers."""
        try:
            rollout.check_finite(self.schema.stored)
        except ValueError as error:
            return Stored(error=str(error))
        self._waiting.append(rollout)
        self._rows_waiting += len(rollout)
        return Stored(len(rollout))

    @override(JointReplay)
    def draw(self, learners: int, updates: int, rows: int, shuffled: bool = False) -> list[DrawnThere]:
        """What stands for the rows: they are drawn when the shared learner learns from them, or when they are asked for."""
        return [self.ask(updates, rows, shuffled)]

    def ask(self, updates: int, rows: int, shuffled: bool = False, newest: int = 0) -> DrawnThere:
        """As `draw` for the one Learner, with so many of the newest rows."""
        return DrawnThere(Draw(updates, rows, shuffled, newest), self)

    def fetch(self, draw: Draw) -> Any:
        """Has rows drawn, and fetches them."""
        (batch,) = self._call("draw", 1, draw.updates, draw.rows, shuffled=draw.shuffled)
        return batch

    @override(JointReplay)
    def latest(self, rows: int) -> JointBatch:
        batch = self._call("latest", rows)
        return batch.to(torch.device("cpu"), self.schema)

    @override(JointReplay)
    def feedback(self, errors: Sequence[np.ndarray]) -> None:
        """That of updates reaches the buffer there; this is for other errors."""
        self._call("feedback", errors)

    # ------------------------------------------------------------------------------------------ checkpoints

    @override(JointReplay)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        return self._call("get_state", components, not_components=not_components, **kwargs)

    @override(JointReplay)
    def set_state(self, state: dict[str, Any]) -> None:
        self._call("set_state", state)

    @override(JointReplay)
    def check_state(self, state: dict[str, Any]) -> None:
        if self._real_class.check_state is JointReplayBuffer.check_state:
            check_buffer_state(state, self.schema.stored)
        else:
            self._call("check_state", state)

    @override(JointReplay)
    def save_to_path(self, path: Any = None, *, filesystem: Any = None, **kwargs: Any) -> str:
        """As the buffer itself is saved; errors as there."""
        if path is not None and filesystem is None:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(str(path))
        path = super().save_to_path(path, filesystem=filesystem, **kwargs)
        own = {"class": self._real_class, "ctor_args_and_kwargs": self.get_ctor_args_and_kwargs()}
        filesystem = filesystem or pyarrow.fs.LocalFileSystem()
        with filesystem.open_output_stream(f"{path}/{self.CLASS_AND_CTOR_ARGS_FILE_NAME}") as file:
            pickle.dump(own, file)
        return path

    @override(Checkpointable)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        if self._made_with is None:
            self._made_with = self._call("get_ctor_args_and_kwargs")
        return self._made_with
