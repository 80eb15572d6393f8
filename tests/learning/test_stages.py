"""An update as a list of stages: their order and rhythm, losses of the user's, and work that is done once."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest
import torch
from learner_games import SpacesEnv, build, config_of, env_steps, multi_agent_batch, weights_of
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from reference.maddpg import Box, random_game
from small_games import small_game, updates
from torch import nn

from rllib_maddpg import MADDPGConfig, MADDPGTorchLearner, MADDPGTorchRLModule
from rllib_maddpg.learning.stages import LossStage, Stage, TargetStage
from rllib_maddpg.modules.specs import ACTOR, CRITIC


def changed(before, after, net):
    return {not torch.equal(before[key], after[key]) for key in before if key[1] == net}


# ---------------------------------------------------------------------------------------------------------------------
# Order and rhythm.


class DelayedLearner(MADDPGTorchLearner):
    """Actors and targets in every second update, as in TD3."""

    @classmethod
    def stages(cls, config):
        return [
            LossStage(role=CRITIC, losses=cls.compute_critic_losses),
            LossStage(role=ACTOR, losses=cls.compute_actor_losses, every=2),
            TargetStage(every=2),
        ]


def test_a_stage_says_how_often_it_runs_also_after_a_restart():
    game = small_game()
    config = config_of(game).training(learner_class=DelayedLearner)
    learner = build(config, game)
    for k in range(1, 6):
        before = weights_of(learner)
        results = updates(learner, game, [k])
        after = weights_of(learner)
        assert changed(before, after, "critic") == {True}
        for net in ("actor", "target_actor", "target_critic"):
            assert changed(before, after, net) == {k % 2 == 0}, (k, net)
        # The metrics of a stage that does not run in each update stay.
        assert ("actor_loss" in results["m0"]) == (k >= 2)
        assert "critic_loss" in results["m0"]
        if k == 3:
            state = pickle.loads(pickle.dumps(learner.get_state()))
    restored = build(config.copy(copy_frozen=False))
    restored.set_state(state)
    updates(restored, game, [4, 5])
    one, other = weights_of(learner), weights_of(restored)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_metrics_of_an_actor_stage_are_those_of_its_last_run():
    game = small_game()
    learners = [build(config_of(game).training(learner_class=cls), game) for cls in (DelayedLearner, None)]
    results = [updates(learner, game, [1]) for learner in learners]
    assert float(results[0]["m1"]["total_loss"].peek()) == float(results[0]["m1"]["critic_loss"].peek())
    total = results[1]["m1"]["critic_loss"].peek() + results[1]["m1"]["actor_loss"].peek()
    assert float(results[1]["m1"]["total_loss"].peek()) == pytest.approx(float(total), rel=1e-6)


@pytest.mark.parametrize(
    ("stages", "text"),
    [
        (lambda cls: [], None),
        (lambda cls: [LossStage(role="crytic", losses=cls.compute_critic_losses)], "networks of the role 'crytic', but module"),
        (lambda cls: [LossStage(role=CRITIC)], "losses=None. Give a method of the Learner"),
        (lambda cls: [TargetStage(every=0)], "every=0. Give a whole number of updates > 0"),
        (lambda cls: ["critic"], r"returned \['critic'\]. Return a list of `LossStage`s"),
        (lambda cls: None, "returned None. Return a list of `LossStage`s"),
        (lambda cls: [LossStage(role=["critic"], losses=cls.compute_critic_losses)], r"has role=\['critic'\]. Give a word"),
        (lambda cls: 1 / 0, r"failed \(ZeroDivisionError: division by zero\)"),
    ],
)
def test_stages_are_checked_before_anything_starts(stages, text):
    class Mine(MADDPGTorchLearner):
        @classmethod
        def stages(cls, config):
            return stages(cls)

    config = MADDPGConfig().environment("simple_spread").training(learner_class=Mine)
    if text is None:
        config.validate()
        return
    with pytest.raises(ValueError, match=rf"^(`stages\(\)`|`learner_class`: `stages`) of Mine.*{text}"):
        config.validate()


def test_stages_are_a_class_method():
    class Mine(MADDPGTorchLearner):
        def stages(self, config):
            return []

    with pytest.raises(ValueError, match=r"`stages` of Mine failed \(TypeError: .*@classmethod def stages\(cls, config\)"):
        MADDPGConfig().environment("simple_spread").training(learner_class=Mine).validate()


def test_a_stage_that_returns_nothing_does_not_end_the_update():
    @dataclass(frozen=True)
    class Watch(Stage):
        def run(self, learner, ctx):
            learner.seen = list(ctx.stepped)

    class Mine(MADDPGTorchLearner):
        @classmethod
        def stages(cls, config):
            critics, *others = super().stages(config)
            return [critics, Watch(), *others]

    game = small_game()
    learner = build(config_of(game).training(learner_class=Mine), game)
    before = weights_of(learner)
    updates(learner, game, [1])
    assert learner.seen == ["critic"]
    assert changed(before, weights_of(learner), "actor") == changed(before, weights_of(learner), "target_actor") == {True}


# ---------------------------------------------------------------------------------------------------------------------
# Losses of the user's.


class MonteCarloLearner(MADDPGTorchLearner):
    """Learns rewards alone: gamma is 0, whatever the setting."""

    def td_target(self, next_q, rows, settings):
        return rows["rewards"]


class WeightedLearner(MADDPGTorchLearner):
    """Twice the critic's loss, and an actor that is not pulled to zero."""

    def critic_loss(self, q, target, rows, settings):
        return 2.0 * super().critic_loss(q, target, rows, settings)

    def actor_loss(self, q, output, rows, settings):
        return -(rows["acts"] * q).sum((-2, -1)) / rows.count("acts")


def test_a_target_of_the_users_is_used_and_modules_stay_stacked():
    game = small_game()
    mine = build(config_of(game, gamma=0.9).training(learner_class=MonteCarloLearner), game)
    known = build(config_of(game, gamma=0.0), game)
    for learner in (mine, known):
        updates(learner, game, range(1, 4))
    one, other = weights_of(mine), weights_of(known)
    # 0 * Q' is exactly 0.
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert len(mine._groups["critic"]) == len(mine._groups["actor"]) == 1


def test_losses_of_the_users_are_used_and_modules_stay_stacked():
    game = small_game(hyper={"grad_clip": None})
    mine = build(config_of(game).training(learner_class=WeightedLearner), game)
    known = build(config_of(game, actor_output_reg=0.0), game)
    first, second = (updates(learner, game, [1]) for learner in (mine, known))
    for m in game.modules:
        assert float(first[m]["critic_loss"].peek()) == pytest.approx(2.0 * float(second[m]["critic_loss"].peek()), rel=1e-6)
        # Adam divides the factor out, to its epsilon, so that the actors are judged by almost the same critics.
        assert float(first[m]["actor_loss"].peek()) == pytest.approx(float(second[m]["actor_loss"].peek()), rel=1e-3, abs=1e-4)
    assert len(mine._groups["critic"]) == len(mine._groups["actor"]) == 1


def test_an_override_that_needs_each_modules_own_networks_says_so(caplog):
    class Mine(MADDPGTorchLearner):
        def compute_critic_losses(self, ctx):
            return {m: self.module[m].unwrapped().critic.layers[0].weight.square().sum() for m in ctx.trained}

    game = small_game()
    with caplog.at_level(logging.INFO, logger="rllib_maddpg"):
        learner = build(config_of(game).training(learner_class=Mine), game)
        before = weights_of(learner)
        updates(learner, game, [1, 2])
    assert changed(before, weights_of(learner), "critic") == {True}
    assert len(learner._groups["critic"]) == 3
    told = [r.getMessage() for r in caplog.records if "not computed together" in r.getMessage()]
    assert told == ["Modules are not computed together, which takes longer: Mine overrides `compute_critic_losses`."]


@pytest.mark.parametrize(
    ("hook", "value", "text"),
    [
        ("td_target", lambda q: q[..., :1], r"`td_target` returned what has shape \[3, 1, 1\]. It must be .* \[3, 1, 16\]"),
        ("critic_loss", lambda q: q.mean(), r"`critic_loss` returned what has shape \[\]. It must be a tensor of shape \[3\]"),
        ("critic_loss", lambda q: None, r"`critic_loss` returned what has type NoneType"),
        ("actor_loss", lambda q: q.mean((1, 2))[:1], r"`actor_loss` returned what has shape \[1\]"),
    ],
)
def test_what_hooks_return_is_checked(hook, value, text):
    Mine = type("Mine", (MADDPGTorchLearner,), {hook: lambda self, first, *others: value(first)})
    game = small_game()
    with pytest.raises(ValueError, match=text):
        updates(build(config_of(game).training(learner_class=Mine), game), game, [1])


# ---------------------------------------------------------------------------------------------------------------------
# Work that is done once.


class Counted(nn.Linear):
    """A network that cannot be stacked, and counts its calls."""

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x)


class CountedModule(MADDPGTorchRLModule):
    def build_actor(self, obs_dim, output_dim):
        return Counted(obs_dim, output_dim)

    def build_critic(self, input_dim):
        return Counted(input_dim, 1)


@pytest.mark.parametrize("others_actions", ["replay", "current"])
def test_each_network_runs_as_often_as_it_must(others_actions):
    """An actor once for all critics that ask what it does now, its target once for all targets; a critic for two losses."""
    boxes = dict.fromkeys("abcde", gym.spaces.Box(-1.0, 1.0, (2,), np.float32))
    config = (
        MADDPGConfig()
        .environment(SpacesEnv, env_config={"obs_spaces": boxes, "action_spaces": boxes})
        .rl_module(rl_module_spec=RLModuleSpec(module_class=CountedModule))
        .training(others_actions=others_actions)
    )
    learner = build(config)
    assert isinstance(next(iter(learner.module.values())).unwrapped().actor, Counted)
    columns = learner.layout.obs_dim, learner.layout.action_dim
    assert columns == (10, 10)
    game = random_game(0, n_agents=5, kinds=[Box(2)], obs_dim=2, shared=False, frozen=False, dead=False, waiting=False)
    batch = multi_agent_batch(game, game.batch(16, 0))
    batch.policy_batches = dict(zip("abcde", batch.policy_batches.values(), strict=True))
    learner.update(batch=batch, timesteps=env_steps(1))
    calls = Counter()
    for module in learner.module.values():
        for net in ("actor", "target_actor", "critic", "target_critic"):
            calls[net, getattr(module.unwrapped(), net).calls] += 1
    assert calls == {("actor", 1): 5, ("target_actor", 1): 5, ("critic", 2): 5, ("target_critic", 1): 5}
