"""Memory and places of real trials in the real shared learner."""

import gc

import pytest
import ray
from shared_trials import twin_config
from tiny_shared import found, status, until

from rllib_maddpg import SharedLearner

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
        assert own["held_bytes"] == {0: 60 * bytes_per_row + networks} and own["waiting"] == {}
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
