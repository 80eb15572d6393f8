"""Columns that a stage adds to an update's rows for later stages."""

import pytest
import torch
from learner_games import build, config_of, env_steps, multi_agent_batch
from reference.maddpg import Box, random_game

from rllib_maddpg import MADDPGTorchLearner
from rllib_maddpg.learning.stages import Stage
from rllib_maddpg.modules.specs import CRITIC

ROWS = 16


class AddStage(Stage):
    """A step that is neither losses nor targets."""

    def run(self, learner, ctx):
        learner.add(ctx)
        return True


class AddingLearner(MADDPGTorchLearner):
    """Adds `doubled` before the critics learn, which look at what they find."""

    @classmethod
    def stages(cls, config):
        return [AddStage(), *super().stages(config)]

    def add(self, ctx):
        for group in ctx.groups(CRITIC):
            if not self.config.learner_config_dict.get("not_at_all"):
                ctx.add_column(group, **self.columns(ctx, group))

    def columns(self, ctx, group):
        return {"doubled": 2.0 * ctx.rows(group)["rewards"]}

    def td_target(self, next_q, rows, settings):
        self.found = rows["doubled"]
        self.rewards = rows["rewards"]
        return self.found


def game_of(**kinds):
    given = {"n_agents": 4, "kinds": [Box(2)], "obs_dim": 2, "shared": False, "frozen": False, "dead": False, "waiting": False}
    return random_game(3, **{**given, **kinds})


def update(cls, **config):
    game = game_of()
    learner = build(config_of(game).training(learner_class=cls, learner_config_dict=config), game)
    learner.update(batch=multi_agent_batch(game, game.batch(ROWS, 0)), timesteps=env_steps(1))
    return learner


def test_later_stages_find_it():
    learner = update(AddingLearner)
    assert learner.found.shape == (4, 1, ROWS) and float(learner.found.abs().min()) > 0.0
    torch.testing.assert_close(learner.found, 2.0 * learner.rewards)


def test_groups_may_be_others():
    """A module by itself in one group finds what was added for a larger group; those for which nothing was added, zeros."""

    class Half(AddingLearner):
        def add(self, ctx):
            (group,) = ctx.groups(CRITIC)
            ctx.add_column(group, doubled=2.0 * ctx.rows(group)["rewards"])
            del ctx._added["doubled"]["m2"]

    learner = update(Half)
    expected = 2.0 * learner.rewards
    expected[2] = 0.0
    torch.testing.assert_close(learner.found, expected)


def test_it_lasts_for_one_update():
    class Once(AddingLearner):
        def add(self, ctx):
            if self._num_updates == 1:
                super().add(ctx)

    game = game_of()
    learner = build(config_of(game).training(learner_class=Once), game)
    batch = multi_agent_batch(game, game.batch(ROWS, 0))
    learner.update(batch=batch, timesteps=env_steps(1))
    with pytest.raises(ValueError, match="Rows have no column 'doubled', and no stage of this update has added one"):
        learner.update(batch=batch, timesteps=env_steps(2))


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"rewards": torch.zeros(4, 1, ROWS)}, "`add_column`: rows have a column 'rewards' already. Give it another name."),
        ({"acts": torch.zeros(4, 1, ROWS)}, "`add_column`: rows have a column 'acts' already"),
        (
            {"doubled": torch.zeros(4, ROWS)},
            r"'doubled' is \[4, 16\], not \[4, 1, 16\] \(modules, agents of each",
        ),
        ({"doubled": torch.zeros(1, 1, ROWS)}, r"'doubled' is \[1, 1, 16\], not \[4, 1, 16\]"),
    ],
)
def test_what_does_not_fit_is_named(columns, text):
    class Wrong(AddingLearner):
        def columns(self, ctx, group):
            return columns

    with pytest.raises(ValueError, match=text):
        update(Wrong)


def test_an_unknown_column_is_named_with_those_that_are_there():
    with pytest.raises(ValueError, match=r"Rows have no column 'doubled', .*\. There are: \['obs', 'actions', .*'acts'"):
        update(AddingLearner, not_at_all=True)
