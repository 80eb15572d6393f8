"""The networks of MADDPG's modules, alone and stacked, and modules that act by a rule."""
