"""A subclass of `MADDPGConfig` with settings of its own: they are checked, overridden, swept, written and read as MADDPG's."""

import pickle
import re
from dataclasses import replace

import pytest
from paths import ROOT
from ray import cloudpickle
from ray.rllib.algorithms.algorithm_config import NotProvided

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.config.config_file import read_config, write_config
from rllib_maddpg.config.kinds import BOOL, RATE, between, one_of, whole
from rllib_maddpg.config.markdown import settings_table
from rllib_maddpg.config.setting import Setting
from rllib_maddpg.config.text_settings import apply_settings, parse_settings, with_booleans


class MyConfig(MADDPGConfig):
    """With a number, a word, a size and a switch, and another default of MADDPG's own."""

    SETTINGS = (
        *MADDPGConfig.SETTINGS,
        replace(MADDPGConfig.table()["tau"], default=0.005),
        Setting("bonus", 0.5, between(0, 10), "Weight of a | b.", per_module=True, mutable=True, main=True),
        Setting("bonus_kind", "count", one_of("count", "error"), "How.", per_module=True, structural=True),
        Setting("bonus_size", None, whole(1).or_none("None: as large as the batch.")),
        Setting("bonus_on_runners", False, BOOL, "Where.", method="env_runners", part="exploration"),
    )


def my_config():
    return MyConfig().environment("simple_adversary")


def test_defaults():
    config = MyConfig()
    assert (config.tau, config.bonus, config.bonus_kind, config.bonus_size) == (0.005, 0.5, "count", None)
    assert MADDPGConfig().tau == 0.01 and not hasattr(MADDPGConfig(), "bonus")
    my_config().validate()


def test_the_documented_example():
    page = (ROOT / "docs" / "pipeline.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "SETTINGS" in b]
    scope = {"__name__": "documented"}
    exec(block, scope)
    config = scope["config"]
    config.validate()
    assert (config.bonus, config.bonus_kind, config.tau) == (1.0, "count", 0.005)


@pytest.mark.parametrize("way", ["training", "dict", "attribute", "command line"])
def test_set_and_checked(way):
    def put(**settings):
        config = my_config()
        if way == "training":
            return config.training(**settings)
        if way == "dict":
            return config.update_from_dict(settings)
        if way == "command line":
            words = parse_settings([f"{key}={value}" for key, value in settings.items()], "--set")
            apply_settings(config, with_booleans(words, MyConfig))
            return config
        for key, value in settings.items():
            setattr(config, key, value)
        return config

    config = put(bonus=2, bonus_kind="error", bonus_size=3, gamma=0.9)
    config.validate()
    assert (config.bonus, config.bonus_kind, config.bonus_size, config.gamma) == (2, "error", 3, 0.9)
    for key, value, text in [
        ("bonus", 11, "a number >= 0, at most 10"),
        ("bonus_kind", "eror", "one of ['count', 'error']. Did you mean 'error'"),
        ("bonus_size", 0, "a whole number > 0, or None. None: as large as the batch."),
    ]:
        with pytest.raises(ValueError) as error:
            put(**{key: value}).validate()
        assert str(error.value).startswith(f"`{key}`={value!r} is not allowed: it must be {text}")


def test_methods():
    config = MyConfig().env_runners(bonus_on_runners=True, num_env_runners=1)
    assert config.bonus_on_runners is True and config.num_env_runners == 1
    assert config.part("exploration")["bonus_on_runners"] is True
    assert with_booleans({"bonus_on_runners": "yes"}, MyConfig) == {"bonus_on_runners": True}
    with pytest.raises(ValueError, match=re.escape("`bonus_on_runners` is a setting of RLlib, but none of `.training()`")):
        MyConfig().training(bonus_on_runners=True)
    with pytest.raises(ValueError, match=r"`bonus_sise` is no setting of MADDPG\. Did you mean 'bonus_size'"):
        MyConfig().training(bonus_sise=3)
    with pytest.raises(ValueError, match="`bonus` is no setting of MADDPG"):
        MADDPGConfig().training(bonus=3)


def test_rates():
    class Modelled(MADDPGConfig):
        SETTINGS = (*MADDPGConfig.SETTINGS, Setting("model_lr", None, RATE.or_none(), "The model's rate.", per_module=True))

    config = Modelled().environment("simple_adversary").training(lr=None, actor_lr=0.1, critic_lr=0.1)
    assert "model_lr" not in config.module_numbers() and config.learning_rate("model_lr") is None
    with pytest.raises(ValueError, match="`lr`=None is not allowed: it must be a rate"):
        config.validate()
    config.training(model_lr=[[0, 0.1], [100, 0.0]]).validate()
    assert config.learning_rate("model_lr") == [[0, 0.1], [100, 0.0]]


def test_overrides_of_modules():
    config = my_config().rl_module(
        algorithm_config_overrides_per_module={"agent_0": {"bonus": 3, "bonus_kind": "error", "tau": 0.1}}
    )
    config.validate()
    own, other = config.get_config_for_module("agent_0"), config.get_config_for_module("agent_1")
    assert own.module_numbers().items() >= {"bonus": 3.0, "tau": 0.1}.items()
    assert other.module_numbers().items() >= {"bonus": 0.5, "tau": 0.005}.items()
    assert own.module_words()["bonus_kind"] == "error" and other.module_words()["bonus_kind"] == "count"
    for overrides, text in [
        ({"bonus": -1}, "`algorithm_config_overrides_per_module['agent_0']`: `bonus`=-1 is not allowed"),
        ({"bonus_size": 3}, "`bonus_size` holds for all modules"),
    ]:
        config = my_config().rl_module(algorithm_config_overrides_per_module={"agent_0": overrides})
        with pytest.raises(ValueError) as error:
            config.validate()
        assert text in str(error.value)


def test_what_derives_from_it(tmp_path):
    assert "bonus" in MyConfig.mutable_keys() and "bonus_size" not in MyConfig.mutable_keys()
    table = settings_table(MyConfig)
    assert "| `bonus` | `0.5` | module, PBT | Weight of a \\| b. |\n" in table
    assert "| `bonus_on_runners` (of `.env_runners(...)`) | `False` |  | Where. |\n" in table and "`bonus_size`" not in table
    config = my_config().training(bonus_size=4, bonus_kind="count")
    config.validate()
    write_config(config, tmp_path / "config.yaml")
    lines = (tmp_path / "config.yaml").read_text().splitlines()
    others = lines.index("# Others that differ from the defaults")
    # One that is written in any case, one that differs, and one that does neither.
    assert "bonus: 0.5" in lines[:others] and "bonus_size: 4" in lines[others:] and "bonus_kind: count" not in lines
    again = read_config(tmp_path / "config.yaml", MyConfig)
    again.validate()
    assert type(again) is MyConfig and (again.bonus, again.bonus_size, again.tau) == (0.5, 4, 0.005)
    with pytest.raises(ValueError, match="`bonus` is no setting of MADDPG"):
        read_config(tmp_path / "config.yaml")


def test_classes_of_a_script_in_other_processes():
    """Ray sends classes of `__main__` with copies of all that is in them, also of `NotProvided`."""

    class Sent(MyConfig):
        SETTINGS = pickle.loads(cloudpickle.dumps(MyConfig.SETTINGS))

    assert Sent.SETTINGS[0].default is not NotProvided
    config = Sent().environment("simple_adversary").training(bonus=2)
    config.validate()
    assert config.seed is None and vars(Sent()).keys() == vars(MyConfig()).keys()
    assert settings_table(Sent) == settings_table(MyConfig)


def test_configs_from_before_a_setting():
    config = my_config().training(bonus_kind="error")
    del vars(config)["bonus"], vars(config)["replay_buffer_config"]
    again = pickle.loads(pickle.dumps(config))
    assert (again.bonus, again.bonus_kind) == (0.5, "error")
    assert again.replay_buffer_config == MADDPGConfig().replay_buffer_config
    again.validate()


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("tau", "`Bad.SETTINGS` has 'tau', which is no `Setting`"),
        (Setting("training", 1), "`Bad.SETTINGS`: `training` is the name of a method"),
        (Setting("evaluation_bonus", 1), "`Bad.SETTINGS`: `evaluation_bonus` begins as RLlib's settings of `.evaluation()` do"),
        (Setting("bonus", NotProvided), "`Bad.SETTINGS`: `bonus` needs a default"),
        (
            Setting("bonus", 1, method="reporting"),
            "`Bad.SETTINGS`: `bonus` has the method 'reporting'. Settings are added to ['tr",
        ),
    ],
)
def test_rows_that_do_not_fit_the_config(row, text):
    with pytest.raises(ValueError) as error:
        type("Bad", (MADDPGConfig,), {"SETTINGS": (*MADDPGConfig.SETTINGS, row)})
    assert text in str(error.value)
