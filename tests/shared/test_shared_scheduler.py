"""Which updates are made together, with calls that are counted and not made."""

import asyncio

import pytest

from rllib_maddpg.shared import scheduler as module
from rllib_maddpg.shared.scheduler import Dropped, Scheduler

FOR_EVER = 10**7  # ms; a test that waits so long hangs


class Call:
    """A call of so many updates; names in capitals are alone."""

    def __init__(self, name, updates=1):
        self.name, self.left, self.is_alone = name, updates, name.isupper()

    @property
    def is_over(self):
        return self.left <= 0


class Passes:
    """Makes passes when the test lets it, and writes down who was in them."""

    def __init__(self, max_wait_ms=0.0):
        self.made, self.gate = [], asyncio.Event()
        self.gate.set()
        self.scheduler = Scheduler(self.make, max_wait_ms)

    async def make(self, calls):
        await self.gate.wait()
        self.made.append("".join(call.name for call in calls))
        for call in calls:
            call.left -= 1
        return 1

    def ask(self, name, updates=1):
        """A call of the trial of this name."""
        return asyncio.create_task(self.scheduler.make(ord(name), Call(name, updates)))


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def run(test):
    """Runs an async test."""
    return asyncio.run(asyncio.wait_for(test(), 60))


def test_calls_gather_while_a_pass_runs():
    async def test():
        passes = Passes()
        passes.gate.clear()
        calls = [passes.ask("a")]
        await settle()
        calls += [passes.ask("b"), passes.ask("c")]
        await settle()
        passes.gate.set()
        made = await asyncio.gather(*calls)
        assert passes.made == ["a", "bc"]
        assert [(one.updates, one.slots) for one in made] == [(1, 1), (1, 2), (1, 2)]
        assert made[1].waited >= made[0].waited >= 0
        status = passes.scheduler.status()
        assert status.pop("wait_ms_mean") >= 0
        assert status == {"passes": 2, "updates": 3, "slots_per_pass_mean": 1.5}

    run(test)


def test_those_that_gain_nothing_from_others_do_not_hold_each_other():
    async def test():
        passes = Passes(FOR_EVER)
        calls = [passes.ask("A", 2), passes.ask("b"), passes.ask("C"), passes.ask("d")]
        made = await asyncio.gather(*calls)
        assert passes.made == ["A", "bd", "C", "A"]
        assert [(one.updates, one.slots) for one in made] == [(2, 2), (1, 2), (1, 1), (1, 2)]
        await passes.ask("A")  # nobody waits for those that have asked lately
        assert passes.made[4:] == ["A"]

    run(test)


def test_calls_of_several_updates_go_on_with_those_that_come():
    async def test():
        passes = Passes()
        first = passes.ask("a", 3)
        await asyncio.sleep(0)
        made = await asyncio.gather(first, passes.ask("b"))
        assert sorted("".join(passes.made)) == ["a", "a", "a", "b"] and made[0].updates == 3
        assert made[0].slots + made[1].slots == sum(len(names) ** 2 for names in passes.made)

    run(test)


def test_it_waits_for_those_that_have_asked_lately_and_begins_when_all_are_due():
    async def test():
        passes = Passes(FOR_EVER)
        await passes.ask("a")  # nobody else is known
        second = passes.ask("b")  # waits for a
        await settle()
        assert passes.made == ["a"]
        await asyncio.gather(second, passes.ask("a"))
        assert passes.made == ["a", "ba"]

    run(test)


def test_only_the_first_update_of_a_call_waits():
    async def test():
        passes = Passes(FOR_EVER)
        await passes.ask("a")
        call = passes.ask("b", 3)
        await settle()
        assert passes.made == ["a"]
        await asyncio.wait_for(asyncio.gather(call, passes.ask("a")), 5)
        assert passes.made == ["a", "ba", "b", "b"]

    run(test)


def test_it_looks_again_when_nobody_is_likely_to_come_any_more(monkeypatch):
    async def test():
        monkeypatch.setattr(module, "LATELY_S", 0.05)
        passes = Passes(FOR_EVER)
        await passes.ask("a")
        await asyncio.wait_for(passes.ask("b"), 5)
        assert passes.made == ["a", "b"]

    run(test)


def test_nobody_waits_for_one_that_has_not_asked_for_long(monkeypatch):
    async def test():
        passes = Passes(FOR_EVER)
        await passes.ask("a")
        monkeypatch.setattr(module, "LATELY_S", 0.0)
        await passes.ask("b")
        assert passes.made == ["a", "b"]

    run(test)


def test_nobody_waits_for_one_that_has_left():
    async def test():
        passes = Passes(FOR_EVER)
        await passes.ask("a")
        call = passes.ask("b")
        await settle()
        assert not call.done()
        passes.scheduler.drop(ord("a"))
        await call
        assert passes.made == ["a", "b"]

    run(test)


def test_it_waits_no_longer_than_it_may():
    async def test():
        passes = Passes(20.0)
        await passes.ask("a")
        made = await passes.ask("b")
        assert passes.made == ["a", "b"] and made.waited >= 0.019

    run(test)


def test_one_that_leaves_during_its_update_is_dropped():
    async def test():
        passes = Passes()
        passes.gate.clear()
        running, waiting, other = passes.ask("a", 5), passes.ask("b"), passes.ask("c")
        await settle()
        for name in "ab":
            passes.scheduler.drop(ord(name))
        passes.gate.set()
        for call in (running, waiting):
            with pytest.raises(Dropped):
                await call
        assert (await other).updates == 1
        await settle()
        assert passes.made in (["a", "c"], ["abc"])

    run(test)


def test_what_fails_as_a_whole_is_the_error_of_all_in_the_pass():
    async def test():
        async def fail(calls):
            raise RuntimeError("no device")

        scheduler = Scheduler(fail, 0.0)
        for _ in range(2):  # it goes on
            with pytest.raises(RuntimeError, match="no device"):
                await scheduler.make(0, Call("a"))

    run(test)


def test_it_goes_on_after_a_pass_that_did_not_end():
    async def test():
        errors = [asyncio.CancelledError()]

        async def make(calls):
            if errors:
                raise errors.pop()
            for call in calls:
                call.left -= 1
            return 1

        scheduler = Scheduler(make, 0.0)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(scheduler.make(0, Call("a")), 5)
        assert (await asyncio.wait_for(scheduler.make(0, Call("a")), 5)).updates == 1

    run(test)
