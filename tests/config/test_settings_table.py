"""Every attribute of RLlib's config is used, passed on or refused; a new Ray with a new one is noticed here."""

from itertools import combinations

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.old_settings import OLD_SETTINGS
from rllib_maddpg.config.rllib_settings import CHECKED_ELSEWHERE, PASSED, REFUSED


def test_each_setting_of_rllib_is_in_one_table():
    attributes = set(vars(AlgorithmConfig()))
    tables = [set(CHECKED_ELSEWHERE), set(PASSED), set(REFUSED), set(OLD_SETTINGS) & attributes]
    for one, other in combinations(tables, 2):
        assert one & other == set()
    assert set.union(*tables) == attributes
