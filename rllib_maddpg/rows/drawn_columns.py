"""Columns that are made when rows are drawn: the weights of rows that are not drawn uniformly, and what came after a row."""

from __future__ import annotations

from rllib_maddpg.rows.schema import NEXT, Column, RowSchema

# (N P(i))^-beta of a row that is drawn with probability P(i), or whatever else losses are to weigh it with.
WEIGHTS = "weights"
# Rewards of the steps after the row's own, as far as they count for its return; 0 beyond.
LATER_REWARDS = "later_rewards"
# How many steps after x the row's x' is.
STEPS = "steps"


def weights_columns() -> list[Column]:
    """Of rows that are weighed."""
    return [Column(WEIGHTS, "env", fill=1.0, stored=False)]


def n_step_columns(n: int) -> list[Column]:
    """Of rows whose x' is up to n steps after x. A number of steps is a float, since it is an exponent."""
    if n < 2:
        return []
    return [Column(LATER_REWARDS, "agents", width=n - 1, stored=False), Column(STEPS, "env", fill=1.0, stored=False)]


def most_steps(schema: RowSchema) -> int:
    """n: how many steps after x the x' of a drawn row may be."""
    return schema.columns[LATER_REWARDS].width + 1 if LATER_REWARDS in schema else 1


def columns_at_next(schema: RowSchema) -> list[str]:
    """Columns of stored rows that say what is true of x' or of the step that leads there: of n steps those of the last one."""
    own = [NEXT + column.name for column in (*schema.extra, *schema.own) if column.at_next]
    return [f"{NEXT}obs", "next_alive", "terminateds", "truncateds", *own]
