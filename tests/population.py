"""A population of which one member saves and one loads slowly, for tests of the order in which Tune lets them do it."""

import json
import time
from pathlib import Path

from ray import tune

STEPS, SCORE = "num_env_steps_sampled_lifetime", "env_runners/episode_return_mean"


class Member(tune.Trainable):
    """Counts 50 env steps an iteration.

    `members` in the config has for each trial `score`, and seconds: `first_s` before it begins, `save_s` to save what it has at
    up to 100 env steps, `load_s` to load. Not keys of their own, for who clones another takes over its config.
    """

    def setup(self, config):
        self.steps = 0

    def reset_config(self, new_config):
        return True

    @property
    def member(self):
        return self.config["members"][int(self.trial_id[-1])]

    def step(self):
        if self.steps == 0:
            time.sleep(self.member["first_s"])
        self.steps += 50
        return {STEPS: self.steps, SCORE: self.member["score"]}

    def save_checkpoint(self, folder):
        Path(folder, "steps.json").write_text(json.dumps(self.steps))
        if self.steps <= 100:
            time.sleep(self.member["save_s"])

    def load_checkpoint(self, folder):
        time.sleep(self.member["load_s"])
        self.steps = json.loads(Path(folder, "steps.json").read_text())
