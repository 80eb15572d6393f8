"""Real runs in trouble: a terminal that closes, a pipe that nobody reads, a full disk, a cluster that asks for a token."""

import contextlib
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from paths import ROOT

from rllib_maddpg.algorithm.checkpoint_files import is_whole
from rllib_maddpg.cli.program import main
from rllib_maddpg.ray_compat import since
from rllib_maddpg.results.result_files import read_progress
from rllib_maddpg.results.run_folder import find_checkpoint

pytestmark = pytest.mark.ray
STEPS = "num_env_steps_sampled_lifetime"
TRAIN = [sys.executable, "-m", "rllib_maddpg", "train", "simple_adversary"]
TINY = [
    "--set",
    "num_steps_sampled_before_learning_starts=300",
    "train_batch_size_per_learner=32",
    "min_sample_timesteps_per_iteration=500",
]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def wait_for(happened, process_ended=lambda: False, seconds=240):
    deadline = time.monotonic() + seconds
    while not happened() and not process_ended():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_closed_terminal_saves_and_nobody_else_writes_meanwhile(tmp_path, capsys):
    folder = tmp_path / "run"
    command = [*TRAIN, "--out", str(folder), "--env-steps", "10000000", "--num-env-runners", "1", *TINY]
    pid, terminal = pty.fork()
    if not pid:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run below `nohup`
        os.execve(command[0], command, ENVIRONMENT)
    try:
        shown = b""

        def has_two_results():
            nonlocal shown
            if select.select([terminal], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    shown += os.read(terminal, 4096)
            return (folder / "progress.csv").is_file() and len(read_progress(folder)) >= 2

        wait_for(has_two_results, lambda: os.waitpid(pid, os.WNOHANG)[0])
        for words in (["--resume", str(folder)], ["simple_adversary", "--out", str(folder)]):
            assert main(["train", *words]) == 2
            assert f"{folder} is in use: process {pid} on" in capsys.readouterr().err
    finally:
        os.close(terminal)  # the kernel sends SIGHUP to all that run in it
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 128 + signal.SIGHUP, shown
    steps = [int(float(row[STEPS])) for row in read_progress(folder)]
    assert find_checkpoint(folder)[0].name == f"{steps[-1]:09d}"


def test_a_pipe_that_is_closed_does_not_stop_training(tmp_path):
    command = [*TRAIN, "--out", str(tmp_path / "run"), "--env-steps", "2000", *TINY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout.readline().startswith("Training in ")
        process.stdout.close()  # as `| head -1` does
        err = process.stderr.read()
        assert process.wait(240) == 0, err
    assert "Traceback" not in err and "error" not in err and "Exception ignored" not in err
    assert find_checkpoint(tmp_path / "run")[0].name == "000002000"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_ends_the_run_and_keeps_its_checkpoints(small_disk, capsys):
    folder, ballast = small_disk / "run", small_disk / "ballast"
    command = [*TRAIN, "--out", str(folder), "--env-steps", "10000000", "--checkpoint-every", "1000", *TINY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        wait_for(lambda: (folder / "checkpoints" / "000001000").is_dir(), lambda: process.poll() is not None)
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 1, (out, err)
    assert "error: training failed at " in err and "the disk is full" in err and "Traceback" not in err
    assert err.count("Last checkpoint: ") == 1 and "What came after it could not be saved: " in err
    assert not list((folder / "checkpoints").glob(".*"))
    newest, _ = find_checkpoint(folder)
    assert is_whole(newest) and f"checkpoints/{newest.name}. Go on from it with: rllib-maddpg train --resume " in err

    assert main(["train", "--resume", str(folder)]) == 2
    assert "--resume " in (err := capsys.readouterr().err) and "the disk is full" in err
    ballast.unlink()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.skipif(not since("2.56"), reason="this Ray turns tokens on when it is asked to, and not by itself")
def test_a_cluster_with_a_token_names_the_token():
    script = """
import sys
from rllib_maddpg.runs.ray_start import ray_at
with ray_at(sys.argv[1], None):
    print("in")
"""
    # Names of sockets in it have no room for pytest's folders.
    with tempfile.TemporaryDirectory(prefix="ray_", dir="/tmp") as home, contextlib.ExitStack() as stack:
        homes = {"same": Path(home), "other": Path(home) / "other", "none": Path(home) / "none"}
        for name, token in (("same", "a" * 64), ("other", "b" * 64)):
            (homes[name] / ".ray").mkdir(parents=True)
            (homes[name] / ".ray" / "auth_token").write_text(token)
        homes["none"].mkdir()
        clean = {k: v for k, v in ENVIRONMENT.items() if not k.startswith(("RAY_AUTH", "RAY_ADDRESS"))}
        # Ray tries so many times, a second each.
        clean |= {"RAY_NUM_REDIS_GET_RETRIES": "2"}

        def enter(home_name, mode=None):
            environment = {**clean, "HOME": str(homes[home_name])} | ({"RAY_AUTH_MODE": mode} if mode else {})
            command, pipe = [sys.executable, "-c", script, address], subprocess.PIPE
            return stack.enter_context(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))

        address = f"127.0.0.1:{free_port()}"
        start = ["ray", "start", "--head", "--block", "--include-dashboard=false", "--num-cpus=1", f"--temp-dir={home}/s"]
        start += [f"--port={address.split(':')[1]}", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        start[0] = str(Path(sys.executable).with_name("ray"))
        with subprocess.Popen(start, env={**clean, "HOME": home}, stdout=subprocess.PIPE, text=True) as cluster:
            try:
                next(line for line in cluster.stdout if "Ray runtime started" in line)
                # All at once: each of them waits for seconds.
                entering = [enter("same"), enter("other", "token"), enter("none", "token"), enter("same", "token")]
                (_, without), (_, wrong), (_, none), (right, _) = [process.communicate(timeout=240) for process in entering]
                assert entering[0].returncode == 1
                assert f"--address {address}: no Ray cluster lets this process in" in without
                assert "set RAY_AUTH_MODE=token and have the same token on all machines" in without
                assert "If the cluster has another token than this machine" in wrong
                assert "ValueError" in none and "no authentication token was found" in none
                assert right == "in\n"
            finally:
                cluster.terminate()
                cluster.wait(60)
