"""Who is there in a shared learner: real actors that train, leave and die, seen from an event loop in this process."""

import asyncio
import os
import signal
import time

import pytest
import ray

from rllib_maddpg.shared.presence import Anchor, Going, Presence

pytestmark = pytest.mark.usefixtures("ray_session")

LONG = 60.0


def make_trial():
    # A class of a function comes with its code: its actor imports nothing of the package.
    class Trial:
        def me(self):
            return ray.get_runtime_context().current_actor

        def pid(self):
            return os.getpid()

        def train(self, seconds):
            time.sleep(seconds)

    return ray.remote(num_cpus=0)(Trial).remote()


class Seen:
    """A Presence, and what it told."""

    def __init__(self, **settings):
        self.gone, self.left_at = [], None
        settings = {"grace_s": 1000.0, "look_s": 0.05, **settings}
        self.presence = Presence(self._gone, self._left, **settings)

    async def _gone(self, slot):
        self.gone.append(slot)

    def _left(self):
        assert self.left_at is None
        self.left_at = time.monotonic()

    async def until(self, condition):
        end = time.monotonic() + LONG
        while not condition():
            assert time.monotonic() < end, "it never came"
            await asyncio.sleep(0.01)


def run(scenario, **settings):
    async def with_presence():
        await scenario(Seen(**settings))

    asyncio.run(with_presence())


async def handle_of(trial):
    return await trial.me.remote()


def end(trial, way):
    if way == "kill -9":
        os.kill(ray.get(trial.pid.remote()), signal.SIGKILL)
    elif way == "ray.kill":
        ray.kill(trial)
    elif way == "terminated":
        trial.__ray_terminate__.remote()


@pytest.mark.parametrize("way", ["kill -9", "ray.kill", "terminated", "out of scope"])
def test_a_trial_that_dies_is_noticed_once(way):
    async def scenario(seen):
        trials = [make_trial() for _ in range(2)]
        for slot in range(2):
            seen.presence.come(slot, await handle_of(trials[slot]))
        await asyncio.sleep(0.2)  # some looks
        assert seen.gone == [] and seen.presence.slots == [0, 1]
        trial = trials.pop(0)
        end(trial, way)
        del trial
        await seen.until(lambda: seen.gone)
        await asyncio.sleep(0.2)
        assert seen.gone == [0] and seen.presence.slots == [1]

    run(scenario)


def test_a_trial_that_trains_is_left_alone_and_its_death_is_noticed_meanwhile():
    async def scenario(seen):
        trial = make_trial()
        pid = await trial.pid.remote()
        seen.presence.come(0, await handle_of(trial))
        busy = trial.train.remote(1000)
        await asyncio.sleep(0.2)
        assert seen.gone == []
        os.kill(pid, signal.SIGKILL)
        await seen.until(lambda: seen.gone == [0])
        with pytest.raises(ray.exceptions.RayActorError):
            await busy

    run(scenario)


def test_a_look_does_not_hold_a_trial_up_that_ends():
    """Tune ends a trial by a last call, which comes after at most one look."""

    async def scenario(seen):
        trial = make_trial()
        seen.presence.come(0, await handle_of(trial))
        trial.train.remote(0.3)
        await asyncio.sleep(0.1)  # a look waits in the trial's queue
        with pytest.raises(ray.exceptions.RayActorError):
            await trial.__ray_terminate__.remote()
        await seen.until(lambda: seen.gone == [0])

    run(scenario)


def test_one_that_leaves_by_itself_is_not_reported():
    async def scenario(seen):
        trial = make_trial()
        seen.presence.come(3, await handle_of(trial))
        seen.presence.go(3)
        seen.presence.go(3)
        ray.kill(trial)
        await asyncio.sleep(0.2)
        assert seen.gone == [] and seen.presence.slots == [] and seen.left_at is None

    run(scenario)


def test_it_leaves_after_the_grace_period_where_nobody_held_it():
    async def scenario(seen):
        own = Anchor()
        anchor = own.handle
        presence = Presence(lambda slot: None, seen._left, grace_s=1.0)
        presence.come(0, anchor)
        presence.go(0)
        presence.come(1, anchor)  # within the period
        await asyncio.sleep(1.2)
        assert seen.left_at is None
        presence.go(1)
        start = time.monotonic()
        await seen.until(lambda: seen.left_at)
        assert seen.left_at - start >= 1.0
        with pytest.raises(Going):
            presence.come(2, anchor)
        with pytest.raises(Going):
            presence.hold("x", anchor)

    run(scenario)


def test_it_leaves_though_nobody_ever_came():
    async def scenario(seen):
        await seen.until(lambda: seen.left_at)

    run(scenario, grace_s=0.05)


def test_it_leaves_at_once_with_the_last_trial_after_its_holder():
    async def scenario(seen):
        anchor, trial = Anchor(), make_trial()
        seen.presence.hold("sweep", anchor.handle)
        seen.presence.come(0, await handle_of(trial))
        seen.presence.go(0)
        seen.presence.come(1, await handle_of(trial))
        assert seen.presence.num_holders == 1
        seen.presence.unhold("sweep")
        await asyncio.sleep(0.3)
        assert seen.left_at is None
        ray.kill(trial)
        await seen.until(lambda: seen.left_at)
        assert seen.gone == [1]

    run(scenario)


def test_it_leaves_at_once_with_its_last_holder_where_no_trial_is_left():
    async def scenario(seen):
        own = Anchor()
        seen.presence.hold("one", own.handle)
        seen.presence.hold("two", own.handle)
        seen.presence.unhold("one")
        await asyncio.sleep(0.3)
        assert seen.left_at is None
        del own  # the holder's process has gone; the actor with it
        await seen.until(lambda: seen.left_at)

    run(scenario)


def test_a_holder_that_is_not_known_has_held_an_earlier_one():
    async def scenario(seen):
        seen.presence.unhold("from before")
        await seen.until(lambda: seen.left_at)

    run(scenario)


def test_a_callback_that_fails_frees_the_place_all_the_same(caplog):
    async def scenario(seen):
        trial = make_trial()
        anchor = await handle_of(trial)
        presence = Presence(lambda slot: 1 / 0, seen._left, grace_s=0.05, look_s=0.05)
        presence.come(0, anchor)
        ray.kill(trial)
        await seen.until(lambda: seen.left_at)
        assert "could not be freed" in caplog.text

    run(scenario)


def is_dead(handle):
    try:
        ray.get(handle.__ray_ready__.remote())
    except ray.exceptions.RayActorError:
        return True
    return False


def test_an_anchor_of_a_driver_lives_as_long_as_one_of_them_does():
    one, two = Anchor(), Anchor()
    handle = one.handle
    assert two.handle == handle and not is_dead(handle)
    del one
    time.sleep(0.3)
    assert not is_dead(handle)
    del two
    deadline = time.monotonic() + LONG
    while not is_dead(handle):
        assert time.monotonic() < deadline
    assert not is_dead(Anchor().handle)


def test_an_anchor_that_was_ended_is_replaced():
    one = Anchor()
    ray.kill(one.handle)
    deadline = time.monotonic() + LONG
    while not is_dead(one.handle):
        assert time.monotonic() < deadline
    two = Anchor()
    assert two.handle != one.handle and not is_dead(two.handle)


def test_the_anchor_of_an_actor_is_itself():
    class Client:
        def anchor(self):
            return Anchor().handle

    client = ray.remote(num_cpus=0)(Client).remote()
    assert ray.get(client.anchor.remote()) == client
