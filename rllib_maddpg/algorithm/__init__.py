"""`MADDPG` as RLlib runs it, its checkpoints, and its name in RLlib and Tune."""
