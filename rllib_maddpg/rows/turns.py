"""Games of turns: from what happened at each env step to joint rows, whose transitions go from an agent's turn to its next.

A *record* is what happened at one env step, as a row of the same schema: `obs` and `new_obs` are the latest observations of all
agents before and after it; `acts` says who chose an action in it and `next_acts` who does so next; rewards are those that were
paid in it, to whomever; `terminateds` and `truncateds` are those that ended in it.

A *row* is the transition of the agents that act at one step and have their next turn, or their end, at the same one. It is the
record of the step at which they act, but with x' and all that is said of it from the record after which their next turn comes,
and with the sum of their rewards up to there. `acts` is 1 for these agents only: whatever learns, and whatever counts, goes by
it, so that each transition counts once. `acted` is 1 for all that chose an action at that step; their actions stand in the row.

So agents that act at one step and differ in when they act next have rows of their own. Of an agent that is truncated between
its turns and not observed then, it is not known where its transition leads: there is no row of it. Rewards before an agent's
first turn belong to no action, and are in no row either.
"""

from __future__ import annotations

import numpy as np

from rllib_maddpg.rows.schema import NEXT, Column, RowSchema

ACTS, ACTED, NEXT_ACTS = "acts", "acted", "next_acts"
# Own to the agents whose transition a row is.
_OWN = ("rewards", "terminateds", "truncateds", ACTS)


def turn_columns() -> list[Column]:
    """Of the rows of games of turns, in which not everybody in the game acts."""
    return [Column(name, "agents") for name in (ACTS, ACTED, NEXT_ACTS)]


def has_turns(schema: RowSchema) -> bool:
    """Whether rows are of a game of turns."""
    return ACTS in schema.columns


class OpenTurns:
    """The transitions of one game that have begun, and whose ends are not known yet: what goes over to the next records.

    Attributes:
        is_open: Which agents have one, `[N]` bool.
        records: Those of the steps at which they acted, `[N, row_width]` float32.
        rewards: What they were paid since, `[N]` float64.
    """

    def __init__(self, schema: RowSchema):
        agents = len(schema.layout)
        self.is_open = np.zeros(agents, bool)
        self.records = np.zeros((agents, schema.row_width), np.float32)
        self.rewards = np.zeros(agents)


def rows_of(schema: RowSchema, records: np.ndarray, rewards: np.ndarray, open_turns: OpenTurns) -> np.ndarray:
    """The rows of the transitions that end in some records of one game.

    Sums are taken step by step, so they are the same wherever records are cut.

    Args:
        schema: Of records and rows.
        records: Float32 `[T, row_width]`, in order of time; several episodes one after the other. Those of an episode that ends
            without an end, since its env failed, may be among them: what is open in it is given up.
        rewards: The rewards of the records once more, float64 `[T, N]`.
        open_turns: Of the records before; is brought up to date.

    Returns:
        Float32 `[K, row_width]`, in order of the steps with which they end, then of those with which they begin.
    """
    if not len(records):
        return records
    columns = schema.split(records)
    episodes, t = columns["episodes"][:, 0], columns["t"][:, 0]
    opened = schema.split(open_turns.records)
    is_known = (columns[NEXT_ACTS] > 0) | (columns["terminateds"] > 0)
    ends = is_known | (columns["truncateds"] > 0)
    found, opening = [], {}
    for i in range(len(schema.layout)):
        # The turn that is still open stands before all records.
        begins = np.flatnonzero(columns[ACTS][:, i] > 0)
        if open_turns.is_open[i]:
            begins = np.append(-1, begins)
        if not len(begins):
            continue
        there = begins >= 0
        episode, began = (
            np.where(there, own[begins], of[i, 0]) for own, of in ((episodes, opened["episodes"]), (t, opened["t"]))
        )
        where = np.flatnonzero(ends[:, i])
        place = np.searchsorted(where, begins)
        has_end = place < len(where)
        end = np.append(where, len(records))[place]
        last = np.minimum(end, len(records) - 1)
        # An episode that was given up ends nothing, and nothing goes over from it.
        same = episode == episodes[last]
        total = _sums(rewards[:, i], begins, last, open_turns.rewards[i])
        is_row = has_end & same & is_known[last, i]
        of_rows = [x[is_row].tolist() for x in (end, began, begins, np.full(len(begins), i), total)]
        found += zip(*of_rows, strict=True)
        open_turns.is_open[i] = not has_end[-1] and same[-1]
        open_turns.rewards[i] = total[-1]
        if there[-1]:
            opening[i] = begins[-1]
    rows = _rows(schema, records, open_turns, sorted(found))
    for i, begin in opening.items():
        open_turns.records[i] = records[begin]
    return rows


def _sums(rewards: np.ndarray, begins: np.ndarray, last: np.ndarray, before: float) -> np.ndarray:
    """Of each turn the rewards from its first step to its last; of one that began before all records, with those before."""
    first = np.maximum(begins, 0)
    total = np.where(begins < 0, before, 0.0)
    for k in range(int((last - first).max()) + 1):
        at = first + k
        total = np.where(at <= last, total + rewards[np.minimum(at, last)], total)
    return total


def _rows(schema: RowSchema, records: np.ndarray, open_turns: OpenTurns, found: list[tuple]) -> np.ndarray:
    """Rows of turns `(end, t at its begin, record of its begin, agent, sum of rewards)`; those that agree in the first two
    are one row."""
    number = {key: k for k, key in enumerate(dict.fromkeys(own[:2] for own in found))}
    rows = np.empty((len(number), schema.row_width), np.float32)
    if not number:
        return rows
    columns = schema.split(rows)
    of = np.array([number[own[:2]] for own in found])
    _, first = np.unique(of, return_index=True)
    for k, at in enumerate(first.tolist()):
        _, _, begin, agent, _ = found[at]
        rows[k] = records[begin] if begin >= 0 else open_turns.records[agent]
    ends, agents = np.array([own[0] for own in found]), np.array([own[3] for own in found])
    at_end = schema.split(records)
    for name in _at_next(schema):
        columns[name][:] = at_end[name][ends[first]]
    for name in _OWN:
        columns[name][:] = 0.0
    columns["rewards"][of, agents] = [own[4] for own in found]
    columns[ACTS][of, agents] = 1.0
    for name in ("terminateds", "truncateds"):
        columns[name][of, agents] = at_end[name][ends, agents]
    return rows


def _at_next(schema: RowSchema) -> list[str]:
    """Columns that say what is true of x'."""
    beside = [NEXT + column.name for column in (*schema.extra, *schema.own) if column.at_next]
    return [f"{NEXT}obs", "next_alive", NEXT_ACTS, *beside]
