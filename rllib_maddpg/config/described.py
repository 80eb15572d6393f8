"""`DescribedConfig`: a config that knows its settings from a table, to which subclasses add rows."""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import replace
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.require import shown
from rllib_maddpg.config.rllib_checks import defaults_of
from rllib_maddpg.config.setters import NamedErrors
from rllib_maddpg.config.setting import Setting
from rllib_maddpg.envs.errors import did_you_mean

# The methods that take settings which RLlib does not have.
_OWN_METHODS = ("training", "env_runners", "learners")


class DescribedConfig(NamedErrors):
    """RLlib's config, with settings as the table says.

    Attributes:
        SETTINGS: The rows. A subclass gives all of them: `SETTINGS = (*MADDPGConfig.SETTINGS, Setting(...))`. Of several rows
            of one key the last one holds. Where only defaults differ: `SETTINGS = MADDPGConfig.with_defaults(tau=0.02)`.
    """

    SETTINGS: tuple[Setting, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_table(cls)
        if issubclass(cls.__base__, DescribedConfig):
            _check_inherited(cls)

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class)
        for setting in self.table().values():
            if setting.has_default:
                setattr(self, setting.key, copy.deepcopy(setting.default))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Settings that were not there when a config was pickled get their defaults."""
        vars(self).update(state)
        for setting in self.table().values():
            if setting.has_default and not hasattr(self, setting.key):
                vars(self)[setting.key] = copy.deepcopy(setting.default)

    @classmethod
    def table(cls) -> dict[str, Setting]:
        """Key -> setting."""
        return {setting.key: setting for setting in cls.SETTINGS}

    @classmethod
    def with_defaults(cls, **defaults: Any) -> tuple[Setting, ...]:
        """The rows with other defaults, for a subclass.

        Raises:
            ValueError: If there is no such row, or a row does not allow its default.
        """
        table = cls.table()
        for key in defaults.keys() - table:
            raise ValueError(f"`{key}` is no row of `{cls.__name__}.SETTINGS`.{did_you_mean(key, table)}")
        return tuple(replace(row, default=defaults.get(key, row.default)) for key, row in table.items())

    @classmethod
    def mutable_keys(cls) -> list[str]:
        """The settings that population based training may change in a running trial."""
        return [key for key, setting in cls.table().items() if setting.mutable]

    def part(self, name: str) -> dict[str, Any]:
        """Key -> value of the settings of one part of the algorithm, such as "exploration"."""
        return {key: getattr(self, key) for key, setting in self.table().items() if setting.part == name}

    def module_numbers(self, env_steps: int = 0) -> dict[str, float]:
        """Key -> value of the numbers that a module can have for itself; None, which means no limit, is infinity.

        Rates are not here. A module's own values are those of its config (`get_config_for_module`).

        Args:
            env_steps: Sampled so far, for numbers that change with them (`module_schedules`).
        """
        values = {key: getattr(self, key) for key, setting in self.table().items() if setting.is_module_number}
        values |= self.module_schedules(env_steps)
        return {key: math.inf if value is None else float(value) for key, value in values.items()}

    def module_schedules(self, env_steps: int) -> dict[str, float]:
        """Those of `module_numbers` that change with env steps, as they are after so many. A subclass may have some."""
        return {}

    def module_words(self) -> dict[str, Any]:
        """Key -> value of all else that a module can have for itself: modules that differ in it are not computed as one."""
        return {key: getattr(self, key) for key, s in self.table().items() if s.per_module and s.structural}

    @classmethod
    def own_keys(cls, method: str) -> set[str]:
        """The settings that a method of this class takes and RLlib's does not."""
        takes = inspect.signature(getattr(AlgorithmConfig, method)).parameters
        return {key for key, setting in cls.table().items() if setting.method == method and key not in takes}

    def _set_own(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        """Sets those of the `given` settings that RLlib's method does not take, and returns the others."""
        own = self.own_keys(method)
        for key in own & given.keys():
            setattr(self, key, given[key])
        return {key: value for key, value in given.items() if key not in own}


def _check_inherited(cls: type[DescribedConfig]) -> None:
    """A subclass keeps the rows of its base, and what the algorithm needs of them."""
    table = cls.table()
    for key, inherited in cls.__base__.table().items():
        what = f"`{cls.__name__}.SETTINGS`: `{key}`"
        if key not in table:
            base = cls.__base__.__name__
            raise ValueError(f"{what} is missing. Begin with those of {base}: `SETTINGS = (*{base}.SETTINGS, ...)`.")
        kept = ("per_module", "structural", "part", "method")
        lost = [name for name in kept if getattr(table[key], name) != getattr(inherited, name)]
        if inherited.check is not None and table[key].check is None:
            lost.append("check")
        if lost:
            raise ValueError(
                f"{what} has another {lost[0]} than in {cls.__base__.__name__}, which needs it as it is. For another default "
                f"give `dataclasses.replace({cls.__base__.__name__}.table()[{key!r}], default=...)`."
            )


def _check_table(cls: type[DescribedConfig]) -> None:
    """Raises a ValueError that names class and row if a table does not fit its class."""
    for setting in cls.SETTINGS:
        if not isinstance(setting, Setting):
            raise ValueError(f"`{cls.__name__}.SETTINGS` has {shown(setting)}, which is no `Setting`.")
        key, what = setting.key, f"`{cls.__name__}.SETTINGS`: `{setting.key}`"
        own = getattr(cls, key, None)
        if callable(own) or (isinstance(own, property) and key not in dir(AlgorithmConfig)):
            raise ValueError(f"{what} is the name of a method of the config. Rename the setting.")
        if key in defaults_of(AlgorithmConfig) or hasattr(AlgorithmConfig, key):
            continue
        if key.startswith("evaluation_"):
            raise ValueError(f"{what} begins as RLlib's settings of `.evaluation()` do. Rename the setting.")
        if not setting.has_default:
            raise ValueError(f"{what} needs a default: RLlib has no setting of this name.")
        if setting.method not in _OWN_METHODS:
            raise ValueError(f"{what} has the method {shown(setting.method)}. Settings are added to {list(_OWN_METHODS)}.")
