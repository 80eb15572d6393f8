"""Games of turns in both loops: the rows are the oracle's, whatever the fragments, and both loops' are equal."""

import numpy as np
import pytest
from runners import make_runner, rows_of
from turn_env import AGENTS, RandomTurns
from turn_records import NUMBER, expected

LOGS = []


class Logged(RandomTurns):
    """Keeps its log where the test finds it."""

    def __init__(self, config=None):
        super().__init__(config)
        LOGS.append(self.log)


def sampled(fast, num_envs=1, fragments=(40,), **training):
    """The rollouts of a runner, its schema, and the logs of its envs."""
    LOGS.clear()
    runner = make_runner(
        Logged,
        {"length": 11},
        num_envs=num_envs,
        fast=fast,
        change=lambda config: config.env_runners(turn_based=True),
        extra_columns=[NUMBER],
        **training,
    )
    assert runner._is_fast() == fast
    rollouts = [rollout for steps in fragments for rollout in runner.sample(num_timesteps=steps)]
    logs = [[*log] for log in LOGS[-num_envs:]]
    metrics = runner.get_metrics()
    schema = runner.schema
    runner.stop()
    for rollout in rollouts:
        assert not rollout.error
    return rollouts, schema, logs, metrics


@pytest.mark.parametrize("fast", [True, False])
def test_rows_are_those_of_the_oracle(fast):
    rollouts, schema, (log,), _ = sampled(fast, fragments=(40, 1, 1, 7, 40, 60))
    assert [r.env_steps() for r in rollouts] == [40, 1, 1, 7, 40, 60]
    assert sum(len(played.steps) for played in log) == 149
    rows = rows_of(rollouts)
    right = expected(schema, log)
    # The order of rows that end with one step is that of RLlib's loop, too, but for fragments that end within an episode.
    for columns in (rows, right):
        order = np.lexsort(
            (columns["t"][:, 0], columns["acts"] @ [1, 2, 4, 8], columns["new_obs"][:, 0], columns["episodes"][:, 0])
        )
        for name in columns:
            columns[name] = columns[name][order]
    assert len(rows["t"]) == len(right["t"]) > 100
    for name, values in rows.items():
        wrong = right[name].astype(values.dtype)
        if name == "actions":
            # The env gets actions of its own scale, which the oracle reads.
            np.testing.assert_allclose(values, wrong, rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(values, wrong, err_msg=name)


NOISES = {"gumbel_and_gaussian": {}, "ornstein_uhlenbeck": {"noise_type": "ornstein_uhlenbeck"}}


@pytest.mark.parametrize("noise", NOISES)
def test_both_loops_give_the_same_rows(noise):
    both = [sampled(f, 2, (24, 6, 60, 60), num_steps_sampled_before_learning_starts=0, **NOISES[noise]) for f in (True, False)]
    columnar, stock = (rows_of(rollouts) for rollouts, *_ in both)
    for env in range(2):
        mine, theirs = ({n: c[rows["episodes"][:, 0] % 2 == env] for n, c in rows.items()} for rows in (columnar, stock))
        # RLlib spends a round on each reset.
        n = min(len(mine["t"]), len(theirs["t"]))
        assert n > 80
        for name in mine:
            np.testing.assert_allclose(mine[name][:n], theirs[name][:n], rtol=1e-6, atol=1e-6, err_msg=name)
    quick, stock = both[0][3], both[1][3]
    assert quick["num_env_steps_sampled"].peek() == stock["num_env_steps_sampled"].peek() == 150
    for agent in AGENTS:
        key = ("agent_episode_returns_mean", agent)
        assert agent in quick[key[0]] and agent in stock[key[0]]


def test_whole_episodes_leave_nothing_open():
    LOGS.clear()
    runner = make_runner(Logged, {"length": 11}, num_envs=2, change=lambda config: config.env_runners(turn_based=True))
    (first,) = runner.sample(num_timesteps=30)
    (rollout,) = runner.sample(num_episodes=5)
    runner.stop()
    assert rollout.error == "" and len(rollout)
    assert len(set(rollout.columns["episodes"][:, 0].tolist())) <= 5
    # No row of an episode that was given up, whose turns were open.
    assert not set(rollout.columns["episodes"][:, 0].tolist()) & set(first.columns["episodes"][:, 0].tolist())
