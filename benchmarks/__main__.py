"""`python -m benchmarks PART ...`, in a checkout."""

import sys

from rllib_maddpg.cli import main

sys.exit(main(["bench", *sys.argv[1:]]))
