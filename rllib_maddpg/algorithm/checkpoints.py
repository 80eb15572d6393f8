"""What a checkpoint says of itself: the config it was made with, and the game."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.util import log_once

from rllib_maddpg.algorithm import class_file
from rllib_maddpg.algorithm.checkpoint_files import CLASS_FILE, METADATA_FILE, CheckpointFiles, damaged
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.rllib_checks import is_old, means_default
from rllib_maddpg.config.rllib_settings import PASSED, REFUSED
from rllib_maddpg.ray_compat import why_not_restored
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema

# Keys of the metadata.
LAYOUT = "layout"
SCHEMA = "schema"  # of the rows in the replay buffer
RAY_VERSION = "ray_version"  # RLlib's

logger = logging.getLogger(__name__)


def load_config(checkpoint: str | Path, new_settings: dict[str, Any] | None = None) -> MADDPGConfig:
    """The config that a checkpoint was made with.

    Args:
        checkpoint: Its folder.
        new_settings: Values of settings that it has not, since it was made before they were there; others get their defaults.

    Raises:
        ValueError: If there is no checkpoint or it cannot be read.
    """
    files = CheckpointFiles(checkpoint)
    files.check((METADATA_FILE, CLASS_FILE))
    return read_config(files, new_settings)


def read_config(files: CheckpointFiles, new_settings: dict[str, Any] | None = None) -> MADDPGConfig:
    """`load_config` of files that are checked already; errors as there."""
    return read_class(files, new_settings)[1]


def read_class(
    files: CheckpointFiles, new_settings: dict[str, Any] | None = None
) -> tuple[type[Algorithm], MADDPGConfig, list[Any], dict[str, Any]]:
    """Of a checkpoint whose files are checked already: its class, config, and all arguments and keyword arguments of the class.

    Args and errors as those of `load_config`.
    """
    check_ray(files.read_metadata(), files.path)
    try:
        content = class_file.loads(files.read(CLASS_FILE))
        args, kwargs = content["ctor_args_and_kwargs"]
        config = MADDPGConfig.from_state({**(new_settings or {}), **args[0]})
        if isinstance(config, MADDPGConfig):
            config.algo_class = content["class"]  # a subclass of MADDPG need not bring a config
        found = content["class"], config, list(args), dict(kwargs)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"Checkpoint {files.path} needs the module {error.name}, which cannot be imported: put it on PYTHONPATH."
            f"{_other_ray(files.read_metadata())}"
        ) from error
    except Exception as error:
        if isinstance(error, ImportError) or "Can't get attribute" in str(error):
            raise ValueError(
                f"Checkpoint {files.path} needs something that cannot be imported ({error}): put the module as it was then on "
                f"PYTHONPATH.{_other_ray(files.read_metadata())}"
            ) from error
        # A damaged pickle can raise anything.
        raise damaged(files.path, f"{CLASS_FILE}: {type(error).__name__}: {error}") from error
    if not isinstance(config, MADDPGConfig):
        raise ValueError(f"Checkpoint {files.path} is one of {config.algo_class.__name__}, not of MADDPG.")
    forget_unused(vars(config))
    return found


def forget_unused(settings: dict[str, Any]) -> None:
    """Puts settings without effect back to their defaults: earlier versions accepted any value, `validate()` refuses them.

    Also takes out what another Ray's config has and this one's has not.

    Args:
        settings: The state of a config, as checkpoints have it; changed in place.
    """
    defaults = vars(settings["class"]())
    others = {key: settings.pop(key) for key in (*PASSED, *REFUSED) if key in settings and key not in defaults}
    lost = sorted(key for key, value in others.items() if key in PASSED and value)
    if lost and log_once(f"settings of another Ray {lost}"):
        logger.warning("Ray %s does not know the checkpoint's settings %s: they are left out.", ray.__version__, lost)

    def is_unused(key: str, value: Any) -> bool:
        may_be = key in REFUSED or key in ("model", "batch_mode") or is_old(key, defaults)
        return may_be and not means_default(value, defaults.get(key))

    unused = [key for key in defaults if key in settings and is_unused(key, settings[key])]
    settings.update({key: defaults[key] for key in unused})
    own = settings.get("evaluation_config")
    if isinstance(own, dict):
        settings["evaluation_config"] = {key: value for key, value in own.items() if not is_unused(key, value)}
        unused += [f"evaluation_config[{key!r}]" for key in own if key not in settings["evaluation_config"]]
    if unused and log_once(f"unused settings {unused}"):
        logger.warning("The checkpoint's settings %s never had an effect, and are put back to their defaults.", unused)


def check_layout(metadata: dict[str, Any], layout: JointLayout, path: Any, same_agents: bool = True) -> None:
    """Refuses the checkpoint of another game.

    Args:
        metadata: The checkpoint's.
        layout: That of the game as it is now.
        path: The checkpoint, for the message.
        same_agents: Whether its agents must be the same. False: each agent's module must fit, which is enough for acting.

    Raises:
        ValueError: Naming the first agent that differs.
    """
    if LAYOUT not in metadata:
        return
    saved, what = metadata[LAYOUT], f"Checkpoint {path}"
    try:
        if not same_agents:
            saved = _with_agents_of(layout, saved)
        layout.check_same(saved, what)
    except (AttributeError, KeyError, TypeError) as error:
        raise damaged(path, f"{METADATA_FILE}: {LAYOUT}: {type(error).__name__}: {error}") from error


def check_ray(metadata: dict[str, Any], path: Any) -> None:
    """Refuses a checkpoint that another version of Ray has written, if this one cannot read it.

    Args:
        metadata: The checkpoint's.
        path: The checkpoint, for the message.

    Raises:
        ValueError: Naming both versions.
    """
    saved = metadata.get(RAY_VERSION, ray.__version__)
    try:
        reason = why_not_restored(saved)
    except (TypeError, ValueError) as error:
        raise damaged(path, f"{METADATA_FILE}: {RAY_VERSION}={saved!r}") from error
    if reason:
        raise ValueError(f"Checkpoint {path} cannot be restored: {reason}.{_other_ray(metadata)}")


def _other_ray(metadata: dict[str, Any]) -> str:
    """A sentence about the versions of Ray, if they differ."""
    saved = metadata.get(RAY_VERSION, ray.__version__)
    return "" if saved == ray.__version__ else f" It was written with Ray {saved}; {ray.__version__} is installed."


def check_schema(metadata: dict[str, Any], schema: RowSchema, path: Any) -> None:
    """Refuses a checkpoint whose replay rows have no place here.

    Args:
        metadata: As `CheckpointFiles.read_metadata` gives it.
        schema: That of the rows as they are now.
        path: The checkpoint, for the message.

    Raises:
        ValueError: Naming the version or a column.
    """
    try:
        schema.check_same(metadata.get(SCHEMA), f"Checkpoint {path}")
    except (AttributeError, KeyError, TypeError) as error:
        raise damaged(path, f"{METADATA_FILE}: {SCHEMA}: {type(error).__name__}: {error}") from error


def _with_agents_of(layout: JointLayout, saved: dict[str, Any]) -> dict[str, Any]:
    """The saved layout as if it had been one of these agents: each has what another agent of its module had."""
    by_agent = {entry["agent"]: entry for entry in saved["agents"]}
    by_module = {entry["module"]: entry for entry in saved["agents"]}
    agents = []
    for slot in layout.slots:
        agent, module = str(slot.agent), str(slot.module)
        entry = by_agent.get(agent) or by_module.get(module)
        if entry is not None:
            agents.append({**entry, "agent": agent})
    return {"agents": agents}
