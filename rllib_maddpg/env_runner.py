"""The env runner: samples joint transitions with exploration noise that has a state for each env and agent."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.module_to_env import RemoveSingleTsTimeRankFromBatch
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.utils.annotations import override

from rllib_maddpg.envs import ReadableEndings, SeededEpisodes, resolve_env
from rllib_maddpg.exploration import JointExploration
from rllib_maddpg.layout import JointLayout
from rllib_maddpg.replay import JointRollout, rollout_from_episodes
from rllib_maddpg.rl_module import HEAD_OUTPUT

EPISODE_NUMBERS = "episode_numbers"


class MADDPGEnvRunner(MultiAgentEnvRunner):
    """RLlib's multi-agent env runner, returning joint rows (`[JointRollout]`) from `sample()`.

    Env number e of runner w starts its episode number k with a seed made from (config.seed, w, e, k), which also seeds the
    exploration noise of that episode. The counters k are all that a resumed run needs to go on with the same games.
    """

    def __init__(self, config: Any, **kwargs: Any):
        # Needed by `make_env`, which the base class calls in its constructor.
        self._entropy = config.seed if config.seed is not None else int(np.random.SeedSequence().entropy)
        super().__init__(config=config, **kwargs)
        self.layout: JointLayout | None = None
        if self.module is not None:
            self.layout = next(iter(self.module.values())).unwrapped().layout
        self._random_actions = False
        if self.env is not None and self.layout is not None:
            self.exploration = self._make_exploration()
            noise = AddExplorationNoise()
            noise.runner = self
            self._module_to_env.insert_after(RemoveSingleTsTimeRankFromBatch, noise)

    def _make_exploration(self) -> JointExploration:
        config = self.config
        return JointExploration(
            self.layout,
            self.num_envs,
            noise_type=config.noise_type,
            noise_scale=config.noise_scale,
            ou_theta=config.ou_theta,
            ou_sigma=config.ou_sigma,
            temperature=config.exploration_temperature,
            random_steps=config.num_steps_sampled_before_learning_starts,
        )

    @override(MultiAgentEnvRunner)
    def make_env(self) -> None:
        # This runner's own copy of the config: RLlib then finds our envs by the names that it does not know.
        self.config.env = resolve_env(self.config.env)
        # Made anew after a failure, the envs go on with other games: the old ones might fail again.
        first_episodes = self.episode_numbers or [0] * self.config.num_envs_per_env_runner
        super().make_env()
        for e, env in enumerate(self.env.envs):
            self.env.envs[e] = SeededEpisodes(ReadableEndings(env), self._seed_of_episode(e), first_episodes[e])
        self._explored_episode = [-1] * self.num_envs

    def _seed_of_episode(self, env: int) -> Callable[[int], int]:
        return lambda episode: int(self._seed_sequence(env, episode).generate_state(1)[0] >> 1)

    def _seed_sequence(self, env: int, episode: int) -> np.random.SeedSequence:
        key = (int(self.config.in_evaluation), self.worker_index or 0, env, episode)
        return np.random.SeedSequence(self._entropy, spawn_key=key)

    @override(MultiAgentEnvRunner)
    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[JointRollout]:
        """Samples `num_timesteps` env steps or `num_episodes` episodes; arguments as in `MultiAgentEnvRunner.sample`.

        Returns:
            One `JointRollout` of at least `num_timesteps` rows; or of none, with an `error`, if the env has no joint
            transitions.
        """
        # RLlib's own random actions bypass the module's [-1, 1] scale, so ours are drawn by the exploration.
        self._random_actions = random_actions
        episodes = super().sample(
            num_timesteps=num_timesteps,
            num_episodes=num_episodes,
            explore=True if random_actions else explore,
            force_reset=force_reset,
        )
        try:
            rollout = rollout_from_episodes(episodes, self.layout)
        except ValueError as error:
            # Raised by the algorithm: an error in a remote runner would only make RLlib restart it, again and again.
            rollout = JointRollout.empty(self.layout, 0)
            rollout.error = str(error)
        rollout.worker_index = self.worker_index or 0
        rollout.episode_numbers = self.episode_numbers
        return [rollout]

    def sample_fragment(
        self, weights: tuple[int, np.ndarray] | None, want_metrics: bool
    ) -> tuple[list[JointRollout], dict[str, Any] | None]:
        """Takes the weights, if there are any, samples a fragment, and adds the metrics, if wanted."""
        if weights is not None:
            self.set_weights(weights)
        return self.sample(), self.get_metrics() if want_metrics else None

    def set_weights(self, weights: tuple[int, np.ndarray]) -> None:
        """Takes over actors from `MADDPGTorchLearner.get_actor_weights()`, if they are newer than the present ones."""
        number, vector = weights
        if number <= self._weights_seq_no:
            return
        self._weights_seq_no = number
        at = 0
        for module_id in self.layout.modules:
            for tensor in self.module[module_id].unwrapped().actor_state():
                tensor.copy_(torch.tensor(vector[at : at + tensor.numel()]).view_as(tensor))
                at += tensor.numel()

    def explore(self, envs: list[int], outputs: np.ndarray) -> np.ndarray:
        """Noisy action codes `[E, action_dim]` of the envs that act now; see `JointExploration.act`."""
        for e in envs:
            episode = self.env.envs[e].episode
            if episode != self._explored_episode[e]:
                self._explored_episode[e] = episode
                noise_seed = self._seed_sequence(e, episode).spawn(1)[0]
                self.exploration.begin_episode(e, np.random.default_rng(noise_seed))
        codes = self.exploration.act(envs, outputs, self.num_env_steps_sampled_lifetime, self._random_actions)
        # The schedules run on the env steps of all runners. RLlib sets the exact count at the end of each iteration; until then
        # this runner assumes that the others are as fast as itself.
        self.num_env_steps_sampled_lifetime += len(envs) * max(1, self.config.num_env_runners)
        return codes

    @property
    def episode_numbers(self) -> list[int]:
        """Per env the number of the episode that its next reset begins."""
        return [env.next_episode for env in self.env.envs] if self.env is not None else []

    @override(MultiAgentEnvRunner)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        # Keyed by runner, because RLlib may hand one runner's state to all of them.
        state[EPISODE_NUMBERS] = {self.worker_index or 0: self.episode_numbers}
        return state

    @override(MultiAgentEnvRunner)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        numbers = state.get(EPISODE_NUMBERS, {}).get(self.worker_index or 0)
        if numbers and self.env is not None:
            # A run that is resumed with more envs than it had starts the new ones at their first episode.
            for env, number in zip(self.env.envs, numbers, strict=False):
                env.next_episode = max(env.next_episode, number)

    @staticmethod
    @override(MultiAgentEnvRunner)
    def _prune_zero_len_sa_episodes(episode: Any) -> None:
        """Keeps agents that have only observed yet: their first observation belongs to the row's next state."""


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
        codes = self.runner.explore(envs, joint)
        batch[Columns.ACTIONS] = {
            key: [slot.codec.decode(codes[row : row + 1, slot.actions])[0]] for key, (row, slot) in places.items()
        }
        return batch
