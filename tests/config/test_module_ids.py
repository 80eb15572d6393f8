"""Which module ids can be names of folders; no Ray needed."""

import sys

import pytest

from rllib_maddpg.config.module_ids import check_module_ids


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("", "is empty"),
        (".", "a dot"),
        ("..", "a dot"),
        (" red", "begins or ends with a space"),
        ("red\n", "begins or ends with a space"),
        ("../red", "slash"),
        ("/etc/red", "slash"),
        ("red\\blue", "backslash"),
        ("red\0", "control character"),
        ("red\x1bblue", "control character"),
        ("red\ud800", "control character"),
        ("x" * 129, "more than 128 bytes"),
        ("ä" * 65, "more than 128 bytes"),
        ("metadata.json", "RLlib uses itself"),
        ("Class_and_ctor_args.PKL", "RLlib uses itself"),
        ("module_state.pkl", "RLlib uses itself"),
        ("__all_modules__", "RLlib uses itself"),
        (7, "of type int"),
        (None, "of type NoneType"),
    ],
)
def test_ids_that_cannot_be_folders_are_refused_and_the_way_out_is_named(module, text):
    with pytest.raises(ValueError, match=text) as error:
        check_module_ids({"first": "red", "second": module})
    assert "(of agent 'second')" in str(error.value)
    assert "policy_mapping_fn={'second': 'another_name', ...}" in str(error.value)


@pytest.mark.parametrize(("one", "other"), [("Red", "red"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "straße")])
def test_ids_that_some_file_systems_do_not_tell_apart_are_refused_there(monkeypatch, one, other):
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        with pytest.raises(ValueError, match=r"differs from .* in case only"):
            check_module_ids({"a": one, "b": other})
    monkeypatch.setattr(sys, "platform", "linux")
    check_module_ids({"a": one, "b": other})


def test_ids_that_are_folders_on_every_machine_are_allowed():
    check_module_ids({"": "red", "..": "red", 0: "a.b", 1: "Größe 3", 2: "x" * 128, 3: ".hidden", 4: "default_policy"})
