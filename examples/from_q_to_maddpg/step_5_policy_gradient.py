"""Step 5: policy gradient. An actor can climb its return without any Q; the less its gradient's estimate varies, the better.

    gradient of J = E[ sum over t of (gradient of log pi(a_t | s_t)) psi_t ]

All three estimators have the same mean. They differ by what psi_t is: the return of the whole game; the reward-to-go, without
what was paid before a_t, which a_t cannot change; and the reward-to-go minus a baseline V(s_t), which tells whether a_t did
better than usual.
"""

from __future__ import annotations

import numpy as np
from grid_world import MDP, grid_world
from pictures import parse, picture

LONGEST = 30
ESTIMATORS = ("whole return", "reward-to-go", "reward-to-go - V(s)")


def softmax(theta: np.ndarray) -> np.ndarray:
    """pi(a | s) of preferences, `[S, A]`."""
    e = np.exp(theta - theta.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def values(mdp: MDP, policy: np.ndarray) -> list[np.ndarray]:
    """Expected return with so many steps to go, at index 0 ... `LONGEST`: `[S]` each."""
    v = [np.zeros(len(policy))]
    for _ in range(LONGEST):
        v.append((policy * (mdp.rewards + mdp.gamma * mdp.transitions @ v[-1])).sum(1))
    return v


def exact_gradient(mdp: MDP, theta: np.ndarray) -> np.ndarray:
    """The gradient of the expected return of games of at most `LONGEST` steps, `[S, A]`, by adding up all that may happen."""
    policy = softmax(theta)
    v, gradient, chances, discount = values(mdp, policy), np.zeros(mdp.shape), np.eye(len(theta))[mdp.start], 1.0
    for to_go in range(LONGEST, 0, -1):
        q = mdp.rewards + mdp.gamma * mdp.transitions @ v[to_go - 1]
        gradient += discount * chances[:, None] * policy * (q - v[to_go][:, None])
        chances, discount = np.einsum("s,sa,sat->t", chances, policy, mdp.transitions), discount * mdp.gamma
    return gradient


def estimates(mdp: MDP, theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One game's estimates of the gradient, `[3, S, A]`, in the order of `ESTIMATORS`."""
    policy = softmax(theta)
    v, state, games = values(mdp, policy), mdp.start, []
    for to_go in range(LONGEST, 0, -1):
        action = int(rng.choice(4, p=policy[state]))
        following, reward, over = mdp.step(state, action, rng)
        games.append((state, action, reward, v[to_go][state]))
        state = following
        if over:
            break
    discounts = mdp.gamma ** np.arange(len(games))
    paid = discounts * [reward for _, _, reward, _ in games]
    to_go = paid[::-1].cumsum()[::-1]
    baseline = discounts * [value for *_, value in games]
    found = np.zeros((3, *mdp.shape))
    for t, (state, action, _, _) in enumerate(games):
        score = np.eye(4)[action] - policy[state]  # the gradient of log pi(a | s)
        for k, psi in enumerate((paid.sum(), to_go[t], to_go[t] - baseline[t])):
            found[k, state] += psi * score
    return found


def main(args: list[str] | None = None) -> None:
    options = parse(__doc__, args)
    games = 500 if options.short else 20_000
    mdp, rng = grid_world(), np.random.default_rng(0)
    theta = np.zeros(mdp.shape)
    exact = exact_gradient(mdp, theta)
    found = np.stack([estimates(mdp, theta, rng) for _ in range(games)])
    variances = found.var(0).sum((1, 2))
    errors = np.abs(found.mean(0) - exact).max((1, 2))
    with picture("step_5_policy_gradient", options, "", "variance of one game's estimate") as axes:
        axes.bar(ESTIMATORS, variances)
    for name, variance, error in zip(ESTIMATORS, variances, errors, strict=True):
        print(f"{name:20s} variance {variance:.4f}; the mean of {games:,} games is within {error:.4f} of the exact gradient")


if __name__ == "__main__":
    main()
