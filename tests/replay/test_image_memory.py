"""Memory of rings of images: what is asked for in advance, and what a filled one takes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from image_env import ImageEnv
from pairs_game import PairsGame
from runners import make_runner

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.replay.buffer import check_memory
from rllib_maddpg.shared.memory import Memory, SlotNeed

SMALLER = (
    r"of at most \d+, or make the images smaller by SuperSuit's `color_reduction_v0` and `resize_v1`: env_config=\{'wrappers'"
)


def test_a_filled_ring_takes_what_was_announced():
    """Of each image once, and of one in ten twice: so it is where episodes have ten steps. It may be all of them at most."""
    script = Path(__file__).parents[1] / "helpers" / "filled_ring.py"
    done = subprocess.run([sys.executable, script, "10000", "10", "1"], stdout=subprocess.PIPE, check=True, text=True)
    announced, *resident = map(int, done.stdout.splitlines()[-1].split())
    # Codes of 4, five numbers of the agent, episode and t; and the links.
    rest = 4 * (4 + 5 + 2) + 8
    assert announced == 10_000 * (7056 + 708 + rest)
    expected = [10_000 * (7056 * share + rest) for share in (1.1, 2.0)]
    # A fragment and what the heap keeps: some MiB of 75.
    np.testing.assert_allclose(resident, expected, rtol=0.1)


def test_what_is_checked_before_anything_starts():
    """Bytes of a row as the ring has them, and what to do where they are too many."""
    # Images of 145 bytes in 37 words, codes of 9, five numbers of three agents, episode and t; four words more, and the links.
    size = 4 * (37 + 9 + 15 + 2) + 4 * 4 + 8
    ring = make_runner(ImageEnv).schema.bytes_per_kept_row
    capacity = 2 * psutil.virtual_memory().total // size
    config = MADDPGConfig().environment(ImageEnv).training(replay_buffer_config={"capacity": capacity})
    with pytest.raises(ValueError, match=rf"={capacity} rows of {size} bytes need .* {SMALLER}"):
        config.validate()
    assert ring == size


def test_rows_of_turns_are_counted_with_both_images():
    """Which most of them keep: an agent's next turn is some rows later."""
    # Two images of 120 bytes in 30 words, codes of 8, eight numbers of three agents, episode and t; and the links.
    size = 4 * (2 * 30 + 8 + 24 + 2) + 8
    capacity = 2 * psutil.virtual_memory().total // size
    config = MADDPGConfig().environment(PairsGame, env_config={"images": True, "turns": True})
    with pytest.raises(ValueError, match=rf"={capacity} rows of {size} bytes need .* {SMALLER}"):
        config.training(replay_buffer_config={"capacity": capacity}).validate()
    runner = make_runner(PairsGame, {"images": True, "turns": True}, num_steps_sampled_before_learning_starts=0)
    ring = JointReplayBuffer(runner.schema, 1000)
    ring.add(runner.sample(num_timesteps=60, random_actions=True)[0])
    runner.stop()
    assert ring.bytes_per_row == size and ring._next_obs.alone > len(ring) / 2 > 20


def test_what_messages_say():
    with pytest.raises(ValueError, match=r"Set a capacity of at most \d+\.$"):
        check_memory(10**12, 10**4)
    with pytest.raises(ValueError, match=SMALLER + r".*\}\]\]\}\.$"):
        check_memory(10**12, 10**4, has_images=True)
    for has_images, text in ((False, r"of at most 79\.$"), (True, r"of at most 79, or make the images smaller by")):
        with pytest.raises(ValueError, match=text):
            Memory(budget=1000)._check(SlotNeed(100, 10, 10, has_images))
