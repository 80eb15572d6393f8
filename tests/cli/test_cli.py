"""The command line: real, tiny runs; their files, their checkpoints, how they stop, go on and fail."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from paths import ROOT
from PIL import Image
from tensorboard_events import read_scalars

from rllib_maddpg import __version__
from rllib_maddpg.algorithm.checkpoint_files import is_whole
from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.cli import program
from rllib_maddpg.cli.program import main
from rllib_maddpg.cli.screen import Screen
from rllib_maddpg.config.config_file import read_config
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.text_settings import parse_settings
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.results.result_files import ResultFiles, read_progress
from rllib_maddpg.results.run_folder import METADATA_FILE, RunFolder, find_checkpoint, short_path
from rllib_maddpg.runs.closing_evaluation import ClosingEvaluation
from rllib_maddpg.runs.evaluation import evaluate_algorithm, evaluate_checkpoint
from rllib_maddpg.runs.run import TrainOptions, build_config
from rllib_maddpg.sampling.collecting import RolloutCollector

TINY = [
    "--set",
    "num_steps_sampled_before_learning_starts=300",
    "train_batch_size_per_learner=32",
    "min_sample_timesteps_per_iteration=500",
]
STEPS = "num_env_steps_sampled_lifetime"


@pytest.fixture(scope="module")
def run(ray_session, tmp_path_factory):
    """A finished run of 1,500 env steps with checkpoints at 1,000 and 1,500."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    argv = ["train", "simple_adversary", "--env-steps", "1500", "--seed", "5", "--out", str(folder)]
    assert main([*argv, "--checkpoint-every", "500", *TINY]) == 0
    return folder


def rows_of(folder):
    return [int(float(row[STEPS])) for row in read_progress(folder)]


# ------------------------------------------------------------------------------------------ a run and its files


def test_every_iteration_is_a_row_in_both_result_files(run):
    rows = read_progress(run)
    assert rows_of(run) == [500, 1000, 1500]
    lines = [json.loads(line) for line in (run / "result.json").read_text().splitlines()]
    assert [line[STEPS] for line in lines] == [500, 1000, 1500]
    assert "config" not in lines[-1]  # `params.json` has it, once
    assert json.loads((run / "params.json").read_text())["_train_batch_size_per_learner"] == 32
    agents = ["adversary_0", "agent_0", "agent_1"]
    for row, line in zip(rows, lines, strict=True):
        returns = {agent: float(row[f"env_runners/agent_episode_returns_mean/{agent}"]) for agent in agents}
        assert float(row["env_runners/episode_return_mean"]) == pytest.approx(sum(returns.values()), rel=1e-6)
        assert returns == line["env_runners"]["agent_episode_returns_mean"]
    # The metrics of the learners have their columns whichever row they appear in first.
    assert float(rows[-1]["learners/agent_0/critic_loss"]) == lines[-1]["learners"]["agent_0"]["critic_loss"]
    assert json.loads((run / "params.json").read_text())["tau"] == 0.01


def test_tensorboard_events_lie_on_the_axis_of_env_steps(run):
    (file,) = run.glob("events.out.tfevents.*")
    scalars = read_scalars(file)
    seen = scalars["ray/tune/env_runners/episode_return_mean"]
    for agent in ("adversary_0", "agent_0", "agent_1"):
        for key in (f"env_runners/agent_episode_returns_mean/{agent}", f"learners/{agent}/critic_loss"):
            column = {int(float(r[STEPS])): float(r[key]) for r in read_progress(run) if r[key]}
            assert scalars[f"ray/tune/{key}"] == pytest.approx(column, rel=1e-5)
    expected = {int(float(r[STEPS])): float(r["env_runners/episode_return_mean"]) for r in read_progress(run)}
    assert seen == pytest.approx(expected, rel=1e-5)


def test_the_run_folder_tells_where_it_comes_from(run):
    info = json.loads((run / "run.json").read_text())
    assert (info["env"], info["seed"], info["env_steps"]) == ("simple_adversary", 5, 1500)
    assert info["argv"][:2] == ["train", "simple_adversary"]
    packages = {"ray", "torch", "numpy", "gymnasium", "pettingzoo", "mpe2", "supersuit"}
    assert set(info["versions"]) == {"python", "rllib_maddpg", *packages}
    assert info["versions"]["mpe2"] == version("mpe2")
    # Its config.yaml makes the config that it had.
    text = (run / "config.yaml").read_text()
    assert "\nenv: simple_adversary\n" in text and "\nnum_steps_sampled_before_learning_starts: 300\n" in text
    again, had = read_config(run / "config.yaml"), load_config(find_checkpoint(run)[0])
    again.validate()
    assert again.model_config == had.model_config
    had, again = had.to_dict(), again.to_dict()
    changed = {key for key in again if had[key] != again[key]}
    assert changed <= {"policies", "simple_optimizer", "_model_config"}
    with Image.open(run / "learning_curve.png") as image:
        assert image.format == "PNG" and image.size == (960, 864)


def test_the_newest_checkpoints_stay_and_are_whole(run):
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["000001000", "000001500"]
    assert all(is_whole(p) for p in (run / "checkpoints").iterdir())
    assert find_checkpoint(run)[0] == run / "checkpoints" / "000001500"


# ------------------------------------------------------------------------------------------ evaluate


def test_json_is_all_of_stdout_and_equals_the_python_api(run, capsys, tmp_path):
    gif = tmp_path / "g.gif"
    assert main(["evaluate", str(run), "--episodes", "4", "--seed", "9", "--json", "--gif", str(gif)]) == 0
    data = json.loads(capsys.readouterr().out)
    checkpoint = run / "checkpoints" / "000001500"
    assert (data.pop("checkpoint"), data.pop("seed")) == (str(checkpoint), 9)
    assert data == evaluate_checkpoint(checkpoint, episodes=4, seed=9).to_dict()
    with Image.open(gif) as film:
        # Frames that show nothing new only make the one before last longer.
        milliseconds = 0
        for n in range(film.n_frames):
            film.seek(n)
            milliseconds += film.info["duration"]
        assert milliseconds == 3 * 26 * 100


def test_the_table_names_metrics_and_what_they_mean(run, capsys):
    assert main(["evaluate", str(run / "checkpoints" / "000001000"), "--episodes", "3"]) == 0
    out = capsys.readouterr().out.splitlines()
    expected = evaluate_checkpoint(run / "checkpoints" / "000001000", episodes=3)
    assert out[0].startswith("simple_adversary, checkpoint ")
    assert out[1].split() == ["3", "episodes", "without", "noise", "mean", "95", "%", "interval"]
    assert out[2].startswith("team return") and f" {expected.team.mean:.3f} " in out[2]
    assert f"[{expected.team.low:.3f}, {expected.team.high:.3f}]" in out[2]
    assert [line.split()[0] for line in out[3:6]] == ["adversary_0", "agent_0", "agent_1"]
    assert "env steps" in out[6] and " 25.000 " in out[6]
    assert "the adversary ends within 0.4 of the target" in out[7]


def test_a_window_shows_the_same_games_and_needs_a_display(run, capsys, monkeypatch):
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["evaluate", str(run), "--render"]) == 2
    assert "no display to open a window on: neither DISPLAY nor WAYLAND_DISPLAY is set" in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":987")
    assert main(["evaluate", str(run), "--render"]) == 2
    assert "the one that DISPLAY or WAYLAND_DISPLAY names cannot be opened" in capsys.readouterr().err
    # A window that nobody sees.
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    argv = ["evaluate", str(run), "--episodes", "1", "--seed", "9", "--json", "--env-config", "max_cycles=4"]
    assert main([*argv, "--render"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["episode_length"]["mean"] == 4
    assert main(argv) == 0
    assert shown == json.loads(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main([*argv, "--render", "--gif", "x.gif"])


# ------------------------------------------------------------------------------------------ resume


def test_resume_goes_on_counting_and_loses_no_row(run, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    before = (folder / "progress.csv").read_text().splitlines()
    with (folder / "progress.csv").open("a") as f:
        f.write("5,19")  # as a killed process leaves it
    assert main(["train", "--resume", str(folder), "--env-steps", "2000"]) == 0
    assert "1,500 of 2,000 env steps are made" in capsys.readouterr().out
    assert rows_of(folder) == [500, 1000, 1500, 2000]
    rows = read_progress(folder)
    assert [int(row["training_iteration"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[3]["time_total_s"]) > float(rows[2]["time_total_s"])
    assert float(rows[3]["replay_buffer/num_rows"]) == 2000
    after = (folder / "progress.csv").read_text().splitlines()
    assert after[0].startswith(before[0])  # columns keep their places
    assert len((folder / "result.json").read_text().splitlines()) == 4
    info = json.loads((folder / "run.json").read_text())
    assert (info["env_steps"], info["resumes"][0]["from"]) == (2000, "000001500")


def test_after_a_kill_no_row_is_there_twice(run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    # As if killed after the third result and before its checkpoint.
    shutil.rmtree(folder / "checkpoints" / "000001500")
    before = read_progress(folder)[:2]
    assert main(["train", "--resume", str(folder), "--env-steps", "2000", "--eval-episodes", "0"]) == 0
    rows = read_progress(folder)
    assert rows_of(folder) == [500, 1000, 1500, 2000]
    assert [{key: row[key] for key in before[0]} for row in rows[:2]] == before
    assert float(rows[2]["time_total_s"]) > float(rows[1]["time_total_s"])
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (folder / "result.json").read_text().splitlines()]
    assert [line[STEPS] for line in lines] == [500, 1000, 1500, 2000]


def test_resume_from_an_earlier_checkpoint_makes_a_run_of_its_own(run, tmp_path, capsys):
    earlier = run / "checkpoints" / "000001000"
    assert main(["train", "--resume", str(earlier)]) == 2
    assert "The run has a newer checkpoint than 000001000" in capsys.readouterr().err
    assert main(["train", "--resume", str(earlier), "--out", str(tmp_path / "fork")]) == 0
    assert rows_of(tmp_path / "fork") == [1500]
    # The same seed and state: the fork repeats what the first run did.
    first, fork = read_progress(run)[2], read_progress(tmp_path / "fork")[0]
    for column in ("env_runners/num_episodes_lifetime", "learners/agent_0/critic_loss"):
        assert float(fork[column]) == pytest.approx(float(first[column]), rel=1e-6)


def test_a_damaged_newest_checkpoint_is_passed_over(run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    for name in ("000001500", "000001000"):
        state = next((folder / "checkpoints" / name).rglob("module_state.pkl"))
        state.write_bytes(state.read_bytes()[:-7])
        if name == "000001500":
            assert find_checkpoint(folder)[0].name == "000001000"
    with pytest.raises(ValueError, match="all 2 in it are damaged"):
        find_checkpoint(folder)
    with pytest.raises(ValueError, match=r"module_state\.pkl has \d+ bytes, not the \d+ that were written"):
        find_checkpoint(folder / "checkpoints" / "000001000")
    # A run that goes on from 1,200 must not take these for its newest, nor throw its own away for them.
    RunFolder(folder).create(1200)
    assert [p.name for p in RunFolder(folder).checkpoints()] == ["000001000"]


def test_ctrl_c_leaves_a_checkpoint_that_resume_continues(ray_session, tmp_path, capsys):
    folder = tmp_path / "stopped"
    command = [sys.executable, "-m", "rllib_maddpg", "train", "simple_adversary", "--out", str(folder), *TINY]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 120
    while not (folder / "progress.csv").is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    steps = rows_of(folder)[-1]
    assert f"Stopped at {steps:,} env steps, all saved. Continue with: rllib-maddpg train --resume" in out
    assert "Stopping after this iteration" in err
    assert "Traceback" not in err and "WARNING" not in err
    assert [p.name for p in (folder / "checkpoints").iterdir()] == [f"{steps:09d}"]
    assert (folder / "learning_curve.png").is_file()
    assert main(["train", "--resume", str(folder), "--env-steps", str(steps + 500)]) == 0
    assert rows_of(folder)[-2:] == [steps, steps + 500]


def test_sigterm_stops_and_saves_likewise(ray_session, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Screen, "iterated", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["train", "simple_adversary", "--out", str(tmp_path / "r"), *TINY]) == 128 + signal.SIGTERM
    assert "Stopped at 500 env steps, all saved" in capsys.readouterr().out
    assert find_checkpoint(tmp_path / "r")[0].name == "000000500"


def test_an_error_in_training_saves_what_is_there(ray_session, tmp_path, monkeypatch, capsys):
    def fail(self, minibatches):
        raise ValueError("NaN in the critic loss")

    monkeypatch.setattr(MADDPGTorchLearner, "compute_critic_losses", fail)
    assert main(["train", "simple_adversary", "--out", str(tmp_path / "r"), *TINY]) == 1
    err = capsys.readouterr().err
    error, checkpoint = err.splitlines()
    assert error == "rllib-maddpg: error: training failed at 300 env steps: NaN in the critic loss"
    assert (
        checkpoint.startswith("Last checkpoint: ") and "checkpoints/000000300. Go on from it with: rllib-maddpg" in checkpoint
    )
    assert find_checkpoint(tmp_path / "r")[0].name == "000000300"


def test_an_error_before_the_first_env_step_says_one_thing_about_checkpoints(ray_session, tmp_path, monkeypatch, capsys):
    def fail(self, *args, **kwargs):
        raise RuntimeError("The simulator has no licence.")

    folder = tmp_path / "r"
    with monkeypatch.context() as patch:
        patch.setattr(RolloutCollector, "collect", fail)
        assert main(["train", "simple_adversary", "--out", str(folder), *TINY]) == 1
    err = capsys.readouterr().err
    assert "error: training failed at 0 env steps: The simulator has no licence.\n" in err
    assert err.lower().count("checkpoint: ") == 1 and "no checkpoint" not in err.lower() and "is in the checkpoint" not in err
    saved = folder / "checkpoint_before_error"
    assert f"train --resume {short_path(saved)} --out NEW_FOLDER" in err
    assert is_whole(saved) and not list((folder / "checkpoints").iterdir())
    again = ["train", "--resume", str(saved), "--out", str(tmp_path / "again"), "--env-steps", "500", "--eval-episodes", "0"]
    assert main(again) == 0
    assert rows_of(tmp_path / "again") == [500]


# ------------------------------------------------------------------------------------------ the evaluation at the end


def test_the_closing_evaluation_is_announced_and_can_be_left_out(run, tmp_path, capsys):
    argv = ["train", "--resume", str(run / "checkpoints" / "000001500"), "--env-steps", "2000"]
    assert main([*argv, "--out", str(tmp_path / "a"), "--eval-episodes", "1"]) == 0
    out = capsys.readouterr().out
    # What a busy machine cannot play in a tenth of this short time, it names.
    assert "Playing 1 episodes without noise, for " in out
    assert ("\n1 episodes without noise" in out) != ("No episodes were played at the end: a tenth of" in out)
    assert main([*argv, "--out", str(tmp_path / "b"), "--eval-episodes", "0"]) == 0
    assert "pisodes" not in capsys.readouterr().out
    assert main([*argv, "--out", str(tmp_path / "c"), "--eval-episodes", "-1"]) == 2
    assert "--eval-episodes -1 must be at least 0" in capsys.readouterr().err


def test_ctrl_c_in_the_closing_evaluation_is_no_failure(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Screen, "evaluating", lambda *args: os.kill(os.getpid(), signal.SIGINT))
    argv = ["train", "--resume", str(run / "checkpoints" / "000001500"), "--env-steps", "2000", "--out", str(tmp_path / "r")]
    assert main(argv) == 0
    assert "No episodes were played at the end: stopped. Play some with: rllib-maddpg evaluate" in capsys.readouterr().out
    assert find_checkpoint(tmp_path / "r")[0].name == "000002000"


def test_a_closing_evaluation_that_fails_fails_nothing(run, tmp_path, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no window")

    monkeypatch.setattr("rllib_maddpg.runs.closing_evaluation.evaluate_algorithm", fail)
    argv = ["train", "--resume", str(run / "checkpoints" / "000001500"), "--env-steps", "2000", "--out", str(tmp_path / "r")]
    assert main(argv) == 0
    assert "No episodes were played at the end: RuntimeError: no window." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("env_steps", "text"),
    [
        # The last iteration ends no episode, for which RLlib reports a mean length of NaN.
        (600, "an episode is longer than a tenth of the training (600 env steps)"),
        (200, "no episode has ended in training (200 env steps)"),
    ],
)
def test_long_episodes_do_not_fail_it(ray_session, tmp_path, capsys, env_steps, text):
    words = ["train", "simple_spread", "--env-steps", str(env_steps), "--out", str(tmp_path / "run")]
    iterations = ["--set", "min_sample_timesteps_per_iteration=100", "num_steps_sampled_before_learning_starts=1000"]
    assert main([*words, "--env-config", "max_cycles=250", *iterations]) == 0
    assert f"No episodes were played at the end: {text}." in capsys.readouterr().out
    assert rows_of(tmp_path / "run")[-1] == env_steps
    assert (tmp_path / "run" / "learning_curve.png").exists() == (env_steps > 250)


def test_it_is_a_tenth_of_the_training():
    default, many = ClosingEvaluation(), ClosingEvaluation(5000)
    assert [default.episodes(steps, 25.0) for steps in (200, 2000, 25_000, 10**6)] == [0, 8, 100, 100]
    assert default.episodes(10**7, 1000.0) == 20  # 20,000 env steps
    assert many.episodes(10**6, 25.0) == 4000
    assert default.episodes(10**6, float("inf")) == 0  # no episode has ended


def test_an_evaluation_that_is_cut_short_has_equally_many_episodes_of_each_env(ray_session, build):
    config = MADDPGConfig().environment("simple_spread", env_config={"max_cycles": 10})
    algo = build(config)
    asked = iter(range(25))
    cut = evaluate_algorithm(algo, 40, seed=3, num_envs=4, stopped=lambda: next(asked, None) is None)
    # 25 steps of each env: two episodes of 10, and the step between two episodes that resets.
    assert cut.episodes == 8
    assert cut.to_dict() == evaluate_algorithm(algo, 8, seed=3, num_envs=4).to_dict()
    assert evaluate_algorithm(algo, 40, num_envs=4, stopped=lambda: True) is None
    assert evaluate_algorithm(algo, 40, seconds=0.0) is None


# ------------------------------------------------------------------------------------------ usage and settings


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train"], "Name the environment to train in"),
        (["train", "simple_advesary"], "env='simple_advesary' is not known. Did you mean 'simple_adversary'"),
        (
            ["train", "simple_spread", "--env-config", "M=4"],
            "env_config['M']=4: env='simple_spread' takes no such keyword",
        ),
        (["train", "simple_spread", "--env-config", "{N"], "is no JSON object"),
        (["train", "simple_spread", "--set", "taau=0.1"], "`taau` is no setting of MADDPG. Did you mean 'tau'"),
        (["train", "simple_spread", "--set", "tau=2"], "`tau`=2 is not allowed: it must be in (0, 1]"),
        (["train", "simple_spread", "--set", "tau=big"], "`tau`='big' is not allowed"),
        (["train", "simple_spread", "--set", "tau"], "--set 'tau' is not of the form key=value"),
        (["train", "simple_spread", "--set", "tau.x=1"], "`tau.x` cannot be set: `tau`=0.01 is no dict"),
        (["train", "simple_spread", "--set", "model_config.fcnet_hidens=[4]"], "Did you mean 'fcnet_hiddens'"),
        (["train", "simple_spread", "--env-steps", "0"], "--env-steps 0 must be at least 1"),
        (["train", "simple_spread", "--out", "{full}"], "exists and is not an empty folder"),
        (["train", "--resume", "{full}"], "neither a run folder"),
        (["train", "--resume", "{full}/none"], "is no folder"),
        (["train", "--resume", "{full}", "--set", "tau=1"], "--set cannot be changed by --resume"),
        (["evaluate", "{full}"], "neither a run folder"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(argv, message, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert main([word.replace("{full}", str(tmp_path / "full")) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("rllib-maddpg: error: ") and message in err


def test_errors_about_a_run(run, tmp_path, capsys):
    for argv, message in [
        (["evaluate", str(run), "--episodes", "0"], "`episodes`=0 must be at least 1"),
        (["train", "simple_spread", "--resume", str(run)], "was trained in 'simple_adversary'"),
        (["train", "--resume", str(run)], "has 1,500 env steps already"),
        (["train", "simple_adversary", "--out", str(run)], f"continue the run in it with `--resume {run}`"),
    ]:
        assert main(argv) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    assert main(["train", "--resume", str(tmp_path / "empty")]) == 2
    assert "no checkpoint to go on from: there is none in it" in capsys.readouterr().err


def test_version_and_help_name_examples(capsys):
    for argv, text in [
        (["--version"], f"rllib-maddpg {__version__}"),
        (["train", "-h"], "example: rllib-maddpg train simple_adversary"),
        (["evaluate", "-h"], "and 95 % confidence intervals"),
    ]:
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 0
        assert text in " ".join(capsys.readouterr().out.split())


def test_benchmarks_are_those_of_the_checkout(tmp_path, monkeypatch, capsys):
    """Also where somebody has others of that name; and an installed package says where they are."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise RuntimeError('not these')")
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "rllib_maddpg", "bench", "samplin"]
    for words in (["--version"], command[3:]):
        done = subprocess.run([*command[:3], *words], cwd=tmp_path, env={**os.environ, **path}, capture_output=True, text=True)
        assert "not these" not in done.stderr
    assert "'samplin' is not a part of the benchmarks" in done.stderr
    monkeypatch.setattr(program, "CHECKOUT", tmp_path)
    assert main(["bench", "update"]) == 2
    assert "`bench` needs a checkout" in capsys.readouterr().err


def test_settings_are_json_then_python_then_text():
    items = ["a=1e-3", "b=True", "c=null", "d=gaussian", 'e=[1, "x"]', "f.g=.5", "h=x=y"]
    assert parse_settings(items, "--set") == {
        "a": 0.001,
        "b": True,
        "c": None,
        "d": "gaussian",
        "e": [1, "x"],
        "f.g": 0.5,
        "h": "x=y",
    }
    assert parse_settings(['{"N": 4}'], "--env-config") == {"N": 4}


def test_settings_reach_the_config_and_leave_its_other_items():
    settings = {
        "model_config.fcnet_hiddens": [128, 128],
        "replay_buffer_config.capacity": 200_000,
        "env_config.N": 4,
        "train_batch_size_per_learner": 256,
        "num_envs_per_env_runner": 3,
        "noise_type": "none",
    }
    config = build_config(TrainOptions("simple_spread", seed=7, env_config={"max_cycles": 10}, settings=settings))
    assert config.model_config["fcnet_hiddens"] == [128, 128]
    assert config.model_config["fcnet_activation"] == "relu"
    assert config.replay_buffer_config == {"type": "JointReplayBuffer", "capacity": 200_000, "device": "cpu", "num_shards": 0}
    assert config.env_config == {"max_cycles": 10, "N": 4}
    assert sorted(config.policies) == ["agent_0", "agent_1", "agent_2", "agent_3"]
    assert (config.train_batch_size_per_learner, config.num_envs_per_env_runner) == (256, 3)
    assert (config.noise_type, config.seed) == ("none", 7)


# ------------------------------------------------------------------------------------------ small parts


def test_new_columns_join_the_table_without_losing_a_row(tmp_path):
    files = ResultFiles(tmp_path)
    files.write({"a": 1, "b": {"c": 2.5}, "config": {"x": 1}}, 10)
    files.write({"a": 2, "b": {"d": 7}}, 20)
    files.close()
    again = ResultFiles(tmp_path)
    again.write({"e": 5, "a": 3}, 30)
    again.close()
    with (tmp_path / "progress.csv").open(newline="") as f:
        table = list(csv.reader(f))
    assert table == [["a", "b/c", "b/d", "e"], ["1", "2.5", "", ""], ["2", "", "7", ""], ["3", "", "", "5"]]
    assert [json.loads(line)["a"] for line in (tmp_path / "result.json").read_text().splitlines()] == [1, 2, 3]


def test_a_crash_while_saving_leaves_no_checkpoint_and_the_old_ones(tmp_path):
    class Algo:
        def __init__(self, fails):
            self.fails = fails

        def save_to_path(self, path):
            Path(path).mkdir()
            (Path(path) / METADATA_FILE).write_text("{}")
            if self.fails:
                raise OSError("disk is full")

    folder = RunFolder(tmp_path / "r")
    folder.create(0)
    assert folder.save_checkpoint(Algo(False), 100, keep=2) == folder.newest_checkpoint()
    with pytest.raises(ValueError, match=r"Checkpoint .*000000200 cannot be written: disk is full"):
        folder.save_checkpoint(Algo(True), 200, keep=2)
    assert [p.name for p in (folder.path / "checkpoints").iterdir()] == ["000000100"]
    for env_steps in (300, 400):
        folder.save_checkpoint(Algo(False), env_steps, keep=2)
    assert [p.name for p in folder.checkpoints()] == ["000000300", "000000400"]


def test_progress_is_a_line_each_tenth(capsys):
    screen = Screen()
    screen.started(Path("x"), 0, 1000)
    for env_steps in range(50, 1001, 50):
        screen.iterated(env_steps, 1000, {"env_runners": {"episode_return_mean": 1.25}})
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 10
    assert lines[0].startswith(" 10% 100 / 1,000 env steps   return 1.25") and lines[-1].startswith("100% 1,000")


def test_progress_on_a_terminal_is_one_line_that_fits(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    screen = Screen()
    screen.started(Path("x"), 0, 1000)
    capsys.readouterr()
    for env_steps in (500, 1000):
        screen.iterated(env_steps, 1000, {"env_runners": {"episode_return_mean": -2.5}})
    screen.finish()
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.endswith("\n")
    half, full = out.strip("\r\n").split("\r")
    assert " 50% 500 / 1,000 env steps   return -2.50" in half and "100% 1,000 / 1,000" in full
    assert all(len(line.removesuffix("\x1b[K")) < 80 for line in (half, full))
