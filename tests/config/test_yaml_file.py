"""YAML that is no list of settings is refused with its file, line and key, whatever is wrong with it."""

import pytest

from rllib_maddpg.config.config_file import read_config
from rllib_maddpg.config.yaml_file import YamlFile
from rllib_maddpg.sweeps.schema import read_sweep

BOMB = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(9))}}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize("read", [YamlFile, read_config, read_sweep])
@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("tau: 0.1\nseeds: &s [1, *s]\n", ":2: `seeds.1`:", "holds itself"),
        ("tau: &t {a: {b: *t}}\n", ":1: `tau.a.b`:", "holds itself"),
        ("tau: 0.1\nlr: " + "[" * 2_000, ":2:", "nested too deeply"),
        ("tau: 0.1\nlr: " + "{a: " * 3_000 + "1" + "}" * 3_000, ":2:", "nested too deeply"),
        ("tau: 0.1\nlr: 0\0\n", ":2:", "it has the character '\\x00'"),
        ("tau: 0.1\nenv: 2026-13-45\n", ":2: `env`:", "'2026-13-45' cannot be read as timestamp"),
        ("tau: 0.1\nlr: !!int abc\n", ":2: `lr`:", "'abc' cannot be read as int"),
        ("tau: 0.1\nlr: !!float abc\n", ":2: `lr`:", "'abc' cannot be read as float"),
        ("tau: 0.1\nlr: !!bool maybe\n", ":2: `lr`:", "'maybe' cannot be read as bool"),
        ("tau: 0.1\nseed: " + "9" * 5000 + "\n", ":2: `seed`:", "cannot be read as int"),
        ("tau: 0.1\nlr: !!python/object:os.system x\n", ":2: `lr`:", "could not determine a constructor"),
        ("tau: 0.1\n\ntau: 0.2\n", ":3: `tau`:", "stands here twice"),
        ("a: [{tau: 1,\n tau: 2}]\n", ":2: `a.0.tau`:", "stands here twice"),
        ("tau: *nobody\n", ":1:", "undefined alias"),
        ("tau: 0.1\n---\ntau: 0.2\n", ":2:", "another document"),
        ("tau: 0.1\n? [a, b]\n: 1\n", ":2: a list", "Keys must be words"),
        ("tau: 0.1\nseeds:\n  ? {a: b}\n  : 1\n", ":3: `seeds`: a mapping", "Keys must be words"),
        ("- lr\n", ":1:", "the file must hold keys and values"),
        ("", ":1:", "the file must hold keys and values"),
        (BOMB, ":", "far too many values"),
    ],
)
def test_bad_files_are_named(read, text, place, says, tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text(text)
    with pytest.raises(ValueError) as error:
        read(file)
    assert f"{file}{place}" in str(error.value) and says in str(error.value)
    assert len(str(error.value)) < 1000


def test_files_that_are_no_text(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_bytes(b"tau: \xff\xfe")
    for path in (file, tmp_path, tmp_path / "missing.yaml", "a\0b"):
        with pytest.raises(ValueError, match="cannot be read"):
            YamlFile(path)


def test_aliases_are_taken(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("model_config: {fcnet_hiddens: &h [8, 4], critic_fcnet_hiddens: *h}\nlr: 1e-3\n")
    config = read_config(file)
    assert config.model_config["critic_fcnet_hiddens"] == [8, 4] and config.lr == 1e-3


def test_values_that_are_not_allowed_have_their_line(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("tau: 0.1\n\ntaau: 0.2\n")
    with pytest.raises(ValueError, match=r"config\.yaml:3: `taau`: `taau` is no setting of MADDPG\. Did you mean 'tau'"):
        read_config(file)
    file.write_text("tau: 0.1\nmodel_config: 3\n")
    with pytest.raises(ValueError, match=r"config\.yaml:2: `model_config`: `model_config`=3 must be a dict"):
        read_config(file)
