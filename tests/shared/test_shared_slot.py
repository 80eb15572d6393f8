"""A slot by itself, and on which device it may learn."""

import logging

import gymnasium as gym
import numpy as np
import pytest
import torch
from learner_games import SpacesEnv, spaces_of
from users_replays import PlainReplay

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning.slot_updates import SlotUpdates
from rllib_maddpg.shared import actor
from rllib_maddpg.shared.slot import Slot, config_there


class Keeping(SlotUpdates):
    """Lets nobody go."""

    def remove(self, learner):
        raise RuntimeError("out of memory")


def test_a_replay_buffer_is_stopped_also_if_the_learner_cannot_be_taken_out():
    spaces = {"a": gym.spaces.Box(-1, 1, (3,), np.float32)}
    config = MADDPGConfig().environment(SpacesEnv, env_config={"obs_spaces": spaces, "action_spaces": spaces})
    config.multi_agent(policies={"a"}, policy_mapping_fn=lambda agent, *args, **kwargs: agent)
    config.training(replay_buffer_config={"type": PlainReplay, "capacity": 2000})
    config.validate()
    spec = config.get_multi_rl_module_spec(spaces=spaces_of(config))
    slot = Slot(config_there(config, "cpu"), spec, Keeping())
    replay = slot.replay
    with pytest.raises(RuntimeError, match="out of memory"):
        slot.close()
    assert replay.stopped == 1


@pytest.mark.parametrize("has_cuda", [True, False])
def test_a_gpu_that_torch_does_not_see_is_told_of(monkeypatch, caplog, has_cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    with caplog.at_level(logging.WARNING, actor.logger.name):
        assert actor.device_of("default", 0) == "cpu"
        assert not caplog.records
        assert actor.device_of("default", 0.5) == ("cuda" if has_cuda else "cpu")
    assert ("it learns on the CPU, and nobody else can use that GPU" in caplog.text) is not has_cuda
