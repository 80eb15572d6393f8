"""Deployment: actors of a checkpoint as files that run without Ray.

`export` writes them, `maddpg_actors` plays them. The latter is copied beside the files and imports nothing of this package.
"""
