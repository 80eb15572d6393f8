"""Env runners that are slow, die or send nonsense where a test wants it, and that tell with which weights they sampled."""

import os
import time
from pathlib import Path

from ledger_env import TIME_LIMIT, LedgerEnv

from rllib_maddpg.sampling.env_runner import MADDPGEnvRunner


class TroubleEnv(LedgerEnv):
    """A ledger env in trouble.

    `env_config`: `sleep`: {runner: seconds that each env step takes}; `die`: runners whose process ends at the next env step;
    `rewards`: {(runner, episode, step): reward of all agents}.
    """

    def __init__(self, config):
        super().__init__({"script": TIME_LIMIT, **config})
        self.runner = getattr(config, "worker_index", 0)
        self.trouble = dict(config)

    def step(self, actions):
        time.sleep(self.trouble.get("sleep", {}).get(self.runner, 0.0))
        if self.runner in self.trouble.get("die", ()):
            os._exit(1)
        result = super().step(actions)
        reward = self.trouble.get("rewards", {}).get((self.runner, self.episode, self.time))
        if reward is not None:
            result[1].update(dict.fromkeys(result[1], reward))
        return result


class TellingRunner(MADDPGEnvRunner):
    """Writes the number of its weights into each rollout."""

    def sample_fragment(self, weights, want_metrics):
        rollouts, metrics = super().sample_fragment(weights, want_metrics)
        for rollout in rollouts:
            rollout.weights_number = self._weights_seq_no
        return rollouts, metrics


def make_trouble(group, **trouble):
    """Changes the trouble of all remote envs, as soon as they have done what they do now."""

    def change(runner):
        for env in runner.env.envs:
            while not isinstance(env, TroubleEnv):
                env = env.env
            env.trouble.update(trouble)

    group.foreach_env_runner(change, local_env_runner=False)


class FailsOnce(LedgerEnv):
    """Raises at its env step number `at`, unless the file `marker` says that it has done so before."""

    def __init__(self, config):
        super().__init__({"script": TIME_LIMIT})
        self.marker, self.at, self.steps = Path(config["marker"]), config["at"], 0

    def step(self, actions):
        self.steps += 1
        if self.steps == self.at and not self.marker.exists():
            self.marker.touch()
            raise RuntimeError("the simulator has crashed")
        return super().step(actions)
