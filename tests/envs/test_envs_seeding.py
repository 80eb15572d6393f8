"""Episodes by number."""

import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.vector.sync_vector_multi_agent_env import SyncVectorMultiAgentEnv

from rllib_maddpg.envs import SeededEpisodes, resolve_env


def make(max_cycles=2):
    return resolve_env("simple_spread")({"N": 2, "max_cycles": max_cycles})


def test_seeds_follow_from_the_number():
    env = SeededEpisodes(make(), lambda episode: 100 + episode, first_episode=4)
    assert (env.episode, env.next_episode) == (-1, 4)
    for seed, number in ((None, 4), (0, 5), (None, 6)):
        observations, _ = env.reset(seed=seed)
        assert (env.episode, env.next_episode) == (number, number + 1)
        expected, _ = make().reset(seed=100 + number)
        for agent in expected:
            np.testing.assert_array_equal(observations[agent], expected[agent])
    env.next_episode = 4
    env.reset()
    assert (env.episode, env.next_episode) == (4, 5)


def test_is_a_sub_env_of_rllibs_vector_env():
    envs = SyncVectorMultiAgentEnv([make, make])
    # Two sub-envs share the episodes: one plays the even numbers, the other the odd ones.
    for i in range(2):
        envs.envs[i] = SeededEpisodes(envs.envs[i], lambda episode, i=i: 10 * episode + i)
        assert isinstance(envs.envs[i].unwrapped, MultiAgentEnv)
    starts, _ = envs.reset(seed=3)
    starts = [starts]
    for _ in range(2):
        for _ in range(2):
            _, _, _, truncateds, _ = envs.step([dict.fromkeys(env.unwrapped.agents, 0) for env in envs.envs])
        assert [flags["__all__"] for flags in truncateds] == [True, True]
        observations, _, _, truncateds, _ = envs.step([{}, {}])  # the reset
        assert [flags["__all__"] for flags in truncateds] == [False, False]
        starts.append(observations)
    assert [env.episode for env in envs.envs] == [2, 2]
    assert envs.get_attr("episode") == (2, 2)
    for episode, observations in enumerate(starts):
        for i in range(2):
            expected, _ = make().reset(seed=10 * episode + i)
            for agent in expected:
                np.testing.assert_array_equal(observations[i][agent], expected[agent])
