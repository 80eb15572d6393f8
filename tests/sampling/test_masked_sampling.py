"""Both sampling loops in a game that refuses masked actions: none is taken, random ones are fair, and errors name the agent."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from masked_game import NVEC, MaskedGame
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from runners import make_runner, rows_of
from scipy import stats

from rllib_maddpg.envs.errors import EnvFailure
from rllib_maddpg.rows.actions import MASKED
from rllib_maddpg.sampling.exploration import JointExploration
from rllib_maddpg.sampling.fast_path import reason_for_stock_path
from rllib_maddpg.sampling.masks import JointMasks, ObservedMasks

PLACES = ("observation", "observations", "tuple", "infos")
HOW = ({"explore": True}, {"explore": False}, {"random_actions": True})
slow = partial(pytest.param, marks=pytest.mark.slow)
NO_WARM_UP = {"num_steps_sampled_before_learning_starts": 0}


def masked_runner(fast=True, num_envs=1, training=NO_WARM_UP, change=None, **env_config):
    runner = make_runner(MaskedGame, env_config, num_envs, fast=fast, change=change, **training)
    with torch.no_grad():  # larger weights than a fresh actor's, so that actions depend on what is seen
        for module in runner.module.values():
            for p in module.parameters() if isinstance(module, torch.nn.Module) else ():
                p.mul_(3.0)
    return runner


def game_of(runner, env=0):
    """The PettingZoo game itself."""
    game = runner.env.envs[env].unwrapped
    return getattr(game, "unwrapped_env", game)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("how", HOW, ids=str)
def test_both_loops_sample_the_same_rows_and_take_nothing_masked(where, how):
    """The game raises an error else. In the same episodes from the same seeds, row by row."""
    columns = []
    for fast in (True, False):
        runner = masked_runner(fast, where=where)
        assert (reason_for_stock_path(runner) is None) == fast
        rollouts = [runner.sample(num_timesteps=20, **how)[0] for _ in range(2)]
        assert [rollout.error for rollout in rollouts] == ["", ""]
        columns.append(rows_of(rollouts))
        assert len(game_of(runner).done) > 100
    assert columns[0].keys() == columns[1].keys()
    for name, values in columns[0].items():
        np.testing.assert_allclose(values, columns[1][name], atol=1e-6, rtol=1e-6, err_msg=name)
    # The last masks of those that do not go on are zeros, in the rows too; agent d dies.
    slots = {slot.agent: slot for slot in runner.layout.slots}
    ends = columns[0]["terminateds"] + columns[0]["truncateds"]
    for i, agent in enumerate("abd"):
        slot, index = slots[agent], runner.layout.index(agent)
        masks = columns[0]["new_obs"][:, slot.obs.start + slot.mask.start : slot.obs.start + slot.mask.stop]
        alive = columns[0]["alive"][:, index] > 0
        goes_on = alive & (ends[:, index] == 0)
        assert goes_on.sum() > 10 and masks[goes_on].any(1).all() and not masks[~goes_on].any(), i
    assert columns[0]["terminateds"].sum() > 0


def test_a_warm_up_takes_nothing_masked():
    """Rows of the first steps, in which actions are random, and of those after them."""
    runner = masked_runner(training={"num_steps_sampled_before_learning_starts": 30})
    assert not runner.sample(num_timesteps=60)[0].error


def masks_of(layout, obs):
    """Mask of each agent in a joint observation, by hand."""
    return {s.agent: obs[s.obs.start + s.mask.start : s.obs.start + s.mask.stop] for s in layout.slots if s.mask is not None}


@pytest.fixture(scope="module")
def layout():
    return masked_runner().layout


def test_joint_masks_by_hand(layout):
    masks = JointMasks(layout)
    obs = np.zeros((2, layout.obs_dim), np.float32)
    own = masks_of(layout, obs[0])
    own["a"][:], own["b"][:], own["d"][:] = [0, 1, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0]
    outputs = np.arange(2 * layout.action_dim, dtype=np.float32).reshape(2, -1)
    before, masked = outputs.copy(), masks.masked(obs, outputs)
    # Of b's second part and of d nothing is allowed, so all is; c has no mask.
    expected = np.where(np.bool_([0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1]), outputs[0], np.float32(MASKED))
    np.testing.assert_array_equal(masked[0], expected)
    np.testing.assert_array_equal(masked[1], outputs[1])
    np.testing.assert_array_equal(outputs, before)
    assert not masks.all_can_act(obs[:1])
    masks.check(obs[0], np.bool_([1, 0, 1, 0]))
    with pytest.raises(EnvFailure, match="mask of agent 'b' allows nothing for number 1 of its action, though the agent is to"):
        masks.check(obs[0], np.bool_([1, 1, 1, 1]))
    with pytest.raises(EnvFailure, match=r"mask of agent 'd' allows nothing, though the agent is to act\. Let the mask allow"):
        masks.check(obs[0], np.bool_([1, 0, 1, 1]))


def test_layouts_without_masks_have_none():
    runner = make_runner("simple_spread", {})
    assert not JointMasks(runner.layout) and not ObservedMasks(runner.layout)._of


@pytest.mark.parametrize("temperature", [None, 0.5, 1.0, 2.0], ids=lambda t: f"T={t}" if t else "random")
def test_draws_have_the_probabilities_of_what_is_allowed(layout, temperature):
    """Pearson's test against the softmax of head outputs over a temperature, or against equal shares at random.

    10,000 draws of each part; a right sampler fails one of the three tests in 1 of 3,300 seeds, and the seed is fixed.
    """
    n, rng = 10_000, np.random.default_rng(3)
    exploration = JointExploration(
        layout, 1, generators=lambda env, episode: np.random.default_rng(11), temperature=temperature or 1.0
    )
    exploration.random = temperature is None
    obs = np.zeros((1, layout.obs_dim), np.float32)
    own = masks_of(layout, obs[0])
    own["a"][:], own["b"][:], own["d"][:] = [1, 0, 1, 1], [0, 1, 1, 1, 0], [1, 0, 1]
    outputs = rng.normal(size=(1, layout.action_dim)).astype(np.float32)
    masked = JointMasks(layout).masked(obs, outputs)
    counts = sum(exploration.act([0], masked)[0].astype(float) for _ in range(n))
    for slot in layout.slots:
        if slot.mask is None:
            continue
        start = slot.actions.start
        for size in slot.codec.nvec:
            part = slice(start, start + size)
            allowed = own[slot.agent][start - slot.actions.start : start - slot.actions.start + size] > 0
            assert counts[part].sum() == n and not counts[part][~allowed].any()
            weights = np.exp(outputs[0, part][allowed].astype(float) / temperature) if temperature else np.ones(allowed.sum())
            if allowed.sum() > 1:
                assert stats.chisquare(counts[part][allowed], n * weights / weights.sum()).pvalue > 1e-4
            start += size


@pytest.mark.parametrize("fast", [True, False], ids=["columnar", "stock"])
@pytest.mark.parametrize(
    ("where", "trouble", "says"),
    [
        (
            "observation",
            "nothing",
            r"The action mask of agent 'a' allows nothing, though the agent is to act, at step 3 of the",
        ),
        slow("infos", "nothing", r"The action mask of agent 'a' allows nothing, though the agent is to act, at step 3 of the"),
        (
            "observation",
            "two",
            r"Agent 'a': observation\.action_mask is array\(.*\): a mask of actions has only 1 .* at step 3 of",
        ),
        slow(
            "infos", "two", r"Agent 'a': observation\.action_mask is array\(.*\): a mask of actions has only 1 .* at step 3 of"
        ),
        ("infos", "none", r"Agent 'a' has no 'action_mask' in its infos, at step 3 of the episode in env 0"),
    ],
)
def test_bad_masks_name_agent_and_step(fast, where, trouble, says):
    runner = masked_runner(fast, where=where, trouble=trouble)
    rollout = runner.sample(num_timesteps=30)[0]
    assert re.match(says, rollout.error), rollout.error
    # The columnar loop keeps the rows before it.
    assert len(rollout) == (2 if fast else 0)


def test_an_env_with_nothing_allowed_may_be_rebuilt():
    """As others whose fault may pass, if RLlib's settings want it."""

    def restart(config):
        config.fault_tolerance(restart_failed_sub_environments=True)
        config.num_consecutive_env_runner_failures_tolerance = 3

    for fast in (True, False):
        rollout = masked_runner(fast, trouble="nothing", change=restart).sample(num_timesteps=30)[0]
        assert "allows nothing" in rollout.error and "more often in a row than" in rollout.error


# ------------------------------------------------------------------------------------------ modules that act by a rule


class First(RLModule):
    """The first action that is allowed to it; MaskedGame has the masks in front."""

    def _forward(self, batch, **kwargs):
        masks = np.asarray(batch["obs"])[:, :4]
        return {"actions": masks.argmax(-1)}


class Always(RLModule):
    """Does not look at the mask."""

    def _forward(self, batch, **kwargs):
        return {"actions": np.full(len(batch["obs"]), 2)}


def a_is(rule):
    def change(config):
        specs = {"a": RLModuleSpec(module_class=rule), **{agent: RLModuleSpec() for agent in "bcd"}}
        config.multi_agent(policies_to_train=["b", "c", "d"])
        config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))

    return change


@pytest.mark.parametrize("explore", [True, slow(False)])
def test_rules_that_obey_masks_play(explore):
    runner = masked_runner(change=a_is(First))
    rollout = runner.sample(num_timesteps=40, explore=explore)[0]
    assert not rollout.error
    chosen = [(choice, mask) for agent, (choice, *_), mask in game_of(runner).done if agent == "a"]
    assert len(chosen) >= 40 and all(choice == np.argmax(mask) for choice, mask in chosen)


@pytest.mark.parametrize("explore", [True, slow(False)])
def test_rules_that_do_not_are_named(explore):
    """Before the env gets what it must not."""
    runner = masked_runner(change=a_is(Always))
    error = runner.sample(num_timesteps=60, explore=explore)[0].error
    assert re.match(
        r"Module 'a' has chosen 2 for agent 'a' in step \d of the episode, which its action mask \[\d, \d, 0, \d\] does not "
        r"allow\. The mask is in what the module observes: columns 0 to 3 of 'obs'\.",
        error,
    ), error


def test_the_game_itself_refuses(layout):
    """So that the tests above can fail."""
    game = MaskedGame()
    game.reset(seed=0)
    actions = {"c": np.zeros(2)}
    for agent, mask in game.masks.items():
        parts = np.split(mask, np.cumsum(NVEC[agent])[:-1])
        best = np.array([part.argmax() for part in parts])
        actions[agent] = best[0] + (5 if agent == "d" else 0) if len(best) == 1 else best
    wrong = {**actions, "a": int(np.argmin(game.masks["a"]))}
    assert not game.masks["a"].all()
    with pytest.raises(AssertionError, match="agent a did"):
        game.step(wrong)
    game.reset(seed=0)
    game.step(actions)
