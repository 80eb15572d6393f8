"""Memory and places of real trials in the real shared learner."""

import gc
import time

import pytest
import ray
from shared_trials import twin_config
from tiny_shared import found, status, until

from rllib_maddpg import SharedLearner
from rllib_maddpg.shared import life
from rllib_maddpg.shared.learner_group import SharedLearnerGroup
from rllib_maddpg.shared.memory import NETWORK_COPIES
from rllib_maddpg.shared.presence import Anchor

pytestmark = pytest.mark.usefixtures("ray_session")


def test_memory_of_trials_is_counted_given_back_and_refused(build):
    with SharedLearner("places") as shared:
        one = build(twin_config(shared.name))
        bytes_per_row = one.schema.bytes_per_row
        networks = sum(
            next(
                iter(
                    one.learner_group.foreach_learner(
                        lambda own: [
                            t.numel() * t.element_size() * (3 if t.requires_grad else 1)
                            for module in own.module.values()
                            for t in module.unwrapped().state_dict(keep_vars=True).values()
                        ]
                    )
                )
            ).get()
        )
        one.train()
        assert len(one.replay_buffer) == 40
        own = shared.status()
        assert own["held_bytes"] == {0: 60 * bytes_per_row + NETWORK_COPIES * networks} and own["waiting"] == {}
        large = twin_config(shared.name).training(replay_buffer_config={"capacity": 10**12})
        with pytest.raises(ValueError, match=r"^`replay_buffer_config\['capacity'\]`=1000000000000 rows of \d+ bytes need"):
            large.build_algo()
        # The first one is well; it is the only one, too.
        assert shared.status()["held_bytes"].keys() == {0}
        one.train()
        one.stop()
        assert shared.status()["held_bytes"] == {} and shared.status()["trials"] == []
    until(lambda: found("places") is None)


def test_an_algorithm_that_was_not_stopped_leaves_its_place_when_it_is_forgotten(build):
    with SharedLearner("forgotten") as shared:
        algo = twin_config(shared.name).build_algo()
        assert shared.status()["trials"] == [0]
        del algo
        gc.collect()
        build(twin_config(shared.name))
        until(lambda: status(shared.name)["trials"] == [1])
        ray.kill(found(shared.name))


def test_nothing_waits_for_ray_while_python_collects_garbage(build):
    with SharedLearner("garbage") as shared:
        algo = build(twin_config(shared.name))
        own = algo.learner_group
        dropped = SharedLearnerGroup(config=own.config, module_spec=own._module_spec, name=shared.name)
        line, slot = dropped.client._line, dropped.client.slot
        there = line._socket
        del dropped, line
        gc.collect()
        assert there.fileno() == -1  # it is closed
        assert [slot for _, slot in life._dropped] == [slot]
        ray.get(own.client.actor.release.remote(slot))
        life._dropped.clear()


def test_a_trial_that_gives_up_or_dies_while_it_comes_in_leaves_nothing(build):
    with SharedLearner("given.up") as shared:
        one = build(twin_config(shared.name))
        config, spec = one.learner_group.config, one.learner_group._module_spec
        actor = found(shared.name)
        # A thread that is at work holds them up: they come in one after the other, and each is stopped at another point.
        actor.apply.remote(0, lambda learner: time.sleep(1))
        anchors = [Anchor() for _ in range(6)]
        refs = [actor.register.remote(config, spec, anchor.handle) for anchor in anchors]
        ray.cancel(refs[0])
        ray.get(refs[1])
        for ref in refs[2:]:
            ray.cancel(ref)
        cancelled = 0
        for ref in refs:
            try:
                answer = ray.get(ref)
            except (ray.exceptions.TaskCancelledError, ray.exceptions.RayTaskError):
                cancelled += 1
            else:
                # Not the number in the row: one that is cancelled before it begins has none.
                ray.get(actor.release.remote(answer["slot"]))
        assert cancelled >= 1
        until(lambda: shared.status()["held_bytes"].keys() == {0})
        assert shared.status()["trials"] == [0] and shared.status()["waiting"] == {}
        one.train()
        one.stop()
        # Dead before the thread has looked at it.
        two = build(twin_config(shared.name))
        number = two.learner_group.client.slot
        trial = ray.remote(num_cpus=0)(type("Trial", (), {"train": lambda self: time.sleep(1000)})).remote()
        ray.get(trial.__ray_ready__.remote())
        trial.train.remote()
        actor.apply.remote(number, lambda learner: time.sleep(2))
        ref = actor.register.remote(config, spec, trial)
        ray.kill(trial)
        with pytest.raises(RuntimeError, match="is dead"):
            ray.get(ref)
        until(lambda: shared.status()["held_bytes"].keys() == {number})
        assert shared.status()["trials"] == [number]
