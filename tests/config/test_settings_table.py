"""Every attribute of RLlib's config is in the table, passed on or refused; methods, README and table say the same.

A new Ray with a new setting is noticed here.
"""

import inspect
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.config.kinds import RATE, between, one_of
from rllib_maddpg.config.markdown import END, START, settings_table, with_table
from rllib_maddpg.config.old_settings import OLD_SETTINGS
from rllib_maddpg.config.rllib_settings import CHECKED_ELSEWHERE, PASSED, REFUSED
from rllib_maddpg.config.setting import Setting
from rllib_maddpg.config.text_settings import SHORT_NAMES
from rllib_maddpg.ray_compat import TESTED, since
from rllib_maddpg.sampling.exploration import exploration_settings

README = Path(__file__).parents[2] / "README.md"
TABLE = MADDPGConfig.table()


def test_each_setting_of_rllib_is_in_one_table():
    attributes = set(vars(AlgorithmConfig()))
    tables = [set(CHECKED_ELSEWHERE), set(PASSED), set(REFUSED), set(OLD_SETTINGS) & attributes, set(TABLE) & attributes]
    for one, other in combinations(tables, 2):
        assert one & other == set()
    known = set.union(*tables)
    assert attributes <= known
    if since(TESTED[-1]):
        assert known - attributes == {"logger_config", "logger_creator"}  # of older Rays


@pytest.mark.parametrize("value", [np.zeros(3), np.array(["auto"] * 2), float("nan"), {}, [[]], object(), print], ids=range(7))
def test_a_check_takes_any_object(value):
    """Comparing an array with a word has no one answer."""
    kinds = {key: setting.check for key, setting in TABLE.items()} | PASSED
    accepted = {key for key, kind in kinds.items() if kind.accepts(value)}
    assert len(accepted) < len(kinds) / 4, accepted


def test_each_setting_has_one_row_and_its_default():
    assert len(MADDPGConfig.SETTINGS) == len(TABLE) > 40
    config = MADDPGConfig()
    for key, setting in TABLE.items():
        assert setting.check is not None and setting.check.accepts(getattr(config, key)), key
        if setting.default is not NotProvided:
            assert getattr(config, key) == setting.default
    # What is no constant of RLlib's, and not in the table.
    own = {key for key, value in vars(config).items() if value is not getattr(AlgorithmConfig(), key, NotProvided)}
    assert own - set(TABLE) >= {"env_runner_cls", "policy_mapping_fn", "algo_class"}
    # No setting, but what `validate()` finds.
    assert vars(config).keys() - vars(AlgorithmConfig()).keys() <= {*TABLE, "_global_state_width"}


def test_defaults_are_not_shared():
    one, other = MADDPGConfig(), MADDPGConfig()
    one.replay_buffer_config["capacity"] = 3
    assert other.replay_buffer_config["capacity"] == TABLE["replay_buffer_config"].default["capacity"] == 1_000_000


@pytest.mark.parametrize("method", ["training", "env_runners"])
def test_methods_say_what_the_table_says(method):
    """Each setting that RLlib's method does not take: in the signature, without a default, with the same text."""
    call = getattr(MADDPGConfig, method)
    explicit = {k: p.default for k, p in inspect.signature(call).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert explicit == dict.fromkeys(MADDPGConfig.own_keys(method), NotProvided)
    text = inspect.getdoc(call).split("Args:\n")[1].split("\n\n")[0]
    parts = re.split(r"^ {4}(\**\w+): ", text, flags=re.MULTILINE)[1:]
    told = {key: " ".join(words.split()) for key, words in zip(parts[::2], parts[1::2], strict=True)}
    assert {key: told.get(key) for key in explicit} == {key: TABLE[key].doc for key in explicit}


@pytest.mark.parametrize("key", [key for key in TABLE if not key.startswith("_")])
def test_the_named_method_sets_it(key):
    method, default = TABLE[key].method, getattr(MADDPGConfig(), key)
    parameters = inspect.signature(getattr(AlgorithmConfig, method)).parameters
    assert key in parameters or key in MADDPGConfig.own_keys(method)
    config = MADDPGConfig()
    getattr(config, method)(**{key: default})
    assert getattr(config, key) == default


def test_the_readme_has_this_table():
    text = README.read_text()
    assert with_table(text) == text, "python -m rllib_maddpg.config.markdown README.md"
    assert "| `tau` | `0.01` | module, PBT | Polyak factor of the targets, in (0, 1]. |\n" in text
    shown = re.findall(r"^\| `(\w+)`", text.split(START)[1].split(END)[0], re.MULTILINE)
    assert shown == [key for key, setting in TABLE.items() if setting.doc]
    with pytest.raises(ValueError, match="no place for the table"):
        with_table(text.replace(END, ""))
    # A bar would begin another column.
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in settings_table().splitlines()}) == 1


def test_what_modules_can_have():
    config = MADDPGConfig().training(grad_clip=None, gamma=1, critic_loss="huber")
    assert config.module_numbers() == {
        "gamma": 1.0,
        "tau": 0.01,
        "grad_clip": float("inf"),
        "actor_output_reg": 1e-3,
        "huber_delta": 1.0,
        "gumbel_softmax_temperature": 1.0,
        "target_policy_noise": 0.0,
        "target_noise_clip": 0.5,
        "inferred_policy_entropy": 1e-3,
        "straight_through_gap": 1.0,
    }
    assert {type(value) for value in config.module_numbers().values()} == {float}
    words = {"grad_clip_by": "global_norm", "critic_loss": "huber", "critic_view": "all", "others_actions": "replay"}
    words |= {"critic_type": "mlp"}
    words |= {"twin_q": False, "infer_other_policies": False, "inferred_target": "probabilities"}
    words |= {"num_sub_policies": 1, "discrete_gradient_estimator": "straight_through", "gumbel_rao_samples": 10}
    assert config.module_words() == words
    per_module = {key for key, setting in TABLE.items() if setting.per_module}
    assert per_module == {*config.module_numbers(), *words, "lr", "actor_lr", "critic_lr", "inferred_lr"}


def test_parts_and_short_names():
    config = MADDPGConfig().training(ou_sigma=0.7)
    assert config.part("exploration") == {
        "num_steps_sampled_before_learning_starts": 1500,
        "noise_type": "gaussian",
        "noise_scale": 0.1,
        "ou_theta": 0.15,
        "ou_sigma": 0.7,
        "exploration_temperature": 1.0,
    }
    assert SHORT_NAMES["train_batch_size_per_learner"] == "batch" and "tau" not in SHORT_NAMES
    assert len(set(SHORT_NAMES.values())) == len(SHORT_NAMES)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"key": "my-setting"}, "'my-setting': a key must be a Python name"),
        ({"key": 3}, "3: a key must be a Python name"),
        ({"key": "class"}, "'class': a key must be a Python name"),
        ({"key": "x", "default": 1.0, "per_module": True}, "'x': give a `check`"),
        ({"key": "x", "check": abs}, "'x': check=<built-in function abs> must be a `Kind`"),
        (
            {"key": "x", "default": 5, "check": between(0, 2)},
            "'x': default=5 must pass its own check: a number >= 0, at most 2",
        ),
        ({"key": "x", "default": "a", "check": one_of("a"), "per_module": True}, "'x': default='a' must be a number"),
        ({"key": "x", "default": True, "per_module": True}, "'x': default=True must be a number"),
    ],
)
def test_rows_that_do_not_fit_themselves(row, text):
    with pytest.raises(ValueError) as error:
        Setting(**row)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (lambda own: (Setting("x", 1),), "is missing. Begin with those of MADDPGConfig"),
        (lambda own: (*own, Setting("tau", 0.5)), "`tau` has another per_module than in MADDPGConfig"),
        (lambda own: (*own, replace(TABLE["tau"], check=None, per_module=False)), "`tau` has another per_module"),
        (lambda own: (*own, replace(TABLE["noise_scale"], part="learning")), "`noise_scale` has another part"),
        (lambda own: (*own, Setting("is_resolved", True)), "`is_resolved` is the name of a method of the config"),
    ],
)
def test_a_subclass_keeps_what_the_algorithm_needs(rows, text):
    with pytest.raises(ValueError, match=text):
        type("Mine", (MADDPGConfig,), {"SETTINGS": rows(MADDPGConfig.SETTINGS)})


def test_a_subclass_may_have_another_default_and_settings_of_its_own_exploration():
    rows = (*MADDPGConfig.SETTINGS, replace(TABLE["tau"], default=0.5), Setting("bonus", 1.0, part="exploration"))
    config = type("Mine", (MADDPGConfig,), {"SETTINGS": rows})()
    assert config.tau == 0.5 and config.part("exploration")["bonus"] == 1.0
    # The stock exploration is not told of what it does not know.
    assert exploration_settings(config) == exploration_settings(MADDPGConfig())


def test_rates_are_no_numbers_of_modules():
    rates = {key for key, setting in TABLE.items() if setting.check.schedules}
    assert rates == {"lr", "actor_lr", "critic_lr", "inferred_lr", "noise_scale", "exploration_temperature"}
    assert RATE.or_none().schedules and not Setting("x", [[0, 1.0], [9, 0.1]], RATE, per_module=True).is_module_number
