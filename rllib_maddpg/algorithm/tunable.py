"""What Tune asks of a trial beside training: other settings for the same process, and checkpoints that stay when it ends."""

from __future__ import annotations

import logging
import os
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.annotations import override

from rllib_maddpg.ray_compat import metrics_logger

BEFORE_ERROR = "checkpoint_before_error"

logger = logging.getLogger(__name__)


class TunableAlgorithm(Algorithm):
    """An RLlib algorithm as a Tune trial."""

    # Whether an error in training leaves a checkpoint beside the trial's others; False: whoever trains sees to it.
    saves_before_error = True

    @override(Algorithm)
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Rebuilds everything from other settings, in this process: what Tune's `reuse_actors=True` needs.

        A new process would first import Ray and torch, which takes longer than many an interval of population based training.

        Returns:
            True: the next thing to do is to train, or to restore a checkpoint.
        """
        self.cleanup()
        config = self.get_default_config().update_from_dict(new_config)
        config.validate()
        config.freeze()
        self.config = config
        self._env_id, self.env_creator = self._get_env_id_and_creator(config.env, config)
        self.metrics = metrics_logger(config, root=True)
        self.eval_env_runner_group = None
        self.setup(config)
        return True

    def _save_before_raising(self, error: Exception) -> None:
        """Writes a checkpoint into the trial's folder, and its place into the error."""
        if not self.saves_before_error:
            return
        storage = self._storage
        # A trial's working folder is one of Ray's temporary ones; what shall stay goes where its checkpoints are.
        folder = os.path.join(storage.trial_fs_path if storage else self.logdir, BEFORE_ERROR)
        try:
            self.save_to_path(folder, filesystem=storage.storage_filesystem if storage else None)
        except Exception:
            logger.exception("No checkpoint could be written before this error: %s", error)
        else:
            error.add_note(f"All that was trained and stored before this error is in the checkpoint {folder}.")
