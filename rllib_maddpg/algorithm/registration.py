"""Makes the names of the family's members known to RLlib and Tune."""

from functools import partial

from ray.rllib.algorithms.registry import ALGORITHMS
from ray.tune.registry import register_trainable


def _load(name: str) -> tuple:
    from rllib_maddpg.algorithm.members import MEMBERS

    return MEMBERS[name], MEMBERS[name].get_default_config()


def register() -> None:
    """Registers MADDPG and its presets with Tune and RLlib's table of algorithms; doing so again changes nothing.

    RLlib has no plugin discovery, so this runs when `rllib_maddpg` is imported.
    """
    from rllib_maddpg.algorithm.members import MEMBERS

    for name, cls in MEMBERS.items():
        # RLlib registers all of its table again when it meets an unknown name, so ours have to stand there as well.
        ALGORITHMS[name] = partial(_load, name)
        register_trainable(name, cls)
