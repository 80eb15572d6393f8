"""`Setting`: all that is known of one setting. A config's table is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

from ray.rllib.algorithms.algorithm_config import NotProvided

from rllib_maddpg.config.kinds import Kind, is_number
from rllib_maddpg.config.require import shown


@dataclass(frozen=True)
class Setting:
    """One row of a config's table.

    Attributes:
        key: The config's attribute, and the key for Tune, YAML and the command line.
        default: What a new config has; `NotProvided`: what RLlib's has.
        check: The values that are allowed, each by itself; None: other checks see to it.
        doc: What it does, for users; "": RLlib's documentation says it.
        method: The method of the config that sets it.
        part: Which part of the algorithm uses it; see `DescribedConfig.part`.
        per_module: Whether a module can have its own value (`algorithm_config_overrides_per_module`).
        structural: Of those: modules that differ in it are not computed as one group. All others are numbers, or rates, of
            which each module of a group has its own.
        mutable: Whether population based training may change it: the checkpoint of another trial fits whatever the value.
        main: Whether `config.yaml` has it also where it is the default.
        short: Its name where room is short: tables and legends.

    Raises:
        ValueError: If these do not fit each other.
    """

    key: str
    default: Any = NotProvided
    check: Kind | None = None
    doc: str = ""
    method: str = "training"
    part: str = "learning"
    per_module: bool = False
    structural: bool = False
    mutable: bool = False
    main: bool = False
    short: str = ""

    def __post_init__(self) -> None:
        what = f"Setting {shown(self.key)}"
        if not isinstance(self.key, str) or not self.key.isidentifier() or iskeyword(self.key):
            raise ValueError(f"{what}: a key must be a Python name, since it becomes an attribute of the config.")
        if self.check is not None and not isinstance(self.check, Kind):
            raise ValueError(f"{what}: check={shown(self.check)} must be a `Kind` (`rllib_maddpg.config.kinds`), or None.")
        if self.has_default and self.check is not None and not self.check.accepts(self.default):
            raise ValueError(f"{what}: default={shown(self.default)} must pass its own check: {self.check.allowed}.")
        if not self.is_module_number:
            return
        if self.has_default and not (self.default is None or is_number(self.default)):
            raise ValueError(
                f"{what}: default={shown(self.default)} must be a number where modules can have their own. Set `structural` "
                "for anything else: modules that differ in it are then computed apart."
            )
        if self.check is None:
            raise ValueError(f"{what}: give a `check`, since modules can have values of their own.")

    @property
    def has_default(self) -> bool:
        """Whether it has a default beside RLlib's."""
        # By its type: a class of a user's script travels with its table to other processes, where `NotProvided` is a copy.
        return not isinstance(self.default, type(NotProvided))

    @property
    def is_rate(self) -> bool:
        """Whether it is a learning rate, or another schedule that a module can have for itself."""
        return self.per_module and self.check is not None and self.check.schedules

    @property
    def is_module_number(self) -> bool:
        """Whether losses and updates get it as one number for each module."""
        return self.per_module and not self.structural and not self.is_rate
