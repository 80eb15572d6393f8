"""The column from outside the package: it is in the rows, critics see it and actors do not, and it teaches them something."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from paths import EXTENDING
from runners import make_runner, rows_of

sys.path.insert(0, str(EXTENDING))

import context_column
from context_column import AGENTS, WindyPlane, make_config, wind_of

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.modules.views import View
from rllib_maddpg.rows.schema import Column

COLUMN = Column("wind", "env", width=2, at_next=True, source=wind_of)


def test_the_wind_moves_the_agents_and_is_another_one_in_each_episode():
    runner = make_runner(
        WindyPlane, {"wind": 0.5}, num_envs=2, extra_columns=[COLUMN], num_steps_sampled_before_learning_starts=0
    )
    rows = rows_of([runner.sample(num_timesteps=2)[0] for _ in range(60)])
    wind = rows["wind"]
    np.testing.assert_array_equal(wind, rows["new_wind"])
    assert len(np.unique(wind, axis=0)) == len(np.unique(rows["episodes"])) == 6
    # What both agents observe, `[120, agents, agents and their places]`; where they are next.
    places, following = rows["obs"].reshape(120, 2, 4), rows["new_obs"].reshape(120, 2, 4)
    np.testing.assert_array_equal(places[:, 0], places[:, 1])
    moved = places[:, 0] + 0.3 * rows["actions"] + np.tile(wind, 2)
    np.testing.assert_allclose(following[:, 0], moved, atol=1e-5)
    distance = np.abs(following[:, 0].reshape(120, 2, 2)).sum(-1)
    np.testing.assert_allclose(rows["rewards"], -distance, atol=1e-5)
    assert rows["truncateds"].sum() == 2 * 6 and not rows["terminateds"].any()


@pytest.mark.usefixtures("ray_session")
def test_critics_see_it_and_actors_do_not(build):
    config = make_config(sees_wind=True).training(num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=32)
    algo = build(config.reporting(min_sample_timesteps_per_iteration=100))
    algo.train()
    learner = algo.learner_group._learner
    module = learner.module["left"].unwrapped()
    assert module.actor.linears[0].in_features == 4
    assert module.critic.linears[0].in_features == 2 * 4 + 2 + 2 * 2
    batch = algo.replay_buffer.latest(32)
    view = module.critic_view
    before = view.inputs(batch, ("left", "right")).values
    torch.testing.assert_close(before[:, 8:10], batch.columns["wind"])
    batch.columns["wind"][:] += 1.0
    after = view.inputs(batch, ("left", "right")).values
    with torch.no_grad():
        assert float((module.critic(before) - module.critic(after)).abs().min()) > 0.0
    plain = build(make_config(sees_wind=False).reporting(min_sample_timesteps_per_iteration=100))
    assert plain.learner_group._learner.module["left"].unwrapped().critic.linears[0].in_features == 12


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ([], "view 'all and wind' has a column 'wind', but `extra_columns` has only []"),
        ([Column("wind", "env", width=2, source=wind_of)], "a column 'wind' without a value at x', which targets need"),
        ([Column("wind", "env", width=2, at_next=True)], "`extra_columns['wind'].source`=None is not allowed"),
        ([Column("obs", "env", source=wind_of)], "`extra_columns[0].name`='obs' is not allowed"),
        (["wind"], "`extra_columns`=['wind'] is not allowed"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_starts(columns, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        make_config(sees_wind=True).training(extra_columns=columns).validate()


def test_tune_gives_it_as_plain_keys():
    """`tune.grid_search([...])` may go over views: a trial's config is a dict."""
    given = {"critic_view": View("all and wind", columns=("wind",)), "extra_columns": [COLUMN], "env": WindyPlane}
    config = MADDPGConfig().update_from_dict(given)
    config.validate()
    assert config.critic_view.columns == ("wind",) and sorted(config.policies) == AGENTS


@pytest.mark.slow
@pytest.mark.ray
def test_it_teaches_the_critics_something():
    """The program as it stands; with the wind the TD error is about a third."""
    command = [sys.executable, str(EXTENDING / "context_column.py"), "--env-steps", "6000", "--seeds", "1"]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500).stdout
    told = dict(re.findall(r"^seed 0, +(with|without) the wind: TD error ([\d.]+), return -[\d.]+$", out, re.MULTILINE))
    assert float(told["with"]) < 0.7 * float(told["without"]), told


@pytest.mark.usefixtures("ray_session")
def test_there_is_nothing_to_learn_where_no_wind_blows():
    """The control: without a wind, whose column is all zeros, both errors are about the same."""
    errors = [context_column.train(make_config(sees, wind=0.0), 4000)[0] for sees in (True, False)]
    assert 0.7 < errors[0] / errors[1] < 1.4, errors
