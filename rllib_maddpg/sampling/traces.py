"""What joint rows need of the running episodes and RLlib's episodes do not keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rllib_maddpg.modules.sub_policies import SUB_POLICIES
from rllib_maddpg.rows.schema import NEXT, RowSchema
from rllib_maddpg.sampling.info_columns import read, sourced


@dataclass
class _Trace:
    """An episode's number, who plays which sub-policy, and per column with a source its values since the chunk began."""

    number: int
    sub_policies: np.ndarray | None
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)


class EpisodeTraces:
    """The numbers of the episodes that RLlib's loop plays, and the values of users' columns in them.

    RLlib drops the infos of agents that observe nothing, and those of no agent.
    """

    def __init__(self, schema: RowSchema):
        self._schema = schema
        self._columns = sourced(schema)
        self._of: dict[str, _Trace] = {}

    def clear(self) -> None:
        """All episodes are given up."""
        self._of.clear()

    def begin(
        self,
        episode: MultiAgentEpisode,
        number: int,
        infos: Mapping[Any, Any] | None,
        sub_policies: np.ndarray | None = None,
    ) -> None:
        """Takes what the env's `reset` gave.

        Args:
            episode: The episode that begins.
            number: Its number.
            infos: By agent.
            sub_policies: That the agents play in it, `[N]`; None: there are no ensembles.

        Raises:
            EnvFailure: Naming the column that cannot be filled of it.
        """
        self._of[episode.id_] = _Trace(number, sub_policies, {column.name: [] for column in self._columns})
        self.step(episode, infos)

    def step(self, episode: MultiAgentEpisode, infos: Mapping[Any, Any] | None) -> None:
        """Takes what the env's `step` gave; errors as in `begin`."""
        for column in self._columns:
            self._of[episode.id_].values[column.name].append(read(column, self._schema, infos))

    def sub_policies_of(self, episode_id: str) -> dict[Any, int]:
        """What the agents of a running episode play."""
        return dict(zip(self._schema.layout.agents, map(int, self._of[episode_id].sub_policies), strict=True))

    def fill(self, columns: Mapping[str, np.ndarray], episode: MultiAgentEpisode) -> None:
        """Writes what is known of an episode, or of a chunk of it, into the columns `[T, width]` of its T rows."""
        trace = self._of[episode.id_]
        columns["episodes"][:] = trace.number
        if SUB_POLICIES in columns:
            columns[SUB_POLICIES][:] = trace.sub_policies
        for column in self._columns:
            values = np.stack(trace.values[column.name])
            columns[column.name][:] = values[:-1]
            if column.at_next:
                columns[NEXT + column.name][:] = values[1:]

    def go_on(self, episodes: Iterable[MultiAgentEpisode]) -> None:
        """Forgets the steps of these chunks, and all of episodes that are over."""
        for episode in episodes:
            if episode.is_done:
                del self._of[episode.id_]
            else:
                for values in self._of[episode.id_].values.values():
                    del values[:-1]
