"""The model of rewards from outside the package: its numbers, its settings, and what it leaves alone."""

import re
import sys

import pytest
import torch
from learner_games import build, config_of, env_steps, multi_agent_batch, weights_of
from paths import EXTENDING
from ray import tune
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.schedulers import PopulationBasedTraining
from reference.maddpg import Box, random_game

sys.path.insert(0, str(EXTENDING))

import reward_model
from reward_model import RewardModelConfig, RewardModelLearner, RewardModelMADDPG

from rllib_maddpg import MADDPGTorchRLModule


def game_of(**kinds):
    given = {"n_agents": 3, "kinds": [Box(2)], "obs_dim": 2, "shared": False, "frozen": False, "dead": True, "waiting": False}
    return random_game(0, **{**given, **kinds})


def update(learner, game, numbers, rows=64):
    for k in numbers:
        results = learner.update(batch=multi_agent_batch(game, game.batch(rows, k)), timesteps=env_steps(k))
    return results


def watched(seen):
    class Watched(RewardModelLearner):
        def td_target(self, next_q, rows, settings):
            target = super().td_target(next_q, rows, settings)
            seen.update(target=target, next_q=next_q, rows=rows, settings=settings)
            return target

        def compute_model_losses(self, ctx):
            (group,) = ctx.groups("model")
            seen["said"] = [net.q_values(ctx.inputs(group)).detach().clone() for net in (group.network, group.target)]
            return super().compute_model_losses(ctx)

    return Watched


def test_losses_and_targets_worked_by_hand():
    """Three modules with shares of their own, computed as one."""
    game, seen = game_of(), {}
    config = config_of(game, RewardModelConfig, gamma=0.9, model_share=0.25).training(learner_class=watched(seen))
    config.rl_module(algorithm_config_overrides_per_module={"m1": {"model_share": 1.0}})
    learner = build(config)
    update(learner, game, range(1, 4))
    results = update(learner, game, [4])
    (said, by_target), rows = seen["said"], seen["rows"]
    assert said.shape == (3, 1, 64) and not torch.equal(said, by_target)
    share = torch.tensor([0.25, 1.0, 0.25]).view(3, 1, 1)
    rewards = (1 - share) * rows["rewards"] + share * by_target
    expected = rewards + 0.9 * (1 - rows["terminateds"]) * seen["next_q"]
    torch.testing.assert_close(seen["target"], expected, rtol=1e-6, atol=1e-6)
    alive = rows["alive"]
    assert 0 < float(alive.mean()) < 1
    for m, own, error, target_error in zip(
        game.modules,
        (alive * (said - rows["rewards"]) ** 2).sum((1, 2)) / alive.sum((1, 2)),
        (alive * (said - rows["rewards"]).abs()).sum((1, 2)) / alive.sum((1, 2)),
        (alive * (by_target - rows["rewards"]).abs()).sum((1, 2)) / alive.sum((1, 2)),
        strict=True,
    ):
        assert float(results[m]["model_loss"].peek()) == pytest.approx(float(own), rel=1e-5)
        assert float(results[m]["model_error"].peek()) == pytest.approx(float(error), rel=1e-5)
        assert float(results[m]["target_model_error"].peek()) == pytest.approx(float(target_error), rel=1e-5)


def test_without_a_share_it_only_watches():
    """Actors and critics are those of plain MADDPG, bit for bit; with one they are not."""
    game = game_of()
    plain = build(config_of(game))
    learners = [build(config_of(game, RewardModelConfig, model_share=share)) for share in (0.0, 1.0)]
    for learner in learners:
        for m in game.modules:
            learner.module[m].load_state_dict(plain.module[m].state_dict(), strict=False)
    for learner in (plain, *learners):
        update(learner, game, range(1, 11))
    expected, watches, learns = (weights_of(learner) for learner in (plain, *learners))
    assert all(torch.equal(expected[key], watches[key]) for key in expected)
    assert not torch.equal(expected["m0", "critic"], learns["m0", "critic"])


def test_the_target_moves_by_tau():
    game = game_of()
    learner = build(config_of(game, RewardModelConfig, tau=0.25))
    module = learner.module["m0"].unwrapped()
    before = [p.clone() for p in module.target_model.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(module.model.parameters(), before, strict=True))
    update(learner, game, [1])
    for old, new, target in zip(before, module.model.parameters(), module.target_model.parameters(), strict=True):
        assert not torch.equal(old, new)
        torch.testing.assert_close(target, 0.25 * new + 0.75 * old, rtol=1e-6, atol=1e-7)


def test_a_module_that_shares_its_model_and_one_that_is_frozen():
    game = game_of(shared=True, frozen=True)
    learner = build(config_of(game, RewardModelConfig, model_share=0.5))
    before = {m: [p.clone() for p in learner.module[m].unwrapped().model.parameters()] for m in game.modules}
    results = update(learner, game, range(1, 6))
    assert game.frozen and max(len(learner.layout.slots_of(m)) for m in game.modules) > 1
    for m, old in before.items():
        moved = {not torch.equal(p, q) for p, q in zip(old, learner.module[m].unwrapped().model.parameters(), strict=True)}
        assert moved == {m not in game.frozen}
        assert m in game.frozen or float(results[m]["model_loss"].peek()) > 0


def test_rows_of_its_own_for_each_module():
    """Each critic learns from what its own module's model says of its own rows."""
    game, found, checked = game_of(n_agents=2), {}, []

    class Watched(RewardModelLearner):
        def compute_model_losses(self, ctx):
            for group in ctx.groups("model"):
                found[group.modules] = [group.target.q_values(ctx.inputs(group)), ctx.rows(group)["rewards"]]
            return super().compute_model_losses(ctx)

        def td_target(self, next_q, rows, settings):
            own = next(said for said, rewards in found.values() if torch.equal(rewards, rows["rewards"]))
            torch.testing.assert_close(rows["predicted_rewards"], own, rtol=0, atol=0)
            checked.append(rows.joint)
            return super().td_target(next_q, rows, settings)

    config = config_of(game, RewardModelConfig, minibatch_per_module=True, model_share=1.0).training(learner_class=Watched)
    results = update(build(config), game, [1])
    assert len(checked) == 2 and checked[0] is not checked[1]
    assert all(float(results[m]["model_loss"].peek()) > 0 for m in game.modules)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"model_lr": -1.0}, "`model_lr`=-1.0 is not allowed: it must be a rate >= 0"),
        ({"model_lr": "fast"}, "`model_lr`='fast' is not allowed: it must be a rate >= 0"),
        ({"model_share": 1.5}, "`model_share`=1.5 is not allowed: it must be a number >= 0, at most 1."),
        ({"model_share": float("nan")}, "`model_share`=nan is not allowed"),
    ],
)
def test_its_settings_are_checked_before_anything_starts(settings, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        RewardModelConfig().environment("simple_spread").training(**settings).validate()


def test_a_model_that_runs_away_is_named():
    game = game_of()
    learner = build(config_of(game, RewardModelConfig))
    with torch.no_grad():
        learner.module["m1"].unwrapped().model.linears[-1].bias.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"NaN or infinity in the model loss of module 'm1' .*This update was not made"):
        update(learner, game, [1])


def test_other_modules_lack_the_model():
    config = RewardModelConfig().environment("simple_spread")
    config.validate()
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=MADDPGTorchRLModule))
    with pytest.raises(ValueError, match=r"RewardModelLearner has a stage .* role 'model', but module 'agent_0' has only"):
        config.validate()
    with pytest.raises(ValueError, match=r"`model_shar` is no setting of MADDPG\. Did you mean 'model_share'"):
        RewardModelConfig().training(model_shar=1)


@pytest.mark.usefixtures("ray_session")
def test_population_based_training_reaches_its_settings(tmp_path):
    """Half of the better trial's rate and share go to the other one, which then learns with them."""
    scheduler = PopulationBasedTraining(
        metric="config/model_share",
        mode="max",
        time_attr="training_iteration",
        perturbation_interval=2,
        quantile_fraction=0.5,
        resample_probability=0.0,
        perturbation_factors=(0.5, 0.5),
        hyperparam_mutations={"model_lr": tune.uniform(1e-6, 1.0), "model_share": tune.uniform(0.0, 1.0)},
        synch=True,
    )
    config = {
        "env": "simple_adversary",
        "env_config": {"continuous_actions": True},
        "model_lr": 0.008,
        "model_share": tune.grid_search([0.2, 0.8]),
        "num_steps_sampled_before_learning_starts": 50,
        "train_batch_size_per_learner": 32,
        "num_env_steps_per_update": 25,
        "min_sample_timesteps_per_iteration": 100,
        "seed": 0,
    }
    analysis = tune.run(
        RewardModelMADDPG,
        config=config,
        scheduler=scheduler,
        reuse_actors=True,
        stop={"training_iteration": 3},
        storage_path=str(tmp_path),
        verbose=0,
    )
    poor, good = sorted(analysis.trials, key=lambda trial: trial.config["model_share"])
    assert (poor.config["model_share"], poor.config["model_lr"]) == (0.4, 0.004)
    assert (good.config["model_share"], good.config["model_lr"]) == (0.8, 0.008)
    for trial in (poor, good):
        metrics = trial.last_result["learners"]["agent_0"]
        assert float(metrics["model_learning_rate"]) == pytest.approx(trial.config["model_lr"])
        assert float(metrics["critic_learning_rate"]) == pytest.approx(0.01)


def test_it_runs_as_a_script(ray_session, capsys):
    reward_model.main(["--env-steps", "3000", "--model-share", "0.5"])
    line = r"^ *(\d+) env steps: error of agent_0's model ([\d.]+), of the target ([\d.]+)$"
    told = re.findall(line, capsys.readouterr().out, re.MULTILINE)
    assert [int(steps) for steps, *_ in told] == [1000, 2000, 3000]
    errors = [float(error) for _, _, error in told]
    assert errors[2] < 0.8 * errors[0] and float(told[2][1]) < errors[2]
