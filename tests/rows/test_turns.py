"""Rows of games of turns: what the function makes of records, against an oracle in plain Python, and by hand."""

import numpy as np
import pytest
from turn_env import RandomTurns
from turn_records import expected, play, records_of, schema_of

from rllib_maddpg.rows.turns import OpenTurns, has_turns, rows_of


def assert_same(schema, rows, right):
    given = schema.split(rows)
    assert len(rows) == len(right["t"])
    for name, values in given.items():
        np.testing.assert_array_equal(values, right[name].astype(values.dtype), err_msg=name)


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_the_oracle_bit_for_bit_in_its_order(seed):
    env = RandomTurns({"length": 15})
    log = play(env, None, 40, seed=100 * seed)
    schema = schema_of(env)
    records, rewards = records_of(schema, log)
    rows = rows_of(schema, records, rewards, OpenTurns(schema))
    right = expected(schema, log)
    assert len(rows) > 100
    assert_same(schema, rows, right)
    # The histories have what is hard: rows of one step with other ends, several agents in a row, ends between turns.
    columns = schema.split(rows)
    own, acted = columns["acts"].sum(1), columns["acted"].sum(1)
    assert (own < acted).any() and (own > 1).any() and (columns["alive"].sum(1) > acted).any()
    assert columns["terminateds"].any() and columns["truncateds"].any()
    lost = sum(len(s.truncated - set(s.observed)) for played in log for s in played.steps)
    assert lost > 0


@pytest.mark.parametrize("cuts", [1, 2, 7, 50])
def test_records_may_be_cut_anywhere(cuts):
    env = RandomTurns({"length": 15})
    log = play(env, None, 20, seed=7)
    schema = schema_of(env)
    records, rewards = records_of(schema, log)
    whole = rows_of(schema, records, rewards, OpenTurns(schema))
    open_turns, parts = OpenTurns(schema), []
    for first in range(0, len(records), cuts):
        part = slice(first, first + cuts)
        parts.append(rows_of(schema, records[part].copy(), rewards[part], open_turns))
    np.testing.assert_array_equal(np.concatenate(parts).view(np.int32), whole.view(np.int32))
    assert not open_turns.is_open.any()


def test_an_episode_that_is_given_up_leaves_nothing_to_the_next_one():
    env = RandomTurns({"length": 15})
    log = play(env, None, 6, seed=3)
    for played in log[::2]:
        del played.steps[4:]
    schema = schema_of(env)
    records, rewards = records_of(schema, log)
    for cut in (3, 4, 5, len(records)):
        open_turns = OpenTurns(schema)
        parts = [rows_of(schema, records[p], rewards[p], open_turns) for p in (slice(0, cut), slice(cut, None))]
        assert_same(schema, np.concatenate(parts), expected(schema, log))


def test_tic_tac_toe_by_hand():
    """Two agents in turns; the second one's move pays both, and ends the game."""
    schema = schema_of()
    assert has_turns(schema)
    a, b = schema.layout.index("a"), schema.layout.index("b")
    records, rewards = schema.empty(3), np.zeros((3, 4))
    columns = schema.split(records)
    columns["episodes"][:], columns["t"][:, 0] = 0, [0, 1, 2]
    columns["obs"][:, 0], columns["new_obs"][:, 0] = [1.0, 1.0, 2.0], [1.0, 2.0, 2.0]
    for name in ("acts", "acted"):
        columns[name][[0, 2], a] = columns[name][1, b] = 1.0
    columns["next_acts"][0, b] = columns["next_acts"][1, a] = 1.0
    columns["alive"][:, [a, b]] = [[1, 0], [1, 1], [1, 1]]
    columns["next_alive"][:, [a, b]] = [[1, 1], [1, 1], [0, 0]]
    columns["terminateds"][2, [a, b]] = 1.0
    rewards[0, [a, b]] = 0.25, 100.0  # b has not acted yet
    rewards[1, [a, b]] = 0.5, 2.0
    rewards[2, [a, b]] = 1.0, -1.0
    rows = schema.split(rows_of(schema, records, rewards, OpenTurns(schema)))
    assert rows["t"][:, 0].tolist() == [0, 1, 2]
    assert rows["acts"][:, [a, b]].tolist() == [[1, 0], [0, 1], [1, 0]]
    assert rows["rewards"][:, [a, b]].tolist() == [[0.75, 0], [0, 1.0], [1.0, 0]]
    assert rows["terminateds"][:, [a, b]].tolist() == [[0, 0], [0, 1], [1, 0]]
    assert rows["new_obs"][:, 0].tolist() == [2, 2, 2]
    assert rows["next_acts"][:, [a, b]].tolist() == [[1, 0], [0, 0], [0, 0]]


def test_no_records_give_no_rows_and_leave_open_what_is():
    schema = schema_of()
    open_turns = OpenTurns(schema)
    open_turns.is_open[1] = True
    assert rows_of(schema, schema.empty(0), np.zeros((0, 4)), open_turns).shape == (0, schema.row_width)
    assert open_turns.is_open.tolist() == [False, True, False, False]
