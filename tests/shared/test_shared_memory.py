"""Who gets memory of a shared learner, who waits, and who never fits. Networks are counted against real ones."""

import asyncio
import logging
import re

import pytest
import torch
from learner_games import spaces_of

from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.shared import memory
from rllib_maddpg.shared.memory import NETWORK_COPIES, Gone, Memory, SlotNeed, network_bytes, slot_need


def need(num_bytes, networks=0):
    return SlotNeed(num_bytes - networks, 1, networks)


async def settle():
    """All that can go on has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


def taking(own, slot, num_bytes, order):
    async def take():
        await own.take(slot, need(num_bytes))
        order.append(slot)

    return asyncio.get_running_loop().create_task(take())


def test_those_who_fit_get_in_at_once():
    async def scenario():
        own = Memory(budget=100)
        await own.take(0, need(60, networks=20))
        await own.take(1, need(40))
        assert own.free == 0
        assert own.status()["held_bytes"] == {0: 60, 1: 40}
        own.give(0)
        own.give(0)
        assert own.free == 60

    asyncio.run(scenario())


def test_the_others_wait_in_order_of_arrival():
    async def scenario():
        own, order = Memory(budget=100), []
        await own.take(0, need(50))
        await own.take(1, need(50))
        tasks = [taking(own, slot, num_bytes, order) for slot, num_bytes in ((2, 80), (3, 10), (4, 20))]
        await settle()
        own.give(0)
        await settle()
        # The small ones would fit, but came later.
        assert order == [] and list(own.status()["waiting"]) == [2, 3, 4]
        own.give(1)
        await settle()
        assert order == [2, 3] and own.free == 10
        own.give(3)
        await settle()
        assert order == [2, 3, 4]
        await asyncio.gather(*tasks)
        assert own.status()["waiting"] == {}

    asyncio.run(scenario())


def test_slots_count_too():
    async def scenario():
        own, order = Memory(budget=100, max_slots=1), []
        await own.take(0, need(10))
        task = taking(own, 1, 10, order)
        await settle()
        assert order == [] and "all 1 slots are taken (`max_slots`)" in own.why_waits(1)
        own.give(0)
        await task

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["given back", "cancelled"])
def test_one_that_leaves_the_queue_holds_nobody_up(how):
    async def scenario():
        own, order = Memory(budget=100), []
        await own.take(0, need(50))
        first, second = taking(own, 1, 80, order), taking(own, 2, 50, order)
        await settle()
        if how == "cancelled":
            first.cancel()
        else:
            own.give(1)
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else Gone):
            await first
        await second
        assert order == [2] and own.status()["held_bytes"] == {0: 50, 2: 50}

    asyncio.run(scenario())


def test_one_that_never_fits():
    async def scenario():
        own = Memory(budget=2**30)
        with pytest.raises(
            ValueError, match=re.escape("`replay_buffer_config['capacity']`=1000000 rows of 2000 bytes")
        ) as error:
            await own.take(0, SlotNeed(1_000_000, 2000, 2**20))
        text = str(error.value)
        assert "need 1.86 GiB when full, and the networks 1.00 MiB" in text
        assert "has 1.00 GiB on this machine for all its trials" in text
        rows = int(re.search(r"Set a capacity of at most (\d+)\.", text)[1])
        await own.take(0, SlotNeed(rows, 2000, 2**20))
        assert own.status()["waiting"] == {}

    asyncio.run(scenario())


def test_networks_alone_can_be_too_large():
    with pytest.raises(ValueError, match="smaller networks"):
        asyncio.run(Memory(budget=100).take(0, SlotNeed(1, 1, 200)))


def test_a_line_says_why_and_who_has_it(caplog):
    async def scenario():
        own = Memory(budget=2**30)
        await own.take(0, need(2**29))
        await own.take(1, need(2**28))
        tasks = [taking(own, slot, 2**29, []) for slot in (2, 3)]
        await settle()
        for task in tasks:
            task.cancel()

    with caplog.at_level(logging.WARNING, memory.logger.name):
        asyncio.run(scenario())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "needs 0.50 GiB (a ring of 536870912 rows of 1 bytes, networks of 0.00 MiB)" in lines[0]
    assert "0.25 GiB of 1.00 GiB on this machine are free; held: slot 0 0.50 GiB, slot 1 0.25 GiB." in lines[0]
    assert lines[1].endswith("1 came before it.")


def test_rings_of_the_cpu_take_memory_as_they_are_written():
    """The machine's free memory falls as rows are written: that is the trial's own claim, and is counted once."""
    free, written = [1000], {}

    async def scenario():
        own = Memory(budget=lambda: free[0], written=lambda slot: written.get(slot, 0))
        await own.take(0, need(600))
        assert (own.room, own.free) == (1000, 400)
        written[0], free[0] = 600, 400
        assert (own.room, own.free) == (1000, 400)
        free[0] = 150  # another process took some
        task = taking(own, 1, 200, order := [])
        await settle()
        assert order == [] and own.free == 150
        own.give(0)
        free[0] += written.pop(0)
        await task
        assert own.free == 550

    asyncio.run(scenario())


def test_one_that_waits_for_other_processes_looks_again(monkeypatch):
    monkeypatch.setattr(memory, "LOOK_S", 0.01)
    free = [100]

    async def scenario():
        own, order = Memory(budget=lambda: free[0]), []
        await own.take(0, need(50))
        free[0] = 60
        task = taking(own, 1, 50, order)
        await settle()
        assert order == []
        free[0] = 100
        await asyncio.wait_for(task, 60)

    asyncio.run(scenario())


def test_nobody_waits_for_nobody():
    """What fitted when it came does not any more, and no trial is there that could end."""
    free = [100]

    async def scenario():
        own = Memory(budget=lambda: free[0])
        await own.take(0, need(100))
        task = taking(own, 1, 100, [])
        await settle()
        free[0] = 50
        own.give(0)
        with pytest.raises(ValueError, match="capacity"):
            await task

    asyncio.run(scenario())


def test_the_machine_is_measured():
    free = memory.psutil.virtual_memory().available
    assert Memory().room == pytest.approx((1 - memory.RESERVE) * free, rel=0.2)


@pytest.mark.parametrize(("gpus", "room"), [(1.0, 720), (0.9, 720), (0.5, 450), (0.1, 90)])
def test_a_fraction_of_a_gpu_has_that_fraction_of_its_memory(monkeypatch, gpus, room):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (800, 1000))
    assert Memory("cuda", gpus=gpus).room == room


@pytest.mark.parametrize("shared", [False, True])
def test_need_of_a_real_learner(shared):
    config = small_config(shared)
    learner = config.build_learner(spaces=spaces_of(config))
    spec = config.get_multi_rl_module_spec(spaces=spaces_of(config))
    state = torch.random.get_rng_state()
    found = slot_need(config, spec)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert isinstance(learner.schema, RowSchema)
    assert (found.capacity, found.bytes_per_row) == (2000, learner.schema.bytes_per_row)
    moments = 0
    for _, optimizer in learner._named_optimizers.items():
        moments += sum(2 * p.numel() * p.element_size() for group in optimizer.param_groups for p in group["params"])
    own = sum(t.numel() * t.element_size() for m in learner.module.values() for t in m.unwrapped().state_dict().values())
    assert network_bytes(learner.module) == own + moments > 1000
    assert found.networks == NETWORK_COPIES * (own + moments)


def small_config(shared):
    import gymnasium as gym
    import numpy as np
    from learner_games import SpacesEnv

    from rllib_maddpg import MADDPGConfig

    spaces = {a: gym.spaces.Box(-1, 1, (3,), np.float32) for a in ("a", "b")}
    config = MADDPGConfig().environment(SpacesEnv, env_config={"obs_spaces": spaces, "action_spaces": spaces})
    policies = {"p"} if shared else {"a", "b"}
    config.multi_agent(policies=policies, policy_mapping_fn=lambda agent, *args, **kwargs: "p" if shared else agent)
    config.rl_module(model_config={"fcnet_hiddens": [8, 8]}).training(replay_buffer_config={"capacity": 2000}, twin_q=True)
    config.validate()
    return config
