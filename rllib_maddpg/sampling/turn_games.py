"""The running episodes of games of turns: who acts next, and the record that a step writes (`rllib_maddpg.rows.turns`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllib_maddpg.envs.step_checks import check_first_turn, check_turns, fitting
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.sampling.games import Games


class TurnGames(Games):
    """As `Games`, where only those act who were observed after the last step.

    Attributes:
        obs: What the agents that are in the game have observed last, `[E, obs_dim]` float32.
        acting: Who acts next, `[E, N]` bool.
        whole: False for all envs.
    """

    def __init__(self, layout: JointLayout, num_envs: int):
        super().__init__(layout, num_envs)
        self.acting = np.zeros((num_envs, len(layout)), bool)

    def living(self, env: int) -> list[str]:
        """As in `Games`."""
        return [agent for agent, acts in zip(self._agents, self.acting[env], strict=True) if acts]

    def mask(self, codes: np.ndarray) -> np.ndarray:
        """Action codes `[E, action_dim]` with zeros for the agents that do not act."""
        return np.where(self.acting[:, self._agent_of_action], codes, np.float32(0.0))

    def begin(self, env: int, number: int, observations: Mapping[str, Any]) -> None:
        """As in `Games`; who is observed acts first."""
        check_first_turn(observations)
        self.acting[env] = [agent in observations for agent in self._agents]
        super().begin(env, number, observations)
        self.whole[env] = False

    def write_plain(self, results: list[list | tuple], columns: dict[str, np.ndarray]) -> bool:
        """False: a step that leaves nobody out is nothing common here."""
        return False

    def write(self, env: int, result: list | tuple, columns: dict[str, np.ndarray]) -> bool:
        """As in `Games`. Writes the record of the step."""
        row = {name: column[env] for name, column in columns.items()}
        check_turns(self._agents, self.ended(env), result)
        observations, rewards, terminateds, truncateds, _ = result
        all_terminated, all_truncated = terminateds.get("__all__", False), truncateds.get("__all__", False)
        for name in ("terminateds", "truncateds"):
            row[name][:] = 0.0
        row["alive"][:] = self.alive[env]
        row["acts"][:] = row["acted"][:] = self.acting[env]
        row["rewards"][:] = [float(rewards.get(agent, 0.0)) for agent in self._agents]
        self._seen[env] |= row["rewards"] != 0.0  # also who is paid and never has a turn
        self.acting[env] = False
        next_acts = np.zeros(len(self._agents), bool)
        for i, slot in enumerate(self.layout.slots):
            agent = slot.agent
            is_observed = agent in observations
            truncated = bool(truncateds.get(agent, False) or all_truncated)
            terminated = bool(terminateds.get(agent, False) or all_terminated) and not truncated
            goes_on = not (truncated or terminated)
            if self.alive[env, i]:
                row["terminateds"][i], row["truncateds"][i] = terminated, truncated
                self.alive[env, i], self._ended[env, i] = goes_on, not goes_on
            elif is_observed and goes_on and not self._ended[env, i]:
                self.alive[env, i] = self._seen[env, i] = True
            else:
                continue
            if is_observed:
                self.obs[env, slot.obs] = fitting(observations[agent], agent, self._parts[i])
            next_acts[i] = is_observed and not terminated
            self.acting[env, i] = is_observed and goes_on
        row["new_obs"][:] = self.obs[env]
        row["next_alive"][:] = np.maximum(self.alive[env], row["truncateds"])
        row["next_acts"][:] = next_acts
        self._check_masks(env)
        return bool(all_terminated or all_truncated)

    @staticmethod
    def _acting(columns: Mapping[str, np.ndarray]) -> np.ndarray:
        return columns["acts"]

    def _check_masks(self, env: int) -> None:
        if self._masks:
            self._masks.check(self.obs[env], self.acting[env])
