"""Whether the agents of one run can play in another's game, found out before they do."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.require import same, shown
from rllib_maddpg.envs import resolve_env
from rllib_maddpg.envs.sources import ModuleSource
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.sampling.connectors import AgentMeanStdFilter
from rllib_maddpg.sampling.fast_path import DEFAULT_CONNECTORS
from rllib_maddpg.sampling.flatten_connector import FlattenAgentObservations
from rllib_maddpg.sampling.noise_connector import AddExplorationNoise

# Connectors that do the same for all games of one layout.
_PLAIN = (*DEFAULT_CONNECTORS, AddExplorationNoise, FlattenAgentObservations)
# Settings of an env that change nothing in what agents observe and do.
_NO_MATTER = ("render_mode", "direct_stepping")


@dataclass(frozen=True, eq=False)
class PlayingRun:
    """What playing needs of a run's checkpoint.

    Attributes:
        path: The checkpoint.
        config: Its config, with the overrides of `env_config`.
        layout: Its own game.
        module: All its modules, restored.
        pipelines: Connectors from env to module, and from module to env, restored.
    """

    path: Path
    config: MADDPGConfig
    layout: JointLayout
    module: MultiRLModule
    pipelines: tuple[list[Any], list[Any]]


def check_same_env(own: PlayingRun, other: Path) -> None:
    """Two runs were trained in one env; agents of another may have equal spaces by chance.

    Raises:
        ValueError: Naming both envs.
    """
    sources = [resolve_env(config.env).source for config in (own.config, load_config(other))]
    mine, theirs = map(_origin, sources)
    if mine != theirs:
        raise ValueError(
            f"Opponent {other} was trained in env={sources[1].name!r}, but {own.path} in env={sources[0].name!r}. Name an "
            "opponent that was trained in the same env."
        )


def _origin(source: Any) -> Any:
    """Equal for sources of one env."""
    if isinstance(source, ModuleSource):
        return source.module  # it may have several names, such as "simple_tag" and "mpe2/simple_tag_v3"
    make = getattr(source, "make", None)
    if make is None:
        return source.name
    # Names alone are those of many: two files may have a class `Env`, and all lambdas are called alike.
    line = make.__code__.co_firstlineno if hasattr(make, "__code__") else None
    return getattr(make, "__module__", None), getattr(make, "__qualname__", source.name), line


def check_fits(own: PlayingRun, other: PlayingRun, agents: Collection[Hashable]) -> None:
    """The other run can play these agents in the game of the first one.

    Raises:
        ValueError: Naming the agent, the setting or the connector that differs.
    """
    differences = _env_differences(own, other)
    _check_agents(own, other, agents, f" Their `env_config` differs: {differences}." if differences else "")
    if differences:
        raise ValueError(
            f"Opponent {other.path} was trained with another `env_config` than {own.path}: {differences}. If its agents know "
            "the game all the same, say what is to be played: `env_config={KEY: VALUE}` (`--env-config KEY=VALUE`) is for both."
        )
    for run in (own, other):
        if type(run.module) is not MultiRLModule:
            raise ValueError(
                f"Checkpoint {run.path} has a {type(run.module).__name__}, which may act for all modules together in a way of "
                "its own. In cross-play each module acts alone: use RLlib's MultiRLModule."
            )
    for mine, theirs in zip(own.pipelines, other.pipelines, strict=True):
        _check_connectors(own, other, mine, theirs)


def _check_agents(own: PlayingRun, other: PlayingRun, agents: Collection[Hashable], hint: str) -> None:
    mine, theirs = ({entry["agent"]: entry for entry in run.layout.description()["agents"]} for run in (own, other))
    for agent in map(str, agents):
        if agent not in theirs:
            raise ValueError(
                f"Opponent {other.path} has no agent {agent!r}, only {list(theirs)}.{hint} Narrow the pattern to agents that "
                "it was trained with."
            )
        for key, value in mine[agent].items():
            if key != "module" and value != theirs[agent][key]:  # modules may be shared in one run and not in the other
                raise ValueError(
                    f"Opponent {other.path} has another layout of agent {agent!r}: `{key}` is {theirs[agent][key]!r} there and "
                    f"{value!r} in {own.path}.{hint} Name an opponent that was trained with the same observations, actions and "
                    "`actor_head`."
                )


def _env_differences(own: PlayingRun, other: PlayingRun) -> str:
    """Which settings of the env differ, and how; nothing if none does."""
    here, there = own.config.env_config, other.config.env_config

    def text(settings: dict, key: str) -> str:
        return shown(settings[key]) if key in settings else "not set"

    keys = sorted((here.keys() | there.keys()) - set(_NO_MATTER), key=str)
    differing = [key for key in keys if not (key in here and key in there and same(here[key], there[key]))]
    return ", ".join(f"{key!r} is {text(there, key)} there and {text(here, key)} here" for key in differing)


def _check_connectors(own: PlayingRun, other: PlayingRun, mine: list[Any], theirs: list[Any]) -> None:
    """All agents of a game pass through the same connectors."""
    here, there = ([type(piece) for piece in pieces] for pieces in (mine, theirs))
    if here != there:
        here, there = ([cls.__name__ for cls in classes if cls not in _PLAIN] for classes in (here, there))
        what = f"{there or 'none'} there and {here or 'none'} here, or in another order"
    elif differing := [a for a, b in zip(mine, theirs, strict=True) if not _does_the_same(a, b)]:
        what = f"{type(differing[0]).__name__} has other settings or another state"
    else:
        return
    raise ValueError(
        f"Opponent {other.path} was trained with other connectors than {own.path}: {what}. All agents of a game pass through "
        "the same ones; only the statistics of `MeanStdFilter(multi_agent=True)` are each agent's own. Train both runs with "
        "the same connectors, or do their work in the env (`env_config={'wrappers': ...}`)."
    )


def _does_the_same(one: Any, other: Any) -> bool:
    """Whether two connectors of one class do the same; in doubt not."""
    if type(one) in _PLAIN:
        return True
    if isinstance(one, AgentMeanStdFilter):
        return same(one.get_ctor_args_and_kwargs(), other.get_ctor_args_and_kwargs())
    return same(vars(one), vars(other))
