"""A replay buffer whose joint rows lie in actors: runners' fragments go there and Learners draw there, past the driver."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from ray.rllib.utils.annotations import override
from ray.rllib.utils.checkpoints import Checkpointable
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rllib_maddpg.replay.protocol import JointReplay, Stored
from rllib_maddpg.replay.remote import LOST, RemoteRollout, ShardedBatch
from rllib_maddpg.replay.resharding import SHARDS, by_age, dealt
from rllib_maddpg.replay.shard import ReplayShard
from rllib_maddpg.replay.shares import ShardShares
from rllib_maddpg.replay.state_check import SCHEMA, check_buffer_state
from rllib_maddpg.replay.update_stream import UpdateStream
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema

logger = logging.getLogger(__name__)

_SHARD_RESOURCES = {"CPU": 1}
# Seconds after which somebody is told what is waited for.
_PATIENCE = 60


class ShardedReplayBuffer(JointReplay):
    """K rings of joint transitions in as many actors, which together are sampled uniformly with replacement.

    - A rollout goes to one shard as a whole, to each shard in turn. Remote runners keep it until the shard fetches it.
    - How many rows of a batch come from which shard is drawn from the multinomial distribution over the shards' sizes, so
      every row of all shards is drawn with the same probability. Which rows an update gets is a pure function of the seed, the
      number of the update and the sizes of the shards; several Learners together get those that one would get.
    - The driver sees counts and references only; rows pass through it when a checkpoint is written.
    - A shard that dies takes its rows with it. Training goes on with the others' while Ray restarts it, empty. When no shard
      is left, training ends with an error.
    """

    fetches_rollouts = True
    draws_n_steps = True
    shard_class = ReplayShard

    def __init__(self, schema: RowSchema, capacity: int, seed: int | None = None, num_shards: int = 1):
        """
        Args:
            schema: The columns of drawn rows; `schema.stored` are kept.
            capacity: Rows (env steps) to keep in all shards together.
            seed: Of all draws.
            num_shards: K.

        Raises:
            ValueError: If a machine cannot hold its share of the rows.
        """
        super().__init__(schema, capacity, seed)
        self.num_shards = num_shards
        self.num_rows_added = 0
        *seeds, own = np.random.SeedSequence(seed).spawn(num_shards + 1)
        self._rng = np.random.default_rng(own)  # only for states of earlier versions
        self._stream, self._shares = UpdateStream(own, "shards"), ShardShares()
        self._next = 0  # shard of the next rollout
        self._capacities = [self.capacity // num_shards + (k < self.capacity % num_shards) for k in range(num_shards)]
        group = get_current_placement_group()
        make = ray.remote(num_cpus=_SHARD_RESOURCES["CPU"], max_restarts=-1)(self.shard_class)
        arguments = self._shard_arguments()
        self._shards = [
            make.options(**_place(group, num_shards, k)).remote(schema, self._capacities[k], seeds[k], **arguments)
            for k in range(num_shards)
        ]
        self._sizes = [0] * num_shards
        self._away: dict[int, ray.ObjectRef] = {}  # shards that died, and the question whether they are back
        try:
            answers = [shard.size.remote() for shard in self._shards]
            if ray.wait(answers, num_returns=num_shards, timeout=_PATIENCE)[1]:
                logger.warning("Some of the %d replay shards find no free core (each needs one); waiting.", num_shards)
            ray.get(answers)
        except RayActorError as error:
            raise ValueError(f"A replay shard could not be made: {error}") from error

    def _shard_arguments(self) -> dict[str, Any]:
        """Of the class of a shard's buffer, beside the usual ones."""
        return {}

    def __len__(self) -> int:
        """Rows held now, in all shards that are there."""
        return sum(self._sizes)

    def add(self, rollout: JointRollout | RemoteRollout) -> None:
        """Appends a rollout to one of the shards."""
        self.store([rollout])

    @override(JointReplay)
    def store(self, rollouts: Sequence[JointRollout | RemoteRollout]) -> list[Stored]:
        """Adds those whose values are all finite; for each what became of it. Waits until they are in the shards.

        Raises:
            RuntimeError: If no shard is left.
        """
        self._look_for_those_away()
        results: list[Stored | None] = [None] * len(rollouts)
        together = True
        while missing := [i for i, result in enumerate(results) if result is None]:
            by_shard: dict[int, list[int]] = {}
            for i in missing:
                by_shard.setdefault(self._next_shard(), []).append(i)
            # All of a shard in one request. One that is lost spoils the request, so that each has to be sent by itself then.
            parcels = [(k, part) for k, own in by_shard.items() for part in ([own] if together else [[i] for i in own])]
            sent = [(k, part, self._send(k, [rollouts[i] for i in part])) for k, part in parcels]
            for k, part, answer in sent:
                for i, result in zip(part, self._answer(k, answer, len(part)), strict=True):
                    results[i] = result
            together = False
        self.num_rows_added += sum(result.rows for result in results)
        return results

    @override(JointReplay)
    def draw(self, learners: int, updates: int, rows: int, shuffled: bool = False) -> list[ShardedBatch]:
        """Rows drawn uniformly with replacement, as references; arguments as in `JointReplay.draw`.

        Every part of a batch is a sample of its own of all shards.

        Raises:
            ValueError: If no shard has a row.
        """
        if not len(self):
            raise ValueError("The replay buffer is empty: sample from the environment before you train.")
        first = self._stream.next(updates)
        counts, orders = self._counts(first, learners, updates, rows, shuffled)
        refs = [self._draw(k, first, counts[:, :, k]) for k in range(self.num_shards)]
        return [ShardedBatch([own[k] for own in refs], counts[k], orders[k]) for k in range(learners)]

    def _counts(
        self, first: int, learners: int, updates: int, rows: int, shuffled: bool
    ) -> tuple[np.ndarray, Sequence[np.ndarray | int | None]]:
        """Rows of each shard, `[learners, updates, K]`, and for each Learner the seeds of the order of its rows, or None."""
        in_order = [None] * learners
        if self._stream.key is None:
            counts = self._rng.multinomial(rows, np.array(self._sizes) / len(self), (learners, updates))
            return counts, self._rng.integers(2**62, size=learners).tolist() if shuffled else in_order
        counts = self._shares.draw(self._stream.key, first, updates, self._chances(), learners, rows)
        return counts, self._stream.bits(first, updates, learners).T if shuffled else in_order

    def _chances(self) -> Sequence[int]:
        """Whole numbers in proportion to which rows come from the shards."""
        return self._sizes

    def _how_to_draw(self) -> tuple[Any, ...]:
        """What shards are told beside the numbers of their rows."""
        return ()

    @override(JointReplay)
    def latest(self, rows: int) -> JointBatch:
        """The newest rows of all shards, fetched.

        Rows of two shards are equally old where each is as many rows from its shard's newest one; of such rows those of the
        shard that was given a rollout last are the newer ones. That is the order in which they were sampled where rollouts are
        equally long and as many runners as there are shards sample at the same time; else it is off by less than one rollout
        of each shard. The rows of a shard that is away are missing.
        """
        rows = max(0, rows)
        in_turn = (self._next + np.arange(self.num_shards)) % self.num_shards
        held = np.minimum(np.array(self._sizes)[in_turn], rows)
        newest = by_age(held)[max(0, held.sum() - rows) :]
        wanted = np.bincount(np.repeat(in_turn, held)[newest], minlength=self.num_shards).tolist()
        asked = [self._ask(k, lambda shard, n=wanted[k]: shard.latest.remote(n)) for k in in_turn.tolist() if wanted[k]]
        pieces = [piece for piece in asked if piece is not None]
        if not pieces:
            return JointBatch(self.schema, torch.empty(0, self.schema.row_width))
        order = by_age([len(piece) for piece in pieces])
        return JointBatch(self.schema, torch.from_numpy(np.concatenate(pieces)[order]))

    def sample(self, num_rows: int) -> JointBatch:
        """Draws rows as `JointReplayBuffer.sample` does, and fetches them."""
        return JointBatch(self.schema, self.draw(1, 1, num_rows)[0].gather())

    @override(JointReplay)
    def stop(self) -> None:
        """Ends the shards' actors."""
        for shard in self._shards:
            ray.kill(shard)

    @classmethod
    @override(JointReplay)
    def check(cls, settings: Mapping[str, Any]) -> None:
        if not settings["num_shards"]:
            raise ValueError("It needs `num_shards` of at least 1; four are usually enough.")

    @classmethod
    @override(JointReplay)
    def parts(cls, settings: Mapping[str, Any]) -> int:
        return settings["num_shards"]

    @classmethod
    @override(JointReplay)
    def resources(cls, settings: Mapping[str, Any]) -> list[dict[str, float]]:
        return [dict(_SHARD_RESOURCES) for _ in range(settings["num_shards"])]

    # ------------------------------------------------------------------------------------------ shards

    def _next_shard(self) -> int:
        """The next one that is there."""
        if len(self._away) == self.num_shards:
            raise RuntimeError(
                f"All {self.num_shards} shards of the replay buffer have died, and its rows with them. Resume from a "
                "checkpoint; more shards (`replay_buffer_config['num_shards']`) on several machines are less likely to die "
                "together."
            )
        while self._next in self._away:
            self._next = (self._next + 1) % self.num_shards
        k, self._next = self._next, (self._next + 1) % self.num_shards
        return k

    def _send(self, k: int, rollouts: Sequence[JointRollout | RemoteRollout]) -> ray.ObjectRef:
        return self._shards[k].store.remote(*[r.rows if isinstance(r, RemoteRollout) else r for r in rollouts])

    def _answer(self, k: int, answer: ray.ObjectRef, num_rollouts: int) -> list[Stored | None]:
        """What became of rollouts; None for those that have to be sent once more."""
        before = self._sizes[k]
        try:
            stored, self._sizes[k] = ray.get(answer)
        except RayActorError as error:
            self._gone(k, error)
            return [None] * num_rollouts
        except (ObjectLostError, RayTaskError) as error:
            if isinstance(error, RayTaskError) and not isinstance(error.cause, ObjectLostError):
                raise
            if num_rollouts > 1:
                return [None] * num_rollouts
            logger.warning(LOST)
            return [Stored(lost=True)]
        if self._sizes[k] < before:  # a ring does not shrink
            logger.warning(
                "Shard %d of the replay buffer died with its %d rows and is back already, with %d.", k, before, self._sizes[k]
            )
        return stored

    def _draw(self, k: int, first: int, counts: np.ndarray) -> list[ray.ObjectRef | None]:
        """References to the rows for each Learner; `counts` as in `ReplayShard.draw`."""
        learners = len(counts)
        if not counts.any():
            return [None] * learners
        refs = self._shards[k].draw.options(num_returns=learners).remote(first, counts, *self._how_to_draw())
        return refs if learners > 1 else [refs]

    def _gone(self, k: int, error: Exception) -> None:
        if k not in self._away:
            logger.warning(
                "Shard %d of the replay buffer died with its %d rows (%s). Training goes on with the %d rows of the others.",
                k,
                self._sizes[k],
                error,
                len(self) - self._sizes[k],
            )
        self._sizes[k] = 0
        self._away[k] = self._shards[k].size.remote()

    def _look_for_those_away(self) -> None:
        """Waits for nobody."""
        for k, answer in list(self._away.items()):
            if not ray.wait([answer], timeout=0)[0]:
                continue
            try:
                self._sizes[k] = ray.get(answer)
            except RayActorError:
                self._away[k] = self._shards[k].size.remote()
            else:
                del self._away[k]
                logger.warning("Shard %d of the replay buffer is back, with %d rows.", k, self._sizes[k])

    # ------------------------------------------------------------------------------------------ checkpoints

    @override(Checkpointable)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The states of all shards; None for one that is away."""
        return {
            SHARDS: [self._ask(k, lambda shard: shard.get_state.remote()) for k in range(self.num_shards)],
            "next_shard": self._next,
            "capacity": self.capacity,
            "num_rows_added": self.num_rows_added,
            "rng": self._rng.bit_generator.state,
            **self._stream.get_state(),
            "layout": self.schema.layout.description(),
            SCHEMA: self.schema.stored.description(),
        }

    @override(Checkpointable)
    def set_state(self, state: dict[str, Any]) -> None:
        """Restores `get_state()`, also of another number of shards, or that of a `JointReplayBuffer`.

        Raises:
            ValueError: If it does not fit, with nothing changed.
        """
        self.check_state(state)
        same = len(state.get(SHARDS, ())) == self.num_shards and all(state[SHARDS])
        states = state[SHARDS] if same else dealt(state, self.num_shards)
        for k, own in enumerate(states):
            self._sizes[k] = self._ask(k, lambda shard, own=own: shard.set_state.remote(own)) or 0
        self.num_rows_added = state["num_rows_added"]
        if same:
            self._next = state["next_shard"]
            self._rng.bit_generator.state = state["rng"]
        self._stream.set_state(state, goes_on=same)

    def _ask_all(self, call: Callable[[Any], ray.ObjectRef]) -> list[Any]:
        """The answers of all shards, which are asked at the same time; 0 of one that is away."""
        asked = {k: call(shard) for k, shard in enumerate(self._shards) if k not in self._away}
        answers = [self._ask(k, lambda shard, k=k: asked[k]) for k in range(self.num_shards)]
        return [answer or 0 for answer in answers]

    def _ask(self, k: int, call: Callable[[Any], ray.ObjectRef]) -> Any:
        """The answer of a shard; None if it is away."""
        if k in self._away:
            return None
        try:
            return ray.get(call(self._shards[k]))
        except RayActorError as error:
            self._gone(k, error)
            return None

    @override(JointReplay)
    def check_state(self, state: dict[str, Any]) -> None:
        check_buffer_state(state, self.schema.stored)

    @override(Checkpointable)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        return (), {"schema": self.schema, "capacity": self.capacity, "num_shards": self.num_shards}


def _place(group: PlacementGroup | None, num_shards: int, k: int) -> dict[str, Any]:
    """Options that put shard k into its own bundle, one of the last of a trial's (see `resources`)."""
    if group is None:
        return {"scheduling_strategy": "SPREAD"}
    index = len(group.bundle_specs) - num_shards + k
    return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)}
