"""Makes the name "MADDPG" known to RLlib and Tune."""

from ray.rllib.algorithms.registry import ALGORITHMS
from ray.tune.registry import register_trainable

NAME = "MADDPG"


def _load() -> tuple:
    from rllib_maddpg.algorithm.maddpg import MADDPG

    return MADDPG, MADDPG.get_default_config()


def register() -> None:
    """Registers MADDPG with Tune and with RLlib's table of algorithms; doing so again changes nothing.

    RLlib has no plugin discovery, so this runs when `rllib_maddpg` is imported.
    """
    from rllib_maddpg.algorithm.maddpg import MADDPG

    # RLlib registers all of its table again when it meets an unknown name, so ours has to stand there as well.
    ALGORITHMS[NAME] = _load
    register_trainable(NAME, MADDPG)
