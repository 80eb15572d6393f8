"""The exploration of `MADDPGEnvRunner` as a piece of RLlib's module-to-env pipeline, for sampling in RLlib's own loop."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.utils.annotations import override

from rllib_maddpg.modules.rl_module import HEAD_OUTPUT
from rllib_maddpg.modules.rule_modules import acts_by_rule, check_allowed, codes_of
from rllib_maddpg.rows.layout import AgentSlot, JointLayout
from rllib_maddpg.rows.observations import Flattener
from rllib_maddpg.sampling.exploration import JointExploration, greedy


class AddExplorationNoise(ConnectorV2):
    """Module-to-env connector: head outputs -> noisy episode actions. Actions that a module has chosen itself stay.

    An env runner sets `exploration` and tells it when episodes begin. A pipeline that is restored without a runner
    (`ModuleToEnvPipeline.from_checkpoint`) makes one itself by the same settings, with other noise, for whatever episodes come,
    and with schedules as they stood; where a checkpoint has no settings it is greedy.
    """

    def __init__(
        self,
        input_observation_space: gym.Space | None = None,
        input_action_space: gym.Space | None = None,
        *,
        settings: dict[str, Any] | None = None,
        env_steps: int = 0,
    ):
        """
        Args:
            input_observation_space: RLlib's.
            input_action_space: RLlib's.
            settings: `exploration_settings` of the config.
            env_steps: Lifetime env steps at which schedules stand without a runner.
        """
        super().__init__(input_observation_space, input_action_space)
        self._settings, self._env_steps = settings, env_steps
        # No constructor argument, because RLlib pickles those into checkpoints.
        self.exploration: JointExploration | None = None
        self._follows = False  # whether the episodes that come here say when noise begins

    @override(ConnectorV2)
    def __call__(
        self, *, rl_module: MultiRLModule, batch: dict[str, Any], episodes: list, explore: bool | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        for (episode_id, agent, module_id), items in batch.get(Columns.ACTIONS, {}).items():
            module = rl_module[module_id].unwrapped()
            if explore or acts_by_rule(module):
                layout = _layout(rl_module)
                codec = layout.codec_of(module_id)
                codes = codes_of([items[0]], codec, module_id)
                _check_mask(codes[0], episode_id, layout.slots[layout.index(agent)], episodes)
                # As it reaches the env, so that rows hold what was really played.
                items[0] = codec.decode(codes)[0]
        outputs = batch.pop(HEAD_OUTPUT, None)
        if outputs:
            batch.setdefault(Columns.ACTIONS, {}).update(self._explored(outputs, episodes, _layout(rl_module)))
        return batch

    def _explored(self, outputs: dict[tuple, list], episodes: list, layout: JointLayout) -> dict[tuple, list]:
        env_of = {episode.id_: e for e, episode in enumerate(episodes)}
        envs = sorted({env_of[episode_id] for episode_id, _, _ in outputs})
        row_of = {e: row for row, e in enumerate(envs)}
        joint = np.zeros((len(envs), layout.action_dim), np.float32)
        places = {}
        for key, items in outputs.items():
            slot = layout.slots[layout.index(key[1])]
            places[key] = row_of[env_of[key[0]]], slot
            joint[places[key][0], slot.actions] = items[0]
        codes = self._noisy(envs, joint, list(env_of), layout)
        return {key: [slot.codec.decode(codes[row : row + 1, slot.actions])[0]] for key, (row, slot) in places.items()}

    def _noisy(self, envs: list[int], joint: np.ndarray, episode_ids: list[str], layout: JointLayout) -> np.ndarray:
        if self.exploration is None:
            if self._settings is None:
                return greedy(layout, joint)
            clock = {"env_steps": self._env_steps, "env_steps_per_act": 0}
            self.exploration = JointExploration(layout, len(episode_ids), **clock, **self._settings)
            self._follows = True
        if self._follows:
            self.exploration.follow(episode_ids)
        return self.exploration.act(envs, joint)

    @override(ConnectorV2)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """What a checkpoint rebuilds this from.

        The env steps are an argument and no state: RLlib merges the states of a pipeline by their place among those that there
        are, so that one more would make it give a state to another connector.
        """
        args, settings = super().get_ctor_args_and_kwargs()
        env_steps = self._env_steps if self.exploration is None else self.exploration.env_steps
        return args, {**settings, "env_steps": env_steps}


def _check_mask(code: np.ndarray, episode_id: str, slot: AgentSlot, episodes: list) -> None:
    """What a module of the user's has chosen is allowed to the agent."""
    if slot.mask is not None:
        episode = next(episode for episode in episodes if episode.id_ == episode_id)
        obs = episode.agent_episodes[slot.agent].get_observations(-1)
        # A pipeline of the user's own may not have flattened it.
        obs = obs if isinstance(obs, np.ndarray) else Flattener(slot.observed, slot.agent)(obs)
        check_allowed(code, obs, slot, episode.env_t + 1)


def _layout(rl_module: MultiRLModule) -> JointLayout:
    return next(iter(rl_module.values())).unwrapped().model_config["layout"]
