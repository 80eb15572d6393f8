"""Where results go: refused places, locks, result files of resumed runs, streams that nobody reads."""

import errno
import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard_events import read_events, read_scalars

from rllib_maddpg.cli.console import GuardedStream, guarded_output
from rllib_maddpg.cli.program import main
from rllib_maddpg.results import folder_lock
from rllib_maddpg.results.event_file import EventFile
from rllib_maddpg.results.folder_lock import locked
from rllib_maddpg.results.output_paths import check_file, make_folder, why_not_written
from rllib_maddpg.results.result_files import ResultFiles, read_progress, to_json
from rllib_maddpg.results.run_folder import RunFolder
from rllib_maddpg.runs.stop_signals import StoppedAtOnce, StopSignals

STEPS = "num_env_steps_sampled_lifetime"
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


# ------------------------------------------------------------------------------------------ refused places

REFUSED = [
    ("{here}/file", "is a file"),
    ("{here}/file/in/it", "cannot be written to"),
    ("s3://bucket/results", "is a URI, but this command writes to a folder of this machine"),
    ("file:///tmp/x", "is a URI"),
    ("", "is no path"),
    ("{here}/" + "x" * 300, "File name too long"),
    ("/proc/no/such", "cannot be written to"),
]


@pytest.mark.parametrize(("out", "message"), REFUSED)
def test_folders_that_cannot_be_are_refused(out, message, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^--out .*") as error:
        make_folder("--out", out.replace("{here}", str(tmp_path)))
    assert message in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("file", "message"), [("{here}", "is a folder"), *REFUSED[1:]])
def test_files_that_cannot_be_are_refused(file, message, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^--gif ") as error:
        check_file("--gif", file.replace("{here}", str(tmp_path)))
    assert message in str(error.value)


def test_a_folder_that_can_be_is_made_and_left_empty(tmp_path):
    assert make_folder("--out", tmp_path / "a" / "b") == tmp_path / "a" / "b"
    check_file("--gif", tmp_path / "c" / "film.gif")
    assert list((tmp_path / "a" / "b").iterdir()) == list((tmp_path / "c").iterdir()) == []
    (tmp_path / "old.gif").write_bytes(b"old")
    check_file("--gif", tmp_path / "old.gif")
    assert (tmp_path / "old.gif").read_bytes() == b"old"


@pytest.mark.parametrize("out", ["{here}/file", "{here}/file/in/it", "s3://bucket/results"])
@pytest.mark.parametrize("words", [["train", "simple_spread"], ["sweep", "{sweep}"]])
def test_commands_refuse_them_before_anything_starts(words, out, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: pytest.fail("Ray was started"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "sweep.yaml").write_text("env: simple_spread\nsearch_space: {tau: {grid: [0.1]}}\nstop: {env_steps: 1000}\n")
    words = [word.replace("{sweep}", str(tmp_path / "sweep.yaml")) for word in words]
    assert main([*words, "--out", out.replace("{here}", str(tmp_path))]) == 2
    err = capsys.readouterr().err
    assert err.startswith("rllib-maddpg: error: --out ") and err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "sweep.yaml"]


@pytest.mark.parametrize("flag", ["save", "csv", "markdown", "plots"])
def test_a_benchmark_knows_before_it_measures(flag, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["bench", "sampling", f"--{flag}", str(tmp_path / "file" / "x")]) == 2
    assert f"--{flag} {tmp_path}/file/x cannot be written to: " in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ locks


def test_a_second_process_is_refused_and_a_killed_one_has_no_lock(tmp_path):
    # Another process, which knows nothing but this file.
    script = f"""
import runpy, sys
from pathlib import Path
with runpy.run_path({folder_lock.__file__!r})["locked"](Path({str(tmp_path)!r})):
    print("locked", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=f"is in use: process {other.pid} on .* writes there"), locked(tmp_path):
            pytest.fail("locked twice")
        other.send_signal(signal.SIGKILL)
        other.wait()
        with locked(tmp_path):
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
            with pytest.raises(ValueError, match=f"process {os.getpid()} "), locked(tmp_path):
                pytest.fail("locked twice")
    with locked(tmp_path):
        pass


def new_folder(out):
    return RunFolder.new(str(out), "x", 0)


def test_a_child_that_a_killed_process_has_forked_is_told_from_it(tmp_path):
    script = f"""
import os, runpy, time
from pathlib import Path
with runpy.run_path({folder_lock.__file__!r})["locked"](Path({str(tmp_path)!r})):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        child = int(other.stdout.readline())
        other.send_signal(signal.SIGKILL)
        other.wait()
        try:
            text = f"process {other.pid} on .* has ended, but a child process that it forked still holds"
            with pytest.raises(ValueError, match=text), locked(tmp_path):
                pytest.fail("locked twice")
        finally:
            os.kill(child, signal.SIGKILL)
        other.stdout.read()  # until the child has ended, too
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"mine", b"[]", b"{}", b"3", b"", "folder", "link", "none"])
def test_a_folder_of_others_is_left_as_it_is(content, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    lock = tmp_path / "out" / ".lock"
    if content == "folder":
        lock.mkdir()
    elif content == "link":
        lock.symlink_to(tmp_path / "elsewhere")
    elif content != "none":
        lock.write_bytes(content)
    before = [(p.name, p.is_file() and p.read_bytes()) for p in sorted(tmp_path.rglob("*"))]
    for _ in range(2):  # the second time with nothing in it but the lock
        with (
            pytest.raises(ValueError, match=r"not an empty folder|is not the lock|cannot be opened") as error,
            new_folder(tmp_path / "out"),
        ):
            pass
        assert str(tmp_path / "out") in str(error.value)
        assert [(p.name, p.is_file() and p.read_bytes()) for p in sorted(tmp_path.rglob("*"))] == before
        if content in (b"", "none"):
            break
        (tmp_path / "out" / "notes.txt").unlink(missing_ok=True)
        before = [entry for entry in before if entry[0] != "notes.txt"]


def test_without_locks_of_the_file_system_there_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "flock", refuse)
    with locked(tmp_path):
        assert "cannot be locked ([Errno 37] No locks available)" in caplog.text


def test_commands_name_who_uses_the_folder(tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text("env: simple_spread\nsearch_space: {tau: {grid: [0.1]}}\nstop: {env_steps: 1000}\n")
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        for words in (["train", "simple_spread"], ["sweep", str(tmp_path / "sweep.yaml")]):
            assert main([*words, "--out", str(tmp_path / "out")]) == 2
            assert f"is in use: process {os.getpid()} on" in capsys.readouterr().err


def test_two_runs_of_one_second_have_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunFolder.new(None, "pistonball/x", 0) as one, RunFolder.new(None, "pistonball/x", 0) as two:
        assert one.path != two.path and one.path.parent == two.path.parent == tmp_path / "results"
        one.write_info({})
    assert list((tmp_path / "results").iterdir()) == [one.path], "the one in which nothing was written is gone"


def test_an_empty_folder_of_the_users_stays(tmp_path):
    with RunFolder.new(str(tmp_path), "x", 0):
        pass
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    with RunFolder.new(str(tmp_path), "x", 0) as folder:  # a lock that nobody holds does not count
        folder.write_info({})
    with pytest.raises(ValueError, match="is not an empty folder"), RunFolder.new(str(tmp_path), "x", 0):
        pass


# ------------------------------------------------------------------------------------------ result files


def test_json_has_null_for_what_is_no_number():
    result = {
        "a": math.nan,
        "b": {"c": [1.5, -math.inf], "d": np.float32("nan")},
        "e": np.array([1.0, np.nan]),
        "f": np.int64(3),
    }
    text = to_json(result)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "b": {"c": [1.5, None], "d": None},
        "e": [1.0, None],
        "f": 3,
    }


def test_rows_beyond_the_point_of_resuming_are_dropped(tmp_path):
    files = ResultFiles(tmp_path)
    for env_steps in (100, 200, 300):
        files.write({STEPS: env_steps, "x": {"y": env_steps / 2}, "config": {"z": 1}}, env_steps)
    files.close()
    with (tmp_path / "progress.csv").open("a") as f:
        f.write("400,")  # as a killed process leaves it
    files = ResultFiles(tmp_path, env_steps=200)
    assert [row[STEPS] for row in read_progress(tmp_path)] == ["100", "200"]
    files.write({STEPS: 300, "x": {"y": 7.0}, "new": 1}, 300)
    files.close()
    assert [(row[STEPS], row["x/y"], row["new"]) for row in read_progress(tmp_path)] == [
        ("100", "50.0", ""),
        ("200", "100.0", ""),
        ("300", "7.0", "1"),
    ]
    rows = [json.loads(line) for line in (tmp_path / "result.json").read_text().splitlines()]
    assert [(row[STEPS], row["x"]["y"]) for row in rows] == [(100, 50.0), (200, 100.0), (300, 7.0)]
    assert not any("config" in row for row in rows)
    # TensorBoard drops what earlier files have from there on.
    starts = {e.step for file in tmp_path.glob("events*") for e in read_events(file) if e.HasField("session_log")}
    assert starts == {1, 201}


def test_rows_of_others_and_whole_files_stay_as_they_are(tmp_path):
    (tmp_path / "result.json").write_text('{"other": 1}\nno json\n')
    (tmp_path / "progress.csv").write_text(f"{STEPS},note\n100,a\nmany,b\n")
    before = [(tmp_path / name).read_text() for name in ("result.json", "progress.csv")]
    ResultFiles(tmp_path, 100).close()
    assert [(tmp_path / name).read_text() for name in ("result.json", "progress.csv")] == before


# ------------------------------------------------------------------------------------------ full disks


@needs_full
def test_a_full_disk_is_named_with_the_file(tmp_path):
    files = ResultFiles(tmp_path)
    (tmp_path / "result.json").symlink_to(FULL)
    with pytest.raises(ValueError, match=r"result\.json cannot be written: the disk is full"):
        files.write({STEPS: 1}, 1)
    files.close()
    assert why_not_written(RuntimeError("write failed: No space left on device")).startswith("the disk is full (write")
    assert why_not_written(PermissionError(errno.EACCES, "no")) == "[Errno 13] no"


def test_events_that_find_no_room_cost_one_warning_and_no_wait(tmp_path, caplog):
    events = EventFile(tmp_path, 0)
    events.add({"a": 1.0}, 1)
    before, size = resource.getrlimit(resource.RLIMIT_FSIZE), (os.path.getsize(next(tmp_path.glob("events*"))))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 64, before[1]))
    try:
        for step in range(2, 100):
            events.add({f"tag{n}": 1.0 for n in range(30)}, step)
        events.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "No more TensorBoard events" in caplog.text and "the file would be too large" in caplog.text


def test_events_are_scalars_that_tensorboard_reads(tmp_path):
    events = EventFile(tmp_path, 0)
    events.add({"ray/tune/a": 1.5, "b": 2.0}, 100)
    events.close()
    (file,) = tmp_path.glob("events.out.tfevents.*")
    assert read_scalars(file) == {"ray/tune/a": {100: 1.5}, "b": {100: 2.0}}


# ------------------------------------------------------------------------------------------ streams and signals


def test_a_pipe_that_nobody_reads_swallows_the_rest():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        guard = GuardedStream(pipe)
        print("x" * 100_000, file=guard, flush=True)
        print("more", file=guard, flush=True)
        assert guard.error is None


@needs_full
def test_output_that_finds_no_room_is_an_error(tmp_path, monkeypatch, capsys):
    with FULL.open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with guarded_output() as console:
            print("x")
        assert console.error.errno == errno.ENOSPC
    with FULL.open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        monkeypatch.setattr("rllib_maddpg.cli.program._main", lambda argv: print("a table") or 0)
        assert main([]) == 1
        assert "what was printed is cut short: the disk is full" in capsys.readouterr().err


def test_streams_that_are_closed_from_the_start_are_no_problem(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    with guarded_output() as console:
        print("x", flush=True)
        assert not sys.stdout.isatty() and console.error is None


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (StoppedAtOnce(signal.SIGTERM), 143, "stopped at once; what came after the last checkpoint is lost."),
        (StoppedAtOnce(signal.SIGINT), 130, "stopped at once; what came after the last checkpoint is lost."),
        (KeyboardInterrupt(), 130, "stopped."),
    ],
)
def test_only_an_impatient_end_of_training_loses_something(raised, code, says, monkeypatch, capsys):
    def stop(*args):
        raise raised

    monkeypatch.setattr("rllib_maddpg.cli.evaluate.run_evaluate", stop)
    assert main(["evaluate", "x"]) == code
    assert capsys.readouterr().err == f"\nrllib-maddpg: {says}\n"


@pytest.fixture
def hangup():
    """Sets what SIGHUP does; as it was after the test, which may itself run below `nohup`."""
    before = signal.getsignal(signal.SIGHUP)
    yield lambda action: signal.signal(signal.SIGHUP, action)
    signal.signal(signal.SIGHUP, before)


def test_the_first_signal_is_noted_and_only_impatience_raises(hangup):
    calls = []
    hangup(signal.SIG_DFL)
    with StopSignals(lambda: calls.append(1)) as stop:
        for _ in range(2):  # from the terminal and from the shell
            os.kill(os.getpid(), signal.SIGHUP)
        assert (stop.signal, calls) == (signal.SIGHUP, [1])
        for number in (signal.SIGINT, signal.SIGTERM):
            with pytest.raises(StoppedAtOnce) as stopped:
                os.kill(os.getpid(), number)
            assert stopped.value.signal == number and isinstance(stopped.value, KeyboardInterrupt)
    hangup(signal.SIG_IGN)
    with StopSignals(lambda: calls.append(1)) as stop:
        os.kill(os.getpid(), signal.SIGHUP)  # as under nohup
        assert (stop.signal, calls) == (None, [1])
