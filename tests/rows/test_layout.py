"""Order and slices of joint rows, on spaces whose sizes all differ."""

import json

import gymnasium as gym
import numpy as np
import pytest

from rllib_maddpg.rows.layout import JointLayout

OBS = {"z": 2, "b": 3, "a": 2}
ACTIONS = {"z": gym.spaces.Discrete(3), "b": gym.spaces.Box(-1.0, 1.0, (2,)), "a": gym.spaces.Discrete(3)}


def make(module_of=lambda agent: agent, obs=OBS):
    return JointLayout({a: gym.spaces.Box(-1, 1, (n,)) for a, n in obs.items()}, ACTIONS, module_of)


def test_agents_are_sorted_and_slices_follow():
    layout = make()
    assert layout.agents == ("a", "b", "z") == layout.modules
    assert [(s.obs, s.actions) for s in layout.slots] == [
        (slice(0, 2), slice(0, 3)),
        (slice(2, 5), slice(3, 5)),
        (slice(5, 7), slice(5, 8)),
    ]
    assert (layout.obs_dim, layout.action_dim) == (7, 8)
    assert layout.index("z") == 2 and "z" in layout and "y" not in layout


def test_agents_of_a_module_lie_side_by_side():
    layout = make({"z": "m", "a": "m", "b": "n"}.get)
    assert layout.agents == ("a", "z", "b") and layout.modules == ("m", "n")
    assert [s.agent for s in layout.slots_of("m")] == ["a", "z"]
    joint = np.arange(14.0).reshape(2, 7)
    np.testing.assert_array_equal(layout.split(joint, "m", "obs")[0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(layout.split(joint, "n", "obs")[1], [[11, 12, 13]])
    np.testing.assert_array_equal(layout.split(np.arange(16.0).reshape(2, 8), "n", "actions")[1], [[14, 15]])
    np.testing.assert_array_equal(layout.split(np.arange(6.0).reshape(2, 3), "m", "agents"), [[0, 1], [3, 4]])
    assert np.shares_memory(layout.split(joint, "m", "obs"), joint)


def test_images_are_refused_by_name():
    spaces = {a: gym.spaces.Box(0, 1, (4, 4, 3) if a == "b" else (2,)) for a in OBS}
    with pytest.raises(ValueError, match=r"Agent 'b': observation space .*FlattenObservations"):
        JointLayout(spaces, ACTIONS, str)


def test_another_layout_is_told_by_its_first_agent():
    make().check_same(make().description(), "It")
    with pytest.raises(ValueError, match=r"It belongs to another environment or layout: agent 'b' is .*'obs_dim': 4"):
        make().check_same(make(obs={**OBS, "b": 4}).description(), "It")


def observing(space):
    """Like `make()`, but agent b's vector is made of a space."""
    boxes = {a: gym.spaces.Box(-1, 1, (n,)) for a, n in OBS.items()}
    return JointLayout(boxes, ACTIONS, str, observed={**boxes, "b": space})


def without_observations(description):
    """As earlier versions have written it."""
    agents = [{key: value for key, value in agent.items() if key != "observes"} for agent in description["agents"]]
    return {"agents": agents}


def test_vectors_of_equal_width_may_stand_for_other_observations():
    choice, numbers = gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (3,))
    observing(choice).check_same(json.loads(json.dumps(observing(choice).description())), "It")
    observing(numbers).check_same(make().description(), "It")  # with other bounds it is still the same vector
    for mine, theirs in ((choice, numbers), (numbers, choice), (choice, gym.spaces.Discrete(3, start=1))):
        with pytest.raises(ValueError, match=r"It belongs to another environment or layout: agent 'b' is .*Discrete\(3"):
            observing(mine).check_same(observing(theirs).description(), "It")


def test_columns_that_earlier_versions_had_elsewhere():
    same = gym.spaces.Tuple([gym.spaces.Discrete(2), gym.spaces.Box(-1, 1, (1, 1))])
    observing(same).check_same(without_observations(observing(same).description()), "It")
    moved = gym.spaces.Discrete(3, start=-1)
    with pytest.raises(ValueError, match=r"It was made by a version .* agent 'b', Discrete\(3, start=-1\), into other columns"):
        observing(moved).check_same(without_observations(observing(moved).description()), "It")
