"""What happens to replay shards."""

import os
import signal

import pytest
import ray


def end_shard(buffer, k):
    """Ends the shard's process; returns when Ray knows."""
    pid = ray.get(buffer._shards[k].__ray_call__.remote(lambda shard: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get([buffer._shards[k].size.remote() for _ in range(200)])
