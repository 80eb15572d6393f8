"""What the host decides about an update before it begins, and what comes out of it. No Ray here."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from rllib_maddpg.learning.metrics import UpdateMetrics


@dataclass(frozen=True)
class UpdatePlan:
    """What an update does, as far as it does not depend on numbers on the device. Two updates with one plan are alike.

    Attributes:
        trained: Ids of the modules that learn in it, in layout order.
        stages: Numbers of the stages that are due.
        moves_targets: Whether targets may move, as `target_network_update_freq` says.
        reports: Whether anybody will see its metrics.
        keeps_td_errors: Whether anybody wants the TD errors of its rows.
    """

    trained: tuple[str, ...]
    stages: tuple[int, ...]
    moves_targets: bool = True
    reports: bool = True
    keeps_td_errors: bool = False


@dataclass
class UpdateResults:
    """What an update leaves beside other weights.

    Attributes:
        metrics: Those that it has noted.
        td_sums: Of each row the sum of |TD error|, the number of agents, and the largest |TD error|, `[3, B]`; None: nobody
            wants them.
        moved_targets: Whether targets have moved.
        was_skipped: Whether it was ended for numbers that are not finite.
        bad_stage: The stage that had them, where several Learners' updates are made as one; None: there was none.
    """

    metrics: UpdateMetrics = field(default_factory=UpdateMetrics)
    td_sums: Tensor | None = None
    moved_targets: bool = False
    was_skipped: bool = False
    bad_stage: int | None = None
