"""What Learners learn from next: rows that a replay buffer has drawn, and beside them the newest ones where they need these."""

from __future__ import annotations

from typing import Any

from rllib_maddpg.replay.answers import check_drawn, check_latest
from rllib_maddpg.replay.newest import with_newest
from rllib_maddpg.replay.protocol import JointReplay


def draw_batches(
    replay: JointReplay, learners: int, updates: int, rows: int, shuffled: bool = False, newest: int = 0
) -> list[Any]:
    """A batch for each Learner; arguments as of `JointReplay.draw`.

    Args:
        replay: Whose rows they are.
        learners, updates, rows, shuffled: As of `JointReplay.draw`.
        newest: How many of the newest rows go along, for all Learners together; 0: none.

    Raises:
        ValueError: If the replay buffer does not draw what it is asked for.
    """
    batches = replay.draw(learners, updates, rows, shuffled=shuffled)
    check_drawn(replay, batches, learners, updates, rows)
    if not newest:
        return batches
    latest = replay.latest(newest)
    check_latest(replay, latest, newest)
    return with_newest(batches, latest)
