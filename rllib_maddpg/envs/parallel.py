"""A PettingZoo parallel environment as an RLlib `MultiAgentEnv`."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from rllib_maddpg.envs.adapted import AdaptedGame, spaces_of_pettingzoo
from rllib_maddpg.envs.api import check_reset_result, check_step_result
from rllib_maddpg.envs.endings import flags_of_nobody, nobody_ends, settle_flags
from rllib_maddpg.envs.errors import EnvFailure
from rllib_maddpg.envs.step_checks import LIVES, check_known, check_no_reward_is_lost


class ParallelPettingZoo(AdaptedGame):
    """Adapter with one agent order (sorted) and a right `__all__` also where agents end in different ways.

    Args:
        env: The parallel env; it stays reachable as `.env`, the bare one underneath as `.unwrapped_env`.

    Attributes:
        possible_agents: All agents, sorted by `str`.
        agents: The agents now alive, sorted likewise; all of them before the first reset, none after an episode.

    Raises:
        EnvError: If the env has no `possible_agents`: joint rows need a fixed set of agents.
    """

    def __init__(self, env: ParallelEnv) -> None:
        super().__init__(env, *spaces_of_pettingzoo(env))
        self._env_agents: list[Hashable] = []  # the env's own list, as it was after the last step
        self._ended: set[Hashable] = set()  # agents of this episode that are out of it already
        self._last: dict[Hashable, Any] = {}  # the last observations

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts an episode. Returns agent -> observation and agent -> info, in sorted order."""
        result = self.env.reset(seed=seed, options=options)
        check_reset_result(result)
        observations, infos = result
        check_known(self.possible_agents, self.env.agents)
        self.agents = sorted(self.env.agents, key=str)
        self._env_agents = list(self.env.agents)
        self._ended = set()
        self._last = dict(observations)  # a copy: the env may keep its dict, and change it
        return self._pick(observations, self.agents), self._pick(infos or {}, self.agents)

    def step(self, action_dict: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Steps the living agents; actions of others are dropped, so is what the env goes on to say of agents that have ended.

        Returns:
            observations, rewards, terminateds, truncateds, infos, each by agent in sorted order. An agent that terminates is
            not called truncated as well. At the episode's end (no agent left) exactly one `__all__` is True: that of
            terminateds if an agent terminates in this last step, else that of truncateds. RLlib marks every agent that ends in
            this step with that flag, too, so an agent's own end can be read back: it terminated if and only if its episode
            is terminated and not truncated. One that terminates without a last observation has its previous one again.

        Raises:
            EnvFailure: If an agent comes back after its end; if one gets a reward at a step at which it does not act; if one is
                not one of `possible_agents`; or if the env's `step` returns something else than five dicts.
        """
        return self._settled(self.env.step(self._pick(action_dict, self.agents)))

    def quick_step(self, action_dict: dict) -> tuple[dict, dict, dict, dict, dict]:
        """`step` for the columnar loop: while all agents are in the game and nobody ends, results stay as the env gave them."""
        result = self.env.step(self._pick(action_dict, self.agents))
        try:
            observations, rewards, terminateds, truncateds, _ = result
            if (
                self.agents == self.possible_agents
                and self.env.agents == self._env_agents
                and nobody_ends(terminateds, truncateds)
                and observations.keys() == rewards.keys() == self.action_spaces.keys()
            ):
                self._last = dict(observations)
                return result
        except (AttributeError, TypeError, ValueError):
            check_step_result(result)
            raise
        return self._settled(result)

    def joint_step(
        self, agents: Sequence[Hashable], observations: Sequence[np.ndarray]
    ) -> Callable[[Sequence], list | tuple] | None:
        """A still quicker one, where the env has one for all of its agents at once; else None.

        Args:
            agents: All agents, in the order in which the loop has them.
            observations: Arrays, in that order, for what they observe.

        Returns:
            A function of their actions, sound and in that order, that may be called while all agents are in the game. It
            fills `observations` and returns their rewards in that order; or what `step` returns, if the episode is over.
        """
        own, agents = list(self.env.possible_agents), list(agents)
        # The class itself must have it: PettingZoo's wrappers hand on every name, and a subclass may step otherwise.
        if "step_joint" not in vars(type(self.env)) or set(own) != set(agents):
            return None
        to_own, from_own = [agents.index(agent) for agent in own], [own.index(agent) for agent in agents]
        observations = [observations[i] for i in to_own]

        def in_order(actions: Sequence) -> list | tuple:
            result = self.env.step_joint(actions, observations)
            # While nobody ends there is nothing to settle.
            return result if isinstance(result, list) else self._settled(result)

        def reordered(actions: Sequence) -> list | tuple:
            result = in_order([actions[i] for i in to_own])
            return [result[i] for i in from_own] if isinstance(result, list) else result

        return in_order if own == agents else reordered

    def _settled(self, result: tuple) -> tuple[dict, dict, dict, dict, dict]:
        """What `step` makes of what the env's own has returned."""
        check_step_result(result)
        agents, env_agents = self.agents, self.env.agents
        observations, rewards, terminateds, truncateds, infos = result
        check_known(self.possible_agents, observations)
        check_known(self.possible_agents, rewards)
        if self._ended:
            self._check_ended(result)
        check_no_reward_is_lost([agent for agent in rewards if agent not in agents], self._ended, rewards)
        if agents and env_agents == self._env_agents and nobody_ends(terminateds, truncateds):
            terminateds, truncateds = flags_of_nobody(agents)
        else:
            check_known(self.possible_agents, env_agents)
            self._env_agents = list(env_agents)
            acting = set(agents).union(env_agents).difference(self._ended)
            agents = [agent for agent in self.possible_agents if agent in acting]
            terminateds, truncateds = self._pick(terminateds, agents), self._pick(truncateds, agents)
            # Flags count beside `env.agents`: not every env takes its finished agents out of that list.
            alive = acting.intersection(env_agents)
            self.agents = [a for a in agents if a in alive and not (terminateds.get(a) or truncateds.get(a))]
            self._ended.update(acting.difference(self.agents))
            if not self.agents:  # also where the last ones have left the env's list without a flag
                (terminateds if any(terminateds.values()) else truncateds)["__all__"] = True
            terminateds, truncateds = settle_flags(agents, terminateds, truncateds)
            observations = {**{a: self._last[a] for a in agents if terminateds[a] and a in self._last}, **observations}
        self._last = dict(observations)
        return (
            self._pick(observations, agents),
            self._pick(rewards, agents),
            terminateds,
            truncateds,
            self._pick(infos or {}, agents),
        )

    def _check_ended(self, result: tuple) -> None:
        """Refuses second lives."""
        observations, _, terminateds, truncateds, _ = result
        for agent in self._ended.intersection(self.env.agents):
            # An env that keeps its finished agents in the list says at each step that they have ended.
            says_ended = agent not in observations or terminateds.get(agent) or truncateds.get(agent)
            if agent not in self._env_agents or not says_ended:
                raise EnvFailure(f"Agent {agent!r} is observed after its end", LIVES, can_pass=False)

    @staticmethod
    def _pick(values: dict, agents: list) -> dict:
        if list(values) == agents:  # quicker, and common
            return dict(values)
        return {agent: values[agent] for agent in agents if agent in values}
