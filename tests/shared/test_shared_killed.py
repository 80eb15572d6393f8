"""Sweeps in a shared learner of which a process is stopped or killed: a trial, the shared learner, or the driver."""

import json
import os
import signal
import subprocess
import sys

import pytest
from paths import HELPERS, PYTHONPATH
from tiny_shared import is_alive, until

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def start(script, *words, **kwargs):
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"PYTHONPATH": PYTHONPATH}
    command = [sys.executable, str(HELPERS / script), *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=env, start_new_session=True, **pipes, **kwargs)


class Experiment:
    """`shared_experiment.py` in a process of its own."""

    def __init__(self, folder, **options):
        self.folder, self.log = folder, folder / "log.txt"
        self.lines = folder / "trained.txt"
        self.lines.touch()
        with self.log.open("w") as log:
            self.process = start("shared_experiment.py", json.dumps({"folder": str(folder), **options}), stderr=log)

    def trained(self):
        """Of each iteration: trial, its process, that of the shared learner, updates."""
        return [tuple(map(int, line.split())) for line in self.lines.read_text().splitlines(keepends=True) if line[-1] == "\n"]

    def until(self, condition):
        def holds():
            assert self.process.poll() is None, self.log.read_text()
            return condition()

        return until(holds, 240)

    def until_both_train(self, since=0):
        """Waits for new iterations of both trials; the newest ones."""

        def both():
            newest = {trial[0]: trial for trial in self.trained()[since:]}
            return newest if len(newest) == 2 else None

        return self.until(both)

    def end(self):
        (self.folder / "stop").touch()

    def until_over(self):
        """Waits until it says that the shared learner has gone, and ends it."""
        lines = iter(self.process.stdout.readline, "")
        assert "over\n" in lines, self.log.read_text()
        self.process.stdin.close()
        return self.process.wait(120)


@pytest.fixture
def experiment(tmp_path):
    """Starts one, and ends what a failed test has left of it: its local Ray goes with it."""
    started = []

    def _start(**options):
        started.append(Experiment(tmp_path, **options))
        return started[-1]

    yield _start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture(scope="module")
def address():
    """Of a cluster of one node, which outlives the drivers."""
    process = start("cluster_nodes.py", "1", "3", stderr=subprocess.DEVNULL)
    yield process.stdout.readline().strip()
    assert process.poll() is None
    process.stdin.close()
    process.wait(timeout=60)


def test_a_killed_trial_goes_on_beside_the_other_and_both_go_on_after_their_learner_was_killed(experiment):
    one = experiment(failures=3)
    before = one.until_both_train()
    learner = before[1][2]
    assert before[2][2] == learner
    # A trial.
    since = len(one.trained())
    os.kill(before[1][1], signal.SIGKILL)
    again = one.until(lambda: [line for line in one.trained()[since:] if line[0] == 1 and line[1] != before[1][1]])[-1]
    # It goes on from its checkpoint, in the same shared learner; the other one did not notice.
    assert again[2] == learner and again[3] > 0
    assert {line[1] for line in one.trained() if line[0] == 2} == {before[2][1]}
    # The shared learner.
    os.kill(learner, signal.SIGKILL)
    last = {trial: max(line[3] for line in one.trained() if line[0] == trial) for trial in (1, 2)}
    after = one.until(
        lambda: {line[0]: line for line in one.trained() if line[2] != learner}.keys() == {1, 2} and one.trained()
    )
    for trial in (1, 2):
        first = next(line for line in after if line[0] == trial and line[2] != learner)
        assert 0 < first[3] <= last[trial] + 60  # from a checkpoint
    assert len({line[2] for line in after}) == 2
    one.end()
    assert one.until_over() == 0
    assert not is_alive(after[-1][2])


def test_ctrl_c(experiment, address):
    one = experiment(address=address)
    learner = one.until_both_train()[1][2]
    one.process.send_signal(signal.SIGINT)
    until(lambda: not is_alive(learner))
    assert one.process.poll() is None  # it went before the driver did
    one.until_over()


@pytest.mark.parametrize("held", [True, False])
def test_kill_9_of_the_driver_leaves_no_orphan_on_a_cluster(experiment, address, held):
    one = experiment(address=address, held=held)
    trials = one.until_both_train()
    one.process.kill()
    for trial in trials.values():
        until(lambda pid=trial[1]: not is_alive(pid))
    until(lambda: not is_alive(trials[1][2]))


def test_trials_wait_for_a_slot(experiment):
    one = experiment(max_slots=1)
    one.until(lambda: len(one.trained()) > 3)
    one.until(lambda: "all 1 slots are taken (`max_slots`)" in one.log.read_text())
    assert len({line[0] for line in one.trained()}) == 1
    one.end()
    assert one.until_over() == 0
    assert len({line[0] for line in one.trained()}) == 2
