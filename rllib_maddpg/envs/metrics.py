"""What the papers report on the MPE scenarios beside the return, read from mpe2's world.

| scenario | metric | meaning |
|---|---|---|
| `simple_adversary` | `good_success` | 1.0 if a good agent is within 0.4 of the target on the last frame, else 0.0 |
| | `adversary_success` | the same for the adversary |
| | `good_distance` | distance of the closest good agent to the target on the last frame |
| `simple_spread` | `distance_sum` | D = sum over landmarks of the distance of the closest agent, mean over frames |
| | `mean_distance` | D / number of landmarks, mean over frames |
| | `collisions` | colliding pairs of agents, summed over frames |
| `simple_speaker_listener` | `reach` | 1.0 if the listener is within 0.45 of its landmark on the last frame, else 0.0 |
| | `distance_squared` | squared distance of the listener to its landmark on the last frame |

A frame is the world after one env step; distances are in the world's units. Lowe et al. 2017 do
not name their thresholds; these are the ones with which their success rates can be reproduced.
"""

from typing import Any

import numpy as np

ADVERSARY_RADIUS = 0.4
LISTENER_RADIUS = 0.45


class ScenarioMetrics:
    """Measures one running mpe2 env, episode by episode.

    Call `on_step` after every env step and `on_episode_end` between an episode's last step and the next reset: until
    then the world keeps its last frame.
    """

    def __init__(self, world: Any) -> None:
        self.world = world
        self.num_frames = 0

    def on_step(self) -> None:
        """Takes in the frame after an env step."""
        self.num_frames += 1

    def on_episode_end(self) -> dict[str, float]:
        """Returns name -> value for the episode (empty if it had no step), and starts afresh."""
        metrics = self._episode_metrics() if self.num_frames else {}
        self.num_frames = 0
        return metrics

    def _episode_metrics(self) -> dict[str, float]:
        raise NotImplementedError


class AdversaryMetrics(ScenarioMetrics):
    """`simple_adversary`: who has found the target on the last frame."""

    def _episode_metrics(self) -> dict[str, float]:
        good = min(_distance(agent, agent.goal_a) for agent in self.world.agents if not agent.adversary)
        adversary = min(_distance(agent, agent.goal_a) for agent in self.world.agents if agent.adversary)
        return {
            "good_success": float(good < ADVERSARY_RADIUS),
            "adversary_success": float(adversary < ADVERSARY_RADIUS),
            "good_distance": good,
        }


class SpreadMetrics(ScenarioMetrics):
    """`simple_spread`: how well the landmarks are covered, and at what cost in collisions."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        sizes = np.array([agent.size for agent in world.agents])
        self._touching = sizes[:, None] + sizes[None, :]
        self._pairs = np.triu_indices(len(sizes), k=1)
        self._distance_sum = 0.0
        self._collisions = 0

    def on_step(self) -> None:
        """Takes in the frame after an env step."""
        super().on_step()
        agents, landmarks = _positions(self.world.agents), _positions(self.world.landmarks)
        to_landmarks = np.linalg.norm(agents[:, None] - landmarks[None, :], axis=-1)  # [agents, landmarks]
        between_agents = np.linalg.norm(agents[:, None] - agents[None, :], axis=-1)  # [agents, agents]
        self._distance_sum += float(to_landmarks.min(axis=0).sum())
        self._collisions += int((between_agents < self._touching)[self._pairs].sum())

    def _episode_metrics(self) -> dict[str, float]:
        distance_sum = self._distance_sum / self.num_frames
        metrics = {
            "distance_sum": distance_sum,
            "mean_distance": distance_sum / len(self.world.landmarks),
            "collisions": float(self._collisions),
        }
        self._distance_sum, self._collisions = 0.0, 0
        return metrics


class SpeakerListenerMetrics(ScenarioMetrics):
    """`simple_speaker_listener`: has the listener come to the landmark that only the speaker knows."""

    def _episode_metrics(self) -> dict[str, float]:
        speaker = self.world.agents[0]
        distance = _distance(speaker.goal_a, speaker.goal_b)
        return {"reach": float(distance < LISTENER_RADIUS), "distance_squared": distance**2}


_METRICS: dict[str, type[ScenarioMetrics]] = {
    "simple_adversary": AdversaryMetrics,
    "simple_spread": SpreadMetrics,
    "simple_speaker_listener": SpeakerListenerMetrics,
}


def scenario_metrics(env: Any) -> ScenarioMetrics | None:
    """Returns the metrics of the mpe2 scenario inside `env`, below any wrappers and adapters; None for other envs."""
    mpe_env = _find_mpe_env(env)
    if mpe_env is None:
        return None
    # The scenario's module names it; `metadata["name"]` does not, as mpe2 shares one dict among all scenarios.
    package, _, scenario = type(mpe_env.scenario).__module__.rpartition(".")
    metrics = _METRICS.get(scenario) if package.startswith("mpe2.") else None
    return metrics(mpe_env.world) if metrics else None


def _find_mpe_env(env: Any) -> Any:
    """Returns the first layer that has a world and a scenario, or None."""
    layers, seen = [env], set()
    while layers:
        layer = layers.pop()
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        if hasattr(layer, "world") and hasattr(layer, "scenario"):
            return layer
        # "par_env" is where RLlib's own ParallelPettingZooEnv keeps its env.
        layers += [getattr(layer, name, None) for name in ("unwrapped", "env", "par_env")]
    return None


def _distance(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a.state.p_pos - b.state.p_pos))


def _positions(entities: list) -> np.ndarray:
    return np.array([entity.state.p_pos for entity in entities])
