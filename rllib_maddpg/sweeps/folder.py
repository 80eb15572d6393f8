"""The folder of a sweep: Tune's experiment, and beside it what tells whose it is and what came out."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from ray.tune import Tuner

from rllib_maddpg.config.config_file import ALGORITHM, DEFAULT_ALGORITHM
from rllib_maddpg.results.folder_lock import is_empty, locked, remove_if_empty
from rllib_maddpg.results.output_paths import make_folder
from rllib_maddpg.results.versions import versions
from rllib_maddpg.results.whole_file import replace_json
from rllib_maddpg.sweeps.schema import Sweep

SWEEP_FILE, COPY_FILE = "sweep.json", "sweep.yaml"
# Less free space than this cannot hold a sweep's logs.
_LEAST_BYTES = 100 * 2**20


class SweepFolder:
    """One sweep's folder.

    ```
    results/grid_small/
        sweep.yaml  sweep.json  tuner.pkl  experiment_state-...json      <- what was asked for, and Tune's state
        1_tau=0.01,seed=0/  2_tau=0.02,seed=0/  ...                      <- trials, with result.json and checkpoint_000000/
        results.csv  best.json  best_checkpoint/  curves.png  map.png
    ```
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).resolve()

    def check_new(self, sweep: Sweep) -> None:
        """Raises a ValueError if a new sweep cannot begin here; changes nothing."""
        if self.path.is_file():
            raise ValueError(f"--out {self.path} is a file. Name a folder.")
        if (self.path / SWEEP_FILE).is_file():
            whose = self._read().get("file", "?")
            fix = "Name another folder with --out, or go on with that sweep by --resume."
            raise ValueError(f"--out {self.path} holds a sweep already, of {whose}. {fix}")
        if self.path.is_dir() and not is_empty(self.path):
            raise ValueError(f"--out {self.path} is not empty, and no sweep made it. Name a new folder.")
        self._check_disk(sweep)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and locks it until the end; then it is gone again if it was made here and nothing written into it.

        Raises:
            ValueError: If another sweep, or the same one in another process, uses it.
        """
        made = not self.path.exists()
        make_folder("--out", self.path)
        with locked(self.path):
            try:
                yield
            finally:
                if made:
                    remove_if_empty(self.path)

    def check_resumable(self, sweep: Sweep) -> None:
        """Raises a ValueError unless the sweep in this folder is the one of the file and can go on."""
        if not (self.path / SWEEP_FILE).is_file() or not Tuner.can_restore(str(self.path)):
            fix = "Name the folder of the sweep with --out, or start it without --resume."
            raise ValueError(f"--resume: {self.path} has no experiment to go on with. {fix}")
        info = self._read()
        saved = {ALGORITHM: DEFAULT_ALGORITHM, **info["sweep"]}  # earlier sweeps had no other
        for key, value in description(sweep).items():
            was = saved.get(key)
            if was != json.loads(json.dumps(value)):
                text = f"--resume: the sweep in {self.path} was made with `{key}` {was!r}, not {value!r}."
                fix = f"Resume with {self.path / COPY_FILE}, or start a new sweep with another --out."
                raise sweep.file.error((key,), f"{text} {fix}")
        self._check_disk(sweep)

    def create(self, sweep: Sweep, argv: list[str], shared_learner: str | None = None) -> None:
        """Makes the folder and writes down whose it is, and the name of the Learner that its trials share."""
        self.path.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sweep.file.path, self.path / COPY_FILE)
        started = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        info = {"file": str(sweep.file.path), "argv": argv, "started": started, "versions": versions()}
        shared = {} if shared_learner is None else {"shared_learner": shared_learner}
        replace_json(self.path / SWEEP_FILE, {**info, **shared, "sweep": description(sweep)})

    def shared_learner(self) -> str:
        """The name that the trials of a sweep to go on with have in their configs.

        Whatever actor had it is gone with the driver that was stopped, or goes when it finds itself alone.
        """
        return self._read()["shared_learner"]

    def new_shared_learner(self) -> str:
        """A name that no other sweep has, also not one in another folder of the same name, or in this one before."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.path.name)[:40]}-{uuid.uuid4().hex[:8]}"

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads((self.path / SWEEP_FILE).read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path / SWEEP_FILE} cannot be read ({error}). Name another folder with --out.") from error

    def _check_disk(self, sweep: Sweep) -> None:
        existing = next(p for p in (self.path, *self.path.parents) if p.exists())
        try:
            with tempfile.TemporaryFile(dir=existing) as file:
                file.write(b"\0" * 4096)
                file.flush()
            free = shutil.disk_usage(existing).free
        except OSError as error:
            fix = "Name a folder with --out that you can write to and that has space."
            raise ValueError(f"--out {self.path} cannot be written to: {error}. {fix}") from error
        if free < _LEAST_BYTES:
            fix = "Free some, or name a folder on another disk with --out."
            raise ValueError(f"--out {self.path}: only {free / 2**20:.0f} MB of the disk are free. {fix}")


def description(sweep: Sweep) -> dict[str, Any]:
    """What decides about the trials, as plain data: equal for sweeps of which one can go on with the other."""
    return {
        "env": sweep.env,
        "env_config": sweep.env_config,
        ALGORITHM: sweep.algorithm,
        "settings": sweep.settings,
        "search_space": {axis.key: {axis.kind: list(axis.args)} for axis in sweep.axes},
        "seeds": sweep.seeds,
        "search": {"type": sweep.search, **sweep.search_options},
        "scheduler": {"type": sweep.scheduler, **sweep.scheduler_options},
        "num_samples": sweep.num_samples,
        "metric": sweep.metric,
        "mode": sweep.mode,
        "stop": {"env_steps": sweep.env_steps},
        "max_concurrent": sweep.max_concurrent,
        "checkpoint_every": sweep.checkpoint_every,
        "keep_checkpoints": sweep.keep_checkpoints,
        "resources": sweep.resources,
    }
