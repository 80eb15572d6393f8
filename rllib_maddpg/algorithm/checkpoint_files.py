"""The files of a checkpoint, on any file system, and the hashes by which damage to them is noticed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.fs
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_ENV_RUNNER, COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE
from ray.tune import Checkpoint
from ray.util import log_once

logger = logging.getLogger(__name__)

METADATA_FILE = Algorithm.METADATA_FILE_NAME
CLASS_FILE = Algorithm.CLASS_AND_CTOR_ARGS_FILE_NAME
# Size and SHA-256 of each file, written last.
HASHES_FILE = "content_hashes.json"
# Older checkpoints have the sizes only.
SIZES_FILE = "file_sizes.json"
# Keys of the metadata: whether there are hashes; and, in older checkpoints, the folders that must be there.
HAS_HASHES = "content_hashes"
FOLDERS = "folders"
# Where a checkpoint is written that is to replace the one in the folder.
_NEW = ".unfinished"

RL_MODULE = f"{COMPONENT_LEARNER_GROUP}/{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
# What acting needs: no replay rows and no optimizers.
ACTING = (METADATA_FILE, CLASS_FILE, RL_MODULE, COMPONENT_ENV_RUNNER)
EVERYTHING = ("",)


def damaged(path: Any, reason: Exception | str) -> ValueError:
    """The error for a checkpoint that cannot be used."""
    reason = reason if isinstance(reason, str) else f"{type(reason).__name__}: {reason}"
    return ValueError(f"Checkpoint {path} is damaged or incomplete ({reason}). Use an earlier checkpoint of the run.")


class CheckpointFiles:
    """A folder with a checkpoint."""

    def __init__(self, path: Any, filesystem: pyarrow.fs.FileSystem | None = None):
        """
        Args:
            path: Local folder, URI, folder on `filesystem`, or Tune's `Checkpoint`.
            filesystem: That of `path`; None: as the path says.
        """
        self.path = path.path if isinstance(path, Checkpoint) else path
        if isinstance(path, Checkpoint):
            filesystem = path.filesystem
        folder = str(self.path)
        if filesystem is None:
            filesystem, folder = pyarrow.fs.FileSystem.from_uri(folder if "://" in folder else os.path.abspath(folder))
        self.filesystem = filesystem
        self.root = PurePosixPath(folder)

    @property
    def is_local(self) -> bool:
        """Whether everybody on this machine can open the files by their paths."""
        return isinstance(self.filesystem, pyarrow.fs.LocalFileSystem)

    def at(self, name: str) -> str:
        """The path of a file on the file system."""
        return (self.root / name).as_posix()

    def info(self, name: str) -> pyarrow.fs.FileInfo:
        """Kind and size of a file or folder."""
        return self.filesystem.get_file_info(self.at(name))

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self.info(name).type == pyarrow.fs.FileType.File

    def is_dir(self, name: str) -> bool:
        """Whether there is a folder of that name."""
        return self.info(name).type == pyarrow.fs.FileType.Directory

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with self.filesystem.open_input_stream(self.at(name)) as file:
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Writes a file."""
        with self.filesystem.open_output_stream(self.at(name)) as file:
            file.write(content)

    def whole_of(self, component: str) -> CheckpointFiles | None:
        """The checkpoint in which this is the folder of a component; None if it is somewhere else. For "" this one itself."""
        if not component:
            return self
        steps = PurePosixPath(component).parts
        if self.root.parts[-len(steps) :] != steps:
            return None
        whole = CheckpointFiles(self.root.parents[len(steps) - 1].as_posix(), self.filesystem)
        return whole if whole.is_file(METADATA_FILE) else None

    @contextmanager
    def on_this_machine(self) -> Iterator[CheckpointFiles]:
        """These files, or while entered a local copy: RLlib opens some by their paths, whatever the file system."""
        if self.is_local:
            yield self
            return
        with tempfile.TemporaryDirectory() as folder:
            local = CheckpointFiles(folder)
            try:
                for name in self._files(""):
                    os.makedirs(os.path.dirname(local.at(name)), exist_ok=True)
                    with self.filesystem.open_input_stream(self.at(name)) as source, open(local.at(name), "wb") as copy:
                        shutil.copyfileobj(source, copy, 2**20)
            except OSError as error:
                raise damaged(self.path, error) from error
            yield local

    @contextmanager
    def replaced(self, parts: Collection[str]) -> Iterator[CheckpointFiles]:
        """Where to write a checkpoint, which takes the place of an older one in this folder; files of others stay.

        On this machine the older one goes when the new one has been written, elsewhere before. Its hashes go first, and the new
        ones come last: whenever a crash happens, no mix of the two is ever taken for a whole one.
        """
        if not self.is_local or not self._has_any():
            self._clear(parts)
            yield self
            return
        new = CheckpointFiles(self.at(_NEW))
        new.path = self.path  # for messages
        shutil.rmtree(new.root, ignore_errors=True)
        try:
            yield new
            self._clear(parts)
            for name in (*parts, HASHES_FILE):
                if os.path.lexists(new.at(name)):
                    os.replace(new.at(name), self.at(name))
        finally:
            shutil.rmtree(new.root, ignore_errors=True)

    def _has_any(self) -> bool:
        return self.is_file(METADATA_FILE) or self.is_file(HASHES_FILE)

    def _clear(self, parts: Collection[str]) -> None:
        """Removes an older checkpoint: its hashes first, and last the metadata, by which what a crash leaves is found."""
        if not self._has_any():
            return
        for name in (HASHES_FILE, SIZES_FILE, *(part for part in parts if part != METADATA_FILE), METADATA_FILE):
            if self.is_file(name):
                self.filesystem.delete_file(self.at(name))
            elif self.is_dir(name):
                self.filesystem.delete_dir(self.at(name))

    # ------------------------------------------------------------------------------------------ hashes

    def write_hashes(self, parts: Collection[str]) -> None:
        """Writes down the hashes of all files and folders of these names. What others put beside them is not ours."""
        names = sorted(name for part in parts for name in self._files(part))
        hashes = {name: {"size": self.info(name).size, "sha256": self._sha256(name)} for name in names}
        # Under another name first: a half one never looks like a whole one.
        self.write(f".{HASHES_FILE}", json.dumps(hashes, indent=0).encode())
        self.filesystem.move(self.at(f".{HASHES_FILE}"), self.at(HASHES_FILE))

    def check(self, parts: Collection[str] = EVERYTHING, must_be_listed: bool = False) -> bool:
        """Compares the files of these names, and those in folders of these names, with what was written.

        Args:
            parts: The names.
            must_be_listed: Whether to refuse old checkpoints that say nothing of their files.

        Returns:
            Whether all of their content is known to be right; False for older checkpoints, which have no hashes.

        Raises:
            ValueError: If there is no checkpoint, or naming the first file that is missing or damaged.
        """
        metadata = self.read_metadata()
        for name in (HASHES_FILE, SIZES_FILE):
            if self.is_file(name):
                listed = self._listed(name)
                if name == HASHES_FILE and METADATA_FILE not in listed:
                    raise damaged(self.path, f"{HASHES_FILE} does not list {METADATA_FILE}")
                self._compare(listed, parts)
                return name == HASHES_FILE
        if metadata.get(HAS_HASHES) or must_be_listed:
            raise damaged(self.path, f"{HASHES_FILE} is missing: it was not written or copied to its end")
        if log_once(f"checkpoint without hashes {self.root}"):
            logger.warning("Checkpoint %s has no %s: damage to its files may go unnoticed.", self.path, HASHES_FILE)
        return False

    def read_metadata(self) -> dict[str, Any]:
        """What RLlib and MADDPG say of the checkpoint.

        Raises:
            ValueError: If there is no checkpoint, its metadata cannot be read, or a folder is missing that they name.
        """
        if not self.is_file(METADATA_FILE):
            raise ValueError(
                f"{self.path} is no checkpoint: it has no {METADATA_FILE}. Give the folder that `save_to_path()` or the "
                "trial's `checkpoint_...` folder names."
            )
        metadata = self._read_json(METADATA_FILE)
        folders = metadata.get(FOLDERS, [])
        if not isinstance(folders, list):
            raise damaged(self.path, f"{METADATA_FILE} has {FOLDERS}={folders!r}")
        for folder in map(str, folders):
            # RLlib itself would go on with fresh networks.
            if not self.is_dir(folder):
                raise damaged(self.path, f"the folder {folder} is missing")
        return metadata

    def _listed(self, name: str) -> dict[str, tuple[int, str | None]]:
        """Size and hash of each file, by the file of all hashes or sizes."""
        listed = self._read_json(name)
        try:
            if name == SIZES_FILE:
                return {file: (int(size), None) for file, size in listed.items()}
            return {file: (int(entry["size"]), str(entry["sha256"])) for file, entry in listed.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(self.path, f"{name}: {type(error).__name__}: {error}") from error

    def _compare(self, listed: dict[str, tuple[int, str | None]], parts: Collection[str]) -> None:
        for name, (size, sha256) in listed.items():
            if not any(is_in(name, part) for part in parts):
                continue
            info = self.info(name)
            if info.type != pyarrow.fs.FileType.File:
                raise damaged(self.path, f"{name} is missing")
            if info.size != size:
                raise damaged(self.path, f"{name} has {info.size} bytes, not the {size} that were written")
            if sha256 is not None and self._sha256(name) != sha256:
                raise damaged(self.path, f"{name} has another content than was written")

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, f"{name}: {type(error).__name__}: {error}") from error
        if not isinstance(content, dict):
            raise damaged(self.path, f"{name} has {type(content).__name__} instead of a JSON object")
        return content

    def _sha256(self, name: str) -> str:
        if self.is_local:
            with open(self.at(name), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.at(name)) as file:
            while block := file.read(2**20):
                digest.update(block)
        return digest.hexdigest()

    def _files(self, part: str) -> list[str]:
        """The name of a file, or of all files in a folder; none if there is no such thing."""
        kind = self.info(part).type
        if kind == pyarrow.fs.FileType.File:
            return [part]
        if kind != pyarrow.fs.FileType.Directory:
            return []
        inside = self.filesystem.get_file_info(pyarrow.fs.FileSelector(self.at(part)))
        # By their last names: some file systems list `/a/b/c` in a folder that they were given as `a/b`.
        return [file for info in inside for file in self._files(PurePosixPath(part, info.base_name).as_posix())]


def is_in(name: str, part: str) -> bool:
    """Whether a file is that of name `part` or in a folder of that name; "" is the folder with everything."""
    return not part or name == part or name.startswith(f"{part}/")


def is_whole(checkpoint: Path) -> bool:
    """Whether a local checkpoint is known to be whole: Tune may have copied half of one that says nothing of its files."""
    try:
        CheckpointFiles(checkpoint).check(must_be_listed=True)
    except ValueError:
        return False
    return True


def newest_whole(
    checkpoints: Collection[Path], parts: Collection[str] = EVERYTHING, must_be_listed: bool = False
) -> Path | None:
    """The last of them that passes `CheckpointFiles.check`; says which newer ones are passed over, and why."""
    passed_over = []
    for checkpoint in reversed(list(checkpoints)):
        try:
            CheckpointFiles(checkpoint).check(parts, must_be_listed)
        except ValueError as error:
            passed_over.append(error)
            continue
        for error in passed_over:
            logger.warning("%s Taking %s.", error, checkpoint.name)
        return checkpoint
    return None
