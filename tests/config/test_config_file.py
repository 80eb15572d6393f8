"""`config.yaml`: reads back as the same settings; what YAML cannot hold is said. Bad files: `test_yaml_file.py`."""

import yaml

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.config.config_file import read_config, write_config
from rllib_maddpg.runs.run import TrainOptions, build_config


def differing(one, other):
    other = other.to_dict()
    return {key for key, value in one.to_dict().items() if other[key] != value}


def test_every_setting_comes_back(tmp_path):
    settings = {
        "model_config.fcnet_hiddens": [128, 32],
        "replay_buffer_config.capacity": 5000,
        "lr": 1e-5,
        "noise_scale": [[0, 0.3], [1000, 0.1]],
        "noise_type": "none",
        "critic_loss": "huber",
        "policies": ["p"],
        "policy_mapping_fn": {"agent_0": "p", "agent_1": "p"},
    }
    config = build_config(TrainOptions("simple_spread", seed=7, num_envs=3, env_config={"N": 2}, settings=settings))
    write_config(config, tmp_path / "config.yaml")
    again = read_config(tmp_path / "config.yaml")
    again.validate()
    assert differing(config, again) == set()
    assert again.policy_mapping_fn("agent_1", None) == "p"
    lines = (tmp_path / "config.yaml").read_text().splitlines()
    # The main settings, also where they are the defaults; of the others only what differs.
    assert "tau: 0.01" in lines and "lr: 1.0e-05" in lines and "noise_scale: [[0, 0.3], [1000, 0.1]]" in lines
    assert lines[lines.index("# Others that differ from the defaults") + 1 :] == [
        "critic_loss: huber",
        "policy_mapping_fn: {agent_0: p, agent_1: p}",
    ]


def test_what_yaml_cannot_hold_is_a_comment(tmp_path, monkeypatch):
    # As some packages do for the whole process.
    monkeypatch.setitem(yaml.SafeDumper.yaml_multi_representers, object, lambda dumper, value: dumper.represent_str(str(value)))
    config = MADDPGConfig().environment("simple_spread").callbacks(on_train_result=abs)
    config.validate()
    write_config(config, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert "# callbacks_on_train_result: <built-in function abs> (no plain value; set it in Python)" in text
    again = read_config(tmp_path / "config.yaml")
    again.validate()
    # The default networks are written in full.
    assert differing(config, again) == {"callbacks_on_train_result", "_model_config"}
    assert again.model_config == config.model_config
