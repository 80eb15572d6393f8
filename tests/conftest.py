"""One Ray for the whole test session, and the `--slow` option."""

import os

# Before torch is imported anywhere: the tests' small networks are faster on one thread, and the cores are needed by actors.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray starts its workers at niceness 15: beside any other load of the machine they would get next to nothing of it.
os.environ.setdefault("RAY_worker_niceness", "0")

import pytest
import ray
from paths import PYTHONPATH


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--damage", type=int, default=100, metavar="N", help="damaged checkpoints that are tried (default: 100)")
    parser.addoption(
        "--fuzz", type=int, metavar="N", help="train N random configs in tests/config/test_settings_fuzz.py, not 40"
    )


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.timeout(3600))
            if not config.getoption("--slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(scope="session")
def ray_session():
    """A local Ray with room for several small actors; shut down when the tests end."""
    # Actors import the tests' environments, too.
    environment = {"env_vars": {"PYTHONPATH": PYTHONPATH}}
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


@pytest.fixture
def build():
    """Builds algorithms and stops them at the test's end."""
    built = []

    def _build(config):
        built.append(config.build_algo())
        return built[-1]

    yield _build
    for algo in built:
        algo.stop()
