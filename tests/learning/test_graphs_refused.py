"""Where updates cannot be CUDA graphs the reason is said, and they are made without. On the CPU, with a stand-in for graphs."""

from __future__ import annotations

import functools
import logging

import pytest
import torch
from fake_graph import FakeGraph
from learner_games import config_of, env_steps, multi_agent_batch, spaces_of, weights_of
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from small_games import small_game
from torch import nn

from rllib_maddpg import MADDPGTorchLearner, MADDPGTorchRLModule
from rllib_maddpg.learning.stages import LossStage, Stage
from rllib_maddpg.learning.update_noise import GeneratorNoise

LOGGER = "rllib_maddpg.learning"


class Graphed(MADDPGTorchLearner):
    graph_class = FakeGraph


class OwnTarget(Graphed):
    def td_target(self, next_q, rows, settings):
        return super().td_target(next_q, rows, settings)


class OwnLoss(Graphed):
    def compute_critic_losses(self, ctx):
        return super().compute_critic_losses(ctx)


class Documented(Graphed):
    """Has the parent's docstring, and so seems to wrap its method."""

    @functools.wraps(MADDPGTorchLearner.td_target)
    def td_target(self, next_q, rows, settings):
        return 0.5 * super().td_target(next_q, rows, settings)


class OwnStep(Graphed):
    def descend(self, role, module_losses, ctx):
        return super().descend(role, module_losses, ctx)


class Waits(Stage):
    def run(self, learner, ctx):
        return None


class OwnStage(Graphed):
    @classmethod
    def stages(cls, config):
        return [*super().stages(config), Waits()]


class LossOfAFunction(Graphed):
    @classmethod
    def stages(cls, config):
        return [LossStage(role="critic", losses=lambda learner, ctx: learner.compute_critic_losses(ctx))]


class Alone(Graphed):
    stacks_modules = False


class OtherOptimizer(Graphed):
    def configure_optimizers_for_module(self, module_id, config=None):
        for name in ("actor", "critic"):
            parameters = list(getattr(self.module[module_id], name).parameters())
            optimizer = torch.optim.SGD(parameters)
            self.register_optimizer(
                module_id=module_id, optimizer_name=name, optimizer=optimizer, params=parameters, lr_or_lr_schedule=0.01
            )


class OwnNetwork(MADDPGTorchRLModule):
    def build_actor(self, in_dim, out_dim):
        return nn.Sequential(nn.Linear(in_dim, 4), nn.Dropout(0.1), nn.Linear(4, out_dim))


class Rule(MADDPGTorchRLModule):
    """Acts by a rule, which is asked on the host in every update."""

    def _forward_inference(self, batch, **kwargs):
        return {"actions": torch.zeros(len(batch["obs"]), dtype=torch.int64)}


def config_for(learner_class, **settings):
    return config_of(small_game()).training(learner_class=learner_class, **settings)


def own_network():
    return config_for(Graphed).rl_module(rl_module_spec=RLModuleSpec(module_class=OwnNetwork))


def a_rule():
    modules = small_game().modules
    specs = {m: RLModuleSpec(module_class=Rule if m == "m2" else MADDPGTorchRLModule) for m in modules}
    config = config_for(Graphed).rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    return config.multi_agent(policies_to_train=modules[:2])


def skips_and_waits():
    return config_for(Graphed, target_network_update_freq=100).framework(torch_skip_nan_gradients=True)


REASONS = {
    "overrides `td_target`": lambda: config_for(OwnTarget),
    "Documented overrides `td_target`": lambda: config_for(Documented),
    "has losses of its own for networks of the role 'critic'": lambda: config_for(OwnLoss),
    "overrides `descend`": lambda: config_for(OwnStep),
    "has a stage of its own, Waits": lambda: config_for(OwnStage),
    "LossOfAFunction has losses of its own": lambda: config_for(LossOfAFunction),
    "network 'actor' of module 'm0' is not one of the MLPs": lambda: config_for(Alone),
    "is no plain Adam": lambda: config_for(OtherOptimizer),
    "network 'actor' of module 'm0' is not one of": own_network,
    "module 'm2' acts by a rule of its own": a_rule,
    "`torch_skip_nan_gradients`": skips_and_waits,
}


def build(config):
    return config.build_learner(spaces=spaces_of(config))


def train(learner, updates=5):
    game = small_game()
    for k in range(updates):
        learner.update(batch=multi_agent_batch(game, game.batch(16, k)), timesteps=env_steps(k))
    return weights_of(learner)


@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_is_said(reason, caplog):
    config = REASONS[reason]()
    with caplog.at_level(logging.WARNING, LOGGER):
        learner = build(config)
        train(learner)
    lines = [record.getMessage() for record in caplog.records if "CUDA graphs" in record.getMessage()]
    assert len(lines) == 1 and reason in lines[0]
    assert learner._graphs is None
    with pytest.raises(ValueError, match="`cuda_graph`=True, but") as error:
        build(REASONS[reason]().training(cuda_graph=True))
    assert reason in str(error.value) and "Set 'auto'" in str(error.value)


@pytest.mark.parametrize(
    ("setting", "learner_class"), [(False, Graphed), ("auto", MADDPGTorchLearner)], ids=["False", "no GPU"]
)
def test_nothing_is_said_where_nobody_expects_graphs(setting, learner_class, caplog):
    with caplog.at_level(logging.WARNING, LOGGER):
        learner = build(config_for(learner_class, cuda_graph=setting))
        train(learner)
    assert learner._graphs is None and not [r for r in caplog.records if "graph" in r.getMessage()]


def test_nothing_forbids_graphs_by_default():
    learner = build(config_for(Graphed, cuda_graph=True))
    eager = build(config_for(MADDPGTorchLearner))
    ours, expected = train(learner), train(eager)
    assert [kind.graph.replays for kind in learner._graphs._kinds.values()] == [3]
    # In a graph critics take no columns out of their inputs, and rates are of single precision.
    assert all(torch.allclose(ours[key], expected[key], 0, 1e-6) for key in expected)


def test_old_noise_goes_on_without_graphs_until_another_state_is_restored(caplog):
    learner = build(config_for(Graphed))
    state = learner.get_state()
    old = {key: value for key, value in state.items() if key != "noise_keys"}
    old["gumbel_rng"] = torch.Generator().manual_seed(3).get_state().numpy()
    train(learner, 3)
    assert learner._graphs is not None
    learner.set_state(old)
    with caplog.at_level(logging.WARNING, LOGGER):
        train(learner, 3)
    assert isinstance(learner._noise, GeneratorNoise) and learner._graphs is None
    assert any("drew its noise on the CPU" in record.getMessage() for record in caplog.records)
    assert "noise_keys" not in learner.get_state() and "gumbel_rng" in learner.get_state()
    learner.set_state(state)
    train(learner, 3)
    assert learner._graphs is not None and "gumbel_rng" not in learner.get_state()


class CannotRecord(FakeGraph):
    def capture(self, work):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


class Unlucky(MADDPGTorchLearner):
    graph_class = CannotRecord


def test_training_goes_on_where_an_update_cannot_be_recorded(caplog):
    learner, graphed = build(config_for(Unlucky)), build(config_for(Graphed))
    with caplog.at_level(logging.WARNING, LOGGER):
        ours = train(learner, 6)
    lines = [record.getMessage() for record in caplog.records if "not permitted" in record.getMessage()]
    assert len(lines) == 1 and "takes longer" in lines[0]
    expected = train(graphed, 6)
    assert all(torch.equal(ours[key], expected[key]) for key in expected)
    with pytest.raises(
        ValueError, match=r"`cuda_graph`=True, but an update cannot be recorded: CUDA error.*Set 'auto' or False"
    ):
        train(build(config_for(Unlucky, cuda_graph=True)), 3)


# ---------------------------------------------------------------------------------------------------------------------
# Said by the config, before anything starts.


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda config: config, "'auto' or False without `num_gpus_per_learner`"),
        (lambda config: config.training(cuda_graph="yes"), "'auto', True or False"),
        (lambda config: config.training(cuda_graph=1), "'auto', True or False"),
    ],
    ids=["no GPU", "a word", "a number"],
)
def test_settings_that_cannot_be(change, reason):
    config = change(config_of(small_game()).training(cuda_graph=True))
    with pytest.raises(ValueError, match="cuda_graph") as error:
        config.validate()
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"num_learners": 2, "num_gpus_per_learner": 1}, "there are several Learners"),
        ({"num_learners": 1, "num_gpus_per_learner": 1, "learner_class": OwnTarget}, "OwnTarget overrides `td_target`"),
    ],
    ids=["several", "own loss"],
)
def test_learners_that_cannot(settings, reason):
    """With remote Learners, which may get a GPU later than there is one here."""
    config = config_of(small_game()).training(cuda_graph=True).learners(**settings)
    with pytest.raises(ValueError, match="cuda_graph") as error:
        config.validate()
    assert reason in str(error.value)
