"""MADDPG with other defaults: what the presets differ in, how they are overridden, written and read. Algorithms:
`tests/algorithm/test_members_by_name.py`."""

import pytest
from own_members import OwnConfig, OwnMember, PlainMember

import rllib_maddpg
from rllib_maddpg import MADDPG, IDDPGConfig, InferredMADDPGConfig, MADDPGConfig, MATD3Config
from rllib_maddpg.config.config_file import read_config, write_config

DIFFERS = {
    MATD3Config: {"twin_q": True, "policy_delay": 2, "target_policy_noise": 0.2, "target_noise_clip": 0.5},
    IDDPGConfig: {"critic_view": "own"},
    InferredMADDPGConfig: {"infer_other_policies": True},
}
each = pytest.mark.parametrize("cls", DIFFERS)


def settings_of(config):
    return {key: getattr(config, key) for key in config.table()}


@each
def test_a_preset_is_maddpg_with_a_few_other_defaults(cls):
    config, plain = cls(), settings_of(MADDPGConfig())
    assert settings_of(config) == {**plain, **DIFFERS[cls]}
    assert list(cls.table()) == list(plain)
    assert config.algo_class is getattr(rllib_maddpg, cls.__name__.removesuffix("Config"))
    assert type(config.algo_class.get_default_config()) is cls
    config.environment("simple_spread").validate()


@each
def test_presets_are_set_and_checked_as_maddpg(cls):
    config = cls().environment("simple_spread").training(policy_delay=1, tau=0.02)
    assert (config.policy_delay, config.tau) == (1, 0.02)
    config.validate()
    with pytest.raises(ValueError, match=r"`policy_dealy` is no setting of MADDPG. Did you mean 'policy_delay'"):
        cls().training(policy_dealy=1)
    with pytest.raises(ValueError, match="`policy_delay`=0 is not allowed"):
        cls().environment("simple_spread").training(policy_delay=0).validate()
    overrides = {"agent_0": {"target_noise_clip": 0.1}}
    cls().environment("simple_spread").rl_module(algorithm_config_overrides_per_module=overrides).validate()


def test_other_defaults_must_be_of_rows_and_allowed():
    with pytest.raises(ValueError, match=r"`twinq` is no row of `MADDPGConfig.SETTINGS`. Did you mean 'twin_q'"):
        MADDPGConfig.with_defaults(twinq=True)
    with pytest.raises(ValueError, match="policy_delay"):
        MADDPGConfig.with_defaults(policy_delay=0)


# ------------------------------------------------------------------------------------------ config.yaml


@each
@pytest.mark.parametrize("settings", [{}, {"policy_delay": 1, "critic_view": "all", "infer_other_policies": False}])
def test_a_file_names_the_algorithm_and_what_is_not_as_in_maddpg(cls, settings, tmp_path):
    config = cls().environment("simple_spread").training(**settings)
    config.validate()
    write_config(config, tmp_path / "config.yaml")
    lines = (tmp_path / "config.yaml").read_text().splitlines()
    assert f"algorithm: {config.algo_class.__name__}" in lines
    again = read_config(tmp_path / "config.yaml")
    assert type(again) is cls and again.algo_class is config.algo_class
    assert settings_of(again) == settings_of(config)
    # By themselves, the settings say what is meant: whoever reads them need not know the preset.
    said = {line.split(": ")[0] for line in lines[lines.index("# Others that differ from the defaults") + 1 :]}
    assert said == {key for key, value in DIFFERS[cls].items() if value != getattr(MADDPGConfig(), key)}


def test_files_without_an_algorithm_are_maddpgs(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("env: simple_spread\ntau: 0.5\n")
    config = read_config(file)
    assert type(config) is MADDPGConfig and config.algo_class is MADDPG and config.tau == 0.5
    # A class that is asked for is taken, and keeps its algorithm.
    assert read_config(file, OwnConfig).algo_class is OwnMember


def test_algorithms_of_the_users_are_named_by_their_paths(tmp_path):
    file = tmp_path / "config.yaml"
    write_config(OwnConfig().environment("simple_spread").training(own_switch=True), file)
    assert "algorithm: own_members:OwnMember" in file.read_text().splitlines()
    config = read_config(file)
    assert type(config) is OwnConfig and (config.own_switch, config.tau) == (True, 0.02)
    write_config(MADDPGConfig().environment("simple_spread"), file, PlainMember)
    config = read_config(file)
    assert type(config) is MADDPGConfig and config.algo_class is PlainMember
    # One that no path leads to.
    write_config(MADDPGConfig(), file, type("Local", (MADDPG,), {}))
    assert "\n# algorithm: <class '" in file.read_text()
    assert read_config(file).algo_class is MADDPG


@pytest.mark.parametrize(
    ("name", "cls", "text"),
    [
        ("MADTD3", None, r"config.yaml:2: `algorithm`: `algorithm`='MADTD3' is not allowed: .* Did you mean 'MATD3'"),
        ("matd3", None, "Did you mean 'MATD3'"),
        ("own_members:PlainMembre", None, "Module 'own_members' has no 'PlainMembre'"),
        ("own_members:OwnConfig", None, "and must name a subclass of rllib_maddpg.MADDPG"),
        ("[MATD3]", None, "must be one of"),
        ("MATD3", IDDPGConfig, "the config of MATD3 is MATD3Config, not IDDPGConfig. Leave `config_class` out."),
    ],
)
def test_a_file_with_an_unknown_algorithm_is_refused(name, cls, text, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(f"env: simple_spread\nalgorithm: {name}\n")
    with pytest.raises(ValueError, match=text):
        read_config(file, cls)
