"""What a module knows of the sizes of its agents' observations and rewards, for networks that see size 1. No Ray here.

`ObservationFilter` is what acts: env runners, exported actors and the module's forwards have it. `Moments` is what the Learner
counts with; in float64, since the variance of observations of 1e4 +- 1 is lost in float32.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

# Normalized observations stay within -LIMIT and LIMIT.
LIMIT = 10.0
# Names of the settings, and what a module's state has where they are on.
OBSERVATIONS, REWARDS = "normalize_observations", "normalize_rewards"
FILTER, MOMENTS = "obs_filter", "moments"
STATE_OF = {OBSERVATIONS: f"{FILTER}.mean", REWARDS: f"{MOMENTS}.reward_count"}


def standardized(obs: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """(obs - mean) * scale, between -`LIMIT` and `LIMIT`; elementwise."""
    return ((obs - mean) * scale).clamp(-LIMIT, LIMIT)


class ObservationFilter(nn.Module):
    """Normalizes the observations of a module's agents; changes none (but for the limit) until it has been told of any.

    Attributes:
        mean: What is taken away from each column, `[obs_dim]`.
        scale: By what the rest is multiplied: one over the standard deviation, `[obs_dim]`.
    """

    def __init__(self, obs_dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(obs_dim))
        self.register_buffer("scale", torch.ones(obs_dim))

    def forward(self, obs: Tensor) -> Tensor:
        """`[..., obs_dim]` -> `[..., obs_dim]`."""
        return standardized(obs, self.mean, self.scale)


class Moments(nn.Module):
    """What the Learner has counted of the rows in which a module's agents were in the game, float64.

    Attributes:
        obs_count: Number of observations, without dimensions.
        obs_mean: Their mean, `[obs_dim]`.
        obs_deviations: Sum of their squared differences from it, `[obs_dim]`.
        reward_count: Number of rewards, without dimensions.
        reward_squares: Sum of their squares, without dimensions.
    """

    def __init__(self, obs_dim: int, observations: bool, rewards: bool):
        """
        Args:
            obs_dim: Width of an observation.
            observations, rewards: What is counted.
        """
        super().__init__()
        shapes = {"obs_count": (), "obs_mean": (obs_dim,), "obs_deviations": (obs_dim,)} if observations else {}
        shapes |= {"reward_count": (), "reward_squares": ()} if rewards else {}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))


def check_same_normalization(state: Collection[str], mine: Collection[str], settings: Collection[str], what: str) -> None:
    """Refuses weights that have learned with normalization in a module without it, and the reverse.

    Args:
        state: Names of the weights.
        mine: Names of the module's own.
        settings: Those that are looked at, of `STATE_OF`.
        what: Where the weights come from, for the message.

    Raises:
        ValueError: Naming the setting.
    """
    for key in settings:
        there, here = (STATE_OF[key] in names for names in (state, mine))
        if there != here:
            raise ValueError(
                f"{what} come from a run with `{key}`={there}, and here it is {here}: networks would see numbers of another "
                f"size than those they have learned from. Set `{key}={there}`, or train again."
            )
