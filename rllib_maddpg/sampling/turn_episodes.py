"""RLlib's episodes of games of turns, as joint rows.

RLlib keeps what agents did turn by turn, and sums up what they were paid between; joint rows need to know at which steps. So
the steps are noted beside, and played once more in the same `TurnGames` that the columnar loop has, with the observations as
the modules saw them and the actions that are in RLlib's episodes.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.rows.turns import OpenTurns, rows_of
from rllib_maddpg.sampling.traces import EpisodeTraces
from rllib_maddpg.sampling.turn_games import TurnGames


@dataclass
class _Step:
    """A step as the env gave it; and who is observed in RLlib's episode, where nobody is truncated without an observation."""

    acted: Collection[Hashable]
    observed: Collection[Hashable]
    told: Collection[Hashable]
    rewards: Mapping[Hashable, float]
    terminateds: Mapping[Hashable, bool]
    truncateds: Mapping[Hashable, bool]


class _Trace:
    """A running episode: the game, what is open in it, its last observations as the env gave them, and new steps."""

    def __init__(self, schema: RowSchema, observations: Mapping[Hashable, Any]):
        self.game, self.open_turns = TurnGames(schema.layout, 1), OpenTurns(schema)
        self.first: Collection[Hashable] | None = list(observations)  # None: they are in the game
        self.last = dict(observations)
        self.ended: set[Hashable] = set()
        self.steps: list[_Step] = []


class TurnTraces:
    """The steps of the episodes of games of turns that RLlib's loop plays."""

    def __init__(self, schema: RowSchema):
        self._schema = schema
        self._of: dict[str, _Trace] = {}

    def clear(self) -> None:
        """All episodes are given up."""
        self._of.clear()

    def begin(self, episode: MultiAgentEpisode, observations: Mapping[Hashable, Any]) -> None:
        """Takes what the env's `reset` gave."""
        self._of[episode.id_] = _Trace(self._schema, observations)

    def step(self, episode: MultiAgentEpisode, acted: Collection[Hashable], result: tuple) -> dict[Hashable, Any]:
        """Takes what the env's `step` gave, without agents whose part was over before.

        Returns:
            The observations for RLlib's episode, which refuses agents that are truncated and not observed: they observe again
            what they have seen last.
        """
        observations, rewards, terminateds, truncateds, _ = result
        trace = self._of[episode.id_]
        all_terminated, all_truncated = terminateds.get("__all__"), truncateds.get("__all__")
        cut = [a for a in trace.last if a not in observations and (all_truncated or truncateds.get(a))]
        told = {**observations, **{agent: trace.last[agent] for agent in cut}}
        trace.steps.append(_Step(list(acted), list(observations), list(told), rewards, dict(terminateds), dict(truncateds)))
        trace.last |= {a: o for a, o in observations.items() if a in trace.last or self._joins(a, trace, result)}
        for agent in list(trace.last):
            if all_terminated or all_truncated or terminateds.get(agent) or truncateds.get(agent):
                trace.ended.add(agent)
                del trace.last[agent]
        return told

    @staticmethod
    def _joins(agent: Hashable, trace: _Trace, result: tuple) -> bool:
        ends = any(flags.get("__all__") or flags.get(agent) for flags in result[2:4])
        return agent not in trace.ended and not ends

    def ended(self, episode: MultiAgentEpisode) -> set[Hashable]:
        """The agents whose part in a running episode is over."""
        return self._of[episode.id_].ended

    def rows_of(self, episode: MultiAgentEpisode, traces: EpisodeTraces) -> JointRollout:
        """Rows of the transitions that end in the steps of an episode, or of a chunk of it, since the last call.

        Args:
            episode: With observations as the modules saw them.
            traces: What else was noted of it.
        """
        trace, schema = self._of[episode.id_], self._schema
        game, steps = trace.game, trace.steps
        observations, actions = self._seen(episode, trace), self._acted(episode, steps)
        records = schema.empty(len(steps))
        columns = schema.split(records)
        columns["t"][:, 0] = episode.env_t_started + np.arange(len(steps))
        traces.fill(columns, episode)
        rewards = np.zeros((len(steps), len(schema.layout)))
        columns = columns | {"rewards": rewards}
        if trace.first is not None:
            game.begin(0, 0, {agent: observations[agent].pop(0) for agent in trace.first})
            trace.first = None
        for t, step in enumerate(steps):
            row = {name: column[t : t + 1] for name, column in columns.items()}
            row["obs"][:] = game.obs
            for agent in step.acted:
                slot = schema.layout.slots[schema.layout.index(agent)]
                row["actions"][0, slot.actions] = slot.codec.encode(np.asarray(actions[agent].pop(0))[None])[0]
            told = {agent: observations[agent].pop(0) for agent in step.told if agent in observations}
            seen = {agent: told[agent] for agent in step.observed if agent in told}
            game.write(0, (seen, step.rewards, step.terminateds, step.truncateds, {}), row)
            game.advance(row, False)
        trace.steps = []
        rows = rows_of(schema, records, rewards, trace.open_turns)
        if episode.is_done:
            del self._of[episode.id_]
        return JointRollout(rows, schema.places, steps=len(steps))

    @staticmethod
    def _seen(episode: MultiAgentEpisode, trace: _Trace) -> dict[Hashable, list[np.ndarray]]:
        """Of each agent what it has observed in the steps of a trace, in order; not of those that were never in the game."""
        told = [*(trace.first or ()), *(agent for step in trace.steps for agent in step.told)]
        # Counted from the end, since before it stands what RLlib's connectors may look back to.
        return {
            agent: [np.asarray(x, np.float32).ravel() for x in list(own.observations.data)[-told.count(agent) :]]
            for agent, own in episode.agent_episodes.items()
            if agent in told
        }

    @staticmethod
    def _acted(episode: MultiAgentEpisode, steps: list[_Step]) -> dict[Hashable, list[Any]]:
        """Of each agent its actions in some steps, in order; the last one waits for the agent's next observation."""
        acted = [agent for step in steps for agent in step.acted]
        actions = {}
        for agent in dict.fromkeys(acted):
            own = list(episode.agent_episodes[agent].actions.data)
            if episode._hanging_actions_end.get(agent) is not None:
                own.append(episode._hanging_actions_end[agent])
            actions[agent] = own[-acted.count(agent) :]
        return actions
