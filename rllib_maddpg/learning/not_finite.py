"""What is said of an update whose numbers are not finite. No Ray here."""

from __future__ import annotations

from rllib_maddpg.learning.context import UpdateContext
from rllib_maddpg.learning.gradients import ClippedGradients


def not_finite(role: str, found: ClippedGradients, ctx: UpdateContext) -> ValueError:
    """The error of a stage.

    Args:
        role: That of the networks which were to learn.
        found: Their losses and gradients.
        ctx: The update; `stepped` says which networks had made their step.
    """
    # Numbers near the largest one may overflow in one order of a sum, and not in another.
    bad = found.what_is_not_finite(role, [ctx.batch, ctx.newest]) or [f"the sum of the {role} losses and gradients"]
    done = "This update was not made; the weights are those before it"
    if ctx.stepped:
        made = " and ".join(f"networks of the role {name!r}" for name in dict.fromkeys(ctx.stepped))
        done = f"No {role} and no target was changed; the {made} made their step"
    return ValueError(
        f"NaN or infinity in {bad[0]} (in all: {', '.join(bad)}). {done}. Look for "
        "extreme rewards or a learning rate that is too high, set `grad_clip`, or set `torch_skip_nan_gradients=True` "
        "to skip such updates and count them."
    )
