"""`python -m rllib_maddpg` is `rllib-maddpg`."""

import sys

from rllib_maddpg.cli.program import main

sys.exit(main())
