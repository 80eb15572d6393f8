"""Step 6: why independent learners fail. What one agent learns changes the game that the others learn in.

Left: N agents choose 0 or 1, each with probability 0.5, and are paid 1 if all choose 1 (Lowe et al. 2017, proposition 1). The
gradient of the expected return says that all should choose 1 more often. A policy gradient from a single sample points the
right way only if that sample was paid at all: with probability 0.5^N. A critic that sees all actions has no such problem.

Right: two independent Q-learners, each with a table of its own two actions, play matching pennies: the first is paid 1 and the
second -1 if both do the same, and the reverse if not. Whatever one of them learns is wrong as soon as the other one changes its
mind: their values fluctuate forever. A learner of joint actions has the values after a few hundred steps.
"""

from __future__ import annotations

import numpy as np
from pictures import parse, picture
from scipy.stats import beta

MOST_AGENTS = 8
# Of all intervals together (Bonferroni).
CONFIDENCE = 0.95


def right_direction(agents: int, samples: int, rng: np.random.Generator) -> int:
    """How many of the samples' policy gradients have a positive product with the true gradient."""
    actions = rng.integers(0, 2, (samples, agents))
    reward = actions.all(1)
    score = (actions - 0.5) / 0.25  # the derivative of log P(a_i) by P(a_i = 1), at 0.5
    true_gradient = np.full(agents, 0.5 ** (agents - 1))
    return int(((reward[:, None] * score) @ true_gradient > 0).sum())


def interval(hits: int, samples: int, confidence: float) -> tuple[float, float]:
    """Bounds of a probability that was met so often (Clopper and Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, hits, samples - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, samples - hits) if hits < samples else 1.0
    return float(low), float(high)


def q_learners(steps: int, rng: np.random.Generator, alpha: float = 0.1, epsilon: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Two independent learners, and one of joint actions that sees the same games.

    Returns:
        What the first agent takes its actions to be worth, `[steps, 2]`; what the joint learner says that (0, 0) and (0, 1)
        are worth to it, `[steps, 2]`.
    """
    own, joint, seen, known = np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((steps, 2)), np.zeros((steps, 2))
    for step in range(steps):
        explores = rng.random(2) < epsilon
        a, b = np.where(explores, rng.integers(0, 2, 2), own.argmax(1))
        reward = 1.0 if a == b else -1.0
        own[0, a] += alpha * (reward - own[0, a])
        own[1, b] += alpha * (-reward - own[1, b])
        joint[a, b] += alpha * (reward - joint[a, b])
        seen[step], known[step] = own[0], joint[0]
    return seen, known


def main(args: list[str] | None = None) -> None:
    options = parse(__doc__, args)
    samples, steps = (20_000, 1_000) if options.short else (1_000_000, 4_000)
    rng = np.random.default_rng(0)
    numbers = np.arange(1, MOST_AGENTS + 1)
    hits = [right_direction(int(n), samples, rng) for n in numbers]
    bounds = np.array([interval(h, samples, 1 - (1 - CONFIDENCE) / MOST_AGENTS) for h in hits])
    measured = np.array(hits) / samples
    with picture("step_6_independent_learners", options, "", "", columns=2) as (left, right):
        left.errorbar(numbers, measured, np.abs(bounds.T - measured), fmt="o", capsize=3, label="measured")
        left.semilogy(numbers, 0.5**numbers, "--", label="0.5^N")
        left.set(xlabel="agents N", ylabel="P(right direction)")
        seen, known = q_learners(steps, rng)
        right.plot(seen[:, 0], lw=0.8, label="independent: own action 0")
        right.plot(known, lw=1.5, label=["joint: (0, 0)", "joint: (0, 1)"])
        right.set(xlabel="steps", ylabel="value")
    for n, p, (low, high) in zip(numbers, measured, bounds, strict=True):
        inside = "within" if low <= 0.5**n <= high else "outside of"
        print(f"N = {n}: {p:.5f}; 0.5^N = {0.5**n:.5f} lies {inside} its interval [{low:.5f}, {high:.5f}]")
    half = slice(steps // 2, None)
    print(f"Spread (std) in the second half: independent {seen[half, 0].std():.3f}, joint {known[half, 0].std():.3f}")


if __name__ == "__main__":
    main()
