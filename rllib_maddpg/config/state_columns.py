"""The column of the env's global state, where a critic's view asks for it, and the checks of `critic_view` and `state_key`."""

from __future__ import annotations

from typing import Any

from rllib_maddpg.config.require import require
from rllib_maddpg.envs.errors import EnvError
from rllib_maddpg.envs.global_state import probe_state_width, state_column
from rllib_maddpg.modules.views import STATE, VIEWS, View
from rllib_maddpg.rows.schema import NEXT, Column


def state_columns(config: Any) -> list[Column]:
    """The column of the global state, or none.

    Args:
        config: A `MADDPGConfig` whose `policies` are those of its env.
    """
    if not state_readers(config):
        return []
    width = config._global_state_width
    if width is None:  # a config that was not validated
        width = _width(config)
    return [state_column(STATE, config.state_key, width)]


def resolve_state(config: Any) -> None:
    """Finds out how wide the env's global state is, where somebody asks for it.

    Raises:
        ValueError: If somebody does, and the env has none; or if `state_key` is set and nobody does.
    """
    readers = state_readers(config)
    for place, column in enumerate(config.extra_columns if readers else ()):
        free = column.name != NEXT + STATE
        fix = f"A critic sees the global state, whose value at x' is a column {NEXT + STATE!r}. Rename yours."
        require(config, f"extra_columns[{place}].name", free, "a name that no other column has", fix, column.name)
    fix = "Set `critic_view='state'` or 'state+all' for all modules or for some; or take `state_key` out."
    require(config, "state_key", bool(readers) or config.state_key is None, "None where no critic sees the global state", fix)
    config._global_state_width = _width(config) if readers else None


def _width(config: Any) -> int:
    try:
        return probe_state_width(config.env, config.env_config, config.num_env_runners, config.state_key)
    except EnvError as error:
        readers = state_readers(config)
        view = _view(config, readers[0])
        raise ValueError(f"`critic_view`={view.name!r} of {readers} is not allowed: {error}") from error


def state_readers(config: Any) -> list[str]:
    """Ids of the modules whose critics see the env's global state.

    Where `extra_columns` has a column of its name, they see that one, and the env is not asked.
    """
    if any(column.name == STATE for column in config.extra_columns):
        return []
    return [m for m in config.policies if _view(config, m).sees_state]


def _view(config: Any, module_id: str) -> View:
    view = config.of_module(module_id, "critic_view")
    return VIEWS[view] if isinstance(view, str) else view
