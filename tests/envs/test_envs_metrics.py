"""Scenario metrics: exact numbers on worlds placed by hand, and the levels of random policies."""

import numpy as np
import pytest
from mpe2 import simple_spread_v3
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv

from rllib_maddpg.envs import SeededEpisodes, resolve_env, scenario_metrics


def make(name, **config):
    env = resolve_env(name)(config)
    env.reset(seed=0)
    return env, scenario_metrics(env), env.unwrapped_env.world


def place(entities, positions):
    for entity, position in zip(entities, positions, strict=True):
        entity.state.p_pos = np.array(position, dtype=float)


def test_simple_adversary_by_hand():
    _, metrics, world = make("simple_adversary")
    target = world.agents[0].goal_a
    place([target], [(0, 0)])
    place(world.agents, [(0.41, 0), (0.3, 0.2), (1, 1)])  # adversary, good, good
    metrics.on_step()
    assert metrics.on_episode_end() == pytest.approx(
        {"good_success": 1.0, "adversary_success": 0.0, "good_distance": np.sqrt(0.13)}
    )
    metrics.on_step()
    place(world.agents, [(0.39, 0), (0.5, 0), (0, 0.6)])  # only the last frame counts
    assert metrics.on_episode_end() == pytest.approx({"good_success": 0.0, "adversary_success": 1.0, "good_distance": 0.5})
    assert metrics.on_episode_end() == {}


def test_simple_spread_by_hand():
    _, metrics, world = make("simple_spread")
    place(world.landmarks, [(0, 0), (1, 0), (0, 1)])
    place(world.agents, [(0, 0), (1, 0), (0, 1)])
    metrics.on_step()
    place(world.agents, [(0, 0), (0.2, 0), (0, 0.25)])  # pairs at 0.2, 0.25 and 0.32; they touch below 0.3
    metrics.on_step()
    frames = [0.0, 0.0 + 0.8 + 0.75]
    assert metrics.on_episode_end() == pytest.approx(
        {"distance_sum": np.mean(frames), "mean_distance": np.mean(frames) / 3, "collisions": 2.0}
    )
    place(world.agents, [(0, 0), (0, 0), (0, 0)])
    metrics.on_step()
    assert metrics.on_episode_end() == pytest.approx({"distance_sum": 2.0, "mean_distance": 2 / 3, "collisions": 3.0})


def test_simple_speaker_listener_by_hand():
    _, metrics, world = make("simple_speaker_listener")
    place([world.agents[0].goal_b, world.agents[1]], [(0.5, 0.5), (0.5, 0.1)])
    metrics.on_step()
    assert metrics.on_episode_end() == pytest.approx({"reach": 1.0, "distance_squared": 0.16})
    place([world.agents[1]], [(0.5, 0.0)])
    metrics.on_step()
    assert metrics.on_episode_end() == pytest.approx({"reach": 0.0, "distance_squared": 0.25})


def play_random(env, metrics, episodes):
    """Returns the metrics' means, and per episode the list of (rewards, infos) of its steps."""
    rng = np.random.default_rng(1)
    rows, logs = [], []
    for episode in range(episodes):
        env.reset(seed=episode)
        log = []
        while env.agents:
            actions = {a: rng.random(env.get_action_space(a).shape, np.float32) for a in env.agents}
            _, rewards, _, _, infos = env.step(actions)
            metrics.on_step()
            log.append((rewards, infos))
        rows.append(metrics.on_episode_end())
        logs.append(log)
    return {key: np.mean([row[key] for row in rows]) for key in rows[0]}, rows, logs


def test_simple_spread_agrees_with_mpe2s_own_benchmark_and_with_random_play():
    env, metrics, _ = make("simple_spread", continuous_actions=True, benchmark_data=True)
    means, rows, logs = play_random(env, metrics, 60)
    for row, log in zip(rows, logs, strict=True):
        benchmark = [[info["benchmark_data"] for info in infos.values()] for _, infos in log]
        assert len(benchmark) == 25
        assert row["distance_sum"] == pytest.approx(np.mean([frame[0][2] for frame in benchmark]))
        assert row["collisions"] == sum(agent[1] for frame in benchmark for agent in frame) / 2
        assert row["mean_distance"] == pytest.approx(row["distance_sum"] / 3)
    assert means["distance_sum"] == pytest.approx(2.06, abs=0.3)


def test_simple_adversary_in_random_play():
    env, metrics, _ = make("simple_adversary", continuous_actions=True)
    means, rows, logs = play_random(env, metrics, 60)
    for row, log in zip(rows, logs, strict=True):
        rewards = log[-1][0]  # good: adversary's distance - smallest good one; adversary: -its distance
        assert row["good_distance"] == pytest.approx(-rewards["agent_0"] - rewards["adversary_0"])
        assert row["adversary_success"] == float(-rewards["adversary_0"] < 0.4)
    assert means["good_success"] == pytest.approx(0.162, abs=0.13)
    assert means["adversary_success"] == pytest.approx(0.064, abs=0.1)


def test_simple_speaker_listener_in_random_play():
    env, metrics, _ = make("simple_speaker_listener", continuous_actions=True)
    _, rows, logs = play_random(env, metrics, 60)
    for row, log in zip(rows, logs, strict=True):
        assert row["distance_squared"] == pytest.approx(-log[-1][0]["listener_0"])
        assert row["reach"] == float(row["distance_squared"] < 0.45**2)
    mean_return = np.mean([sum(sum(rewards.values()) for rewards, _ in log) for log in logs])
    assert mean_return == pytest.approx(-76.0, abs=20.0)


def test_finds_the_world_below_wrappers_and_adapters():
    env = resolve_env("simple_spread")({"wrappers": [["frame_stack_v2", {"stack_size": 2}], "black_death_v3"]})
    env = SeededEpisodes(env, lambda episode: episode)
    assert scenario_metrics(env).world is env.unwrapped.unwrapped_env.world
    inner = simple_spread_v3.parallel_env()
    assert scenario_metrics(ParallelPettingZooEnv(inner)).world is inner.unwrapped.world
    env = resolve_env(lambda config: simple_spread_v3.env())({})
    assert scenario_metrics(env).world is env.unwrapped_env.world


def test_scenarios_are_told_apart_though_mpe2_shares_its_metadata():
    adversary, spread = resolve_env("simple_adversary")(), resolve_env("simple_spread")()
    assert type(scenario_metrics(adversary)).__name__ == "AdversaryMetrics"
    assert type(scenario_metrics(spread)).__name__ == "SpreadMetrics"


@pytest.mark.parametrize("name", ["simple_tag", "Pendulum-v1", "classic/rps_v2"])
def test_other_envs_have_none(name):
    assert scenario_metrics(resolve_env(name)()) is None
