"""examples/extending/own_critic.py: its values by hand, who hears whom, and that it trains."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from paths import EXTENDING

sys.path.insert(0, str(EXTENDING))

import own_critic
from own_critic import GraphCritic, make_config

from rllib_maddpg.rows.layout import JointLayout

AGENTS = ["a", "b", "c"]
LAYOUT = JointLayout(
    dict.fromkeys(AGENTS, gym.spaces.Box(-9, 9, (4,))), dict.fromkeys(AGENTS, gym.spaces.Box(-1, 1, (1,))), lambda agent: agent
)


def critic_of(agent, rounds=1):
    """All weights 1 and all biases 0."""
    critic = GraphCritic(LAYOUT, agent, width=1, rounds=rounds, radius=1.0)
    for name, parameter in critic.named_parameters():
        torch.nn.init.constant_(parameter, float("weight" in name))
    return critic


def row(places, present=(1, 1, 1), actions=(0.5, 0.25, 0.125)):
    """Observations are zeros but for the places on a line."""
    obs = [x for place in places for x in (0.0, 0.0, place, 0.0)]
    return torch.tensor([[*obs, *map(float, present), *actions]])


@pytest.mark.parametrize(
    ("places", "present", "expected"),
    [
        # Nodes begin with place + action: 0.5, 0.75, 5.125; b is near a.
        ((0.0, 0.5, 5.0), (1, 1, 1), 0.5 + 0.75),
        ((0.0, 0.5, 5.0), (1, 0, 1), 0.5),
        # 0.5, 0.75, 1.025: both are near a, which hears their mean.
        ((0.0, 0.5, 0.9), (1, 1, 1), 0.5 + (0.75 + 1.025) / 2),
    ],
)
def test_values_by_hand(places, present, expected):
    assert float(critic_of("a")(row(places, present))) == pytest.approx(expected, rel=1e-6)


def test_two_rounds_go_two_steps():
    """a hears b, and b has heard c: 0.5, 1.05, 1.725 -> 1.55, 1.05 + (0.5 + 1.725) / 2 = 2.1625, ... -> 3.7125."""
    critic = critic_of("a", rounds=2)
    assert float(critic(row((0.0, 0.8, 1.6)))) == pytest.approx(1.55 + 2.1625, rel=1e-6)


@pytest.mark.usefixtures("ray_session")
def test_it_trains_and_its_actors_act(build):
    config = make_config().training(num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=32)
    algo = build(config.reporting(min_sample_timesteps_per_iteration=200))
    learner = algo.learner_group._learner
    before = learner.module["agent_1"].unwrapped().critic.first.weight.detach().clone()
    metrics = algo.train()["learners"]
    critic = learner.module["agent_1"].unwrapped().critic
    assert critic.judged == 1 and not torch.equal(critic.first.weight, before)
    assert all(np.isfinite(metrics[f"agent_{k}"]["critic_loss"]) for k in range(3))


@pytest.mark.slow
def test_the_program(capsys):
    own_critic.main(["--env-steps", "2000"])
    assert capsys.readouterr().out.startswith("1 rounds: TD error ")
