"""Replay buffers as users write them."""

from __future__ import annotations

import re

import numpy as np
import ray
import torch
from paths import ROOT

from rllib_maddpg.replay import JointReplay, JointReplayBuffer, Stored
from rllib_maddpg.rows.joint_batch import JointBatch


def documented():
    """The class in docs/pipeline.md."""
    text, scope = (ROOT / "docs" / "pipeline.md").read_text(), {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(next(block for block in blocks if "class PrioritizedReplay" in block), scope)
    return scope["PrioritizedReplay"]


class PrioritizedReplay(documented()):
    """Draws rows in proportion to the TD errors seen when they were drawn last; remembers what it was told."""

    def __init__(self, schema, capacity, seed=None, alpha=1.0):
        super().__init__(schema, capacity, seed, alpha)
        self.errors = []

    @classmethod
    def check(cls, settings):
        alpha = settings.get("alpha", 1.0)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha} does not lie in [0, 1].")

    def feedback(self, errors):
        self.errors.append(errors)
        super().feedback(errors)


class PlainReplay(JointReplay):
    """The protocol and nothing else: a list of rows, which are drawn from the front to the end, again and again."""

    def __init__(self, schema, capacity, seed):
        super().__init__(schema, capacity, seed)
        self.rows, self.turn, self.stopped = [], 0, 0

    def __len__(self):
        return len(self.rows)

    def store(self, rollouts):
        stored = []
        for rollout in rollouts:
            try:
                rollout.check_finite(self.schema)
            except ValueError as error:
                stored.append(Stored(error=str(error)))
                continue
            self.rows = [*self.rows, *rollout.rows.copy()][-self.capacity :]
            stored.append(Stored(len(rollout)))
        return stored

    def draw(self, learners, updates, rows, shuffled=False):
        if not self.rows:
            raise ValueError("The replay buffer is empty.")
        return [self._next(updates * rows) for _ in range(learners)]

    def _next(self, rows):
        at = (self.turn + np.arange(rows)) % len(self.rows)
        self.turn += rows
        return self._batch([self.rows[i] for i in at])

    def latest(self, rows):
        return self._batch(self.rows[max(0, len(self.rows) - rows) :])

    def _batch(self, rows):
        return JointBatch(self.schema, torch.from_numpy(np.float32(rows).reshape(-1, self.schema.row_width)))

    def get_state(self, components=None, *, not_components=None, **kwargs):
        return {"rows": self.rows, "turn": self.turn}

    def set_state(self, state):
        self.rows, self.turn = list(state["rows"]), state["turn"]

    def stop(self):
        self.stopped += 1


class FetchingReplay(PlainReplay):
    """Its rollouts stay with the runners until it fetches them."""

    fetches_rollouts = True

    def store(self, rollouts):
        return super().store(ray.get([rollout.rows for rollout in rollouts]))

    @classmethod
    def resources(cls, settings):
        return [{"CPU": 0.5}]


class ShortDraws(PlainReplay):
    """Draws one update's rows, however many are asked for."""

    def draw(self, learners, updates, rows, shuffled=False):
        return super().draw(learners, 1, rows)


class LacksLatest(JointReplay):
    """Lacks a part of the protocol."""

    def __len__(self):
        return 0

    store = draw = get_state = set_state = None


class NoSeed(PlainReplay):
    """Its `__init__` does not take what it is given."""

    def __init__(self, schema, capacity):
        super().__init__(schema, capacity, None)


class Other:
    """No replay buffer."""


class Answers(PlainReplay):
    """Its methods return what these functions make of what is right."""

    def __init__(self, schema, capacity, seed):
        super().__init__(schema, capacity, seed)
        self.stored = self.drawn = self.state = lambda right: right

    def store(self, rollouts):
        return self.stored(super().store(rollouts))

    def draw(self, learners, updates, rows, shuffled=False):
        return self.drawn(super().draw(learners, updates, rows, shuffled))

    def get_state(self, components=None, *, not_components=None, **kwargs):
        return self.state(super().get_state())


class NoSuper(JointReplayBuffer):
    """Does not call its base class."""

    def __init__(self, schema, capacity, seed=None):
        self.schema = schema


class FetchingRing(JointReplayBuffer):
    """Says that it fetches rollouts, and leaves that to the ring."""

    fetches_rollouts = True


class NoShuffled(PlainReplay):
    """Its `draw` does not take all that it is called with."""

    def draw(self, learners, updates, rows):
        return super().draw(learners, updates, rows)


class StoresOne(PlainReplay):
    """Its `store` takes nothing."""

    def store(self):
        return []


class LatestAlone(PlainReplay):
    """Its `latest` wants more than it gets."""

    def latest(self, rows, columns):
        return super().latest(rows)


class NoStore(PlainReplay):
    """Its `store` is no method."""

    store = None
