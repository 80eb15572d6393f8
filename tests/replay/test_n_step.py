"""Rows drawn with what came after them, against the history as plain Python reads it."""

import numpy as np
import pytest
from histories import LAYOUT, History, check_drawn, schema_of

from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.replay.resharding import dealt, merged
from rllib_maddpg.replay.state_check import check_buffer_state
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema


def numbers_held(ring, history):
    """The number of the row at each place."""
    places = np.arange(len(ring))
    added = len(history.rows)
    return added - 1 - (ring.next_place - 1 - places) % ring.capacity


@pytest.mark.parametrize(("n", "capacity"), [(2, 40), (3, 40), (7, 40), (3, 1000)])
def test_random_histories(n, capacity):
    """Several runners with several envs each, whose rows overwrite each other; looked at again and again."""
    history = History(seed=n + capacity)
    ring = JointReplayBuffer(schema_of(n), capacity)
    steps = set()
    for k, rollout in enumerate(history.rollouts(60)):
        ring.add(rollout)
        if k % 6 == 0:
            batch = ring.rows_at(np.arange(len(ring)))
            check_drawn(history, batch, numbers_held(ring, history), n)
            steps |= set(batch.columns["steps"].flatten().tolist())
    assert steps == set(range(1, n + 1)) and len(history.rows) > 200 and (len(ring) == 40) == (capacity == 40)
    newest = ring.latest(10)
    check_drawn(history, newest, range(len(history.rows) - 10, len(history.rows)), n)
    drawn = ring.draw(1, 2, 8)[0]
    places = ring.places_of(0, 2, 8).ravel()
    check_drawn(history, drawn, numbers_held(ring, history)[places], n)
    assert (drawn.joint_rows == ring.rows_at(places).joint_rows).all()


def test_a_rollout_longer_than_the_ring():
    history = History(seed=3, workers=1, envs=1)
    ring = JointReplayBuffer(schema_of(3), 7)
    rollouts = list(history.rollouts(30))
    whole = JointRollout.concat(history.schema, rollouts)
    ring.add(whole)
    check_drawn(history, ring.rows_at(np.arange(7)), numbers_held(ring, history), 3)


def row(**given):
    rollout = JointRollout.empty(RowSchema(LAYOUT), 1)
    for name, value in {"alive": 1, "next_alive": 1, **given}.items():
        rollout.columns[name][:] = value
    return rollout


def drawn(rows, n):
    ring = JointReplayBuffer(RowSchema(LAYOUT, own=schema_of(n).own), 10)
    for each in rows:
        ring.add(each)
    return ring.rows_at(np.arange(len(ring))).columns


def test_by_hand():
    """Agent a is terminated in the second step, c joins in it, and b is truncated in the third."""
    rows = [
        row(episodes=4, t=0, rewards=[1, 2, 0], alive=[1, 1, 0], next_alive=[1, 1, 1], new_obs=10),
        row(episodes=4, t=1, rewards=[3, 4, 5], terminateds=[1, 0, 0], next_alive=[0, 1, 1], new_obs=11),
        row(episodes=4, t=2, rewards=[9, 6, 7], alive=[0, 1, 1], next_alive=[0, 1, 1], truncateds=[0, 1, 0], new_obs=12),
        row(episodes=4, t=3, rewards=[0, 0, 8], alive=[0, 0, 1], next_alive=[0, 0, 1], new_obs=13),
    ]
    columns = drawn(rows, 5)
    assert columns["steps"].flatten().tolist() == [3, 2, 1, 1]
    assert columns["rewards"][0].tolist() == [1, 2, 0]
    # What agent a gets when its part is over does not count.
    assert columns["later_rewards"][0].tolist() == [3, 0, 0, 0, 4, 6, 0, 0, 5, 7, 0, 0]
    assert columns["terminateds"][0].tolist() == [1, 0, 0] and columns["truncateds"][0].tolist() == [0, 1, 0]
    assert columns["next_alive"][0].tolist() == [0, 1, 1] and columns["alive"][0].tolist() == [1, 1, 0]
    assert columns["new_obs"][:, 0].tolist() == [12, 12, 12, 13]
    assert columns["later_rewards"][2:].abs().max() == 0


def test_rows_of_nobody_knows_which_episode_stand_alone():
    columns = drawn([row(rewards=1), row(rewards=2)], 3)
    assert columns["steps"].flatten().tolist() == [1, 1] and columns["episodes"].flatten().tolist() == [-1, -1]


def test_rows_are_stored_without_what_is_added():
    plain, ring = JointReplayBuffer(schema_of(1), 10), JointReplayBuffer(schema_of(3, weighs=True), 10)
    assert ring.bytes_per_row == plain.bytes_per_row
    history = History(seed=1)
    for rollout in history.rollouts(3):
        plain.add(rollout)
        ring.add(rollout)
    assert ring.get_state()["schema"] == plain.get_state()["schema"]
    stored = plain.rows_at(np.arange(len(plain))).columns
    rows = ring.rows_at(np.arange(len(ring))).columns
    assert (rows["weights"] == 1).all() and (rows["obs"] == stored["obs"]).all()
    # A state without links: one step for each row that it has.
    ring.set_state(plain.get_state())
    assert (ring.rows_at(np.arange(len(ring))).columns["steps"] == 1).all()
    plain.set_state(ring.get_state())


# States.


@pytest.mark.parametrize("before", [30, 1000])
@pytest.mark.parametrize("after", [20, 30, 50, 1000])
def test_a_restored_ring_goes_on(before, after):
    history = History(seed=before * after)
    ring = JointReplayBuffer(schema_of(4), before)
    for rollout in history.rollouts(30):
        ring.add(rollout)
    ring.check_state(ring.get_state())
    other = JointReplayBuffer(schema_of(4), after)
    other.set_state(ring.get_state())
    held = min(len(ring), after)
    check_drawn(history, other.latest(held), range(len(history.rows) - held, len(history.rows)), 4)
    # Env runners begin other episodes.
    history.give_up()
    for rollout in history.rollouts(8):
        other.add(rollout)
    held = len(other)
    check_drawn(history, other.latest(held), range(len(history.rows) - held, len(history.rows)), 4)


def test_rows_of_one_run_do_not_follow_those_of_another():
    """Both have played as many episodes, and are in the same step of one; the second one takes over the state of the first."""
    ring, other = (JointReplayBuffer(RowSchema(LAYOUT, own=schema_of(3).own), 10) for _ in range(2))
    for t in range(4):
        for each in (ring, other) if t < 2 else [other]:
            each.add(row(episodes=0, t=t, rewards=t))
        if t == 1:
            other.set_state(ring.get_state())
    columns = other.rows_at(np.arange(4)).columns
    assert columns["steps"].flatten().tolist() == [2, 1, 2, 1]
    assert columns["later_rewards"][:, :2].tolist() == [[1, 0], [0, 0], [3, 0], [0, 0]]


def test_a_damaged_state_is_refused():
    history = History(seed=0)
    ring = JointReplayBuffer(schema_of(4), 100)
    for rollout in history.rollouts(5):
        ring.add(rollout)
    good = ring.get_state()
    for ahead in (good["beside"]["ahead"][:-1], good["beside"]["ahead"] - 1, good["beside"]["ahead"] + 60):
        with pytest.raises(ValueError, match=r"The replay buffer of the checkpoint has ahead that"):
            ring.check_state({**good, "beside": {"ahead": ahead}})


def test_states_of_shards():
    """Within a rollout of each shard; one ring made of their rows keeps that, and shards made of one ring draw one step."""
    history, n = History(seed=9), 3
    rings = [JointReplayBuffer(schema_of(n), capacity, seed=capacity) for capacity in (60, 25)]
    for k, rollout in enumerate(history.rollouts(30)):
        rings[k % 2].add(rollout)
    state = {
        "shards": [ring.get_state() for ring in rings],
        "capacity": 85,
        "num_rows_added": len(history.rows),
        "rng": rings[0].get_state()["rng"],
        "layout": LAYOUT.description(),
        "schema": rings[0].get_state()["schema"],
    }
    check_buffer_state(state, schema_of(n).stored)
    whole = JointReplayBuffer(schema_of(n), 200)
    whole.set_state(state)
    mine = whole.rows_at(np.arange(len(whole)))
    # Bits of whole rows, by what agents have seen in them.
    bits = {}
    for batch in (ring.latest(len(ring)) for ring in rings):
        bits |= {
            obs.numpy().tobytes(): row.numpy().tobytes()
            for obs, row in zip(batch.columns["obs"], batch.joint_rows, strict=True)
        }
    assert len(bits) == len(whole) == sum(map(len, rings)) and (mine.columns["steps"] > 1).any()
    for obs, row in zip(mine.columns["obs"], mine.joint_rows, strict=True):
        assert bits[obs.numpy().tobytes()] == row.numpy().tobytes()
    for k, part in enumerate(dealt(merged(state), 3)):
        shard = JointReplayBuffer(schema_of(n), 100)
        shard.set_state(part)
        assert len(shard) == len(range(k, len(whole), 3))
        assert (shard.rows_at(np.arange(len(shard))).columns["steps"] == 1).all()
