"""The one way from RLlib's multi-agent episodes to joint rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rllib_maddpg.rows.layout import AgentSlot
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.sampling.traces import EpisodeTraces
from rllib_maddpg.sampling.turn_episodes import TurnTraces


def rollout_from_episodes(
    episodes: Iterable[MultiAgentEpisode], schema: RowSchema, traces: EpisodeTraces, turns: TurnTraces | None = None
) -> JointRollout:
    """Joint rows of episodes or chunks of episodes, one after the other.

    Args:
        episodes: As `MultiAgentEnvRunner.sample()` returns them; observations as the module saw them.
        schema: The columns of a row.
        traces: What was noted of these episodes beside them.
        turns: What was noted of them where they are of a game of turns.

    Returns:
        One row per env step of the episodes; in games of turns one for each of the transitions that end in them.

    Raises:
        ValueError: If an agent leaves out env steps between two of its observations, and the game is not said to have turns.
    """
    if turns is not None:
        return JointRollout.concat(schema, [turns.rows_of(episode, traces) for episode in episodes])
    return JointRollout.concat(schema, [_rows_of(episode, schema, traces) for episode in episodes])


def _rows_of(episode: MultiAgentEpisode, schema: RowSchema, traces: EpisodeTraces) -> JointRollout:
    steps, layout = episode.env_t - episode.env_t_started, schema.layout
    rollout = JointRollout.empty(schema, steps)
    columns = rollout.columns
    columns["t"][:] = episode.env_t_started + np.arange(steps)[:, None]
    traces.fill(columns, episode)
    for agent in episode.agent_episodes:
        if agent in layout:
            _fill_agent(columns, episode, layout.slots[layout.index(agent)], layout.index(agent), steps)
    return rollout


def _fill_agent(columns: Mapping[str, np.ndarray], episode: MultiAgentEpisode, slot: AgentSlot, index: int, steps: int) -> None:
    """Writes one agent's share of the rows of one episode chunk."""
    agent_episode = episode.agent_episodes[slot.agent]
    acted = len(agent_episode)
    first = _first_row(episode, slot.agent, acted, steps)
    if first is None:
        return
    rows = slice(first, first + acted)
    obs = np.asarray(agent_episode.get_observations(slice(0, None)), np.float32).reshape(acted + 1, -1)
    if first > 0:
        # The agent joins here: it is not in the row before, but in that row's next state.
        columns["new_obs"][first - 1, slot.obs] = obs[0]
        columns["next_alive"][first - 1, index] = 1.0
    if acted == 0:
        return
    columns["obs"][rows, slot.obs] = obs[:-1]
    columns["new_obs"][rows, slot.obs] = obs[1:]
    columns["actions"][rows, slot.actions] = slot.codec.encode(np.asarray(agent_episode.get_actions(slice(0, None))))
    columns["rewards"][rows, index] = np.asarray(agent_episode.get_rewards(slice(0, None)))
    columns["alive"][rows, index] = 1.0
    columns["next_alive"][rows, index] = 1.0
    # RLlib also calls an episode terminated when all its agents were truncated (multi_agent_episode.py, "Case 2"), so
    # only an agent that was not truncated has really ended.
    last = first + acted - 1
    if agent_episode.is_truncated:
        columns["truncateds"][last, index] = 1.0
    elif agent_episode.is_terminated:
        columns["terminateds"][last, index] = 1.0
        columns["next_alive"][last, index] = 0.0


def _first_row(episode: MultiAgentEpisode, agent: str, acted: int, steps: int) -> int | None:
    """Row of the agent's first action here (or, if it only observes, the one after its observation); None if it is absent."""
    # Counted from the end, the only side at which RLlib keeps these lists in step: an agent that joins later has no lookback.
    seen = [t != episode.SKIP_ENV_TS_TAG for t in episode.env_t_to_agent_t[agent].data[-(steps + 1) :]]
    times = np.flatnonzero(seen) + steps + 1 - len(seen)
    if not acted and not len(times):
        return None
    if len(times) != acted + 1 or times[-1] - times[0] != acted:
        raise ValueError(
            f"Agent {agent!r} has {len(times)} observations and {acted} actions within {steps} env steps of an episode, with "
            "gaps in between: this is a turn-based game. Set `turn_based=True` in `.env_runners()`."
        )
    return int(times[0])
