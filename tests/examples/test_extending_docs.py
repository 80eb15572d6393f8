"""docs/extending.md: its excerpts are what the examples have, its other blocks run, its errors are those that are raised."""

import re
import sys

import numpy as np
import pytest
import torch
from paths import EXTENDING, ROOT
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

sys.path.insert(0, str(EXTENDING))

from context_column import make_config, wind_of
from reward_model import RewardModelConfig, RewardModelModule

from rllib_maddpg import MADDPGConfig, MADDPGTorchLearner, MADDPGTorchRLModule
from rllib_maddpg.learning.stages import LossStage
from rllib_maddpg.modules.specs import CRITIC, NetworkSpec
from rllib_maddpg.rows.schema import Column

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EXCERPTS = [block for block in BLOCKS if block.startswith("# examples/")]
WHOLE = [block for block in BLOCKS if not block.startswith("# examples/")]


@pytest.mark.parametrize("block", EXCERPTS)
def test_excerpts_are_in_the_files_that_they_name(block):
    first, text = block.split("\n", 1)
    assert text in (ROOT / first.removeprefix("# ")).read_text()


def test_every_member_is_there():
    files = {block.split("\n", 1)[0].removeprefix("# examples/extending/") for block in EXCERPTS}
    assert files == {path.name for path in EXTENDING.glob("*.py")} and len(EXCERPTS) >= 8 and len(WHOLE) == 2
    assert "](docs/extending.md)" in (ROOT / "README.md").read_text()
    for path in re.findall(r"`((?:examples|tests)/[\w/]+\.py)`", PAGE) + re.findall(r"docs/\w+\.md", PAGE):
        assert (ROOT / path).is_file(), path


def run(block, build):
    scope = {"__name__": "documented"}
    exec(block, scope)
    config = scope["config"].rl_module(model_config={"fcnet_hiddens": [8]}).debugging(seed=0)
    config.training(num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=32, num_env_steps_per_update=25)
    algo = build(config.reporting(min_sample_timesteps_per_iteration=100))
    return scope, algo, algo.train()["learners"]["agent_0"]


class TwoRows:
    """Of one agent, which is alive in both."""

    def __getitem__(self, column):
        return torch.ones(1, 1, 2)

    def count(self, column):
        return torch.tensor([2.0])


@pytest.mark.usefixtures("ray_session")
def test_the_loss_of_the_users(build):
    (block,) = [block for block in WHOLE if "critic_loss" in block]
    scope, _, metrics = run(block, build)
    assert float(metrics["critic_loss"]) > 0.0
    rows = TwoRows()
    q, target = torch.tensor([[[1.0, -2.0]]]), torch.zeros(1, 1, 2)
    assert scope["CautiousLearner"].critic_loss(None, q, target, rows, None).tolist() == [(2 * 1 + 4) / 2]


@pytest.mark.usefixtures("ray_session")
def test_the_replay_buffer_of_the_users(build):
    (block,) = [block for block in WHOLE if "RecentReplay" in block]
    scope, algo, metrics = run(block, build)
    buffer = algo.replay_buffer
    assert type(buffer) is scope["RecentReplay"] and buffer.recent == 5_000 and float(metrics["critic_loss"]) > 0.0
    buffer.recent = 10
    places = buffer.choose(64)
    assert set(places[:32]) == set(range(90, 100)) and len(set(places[32:]) & set(range(90))) > 10
    assert np.issubdtype(places.dtype, np.integer) and len(buffer) == 100


def errors():
    """The texts of errors as users meet them, in the page's order."""

    class MyModule(MADDPGTorchRLModule):
        def networks(self):
            return [*super().networks(), NetworkSpec("target_critic", CRITIC, torch.nn.Identity)]

    class MyLearner(MADDPGTorchLearner):
        @classmethod
        def stages(cls, config):
            return [LossStage(role="modle", losses=cls.compute_critic_losses)]

    spread = MADDPGConfig().environment("simple_spread")
    modelled = RewardModelConfig().environment("simple_spread")
    return [
        spread.copy().rl_module(rl_module_spec=RLModuleSpec(module_class=MyModule)),
        modelled.copy().training(learner_class=MyLearner),
        make_config(sees_wind=True).training(extra_columns=[]),
        make_config(sees_wind=True).training(extra_columns=[Column("wind", "env", width=0, at_next=True, source=wind_of)]),
        modelled.copy().training(model_share=1.5),
    ]


def test_the_errors_are_those_that_are_raised():
    (block,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    told = block.splitlines()
    configs = errors()
    assert len(told) == len(configs) == 5
    for text, config in zip(told, configs, strict=True):
        with pytest.raises(ValueError) as error:
            config.validate()
        assert " ".join(str(error.value).split()) == text
    assert RewardModelModule.__name__ in (EXTENDING / "reward_model.py").read_text()


@pytest.mark.usefixtures("ray_session")
def test_what_a_learner_keeps_is_saved_if_its_state_has_it(build, tmp_path):
    algo = build(counting())
    algo.train()
    counted = algo.learner_group.foreach_learner(lambda learner: learner.counted)
    path = algo.save_to_path(str(tmp_path))
    again = build(counting())
    again.restore_from_path(path)
    assert next(iter(counted)).get() == again.learner_group._learner.counted > 0


class CountingLearner(MADDPGTorchLearner):
    counted = 0

    def td_target(self, next_q, rows, settings):
        self.counted += 1
        return super().td_target(next_q, rows, settings)

    def get_state(self, *args, **kwargs):
        return {**super().get_state(*args, **kwargs), "counted": self.counted}

    def set_state(self, state):
        super().set_state(state)
        self.counted = state.get("counted", self.counted)


def counting():
    config = make_config(sees_wind=False).training(learner_class=CountingLearner)
    config.training(num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=32)
    return config.reporting(min_sample_timesteps_per_iteration=100)
