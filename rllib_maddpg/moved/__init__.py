"""Names that modules of this package had, for users' programs and for checkpoints, which hold classes by their names.

This folder is a second place where `rllib_maddpg` looks for its modules.
"""
