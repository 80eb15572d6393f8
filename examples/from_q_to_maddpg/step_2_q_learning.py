"""Step 2: tabular Q-learning. Whoever does not know the game can learn the same values from steps in it.

    Q(s, a) <- Q(s, a) + alpha_n (r + gamma max over a' of Q(s', a') - Q(s, a))

It converges to Q* if every action is tried again and again in every state, and the step sizes alpha_n of the n-th visit
satisfy two conditions: their sum is infinite, so that any start is forgotten, and the sum of their squares is finite, so that
noise fades away. 1/n^0.7 satisfies both. A constant one fails the second, and its error stays; 1/n^2 fails the first, and never
gets there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from grid_world import MDP, grid_world, optimal_values
from pictures import parse, picture

EPSILON, LONGEST = 0.5, 100
STEP_SIZES: dict[str, Callable[[int], float]] = {
    "1 / n^0.7": lambda n: n**-0.7,
    "0.5": lambda n: 0.5,
    "1 / n^2": lambda n: n**-2.0,
}


def q_learning(
    mdp: MDP, step_size: Callable[[int], float], steps: int, seed: int, epsilon: float = EPSILON
) -> tuple[np.ndarray, np.ndarray]:
    """Learns with epsilon-greedy actions.

    Args:
        mdp: The game; games begin in any of its states, and are cut after 100 steps.
        step_size: alpha of the n-th visit of a state and action, n = 1, 2, ...
        steps: Of all games together.
        seed: Of the games and of exploration.
        epsilon: Share of random actions.

    Returns:
        Q, `[S, A]`, and the mean absolute error to Q* after each step, `[steps]`.
    """
    rng, best = np.random.default_rng(seed), optimal_values(mdp)
    q, visits, errors = np.zeros(mdp.shape), np.zeros(mdp.shape, int), np.zeros(steps)
    state, age = int(rng.integers(len(q))), 0
    for step in range(steps):
        action = int(rng.integers(4)) if rng.random() < epsilon else int(q[state].argmax())
        following, reward, over = mdp.step(state, action, rng)
        target = reward + mdp.gamma * (0.0 if over else q[following].max())
        visits[state, action] += 1
        q[state, action] += step_size(int(visits[state, action])) * (target - q[state, action])
        errors[step] = np.abs(q - best).mean()
        state, age = following, age + 1
        if over or age == LONGEST:
            state, age = int(rng.integers(len(q))), 0
    return q, errors


def main(args: list[str] | None = None) -> None:
    options = parse(__doc__, args)
    steps, seeds = (4_000, 2) if options.short else (100_000, 5)
    mdp = grid_world()
    with picture("step_2_q_learning", options, "steps", "mean error to Q*") as axes:
        for name, step_size in STEP_SIZES.items():
            errors = np.stack([q_learning(mdp, step_size, steps, seed)[1] for seed in range(seeds)])
            axes.loglog(np.arange(1, steps + 1), errors.mean(0), label=f"alpha = {name}")
            print(f"alpha = {name:10s} mean error to Q* after {steps:,} steps of {seeds} seeds: {errors[:, -1].mean():.4f}")


if __name__ == "__main__":
    main()
