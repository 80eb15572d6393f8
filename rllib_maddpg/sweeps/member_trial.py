"""`MemberTrial`: a trial of whatever algorithm its config names, since Tune takes one class for all trials of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune import PlacementGroupFactory, Trainable

from rllib_maddpg.algorithm.maddpg import MADDPG
from rllib_maddpg.algorithm.members import algorithm_class
from rllib_maddpg.config.config_file import ALGORITHM
from rllib_maddpg.ray_compat import in_trial


class MemberTrial(Trainable):
    """A Tune trial that has an algorithm, whose class the key `algorithm` of the config names; all other keys are its settings.

    Results and checkpoints are the algorithm's: nothing that opens them needs this class.
    """

    @classmethod
    def default_resource_request(cls, config: Mapping[str, Any]) -> PlacementGroupFactory:
        """What the algorithm asks for."""
        algorithm, settings = _split(config)
        return algorithm.default_resource_request(settings)

    def setup(self, config: dict[str, Any]) -> None:
        """Makes the algorithm."""
        algorithm, settings = _split(config)
        self._algo: MADDPG = algorithm(settings, **in_trial(self))

    def step(self) -> dict[str, Any]:
        """One iteration."""
        return self._algo.train()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the algorithm's."""
        self._algo.save_checkpoint(checkpoint_dir)

    def load_checkpoint(self, checkpoint: str) -> None:
        """Restores the algorithm's."""
        self._algo.load_checkpoint(checkpoint)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Makes this the trial of another config, in this process: what Tune's `reuse_actors=True` needs."""
        self._algo.stop()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Stops the algorithm; there is none if the setup has failed."""
        if hasattr(self, "_algo"):
            self._algo.stop()


def _split(config: Mapping[str, Any]) -> tuple[type[MADDPG], dict[str, Any]]:
    """The algorithm, and its settings."""
    return algorithm_class(config[ALGORITHM]), {key: value for key, value in config.items() if key != ALGORITHM}
