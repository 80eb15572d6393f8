"""The example of losses of the user's own."""

import re
import sys

import pytest
import torch
from learner_games import build, config_of, env_steps, multi_agent_batch
from paths import EXAMPLES
from reference.maddpg import Box, random_game

sys.path.insert(0, str(EXAMPLES))

import custom_loss


def test_the_bounds_and_the_loss_are_those_worked_by_hand():
    """Three modules, which stay computed as one. y is within the bounds; the loss is the mean of log cosh(q - y)."""
    game = random_game(0, n_agents=3, kinds=[Box(2)], obs_dim=2, shared=False, frozen=False, dead=True, waiting=False)
    bounds = {"lowest": -0.1, "highest": 0.2}
    seen = {}

    class Watched(custom_loss.BoundedLearner):
        def critic_loss(self, q, target, rows, settings):
            loss = super().critic_loss(q, target, rows, settings)
            seen.update(q=q.detach(), target=target, alive=rows["alive"], loss=loss.detach())
            return loss

    config = config_of(game, gamma=0.9).training(learner_class=Watched, learner_config_dict=bounds)
    learner = build(config, game)
    learner.update(batch=multi_agent_batch(game, game.batch(64, 0)), timesteps=env_steps(1))
    assert len(learner._groups["critic"]) == 1 and seen["q"].shape == (3, 1, 64)
    assert float(seen["target"].min()) == pytest.approx(-0.1) and float(seen["target"].max()) == pytest.approx(0.2)
    error = (seen["q"] - seen["target"]).double()
    expected = (torch.log(torch.cosh(error)) * seen["alive"]).sum((1, 2)) / seen["alive"].sum((1, 2))
    torch.testing.assert_close(seen["loss"].double(), expected, rtol=1e-5, atol=1e-6)  # float32


def test_the_example_runs(ray_session, capsys):
    custom_loss.main(["--env", "simple_adversary", "--highest", "100", "--iterations", "4"])
    told = re.findall(r"^return (\S+); critic loss: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(told) == 4
    losses = {m: float(x) for m, x in re.findall(r"(\w+) ([\d.]+)", told[-1][1])}
    assert sorted(losses) == ["adversary_0", "agent_0", "agent_1"] and all(x > 0 for x in losses.values())
