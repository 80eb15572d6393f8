"""MADDPG in one file. That the package's first update equals its own is tested with the benchmarks, whose baseline it is."""

import numpy as np
import pytest
import torch
from mpe2 import simple_spread_v3

from benchmarks.bare_update import BareMADDPG
from examples.maddpg_in_one_file import MADDPG, Replay, to_env, train


def test_the_baseline_of_the_benchmarks_is_this_file():
    assert issubclass(BareMADDPG, MADDPG) and BareMADDPG.learn is MADDPG.learn


def test_it_trains(capsys):
    """Three updates, of all networks; targets follow by tau."""
    torch.manual_seed(0)
    maddpg = train("simple_speaker_listener_v4", 200, seed=0, batch=50, every=50)
    assert set(maddpg.agents) == {"speaker_0", "listener_0"}
    for agent in maddpg.agents.values():
        assert {int(state["step"]) for state in agent.actor_optimizer.state.values()} == {4}
        for own, target in ((agent.actor, agent.target_actor), (agent.critic, agent.target_critic)):
            gap = max(float((a - b).detach().abs().max()) for a, b in zip(own.parameters(), target.parameters(), strict=True))
            # Four steps of Adam at rate 0.01, of which targets make a hundredth.
            assert 0.0 < gap < 0.05


def test_the_ring_keeps_the_newest_rows():
    replay = Replay(3)
    for value in range(5):
        replay.add({"a": {"rewards": float(value), "obs": np.full(2, value)}})
    assert len(replay) == 3
    rows = replay.draw(np.random.default_rng(0), 100)["a"]
    assert rows["obs"].shape == (100, 2) and rows["rewards"].shape == (100, 1)
    assert set(rows["rewards"].flatten().tolist()) == {2.0, 3.0, 4.0}
    torch.testing.assert_close(rows["obs"], rows["rewards"].expand(-1, 2))


def test_actions_reach_the_bounds_of_the_env():
    env = simple_spread_v3.parallel_env(continuous_actions=True)
    actions = {agent: np.linspace(-1, 1, 5, dtype=np.float32) for agent in env.possible_agents}
    for action in to_env(env, actions).values():
        assert action == pytest.approx(np.linspace(0, 1, 5)) and action.dtype == np.float32
