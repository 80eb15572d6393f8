"""Starts a Ray cluster of so many nodes on this machine, prints its address, and ends it when its standard input is closed.

A process of its own: what runs on the cluster connects to it as a user's script would.
"""

import os
import sys
import tempfile

# Ray notes the newest cluster of a machine in its folder, and any `ray.init()` without an address would join it.
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray_", dir="/tmp")

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    nodes, cpus = map(int, sys.argv[1:])
    cluster = Cluster(True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=cpus)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()
