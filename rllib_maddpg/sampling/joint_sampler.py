"""The columnar loop: steps several environments side by side and writes joint rows where they belong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing

from rllib_maddpg.envs import ParallelPettingZoo
from rllib_maddpg.envs.seeding import episode_number
from rllib_maddpg.envs.step_checks import failure_of
from rllib_maddpg.modules.sub_policies import SUB_POLICIES
from rllib_maddpg.rows.blocks import RowBlocks
from rllib_maddpg.rows.observations import ObservationError
from rllib_maddpg.rows.rollout import JointRollout, is_finite
from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.rows.turns import OpenTurns, has_turns
from rllib_maddpg.sampling.failures import Failures
from rllib_maddpg.sampling.games import FinishedEpisode, Games
from rllib_maddpg.sampling.info_columns import InfoColumns
from rllib_maddpg.sampling.turn_games import TurnGames


@dataclass
class Sample:
    """What a call of `JointSampler.sample` brought.

    Attributes:
        rollout: The joint rows, env by env, those of an env in order of time.
        episodes: Finished episodes; only as many as were asked for.
        num_episodes: All that finished, also those that did so beside the last one asked for.
        env_steps: All env steps, also those whose rows were not asked for.
        agent_steps: Number of observations that followed them, by agent.
        num_failures: Steps and resets that failed.
        rounds: Number of times that all envs were stepped.
        env_seconds: Time spent in the envs.
        actor_seconds: Time spent choosing actions.
    """

    rollout: JointRollout | None = None
    episodes: list[FinishedEpisode] = field(default_factory=list)
    num_episodes: int = 0
    env_steps: int = 0
    agent_steps: dict[str, int] = field(default_factory=dict)
    num_failures: int = 0
    rounds: int = 0
    env_seconds: float = 0.0
    actor_seconds: float = 0.0


class JointSampler:
    """Steps E envs, and goes on with their episodes from one call to the next.

    A round steps every env once. An env whose episode is over is reset at the start of the next round, in which it then
    steps like the others, so that blocks of rows stay dense.
    """

    def __init__(
        self,
        schema: RowSchema,
        envs: list[Any],
        remake_env: Callable[[int], None],
        max_failures: int = 0,
        worker_index: int = 0,
        sub_policies: np.ndarray | None = None,
    ):
        """
        Args:
            schema: The columns of a row.
            envs: E `MultiAgentEnv`s in `SeededEpisodes`, whose ends `ReadableEndings` has brought into one form.
            remake_env: Puts a new env into this list; called with the number of one that failed.
            max_failures: As `allowed` of `Failures`. A call without any failure ends the row.
            worker_index: Number of the env runner, for messages.
            sub_policies: Which sub-policies all agents play in the running episodes, `[E, N]`, where there are ensembles;
                somebody writes into it whenever an env is reset.
        """
        layout = schema.layout
        self.schema, self.layout, self.envs = schema, layout, envs
        self.worker_index = worker_index
        self._remake_env = remake_env
        self._groups = layout.action_groups()
        self._flatteners = layout.flatteners()
        self._games = (TurnGames if has_turns(schema) else Games)(layout, len(envs))
        self._open_turns = [OpenTurns(schema) for _ in envs] if has_turns(schema) else None
        self._infos = InfoColumns(schema, len(envs))
        self._sub_policies = sub_policies if SUB_POLICIES in schema else None
        # Per env what steps it, and which env that is below plain wrappers.
        self._steps: list[Callable[[Sequence], list | tuple]] = []
        self._stepped: list[Any] = []
        self._due_reset = list(range(len(envs)))
        self._broken: set[int] = set()
        self._failures = Failures(max_failures, worker_index)

    def sample(
        self,
        act: Callable[[np.ndarray], np.ndarray],
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        force_reset: bool = False,
    ) -> Sample:
        """Samples at least `num_timesteps` env steps or exactly `num_episodes` whole episodes.

        Args:
            act: Joint observations `[E, obs_dim]` -> action codes `[E, action_dim]`; may say anything for agents that are
                not in the game, whose observations are zeros.
            num_timesteps: Env steps of all envs together.
            num_episodes: Instead of `num_timesteps`: all envs are reset first, and what belongs to no finished episode
                is dropped.
            force_reset: Start with new episodes.

        Returns:
            The rows and what the metrics need. `rollout.error` says why there are fewer rows than asked for.
        """
        num_envs = len(self.envs)
        if force_reset or num_episodes is not None:
            self._due_reset = list(range(num_envs))
        blocks = RowBlocks(self.schema, num_envs, 64 if num_timesteps is None else max(1, math.ceil(num_timesteps / num_envs)))
        stepped = [plainly_wrapped(env) for env in self.envs]
        if stepped != self._stepped:  # at first, or because somebody has put another one there
            self._stepped, self._steps = stepped, [self._step_of(e) for e in range(num_envs)]
        sample, error = Sample(), ""
        ends = np.zeros(num_envs, int)  # per env the row at which its last finished episode ends
        self._games.resume_clock()
        while not error and (
            len(sample.episodes) < num_episodes if num_timesteps is None else sample.env_steps < num_timesteps
        ):
            error = self._reset(sample)
            if error:
                break
            started = time.perf_counter()
            codes = self._games.mask(act(self._games.obs))
            sample.actor_seconds += time.perf_counter() - started
            error = self._diverged(codes)
            if error:
                break
            if sample.rounds == blocks.steps:
                blocks.grow()
            over, failed = self._step(codes, blocks, sample)
            for e in over:
                sample.num_episodes += 1
                self._failures.has_finished(e)
                if num_episodes is None or len(sample.episodes) < num_episodes:
                    sample.episodes.append(self._games.finished(e))
                    ends[e] = sample.rounds
            self._due_reset += over
            errors = [self._fail(e, failed[e], sample) for e in sorted(failed)]
            error = next(filter(None, errors), "")
        self._games.pause_clock()
        if not sample.num_failures:
            self._failures.in_a_row = 0
        if num_episodes is not None:
            self._due_reset = list(range(num_envs))
        sample.agent_steps = blocks.agent_steps(sample.rounds)
        keep = None if num_episodes is None else np.arange(sample.rounds) < ends[:, None]
        if self._open_turns is None:
            sample.rollout = blocks.rollout(sample.rounds, keep)
        else:
            sample.rollout = blocks.turns_rollout(sample.rounds, keep, self._open_turns)
        sample.rollout.error = error
        return sample

    def _step(self, codes: np.ndarray, blocks: RowBlocks, sample: Sample) -> tuple[list[int], dict[int, Exception]]:
        """One round. Returns the envs whose episode is over, and those that failed and so have no row in it."""
        games, t = self._games, sample.rounds
        columns = {name: block[:, t] for name, block in blocks.columns.items()}
        columns["obs"][:], columns["actions"][:] = games.obs, codes
        columns["episodes"][:], columns["t"][:] = games.numbers, games.lengths
        if self._sub_policies is not None:
            columns[SUB_POLICIES][:] = self._sub_policies
        self._infos.write(columns)
        actions = self._env_actions(codes)
        results, over, failed = [], [], {}
        started = time.perf_counter()
        for step, action in zip(self._steps, actions, strict=True):
            try:
                results.append(step(action))
            except Exception as error:
                failed[len(results)] = error
                results.append(None)
        sample.env_seconds += time.perf_counter() - started
        plain = not failed and games.write_plain(results, columns)
        if not plain:
            for e, result in enumerate(results):
                try:
                    if e not in failed and games.write(e, result, columns):
                        over.append(e)
                except Exception as error:
                    failed[e] = error
        if self._infos:
            self._read_infos(results, columns, failed)
        failed = {**games.advance(columns, plain), **failed}
        if failed:
            over = [e for e in over if e not in failed]
            blocks.filled[list(failed), t] = False
        sample.rounds += 1
        sample.env_steps += len(self.envs) - len(failed)
        return over, failed

    def _read_infos(self, results: Sequence, columns: Mapping[str, np.ndarray], failed: dict[int, Exception]) -> None:
        """Fills users' columns of the envs that have not failed; adds to `failed` those whose infos do not do for it."""
        for e, result in enumerate(results):
            try:
                if e not in failed:
                    self._infos.step(e, result[4], columns)
            except Exception as error:
                failed[e] = error

    def _env_actions(self, codes: np.ndarray) -> list[tuple]:
        """Per env the actions of all agents as it takes them, in layout order; anything for those not in the game."""
        parts = []
        for group in self._groups:
            actions = iter(group.codec.to_env(group.part(codes).reshape(-1, group.codec.dim)))
            # One iterator n times: by n agents the next env's.
            parts.append(zip(*[actions] * len(group.agents), strict=True))
        return [tuple(chain(*row)) for row in zip(*parts, strict=True)] if len(parts) > 1 else [*parts[0]]

    def _step_of(self, env: int) -> Callable[[Sequence], list | tuple]:
        """What steps an env with the actions of all agents, in the quickest way that it has; results as `Games` takes them."""
        inner = plainly_wrapped(self.envs[env])
        # The quicker ones give other infos than RLlib's loop gets, or none.
        is_quick = type(inner) is ParallelPettingZoo and not self._infos and self._open_turns is None
        if self._flatteners:
            return partial(self._step_and_flatten, env, inner, "quick_step" if is_quick else "step")
        if not is_quick or "step" in vars(inner):
            return partial(self._step_by_dict, env, inner, "step")
        joint_step = inner.joint_step(self.layout.agents, self._games.observations_of(env))
        return joint_step or partial(self._step_by_dict, env, inner, "quick_step")

    def _step_by_dict(self, env: int, inner: Any, step: str, actions: Sequence) -> tuple:
        named = dict(zip(self.layout.agents, actions, strict=True))
        if not self._games.whole[env]:
            named = {agent: named[agent] for agent in self._games.living(env)}
        # A tuple, because a list is something else to `Games`.
        return tuple(getattr(inner, step)(named))

    def _step_and_flatten(self, env: int, inner: Any, step: str, actions: Sequence) -> tuple:
        result = self._step_by_dict(env, inner, step, actions)
        ended = () if self._games.whole[env] else self._games.ended(env)
        return (*(self._vectors(observations, ended) for observations in result[:1]), *result[1:])

    def _vectors(self, observations: Mapping[Hashable, Any], ended: Collection[Hashable] = ()) -> Mapping[Hashable, Any]:
        """What `FlattenAgentObservations` makes of them; nobody looks at those of agents whose part is over."""
        if not (self._flatteners and isinstance(observations, Mapping)):  # what is no dict is refused later
            return observations
        try:
            # Others than the layout's agents are found later.
            return {
                agent: self._flatteners[agent](observation) if agent in self._flatteners and agent not in ended else observation
                for agent, observation in observations.items()
            }
        except ObservationError as error:
            raise failure_of(error) from None

    # ------------------------------------------------------------------------------------------ resets and failures

    def _reset(self, sample: Sample) -> str:
        """Resets the envs that need it; those that failed are rebuilt first. Returns an error, or nothing."""
        while self._due_reset:
            e = self._due_reset[0]
            try:
                if e in self._broken:
                    self._remake_env(e)
                    self._stepped[e], self._steps[e] = plainly_wrapped(self.envs[e]), self._step_of(e)
                    self._broken.discard(e)
                self._games.lengths[e] = 0
                observations, infos = self.envs[e].reset()
                self._games.begin(e, episode_number(self.envs, e), self._vectors(observations))
                self._infos.begin(e, infos)
            except Exception as failure:
                error = self._fail(e, failure, sample)
                if error:
                    return error
            else:
                self._due_reset.remove(e)
        return ""

    def _fail(self, env: int, failure: Exception, sample: Sample) -> str:
        """Notes a failure. Returns an error if the env may not be rebuilt."""
        sample.num_failures += 1
        self._broken.add(env)
        if env not in self._due_reset:
            self._due_reset.append(env)
        return self._failures.note(failure, int(self._games.lengths[env, 0]), env)

    def _diverged(self, codes: np.ndarray) -> str:
        """An error if an actor has gone astray, which is no fault of the envs."""
        if is_finite(codes):
            return ""
        env, column = np.argwhere(~np.isfinite(codes))[0]
        agent = next(s.agent for s in self.layout.slots if s.actions.start <= column < s.actions.stop)
        return (
            f"The action of agent {agent!r} is {codes[env, column]} in env {env} of env runner {self.worker_index}: its actor "
            "has diverged. Lower `actor_lr` and `critic_lr`, or set `grad_clip`."
        )


def plainly_wrapped(env: Any) -> Any:
    """The env below the wrappers that only hand on its steps, or ask whether there was a reset, as there always was here."""
    while (
        isinstance(env, gym.Wrapper) and type(env).step in (gym.Wrapper.step, OrderEnforcing.step) and "step" not in vars(env)
    ):
        env = env.env
    return env
