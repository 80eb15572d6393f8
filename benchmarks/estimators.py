"""`python -m benchmarks.estimators`: bias and variance of each discrete gradient estimator on a small exact game.

Two agents with a few actions each play once. The critic of the first one is a small MLP of both action codes with fixed random
weights, and the game is what it says at one-hots; so the gradient of the first agent's value by its logits is known by adding
up all joint actions. An estimate is what an actor gets of one row: the critic's gradient through one draw of both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rllib_maddpg.rows.counter_random import gumbel, key_of, random_bits
from rllib_maddpg.rows.estimators import gapped_straight_through, gumbel_rao, one_hot_of_largest, straight_through

TEMPERATURES = (1.0, 0.5, 0.1)
ACTIONS, POLICIES, DRAWS, GAP, SAMPLES = 4, 20, 40_000, 1.0, 10


@dataclass(frozen=True)
class Quality:
    """Of an estimator at a temperature, over several policies.

    Attributes:
        bias: Root mean square of |E[estimate] - gradient| over that of |gradient|.
        error: Standard error of that, which comes from the number of draws.
        variance: Mean total variance of one estimate over the mean of |gradient|^2.
        cosine: Mean cosine of E[estimate] and the gradient.
    """

    bias: float
    error: float
    variance: float
    cosine: float


class Game:
    """The critic, and policies of both agents: logits `[P, n]` in float64."""

    def __init__(self, seed: int = 0, actions: int = ACTIONS, policies: int = POLICIES):
        random = torch.Generator().manual_seed(seed)
        self.critic = nn.Sequential(nn.Linear(2 * actions, 16), nn.Tanh(), nn.Linear(16, 1)).double().requires_grad_(False)
        for parameter in self.critic.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64))
        self.own, self.other = (torch.randn(policies, actions, generator=random, dtype=torch.float64) for _ in range(2))

    def q(self, own: Tensor, other: Tensor) -> Tensor:
        """The critic's value of action codes, `[..., n]` each."""
        return self.critic(torch.cat([own, other], -1)).squeeze(-1)

    def gradient(self) -> Tensor:
        """d E[q] / d logits of the first agent, exactly: `[P, n]`."""
        logits = self.own.clone().requires_grad_(True)
        eye = torch.eye(logits.shape[1], dtype=torch.float64)
        table = self.q(eye.unsqueeze(1).expand(-1, len(eye), -1), eye.unsqueeze(0).expand(len(eye), -1, -1))
        torch.einsum("pi,ij,pj->", logits.softmax(-1), table, self.other.softmax(-1)).backward()
        return logits.grad


def noise(draw: int, *shape: int) -> Tensor:
    """Standard Gumbel noise; another one for each number."""
    elements = torch.arange(torch.Size(shape).numel())
    return gumbel(random_bits(key_of(0, "estimators"), draw, elements), torch.float64).view(shape)


def estimates(game: Game, draw_code: Callable[[Tensor, Tensor], Tensor], draws: int = DRAWS) -> Tensor:
    """Gradients of so many draws for each policy, `[draws, P, n]`.

    Args:
        game: The game.
        draw_code: Makes codes of logits and Gumbel noise `[draws, P, n]`.
        draws: For each policy.
    """
    logits = game.own.expand(draws, -1, -1).clone().requires_grad_(True)
    other = one_hot_of_largest(game.other + noise(1, *logits.shape))
    game.q(draw_code(logits, noise(0, *logits.shape)), other).sum().backward()
    return logits.grad


def quality(found: Tensor, exact: Tensor) -> Quality:
    """What estimates `[draws, P, n]` are worth where `[P, n]` would be right."""
    mean, variance, size = found.mean(0), found.var(0).sum(-1).mean(), exact.square().sum(-1).mean()
    bias = ((mean - exact).square().sum(-1).mean() / size).sqrt()
    error = (variance / size / (len(found) * len(exact))).sqrt()
    cosine = nn.functional.cosine_similarity(mean, exact, dim=-1).mean()
    return Quality(float(bias), float(error), float(variance / size), float(cosine))


def estimators(temperature: float, gap: float = GAP, samples: int = SAMPLES) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """By name what draws codes of logits and Gumbel noise."""
    t, g = torch.tensor(temperature), torch.tensor(gap)
    return {
        "straight_through": lambda logits, given: straight_through((logits + given) / t),
        "gapped_straight_through": lambda logits, given: gapped_straight_through(logits, given, t, g),
        "gumbel_rao": lambda logits, given: gumbel_rao(logits, given, t, noise(2, samples, *logits.shape)),
    }


def table(draws: int = DRAWS, seed: int = 0) -> str:
    """The table, as Markdown."""
    game = Game(seed)
    exact = game.gradient()
    lines = ["| estimator | temperature | bias | variance | cosine |", "|---|---|---|---|---|"]
    for name in estimators(1.0):
        for temperature in TEMPERATURES:
            found = quality(estimates(game, estimators(temperature)[name], draws), exact)
            numbers = f"{found.bias:.3f} | {found.variance:.2f} | {found.cosine:.3f}"
            lines.append(f"| `{name}` | {temperature:g} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimators", description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=DRAWS, metavar="N", help=f"for each policy (default: {DRAWS:,})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the game (default: 0)")
    args = parser.parse_args()
    print(table(args.draws, args.seed))


if __name__ == "__main__":
    main()
