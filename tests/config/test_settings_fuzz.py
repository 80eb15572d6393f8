"""Random settings are accepted, and then train; or they are refused by an error that names one of them."""

import logging

import pytest
from fuzz_settings import SENSIBLE, is_affordable, make_config, names_one_of, put, random_settings
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rllib_maddpg.config.require import shown

VALIDATED, TRAINED = 5_000, 20


@pytest.fixture(autouse=True)
def quiet():
    """RLlib has much to say about odd settings."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def run_on_random_settings(check, number, repeatable, shrink, functions=True):
    """Calls `check(settings, as_dict)` for random settings, the same ones each time if `repeatable`."""
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    options = settings(
        max_examples=number,
        derandomize=repeatable,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    options(given(random_settings(functions), st.booleans())(check))()


def accepts(config, given_settings, as_dict):
    """Whether the settings are accepted; fails if they are refused by anything but an error that names one of them."""
    try:
        put(config, given_settings, as_dict)
        config.validate()
    except ValueError as error:
        assert names_one_of(str(error), given_settings), f"{shown(given_settings)}: {error}"
        return False
    return True


def test_each_setting_has_values_to_draw_from():
    assert [key for key, values in SENSIBLE.items() if not values] == []
    assert len(SENSIBLE) > 250


@pytest.mark.parametrize("as_dict", [False, True])
def test_each_sensible_value_is_accepted_by_itself(as_dict):
    # One needs the other: see `evaluation_num_env_runners` and `num_learners`.
    needs = {"evaluation_parallel_to_training": {"evaluation_num_env_runners": 1}}
    needs["evaluation_duration"] = needs["evaluation_parallel_to_training"] | {"evaluation_parallel_to_training": True}
    for key, values in SENSIBLE.items():
        for value in values:
            assert accepts(make_config(), needs.get(key, {}) | {key: value}, as_dict), f"{key}={value!r}"


def test_validate_takes_any_value():
    accepted = []
    run_on_random_settings(
        lambda drawn, as_dict: accepted.append(accepts(make_config(), drawn, as_dict)), VALIDATED, repeatable=True, shrink=True
    )
    assert len(accepted) >= VALIDATED
    assert sum(accepted) > len(accepted) / 3


@pytest.mark.timeout(36_000)
def test_what_is_accepted_trains(request, ray_session):
    number = request.config.getoption("--fuzz")
    trained, refused, too_large = [], [], []

    def check(drawn, as_dict):
        config = make_config()
        if not accepts(config, drawn, as_dict):
            refused.append(drawn)
        elif not is_affordable(config):
            too_large.append(drawn)
        else:
            print(f"{len(trained)} trained, {len(refused)} refused, now {shown(drawn)}", flush=True)
            algo = config.build_algo()
            try:
                for _ in range(2):
                    algo.train()
            finally:
                algo.stop()
            trained.append(drawn)

    try:
        run_on_random_settings(check, number or TRAINED, repeatable=number is None, shrink=False, functions=False)
    finally:
        print(f"{len(trained)} trained, {len(refused)} refused, {len(too_large)} accepted, but too large for a test")
    assert len(trained) > (number or TRAINED) / 3
