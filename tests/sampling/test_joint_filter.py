"""Normalization of all agents' observations at once, on the runners."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch

from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.normalizing import ObservationFilter
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.sampling.actors import JointActors
from rllib_maddpg.sampling.observation_filter import JointFilter

# Agents a and b share a module.
MODULES = {"a": "two", "b": "two", "c": "one", "d": "zero"}
WIDTHS = {"two": 3, "one": 2, "zero": 4}


def layout_of() -> JointLayout:
    obs = {a: gym.spaces.Box(-np.inf, np.inf, (WIDTHS[m],), np.float32) for a, m in MODULES.items()}
    return JointLayout(obs, dict.fromkeys(MODULES, gym.spaces.Discrete(2)), MODULES.get)


def drawn(modules) -> dict[str, ObservationFilter]:
    filters = {}
    for k, m in enumerate(modules):
        filters[m] = ObservationFilter(WIDTHS[m])
        filters[m].mean.copy_(torch.arange(WIDTHS[m]) + 10.0 * k)
        filters[m].scale.fill_(2.0 + k)
    return filters


def expected(layout, filters, obs) -> np.ndarray:
    result = obs.copy()
    for slot in layout.slots:
        if slot.module in filters:
            result[:, slot.obs] = filters[slot.module](torch.from_numpy(obs[:, slot.obs].copy())).numpy()
    return result


def assert_filters(layout, modules):
    filters, obs = drawn(modules), np.random.default_rng(0).normal(5.0, 20.0, (6, layout.obs_dim)).astype(np.float32)
    joint, before = JointFilter(layout, filters), obs.copy()
    assert np.array_equal(joint(obs), expected(layout, filters, obs)) and np.abs(joint(obs)).max() >= 10.0
    assert np.array_equal(obs, before), "rows are to stay raw"
    for own in filters.values():  # new weights come so
        own.mean.add_(1.0)
        own.scale.mul_(0.25)
    assert joint.is_current(filters) and np.array_equal(joint(obs), expected(layout, filters, obs))
    filters[modules[0]].mean = filters[modules[0]].mean.clone()
    assert not joint.is_current(filters)


def test_agents_of_a_module_have_one_filter():
    assert_filters(layout_of(), ["two", "one", "zero"])


def test_modules_of_another_run_may_have_none():
    """In games of several runs, of which some were trained with normalization; their observations are not cut off, either."""
    assert_filters(layout_of(), ["zero"])
    assert_filters(layout_of(), ["two", "one"])


def test_a_module_for_each_agent_needs_no_picking():
    modules = {agent: agent for agent in "xyz"}
    obs = dict.fromkeys(modules, gym.spaces.Box(-np.inf, np.inf, (2,), np.float32))
    layout = JointLayout(obs, dict.fromkeys(modules, gym.spaces.Discrete(2)), modules.get)
    WIDTHS.update(dict.fromkeys(modules, 2))
    assert_filters(layout, ["x", "y", "z"])


def test_actors_of_any_kind_see_what_is_filtered():
    layout, filters = layout_of(), drawn(WIDTHS.keys() & {"two", "one", "zero"})
    actors = {m: MLP(WIDTHS[m], 2, [5]) for m in layout.modules}
    actors["one"] = torch.nn.Sequential(actors["one"])  # no plain MLP
    own_of = {m: (actor,) for m, actor in actors.items()}
    joint = JointActors(layout, own_of, filters)
    obs = np.random.default_rng(1).normal(size=(4, layout.obs_dim)).astype(np.float32)
    outputs, seen = joint(obs), torch.from_numpy(expected(layout, filters, obs))
    for slot in layout.slots:
        with torch.no_grad():
            own = actors[slot.module](seen[:, slot.obs]).numpy()
        np.testing.assert_allclose(outputs[:, slot.actions], own, rtol=1e-5, atol=1e-6)
    assert joint.is_current(own_of, filters) and not joint.is_current(own_of, drawn(["two", "one", "zero"]))
