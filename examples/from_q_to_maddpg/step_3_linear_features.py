"""Step 3: approximate Q-learning. Where states are too many for a table, Q is a weighted sum of features of state and action.

    Q_w(s, a) = w . phi(s, a)
    w <- w + alpha (r + gamma max over a' of Q_w(s', a') - Q_w(s, a)) phi(s, a)

A table is the special case of one feature for each state and action, which is 1 there and 0 elsewhere: then the numbers are
those of step 2, to the last bit. With a few features (here of the row and the column of the field, for each action) far fewer
numbers are learned, and what they cannot express stays as an error.
"""

from __future__ import annotations

import numpy as np
from grid_world import MDP, grid_world, optimal_values
from pictures import parse, picture
from step_2_q_learning import EPSILON, LONGEST, STEP_SIZES


def one_hot(mdp: MDP) -> np.ndarray:
    """A feature for each state and action, `[S, A, S * A]`."""
    return np.eye(mdp.rewards.size).reshape(*mdp.shape, -1)


def few_features(mdp: MDP) -> np.ndarray:
    """For each action: 1, the row and the column, from 0 to 1: `[S, A, 3 * A]`."""
    of_state = np.column_stack([np.ones(len(mdp.fields)), mdp.fields / mdp.fields.max(0)])
    return np.einsum("sf,ab->sabf", of_state, np.eye(mdp.shape[1])).reshape(*mdp.shape, -1)


def approximate_q_learning(
    mdp: MDP, phi: np.ndarray, steps: int, seed: int, tabular_steps: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """As `q_learning` of step 2, in the same games.

    Args:
        mdp: The game.
        phi: Features, `[S, A, F]`.
        steps: Of all games together.
        seed: Of the games and of exploration.
        tabular_steps: True: the n-th visit of a state and action has the step size 1 / n^0.7; False: step t has
            0.1 / (1 + t / 1000)^0.7.

    Returns:
        Q, `[S, A]`, and the mean absolute error to Q* after each step, `[steps]`.
    """
    rng, best = np.random.default_rng(seed), optimal_values(mdp)
    weights, visits, errors = np.zeros(phi.shape[-1]), np.zeros(mdp.shape, int), np.zeros(steps)
    state, age = int(rng.integers(len(phi))), 0
    for step in range(steps):
        q = phi[state] @ weights
        action = int(rng.integers(4)) if rng.random() < EPSILON else int(q.argmax())
        following, reward, over = mdp.step(state, action, rng)
        target = reward + mdp.gamma * (0.0 if over else (phi[following] @ weights).max())
        visits[state, action] += 1
        alpha = STEP_SIZES["1 / n^0.7"](int(visits[state, action])) if tabular_steps else 0.1 / (1 + step / 1000) ** 0.7
        weights += alpha * (target - q[action]) * phi[state, action]
        errors[step] = np.abs(phi @ weights - best).mean()
        state, age = following, age + 1
        if over or age == LONGEST:
            state, age = int(rng.integers(len(phi))), 0
    return phi @ weights, errors


def main(args: list[str] | None = None) -> None:
    options = parse(__doc__, args)
    steps, seeds = (4_000, 2) if options.short else (50_000, 3)
    mdp = grid_world()
    with picture("step_3_linear_features", options, "steps", "mean error to Q*") as axes:
        for name, phi, tabular in (("one-hot", one_hot(mdp), True), ("rows and columns", few_features(mdp), False)):
            runs = [approximate_q_learning(mdp, phi, steps, seed, tabular)[1] for seed in range(seeds)]
            errors, label = np.mean(runs, 0), f"{name}: {phi.shape[-1]} weights"
            axes.loglog(np.arange(1, steps + 1), errors, label=label)
            print(f"{label:28s} mean error to Q* after {steps:,} steps of {seeds} seeds: {errors[-1]:.4f}")
        # The best that these features can do, weighed equally in all states.
        flat = few_features(mdp).reshape(mdp.rewards.size, -1)
        best = optimal_values(mdp).ravel()
        least = np.abs(flat @ np.linalg.lstsq(flat, best, rcond=None)[0] - best).mean()
        axes.axhline(least, ls="--", c="gray", label="least squares of Q*")


if __name__ == "__main__":
    main()
