"""Step 1: Q-value iteration. Whoever knows the game can compute what each action is worth.

    Q_{k+1}(s, a) = sum over s' of P(s' | s, a) (R(s, a, s') + gamma max over a' of Q_k(s', a'))

Each iteration multiplies the largest error by gamma at most, so from Q_0 = 0 the error after k of them is below gamma^k |Q*|.
"""

from __future__ import annotations

import numpy as np
from grid_world import MDP, grid_world, optimal_values
from pictures import parse, picture


def q_iteration(mdp: MDP, iterations: int) -> np.ndarray:
    """Q_0 ... Q_K, `[K + 1, S, A]`."""
    values = [np.zeros(mdp.shape)]
    for _ in range(iterations):
        values.append(mdp.backup(values[-1]))
    return np.stack(values)


def main(args: list[str] | None = None) -> None:
    options = parse(__doc__, args)
    mdp = grid_world()
    best = optimal_values(mdp)
    errors = np.abs(q_iteration(mdp, 60) - best).max((1, 2))
    bound = np.abs(best).max() * mdp.gamma ** np.arange(len(errors))
    with picture("step_1_q_iteration", options, "iteration k", "largest error") as axes:
        axes.semilogy(errors, label="|Q_k - Q*|")
        axes.semilogy(bound, "--", label="gamma^k |Q*|")
    arrows = np.array(["up", "right", "down", "left"])[best.argmax(1)]
    print(f"After 60 iterations the largest error is {errors[-1]:.1e}. Best action of the start: {arrows[mdp.start]}, which is")
    print(f"worth {best[mdp.start].max():.3f}.")


if __name__ == "__main__":
    main()
