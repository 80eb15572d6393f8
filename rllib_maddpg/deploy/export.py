"""From a checkpoint to a folder of actors that play without Ray."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core.rl_module.rl_module import RLModule

from rllib_maddpg.algorithm.checkpoint_files import ACTING
from rllib_maddpg.deploy import maddpg_actors
from rllib_maddpg.deploy.check import NUM_OBSERVATIONS, TOLERANCE, check_actor
from rllib_maddpg.deploy.formats import FORMATS, Format, describe_network
from rllib_maddpg.deploy.maddpg_actors import MANIFEST, SCHEMA, file_hash, load_actors, manifest_hash
from rllib_maddpg.deploy.program import ActorProgram
from rllib_maddpg.deploy.spaces import describe_action, describe_observation
from rllib_maddpg.envs import resolve_env
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.envs.sources import ModuleSource
from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule
from rllib_maddpg.modules.sub_policies import teams_of
from rllib_maddpg.ray_compat import FlattenObservations, keys_to_remove
from rllib_maddpg.results.output_paths import check_local
from rllib_maddpg.results.run_folder import find_checkpoint
from rllib_maddpg.results.versions import versions
from rllib_maddpg.rows.layout import AgentSlot
from rllib_maddpg.rows.observations import differs_from_rllib
from rllib_maddpg.runs.evaluation import restored_runner
from rllib_maddpg.sampling.fast_path import DEFAULT_CONNECTORS
from rllib_maddpg.sampling.flatten_connector import FlattenAgentObservations
from rllib_maddpg.sampling.noise_connector import AddExplorationNoise
from rllib_maddpg.sampling.sub_policy_connector import SelectSubPolicies

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """What an export made.

    Attributes:
        folder: Where it lies.
        manifest: The content of its manifest.json.
    """

    folder: Path
    manifest: dict[str, Any]


def export_actors(
    checkpoint: str | Path, file_format: str = "onnx", out: str | Path | None = None, sub_policy: int | None = None
) -> Export:
    """Writes one decentralized actor for each agent and checks each against its RLModule; needs no running Ray.

    Of an agent with several sub-policies there is a file for each, unless one is chosen.

    The folder appears when all is written and checked, so a folder that is there is whole. Agents that act by a rule are left
    out, with a warning.

    Args:
        checkpoint: Checkpoint folder, or run folder (its newest checkpoint).
        file_format: One of `FORMATS`.
        out: New or empty folder. None: `exported_<format>` in the run folder, or beside a checkpoint that is in none.
        sub_policy: The only one that is written; None: all.

    Raises:
        ValueError: If the format is unknown or its packages are missing, there is no checkpoint, the folder is not empty or
            cannot be written, all agents act by rules, there is no such sub-policy, or the actors cannot be exported or differ
            from their RLModules by more than 1e-5.
    """
    if file_format not in FORMATS:
        raise ValueError(f"--format {file_format!r} must be one of {list(FORMATS)}.{did_you_mean(file_format, FORMATS)}")
    fmt = FORMATS[file_format]
    fmt.require(file_format)
    if out is not None:
        check_local("--out", str(out))
    path, run = find_checkpoint(checkpoint, ACTING)
    folder = Path(out) if out is not None else (run.path if run else path.parent) / f"exported_{file_format}"
    _check_free(folder)
    unfinished = folder.absolute().parent / f".unfinished-{folder.name}-{os.getpid()}"
    runner = restored_runner(path, sub_policy=sub_policy)
    try:
        unfinished.mkdir(parents=True)
        manifest = _write(unfinished, runner, file_format, fmt, path, sub_policy)
        if folder.is_dir():
            folder.rmdir()
        unfinished.rename(folder)
    except OSError as error:
        raise ValueError(
            f"--out {folder} cannot be written: {error}. Name a folder that can be, on a disk with room."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        runner.stop()
    return Export(folder, manifest)


def _check_free(folder: Path) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be read: {error}. Name another folder.") from error
    if taken:
        raise ValueError(f"--out {folder} exists and is not an empty folder. Name another one; nothing is overwritten.")


def _write(folder: Path, runner: Any, name: str, fmt: Format, checkpoint: Path, sub_policy: int | None) -> dict[str, Any]:
    """Writes everything into `folder`, checks it, and returns the manifest."""
    _check_connectors(runner)
    env = runner.env.envs[0].unwrapped
    agents: dict[str, dict[str, Any]] = {}
    contents: dict[tuple[str, int], bytes] = {}  # by module, whose agents share a network, and sub-policy
    slots = _exportable(runner)
    numbers = {slot.agent: _sub_policies(runner.module[slot.module].unwrapped(), sub_policy) for slot in slots}
    files = _file_names([_stem(agent, k, own) for agent, own in numbers.items() for k in own], fmt.suffix)
    for slot in slots:
        own = numbers[slot.agent]
        space = env.get_observation_space(slot.agent)
        for k in own:
            program = _program(runner, slot, space, k)
            if (slot.module, k) not in contents:
                contents[slot.module, k] = _encode(fmt, program, slot)
            (folder / files[_stem(slot.agent, k, own)]).write_bytes(contents[slot.module, k])
        entry = {
            "id": _json_id(slot.agent),
            "file": files[_stem(slot.agent, own[0], own)],
            "module": str(slot.module),
            "observation": program.inputs,
            "action": describe_action(slot.codec),
        }
        if len(own) > 1 or own[0] > 0:
            entry["sub_policies"] = {str(k): files[_stem(slot.agent, k, own)] for k in own}
        if name == "safetensors":
            entry["network"] = describe_network(program)
        agents[str(slot.agent)] = entry
    manifest = {
        "schema": SCHEMA,
        "format": name,
        "env": _describe_env(runner.config),
        "checkpoint": str(checkpoint),
        "versions": versions(),
        "agents": agents,
        "files": {file: file_hash(folder / file) for file in files.values()},
    }
    teams = teams_of({agent: len(own) for agent, own in numbers.items()}, _shared_draws(runner, numbers))
    if teams:
        manifest["draw_together"] = [list(map(str, team)) for team in teams]
    _write_manifest(folder, manifest)
    shutil.copy(maddpg_actors.__file__, folder / "maddpg_actors.py")
    # As whoever uses them will load them, from the files.
    actors = load_actors(folder)
    largest: dict[str, float] = {}
    for slot in slots:
        module, space = runner.module[slot.module].unwrapped(), env.get_observation_space(slot.agent)
        for k in numbers[slot.agent]:
            module.sub_policy = actors[slot.agent].sub_policy = k
            found = check_actor(actors, slot.agent, module, space)
            largest[str(slot.agent)] = max(found, largest.get(str(slot.agent), 0.0))
    manifest["check"] = {"observations": NUM_OBSERVATIONS, "tolerance": TOLERANCE, "largest_difference": largest}
    _write_manifest(folder, manifest)
    return manifest


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    manifest["sha256"] = manifest_hash(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _json_id(agent: Hashable) -> int | str:
    """An agent's id as JSON has it: whole numbers stay numbers, all else is text."""
    return int(agent) if isinstance(agent, (int, np.integer)) and not isinstance(agent, bool) else str(agent)


def _check_connectors(runner: Any) -> None:
    """Only what an `ActorProgram` does, too, may lie between the env and the actor.

    Raises:
        ValueError: Naming the connector that does something else.
    """
    for piece in (*runner._env_to_module.connectors, *runner._module_to_env.connectors):
        ours = *DEFAULT_CONNECTORS, AddExplorationNoise, FlattenAgentObservations, SelectSubPolicies
        if type(piece) not in ours and not _is_the_same(piece):
            raise ValueError(
                f"Connector {type(piece).__name__} changes what goes into or comes out of the actors, and cannot be exported "
                "with them. Do its work in the env (a wrapper), or in the network (`build_actor`), and train so."
            )


def _is_the_same(piece: Any) -> bool:
    """Whether a connector is RLlib's that flattens, and does it as `FlattenAgentObservations` would."""
    if not isinstance(piece, FlattenObservations) or keys_to_remove(piece) or piece._agent_ids:
        return False
    return not any(map(differs_from_rllib, piece.input_observation_space.spaces.values()))


def _exportable(runner: Any) -> list[AgentSlot]:
    """The agents that play what their actor networks say; warns of the others, which are left out.

    Raises:
        ValueError: If there are no such agents.
    """
    reasons = {m: _reason_against(m, runner.module[m].unwrapped()) for m in runner.layout.modules}
    slots = [slot for slot in runner.layout.slots if not reasons[slot.module]]
    first = next(filter(None, reasons.values()), "")
    if not slots:
        raise ValueError(first)
    if first:
        left_out = [slot.agent for slot in runner.layout.slots if reasons[slot.module]]
        logger.warning("Agents %s are left out of the export. %s", left_out, first)
    return slots


def _reason_against(module_id: str, module: RLModule) -> str:
    """Why a module cannot be exported, or nothing."""
    name = type(module).__name__
    if not isinstance(module, MADDPGTorchRLModule):
        return f"Module {module_id!r} is a {name}, not a MADDPGTorchRLModule."
    for forward in ("_forward", "_forward_inference", "forward_inference"):
        if getattr(type(module), forward) is not getattr(MADDPGTorchRLModule, forward):
            return (
                f"Module {module_id!r} of class {name} overrides `{forward}`, which is not exported: only the network of "
                "`build_actor` is. Do its work there."
            )
    return ""


def _sub_policies(module: MADDPGTorchRLModule, chosen: int | None) -> list[int]:
    """Numbers of those that are written."""
    return list(range(module.num_sub_policies)) if chosen is None else [chosen]


def _stem(agent: Hashable, k: int, own: Collection[int]) -> str:
    """Name of the file of an agent's k-th sub-policy, before it is made one that file systems take."""
    return str(agent) if len(own) == 1 else f"{agent}.sub_policy_{k}"


def _shared_draws(runner: Any, agents: Collection[Hashable]) -> bool | list[list[Hashable]]:
    """`share_sub_policy_draw` of the agents that are written."""
    share = runner.config.share_sub_policy_draw
    if isinstance(share, (list, tuple)):
        return [[agent for agent in team if agent in agents] for team in share]
    return share


def _program(runner: Any, slot: AgentSlot, space: Any, k: int) -> ActorProgram:
    module = runner.module[slot.module].unwrapped()
    module.eval().cpu()  # whatever the network draws in training, it plays without
    inputs = describe_observation(space, slot.agent)
    return ActorProgram(module.acting_networks[k], inputs, slot.codec, module.obs_filter).eval()


def _encode(fmt: Format, program: ActorProgram, slot: AgentSlot) -> bytes:
    try:
        return fmt.encode(program)
    except ValueError as error:
        raise ValueError(f"Module {slot.module!r}: {error}") from error
    except Exception as error:  # of torch's many, whichever the tracing of a network of the user's raises
        text = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ValueError(
            f"Module {slot.module!r}: its actor, a {type(program.actor).__name__}, cannot be traced "
            f"({type(error).__name__}: {text}). Its steps must not depend on the values in its input."
        ) from error


def _describe_env(config: Any) -> dict[str, Any]:
    """Name and config; and for one that comes as a module with `parallel_env`, that module."""
    name = config.env if isinstance(config.env, str) else None
    creator = resolve_env(config.env)
    source = creator.source
    settings = json.loads(json.dumps(dict(config.env_config), default=repr))
    return {
        "name": name or source.name,
        "config": settings,
        "module": source.module if isinstance(source, ModuleSource) else None,
    }


def _file_names(agents: list[str], suffix: str) -> dict[str, str]:
    """Agent, with its sub-policy if it has several, -> file name that every file system takes, and that no two share."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for agent in agents:
        stem = name = re.sub(r"[^A-Za-z0-9_.-]+", "-", agent).lstrip(".") or "agent"
        number = 2
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        names[agent] = name + suffix
    return names
