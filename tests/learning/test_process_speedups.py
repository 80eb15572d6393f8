"""A Learner leaves its process as it is, unless it is told otherwise. Each test needs a process of its own."""

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.ray
SCRIPT = """
    import ctypes
    import ray, torch
    from rllib_maddpg import MADDPGConfig

    class Counts(ctypes.Structure):  # `mallinfo` of malloc.h
        _fields_ = [(name, ctypes.c_int) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]

    libc = ctypes.CDLL(None)
    libc.mallinfo.restype, libc.malloc.restype, libc.malloc.argtypes = Counts, ctypes.c_void_p, [ctypes.c_size_t]

    def is_mapped():
        before = libc.mallinfo().hblks
        libc.malloc(31 * 2**20)
        return libc.mallinfo().hblks - before

    config = MADDPGConfig().environment("simple_spread").debugging(seed=0).training({arguments})
    config.training(num_steps_sampled_before_learning_starts=0, train_batch_size_per_learner=16, num_env_steps_per_update=20)
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    algo = config.reporting(min_sample_timesteps_per_iteration=40).build_algo()
    assert algo.train()["learners"]["agent_0"]["num_module_steps_trained_lifetime"] >= 32
    assert torch.are_deterministic_algorithms_enabled()  # by RLlib, because of the seed
    print(torch.utils.deterministic.fill_uninitialized_memory, torch.empty(3).isnan().all().item(), is_mapped())
"""


def printed(arguments):
    script = textwrap.dedent(SCRIPT).replace("{arguments}", arguments)
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", ["True", "True", "1"]), ("process_wide_speedups=True", ["False", "False", "0"])],
)
def test_memory_of_the_process_is_touched_only_where_that_is_asked_for(arguments, expected):
    """torch fills fresh memory with NaN beside a seed, and malloc maps a block of 31 MiB (`hblks`), or neither."""
    assert printed(arguments) == expected
