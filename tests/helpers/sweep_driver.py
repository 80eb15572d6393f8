"""A sweep that a test can stop or kill."""

import os
import subprocess
import sys
import time
from pathlib import Path

from paths import PYTHONPATH


class Driver:
    """`rllib-maddpg sweep` as a process of its own, with its own Ray."""

    def __init__(self, file, out, *options):
        # Not the Ray of the test session.
        env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": PYTHONPATH}
        words = [sys.executable, "-m", "rllib_maddpg", "sweep", str(file), "--out", str(out), *options]
        self.log = Path(out).with_suffix(f".{len(options)}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(words, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def stop_when(self, count, env_steps, number):
        """Sends a signal as soon as so many env steps are made in all."""
        while count.stat().st_size < env_steps:
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        self.process.send_signal(number)
        return self.process.wait()
