"""The members of the family as whole algorithms: each goes on bit for bit in a new process, with agents that die and shards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from members import assert_same, learned_by, train_elsewhere, update_both
from mortal_env import MODULE_OF, MortalEnv, module_of
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_maddpg import IDDPGConfig, InferredMADDPGConfig, MADDPGTorchLearner, MATD3Config

pytestmark = pytest.mark.usefixtures("ray_session")
MODULES = sorted(set(MODULE_OF.values()))
SHARDS = {"num_shards": 2}


def everything():
    """Inferred policies with all that MATD3 has, of agents with two sub-policies each."""
    config = InferredMADDPGConfig().training(twin_q=True, policy_delay=2, target_policy_noise=0.2, others_actions="current")
    return config.training(replay_buffer_config=SHARDS, num_sub_policies=2)


# Config, and per module how many networks there are.
MEMBERS = {
    "everything": (everything, {"alone": 8 + 4, "many": 8 + 5, "pair": 8 + 5}),
    "matd3": (MATD3Config, dict.fromkeys(MODULES, 6)),
    "iddpg": (lambda: IDDPGConfig().training(replay_buffer_config=SHARDS), dict.fromkeys(MODULES, 4)),
    "inferred": (InferredMADDPGConfig, {"alone": 4 + 4, "many": 4 + 5, "pair": 4 + 5}),
}
TRIED = [pytest.param(m, marks=() if m == "everything" else pytest.mark.slow) for m in MEMBERS]


def config_of(member):
    """Three updates in each iteration after the first: an odd number, so that a delay is cut in two.

    All fragments end with an episode, as a resumed run starts new ones.
    """
    config = MEMBERS[member][0]().environment(MortalEnv).multi_agent(policies=set(MODULES), policy_mapping_fn=module_of)
    config.training(train_batch_size_per_learner=32, num_steps_sampled_before_learning_starts=50, num_env_steps_per_update=20)
    config.training(replay_buffer_config={"capacity": 1000}, lr=0.003).rl_module(model_config={"fcnet_hiddens": [8]})
    config.env_runners(num_envs_per_env_runner=2, rollout_fragment_length=10)
    return config.reporting(min_sample_timesteps_per_iteration=60).debugging(seed=1)


class Reader(MADDPGTorchLearner):
    """Looks at the newest rows beside those that its updates learn from."""

    seen = []

    def _uncompiled_update(self, batch, **kwargs):
        self.seen.append(batch.newest)
        return super()._uncompiled_update(batch, **kwargs)


@pytest.mark.parametrize(("member", "rows"), [("everything", 32), ("inferred", 32), ("matd3", None)])
def test_newest_rows_are_those_that_just_came(build, member, rows):
    """In all updates of a call, and nobody has to carry them who does not need them."""
    Reader.seen.clear()
    algo = build(config_of(member).training(learner_class=Reader, num_env_steps_per_update=10))
    for _ in range(2):
        algo.train()
        if rows is None:
            assert len(Reader.seen) >= 2 and set(Reader.seen) == {None}
            continue
        expected = algo.replay_buffer.latest(rows).columns["obs"]
        assert len(expected) == rows and torch.equal(Reader.seen[-1].columns["obs"], expected)
        assert len({id(newest) for newest in Reader.seen[-2:]}) == 1  # updates of one call


@pytest.mark.parametrize("member", TRIED)
def test_goes_on_bit_for_bit_in_a_new_process(build, tmp_path, member):
    straight, halfway = build(config_of(member)), build(config_of(member))
    for algo in (straight, halfway):
        for _ in range(3):
            result = algo.train()
    for module in MODULES:
        assert {"critic_loss", "actor_loss"} <= set(result["learners"][module])
    updates = straight.learner_group.get_state()["learner"]["num_updates"]
    assert updates % 2 == 1
    checkpoint = halfway.save_to_path(str(tmp_path / "half"))
    halfway.stop()  # its shards' places are needed
    train_elsewhere(checkpoint, 2, str(tmp_path / "whole"), num_cpus=3)
    before = learned_by(straight)
    for _ in range(2):
        straight.train()
    resumed = build(config_of(member))
    resumed.restore_from_path(str(tmp_path / "whole"))
    after = learned_by(straight)
    assert_same(after, learned_by(resumed))
    # Agents died, and every network and target moved in between.
    alive = np.concatenate([values for name, values in after.items() if name.endswith("/alive")])
    assert 0.3 < alive.mean() < 0.95
    for module, networks in MEMBERS[member][1].items():
        biases = [name for name in after if name.startswith(f"/rl_module/{module}/") and name.endswith("bias")]
        assert len({name.split("/")[3].split(".")[0] for name in biases}) == networks, biases
        for name in biases:
            assert not np.array_equal(before[name], after[name]), name


@pytest.mark.parametrize("member", TRIED)
def test_two_learners_are_one(build, member):
    """Of the same drawn and newest rows they learn what one learns."""
    two = config_of(member).learners(num_learners=2, num_cpus_per_learner=0.5)
    algo, two = build(config_of(member)), build(two.training(replay_buffer_config={"num_shards": 0}))
    for each in (algo, two):
        for _ in range(2):
            each.train()
    group, before = two.learner_group, learned_by(algo)
    results = update_both(algo, group, updates=10, rows=32)
    loggers = [MetricsLogger(root=True) for _ in results]
    for logger, result in zip(loggers, results, strict=True):
        logger.aggregate(result)
    one = learned_by(algo)
    for answer in group.foreach_learner(lambda learner: learner.get_state()["rl_module"]):
        for module, tensors in answer.get().items():
            for name, values in tensors.items():
                if isinstance(values, np.ndarray):
                    expected = one[f"/rl_module/{module}/{name}"]
                    np.testing.assert_allclose(values, expected, rtol=0, atol=2e-6, err_msg=f"{module}/{name}")
                    moved = np.abs(expected - before[f"/rl_module/{module}/{name}"]).max(initial=0.0)
                    assert moved > 1e-4 or not values.size, (module, name)
    for module in MODULES:
        for name in ("critic_loss", "actor_loss"):
            assert loggers[1].peek((module, name)) == pytest.approx(loggers[0].peek((module, name)), rel=1e-4), name
