"""A shared learner is found or made by its name, held, joined and left: the real named actor, with trials in processes."""

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from paths import HELPERS, PYTHONPATH
from tiny_shared import TinyShared, Trial, found, is_alive, status, until

from rllib_maddpg.shared import life
from rllib_maddpg.shared.life import SharedLearner, join, shared_learner
from rllib_maddpg.shared.memory import Gone


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(life, "SharedLearnerActor", TinyShared)


@pytest.fixture(scope="module")
def trials(ray_session):
    """Processes that are ready to join."""
    trials = [Trial.remote() for _ in range(2)]
    ray.get([trial.pid.remote() for trial in trials])
    yield trials
    for trial in trials:
        ray.kill(trial)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": ""}, "`name`=''"),
        ({"name": " "}, "`name`=' '"),
        ({"name": 3}, "`name`=3"),
        ({"name": "a\nb"}, "`name`='a\\nb'"),
        ({"name": "x" * 201}, "(letters, digits and . : + - _)"),
        ({"num_gpus": -1}, "`num_gpus`=-1 is not allowed: it must be a number from 0 to 1"),
        ({"num_gpus": 2}, "`num_gpus`=2"),
        ({"num_gpus": True}, "`num_gpus`=True"),
        ({"num_gpus": float("nan")}, "`num_gpus`=nan"),
        ({"max_wait_ms": -1}, "`max_wait_ms`=-1"),
        ({"max_wait_ms": "2"}, "`max_wait_ms`='2'"),
        ({"max_slots": 0}, "`max_slots`=0 is not allowed: it must be a whole number of at least 1"),
        ({"max_slots": 1.5}, "`max_slots`=1.5"),
    ],
    ids=str,
)
def test_bad_values_are_refused_before_any_actor(settings, words):
    settings = {"name": "default", **settings}
    for make in (SharedLearner, shared_learner, join):
        with pytest.raises(ValueError) as error:
            make(**settings)
        assert words in str(error.value)


def test_without_ray(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for start in (SharedLearner().__enter__, lambda: shared_learner("x")):
        with pytest.raises(ValueError, match=r"call `ray\.init\(\)` first"):
            start()


@pytest.mark.ray
def test_more_gpus_than_there_are(ray_session):
    if ray.cluster_resources().get("GPU", 0):
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="`num_gpus`=1 is not allowed: Ray's cluster has 0 GPUs"), SharedLearner(num_gpus=1):
        pass
    assert found("default") is None


@pytest.mark.ray
def test_all_who_come_at_once_come_to_the_same_one(trials):
    name = "race"
    with ThreadPoolExecutor(3) as pool:
        seats = [pool.submit(join, name, 1) for _ in range(3)]
        answers = ray.get([trial.join.remote(name) for trial in trials])
        seats = [seat.result(60) for seat in seats]
    answers += [seat.answer for seat in seats]
    assert sorted(answer["slot"] for answer in answers) == [0, 1, 2, 3, 4]
    assert len({answer["pid"] for answer in answers}) == 1
    with SharedLearner(name):
        ray.get([trial.leave.remote() for trial in trials])
        for seat in seats:
            seat.leave()
    until(lambda: not is_alive(answers[0]["pid"]))
    assert found(name) is None


@pytest.mark.ray
@pytest.mark.parametrize("pause", [0.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_one_comes_while_it_is_just_going(trials, pause):
    """It has decided to end, or is ending, when the next trial comes: that one gets in."""
    name = "going"
    before = ray.get(trials[0].join.remote(name))["pid"]
    with SharedLearner(name):
        ray.get(trials[0].leave.remote())
    time.sleep(pause)  # now it says its last words
    after = ray.get(trials[1].join.remote(name))["pid"]
    assert before != after
    with SharedLearner(name):
        ray.get(trials[1].leave.remote())
    until(lambda: found(name) is None)


@pytest.mark.ray
def test_held_without_trials_and_gone_with_the_last_of_all(trials):
    with SharedLearner("held") as shared:
        assert shared.name == "held"
        pid = shared.status()["pid"]
        assert ray.get(trials[0].join.remote(shared.name))["pid"] == pid
        ray.get(trials[0].leave.remote())
        assert shared.status()["holders"] == 1 and shared.status()["slots"] == []
        assert ray.get(trials[1].join.remote(shared.name)) == {"slot": 1, "pid": pid}
    assert status(shared.name)["holders"] == 0 and status(shared.name)["slots"] == [1]
    ray.get(trials[1].leave.remote())
    until(lambda: not is_alive(pid))
    with pytest.raises(RuntimeError, match="There is no shared learner 'held' now"):
        shared.status()


@pytest.mark.ray
def test_a_hold_ends_with_an_interrupt_too(ray_session):
    with pytest.raises(KeyboardInterrupt), SharedLearner("interrupted") as shared:
        pid = shared.status()["pid"]
        raise KeyboardInterrupt
    until(lambda: not is_alive(pid))


@pytest.mark.ray
def test_trials_that_die_free_their_slots_and_the_others_go_on(ray_session):
    name, killed = "deaths", Trial.remote()
    pid, other = ray.get(killed.pid.remote()), join(name, 200)
    assert ray.get(killed.join.remote(name, 700))["slot"] == 1
    # One that dies while it waits is forgotten, too.
    anchor = Trial.remote()
    forgotten = other.actor.register.remote(900, anchor)
    until(lambda: status(name)["waiting"])
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(join, name, 800)
        until(lambda: len(status(name)["waiting"]) == 2)
        ray.kill(anchor)
        until(lambda: len(status(name)["waiting"]) == 1)
        with pytest.raises(Gone):
            ray.get(forgotten)
        killed.train.remote(1000)  # it is at work
        os.kill(pid, signal.SIGKILL)
        seat = waits.result(60)
    assert status(name)["dead"] == [2, 1] and status(name)["slots"] == [0, seat.slot]
    ray.kill(other.actor)


@pytest.mark.ray
def test_one_that_was_killed_is_replaced(ray_session):
    name = "killed"
    first = join(name, 1)
    pid = first.answer["pid"]
    waits = first.actor.wait.remote()
    with SharedLearner(name) as shared:  # holds the same one
        assert shared.status()["pid"] == pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(waits)
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(first.actor.status.remote())
        with pytest.raises(RuntimeError, match=r"no shared learner 'killed' now|is gone"):
            shared.status()
        first.leave()
        first.leave()
        second = join(name, 1)
        assert second.answer["pid"] != pid and second.slot == 0
        assert shared.status()["pid"] == second.answer["pid"]
    # Its holder came before it, and has left: it goes with its last trial at once.
    second.leave()
    until(lambda: not is_alive(second.answer["pid"]))


@pytest.mark.ray
def test_one_that_is_too_busy_to_answer_goes_on_for_those_who_are_there(ray_session):
    first = join("busy", 1)
    first.actor.block.remote(2)
    with pytest.raises(RuntimeError, match=r"'busy' did not start within 0\.2 s: it has not answered yet"):
        join("busy", 1, start_s=0.2)
    assert status("busy")["slots"] == [first.slot] and status("busy")["pid"] == first.answer["pid"]
    ray.kill(first.actor)


@pytest.mark.ray
def test_one_that_cannot_start_ends_the_tries(ray_session, monkeypatch):
    class Broken(TinyShared):
        def __init__(self, *arguments):
            raise OSError("no such device")

    monkeypatch.setattr(life, "SharedLearnerActor", Broken)
    monkeypatch.setattr(life, "_TRIES", 1)
    with pytest.raises(RuntimeError, match=r"(?s)'broken' died again and again.*no such device"):
        join("broken", 1)
    assert found("broken") is None


@pytest.mark.ray
def test_a_trial_that_waits_says_so_and_one_that_never_fits_is_refused(trials, caplog, monkeypatch):
    monkeypatch.setattr(life, "PATIENCE_S", 0.3)
    with SharedLearner("full", max_slots=2) as shared:
        seats = [join(shared.name, 300) for _ in range(2)]
        assert status("full")["max_slots"] == 2
        leaves = trials[0].join.remote(shared.name, 1)
        until(lambda: status("full")["waiting"])
        with caplog.at_level(logging.WARNING, life.logger.name), ThreadPoolExecutor(1) as pool:
            waits = pool.submit(join, shared.name, 600)
            until(lambda: "where 2 trials wait: A trial waits for a place" in caplog.text)
            assert "all 2 slots are taken (`max_slots`)" in caplog.text
            seats.pop().leave()
            assert ray.get(leaves)["slot"] == 2
            ray.get(trials[0].leave.remote())
            seats.append(waits.result(60))
        assert status("full")["free_bytes"] == 100
        with pytest.raises(ValueError, match=r"^`replay_buffer_config\['capacity'\]`=1001 rows of 1 bytes need"):
            join(shared.name, 1001)
        for seat in seats:
            seat.leave()
    until(lambda: found("full") is None)


@pytest.mark.ray
def test_a_place_that_is_dropped_is_given_back(ray_session):
    """A client in a driver that never says goodbye, such as an algorithm that was not stopped."""
    name = "dropped:grace-1"
    seat, other = join(name, 600), join(name, 300)
    pid = seat.answer["pid"]
    del seat
    seat = join(name, 700)  # it gets in
    assert status(name)["slots"] == [1, 2] and other.slot == 1
    del seat, other

    def is_over():
        gc.collect()
        life._give_back_dropped()  # as the next `join` does; the process's anchor may live on with places of other tests
        return not is_alive(pid)

    until(is_over)


@pytest.mark.ray
@pytest.mark.slow
def test_it_takes_the_gpu_and_says_so_if_others_have_it():
    done = subprocess.run([sys.executable, str(HELPERS / "shared_gpu.py")], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["free"] == report["then"] == 0 and report["on the CPU"] == 1
    why = "it has not answered yet, and needs num_gpus=1, where 0 of the cluster's 1 GPUs are free"
    assert f"Waiting for the shared learner 'second:grace-0.2' to start: {why}." in report["told"]
    assert f"'second:grace-0.2' did not start within 2 s: {why}. Let nothing else ask for GPUs" in report["error"]
    assert "`SharedLearner('second:grace-0.2.cpu', num_gpus=0)`" in report["error"]


def environment():
    return {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"PYTHONPATH": PYTHONPATH}
