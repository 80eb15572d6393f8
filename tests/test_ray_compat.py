"""Ray's versions: what is said of them, and what stands in for what older ones lack."""

import ast
import logging
import re
import subprocess
from types import SimpleNamespace

import pytest
import ray
import torch
from packaging.requirements import Requirement
from packaging.version import Version
from paths import ROOT
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from ray.rllib.utils.numpy import convert_to_numpy
from ray.rllib.utils.torch_utils import convert_to_torch_tensor

from rllib_maddpg import MADDPGConfig, ray_compat
from rllib_maddpg.ray_compat import TESTED, log_value, restore_optimizers, why_not_restored

SETUP = (ROOT / "setup.cfg").read_text()
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs/versions.md").read_text()


def required(extra):
    return Requirement(re.search(rf"^ *(ray\[{extra}\].*)$", SETUP, re.M)[1]).specifier


def test_setup_readme_and_page_name_the_tested_versions():
    oldest, newest = Version(TESTED[0]), Version(TESTED[-1])
    for extra in ("rllib", "serve"):
        allowed = required(extra)
        assert str(oldest) in allowed and f"{oldest.major}.{oldest.minor - 1}" not in allowed
        # Also the one after the newest, but no later one.
        assert f"{newest.major}.{newest.minor + 1}" in allowed and f"{newest.major}.{newest.minor + 2}" not in allowed
    assert f"Ray {TESTED[0]} to {TESTED[-1]}" in README
    assert tuple(dict.fromkeys(re.findall(r"^\| (\d+\.\d+)\.\d+ \|", PAGE, re.M))) == TESTED[::-1]


def test_only_this_file_asks_for_rays_version_or_tries_its_imports():
    for file in (ROOT / "rllib_maddpg").rglob("*.py"):
        text = file.read_text()
        if file.name == "ray_compat.py":
            continue
        for attempt in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Try)):
            if any("ImportError" in ast.unparse(handler.type or attempt) for handler in attempt.handlers):
                assert not re.search(r"^ *(from|import) ray\b", "\n".join(map(ast.unparse, attempt.body)), re.M), file
        assert not re.search(r"Version\(ray\.|ray\.__version__ *[<>=!]", text.replace("saved == ray.__version__", "")), file


@pytest.mark.parametrize(("installed", "warns"), [("2.58.3", True), ("2.60.9", False), ("2.61.0", True), (TESTED[0], False)])
def test_a_ray_that_nobody_tested_is_told_once(installed, warns, monkeypatch, caplog):
    monkeypatch.setattr(ray_compat, "INSTALLED", Version(installed))
    monkeypatch.setattr(ray, "__version__", installed)
    monkeypatch.setattr(ray_compat, "log_once", set().isdisjoint)  # as if it had never been called
    with caplog.at_level(logging.WARNING):
        MADDPGConfig().validate()
    told = [record.getMessage() for record in caplog.records if "was not tested with" in record.getMessage()]
    assert bool(told) == warns
    if warns:
        assert f"Ray {installed}" in told[0] and TESTED[-1] in told[0] and f"tests/versions.sh {installed} 3.1" in told[0]


@pytest.mark.parametrize(
    ("installed", "written_with", "is_read"),
    [("2.60.0", "2.51.2", True), ("2.55.1", "2.60.0", True), ("2.52.1", "2.51.0", True), ("2.52.1", "2.53.0", False)],
)
def test_older_rays_cannot_read_newer_metrics(installed, written_with, is_read, monkeypatch):
    monkeypatch.setattr(ray_compat, "INSTALLED", Version(installed))
    assert (why_not_restored(written_with) is None) == is_read


def test_sums_for_ever_and_sums_since_the_last_report():
    own, root = MetricsLogger(), MetricsLogger(root=True)
    for new in (3, 4):
        log_value(own, "lifetime", new, reduce="lifetime_sum", with_throughput=True)
        log_value(own, "new", new, reduce="sum")
        log_value(own, "least", new, reduce="min")
        log_value(own, "most", -new, reduce="max")
        log_value(own, "last", new, window=1)
        root.aggregate([own.reduce()], key="r")
        result = root.reduce()
        assert float(root.peek(("r", "lifetime"))) == {3: 3, 4: 7}[new]
        assert float(_number(result["r"]["new"])) == new and float(_number(result["r"]["last"])) == new
        # Of the last report only.
        assert float(_number(result["r"]["least"])) == new and float(_number(result["r"]["most"])) == -new


def _number(value):
    return value.peek() if hasattr(value, "peek") else value


def test_restored_optimizers_have_moments_and_plain_numbers(monkeypatch):
    """Also after RLlib before 2.56, which loads a state whose numbers are all tensors."""
    monkeypatch.setattr(ray_compat, "INSTALLED", Version("2.55.1"))
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([p], lr=0.25, betas=(0.5, 0.75))
    p.grad = torch.ones(2)
    optimizer.step()
    saved = {"own": {"module_id": "m", "state": convert_to_numpy(optimizer.state_dict())}}
    optimizer.load_state_dict(convert_to_torch_tensor(saved["own"]["state"]))
    assert p not in optimizer.state  # what RLlib does
    learner = SimpleNamespace(_named_optimizers={"own": optimizer}, _device="cpu")
    restore_optimizers(learner, {**saved, "of another module": {}})
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.25 and type(group["lr"]) is float and group["betas"] == (0.5, 0.75) and group["amsgrad"] is False
    assert group["params"] == [p]
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], torch.full((2,), 0.5))
    assert float(optimizer.state[p]["step"]) == 1


def test_the_script_says_how_it_is_used():
    script = ROOT / "tests/versions.sh"
    for arguments, text in [([], "tests/versions.sh RAY PYTHON [SET]"), (["2.60.0", "3.11", "some"], "not some")]:
        done = subprocess.run(["bash", str(script), *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and text in done.stdout
    for path in (ROOT / "tests/reduced_set.txt").read_text().split():
        assert (ROOT / path.removeprefix("--deselect=").split("::")[0]).is_file(), path
    ci = (ROOT / ".ci/run").read_text()
    assert re.search(rf"tests/versions\.sh {TESTED[0]}\.\d+ 3\.11 reduced numpy==1\.26", ci)
    assert f"ray=={TESTED[-1]}." in (ROOT / "constraints.txt").read_text()
