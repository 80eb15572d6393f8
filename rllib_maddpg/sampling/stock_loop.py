"""RLlib's own sampling loop, whose environments are checked and rebuilt as in the columnar one."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.module_to_env import GetActions, UnBatchToIndividualItems
from ray.rllib.env.env_runner import ENV_STEP_FAILURE, NUM_ENV_STEP_FAILURES_LIFETIME
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.vector.sync_vector_multi_agent_env import SyncVectorMultiAgentEnv
from ray.rllib.utils.annotations import override
from ray.rllib.utils.error import MultiAgentEnvError
from ray.rllib.utils.metrics import ENV_RESET_TIMER, ENV_STEP_TIMER

from rllib_maddpg.envs.api import check_reset_result
from rllib_maddpg.envs.seeding import episode_number
from rllib_maddpg.envs.step_checks import check_first_turn, check_known, check_step, check_turns, fitting
from rllib_maddpg.modules.rule_modules import RuleError
from rllib_maddpg.ray_compat import StockEnvRunner, log_value
from rllib_maddpg.rows.observations import ObservationError, Part
from rllib_maddpg.sampling.failures import Failures
from rllib_maddpg.sampling.masks import ObservedMasks
from rllib_maddpg.sampling.noise import NoiseError
from rllib_maddpg.sampling.sub_policies import SubPolicyDraws
from rllib_maddpg.sampling.traces import EpisodeTraces
from rllib_maddpg.sampling.turn_episodes import TurnTraces

logger = logging.getLogger(__name__)


class SamplingError(Exception):
    """An environment or a module has failed for good; the text says how."""


class StockLoop(StockEnvRunner):
    """`MultiAgentEnvRunner` whose loop refuses the same environments as the columnar one, in the same words.

    RLlib rebuilds all envs of a runner when one has failed, as often as it takes, or raises an error without a text.
    """

    _failures: Failures | None = None  # made when it is needed
    # Made by the subclass, which knows the columns of a row.
    _traces: EpisodeTraces  # of the running episodes
    _turns: TurnTraces | None = None  # of games of turns
    _masks: ObservedMasks
    _sub_policies: SubPolicyDraws | None = None  # where there are ensembles

    @property
    def _played(self) -> np.ndarray | None:
        """Which sub-policies all agents play in the running episodes, `[E, N]`; None: there are no ensembles."""
        return None if self._sub_policies is None else self._sub_policies.now

    @override(MultiAgentEnvRunner)
    def _sample(self, **asked: Any) -> list[MultiAgentEpisode]:
        """RLlib's.

        Raises:
            SamplingError: If an env or a module has failed for good; the next call begins with new episodes.
        """
        if self._failures is None:
            self._failures = Failures(self.failures_allowed(), self.worker_index or 0)
        before = self._failures.in_a_row
        try:
            episodes = super()._sample(**asked)
        except MultiAgentEnvError as error:
            self._needs_initial_reset = True
            raise SamplingError(f"RLlib refuses what the environment gave: {error}") from error
        except (NoiseError, ObservationError, RuleError) as error:
            self._needs_initial_reset = True
            raise SamplingError(str(error)) from error
        except SamplingError:
            self._needs_initial_reset = True
            raise
        except Exception as error:
            module_id = self._module_that_raised(error)
            if module_id is None:
                raise
            self._needs_initial_reset = True
            raise SamplingError(self._failed(module_id, error)) from error
        if self._failures.in_a_row == before:
            self._failures.in_a_row = 0
        return episodes

    def _module_that_raised(self, error: Exception) -> str | None:
        """Id of the module that was acting, or whose actions were being read."""
        for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
            at_work = frame.f_locals.get("self")
            for module_id, module in self.module.items():
                if module.unwrapped() is at_work:
                    return module_id
            if isinstance(at_work, (GetActions, UnBatchToIndividualItems)):
                return frame.f_locals.get("module_id")
        return None

    def _failed(self, module_id: str, error: Exception) -> str:
        name = type(self.module[module_id].unwrapped()).__name__
        message = (
            f"Module {module_id!r} of class {name} failed on env runner {self.worker_index or 0} "
            f"({type(error).__name__}: {error}). Fix its `forward_exploration` and `forward_inference`: of "
            "{'obs': tensor [B, obs_dim]} they make {'actions': [B, ...]} or the parameters of an action distribution. The "
            "env runner's log has the traceback."
        )
        logger.error("%s", message, exc_info=error)
        return message

    def failures_allowed(self) -> int:
        """Failures of sub-envs in a row that RLlib's settings want to see fixed by new envs."""
        config = self.config
        is_remote = (self.worker_index or 0) > 0
        restart = config.restart_failed_sub_environments or (is_remote and config.restart_failed_env_runners)
        return config.num_consecutive_env_runner_failures_tolerance if restart else 0

    @override(MultiAgentEnvRunner)
    def _try_env_reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, Any]:
        while True:
            number = -1
            try:
                with self.metrics.log_time(ENV_RESET_TIMER):
                    observations, infos = self.env.reset(seed=seed, options=options)
                self._ended: list[set] = [set() for _ in range(self.num_envs)]  # by env the agents whose part is over
                self._traces.clear()
                if self._turns is not None:
                    self._turns.clear()
                for number in range(self.num_envs):
                    observations[number] = self._checked_reset(number, observations[number], infos[number])
                return observations, infos
            except Exception as error:
                self._note(error, number, 0)
                self._rebuild_envs()

    @override(MultiAgentEnvRunner)
    def _try_env_step(self, actions: list[dict]) -> Any:
        number = -1
        try:
            with self.metrics.log_time(ENV_STEP_TIMER):
                results = self.env.step(actions)
            self._log_env_steps(metric=self._metrics_num_try_env_step, num_steps=1)
            for number, episode in enumerate(self._ongoing_episodes):
                if episode.is_reset:
                    self._check_step(number, actions[number], results)
                else:  # the vector env has reset this one
                    self._ended[number] = set()
                    results[0][number] = self._checked_reset(number, results[0][number], results[4][number])
            return results
        except Exception as error:
            number = _env_that_raised(error) if number < 0 else number
            episode = self._ongoing_episodes[max(0, number)]
            log_value(self.metrics, NUM_ENV_STEP_FAILURES_LIFETIME, 1, reduce="lifetime_sum")
            self._note(error, number, episode.env_t + 1 if episode.is_reset else 0)
            self._rebuild_envs()
            return ENV_STEP_FAILURE

    def _checked_reset(self, number: int, observations: Any, infos: Any) -> dict:
        check_reset_result((observations, infos))
        check_known(self._spaces(), observations)
        self._masks.check(observations, observations)
        played = None if self._played is None else self._played[number].copy()
        if self._turns is not None:
            check_first_turn(observations)
            self._turns.begin(self._ongoing_episodes[number], observations)
        self._traces.begin(self._ongoing_episodes[number], episode_number(self.env.envs, number), infos, played)
        return self._fitted(observations)

    def _check_step(self, number: int, actions: dict, results: tuple) -> None:
        """Refuses what makes no joint row, and leaves out what belongs to none.

        `results` get new dicts for that, since an env may go on with its own.
        """
        result = tuple(part[number] for part in results)
        ended = self._ended[number]
        if self._turns is None:
            check_step(self._spaces(), actions, ended, result)
        else:
            check_turns(self._spaces(), ended, result)
        observations, rewards, terminateds, truncateds, infos = result
        self._traces.step(self._ongoing_episodes[number], infos)
        observations, rewards, infos = (
            {agent: value for agent, value in (part or {}).items() if agent not in ended}
            for part in (observations, rewards, infos)
        )
        over = terminateds.get("__all__") or truncateds.get("__all__")
        acting = [a for a in observations if not (over or terminateds.get(a) or truncateds.get(a))]
        self._masks.check(observations, acting)
        rewards = {agent: float(reward) if agent in actions else reward for agent, reward in rewards.items()}
        if self._turns is not None:
            # RLlib has every agent that acts and is observed be paid something.
            rewards = dict.fromkeys(actions, 0.0) | {agent: float(reward) for agent, reward in rewards.items()}
            result = (observations, rewards, terminateds, truncateds, infos)
            observations = self._turns.step(self._ongoing_episodes[number], actions, result)
            ended |= self._turns.ended(self._ongoing_episodes[number])
        results[0][number] = self._fitted(observations)
        results[1][number] = rewards
        results[4][number] = infos
        if over:
            self._failures.has_finished(number)
        ended.update(agent for agent in actions if terminateds.get(agent) or truncateds.get(agent))

    def _fitted(self, observations: dict) -> dict:
        """With arrays for what is observed in a Box; all other spaces are left to the connectors."""
        fitted = {}
        for agent, observation in observations.items():
            space = self._spaces()[agent]
            if isinstance(space, gym.spaces.Box):
                observation = fitting(observation, agent, Part((), "Box", space.shape)).reshape(space.shape)
                if space.dtype.kind == "f":
                    observation = observation.astype(space.dtype, copy=False)
            fitted[agent] = observation
        return fitted

    def _spaces(self) -> dict[Any, gym.Space]:
        return self.env.single_observation_spaces

    def _note(self, error: Exception, number: int, step: int) -> None:
        """Raises an error if no env may be rebuilt."""
        if number < 0:
            number = 0 if self.num_envs == 1 else _env_that_raised(error)
        message = self._failures.note(error, step, number)
        if message:
            raise SamplingError(message) from error

    def _rebuild_envs(self) -> None:
        while True:
            try:
                self.make_env()
                return
            except Exception as error:
                self._note(error, -1, 0)


def _env_that_raised(error: Exception) -> int:
    """Number of the sub-env that RLlib's vector env was at; -1 if that cannot be told."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(frame.f_locals.get("self"), SyncVectorMultiAgentEnv) and isinstance(frame.f_locals.get("i"), int):
            return frame.f_locals["i"]
    return -1
