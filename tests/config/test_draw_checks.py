"""Settings of prioritized and n-step replay that are not allowed, and the columns that allowed ones ask for; no actor."""

import pytest
from users_replays import PlainReplay, PrioritizedReplay

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.config.own_columns import own_columns
from rllib_maddpg.replay import JointReplayBuffer, PrioritizedJointReplayBuffer
from rllib_maddpg.replay.choice import replay_class
from rllib_maddpg.replay.prioritized_shards import PrioritizedShardedReplayBuffer
from rllib_maddpg.rows.schema import Column

KIND = "PrioritizedJointReplayBuffer"


def config_for(n_step=1, fragment=None, **buffer):
    config = MADDPGConfig().environment("simple_spread").training(replay_buffer_config=buffer, n_step=n_step)
    return config if fragment is None else config.env_runners(rollout_fragment_length=fragment)


def error_of(config):
    with pytest.raises(ValueError) as error:
        config.validate()
    return str(error.value)


@pytest.mark.parametrize("shards", [0, 2])
@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"alpha": 1.5}, "alpha=1.5 is no number in [0, 1]. 0 draws uniformly; Schaul et al. (2016) use 0.6."),
        ({"alpha": -0.1}, "alpha=-0.1 is no number in [0, 1]."),
        ({"alpha": float("nan")}, "alpha=nan is no number in [0, 1]."),
        ({"alpha": True}, "alpha=True is no number"),
        ({"beta": 2}, "beta=2 is no number in [0, 1]. 0 corrects nothing; Schaul et al. (2016) use 0.4."),
        ({"beta": "x"}, "beta='x' is no number in [0, 1]."),
        ({"priority": "median"}, "priority='median' is not one of ['mean', 'max']: of the agents' TD errors in a row."),
        ({"priority": ["max"]}, "priority=['max'] is not one of"),
    ],
)
def test_values_out_of_range(shards, given, text):
    name = "PrioritizedShardedReplayBuffer" if shards else KIND
    found = error_of(config_for(type=KIND, num_shards=shards, **given))
    assert "`replay_buffer_config`=" in found and f"it must be what {name} accepts. {text}" in found


def test_a_key_of_another_class():
    assert "got an unexpected keyword argument 'alpha'" in error_of(config_for(alpha=0.5))


@pytest.mark.parametrize("n", [0, -1, 1.5, None, "3", True, 1001])
def test_numbers_of_steps_that_are_none(n):
    with pytest.raises(ValueError, match=r"`n_step`=.* is not allowed: it must be a whole number .*1: one-step targets"):
        config_for(n_step=n).validate()


def test_more_steps_than_a_rollout_has_with_shards():
    config_for(n_step=5, fragment=5, num_shards=2).validate()
    config_for(n_step=6, fragment=5).validate()
    config_for(n_step=6, fragment=5, num_shards=1).validate()
    for kind in ("JointReplayBuffer", KIND):
        found = error_of(config_for(n_step=6, fragment=5, num_shards=2, type=kind))
        assert found == (
            "`n_step`=6 is not allowed: it must be at most the 5 env steps that an env makes in a rollout, with 2 shards. Rows "
            "of the next rollout lie in another shard: lower it, raise `rollout_fragment_length`, or set `num_shards` to 0."
        )


class SaysSo(PlainReplay):
    """Fills the columns itself."""

    draws_n_steps = weighs_rows = True


class MeansNothing(PlainReplay):
    """What it is to be told is none."""

    feedback_of = "median"


def test_a_users_class_says_whether_it_draws_several_steps():
    found = error_of(config_for(n_step=2, type=PlainReplay))
    assert found.startswith(
        "`n_step`=2 is not allowed: it must be 1 with this `replay_buffer_config['type']`. PlainReplay draws "
    )
    assert f"Use one of ['JointReplayBuffer', 'ShardedReplayBuffer', '{KIND}', " in found and "`draws_n_steps`" in found
    # One that is made of ours does.
    for cls in (SaysSo, PrioritizedReplay):
        config_for(n_step=2, type=cls).validate()
    assert "a class whose `feedback_of` is one of ['mean', 'max']" in error_of(config_for(type=MeansNothing))


def names(config):
    return [(column.name, column.per, column.width, column.stored) for column in own_columns(config)]


def test_columns_are_there_where_they_are_asked_for():
    weights = ("weights", "env", 1, False)
    assert names(config_for()) == names(config_for(type=PlainReplay)) == names(config_for(type="nowhere.Replay")) == []
    assert names(config_for(type=KIND)) == names(config_for(type=KIND, num_shards=2)) == [weights]
    steps = [("later_rewards", "agents", 3, False), ("steps", "env", 1, False)]
    assert names(config_for(n_step=4)) == steps and names(config_for(n_step=4, type=SaysSo)) == [weights, *steps]
    classes = [replay_class(config_for(type=kind).replay_buffer_config) for kind in ("JointReplayBuffer", KIND)]
    assert classes == [JointReplayBuffer, PrioritizedJointReplayBuffer]
    assert replay_class({"type": KIND, "num_shards": 1}) is PrioritizedShardedReplayBuffer


def test_users_columns_may_have_these_names_where_nothing_else_has_them():
    mine = [Column("weights", "env", source=lambda infos: 1.0)]
    config_for().training(extra_columns=mine).validate()
    found = error_of(config_for(type=KIND).training(extra_columns=mine))
    assert "Rows have a 'weights' already." in found
