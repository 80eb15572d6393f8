"""What a replay buffer does, whoever wrote it: the base class of ours and of users' own."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.utils.annotations import override
from ray.rllib.utils.checkpoints import Checkpointable

from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema


@dataclass
class Stored:
    """What became of a rollout.

    Attributes:
        rows: That are in the buffer now.
        error: Why none are, for the algorithm to raise when it has stored the others.
        lost: Whether they were lost on the way, with the machine that had them.
    """

    rows: int = 0
    error: str = ""
    lost: bool = False


class JointReplay(Checkpointable, abc.ABC):
    """Keeps joint rows and draws batches of them. A row is one env step of all agents and is never taken apart.

    A class of one's own is chosen by `replay_buffer_config={"type": "package.module.Class", "capacity": 100_000, ...}`, or by
    the class itself instead of its path. It is called as `Class(schema, seed=..., capacity=..., ...)` with all other keys of
    `replay_buffer_config` as keyword arguments; of our keys `device` and `num_shards` only if it has arguments of these names.
    Where `wants_feedback` is True, a call of `feedback` follows each call of `draw`.

    `JointReplayBuffer` is a base for classes that keep their rows in one ring and draw them otherwise.

    Attributes:
        schema: The columns of drawn rows; those of the rows that it is given to store are `schema.stored`, which is the same
            where nothing is added when rows are drawn.
        capacity: Rows that it keeps at most.
        wants_feedback: Whether the Learners are to tell their TD errors after each draw.
        feedback_of: What it is told of the TD errors of a row's agents: their "mean" or the largest one, "max".
        weighs_rows: Whether what it draws has a column `weights`, a number for each row. Learners divide the weights by the
            largest one of an update, and multiply all terms of losses with them.
        draws_n_steps: Whether what it draws has columns `later_rewards` and `steps` where `n_step` is more than 1, and x' so
            many steps after x; see `rllib_maddpg.replay.drawn_rows`. Else `n_step` is refused.
        fetches_rollouts: Whether remote env runners keep what they have sampled until it is fetched: `store` gets
            `RemoteRollout`s from them, which hold a reference.
        restores: Names of other classes whose states `set_state` takes, too; one of them may stand alone.
    """

    wants_feedback: bool = False
    feedback_of: str = "mean"
    weighs_rows: bool = False
    draws_n_steps: bool = False
    fetches_rollouts: bool = False
    restores: str | Collection[str] = ()

    def __init__(self, schema: RowSchema, capacity: int, seed: Any = None):
        """
        Args:
            schema: The columns of a row.
            capacity: Rows (env steps) to keep.
            seed: Of all draws, as `numpy.random.default_rng` takes it.
        """
        self.schema, self.capacity = schema, int(capacity)

    @property
    def real_class(self) -> type[JointReplay]:
        """The class that keeps the rows: its own, unless it stands for a buffer elsewhere."""
        return type(self)

    # ------------------------------------------------------------------------------------------ rows

    @abc.abstractmethod
    def __len__(self) -> int:
        """Rows held now."""

    @abc.abstractmethod
    def store(self, rollouts: Sequence[JointRollout]) -> list[Stored]:
        """Adds rollouts; returns for each what became of it.

        One that `check_finite` refuses is not stored, and its `Stored` has the error.
        """

    @abc.abstractmethod
    def draw(self, learners: int, updates: int, rows: int, shuffled: bool = False) -> list[JointBatch]:
        """Draws what the Learners learn from next.

        Args:
            learners: Batches to return, one for each Learner.
            updates: Parts of each batch, side by side; one update is made on each.
            rows: Rows of each part.
            shuffled: Whether modules share out the rows of a part (`minibatch_per_module`), so that which rows are side by side
                must be left to chance.

        Returns:
            Batches of `updates * rows` rows: `JointBatch`es, or anything with `len(batch)` and
            `batch.to(device, schema) -> JointBatch`, which is called where the Learner is.

        Raises:
            ValueError: If there is no row.
        """

    @abc.abstractmethod
    def latest(self, rows: int) -> JointBatch:
        """The newest rows, oldest of them first; all rows where there are fewer, and none where `rows` is below 1."""

    def feedback(self, errors: Sequence[np.ndarray]) -> None:
        """Tells what the last draw taught; called only if `wants_feedback`.

        Args:
            errors: For each Learner, in the order of the batches drawn last, the |TD error| of the agents in the game in each
                row, their mean or the largest one as `feedback_of` says, `[updates * rows]`, float32. An update that
                `torch_skip_nan_gradients` skips may leave NaN or infinity.
        """

    def stop(self) -> None:
        """Ends what it has started, such as actors. May be called more than once."""

    # ------------------------------------------------------------------------------------------ before it is made

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Refuses settings; called before any actor starts.

        Args:
            settings: The keyword arguments but `seed`.

        Raises:
            ValueError: Saying what is wrong and what to do.
        """

    @classmethod
    def parts(cls, settings: Mapping[str, Any]) -> int:
        """In how many equal parts the rows lie, each on a machine that has to hold it; `settings` as in `check`."""
        return 1

    @classmethod
    def resources(cls, settings: Mapping[str, Any]) -> list[dict[str, float]]:
        """What each actor that it starts asks of Ray, such as `[{"CPU": 1}]`; `settings` as in `check`.

        These are the last bundles of a Tune trial's placement group (`ray.util.get_current_placement_group()`).
        """
        return []

    # ------------------------------------------------------------------------------------------ checkpoints

    @abc.abstractmethod
    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """All that drawing goes on with, also generators of random numbers; a dict that can be pickled."""

    @abc.abstractmethod
    def set_state(self, state: dict[str, Any]) -> None:
        """Restores `get_state()`.

        Raises:
            ValueError: If it does not fit, with nothing changed.
        """

    def check_state(self, state: dict[str, Any]) -> None:
        """Whether `set_state` would take the state of a checkpoint whose files may be damaged.

        Raises:
            ValueError: Naming what is wrong with it.
        """

    @override(Checkpointable)
    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        """As RLlib's.

        Raises:
            ValueError: If its state cannot be pickled.
            OSError: If it cannot be written.
        """
        try:
            return super().save_to_path(path, **kwargs)
        except OSError:
            raise
        except Exception as error:  # objects can raise anything when they are pickled
            raise cannot_be_saved(self, error) from error

    @override(Checkpointable)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        return (self.schema, self.capacity), {}

    @override(Checkpointable)
    def get_checkpointable_components(self) -> list:
        return []


def cannot_be_saved(replay: JointReplay, error: Exception) -> ValueError:
    """What to say of a replay buffer whose state cannot be pickled."""
    return ValueError(
        f"A {replay.real_class.__qualname__} cannot be saved ({type(error).__name__}: {error}). Its `get_state` must return a "
        "dict that can be pickled: without locks, open files, actors' connections and the like. Correct it, or set "
        "`store_buffer_in_checkpoints=False`."
    )
