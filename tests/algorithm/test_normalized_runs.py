"""Normalization in whole runs: runners, evaluation, checkpoints, weights that come from elsewhere, and exports."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tree
from gymnasium.spaces import Box, Discrete
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from runners import make_runner, rows_of
from tiny_algorithm import same, state_of, tiny_config

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.deploy.export import export_actors
from rllib_maddpg.deploy.formats import FORMATS
from rllib_maddpg.deploy.maddpg_actors import load_actors
from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule

pytestmark = pytest.mark.usefixtures("ray_session")
BOTH = {"normalize_observations": True, "normalize_rewards": True}


def config_of(seed=0, **settings):
    config = tiny_config(seed).training(**{**BOTH, **settings})
    return config.rl_module(model_config={"fcnet_hiddens": [4], "use_layer_norm": True})


@pytest.fixture(scope="module")
def algo(ray_session):
    algo = config_of().build_algo()
    algo.train()
    yield algo
    algo.stop()


@pytest.fixture(scope="module")
def checkpoint(algo, tmp_path_factory):
    path = tmp_path_factory.mktemp("normalized") / "checkpoint"
    algo.save_to_path(path)
    return path


@pytest.fixture(scope="module")
def plain(ray_session):
    algo = tiny_config().build_algo()
    algo.train()
    yield algo
    algo.stop()


def learner_of(algo):
    return algo.learner_group._learner


def filters(modules):
    return {m: {name: t.clone() for name, t in own.unwrapped().obs_filter.named_buffers()} for m, own in modules.items()}


def assert_equal(one, other):
    assert all(map(torch.equal, tree.flatten(one), tree.flatten(other)))


def test_runners_see_what_the_learner_says(algo):
    runner, learner = algo.env_runner, learner_of(algo)
    assert_equal(filters(runner.module), filters(learner.module))
    assert all((own["scale"] != 1.0).any() for own in filters(runner.module).values())
    assert all(own.unwrapped().moments is None for own in runner.module.values())
    _, vector = learner.get_actor_weights()
    assert vector.dtype == np.float32  # as others travel
    for mine, theirs in zip(runner.split_weights(vector), learner.actor_state(), strict=True):
        assert torch.equal(mine, theirs.detach())
    (rollout,) = runner.sample(num_timesteps=4, explore=False)
    for slot in runner.layout.slots:
        module = learner.module[slot.module].unwrapped()
        obs = torch.from_numpy(rollout.columns["obs"][:, slot.obs].copy())
        expected = module.codec.greedy(module.actor(module.obs_filter(obs)))
        assert torch.equal(expected, torch.from_numpy(rollout.columns["actions"][:, slot.actions].copy()))


def test_evaluation_changes_nothing(algo):
    before = state_of(algo)
    algo.evaluate()
    (results,) = algo.env_runner.sample(num_episodes=2, explore=False)
    assert len(results) and same(state_of(algo), before)


def test_a_resumed_run_goes_on_bit_for_bit(checkpoint):
    """Also what is counted, in float64, which RLlib's state of a module would round."""
    one, other = (config_of().build_algo() for _ in range(2))
    try:
        for algo in (one, other):
            algo.restore_from_path(checkpoint)
        assert same(state_of(one), state_of(other))
        for name, value in learner_of(one).module["agent_0"].unwrapped().moments.named_buffers():
            assert (value.dtype == torch.float64 and (value.float().double() != value).any()) or "count" in name, name
        for algo in (one, other):
            algo.train()
        assert same(state_of(one), state_of(other))
    finally:
        one.stop(), other.stop()


def test_a_module_of_a_checkpoint_acts_as_in_the_run(algo, checkpoint):
    module = RLModule.from_checkpoint(checkpoint / "learner_group/learner/rl_module/agent_0")
    own = learner_of(algo).module["agent_0"].unwrapped()
    obs = torch.randn(50, len(own.obs_filter.mean))
    assert torch.equal(module.forward_inference({"obs": obs})["actions"], own.forward_inference({"obs": obs})["actions"])
    assert torch.equal(module.moments.obs_deviations, own.moments.obs_deviations)


def test_another_trials_state_goes_on_with_other_settings(algo, checkpoint):
    """Population based training."""
    other = config_of(seed=3, lr=0.002).build_algo()
    try:
        other.train()
        other.restore_from_path(checkpoint)
        assert_equal(filters(other.env_runner.module), filters(algo.env_runner.module))
        counted = float(learner_of(algo).module["agent_0"].unwrapped().moments.obs_count)
        other.train()
        assert float(learner_of(other).module["agent_0"].unwrapped().moments.obs_count) > counted > 0
    finally:
        other.stop()


def test_weights_bring_what_they_have_seen(algo):
    """To trained and other modules; a snapshot stays as it is."""
    other = config_of(seed=5).build_algo()
    try:
        snapshot = algo.get_weights()
        other.set_weights({"agent_1": snapshot["agent_0"]})
        mine = learner_of(other).module["agent_1"].unwrapped()
        theirs = learner_of(algo).module["agent_0"].unwrapped()
        for name, value in theirs.named_buffers():
            assert torch.equal(dict(mine.named_buffers())[name], value), name
        assert_equal(filters(other.env_runner.module)["agent_1"], filters(algo.env_runner.module)["agent_0"])
        other.train()
        assert float(mine.moments.obs_count) > float(theirs.moments.obs_count)
        assert np.array_equal(snapshot["agent_0"]["moments.obs_mean"], theirs.moments.obs_mean.numpy())
    finally:
        other.stop()


@pytest.mark.parametrize("setting", BOTH)
def test_checkpoints_with_and_without_it_are_refused_by_name(algo, plain, tmp_path, setting):
    """Networks that have learned from numbers of one size would see such of another."""
    with_it = tiny_config().training(**{setting: True}).build_algo()
    try:
        paths = []
        for k, saved in enumerate((with_it, plain)):
            paths.append(tmp_path / str(k))
            saved.save_to_path(paths[-1])
        before = state_of(plain)
        for loading, path, there in ((plain, paths[0], True), (with_it, paths[1], False)):
            with pytest.raises(ValueError, match=f"`{setting}`={there}, and here it is {not there}.*Set `{setting}={there}`"):
                loading.restore_from_path(path)
        with pytest.raises(ValueError, match=f"weights for 'agent_0' come from a run with `{setting}`=True"):
            plain.set_weights({"agent_0": with_it.get_weights()["agent_0"]})
        assert same(state_of(plain), before)
    finally:
        with_it.stop()


@pytest.mark.parametrize("env_config", [{"continuous_actions": True}, {"continuous_actions": False}], ids=str)
def test_both_loops_see_the_same(env_config):
    """Columns of rows are raw, and the actions those of what the filter makes of them."""
    rows = []
    for fast in (True, False):
        settings = {"num_steps_sampled_before_learning_starts": 0, "normalize_observations": True}
        runner = make_runner("simple_adversary", env_config, 2, fast=fast, **settings)
        assert (runner._is_fast(), bool(runner._stock_reason)) == (fast, not fast)
        runner.sample(num_timesteps=2)  # after which new filters come
        with torch.no_grad():
            for module in runner.module.values():
                torch.manual_seed(len(module.unwrapped().obs_filter.mean))
                module.unwrapped().obs_filter.mean.normal_()
                module.unwrapped().obs_filter.scale.uniform_(1.0, 30.0)
                for p in module.parameters():
                    p.mul_(2.0)
        rows.append(rows_of([runner.sample(num_timesteps=2)[0] for _ in range(40)]))
    for name, columnar in rows[0].items():
        np.testing.assert_allclose(columnar[:78], rows[1][name][:78], atol=2e-6, rtol=2e-6, err_msg=name)
    assert np.abs(rows[0]["obs"]).max() < 10.0


class Stubborn(RLModule):
    """Plays 1 and has no networks."""

    def _forward(self, batch, **kwargs):
        assert float(np.abs(np.asarray(batch["obs"])).min()) > 9_000.0, "it is to see what the env gives"
        return {"actions": torch.ones(len(batch["obs"]), dtype=torch.int64)}


class Far(MultiAgentEnv):
    """Two agents that observe numbers near 1e4; episodes of 5 steps."""

    def __init__(self, config):
        super().__init__()
        self.possible_agents = self.agents = ["a", "b"]
        self.observation_spaces = dict.fromkeys("ab", Box(0, 2e4, (2,), np.float32))
        self.action_spaces = dict.fromkeys("ab", Discrete(2))

    def _obs(self):
        return {agent: (1e4 + self.rng.normal(size=2)).astype(np.float32) for agent in "ab"}

    def reset(self, *, seed=None, options=None):
        self.rng, self.time = np.random.default_rng(seed), 0
        return self._obs(), {}

    def step(self, actions):
        self.time += 1
        ends = {"__all__": self.time == 5}
        return self._obs(), {a: float(actions[a]) for a in actions}, {"__all__": False}, ends, {}


def test_a_rule_sees_raw_observations_and_critics_normalized_ones(tmp_path):
    """What is counted of a module that has no networks is in the Learner's state."""

    def build():
        config = config_of().environment(Far, env_config={})
        config.multi_agent(policies={"a", "b"}, policy_mapping_fn=lambda agent, *args, **kwargs: agent, policies_to_train=["b"])
        spec = MultiRLModuleSpec(rl_module_specs={"a": RLModuleSpec(module_class=Stubborn)})
        return config.rl_module(rl_module_spec=spec).build_algo()

    one, other = build(), build()
    try:
        one.train()
        state = learner_of(one).get_state()["moments"]["a"]
        own = learner_of(one).module["b"].unwrapped().moments
        assert state["obs_count"][0] == float(own.obs_count) > 0
        assert abs(state["obs_mean"] - 1e4).max() < 0.5 and abs(own.obs_mean.numpy() - 1e4).max() < 0.5
        one.save_to_path(tmp_path)
        other.restore_from_path(tmp_path)
        for algo in (one, other):
            algo.train()
        assert same(state_of(one), state_of(other))
        ours, theirs = (learner_of(algo).get_state()["moments"]["a"] for algo in (one, other))
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs) and ours["obs_count"] > state["obs_count"]
    finally:
        one.stop(), other.stop()


class OneOfTwo(MADDPGTorchRLModule):
    """Another actor than an MLP."""

    def build_actor(self, obs_dim, output_dim):
        return torch.nn.Sequential(super().build_actor(obs_dim, output_dim))


@pytest.mark.parametrize("file_format", FORMATS)
def test_exported_actors_have_it_in_them(algo, checkpoint, tmp_path, file_format):
    """Observations are those of the env; the export compares 1,000 of them with the module, too."""
    export = export_actors(checkpoint, file_format, tmp_path / "out")
    actors = load_actors(export.folder)
    rng, differs = np.random.default_rng(0), False
    for slot in algo.layout.slots:
        module = algo.get_module(slot.module)
        obs = rng.normal(size=(200, len(module.obs_filter.mean))).astype(np.float32)
        with torch.no_grad():
            expected = module.actor(module.obs_filter(torch.from_numpy(obs))).argmax(-1).numpy()
            differs |= (module.actor(torch.from_numpy(obs)).argmax(-1).numpy() != expected).any()
        assert np.array_equal(actors[slot.agent].batch(obs), expected)
    assert differs, "without normalization they would act alike"
    network = export.manifest["agents"]["agent_0"].get("network")
    assert network is None if file_format != "safetensors" else (network["obs_limit"], network["layer_norm"]) == (10.0, 1e-5)


def test_other_actors_can_be_exported_with_it(tmp_path):
    config = tiny_config().training(normalize_observations=True)
    algo = config.rl_module(rl_module_spec=RLModuleSpec(module_class=OneOfTwo)).build_algo()
    try:
        algo.train()
        algo.save_to_path(tmp_path / "saved")
    finally:
        algo.stop()
    manifest = export_actors(tmp_path / "saved", "torchscript", tmp_path / "out").manifest
    assert max(manifest["check"]["largest_difference"].values()) < 1e-4


def test_the_settings_are_yes_or_no():
    with pytest.raises(ValueError, match="`normalize_observations`='yes' is not allowed"):
        MADDPGConfig().environment("simple_spread").training(normalize_observations="yes").validate()
