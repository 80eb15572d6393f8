"""Algorithms whose Learner is on the GPU: whole training runs, checkpoints, remote Learners, and what they leave as it was."""

from __future__ import annotations

import numpy as np
import pytest
import ray
import torch
from learner_games import env_steps, spaces_of, weights_of
from members import assert_same, flat, learned_by
from on_cuda import DEVICE, MEMBERS, ON, config_of_member, game_of, on_device, rows_of
from tiny_algorithm import tiny_config

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.modules.rl_module import actor_state_of

pytestmark = [pytest.mark.cuda, pytest.mark.ray]


def cpu_config(member: str = "MADDPG", rows: str = "cpu", env_runners: int = 0) -> MADDPGConfig:
    config = tiny_config(config=MEMBERS[member][0]()).env_runners(num_env_runners=env_runners)
    return config.training(replay_buffer_config={"device": rows}, num_env_steps_per_update=4)


def config_of(member: str = "MADDPG", graph: bool = False, rows: str = "cpu", env_runners: int = 0) -> MADDPGConfig:
    return on_device(cpu_config(member, rows, env_runners), graph)


@pytest.fixture
def trained(build):
    """Trains an algorithm for some iterations."""

    def train(config, iterations: int = 2):
        algo = build(config)
        for _ in range(iterations):
            result = algo.train()
        assert result["learners"]["__all_modules__"]["num_updates_lifetime"] >= 8 * iterations
        return algo

    return train


@pytest.mark.parametrize(("member", "graph"), [("MADDPG", False), ("MATD3", True), ("InferredMADDPG", True)])
def test_a_run_is_the_same_with_rows_on_either_device(member, graph, trained):
    """To the bit; the updates take place on the GPU in both."""
    algos = [trained(config_of(member, graph, rows)) for rows in ("cpu", ON)]
    assert_same(*map(learned_by, algos))
    for algo in algos:
        learner = algo.learner_group._learner
        assert {value.device.type for value in weights_of(learner).values()} == {ON}
        # Whoever acts has the actors that were learned, on the CPU.
        acting = actor_state_of(algo.env_runner.module, algo.layout)
        for own, learned in zip(acting, learner.actor_state(), strict=True):
            assert own.device.type == "cpu" and torch.equal(own, learned.cpu())


def test_a_run_with_remote_env_runners(trained):
    algo = trained(config_of(graph=True, rows=ON, env_runners=2))
    number, vector = algo.learner_group._learner.get_actor_weights()
    assert isinstance(vector, np.ndarray) and np.isfinite(vector).all() and number > 0


@pytest.mark.parametrize(("rows", "graph"), [("cpu", False), (ON, True)])
def test_a_resumed_run_goes_on_bit_for_bit(rows, graph, trained, build, tmp_path):
    algo = trained(config_of("MATD3", graph, rows))
    algo.save_to_path(str(tmp_path))
    restored = build(config_of("MATD3", graph, rows))
    restored.restore_from_path(str(tmp_path))
    assert_same(learned_by(restored), learned_by(algo))
    for each in (algo, restored):
        each.train()
        each.train()
    assert_same(learned_by(restored), learned_by(algo))


def test_a_checkpoint_of_the_gpu_goes_on_without_one(trained, build, tmp_path):
    """And one of the CPU on the GPU: the same rows, networks and moments."""
    here, there = cpu_config(), config_of(graph=True, rows=ON)
    for k, (source, target) in enumerate(((there, here), (here, there))):
        algo = trained(source.copy(copy_frozen=False))
        algo.save_to_path(str(tmp_path / str(k)))
        restored = build(target.copy(copy_frozen=False))
        restored.restore_from_path(str(tmp_path / str(k)))
        assert_same(learned_by(restored), learned_by(algo))
        restored.train()


@pytest.mark.parametrize("member", ["MATD3", "InferredMADDPG"])
def test_a_remote_learner_is_the_local_one(member, ray_session, request):
    """The same program on the same rows and GPU, to rounding; each with graphs where it can have them."""
    game = game_of(member, "discrete")
    weights = []
    for num_learners in (0, 1):
        config = config_of_member(member, game).training(cuda_graph="auto").learners(num_learners=num_learners)
        config.learners(num_gpus_per_learner=1 if ON == "cuda" else 0).validate()
        group = config.build_learner_group(spaces=spaces_of(config))
        request.addfinalizer(group.shutdown)
        (device,) = (result.get() for result in group.foreach_learner(lambda learner: learner._device.type))
        (schema,) = (result.get() for result in group.foreach_learner(lambda learner: learner.schema))
        assert device == DEVICE.type
        for k in range(8):
            batch = rows_of(game, schema, k)
            given = {"batch_refs": [ray.put(batch)]} if num_learners else {"batch": batch}
            group.update(**given, timesteps=env_steps(60 * k))
        (graphs,) = (result.get() for result in group.foreach_learner(lambda learner: learner._graphs is not None))
        assert graphs == (ON == "cuda")
        weights.append(flat(group.get_state()["learner"]["rl_module"]))
    assert weights[0].keys() == weights[1].keys() and len(weights[0]) > 20
    for name, local in weights[0].items():
        np.testing.assert_allclose(weights[1][name], local, rtol=1e-4, atol=1e-5, err_msg=name)


def test_products_are_exact_unless_somebody_asks_for_less(trained):
    """No algorithm lets the GPU round what goes into its products to TF32, which has 10 bits."""
    trained(config_of(), 1)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    a, b = (torch.rand(256, 256, generator=torch.Generator().manual_seed(k)).to(DEVICE) for k in (0, 1))
    error = ((a @ b).double() - a.double() @ b.double()).norm() / (a.double() @ b.double()).norm()
    assert error < 1e-6  # TF32: 3e-4
