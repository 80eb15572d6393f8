"""Policy ensembles in a config: how many sub-policies modules have, which column rows have for them, and who draws together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from rllib_maddpg.config.model_checks import module_classes
from rllib_maddpg.config.require import require, shown
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.modules.rule_modules import has_networks
from rllib_maddpg.modules.sub_policies import COLUMN, teams_of
from rllib_maddpg.rows.schema import Column


def sub_policies_of(config: Any) -> dict[str, int]:
    """Module id -> K, of a config whose `policies` are those of its env. Modules without MADDPG's networks have one policy."""
    classes = module_classes(config, config.policies)
    return {m: config.of_module(m, "num_sub_policies") if has_networks(cls) else 1 for m, cls in classes.items()}


def sub_policy_columns(config: Any) -> list[Column]:
    """What rows need to tell which sub-policies have acted, if there are any ensembles."""
    if config.num_sub_policies == 1 and not config.algorithm_config_overrides_per_module:
        return []
    return [COLUMN] if max(sub_policies_of(config).values(), default=1) > 1 else []


def check_ensembles(config: Any, module_of: Mapping[Hashable, str]) -> None:
    """Agents that draw together are some of the game, and have equally many sub-policies; the one that is to act exists.

    Args:
        config: With its env's `policies`.
        module_of: Agent -> module.

    Raises:
        ValueError: Naming agents or module.
    """
    number_of = sub_policies_of(config)
    counts = {agent: number_of[module] for agent, module in module_of.items()}
    _check_teams(config, counts)
    if config.sub_policy is None:
        return
    check_exists(config.sub_policy, {m: k for m, k in number_of.items() if has_networks(module_classes(config, [m])[m])})
    alone = config.in_evaluation or max(number_of.values()) == 1
    fix = "Set it for evaluation: `evaluation_config={'sub_policy': ...}`, or `rllib-maddpg evaluate --sub-policy`."
    require(config, "sub_policy", alone, "None in training, where all sub-policies learn", fix)


def check_exists(sub_policy: int, number_of: Mapping[Any, int]) -> None:
    """A sub-policy that is to act is there in every module.

    Args:
        sub_policy: Its number.
        number_of: Module -> K.

    Raises:
        ValueError: Naming the first module that has no such sub-policy.
    """
    for module, number in number_of.items():
        if not 0 <= sub_policy < number:
            has = "one policy, 0" if number == 1 else f"sub-policies 0 to {number - 1}"
            raise ValueError(f"`sub_policy`={sub_policy} is not allowed: module {module!r} has {has}. Name one that all have.")


def _check_teams(config: Any, counts: Mapping[Hashable, int]) -> None:
    share = config.share_sub_policy_draw
    what = f"`share_sub_policy_draw`={shown(share)} is not allowed"
    seen: set[Hashable] = set()
    for agent in (a for team in share for a in team) if isinstance(share, (list, tuple)) else ():
        if agent not in counts:
            hint = did_you_mean(str(agent), map(str, counts))
            raise ValueError(f"{what}: there is no agent {agent!r}.{hint} The agents are {list(counts)}.")
        if agent in seen:
            raise ValueError(f"{what}: agent {agent!r} is in it twice. Let it draw with one list of agents only.")
        seen.add(agent)
    for first, *others in teams_of(counts, share):
        for agent in others:
            if counts[agent] != counts[first]:
                raise ValueError(
                    f"{what}: agents {first!r} and {agent!r} would draw together, and have {counts[first]} and {counts[agent]} "
                    "sub-policies. Give their modules the same `num_sub_policies`, or let them draw by themselves."
                )
