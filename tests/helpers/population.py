"""A population of two, for tests of the order in which Tune lets them save and load: files say how far the other one is."""

import json
import time
from pathlib import Path

from ray import tune

STEPS, SCORE = "num_env_steps_sampled_lifetime", "env_runners/episode_return_mean"


class Member(tune.Trainable):
    """Counts 50 env steps an iteration; the score is 1 for the trial `better`, else 0.

    Config: `folder` of the files, `better`: 0 or 1. The first trial is still saving 100 env steps when the other one gets
    there. Whoever loads while it has the lower score does so when the better one has long saved 200.
    """

    def setup(self, config):
        self.steps = 0

    def reset_config(self, new_config):
        return True

    @property
    def number(self):
        return int(self.trial_id[-1])

    def file(self, number, steps):
        return Path(self.config["folder"], f"{number}-{steps}")

    def wait_for(self, file):
        while not file.exists():
            time.sleep(0.02)

    def step(self):
        self.steps += 50
        if self.number == 1 and self.steps == 100:
            self.wait_for(self.file(0, 100))
        return {STEPS: self.steps, SCORE: float(self.number == self.config["better"])}

    def save_checkpoint(self, folder):
        Path(folder, "steps.json").write_text(json.dumps(self.steps))
        self.file(self.number, self.steps).touch()
        if self.number == 0 and self.steps == 100:
            time.sleep(2)

    def load_checkpoint(self, folder):
        if self.number != self.config["better"]:
            self.wait_for(self.file(self.config["better"], 200))
            time.sleep(1)  # until it lies where it belongs
        self.steps = json.loads(Path(folder, "steps.json").read_text())
