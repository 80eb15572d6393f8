"""Members of the family that a user has written: with a config of its own, and without one."""

from rllib_maddpg import MADDPG, MADDPGConfig
from rllib_maddpg.config.kinds import BOOL
from rllib_maddpg.config.setting import Setting
from rllib_maddpg.learning.learner import MADDPGTorchLearner


class PlainMember(MADDPG):
    """Trains as MADDPG does, and brings no config."""


class OwnConfig(MADDPGConfig):
    """With a switch, and another default."""

    SETTINGS = (*MADDPGConfig.with_defaults(tau=0.02), Setting("own_switch", False, BOOL, "Does nothing."))

    def __init__(self, algo_class=None):
        super().__init__(algo_class or OwnMember)


class OwnMember(MADDPG):
    """Has settings of its own."""

    @classmethod
    def get_default_config(cls):
        return OwnConfig()


class SmallReplay(MADDPG):
    """Keeps few rows, unless told otherwise."""

    @classmethod
    def get_default_config(cls):
        return MADDPGConfig(cls).training(replay_buffer_config={"capacity": 5000})


class OwnLearner(MADDPGTorchLearner):
    """Learns as MADDPG's does."""


class OwnLearnerConfig(MADDPGConfig):
    """With another Learner."""

    def __init__(self, algo_class=None):
        super().__init__(algo_class or BringsLearner)

    def get_default_learner_class(self):
        return OwnLearner


class BringsLearner(MADDPG):
    """Has a Learner of its own."""

    @classmethod
    def get_default_config(cls):
        return OwnLearnerConfig()
