"""The exploration of `MADDPGEnvRunner` as a piece of RLlib's module-to-env pipeline, for sampling in RLlib's own loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.utils.annotations import override

from rllib_maddpg.rl_module import HEAD_OUTPUT

if TYPE_CHECKING:
    from rllib_maddpg.env_runner import MADDPGEnvRunner


class AddExplorationNoise(ConnectorV2):
    """Module-to-env connector: head outputs -> noisy episode actions, through the runner's exploration."""

    # Set by the runner and no constructor argument, because RLlib pickles those into checkpoints.
    runner: MADDPGEnvRunner

    @override(ConnectorV2)
    def __call__(self, *, batch: dict[str, Any], episodes: list, **kwargs: Any) -> dict[str, Any]:
        outputs = batch.pop(HEAD_OUTPUT, None)
        if outputs is None:
            return batch  # inference: the module has chosen the actions itself
        layout = self.runner.layout
        env_of = {episode.id_: e for e, episode in enumerate(episodes)}
        envs = sorted({env_of[episode_id] for episode_id, _, _ in outputs})
        row_of = {e: row for row, e in enumerate(envs)}
        joint = np.zeros((len(envs), layout.action_dim), np.float32)
        places = {}
        for key, items in outputs.items():
            slot = layout.slots[layout.index(key[1])]
            places[key] = row_of[env_of[key[0]]], slot
            joint[places[key][0], slot.actions] = items[0]
        for e in envs:
            self.runner.begin_exploration(e)
        codes = self.runner.explore(envs, joint)
        batch[Columns.ACTIONS] = {
            key: [slot.codec.decode(codes[row : row + 1, slot.actions])[0]] for key, (row, slot) in places.items()
        }
        return batch
