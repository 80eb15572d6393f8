"""The env runner: samples joint transitions with exploration noise that has a state for each env and agent."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.module_to_env import RemoveSingleTsTimeRankFromBatch
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.utils.annotations import override

from rllib_maddpg.modules.rl_module import actor_state_of
from rllib_maddpg.modules.sub_policies import teams_of
from rllib_maddpg.replay.choice import replay_class
from rllib_maddpg.replay.remote import RemoteRollout
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.rows.turns import has_turns
from rllib_maddpg.sampling.actors import JointActors
from rllib_maddpg.sampling.episodes import rollout_from_episodes
from rllib_maddpg.sampling.exploration import JointExploration, exploration_settings, greedy
from rllib_maddpg.sampling.fast_path import reason_for_stock_path
from rllib_maddpg.sampling.joint_sampler import JointSampler
from rllib_maddpg.sampling.masks import ObservedMasks
from rllib_maddpg.sampling.metrics import Tally
from rllib_maddpg.sampling.noise import NoiseError
from rllib_maddpg.sampling.noise_connector import AddExplorationNoise
from rllib_maddpg.sampling.recording import Recorder
from rllib_maddpg.sampling.seeded_envs import SeededEnvsLoop
from rllib_maddpg.sampling.seeds import EpisodeSeeds
from rllib_maddpg.sampling.stock_loop import SamplingError
from rllib_maddpg.sampling.sub_policies import SubPolicyDraws, sub_policy_counts
from rllib_maddpg.sampling.sub_policy_connector import add_selection
from rllib_maddpg.sampling.traces import EpisodeTraces
from rllib_maddpg.sampling.turn_episodes import TurnTraces

logger = logging.getLogger(__name__)

EPISODE_NUMBERS = "episode_numbers"


def sample_fragment(runner: MADDPGEnvRunner, **kwargs: Any) -> tuple[list[JointRollout], dict[str, Any] | None]:
    """`MADDPGEnvRunner.sample_fragment` as a function that Ray sends by its name, which is quicker than RLlib's way."""
    return runner.sample_fragment(**kwargs)


class MADDPGEnvRunner(SeededEnvsLoop):
    """RLlib's multi-agent env runner, returning joint rows (`[JointRollout]`) from `sample()`.

    Env number e of runner w starts its episode number k with a seed made from (config.seed, w, e, k), which also seeds the
    exploration noise of that episode. The counters k are all that a resumed run needs to go on with the same games.

    Attributes:
        exploration_class: What makes the actions noisy. A subclass may have another one.
        exploration: Its object, which both loops use; it has the clock of the schedules. None without modules.
    """

    exploration_class: type[JointExploration] = JointExploration
    exploration: JointExploration | None = None

    def __init__(self, config: Any, **kwargs: Any):
        if not config.is_resolved:  # a runner made by hand
            config = config.copy(copy_frozen=False)
            config.validate()
        # Needed by `make_env`, which RLlib calls in its constructor.
        self._seeds = EpisodeSeeds(config.seed, int(config.in_evaluation), kwargs.get("worker_index") or 0)
        super().__init__(config=config, **kwargs)
        self.schema: RowSchema | None = None
        self.layout: JointLayout | None = None
        if self.module is not None:
            self.schema = next(iter(self.module.values())).unwrapped().model_config["schema"].stored
            self.layout = self.schema.layout
            self._traces = EpisodeTraces(self.schema)
            self._masks = ObservedMasks(self.layout)
            self._turns = TurnTraces(self.schema) if has_turns(self.schema) else None
        # Where there are envs side by side, on one runner or on several; one runner is enough to tell.
        self._seeds_compared = max(self.num_envs, config.num_env_runners) < 2 or (self.worker_index or 0) > 1
        self.sampling_error = ""  # of the last call of `sample`
        self._sampler: JointSampler | None = None
        self._actors: JointActors | None = None
        self._tally = Tally()
        self._stock_reason: str | None = None  # of the slow path; None: not asked yet, "": none
        if self.layout is not None:
            settings = exploration_settings(config)
            # Also on a local runner without envs, whose pipelines are those of checkpoints. RLlib sets the exact clock at the
            # end of each iteration; until then this runner assumes that the others are as fast as itself.
            self.exploration = self.exploration_class(
                self.layout,
                max(1, self.num_envs),
                generators=self._seeds.of_noise,
                env_steps_per_act=max(1, config.num_env_runners),
                **settings,
            )
            noise = AddExplorationNoise(settings=settings)
            noise.exploration = self.exploration
            self._module_to_env.insert_after(RemoveSingleTsTimeRankFromBatch, noise)
            self.draw_sub_policies()
        self._recorder: Recorder | None = None
        if config.output and self.env is not None and self.layout is not None:
            self._recorder = Recorder(self.schema, self.config, self.worker_index or 0)

    @property
    def num_env_steps_sampled_lifetime(self) -> int:
        """RLlib's name for the clock of the exploration."""
        return 0 if self.exploration is None else self.exploration.env_steps

    @num_env_steps_sampled_lifetime.setter
    def num_env_steps_sampled_lifetime(self, env_steps: int) -> None:
        if self.exploration is not None:  # RLlib sets 0 first of all
            self.exploration.env_steps = env_steps

    @override(SeededEnvsLoop)
    def _begin_episode(self, env: int, episode: int) -> None:
        if self.exploration is not None:
            self.exploration.begin_episode(env, episode)
        if self._sub_policies is not None:
            self._sub_policies.begin_episode(env, episode, self.config.sub_policy)

    def draw_sub_policies(self, teams: Collection[Collection[Any]] | None = None) -> None:
        """Has the sub-policies of the present modules drawn, where some have several. Call it before any env is reset.

        Args:
            teams: Agents that draw together; None: those of `share_sub_policy_draw`.
        """
        counts = sub_policy_counts(self.layout, self.module)
        teams = teams_of(counts, self.config.share_sub_policy_draw) if teams is None else teams
        self._sub_policies = None
        if max(counts.values()) > 1:
            self._sub_policies = SubPolicyDraws(self.layout, counts, teams, self._seeds.of_sub_policies, max(1, self.num_envs))
            add_selection(self._env_to_module, self._traces.sub_policies_of)

    @override(MultiAgentEnvRunner)
    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[JointRollout]:
        """Samples `num_timesteps` env steps or `num_episodes` episodes; arguments as in `MultiAgentEnvRunner.sample`.

        Returns:
            One `JointRollout`: of at least `num_timesteps` rows, or of those of `num_episodes` whole episodes; of fewer,
            with an `error`, if an env failed for good. The algorithm raises it: raised in a remote runner, it would only make
            RLlib restart that, again and again.

        Raises:
            ValueError: That error, if the runner is one for evaluation.
        """
        # RLlib's own random actions bypass the module's [-1, 1] scale, so ours are drawn by the exploration.
        self.exploration.random = random_actions
        asked = {"num_timesteps": num_timesteps, "num_episodes": num_episodes, "force_reset": force_reset}
        if self._is_fast():
            rollout = self._sample_columns(explore=explore or random_actions, **asked)
        else:
            rollout = self._sample_episodes(explore=explore or random_actions, **asked)
        if not self._seeds_compared:
            self._seeds_compared = True
            self._compare_seeds()
        rollout.worker_index = self.worker_index or 0
        rollout.episode_numbers = self.episode_numbers
        self._record(rollout)
        self.sampling_error = rollout.error
        if rollout.error and self.config.in_evaluation:
            raise ValueError(rollout.error)  # nobody would look at the rollout
        return [rollout]

    def sample_fragment(
        self, weights: tuple[int, np.ndarray] | None, want_metrics: bool
    ) -> tuple[list[JointRollout] | list[RemoteRollout], dict[str, Any] | None]:
        """Takes the weights, if there are any, samples a fragment, and adds the metrics, if wanted.

        Args:
            weights: `MADDPGTorchLearner.get_actor_weights()`.
            want_metrics: Whether to return the metrics since the last time, too.
        """
        if weights is not None:
            number, vector = weights
            self.set_actors(number, self.split_weights(vector))
        rollouts = self.sample()
        if replay_class(self.config.replay_buffer_config).fetches_rollouts:
            rollouts = [RemoteRollout(rollout) for rollout in rollouts]
        return rollouts, self.get_metrics() if want_metrics else None

    @torch.no_grad()
    def set_actors(self, number: int, tensors: Sequence[torch.Tensor]) -> None:
        """Takes over the state of all actors, module by module in layout order, if it is newer than the present one.

        Args:
            number: RLlib's number of these weights.
            tensors: `actor_state()` of all modules.
        """
        if number > self._weights_seq_no:
            self._weights_seq_no = number
            torch._foreach_copy_(self._weights(), list(tensors))

    def split_weights(self, vector: np.ndarray) -> Sequence[torch.Tensor]:
        """The vector of `get_actor_weights()` as `set_actors` takes it."""
        # A copy, because arrays from Ray are read-only, which torch does not know.
        mine = self._weights()
        parts = torch.from_numpy(vector.copy()).split([t.numel() for t in mine])
        return [part.view_as(t) for part, t in zip(parts, mine, strict=True)]

    def _weights(self) -> list[torch.Tensor]:
        return actor_state_of(self.module, self.layout)

    def _is_fast(self) -> bool:
        if self._stock_reason is None:
            self._stock_reason = reason_for_stock_path(self) or ""
            if self._stock_reason:
                # One runner is enough to warn, and whoever has set the switch knows.
                level = logging.WARNING if self.config.env_runner_fast_path and (self.worker_index or 0) <= 1 else logging.INFO
                logger.log(level, "Env runner samples in RLlib's own, slower loop: %s.", self._stock_reason)
        return not self._stock_reason

    def _sample_episodes(self, **asked: Any) -> JointRollout:
        """In RLlib's own loop."""
        try:
            episodes = super()._sample(**asked)
        except SamplingError as error:
            return self._nothing(error)
        try:
            rollout = rollout_from_episodes(episodes, self.schema, self._traces, self._turns)
        except ValueError as error:
            return self._nothing(error)
        finally:
            self._traces.go_on(episodes)
        return rollout

    def _record(self, rollout: JointRollout) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.record(rollout)
        except (OSError, ValueError) as error:  # pyarrow's errors are these, too
            # What went wrong before comes first.
            rollout.error = rollout.error or (
                f"`output`={str(self.config.output)!r} cannot be written to any more ({error}). Make room there, or name "
                "another folder in `.offline_data(output=...)`."
            )

    def _nothing(self, error: Exception) -> JointRollout:
        rollout = JointRollout.empty(self.schema, 0)
        rollout.error = str(error)
        return rollout

    @override(MultiAgentEnvRunner)
    def stop(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
        super().stop()

    def _sample_columns(self, *, explore: bool, force_reset: bool, **asked: Any) -> JointRollout:
        """In the columnar loop."""
        if self._sampler is None or self._sampler.envs is not self.env.envs:
            self._sampler = JointSampler(
                self.schema,
                self.env.envs,
                self._rebuild_sub_env,
                self.failures_allowed(),
                self.worker_index or 0,
                self._played,
            )
        modules = {m: module.unwrapped() for m, module in self.module.items()}
        networks = {m: module.acting_networks for m, module in modules.items()}
        filters = {m: module.obs_filter for m, module in modules.items() if module.obs_filter is not None}
        if self._actors is None or not self._actors.is_current(networks, filters):
            self._actors = JointActors(self.layout, networks, filters)
        actors, exploration = self._actors, self.exploration
        everyone, played = list(range(self.num_envs)), self._played

        def act(obs: np.ndarray) -> np.ndarray:
            outputs = actors(obs, played)
            return exploration.act(everyone, outputs) if explore else greedy(self.layout, outputs)

        try:
            sample = self._sampler.sample(act, force_reset=force_reset or self._needs_initial_reset, **asked)
        except NoiseError as error:
            self._needs_initial_reset = True
            return self._nothing(error)
        self._needs_initial_reset = False
        self._tally.add(self, sample)
        return sample.rollout

    @override(MultiAgentEnvRunner)
    def get_metrics(self) -> dict[str, Any]:
        self._tally.log(self, self.layout)
        return super().get_metrics()

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
