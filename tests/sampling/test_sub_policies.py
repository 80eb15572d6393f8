"""Which sub-policy acts in an episode: how it is drawn, in both loops, again after a restart, and what rows say of it."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from ledger_env import LATE_JOINER, MIXED_END, LedgerEnv
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from runners import make_runner, rows_of
from scipy import stats

from rllib_maddpg import MADDPGConfig, MADDPGTorchRLModule
from rllib_maddpg.modules.sub_policies import teams_of
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.sampling.fast_path import reason_for_stock_path
from rllib_maddpg.sampling.seeds import EpisodeSeeds
from rllib_maddpg.sampling.sub_policies import SubPolicyDraws

CONTINUOUS = {"continuous_actions": True, "max_cycles": 5}


def draws(counts, teams=(), seed=0, num_envs=1):
    layout = make_layout(list(counts))
    return SubPolicyDraws(layout, counts, teams, EpisodeSeeds(seed, 0, 1).of_sub_policies, num_envs)


def make_layout(agents):
    boxes = {agent: gym.spaces.Box(-1, 1, (1,)) for agent in agents}
    return JointLayout(boxes, boxes, str)


def test_numbers_become_sub_policies_of_equal_shares():
    """Exactly: [0, 1/K) is 0, [1/K, 2/K) is 1 and so on; a team has the number of its first agent."""
    own = draws({"a": 3, "b": 4, "c": 1})
    for numbers, expected in (
        ([0.0, 0.0, 0.0], [0, 0, 0]),
        ([0.333, 0.25, 0.999], [0, 1, 0]),
        ([0.334, 0.7499, 0.5], [1, 2, 0]),
        ([1 - 2**-53] * 3, [2, 3, 0]),
    ):
        assert own.drawn(np.array(numbers)).tolist() == expected
    together = draws({"a": 3, "b": 3, "c": 3, "d": 3}, teams=[("d", "b")])
    assert together.drawn(np.array([0.1, 0.5, 0.9, 0.0])).tolist() == [0, 1, 2, 1]


def test_each_is_drawn_equally_often_and_agents_by_themselves():
    """3,000 episodes: chi-square tests of each agent's shares and of all pairs, at 1e-4; the draws of a team are equal."""
    own = draws({"a": 3, "b": 3, "c": 3, "d": 4}, teams=[("b", "c")], num_envs=2)
    drawn = []
    for episode in range(1500):
        for env in range(2):
            own.begin_episode(env, episode)
        drawn.append(own.now.copy())
    drawn = np.concatenate(drawn).astype(int)
    for agent, k in enumerate((3, 3, 3, 4)):
        assert stats.chisquare(np.bincount(drawn[:, agent], minlength=k)).pvalue > 1e-4
    assert (drawn[:, 1] == drawn[:, 2]).all()
    for one, other in ((0, 1), (0, 3), (1, 3)):
        pairs = np.bincount(drawn[:, one] * 4 + drawn[:, other], minlength=12).reshape(3, 4)[:, : 3 if other == 1 else 4]
        assert stats.chi2_contingency(pairs).pvalue > 1e-4


def test_a_draw_depends_on_seed_runner_env_and_episode_only():
    def of(seed=0, runner=1, env=0, episode=0):
        return tuple(EpisodeSeeds(seed, 0, runner).of_sub_policies(env, episode, 6))

    others = [of(seed=1), of(runner=2), of(env=1), of(episode=1)]
    assert of() == of() and len({of(), *others}) == 5
    # What an agent draws does not depend on how many there are after it.
    assert of()[:3] == tuple(EpisodeSeeds(0, 0, 1).of_sub_policies(0, 0, 3))
    # The noise has another stream.
    assert not set(of()) & set(EpisodeSeeds(0, 0, 1).of_noise(0, 0).random(100))


def test_a_chosen_one_is_played_by_all_that_have_several():
    own = draws({"a": 3, "b": 1, "c": 2})
    own.begin_episode(0, 5, chosen=1)
    assert own.now.tolist() == [[1, 0, 1]]


def test_teams():
    counts = {"a": 3, "b": 1, "c": 3}
    assert teams_of(counts, False) == teams_of(counts, []) == teams_of(counts, [["a"]]) == []
    assert teams_of(counts, True) == [("a", "c")]
    assert teams_of(counts, [["c", "a"], ("b",)]) == [("c", "a")]


def share(config):
    mapping = {"agent_0": "shared", "agent_1": "alone", "agent_2": "shared"}
    config.multi_agent(policies=["shared", "alone"], policy_mapping_fn=mapping)


def per_module(config):
    numbers = {"adversary_0": 1, "agent_1": 4}
    overrides = {m: MADDPGConfig.overrides(num_sub_policies=number) for m, number in numbers.items()}
    config.multi_agent(algorithm_config_overrides_per_module=overrides)


class Widening(MADDPGTorchRLModule):
    """Sub-policies of unlike shapes, which NumPy computes one by one."""

    def build_actor(self, obs_dim, output_dim):
        self.model_config["fcnet_hiddens"] = [4, *self.model_config["fcnet_hiddens"]]
        return super().build_actor(obs_dim, output_dim)


def own_networks(config):
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=Widening))


GAMES = {
    "adversary": ("simple_adversary", {"max_cycles": 5}, 3, {}, None),
    "shared module": ("simple_spread", CONTINUOUS, 2, {"share_sub_policy_draw": [["agent_0", "agent_1"]]}, share),
    "per module": ("simple_adversary", CONTINUOUS, 2, {}, per_module),
    "own networks": ("simple_adversary", CONTINUOUS, 2, {}, own_networks),
    "mixed end": (LedgerEnv, {"script": MIXED_END}, 3, {"share_sub_policy_draw": True}, None),
    "late joiner": (LedgerEnv, {"script": LATE_JOINER}, 3, {}, None),
}


@pytest.mark.parametrize("game", GAMES)
def test_both_loops_play_and_write_the_same(game):
    """Rows of 80 env steps in fragments; a row's action is its own sub-policy's, and no episode has two."""
    env, env_config, num_envs, settings, change = GAMES[game]
    rows = {}
    for fast in (True, False):
        runner = make_runner(env, env_config, num_envs, fast=fast, change=change, num_sub_policies=3, **settings)
        assert (reason_for_stock_path(runner) is None) == fast
        rows[fast] = rows_of([runner.sample(num_timesteps=20)[0] for _ in range(4)])
        layout = runner.layout
        runner.stop()
    played, episodes = rows[True]["sub_policies"], rows[True]["episodes"][:, 0]
    assert played.dtype == np.uint8 and set(np.unique(played)) == set(range(4 if game == "per module" else 3))
    for episode in np.unique(episodes):
        assert len(np.unique(played[episodes == episode], axis=0)) == 1
    for key in ("episodes", "t", "sub_policies", "alive", "next_alive", "terminateds", "truncateds"):
        order = [np.lexsort((own["t"][:, 0], own["episodes"][:, 0])) for own in (rows[True], rows[False])]
        np.testing.assert_array_equal(rows[True][key][order[0]], rows[False][key][order[1]], err_msg=key)
    for key in ("obs", "actions", "rewards", "new_obs"):
        np.testing.assert_allclose(rows[True][key][order[0]], rows[False][key][order[1]], atol=1e-5, err_msg=key)
    if game == "shared module":
        assert (played[:, layout.index("agent_0")] == played[:, layout.index("agent_1")]).all()
        assert (played[:, layout.index("agent_0")] != played[:, layout.index("agent_2")]).any()  # of one module
    if game == "mixed end":
        assert (played == played[:, :1]).all()


@pytest.mark.parametrize("fast", [True, False])
def test_the_sub_policy_of_the_row_has_acted(fast):
    """Without noise the action of each row is what the module's own sub-policy says of the row's observation."""
    runner = make_runner("simple_adversary", CONTINUOUS, 2, fast=fast, num_sub_policies=3)
    rows = rows_of([runner.sample(num_timesteps=150, explore=False)[0]])
    assert {tuple(row) for row in rows["sub_policies"]} > {tuple(rows["sub_policies"][0])}
    for slot in runner.layout.slots:
        module, which = runner.module[slot.module].unwrapped(), rows["sub_policies"][:, runner.layout.index(slot.agent)]
        with torch.no_grad():
            outputs = [torch.tanh(net(torch.from_numpy(rows["obs"][:, slot.obs]))).numpy() for net in module.acting_networks]
        expected = np.stack(outputs)[which, np.arange(len(which))]
        np.testing.assert_allclose(rows["actions"][:, slot.actions], expected, atol=1e-6)
        assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    runner.stop()


def test_a_restored_runner_meets_the_same_draws_and_noise_is_as_without_ensembles():
    one, other = (make_runner("simple_adversary", {}, 2, num_sub_policies=3) for _ in range(2))
    first = rows_of([one.sample(num_timesteps=100)[0]])
    rest = rows_of([one.sample(num_timesteps=100, force_reset=True)[0]])
    for runner in (one, other):
        for env, number in zip(runner.env.envs, (2, 2), strict=True):
            env.next_episode = number
    again = rows_of([other.sample(num_timesteps=100, force_reset=True)[0]])
    assert rest["sub_policies"].shape == again["sub_policies"].shape == (100, 3)
    np.testing.assert_array_equal(rest["sub_policies"], again["sub_policies"])
    assert not np.array_equal(first["sub_policies"], again["sub_policies"])
    plain = make_runner("simple_adversary", {}, 2)
    random = {"num_steps_sampled_before_learning_starts": 1000}
    with_ensembles = make_runner("simple_adversary", {}, 2, num_sub_policies=3, **random)
    without = make_runner("simple_adversary", {}, 2, **random)
    ours, theirs = (rows_of([runner.sample(num_timesteps=60)[0]]) for runner in (with_ensembles, without))
    np.testing.assert_array_equal(ours["actions"], theirs["actions"])
    assert "sub_policies" not in theirs
    for runner in (one, other, plain, with_ensembles, without):
        runner.stop()
