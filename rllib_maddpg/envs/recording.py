"""Records whole episodes of one environment: returns, length, scenario metrics, frames."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from rllib_maddpg.envs.api import check_step_result
from rllib_maddpg.envs.metrics import scenario_metrics
from rllib_maddpg.envs.step_checks import is_number


@dataclass
class EpisodeRecord:
    """One finished episode.

    Attributes:
        returns: Undiscounted sum of rewards by agent, of those that were in the game or were paid.
        length: Env steps.
        metrics: Scenario metrics by name, see `scenario_metrics`; empty where there are none.
    """

    returns: dict[str, float] = field(default_factory=dict)
    length: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


class RecordedEpisodes(gym.Wrapper):
    """Keeps an `EpisodeRecord` of each episode that its `MultiAgentEnv` finishes.

    Attributes:
        episodes: Finished episodes, in order.
        frames: RGB frames `[height, width, 3]` uint8 of the first `record_frames` episodes; needs `render_mode="rgb_array"`.
    """

    def __init__(self, env: Any, record_frames: int = 0):
        super().__init__(env)
        self.episodes: list[EpisodeRecord] = []
        self.frames: list[np.ndarray] = []
        self._record_frames = record_frames
        self._scenario = scenario_metrics(env)
        self._episode = EpisodeRecord()

    def reset(self, **kwargs: Any) -> tuple[dict, dict]:
        observations, infos = self.env.reset(**kwargs)
        self._episode = EpisodeRecord(returns=dict.fromkeys(observations, 0.0))
        self._render()
        return observations, infos

    def step(self, action: dict) -> tuple[dict, dict, dict, dict, dict]:
        result = self.env.step(action)
        check_step_result(result)
        observations, rewards, terminateds, truncateds, _ = result
        episode = self._episode
        episode.length += 1
        for agent, reward in rewards.items():
            # In a game of turns an agent may be paid before its first one, or without ever having one. What is no number, the
            # loop refuses.
            if is_number(reward) and (agent in episode.returns or float(reward)):
                episode.returns[agent] = episode.returns.get(agent, 0.0) + float(reward)
        over = terminateds.get("__all__") or truncateds.get("__all__")
        for agent in observations:
            if not (over or terminateds.get(agent) or truncateds.get(agent)):
                episode.returns.setdefault(agent, 0.0)  # who joins here acts from the next step on
        if self._scenario is not None:
            self._scenario.on_step()
        self._render()
        if over:
            if self._scenario is not None:
                episode.metrics = self._scenario.on_episode_end()
            self.episodes.append(episode)
        return result

    def _render(self) -> None:
        if len(self.episodes) < self._record_frames:
            self.frames.append(np.asarray(self.env.render(), np.uint8))
