"""One Ray for the whole test session, which tests need it, in which order they run, and the options."""

import os

# Before torch is imported anywhere: the tests' small networks are faster on one thread, and the cores are needed by actors.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray starts its workers at niceness 15: beside any other load of the machine they would get next to nothing of it.
os.environ.setdefault("RAY_worker_niceness", "0")

import pytest
import ray
import torch
from paths import PYTHONPATH


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--damage", type=int, default=50, metavar="N", help="damaged checkpoints that are tried (default: 50)")
    parser.addoption(
        "--fuzz", type=int, metavar="N", help="train N random configs in tests/config/test_settings_fuzz.py, not 20"
    )


# Files with tests that take a minute each: these run first, so that at the end no process waits for the other one's last test.
LONG = (
    "test_sweeps_killed",
    "test_shared_sweep",
    "test_run_trouble",
    "test_cluster",
    "test_loggers",
    "test_settings_fuzz",
    "test_checkpoint_damage",
    "test_tune",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    # Tests of the GPU can be tried on the CPU: helpers/on_cuda.py.
    has_gpu = torch.cuda.is_available() or os.environ.get("MADDPG_CUDA_TESTS_ON") == "cpu"
    for item in items:
        if "ray_session" in item.fixturenames:
            item.add_marker(pytest.mark.ray)
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.timeout(3600))
            if not config.getoption("--slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if "cuda" in item.keywords and not has_gpu:
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))
    # Tests without Ray come before there is one.
    items.sort(key=lambda item: (needs_ray(item), item.path.stem not in LONG))


def needs_ray(item):
    return item.get_closest_marker("ray") is not None


def refuse_ray(*args, **kwargs):
    pytest.fail("this test starts Ray: mark it with `pytest.mark.ray`, or use the fixture `ray_session`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    with pytest.MonkeyPatch.context() as patch:
        if not needs_ray(item):
            patch.setattr(ray, "init", refuse_ray)
        return (yield)


@pytest.fixture(scope="session")
def ray_session():
    """A local Ray with room for several small actors; shut down when the tests end."""
    # Actors import the tests' environments, too.
    environment = {"env_vars": {"PYTHONPATH": PYTHONPATH}}
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def shared_session(ray_session):
    """The shared learner of the tests, for those that need no other."""
    from shared_trials import SHARED

    from rllib_maddpg.shared.life import SharedLearner

    with SharedLearner(SHARED) as shared:
        yield shared


@pytest.fixture
def build(ray_session):
    """Builds algorithms and stops them at the test's end."""
    built = []

    def _build(config):
        built.append(config.build_algo())
        return built[-1]

    yield _build
    for algo in built:
        algo.stop()
