"""From a sweep to the config of its trials, and the check that MADDPG would take each of them."""

from __future__ import annotations

import copy
import itertools
import re
from typing import Any

from rllib_maddpg.algorithm.members import algorithm_class, new_config
from rllib_maddpg.config.checks import unknown_key_message
from rllib_maddpg.config.config_file import ALGORITHM, DEFAULT_ALGORITHM
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.require import same
from rllib_maddpg.config.text_settings import apply_settings, known_keys
from rllib_maddpg.envs import probe_env
from rllib_maddpg.sweeps.member_trial import MemberTrial
from rllib_maddpg.sweeps.schema import LEARNER, OWN, Sweep
from rllib_maddpg.sweeps.space import LISTS, SECTION, points

# Keys of the file that say what a trial needs; the others under `resources` are the machine's.
RESOURCE_SETTINGS = ("num_env_runners", "num_learners")
SHARED_LEARNER = "shared_learner"
_SEVERAL = f"{ALGORITHM}: {{grid: [MADDPG, MATD3]}}"
# A setting at the beginning of an error's text, with the key of an item.
_KEY = r"`(\w+)(?:\[['\"](\w+)['\"]\])?"
# More combinations than this are not checked all: each key's values are, with the first values of the others.
_MAX_POINTS = 256


def shared_settings(sweep: Sweep) -> dict[str, Any]:
    """The settings that all trials have, with dotted keys."""
    resources = {key: sweep.resources[key] for key in RESOURCE_SETTINGS if key in sweep.resources}
    # A process of its own has each trial.
    defaults = {"process_wide_speedups": True, "min_sample_timesteps_per_iteration": sweep.iteration}
    shared = {SHARED_LEARNER: True} if sweep.shares_learner else {}
    return {**defaults, **sweep.settings, **resources, **shared}


def trainable(sweep: Sweep) -> str | type[MemberTrial]:
    """What Tune runs."""
    is_swept = any(axis.key == ALGORITHM for axis in sweep.axes)
    # The default by its name, as in the folders of sweeps of before there were others.
    return MemberTrial if is_swept or sweep.algorithm != DEFAULT_ALGORITHM else DEFAULT_ALGORITHM


def tune_path(key: str) -> list[str]:
    """Where a setting lies in the config dict that Tune gives to a trial."""
    first, *rest = key.split(".")
    # RLlib's `model_config` is a property without a setter.
    return ["_model_config" if first == "model_config" else first, *rest]


def param_space(sweep: Sweep, num_gpus_per_learner: float, shared_learner: str | None = None) -> dict[str, Any]:
    """Tune's search space: a config dict with domains at the swept keys.

    Args:
        sweep: The sweep.
        num_gpus_per_learner: Of each trial.
        shared_learner: The name of the one that all trials share; None: each has its own.
    """
    base = make_config(sweep, {})
    shared = {**shared_settings(sweep), "num_gpus_per_learner": num_gpus_per_learner}
    if shared_learner is not None:
        shared[SHARED_LEARNER] = shared_learner
    space: dict[str, Any] = {"env": sweep.env, "env_config": dict(sweep.env_config)}
    if trainable(sweep) is MemberTrial:
        space[ALGORITHM] = sweep.algorithm  # unless an axis has it
    for key, value in itertools.chain(shared.items(), ((axis.key, axis.domain()) for axis in sweep.axes)):
        first, *rest = tune_path(key)
        if not rest:
            # A copy, since a dotted key may set an item of it.
            space[first] = copy.deepcopy(value)
            continue
        # A dict in a config dict replaces the whole one of the config.
        inner = space.setdefault(first, copy.deepcopy(dict(getattr(base, first) or {})))
        for part in rest[:-1]:
            inner = inner.setdefault(part, {})
        inner[rest[-1]] = value
    return space


def make_config(sweep: Sweep, values: dict[str, Any]) -> MADDPGConfig:
    """The config of a trial with these values at swept keys; not validated.

    Raises:
        ValueError: On an unknown key.
    """
    settings = {**shared_settings(sweep), **values}
    config = new_config(settings.pop(ALGORITHM, sweep.algorithms[0]))
    config.environment(sweep.env, env_config=dict(sweep.env_config)).debugging(seed=sweep.seeds[0])
    apply_settings(config, settings)
    return config


def check_trials(sweep: Sweep) -> MADDPGConfig:
    """Checks the config of every point (of a range: its ends) as `MADDPGConfig.validate` does.

    Returns:
        The config of the first point, validated.

    Raises:
        ValueError: Naming file, line, key, and the fix.
    """
    file = sweep.file
    _check_algorithms(sweep)
    _check_keys(sweep)
    try:
        probe_env(sweep.env, sweep.env_config)
    except ValueError as error:
        key = "env_config" if file.has(("env_config",)) and "env_config" in str(error) else "env"
        raise file.error((key,), str(error)) from error
    first = {axis.key: axis.examples()[0] for axis in sweep.axes}
    base = _validated(sweep, first, ())
    for axis in sweep.axes:
        for value in axis.examples():
            _validated(sweep, {**first, axis.key: value}, (SECTION, axis.key))
    keys = [axis.key for axis in sweep.axes]
    for values in itertools.islice(points(sweep.axes), _MAX_POINTS):
        _validated(sweep, dict(zip(keys, values, strict=True)), (SECTION,))
    return base


def _check_algorithms(sweep: Sweep) -> None:
    """Each that a trial may have is known, and a trial keeps the one that it has."""
    file = sweep.file
    axis = next((axis for axis in sweep.axes if axis.key == ALGORITHM), None)
    place = (ALGORITHM,) if axis is None else (SECTION, ALGORITHM)
    if axis is None and isinstance(sweep.algorithm, dict | list):
        raise file.error(place, f"there is one at the top of the file. To try several: `{SECTION}: {{{_SEVERAL}}}`.")
    if axis is not None:
        if file.has((ALGORITHM,)):
            raise file.error((ALGORITHM,), f"this key is swept over under `{SECTION}`, too. Keep one of the two.")
        if axis.kind not in LISTS:
            raise file.error(place, f"`{axis.kind}` draws numbers. Write for example `{_SEVERAL}`.")
        if sweep.scheduler == "pbt":
            raise file.error(place, f"pbt cannot change `{ALGORITHM}` of a running trial. Set it at the top of the file.")
    for name in sweep.algorithms:
        try:
            algorithm_class(name)
        except ValueError as error:
            raise file.error(place, str(error)) from error
    # All trials get the dict of one of them, with what dotted keys set in it.
    dotted = {tune_path(key)[0] for key in [*sweep.settings, *(axis.key for axis in sweep.axes)] if "." in key}
    configs = {name: new_config(name) for name in sweep.algorithms}
    for key in dotted:
        defaults = {name: getattr(config, key, None) for name, config in configs.items()}
        one, *others = defaults
        for other in others:
            if not same(defaults[one], defaults[other]):
                raise file.error(
                    place,
                    f"{one} and {other} have other defaults of `{key}`. Set the whole dict instead of single items of it.",
                )


def _check_keys(sweep: Sweep) -> None:
    file = sweep.file
    reserved = {
        "env": "Set it at the top of the file.",
        ALGORITHM: f"Set it at the top of the file, or several under `{SECTION}`.",
        "seed": "List the seeds under `seeds`.",
        "env_config": "Set it at the top of the file.",
        "num_gpus_per_learner": "Set it under `resources`.",
        SHARED_LEARNER: "Write `learner: shared` under `resources`.",
    }
    configs = [new_config(name) for name in sweep.algorithms]
    known = [key for key in known_keys(configs[0]) if all(key in known_keys(config) for config in configs)]
    mutable = configs[0].mutable_keys()  # PBT has but one algorithm
    places = [("settings", key) for key in sweep.settings] + [(SECTION, axis.key) for axis in sweep.axes]
    places = [place for place in places if place != (SECTION, ALGORITHM)]
    for section, key in places:
        first = str(key).split(".")[0]
        if key in reserved:
            raise file.error((section, key), f"this key has a place of its own. {reserved[key]}")
        if first not in known:
            raise file.error((section, key), unknown_key_message(first, known))
        if key in RESOURCE_SETTINGS and key in sweep.resources:
            raise file.error((section, key), "this key stands under `resources`, too. Keep one of the two.")
        if sweep.scheduler == "pbt" and section == SECTION and key not in mutable:
            fix = f"Set it under `settings`. PBT can change: {', '.join(mutable)}."
            raise file.error((section, key), f"pbt cannot change `{key}` of a running trial. {fix}")


def _validated(sweep: Sweep, values: dict[str, Any], place: tuple[str, ...]) -> MADDPGConfig:
    """The validated config of a point; an error is told at the key that its text begins with, else at `place`."""
    try:
        config = make_config(sweep, values)
        config.validate()
    except ValueError as error:
        place = _place_of(sweep, str(error)) or place or ("settings",)
        text = str(error).replace(f"`{SHARED_LEARNER}=None`", f"`{LEARNER}: {OWN}` under `resources`")
        point = ", ".join(f"{key}={value!r}" for key, value in values.items())
        raise sweep.file.error(place, f"{text} (In the trial with {point}.)" if values else text) from error
    return config


def _place_of(sweep: Sweep, text: str) -> tuple[str, ...] | None:
    """Where the file has the key that an error's text begins with."""
    named = re.match(_KEY, text)
    if named is None:
        return None
    key = ".".join(part for part in named.groups() if part)
    for name in (key, named[1]):
        for section in (SECTION, "settings", "resources"):
            if sweep.file.has((section, name)):
                return section, name
    if SHARED_LEARNER not in text:
        return None
    # Something that cannot share, and that the file does not name: the algorithm brings its Learner.
    bringers = ((SECTION, ALGORITHM), (ALGORITHM,)) if named[1] == "learner_class" else ()
    return next((place for place in bringers if sweep.file.has(place)), ("resources", LEARNER))
