"""The scripts of the road from Q-iteration to MADDPG: each runs in its short form, and agrees with what is known exactly."""

import importlib
import sys

import numpy as np
import pytest
from paths import EXAMPLES

sys.path.insert(0, str(EXAMPLES / "from_q_to_maddpg"))

import step_1_q_iteration as step_1
import step_2_q_learning as step_2
import step_3_linear_features as step_3
import step_5_policy_gradient as step_5
import step_6_independent_learners as step_6
from grid_world import grid_world, optimal_values

SCRIPTS = sorted(path.stem for path in (EXAMPLES / "from_q_to_maddpg").glob("step_*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_runs_and_draws(script, tmp_path, capsys):
    importlib.import_module(script).main(["--short", "--out", str(tmp_path)])
    assert capsys.readouterr().out
    assert [path.stem for path in tmp_path.glob("*.png")] == [script]


def test_q_iteration_reaches_the_values_of_the_best_policy():
    """These are the solution of linear equations, V = R + gamma P V."""
    mdp = grid_world()
    q = step_1.q_iteration(mdp, 200)
    policy, states = q[-1].argmax(1), np.arange(len(q[-1]))
    v = np.linalg.solve(np.eye(len(states)) - mdp.gamma * mdp.transitions[states, policy], mdp.rewards[states, policy])
    np.testing.assert_allclose(q[-1].max(1), v, atol=1e-12)  # float64
    errors, bound = np.abs(q - optimal_values(mdp)).max((1, 2)), np.abs(optimal_values(mdp)).max()
    assert (errors <= bound * mdp.gamma ** np.arange(len(errors)) + 1e-12).all()


def test_the_grid_world_is_a_game_of_chances():
    mdp = grid_world()
    sums = mdp.transitions.sum(-1)
    assert (sums <= 1 + 1e-12).all() and mdp.transitions.min() >= 0
    # Beside the prize "right" ends the game 4 times in 5, and slips up or down, where there are a wall and a field, otherwise.
    state = [tuple(field) for field in mdp.fields].index((0, 2))
    assert sums[state, 1] == pytest.approx(0.2) and mdp.rewards[state, 1] == pytest.approx(0.8 - 0.04)
    # A sampled step is as likely as it says.
    rng = np.random.default_rng(0)
    over = [mdp.step(state, 1, rng)[2] for _ in range(4000)]
    assert np.mean(over) == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 4000))


def test_q_learning_converges_where_both_conditions_hold():
    mdp = grid_world()
    errors = {name: step_2.q_learning(mdp, size, 20_000, 0)[1][-1] for name, size in step_2.STEP_SIZES.items()}
    assert errors["1 / n^0.7"] < 0.02 < 0.04 < errors["0.5"] < 0.2 < errors["1 / n^2"]


@pytest.mark.parametrize("seed", range(3))
def test_a_table_is_the_special_case_of_one_hot_features(seed):
    mdp = grid_world()
    table, errors = step_2.q_learning(mdp, step_2.STEP_SIZES["1 / n^0.7"], 3000, seed)
    q, same = step_3.approximate_q_learning(mdp, step_3.one_hot(mdp), 3000, seed, tabular_steps=True)
    np.testing.assert_array_equal(q, table)
    np.testing.assert_array_equal(same, errors)


def test_the_exact_policy_gradient_is_that_of_finite_differences():
    mdp, rng = grid_world(), np.random.default_rng(1)
    theta, eps = rng.normal(size=mdp.shape), 1e-6

    def expected_return(preferences):
        return step_5.values(mdp, step_5.softmax(preferences))[step_5.LONGEST][mdp.start]

    numeric = np.zeros(mdp.shape)
    for at in np.ndindex(*mdp.shape):
        change = np.zeros(mdp.shape)
        change[at] = eps
        numeric[at] = (expected_return(theta + change) - expected_return(theta - change)) / (2 * eps)
    # Central differences are exact to eps^2, and to rounding, 1e-16 / eps.
    np.testing.assert_allclose(step_5.exact_gradient(mdp, theta), numeric, atol=1e-8)


def test_all_estimators_have_the_exact_gradient_for_their_mean_and_fall_in_variance():
    mdp, rng = grid_world(), np.random.default_rng(2)
    theta, games = np.zeros(mdp.shape), 3000
    found = np.stack([step_5.estimates(mdp, theta, rng) for _ in range(games)])
    deviation = np.abs(found.mean(0) - step_5.exact_gradient(mdp, theta))
    # 108 numbers: one in thousands of tests would be beyond 5 standard errors.
    assert (deviation <= 5 * found.std(0) / np.sqrt(games) + 1e-12).all()
    variances = found.var(0).sum((1, 2))
    assert variances[0] > 2 * variances[1] > 4 * variances[2]


def test_a_single_sample_points_the_right_way_as_rarely_as_the_formula_says():
    rng, samples = np.random.default_rng(3), 100_000
    for agents in range(1, 9):
        low, high = step_6.interval(step_6.right_direction(agents, samples, rng), samples, 1 - 0.001 / 8)
        assert low <= 0.5**agents <= high


def test_the_interval_is_that_of_clopper_and_pearson():
    """5 of 10: the published 95 % interval; none of 10: 1 - 0.025^(1/10)."""
    assert step_6.interval(5, 10, 0.95) == pytest.approx((0.1871, 0.8129), abs=1e-4)
    assert step_6.interval(0, 10, 0.95) == pytest.approx((0.0, 1 - 0.025**0.1))


def test_independent_learners_fluctuate_and_a_joint_one_does_not():
    seen, known = step_6.q_learners(4000, np.random.default_rng(0))
    assert seen[2000:, 0].std() > 0.2 and known[2000:].std(0).max() < 0.01
    np.testing.assert_allclose(known[-1], [1.0, -1.0], atol=0.01)
