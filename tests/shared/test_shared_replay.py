"""The replay buffer of a trial in a shared learner, as its process sees it."""

import numpy as np
import pytest
import torch
from shared_trials import in_twins, twin_config
from users_replays import Answers, PlainReplay

from rllib_maddpg.shared import replay as client

pytestmark = pytest.mark.usefixtures("shared_session")


class Wrong(Answers):
    """Draws no list, and has a state that is none."""

    def __init__(self, schema, capacity, seed):
        super().__init__(schema, capacity, seed)
        self.drawn = lambda right: right[0]
        self.state = lambda right: list(right)


class Locked(PlainReplay):
    """Has a state that cannot be pickled."""

    def get_state(self, *args, **kwargs):
        return {"generator": (k for k in range(3))}


def rollouts_of(algo, lengths=(5, 10)):
    """Rollouts as the local runner returns them."""
    return [algo.env_runner.sample(num_timesteps=length)[0] for length in lengths]


def test_it_answers_as_the_buffer_alone(build):
    alone, shared = in_twins(build)
    one, other = alone.replay_buffer, shared.replay_buffer
    for algo in (alone, shared):
        algo.rollouts = rollouts_of(algo, [5] * 14)
    for k in range(14):
        assert one.store([alone.rollouts[k]]) == other.store([shared.rollouts[k]])
        assert len(one) == len(other) == min(60, 5 * (k + 1))
    np.testing.assert_array_equal(one.latest(7).joint_rows, other.latest(7).joint_rows)
    (batch,), (token,) = one.draw(1, 2, 8), other.draw(1, 2, 8)
    assert len(token) == len(batch) == 16
    device = torch.device("cpu")
    np.testing.assert_array_equal(batch.joint_rows, token.to(device, shared.schema).joint_rows)
    state = one.get_state()
    assert other.get_state().keys() == state.keys()
    other.set_state(state)
    assert other.capacity == 60 and len(other) == 60
    other.stop()


def test_bad_rollouts_are_refused_in_the_same_words(build):
    alone, shared = in_twins(build)
    answers = []
    for algo in (alone, shared):
        good, bad = rollouts_of(algo)
        bad.rows[3, 0] = np.nan
        answers.append(algo.replay_buffer.store([bad, good]))
        assert len(algo.replay_buffer) == 5
    assert answers[0] == answers[1] and "is nan at step 3" in answers[1][0].error


def test_many_rows_do_not_wait_for_an_update(build, monkeypatch):
    monkeypatch.setattr(client, "MAX_WAITING", 12)
    algo = build(twin_config())
    replay = algo.replay_buffer
    for k, waits in enumerate([5, 10, 0, 5]):
        replay.store(rollouts_of(algo, [5]))
        assert sum(map(len, replay.waiting())) == waits and len(replay) == 5 * (k + 1)


def test_what_was_stored_before_a_restored_state_is_forgotten(build):
    algo = build(twin_config())
    state = algo.replay_buffer.get_state()
    algo.replay_buffer.store(rollouts_of(algo))
    algo.replay_buffer.set_state(state)
    assert len(algo.replay_buffer) == 0 and len(algo.replay_buffer.latest(5)) == 0


def test_wrong_answers_of_a_users_buffer_name_its_class(build):
    errors = []
    for algo in in_twins(build, lambda config: config.training(replay_buffer_config={"type": Wrong})):
        algo.saves_before_error = False
        with pytest.raises(ValueError) as drawn:
            algo.train()
        with pytest.raises(ValueError) as state:
            algo.get_state()
        errors.append((str(drawn.value), str(state.value)))
    assert errors[0] == errors[1] and "Wrong.draw" in errors[1][0] and "Wrong.get_state" in errors[1][1]


def test_a_state_that_cannot_be_pickled_is_refused_in_the_same_words(build, tmp_path):
    errors = []
    for algo in in_twins(build, lambda config: config.training(replay_buffer_config={"type": Locked})):
        with pytest.raises(ValueError) as error:
            algo.save_to_path(str(tmp_path / "there"))
        errors.append(str(error.value))
    assert errors[0] == errors[1] and "Locked cannot be saved" in errors[1]
