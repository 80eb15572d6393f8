"""Marks of tests that not each version of Ray can pass."""

import pytest

from rllib_maddpg.ray_compat import why_not_restored

# What lies in tests/data was written with Ray 2.60.
READS_NEWER = pytest.mark.skipif(
    why_not_restored("2.60.0") is not None, reason="this Ray refuses checkpoints of newer ones: test_ray_versions.py"
)
