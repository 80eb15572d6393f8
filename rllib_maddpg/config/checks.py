"""Checks of a config's settings: each `ValueError` names key, value, what is allowed, and the fix."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.column_checks import check_columns
from rllib_maddpg.config.kinds import RATE, python_scalars
from rllib_maddpg.config.model_checks import check_models
from rllib_maddpg.config.noise_check import check_noise_type
from rllib_maddpg.config.old_settings import OLD_SETTINGS, old_key_message
from rllib_maddpg.config.replay_checks import check_replay
from rllib_maddpg.config.require import near, require, shown
from rllib_maddpg.config.rllib_checks import (
    check_batch_mode,
    check_classes,
    check_compilation,
    check_evaluation,
    check_gpus,
    check_graphs,
    check_kind,
    check_policies,
    check_recording,
    check_rllib_settings,
    defaults_of,
)
from rllib_maddpg.config.rllib_settings import PASSED, REFUSED
from rllib_maddpg.config.shared_checks import check_shared_learner
from rllib_maddpg.envs.errors import did_you_mean

# Dicts of which only the user knows what is in them.
_OPEN_DICTS = ("env_config", "learner_config_dict")


def use_python_scalars(config: AlgorithmConfig) -> None:
    """NumPy's scalars, such as searches give them, become Python's, which RLlib's own checks and JSON ask for."""
    for key in {*type(config).table(), *PASSED, "_model_config"}.difference(_OPEN_DICTS):
        if not hasattr(config, key):  # a setting of another Ray
            continue
        value = getattr(config, key)
        plain = python_scalars(value)
        if plain is not value:
            setattr(config, key, plain)


def check_settings(config: AlgorithmConfig) -> None:
    """Checks all settings that can be judged without the environment."""
    check_keys(config)
    check_api_stack(config)
    check_rllib_settings(config)
    check_own_settings(config)
    check_shared_learner(config)
    check_noise_type(config)
    check_models(config)
    check_columns(config)
    check_batch_size(config)
    check_replay(config)
    check_classes(config)
    check_policies(config)
    check_batch_mode(config)
    check_compilation(config)
    check_gpus(config)
    check_graphs(config)
    check_evaluation(config)
    check_recording(config)


def check_api_stack(config: AlgorithmConfig) -> None:
    """New API stack only."""
    for key in ("enable_rl_module_and_learner", "enable_env_runner_and_connector_v2"):
        if getattr(config, key) is not True:
            raise ValueError(
                "`api_stack`: MADDPG runs on RLlib's new API stack only (RLModule, Learner, EnvRunner). Leave "
                f"`enable_rl_module_and_learner` and `enable_env_runner_and_connector_v2` True; `{key}` is not."
            )


def check_keys(config: AlgorithmConfig) -> None:
    """Every attribute is a known setting (RLlib sets unknown ones without a word)."""
    known = defaults_of(type(config))
    for key in vars(config):
        # "class" is left by RLlib when it rebuilds a config from its state.
        if key not in known and key != "class" and not key.startswith("__"):
            raise ValueError(unknown_key_message(key, [k for k in known if not k.startswith("_")]))


def check_own_settings(config: AlgorithmConfig) -> None:
    """What the table says of each by itself, and that there is a rate for each network."""
    table = type(config).table()
    for key, setting in table.items():
        if setting.check is not None:
            check_kind(config, key, setting.check)
    idle = {"lr"} if config.infer_other_policies is True else {"lr", "inferred_lr"}
    if None in (getattr(config, key) for key, s in table.items() if s.is_rate and key not in idle):
        check_kind(config, "lr", RATE)


def check_module_overrides(config: AlgorithmConfig, modules: Collection[str]) -> None:
    """`algorithm_config_overrides_per_module` names modules and settings that a module can have for itself."""
    keys = [key for key, setting in type(config).table().items() if setting.per_module]
    for module, overrides in config.algorithm_config_overrides_per_module.items():
        what = f"`algorithm_config_overrides_per_module[{shown(module)}]`"
        if module not in modules:
            hint = did_you_mean(str(module), modules)
            raise ValueError(
                f"{what} is not allowed: it must be for modules of {sorted(modules)}. There is no {module!r}.{hint}"
            )
        if not isinstance(overrides, Mapping):
            raise ValueError(f"{what}={shown(overrides)} is not allowed: it must be a dict, such as {{'tau': 0.01}}.")
        for name in overrides:
            if name not in keys:
                hint = did_you_mean(str(name), keys)
                raise ValueError(f"{what}: `{name}` holds for all modules.{hint} A module can have for itself: {keys}.")
        own = config.copy(copy_frozen=False).update_from_dict(overrides)
        try:
            check_own_settings(own)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error


def check_batch_size(config: AlgorithmConfig) -> None:
    """The two keys of the batch agree."""
    learners, total, own = config.num_learners or 1, config.train_batch_size, config.train_batch_size_per_learner
    if total is not None:
        fix = "Set `train_batch_size_per_learner` instead."
        require(config, "train_batch_size", total % learners == 0, f"divisible by the {learners} Learners", fix)
        agree = own in (type(config).table()["train_batch_size_per_learner"].default, total // learners)
        require(config, "train_batch_size", agree, f"unset beside `train_batch_size_per_learner`={own}", "Set one of the two.")


def unknown_key_message(key: str, known: list[str]) -> str:
    """Text for a key that no setting has."""
    if key in OLD_SETTINGS:
        return old_key_message(key)
    if key in PASSED or key in REFUSED:
        return f"`{key}` is a setting of other versions of Ray, not of {ray.__version__}, which is installed."
    return f"`{key}` is no setting of MADDPG. {near(key, known)}"
