"""The three members in examples/extending: each trains, goes on bit for bit, runs on two Learners, and is exported."""

import ast
import re
import sys

import numpy as np
import pytest
from members import assert_same, learned_by, train_elsewhere, update_both
from paths import EXTENDING
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

sys.path.insert(0, str(EXTENDING))

import context_column
import exploration_noise
import reward_model

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.cli.program import main
from rllib_maddpg.deploy.maddpg_actors import load_actors

pytestmark = pytest.mark.usefixtures("ray_session")
SPREAD = ("agent_0", "agent_1", "agent_2")


def reward_config():
    config = reward_model.RewardModelConfig().environment("simple_spread", env_config={"continuous_actions": True})
    return config.training(model_lr=0.01, model_share=0.5, lr=0.003)


# Config, modules, and the metrics of a module that tell of the member.
MEMBERS = {
    "reward_model": (
        reward_config,
        SPREAD,
        ("model_loss", "model_error", "target_model_error", "model_learning_rate", "model_gradients_norm"),
    ),
    "context_column": (lambda: context_column.make_config(sees_wind=True), context_column.AGENTS, ("td_error_mean",)),
    "exploration_noise": (exploration_noise.make_config, SPREAD, ("critic_loss", "actor_loss")),
}


def small_config(member):
    """Two updates in each iteration after the first, which ends with the episodes."""
    config = MEMBERS[member][0]()
    config.training(train_batch_size_per_learner=32, num_steps_sampled_before_learning_starts=50, num_env_steps_per_update=50)
    config.training(replay_buffer_config={"capacity": 1000}).rl_module(model_config={"fcnet_hiddens": [16, 16]})
    config.env_runners(num_envs_per_env_runner=2, rollout_fragment_length=25)
    return config.reporting(min_sample_timesteps_per_iteration=100).debugging(seed=1)


# The noise is resumed and spread out in its own tests, too.
TRIED = [pytest.param(m, marks=pytest.mark.slow) if m == "exploration_noise" else m for m in MEMBERS]


@pytest.mark.parametrize("member", TRIED)
def test_goes_on_bit_for_bit_in_a_new_process(build, tmp_path, member):
    straight, halfway = build(small_config(member)), build(small_config(member))
    for algo in (straight, halfway):
        for _ in range(2):
            result = algo.train()
    _, modules, metrics = MEMBERS[member]
    for module in modules:
        for name in metrics:
            assert float(result["learners"][module][name]) > 0.0, name
    train_elsewhere(halfway.save_to_path(str(tmp_path / "half")), 2, str(tmp_path / "whole"))
    before = learned_by(straight)
    for _ in range(2):
        straight.train()
    resumed = build(small_config(member))
    resumed.restore_from_path(str(tmp_path / "whole"))
    after = learned_by(straight)
    assert_same(after, learned_by(resumed))
    assert len(after["/rows/obs"]) == 400
    # Every network and target moved in between.
    tensors = [name for name in after if name.startswith("/rl_module/") and name.endswith("weight")]
    networks = 6 if member == "reward_model" else 4
    assert len(tensors) == networks * 3 * len(modules)
    for name in tensors:
        assert not np.array_equal(before[name], after[name]), name


@pytest.mark.parametrize("member", TRIED)
def test_two_learners_are_one(build, member):
    """A run with two of them trains and tells the same metrics; of the same rows they learn what one learns."""
    algo, two = build(small_config(member)), build(small_config(member).learners(num_learners=2))
    _, modules, metrics = MEMBERS[member]
    algo.train()
    result = [two.train() for _ in range(2)][-1]
    assert all(float(result["learners"][module][name]) > 0.0 for module in modules for name in metrics)
    group, before = two.learner_group, learned_by(algo)
    results = update_both(algo, group, updates=20, rows=32)
    loggers = [MetricsLogger(root=True) for _ in results]
    for logger, result in zip(loggers, results, strict=True):
        logger.aggregate(result)
    one = learned_by(algo)
    states = [answer.get() for answer in group.foreach_learner(lambda learner: learner.get_state()["rl_module"])]
    for state in states:
        for module, tensors in state.items():
            for name, values in tensors.items():
                if not isinstance(values, np.ndarray):
                    continue
                expected = one[f"/rl_module/{module}/{name}"]
                np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6, err_msg=f"{module}/{name}")
                assert name.startswith("target") or np.abs(expected - before[f"/rl_module/{module}/{name}"]).max() > 1e-3
    for module in modules:
        for name in metrics:
            assert loggers[1].peek((module, name)) == pytest.approx(loggers[0].peek((module, name)), rel=1e-4), name


@pytest.mark.parametrize("member", MEMBERS)
def test_its_actors_can_be_exported(build, tmp_path, member):
    """Third networks, columns and noise are for training; actors play without them."""
    algo = build(small_config(member))
    algo.train()
    checkpoint = algo.save_to_path(str(tmp_path / "c"))
    main(["export", checkpoint, "--format", "safetensors", "--out", str(tmp_path / "exported")])
    actors = load_actors(tmp_path / "exported")
    agents = MEMBERS[member][1]
    runner = algo.env_runner
    obs = {agent: np.full(runner.layout.obs_dim // len(agents), 0.3, np.float32) for agent in agents}
    actions = actors.act(obs)
    assert sorted(actions) == sorted(agents)
    assert len({tuple(np.ravel(action)) for action in actions.values()}) == len(agents)


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ("reward_model", "it has optimizers ['agent_0_actor', 'agent_0_critic', 'agent_0_model',"),
        ("context_column", "has a column 'wind', which this run has not"),
    ],
)
def test_plain_maddpg_refuses_its_checkpoints(build, tmp_path, member, text):
    algo = build(small_config(member))
    algo.train()
    checkpoint = algo.save_to_path(str(tmp_path))
    plain = build(MADDPGConfig().environment(algo.config.env, env_config=algo.config.env_config))
    before = learned_by(plain)
    with pytest.raises(ValueError, match=re.escape(text)):
        plain.restore_from_path(checkpoint)
    assert_same(before, learned_by(plain))


@pytest.mark.parametrize("member", MEMBERS)
def test_no_private_names(member):
    """An example shows what anyone may use."""
    code = ast.parse((EXTENDING / f"{member}.py").read_text())
    names = []
    for node in ast.walk(code):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            names.append(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names += [*node.module.split("."), *(alias.name for alias in node.names)]
    assert len(names) > 20
    assert [name for name in names if name.startswith("_") and not name.startswith("__")] == []
    assert len((EXTENDING / f"{member}.py").read_text().splitlines()) < 120
