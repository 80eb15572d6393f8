"""Policy ensembles (Lowe et al. 2017, section 4.3): an agent has K sub-policies, and plays one in an episode. No Ray here.

A module has an actor for each of them. Which one acts is the same in a whole episode, and stands in its rows; so those from
which a sub-policy learns are a view of all rows.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.modules.specs import ACTOR, NetworkSpec
from rllib_maddpg.rows.schema import Column

MOST = 64  # sub-policies of a module
# The column of joint rows and of what modules' forwards get: the number of the sub-policy that acts, 0 ... K-1.
SUB_POLICIES = "sub_policies"
# Agents that do not act in a row have their numbers, too: they may act at x'.
COLUMN = Column(SUB_POLICIES, "agents", dtype="uint8")


def sub_policy_names(number: int) -> list[str]:
    """Names of the networks of so many sub-policies; the first one is called as the only one of other modules."""
    return [ACTOR, *(f"{ACTOR}_{k}" for k in range(1, number))]


def check_sub_policies(specs: Sequence[NetworkSpec], number: int, module: str) -> None:
    """The networks of a module that act are as many as `num_sub_policies`, and env runners have them.

    Args:
        specs: All networks of the module.
        number: `num_sub_policies`.
        module: What it is called in errors.

    Raises:
        ValueError: Naming module and networks.
    """
    actors = [spec for spec in specs if spec.role == ACTOR]
    if len(actors) == number and all(spec.on_runners for spec in actors):
        return
    found = f"{module}: `networks()` has {len(actors)} networks of the role 'actor' ({[spec.name for spec in actors]})."
    if number == 1:
        raise ValueError(f"{found} Give exactly one, with `on_runners=True`: it chooses the actions.")
    raise ValueError(
        f"{found} `num_sub_policies`={number} asks for {number}, with `on_runners=True`: add `*self.actor_networks()` to what "
        "it returns, or set `num_sub_policies=1` for this module."
    )


def select(outputs: Sequence[Tensor], which: Tensor) -> Tensor:
    """Of the outputs of K sub-policies, `[..., dim]` each, those of the ones that act, `[..., dim]`.

    A gradient goes to each sub-policy in its own rows only (paper, equation 9).

    Args:
        outputs: In the order of their numbers.
        which: Whole numbers, `[...]`.
    """
    chosen = outputs[0]
    for k, output in enumerate(outputs[1:], 1):
        chosen = torch.where((which == k).unsqueeze(-1), output, chosen)
    return chosen


def teams_of(counts: Mapping[Hashable, int], share: bool | Collection[Collection[Hashable]]) -> list[tuple[Hashable, ...]]:
    """The agents whose sub-policies are drawn together.

    Args:
        counts: Agent -> K.
        share: The setting `share_sub_policy_draw`. True: all that have something to draw.

    Returns:
        Teams of two agents or more; all others draw for themselves.
    """
    given: Any = share if isinstance(share, (list, tuple)) else [[a for a, k in counts.items() if k > 1]] if share else []
    return [team for team in (tuple(agents) for agents in given) if len(team) > 1]
