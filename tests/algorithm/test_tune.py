"""MADDPG as a Tune trial: what an exploit of population based training keeps and changes, failures, interrupted experiments."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from paths import HELPERS, PYTHONPATH
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from rllib_maddpg import MADDPG, MADDPGConfig
from rllib_maddpg.algorithm.checkpoint_files import is_whole
from rllib_maddpg.cli.program import main
from rllib_maddpg.results.result_files import read_progress
from rllib_maddpg.results.run_folder import find_checkpoint

pytestmark = pytest.mark.usefixtures("ray_session")

STEPS = "num_env_steps_sampled_lifetime"


def small_config(**training):
    """Iterations of 100 env steps with 4 updates each, once 50 env steps are sampled."""
    config = MADDPGConfig().environment("simple_adversary", env_config={"continuous_actions": True}).debugging(seed=0)
    config.rl_module(model_config={"fcnet_hiddens": [16, 16]}).reporting(min_sample_timesteps_per_iteration=100)
    training = {
        "num_steps_sampled_before_learning_starts": 50,
        "train_batch_size_per_learner": 32,
        "num_env_steps_per_update": 25,
        "replay_buffer_config": {"capacity": 2000},
        "lr": 1e-3,
        **training,
    }
    return config.training(**training)


def learned_by(algo):
    """Copies of all that a trial has learned, by name: networks with targets, Adam's moments and steps, replay rows, counts."""
    learner = algo.learner_group._learner
    found = {f"{m}/{k}": v.clone() for m in learner.module.keys() for k, v in networks(learner, m).state_dict().items()}  # noqa: SIM118
    for name, optimizer in learner._named_optimizers.items():
        for n, state in enumerate(optimizer.state.values()):
            found.update({f"{name}/{n}/{k}": torch.as_tensor(v).clone() for k, v in state.items()})
    rows = algo.replay_buffer.get_state()["columns"]
    found.update({f"rows/{name}": torch.from_numpy(column) for name, column in rows.items()})
    found["counts"] = torch.tensor([algo._env_steps, algo._num_updates, learner._last_target_update])
    return found


def networks(learner, module_id):
    return learner.module[module_id].unwrapped()


def rates(algo):
    learner = algo.learner_group._learner
    return {name: float(o.param_groups[0]["lr"]) for name, o in learner._named_optimizers.items()}


def assert_equal_states(one, two):
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


# ------------------------------------------------------------------------------------------ other settings after a restore


def test_a_restored_algorithm_learns_on_from_the_state_of_another_with_its_own_settings(build, tmp_path):
    one = build(small_config(lr=1e-3, tau=0.01, gamma=0.9))
    for _ in range(3):
        one.train()
    checkpoint = one.save_to_path(str(tmp_path / "c"))
    other = build(small_config(actor_lr=5e-3, critic_lr=2e-3, tau=0.2, noise_scale=0.7, num_env_steps_per_update=50))
    other.restore_from_path(checkpoint)
    before = learned_by(one)
    assert before["counts"].tolist() == [300, 11, 300] and len(before["rows/rewards"]) == 300
    assert_equal_states(before, learned_by(other))
    assert {round(v, 9) for k, v in rates(other).items() if k.endswith("actor")} == {5e-3}
    assert {round(v, 9) for k, v in rates(other).items() if k.endswith("critic")} == {2e-3}
    assert other.env_runner.exploration._noise_scale.get_current_value() == 0.7

    # The next update of each, from the same rows.
    own = build(small_config(lr=1e-3, tau=0.01))
    own.restore_from_path(checkpoint)
    for algo in (own, other):
        algo.learner_group.update(batch=algo.replay_buffer.sample(32), timesteps={STEPS: 300})
    mine, theirs = learned_by(own), learned_by(other)
    for module in ("adversary_0", "agent_0", "agent_1"):
        names = [k.removeprefix(f"{module}/") for k in before if k.startswith(f"{module}/critic.")]
        assert len(names) == 6
        for name in names:
            start, key = before[f"{module}/{name}"], f"{module}/{name}"
            # Equal gradients and moments, so that Adam's steps differ by the ratio of the rates.
            assert not torch.equal(mine[key], start)
            torch.testing.assert_close(theirs[key] - start, 2 * (mine[key] - start), rtol=2e-3, atol=2e-7)
        for kind in ("actor", "critic"):
            for name in [k for k in before if k.startswith(f"{module}/target_{kind}.")]:
                source = theirs[name.replace("target_", "")]
                torch.testing.assert_close(theirs[name], 0.2 * source + 0.8 * before[name], rtol=1e-5, atol=1e-7)


def test_schedules_go_on_at_the_present_env_step_and_are_those_of_the_restored_algorithm(build, tmp_path):
    one = build(small_config(lr=[[0, 1e-2], [1000, 0.0]]))
    for _ in range(2):
        one.train()
    assert all(rate == pytest.approx(8e-3) for rate in rates(one).values())
    checkpoint = one.save_to_path(str(tmp_path / "c"))
    other = build(small_config(actor_lr=[[0, 1e-3], [1000, 0.0]], critic_lr=3e-3))
    other.restore_from_path(checkpoint)
    expected = {"actor": 8e-4, "critic": 3e-3}
    assert rates(other) == pytest.approx({name: expected[name.rpartition("_")[2]] for name in rates(other)})
    # The same settings: the very number that the next update would have used.
    same = build(small_config(lr=[[0, 1e-2], [1000, 0.0]]))
    same.restore_from_path(checkpoint)
    assert rates(same) == rates(one)


def test_who_is_trained_is_up_to_the_restored_algorithm(build, tmp_path):
    one = build(small_config())
    for _ in range(2):
        one.train()
    other = build(small_config().multi_agent(policies_to_train=["agent_0"]))
    other.restore_from_path(one.save_to_path(str(tmp_path / "c")))
    other.train()
    before, after = learned_by(one), learned_by(other)
    for module in ("adversary_0", "agent_0", "agent_1"):
        names = [name for name in before if name.startswith(f"{module}/")]
        assert len(names) == 24
        assert all(torch.equal(before[n], after[n]) for n in names) == (module != "agent_0")


def test_an_actor_reset_to_other_settings_is_as_a_new_one(build, tmp_path):
    one = build(small_config(lr=1e-3, tau=0.01))
    for _ in range(2):
        one.train()
    checkpoint = one.save_to_path(str(tmp_path / "c"))
    changed = small_config(lr=4e-3, tau=0.3, train_batch_size_per_learner=16)
    new = build(changed)
    # As Tune does for a trial that gets another's actor (`reuse_actors=True`).
    has_loggers = hasattr(tune.logger, "NoopLogger")  # of trainables, in older Rays
    loggers = {"logger_creator": lambda config: tune.logger.NoopLogger(config, str(tmp_path))} if has_loggers else {}
    assert one.reset(changed.to_dict(), **loggers)
    assert (one.iteration, one.config.tau, len(one.replay_buffer)) == (0, 0.3, 0)
    for algo in (one, new):
        for _ in range(2):
            result = algo.train()
        assert (result["training_iteration"], result[STEPS]) == (2, 200)
    assert_equal_states(learned_by(one), learned_by(new))
    for algo in (one, new):
        algo.restore_from_path(checkpoint)
        algo.train()
    assert_equal_states(learned_by(one), learned_by(new))
    assert set(rates(one).values()) == {4e-3}


# ------------------------------------------------------------------------------------------ population based training


def after_restore(folder):
    """A callback that writes down what each restored trial starts with."""

    def on_checkpoint_loaded(algorithm, **kwargs):
        found = {
            "learned": learned_by(algorithm),
            "rates": rates(algorithm),
            "taus": [c.tau for c in algorithm.learner_group._learner._configs.values()],
        }
        (folder / f"{Path(algorithm.logdir).name}_{algorithm.iteration}.pkl").write_bytes(pickle.dumps(found))

    return on_checkpoint_loaded


@pytest.mark.parametrize("reuse_actors", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_exploit_takes_over_all_that_was_learned_and_goes_on_with_perturbed_settings(tmp_path, reuse_actors):
    restores = tmp_path / "restores"
    restores.mkdir()
    config = small_config(actor_lr=1e-3, critic_lr=tune.grid_search([1e-3, 8e-3]), tau=0.1)
    config.callbacks(on_checkpoint_loaded=after_restore(restores))
    # The trial with the higher critic_lr is the better one by this metric; half of its settings go to the other.
    scheduler = PopulationBasedTraining(
        metric="config/critic_lr",
        mode="max",
        time_attr="training_iteration",
        perturbation_interval=2,
        quantile_fraction=0.5,
        resample_probability=0.0,
        perturbation_factors=(0.5, 0.5),
        hyperparam_mutations={k: tune.uniform(1e-6, 1.0) for k in ("actor_lr", "critic_lr", "tau")},
        synch=True,
    )
    analysis = tune.run(
        "MADDPG",
        config=config.to_dict(),
        scheduler=scheduler,
        reuse_actors=reuse_actors,
        stop={"training_iteration": 3},
        storage_path=str(tmp_path / "results"),
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        verbose=0,
    )
    poor, good = sorted(analysis.trials, key=lambda t: t.config["critic_lr"])
    assert [t.status for t in (poor, good)] == ["TERMINATED"] * 2
    assert [poor.config[k] for k in ("actor_lr", "critic_lr", "tau")] == [5e-4, 4e-3, 0.05]
    found = {t: pickle.loads((restores / f"{Path(t.path).name}_2.pkl").read_bytes()) for t in (poor, good)}
    donor, clone = found[good]["learned"], found[poor]["learned"]
    assert donor["counts"].tolist() == [200, 7, 200] and len(donor["rows/rewards"]) == 200
    assert len([name for name in donor if name.endswith("exp_avg_sq")]) == 3 * 2 * 6
    assert_equal_states(donor, clone)
    assert set(found[poor]["taus"]) == {0.05} and set(found[good]["taus"]) == {0.1}
    assert set(found[poor]["rates"].values()) == {5e-4, 4e-3} and set(found[good]["rates"].values()) == {1e-3, 8e-3}
    # Both went on counting where the donor was.
    for trial, rate in ((poor, 4e-3), (good, 8e-3)):
        result = trial.last_result
        assert (result[STEPS], result["training_iteration"]) == (300, 3)
        assert result["learners"]["__all_modules__"]["num_updates_lifetime"] == 11
        assert float(result["learners"]["agent_0"]["critic_learning_rate"]) == pytest.approx(rate)
        restored = MADDPG.from_checkpoint(trial.checkpoint.path)
        assert len(restored.replay_buffer) == 300 and restored.config.critic_lr == rate
        restored.stop()


# ------------------------------------------------------------------------------------------ failures, and what Tune leaves


@pytest.fixture(scope="module")
def failed_once(ray_session, tmp_path_factory):
    """A trial of 400 env steps whose env raises at step 250; checkpoints every 100."""
    folder = tmp_path_factory.mktemp("tune")
    config = small_config().environment("trouble_env:FailsOnce", env_config={"marker": str(folder / "marker"), "at": 250})
    run_config = tune.RunConfig(
        "experiment",
        str(folder),
        stop={STEPS: 400},
        failure_config=tune.FailureConfig(max_failures=1),
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
        verbose=0,
    )
    (result,) = tune.Tuner("MADDPG", param_space=config, run_config=run_config).fit()
    return result


def test_a_failed_trial_goes_on_from_its_last_checkpoint_and_leaves_one_of_the_failure(failed_once, build):
    assert failed_once.error is None
    assert "the simulator has crashed" in (Path(failed_once.path) / "error.txt").read_text()
    rows = failed_once.metrics_dataframe
    assert rows[STEPS].tolist() == [100, 200, 300, 400] and rows["training_iteration"].tolist() == [1, 2, 3, 4]
    assert rows["iterations_since_restore"].tolist() == [1, 2, 1, 2]
    assert rows["learners/__all_modules__/num_updates_lifetime"].tolist() == [3, 7, 11, 15]
    # What was trained and stored up to the failure is kept with the trial's results.
    before_error = Path(failed_once.path) / "checkpoint_before_error"
    algo = MADDPG.from_checkpoint(str(before_error))
    assert (algo._env_steps, len(algo.replay_buffer), algo._num_updates) == (249, 249, 8)
    algo.stop()


def test_folders_of_tune_are_taken_as_checkpoints(failed_once, capsys, tmp_path):
    trial = Path(failed_once.path)
    names = [f"checkpoint_00000{n}" for n in range(4)]
    assert sorted(p.name for p in trial.glob("checkpoint_0*")) == names
    assert all(is_whole(trial / name) for name in names)
    assert find_checkpoint(trial) == (trial / names[3], None)
    assert find_checkpoint(trial / names[1]) == (trial / names[1], None)
    assert main(["evaluate", str(trial), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == str(trial / names[3])
    assert main(["evaluate", str(trial.parent), "--episodes", "2"]) == 2
    assert f"is an experiment of several trials. Name one of them: {trial.parent}/TRIAL" in (err := capsys.readouterr().err)
    assert trial.name in err
    run = tmp_path / "run"
    assert main(["train", "--resume", str(trial), "--env-steps", "500", "--out", str(run)]) == 0
    assert [int(float(row[STEPS])) for row in read_progress(run)] == [500]
    assert find_checkpoint(run)[0].name == "000000500"


def test_half_copied_checkpoints_are_passed_over(failed_once, tmp_path):
    trial = tmp_path / "trial"
    shutil.copytree(failed_once.path, trial, ignore=shutil.ignore_patterns("checkpoint_000000", "checkpoint_before_error"))
    (trial / "checkpoint_000003" / "learner_group" / "state.pkl").unlink()
    (trial / "checkpoint_000002" / "content_hashes.json").unlink()
    assert find_checkpoint(trial)[0] == trial / "checkpoint_000001"
    (trial / "checkpoint_000001" / "replay_buffer" / "state.pkl").write_bytes(b"half")
    with pytest.raises(ValueError, match="no checkpoint to go on from: all 3 in it are damaged"):
        find_checkpoint(trial)
    with pytest.raises(ValueError, match=r"neither a run folder .* nor a Tune trial's folder .* nor a checkpoint folder"):
        find_checkpoint(trial / "checkpoint_000001" / "replay_buffer")


# ------------------------------------------------------------------------------------------ interrupted experiments


SCRIPT = HELPERS / "tune_experiment.py"


def start(how, folder, *args):
    """The experiment of `tune_experiment.py`, in a process group of its own as a shell would start it."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": PYTHONPATH}
    command = [sys.executable, str(SCRIPT), how, str(folder), *args]
    # No pipe: Ray's processes would keep it open after their driver's end.
    with (folder / "printed.txt").open("a") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)


def trained(folder):
    """Iterations so far: process, lr, env steps, updates."""
    file = folder / "trained.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(pid), float(lr), int(steps), int(updates)) for pid, lr, steps, updates in map(str.split, lines)]


@pytest.mark.parametrize(
    ("how", "number"),
    [
        pytest.param("run", signal.SIGKILL, marks=pytest.mark.slow),
        ("tuner", signal.SIGINT),
        pytest.param("run", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("tuner", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_experiment_goes_on_where_it_was(tmp_path, how, number):
    printed = tmp_path / "printed.txt"
    first, second = start(how, tmp_path), None
    try:
        # The first trial is done, the second one is in the middle, the third has not begun.
        while not any(lr == 0.002 and steps >= 1500 for _, lr, steps, _ in trained(tmp_path)):
            assert first.poll() is None, printed.read_text()
            time.sleep(0.02)
        processes = psutil.Process(first.pid).children(recursive=True)
        agents = [p for p in processes if "Agent" in p.name()]
        if number == signal.SIGINT:
            os.killpg(first.pid, number)  # Ctrl-C
        else:
            first.kill()
        assert first.wait() == (0 if number == signal.SIGINT else -signal.SIGKILL), printed.read_text()
        # Ray and its actors end with the driver that started them; Ray's agents look every now and then whether they are alone.
        workers = [p for p in processes if p not in agents]
        assert len(workers) >= 3 and psutil.wait_procs(workers, timeout=120)[1] == []
        before = trained(tmp_path)
        second = start(how, tmp_path, "resume")
        assert second.wait() == 0, printed.read_text()
        assert psutil.wait_procs(agents, timeout=240)[1] == []
    finally:
        for driver in filter(None, (first, second)):
            driver.kill()
    after = trained(tmp_path)[len(before) :]
    assert {pid for pid, *_ in before}.isdisjoint(pid for pid, *_ in after)

    assert [steps for _, lr, steps, _ in before if lr == 0.001] == list(range(250, 3001, 250))
    reached = max(steps for _, lr, steps, _ in before if lr == 0.002)
    assert all(lr < 0.003 for _, lr, *_ in before) and reached < 3000
    # No finished trial is repeated; the second one goes on from a checkpoint, with as many updates as it had there.
    went_on = [(steps, updates) for _, lr, steps, updates in after if lr == 0.002]
    assert reached - 500 <= went_on[0][0] <= reached + 250
    assert went_on == [(steps, steps // 50) for steps in range(went_on[0][0], 3001, 250)]
    assert [(lr, steps) for _, lr, steps, _ in after if lr != 0.002] == [(0.003, s) for s in range(250, 3001, 250)]
    # One more iteration may have begun when the signal came.
    assert 250 * (len(before) + len(after) + 1) <= 1.15 * 9000

    trials = sorted((tmp_path / "experiment").glob("MADDPG_*"))
    assert len(trials) == 3
    for trial in trials:
        rows = [int(float(row[STEPS])) for row in read_progress(trial)]
        # A row may be written and its checkpoint not; then its iteration is made and written again.
        assert sorted(set(rows)) == list(range(250, 3001, 250)) and len(rows) <= 12 + 2
        assert json.loads((find_checkpoint(trial)[0] / "rllib_checkpoint.json").read_text())["layout"]
