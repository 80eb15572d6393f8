"""`rllib-maddpg export`: reads its command line, exports, and prints what there is now."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import Any

from rllib_maddpg.deploy.export import export_actors
from rllib_maddpg.deploy.formats import FORMATS
from rllib_maddpg.results.run_folder import short_path

PROGRAM = "rllib-maddpg export"


def add_export(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command to those of `rllib-maddpg`."""
    command = commands.add_parser(
        "export",
        parents=[common],
        help="write each agent's actor as a file that plays without Ray",
        description="Writes one actor for each agent, from its observation to the env's action, and checks it against the "
        "checkpoint. manifest.json says what is in the folder, maddpg_actors.py plays it.",
        epilog=f"example: {PROGRAM} results/simple_adversary_s0_2026-01-31 --format onnx --out exported",
    )
    add = command.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="checkpoint folder, or run folder (its newest checkpoint)")
    # No `choices`: the message of `export_actors` names the nearest.
    add("--format", default="onnx", metavar="FORMAT", help=f"{', '.join(FORMATS)} (default: onnx)")
    add("--out", metavar="DIR", help="folder, new or empty (default: exported_FORMAT in the run folder)")
    add("--sub-policy", type=int, metavar="K", help="of policy ensembles: the only one that is written (default: all)")
    command.set_defaults(run=run_export)


def run_export(args: argparse.Namespace, argv: list[str]) -> int:
    """Does what the command line says; returns the exit code.

    Raises:
        ValueError: As `export_actors`.
    """
    with contextlib.redirect_stdout(sys.stderr):  # whatever torch and the environment say
        export = export_actors(args.checkpoint, args.format, args.out, args.sub_policy)
    manifest = export.manifest
    check = manifest["check"]
    width = max(map(len, manifest["files"]))
    folder = short_path(export.folder)
    print(f"{manifest['env']['name']}: {len(manifest['agents'])} actors in {folder}")
    for entry in manifest["agents"].values():
        sizes = ", ".join(f"{part['name']} {part['shape']} {part['dtype']}" for part in entry["observation"])
        action = entry["action"]
        for file in entry.get("sub_policies", {"0": entry["file"]}).values():
            print(f"  {file:<{width}}  {sizes} -> {action['kind']} {action['shape']} {action['dtype']}")
    largest = max(check["largest_difference"].values())
    print(f"Each was checked against its RLModule on {check['observations']:,} observations: largest difference {largest:.1e}.")
    print(f"Play them with {os.path.join(folder, 'maddpg_actors.py')}; manifest.json says what they take.")
    return 0
