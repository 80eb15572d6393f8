"""Tests that need no Ray can be run without one, and each file alone."""

import ast

import pytest
import ray
from paths import TESTS

FILES = sorted(TESTS.rglob("test_*.py"))


def test_most_tests_need_no_ray(request):
    items = request.session.items
    if len({item.path for item in items}) < 30:
        pytest.skip("counts the whole suite")
    assert sum(item.get_closest_marker("ray") is None for item in items) > 900


@pytest.mark.parametrize("use", [lambda: ray.init(), lambda: ray.put(1)], ids=["init", "put"])
def test_ray_cannot_be_started_without_the_mark(use, monkeypatch):
    # Other tests of this process may have started one, which `put` would use.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(pytest.fail.Exception, match=r"mark it with `pytest\.mark\.ray`"):
        use()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_imports_no_other_file_of_tests(file):
    """It could not be run alone: what several share belongs in `helpers`."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    assert not {other.stem for other in FILES} & set(names)
