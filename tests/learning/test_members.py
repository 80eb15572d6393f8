"""Networks of the user's: what modules declare, and how stages of their own train them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from learner_games import build, config_of, weights_of
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from small_games import small_game, updates
from torch import nn

from rllib_maddpg import MADDPGConfig, MADDPGTorchLearner, MADDPGTorchRLModule
from rllib_maddpg.learning.stages import LossStage
from rllib_maddpg.modules.specs import ACTOR, CRITIC, NetworkSpec
from rllib_maddpg.modules.views import ALL, View


class WithModel(MADDPGTorchRLModule):
    """Predicts the reward of each agent from what its critic sees."""

    def networks(self):
        def build_model():
            return self.build_critic(self.input_dim(ALL))

        return [*super().networks(), NetworkSpec("model", "model", build_model, lr=0.02, has_target=False, view=ALL)]


class ModelLearner(MADDPGTorchLearner):
    @classmethod
    def stages(cls, config):
        return [LossStage(role="model", losses=cls.model_losses), *super().stages(config)]

    def model_losses(self, ctx):
        losses = {}
        for group in ctx.groups("model"):
            rows = ctx.rows(group)
            error = (group.network.q_values(ctx.inputs(group)) - rows["rewards"]).square()
            losses.update(zip(group.modules, (rows["alive"] * error).sum((1, 2)) / rows.count("alive"), strict=True))
        return losses


def model_config(game):
    spec = RLModuleSpec(module_class=WithModel)
    return config_of(game).rl_module(rl_module_spec=spec).training(learner_class=ModelLearner)


def test_a_third_network_learns_beside_the_others():
    """Its target-less network has an optimizer and metrics of its own, and changes nothing for the others."""
    game = small_game()
    learner, plain = build(model_config(game)), build(config_of(game))
    for m in game.modules:
        learner.module[m].load_state_dict(plain.module[m].state_dict(), strict=False)
    first = float(updates(learner, game, [1])["m0"]["model_loss"].peek())
    results = updates(learner, game, [1] * 40)
    updates(plain, game, [1] * 41)
    one, other = weights_of(learner), weights_of(plain)
    assert all(torch.equal(one[key], other[key]) for key in other)
    metrics = results["m0"]
    assert metrics["model_learning_rate"].peek() == pytest.approx(0.02)
    assert float(metrics["model_loss"].peek()) > 0.0 and float(metrics["model_gradients_norm"].peek()) > 0.0
    assert len(learner._groups["model"]) == 1
    assert not hasattr(learner.module["m0"].unwrapped(), "target_model")
    assert float(metrics["model_loss"].peek()) < 0.5 * first


def test_a_third_networks_state_goes_on_bit_for_bit():
    game = small_game()
    learner = build(model_config(game))
    updates(learner, game, range(1, 4))
    state = pickle.loads(pickle.dumps(learner.get_state()))
    updates(learner, game, range(4, 7))
    restored = build(model_config(game).debugging(seed=9))
    restored.set_state(state)
    updates(restored, game, range(4, 7))
    for m in game.modules:
        mine, expected = (each.module[m].state_dict() for each in (restored, learner))
        assert all(torch.equal(mine[name], expected[name]) for name in expected) and any("model" in name for name in expected)


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        (NetworkSpec("critic", CRITIC, nn.Identity), "two networks of the name 'critic'"),
        (NetworkSpec("target_critic", "model", nn.Identity), "two networks of the name 'target_critic'"),
        (NetworkSpec("a b", "model", nn.Identity), "a network is named 'a b'"),
        (NetworkSpec("second", ACTOR, nn.Identity), "has 2 networks of the role 'actor'"),
        (NetworkSpec("seer", "model", nn.Identity, view="all"), "network 'seer' has view='all'"),
        ("critic", "returned 'critic'. Return a list of `NetworkSpec`s"),
        (NetworkSpec("broken", "model", lambda: 1 / 0), r"could not be made \(ZeroDivisionError: division by zero\)"),
        (NetworkSpec("codec", "model", nn.Identity), "named 'codec', which the module has for something else"),
        (NetworkSpec("class", "model", nn.Identity), "a network is named 'class'"),
        (NetworkSpec(3, "model", nn.Identity), "a network is named 3"),
        (NetworkSpec("other", None, nn.Identity), "network 'other' has role=None"),
        (NetworkSpec("other", ["model"], nn.Identity), r"network 'other' has role=\['model'\]"),
        (NetworkSpec("other", "model", nn.Identity, has_target="no"), "network 'other' has has_target='no'"),
        (NetworkSpec("other", "model", "Identity"), "network 'other' has build='Identity'"),
        (NetworkSpec("other", "model", nn.Identity), "network 'other' has no parameters that can be trained"),
        (NetworkSpec("other", "model", lambda: torch.zeros(3)), "`build` of network 'other' made Tensor"),
        (NetworkSpec("critic2", CRITIC, lambda: nn.Linear(2, 1)), "network 'critic2' is a critic and has view=None"),
        (NetworkSpec("critic2", CRITIC, lambda: nn.Linear(2, 1), view=ALL, has_target=False), "is a critic and has view="),
        (NetworkSpec("other", "model", lambda: nn.Linear(2, 1), lr="rewrd_lr"), "network 'other' has lr='rewrd_lr'"),
        (NetworkSpec("other", "model", lambda: nn.Linear(2, 1), lr="gamma"), "network 'other' has lr='gamma'"),
        (NetworkSpec("other", "model", lambda: nn.Linear(2, 1), lr=-1.0), "network 'other' has lr=-1.0"),
        (NetworkSpec("other", "model", lambda: nn.Linear(2, 1), lr=float("nan")), "network 'other' has lr=nan"),
        (NetworkSpec("other", "model", lambda: nn.Linear(2, 1), lr=True), "network 'other' has lr=True"),
        (NetworkSpec("other", "model", lambda: nn.Linear(2, 1), view=View("mine", columns=("c",))), "view 'mine' has a column"),
    ],
)
def test_networks_are_checked_before_anything_starts(extra, text):
    class Mine(MADDPGTorchRLModule):
        def networks(self):
            return [*super().networks(), extra]

    config = MADDPGConfig().environment("simple_spread").rl_module(rl_module_spec=RLModuleSpec(module_class=Mine))
    with pytest.raises(ValueError, match=f"odule 'agent_0' of class Mine.*{text}"):
        config.validate()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "own"}, "View 'own' has agents='all'"),
        ({"name": "all", "columns": ("c",)}, "View 'all' has agents='all', columns="),
        ({"name": None}, "A View has name=None"),
        ({"name": "x", "columns": "c"}, "View 'x' has columns='c'"),
        ({"name": "x", "columns": None}, "View 'x' has columns=None"),
        ({"name": "x", "columns": (3,)}, r"View 'x' has columns=\(3,\)"),
    ],
)
def test_views_are_checked_when_they_are_made(arguments, text):
    with pytest.raises(ValueError, match=text):
        View(**arguments)


def test_columns_of_a_view_may_be_a_list():
    assert hash(View("x", columns=["c"])) == hash(View("x", columns=("c",)))


def test_a_view_is_of_all_agents_or_its_own():
    with pytest.raises(ValueError, match=r"View 'x' has agents='mine'. It must be one of \['all', 'own'\]"):
        View("x", agents="mine")


# ---------------------------------------------------------------------------------------------------------------------
# Losses of its stage.


def test_losses_must_depend_on_the_networks_that_learn():
    """A module's own parameters are views of the stack's: a gradient that goes there would be lost."""

    class Mine(ModelLearner):
        def model_losses(self, ctx):
            return {m: self.module[m].unwrapped().model.layers[0].weight.square().sum() for m in ctx.trained}

    class Alone(Mine):
        stacks_modules = False

    game = small_game()
    learner = build(model_config(game).training(learner_class=Mine), game)
    before = weights_of(learner)
    with pytest.raises(ValueError, match=r"The model loss does not depend on network 'model' of modules \['m0', 'm1', 'm2'\]"):
        updates(learner, game, [1])
    assert all(torch.equal(before[key], value) for key, value in weights_of(learner).items())
    learner = build(model_config(game).training(learner_class=Alone), game)
    weight = learner.module["m0"].unwrapped().model.layers[0].weight
    before = weight.detach().clone()
    updates(learner, game, [1])
    # Adam's first step, against the sign of the gradient, which is that of the weight.
    torch.testing.assert_close(weight.detach(), before - 0.02 * before.sign(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        (lambda losses: {}, r"The model stage has losses for \[\]. Return a dict with one for each of .*\['m0', 'm1', 'm2'\]"),
        (lambda losses: None, "The model stage has losses for what is of type NoneType"),
        (lambda losses: {m: loss for m, loss in losses.items() if m != "m1"}, r"has losses for \['m0', 'm2'\]"),
        (lambda losses: losses | {"m7": losses["m0"]}, "has losses for .*'m7'"),
        (lambda losses: losses | {"m1": losses["m1"].repeat(2)}, r"The model loss of module 'm1' has shape \[2\]"),
        (lambda losses: losses | {"m1": 3.0}, "The model loss of module 'm1' has type float"),
    ],
)
def test_losses_of_a_stage_are_checked_before_anything_changes(losses, text):
    class Mine(ModelLearner):
        def model_losses(self, ctx):
            return losses(super().model_losses(ctx))

    game = small_game()
    learner = build(model_config(game).training(learner_class=Mine), game)
    before = weights_of(learner)
    with pytest.raises(ValueError, match=text):
        updates(learner, game, [1])
    assert all(torch.equal(before[key], value) for key, value in weights_of(learner).items())


def test_a_network_that_only_some_modules_have_learns_there():
    class Some(WithModel):
        def networks(self):
            return super().networks() if self.module_id == "m1" else MADDPGTorchRLModule.networks(self)

    class Mine(ModelLearner):
        def model_losses(self, ctx):
            assert [group.modules for group in ctx.groups("model")] == [("m1",)]
            return super().model_losses(ctx)

    game = small_game()
    config = config_of(game).rl_module(rl_module_spec=RLModuleSpec(module_class=Some)).training(learner_class=Mine)
    results = updates(build(config), game, [1, 2])
    assert {m: "model_loss" in results[m] for m in game.modules} == {"m0": False, "m1": True, "m2": False}


# ---------------------------------------------------------------------------------------------------------------------
# Several critics.


class TwinModule(MADDPGTorchRLModule):
    def networks(self):
        actor, critic = super().networks()
        return [actor, critic, replace(critic, name="critic2")]


def test_two_critics_learn_each_by_its_own_target_and_the_first_judges():
    """In the stock stages each critic does what it would do as the only one."""
    game = small_game(hyper={"grad_clip": 0.1})
    twin = build(config_of(game).rl_module(rl_module_spec=RLModuleSpec(module_class=TwinModule)), game)
    first, second = build(config_of(game), game), build(config_of(game))

    def give(ours, theirs):
        """The second Learner gets a network of the twins'."""
        for m in game.modules:
            module, own = twin.module[m].unwrapped(), second.module[m].unwrapped()
            for target in ("", "target_"):
                getattr(own, target + theirs).load_state_dict(getattr(module, target + ours).state_dict())

    give("critic2", "critic")
    for k in range(1, 4):
        give("actor", "actor")  # its critics see what the first ones' actors do
        results = [updates(learner, game, [k]) for learner in (twin, first, second)]
        for m in game.modules:
            ours, one, other = (
                {name: float(result[m][name].peek()) for name in ("critic_loss", "actor_loss", "qf_mean")} for result in results
            )
            assert ours["critic_loss"] == pytest.approx(one["critic_loss"] + other["critic_loss"], rel=1e-5)
            assert ours["actor_loss"] == pytest.approx(one["actor_loss"], rel=1e-5)
            assert ours["qf_mean"] == pytest.approx(one["qf_mean"], rel=1e-5)
            for target in ("", "target_"):
                mine = getattr(twin.module[m].unwrapped(), f"{target}critic2").state_dict()
                for name, value in getattr(second.module[m].unwrapped(), f"{target}critic").state_dict().items():
                    torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-7)
    one, other = weights_of(twin), weights_of(first)
    assert all(torch.equal(one[key], other[key]) for key in other)
