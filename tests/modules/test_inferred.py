"""Which approximations of other modules a module has, and what they see."""

import pytest
import torch
from learner_games import build, columns_of, config_of
from reference.maddpg import Box, Discrete, random_game

from rllib_maddpg.modules.inferred import MAX_STD, MIN_STD, inferred_inputs, std_of
from rllib_maddpg.rows.joint_batch import JointBatch


def game_of(kinds, shared=False):
    return random_game(3, n_agents=4, kinds=kinds, obs_dim=2, shared=shared, frozen=False, dead=False, waiting=False)


def inferred(learner, module_id):
    specs = learner.module[module_id].unwrapped().network_specs
    return {spec.name: spec for spec in specs if spec.role == "inferred"}


def test_one_for_each_other_module():
    game = game_of([Discrete(3), Box(2)])
    learner = build(config_of(game, infer_other_policies=True, inferred_lr=0.02))
    specs = inferred(learner, "m1")
    assert {name: (spec.about, spec.has_target) for name, spec in specs.items()} == {
        "inferred_0": ("m0", True),
        "inferred_2": ("m2", True),
        "inferred_3": ("m3", True),
        "inferred_3_std": ("m3", False),
    }
    module = learner.module["m1"].unwrapped()
    assert not any(p.requires_grad for name, p in module.named_parameters() if name.startswith("target_inferred"))
    assert [p.shape[0] for p in module.inferred_3_std.parameters()] == [2, 2]
    assert module.inferred_2(torch.zeros(5, 2)).shape == (5, 3) and module.inferred_3(torch.zeros(5, 2)).shape == (5, 2)
    assert learner.get_optimizer("m1", "inferred_3_std").param_groups[0]["lr"] == 0.02
    # On env runners there is none of them.
    assert {name for name in module.get_non_inference_attributes() if "inferred" in name} == {
        *specs,
        *(f"target_{name}" for name, spec in specs.items() if spec.has_target),
    }


def test_agents_of_one_module_do_not_approximate_each_other():
    game = game_of([Discrete(3)], shared=True)
    (together,) = {m for m in game.modules if sum(owner == m for owner in game.module_of.values()) > 1}
    alone = next(m for m in game.modules if m != together)
    learner = build(config_of(game, infer_other_policies=True))
    assert all(spec.about != together for spec in inferred(learner, together).values())
    # Whoever approximates several agents with one network is told which one is meant.
    sharers = [a for a in game.agents if game.module_of[a] == together]
    name = next(name for name, spec in inferred(learner, alone).items() if spec.about == together)
    assert getattr(learner.module[alone].unwrapped(), name).linears[0].in_features == 2 + len(sharers)
    batch = game.batch(5, 0)
    joint = JointBatch.from_modules(learner.schema, columns_of(game, batch))
    seen = inferred_inputs(joint, together, "obs").unflatten(0, (len(sharers), 5))
    for k, agent in enumerate(sharers):
        assert torch.equal(seen[k, :, :2], batch[agent].obs)
        assert torch.equal(seen[k, :, 2:], torch.eye(len(sharers), dtype=torch.float64)[k].expand(5, -1))


def test_a_critic_that_sees_its_own_agent_needs_none():
    config = config_of(game_of([Discrete(3)]), infer_other_policies=True)
    learner = build(config.multi_agent(algorithm_config_overrides_per_module={"m1": {"critic_view": "own"}}))
    assert inferred(learner, "m1") == {} and len(inferred(learner, "m0")) == 3


def test_standard_deviations_stay_within_their_bounds():
    bounds = std_of(torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float64)).tolist()
    assert bounds == pytest.approx([MIN_STD, (MIN_STD + MAX_STD) / 2, MAX_STD], rel=1e-15)
