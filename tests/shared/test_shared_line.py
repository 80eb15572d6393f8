"""The socket between trials and a shared learner of one machine: by itself, and beneath real trials."""

import asyncio
import os
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from shared_trials import assert_same_results, assert_same_states, twin_config
from tiny_algorithm import same, state_of
from tiny_shared import found, until

from rllib_maddpg import SharedLearner
from rllib_maddpg.shared import life
from rllib_maddpg.shared.actor import SharedLearnerActor
from rllib_maddpg.shared.calls import Failed
from rllib_maddpg.shared.client import SharedLearnerDied
from rllib_maddpg.shared.line import _AHEAD, Line, LineOfTrial, line_to


class Served:
    """A `Line` in an event loop of its own, which answers with what it was asked; "wait" when it is told to."""

    def __init__(self):
        self.asked, self.go_on = threading.Event(), asyncio.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.line, self.trials = self.run(self._line()), []

    async def _line(self):
        return Line(self._answer)

    async def _answer(self, slot, request):
        if request == "wait":
            self.asked.set()
            await self.go_on.wait()
        elif request == "fail":
            raise KeyError("no slot")
        elif request == "lock":
            return threading.Lock()
        return slot, request

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def trial(self):
        self.trials.append(LineOfTrial(self.run(self.line.address())))
        return self.trials[-1]

    def end(self):
        self.loop.call_soon_threadsafe(self.go_on.set)
        for trial in self.trials:
            trial.close()

        async def end():
            self.line.close()
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

        self.run(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def folder(monkeypatch):
    """An empty folder for temporary files, of a short name."""
    with tempfile.TemporaryDirectory() as path:
        monkeypatch.setattr(tempfile, "tempdir", path)
        yield Path(path)


@pytest.fixture
def served(folder):
    own = Served()
    yield own
    own.end()


def test_answers_come_to_those_who_asked_also_if_they_are_large(served):
    trials = [served.trial() for _ in range(3)]
    for k, trial in enumerate(trials):
        assert trial.ask(k, "something") == (k, "something")
    large = [bytes([k]) * (3 * _AHEAD) for k in range(3)]
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(trial.ask, k, large[k]) for k, trial in enumerate(trials)]
        for k, call in enumerate(calls):
            assert call.result(60) == (k, large[k])


def test_one_folder_of_the_user_alone_which_is_not_left_behind(served, folder):
    async def at_once():
        return await asyncio.gather(*(served.line.address() for _ in range(4)))

    (address,) = set(served.run(at_once()))
    (own,) = folder.iterdir()
    assert address == str(own / "line") and own.stat().st_mode & 0o777 == 0o700
    served.line.close()
    assert not list(folder.iterdir())
    assert line_to(address) is None


def test_errors_and_answers_that_cannot_travel_come_back_and_the_line_stays(served):
    trial = served.trial()
    for request, kind, words in (("fail", KeyError, "no slot"), ("lock", TypeError, "pickle")):
        failed = trial.ask(0, request)
        assert isinstance(failed, Failed)
        with pytest.raises(kind, match=words):
            failed.throw()
    assert trial.ask(0, "after") == (0, "after")


def test_after_an_interrupt_the_next_answer_is_the_right_one(served):
    trial = served.trial()
    main = threading.main_thread().ident

    def interrupt():
        served.asked.wait(60)
        signal.pthread_kill(main, signal.SIGINT)

    # Whoever started the tests in the background may have had the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            trial.ask(0, "wait")
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    served.loop.call_soon_threadsafe(served.go_on.set)  # the first answer comes only now
    assert trial.ask(0, "next") == (0, "next")


def test_a_trial_that_hangs_up_is_nobodys_trouble(served):
    gone, other = served.trial(), served.trial()
    half = gone._socket.dup()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(gone.ask, 0, "wait")
        served.asked.wait(60)
        half.shutdown(2)
        with pytest.raises((EOFError, OSError)):
            call.result(60)
    half.close()
    served.loop.call_soon_threadsafe(served.go_on.set)
    # In the middle of a message, too.
    stops = served.trial()
    stops._socket.sendall(b"\x10\0\0")
    stops.close()
    assert other.ask(1, "something") == (1, "something")


@pytest.mark.parametrize("why", ["no folder", "a long path"])
def test_without_a_socket_there_is_no_line(served, folder, monkeypatch, why):
    path = folder / "no_folder" if why == "no folder" else folder / ("x" * 120)
    if why != "no folder":
        path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    assert served.run(served.line.address()) is None
    assert not path.exists() or not list(path.iterdir())
    assert line_to(None) is None


def test_whoever_cannot_reach_the_socket_has_no_line(folder):
    assert line_to(str(folder / "line")) is None
    (folder / "line").touch()  # not one that listens
    assert line_to(str(folder / "line")) is None


# ------------------------------------------------------------------------------------------ real trials


class NoLine(Line):
    """As on another machine."""

    async def address(self):
        return None


class WithoutLine(SharedLearnerActor):
    def __init__(self, *args):
        super().__init__(*args)
        self._line = NoLine(self.update)


@pytest.mark.usefixtures("ray_session")
def test_trials_learn_the_same_with_and_without_it_and_nothing_is_left(build, monkeypatch):
    with SharedLearner("with.line") as shared:
        with_it = build(twin_config(shared.name))
        address = Path(with_it.learner_group.client._seat.answer["line"])
        assert address.is_socket()
        monkeypatch.setattr(life, "SharedLearnerActor", WithoutLine)
        with SharedLearner("without.line") as other:
            without = build(twin_config(other.name))
            assert with_it.learner_group.client._line is not None and without.learner_group.client._line is None
            for _ in range(2):
                assert_same_results(with_it.train(), without.train())
            assert_same_states(with_it, without)
            assert same(state_of(with_it), state_of(without)) and with_it._num_updates > 5
            without.stop()
        with_it.stop()
    until(lambda: found("with.line") is None)
    until(lambda: not address.parent.exists())


@pytest.mark.usefixtures("ray_session")
def test_a_shared_learner_that_is_killed_during_a_call_is_noticed(build):
    algo = build(twin_config("killed.on.line"))
    algo.train()
    client = algo.learner_group.client
    address, pid = client._seat.answer["line"], next(iter(algo.learner_group.foreach_learner(lambda own: os.getpid()))).get()
    client.begin("apply", lambda learner: time.sleep(300))
    ask, asked = client._line.ask, threading.Event()

    def tells(*args):
        asked.set()
        return ask(*args)

    client._line.ask = tells
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(algo.train)
        assert asked.wait(60)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(SharedLearnerDied, match=r"'killed\.on\.line' died"):
            call.result(60)
    with pytest.raises(SharedLearnerDied):
        algo.train()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(client.actor.status.remote())
    algo.stop()
    os.remove(address)  # a process that is killed cleans up nothing
    os.rmdir(os.path.dirname(address))
