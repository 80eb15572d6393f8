"""What a sweep's file may hold: every error names file, line and key, and the fix, before anything starts."""

import re

import pytest
from own_members import OwnConfig, OwnMember
from paths import ROOT

from rllib_maddpg import MADDPGConfig, MATD3Config
from rllib_maddpg.sweeps.member_trial import MemberTrial
from rllib_maddpg.sweeps.metrics import check_metric
from rllib_maddpg.sweeps.resources import check_resources
from rllib_maddpg.sweeps.schema import read_sweep
from rllib_maddpg.sweeps.search import make_scheduler, make_searcher, tune_num_samples
from rllib_maddpg.sweeps.trial_config import check_trials, make_config, param_space, trainable

CONFIGS = sorted((ROOT / "tune_configs").glob("*.yaml"))
PLAIN = """\
env: simple_spread
env_config: {continuous_actions: true}
settings:
  num_env_steps_per_update: 50
search_space:
  tau: {grid: [0.01, 0.1]}
stop: {env_steps: 1000}
"""


def write(tmp_path, text):
    file = tmp_path / "my.yaml"
    file.write_text(text)
    return file


def check(file, **options):
    """What the command checks without Ray."""
    sweep = read_sweep(file, **options)
    check_metric(sweep, check_trials(sweep))
    check_resources(sweep)
    return sweep


# (what is changed in PLAIN, by what, line, key, text)
ERRORS = {
    "unknown key": ("stop:", "stopp: 3\nstop:", 7, "stopp", "Did you mean 'stop'?"),
    "key twice": ("stop:", "env: simple_tag\nstop:", 7, "env", "stands here twice"),
    "no yaml": ("tau: {grid", "tau: {grid]", 6, None, "this is no YAML"),
    "no env": ("env: simple_spread\n", "", 1, None, "`env` is missing"),
    "unknown env": ("simple_spread", "simple_spraed", 1, "env", "simple_spread"),
    "wrong env_config": ("continuous_actions", "continous_actions", 2, "env_config", "continous_actions"),
    "empty space": ("  tau: {grid: [0.01, 0.1]}\n", "", 5, "search_space", "nothing to sweep over"),
    "no space": ("search_space:\n  tau: {grid: [0.01, 0.1]}\n", "", 1, "search_space", "nothing to sweep over"),
    "empty grid": ("[0.01, 0.1]", "[]", 6, "search_space.tau.grid", "a list of values"),
    "steps that miss the bounds": (
        "{grid: [0.01, 0.1]}",
        "{quniform: [0.01, 0.1, 0.02]}",
        6,
        "search_space.tau.quniform",
        "whole multiples of the step",
    ),
    "searcher in a list": ("stop:", "search: [random]\nstop:", 7, "search", "must be one of grid, random, optuna"),
    "setting that is no word": ("num_env_steps_per_update", "1", 4, "settings.1", "no setting"),
    "iteration without steps": (
        "num_env_steps_per_update: 50",
        "min_sample_timesteps_per_iteration: 0",
        4,
        "settings.min_sample_timesteps_per_iteration",
        "whole number",
    ),
    "bare value": ("{grid: [0.01, 0.1]}", "0.01", 6, "search_space.tau", "under `settings`"),
    "unknown kind": ("grid:", "logunifrom:", 6, "search_space.tau.logunifrom", "Did you mean 'loguniform'"),
    "value twice": ("[0.01, 0.1]", "[0.01, 0.01]", 6, "search_space.tau.grid", "twice"),
    "unknown setting": (
        "num_env_steps_per_update",
        "num_env_steps_per_updat",
        4,
        "settings.num_env_steps_per_updat",
        "Did you",
    ),
    "unknown swept key": ("tau:", "tauu:", 6, "search_space.tauu", "Did you mean 'tau'"),
    "wrong setting": ("per_update: 50", "per_update: -1", 4, "settings.num_env_steps_per_update", "a number > 0"),
    "wrong type": ("per_update: 50", "per_update: many", 4, "settings.num_env_steps_per_update", "a number > 0"),
    "second grid value": ("[0.01, 0.1]", "[0.01, 7]", 6, "search_space.tau", "`tau`=7 is not allowed: it must be in (0, 1]"),
    "fixed and swept": ("per_update: 50", "per_update: 50\n  tau: 0.1", 5, "settings.tau", "swept over"),
    "seed among settings": ("per_update: 50", "per_update: 50\n  seed: 1", 5, "settings.seed", "under `seeds`"),
    "no stop": ("stop: {env_steps: 1000}", "", 1, "stop.env_steps", "missing"),
    "stop key": ("{env_steps:", "{env_step:", 7, "stop.env_step", "Did you mean 'env_steps'"),
    "stop value": ("env_steps: 1000", "env_steps: 1e3", 7, "stop.env_steps", "whole number"),
    "seeds": ("stop:", "seeds: [0, 0]\nstop:", 7, "seeds", "different whole numbers"),
    "mode": ("stop:", "mode: best\nstop:", 7, "mode", "max or min"),
    "search": ("stop:", "search: optna\nstop:", 7, "search", "Did you mean 'optuna'"),
    "scheduler option": ("stop:", "scheduler: {type: asha, grace: 3}\nstop:", 7, "scheduler.grace", "grace_env_steps"),
    "late grace": ("stop:", "scheduler: {type: asha, grace_env_steps: 2000}\nstop:", 7, "scheduler.grace_env_steps", "1000"),
    "range in a grid": ("grid: [0.01, 0.1]", "uniform: [0.01, 0.1]", 6, "search_space.tau", "`search: random`"),
    "grid and optuna": ("stop:", "search: optuna\nnum_samples: 4\nstop:", 6, "search_space.tau", "optuna cannot take a grid"),
    "grid and pbt": ("stop:", "scheduler: pbt\nnum_samples: 4\nstop:", 6, "search_space.tau", "Use `choice`"),
    "nothing to draw": ("stop:", "search: random\nnum_samples: 4\nstop:", 7, "search", "nothing to draw"),
    "grid twice": ("stop:", "num_samples: 2\nstop:", 7, "num_samples", "`seeds`"),
    "metric": ("stop:", "metric: env_runners/episode_reward_mean\nstop:", 7, "metric", "'env_runners/episode_return_mean'"),
    "metric of another env": ("stop:", "metric: env_runners/agent_episode_returns_mean/agent_3\nstop:", 7, "metric", "agent_2"),
    "no evaluation": (
        "stop:",
        "metric: evaluation/env_runners/episode_return_mean\nstop:",
        7,
        "metric",
        "`evaluation_interval: 10`",
    ),
    "gpu share": ("stop:", "resources: {num_gpus_per_learner: 1.5}\nstop:", 7, "resources.num_gpus_per_learner", "`auto`"),
    "gpu setting": (
        "per_update: 50",
        "per_update: 50\n  num_gpus_per_learner: 1",
        5,
        "settings.num_gpus_per_learner",
        "resources",
    ),
    "resource key": ("stop:", "resources: {gpu: 1}\nstop:", 7, "resources.gpu", "num_gpus_per_learner"),
    "unknown algorithm": ("stop:", "algorithm: MADTD3\nstop:", 7, "algorithm", "Did you mean 'MATD3'"),
    "algorithm that is no word": ("stop:", "algorithm: 3\nstop:", 7, "algorithm", "must be one of ['MADDPG', 'MATD3',"),
    "algorithms at the top": (
        "stop:",
        "algorithm: {grid: [MATD3]}\nstop:",
        7,
        "algorithm",
        "`search_space: {algorithm: {grid:",
    ),
    "unknown algorithm among others": (
        "tau:",
        "algorithm: {grid: [MADDPG, MADTD3]}\n  tau:",
        6,
        "search_space.algorithm",
        "Did you mean 'MATD3'",
    ),
    "algorithm of a range": (
        "search_space:",
        "search: random\nsearch_space:\n  algorithm: {uniform: [0, 1]}",
        7,
        "search_space.algorithm",
        "draws numbers",
    ),
    "algorithm among settings": (
        "per_update: 50",
        "per_update: 50\n  algorithm: MATD3",
        5,
        "settings.algorithm",
        "top of the file",
    ),
    "algorithm fixed and swept": (
        "search_space:",
        "algorithm: MATD3\nsearch_space:\n  algorithm: {grid: [MADDPG, MATD3]}",
        5,
        "algorithm",
        "swept over",
    ),
    "setting that one algorithm lacks": (
        "per_update: 50\nsearch_space:",
        "per_update: 50\n  own_switch: true\nsearch_space:\n  algorithm: {grid: ['own_members:OwnMember', MADDPG]}",
        5,
        "settings.own_switch",
        "no setting of MADDPG",
    ),
    "runners": ("stop:", "resources: {num_env_runners: -1}\nstop:", 7, "resources.num_env_runners", "whole number >= 0"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_file_line_key_and_mend(name, tmp_path):
    old, new, line, key, text = ERRORS[name]
    assert old in PLAIN
    file = write(tmp_path, PLAIN.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(text)) as error:
        check(file)
    assert str(error.value).startswith(f"{file}:{line}:" + (f" `{key}`: " if key else " ")), error.value


def test_range_is_checked_at_its_ends(tmp_path):
    text = PLAIN.replace("grid: [0.01, 0.1]", "loguniform: [1e-3, 2]") + "search: random\nnum_samples: 3\n"
    with pytest.raises(ValueError, match=r"my.yaml:6: `search_space.tau`: `tau`=2 is not allowed"):
        check(write(tmp_path, text))
    text = PLAIN.replace("grid: [0.01, 0.1]", "loguniform: [0, 0.1]") + "search: random\n"
    with pytest.raises(ValueError, match=r"my.yaml:6: `search_space.tau.loguniform`: .*above 0"):
        check(write(tmp_path, text))


def test_points_that_do_not_go_together(tmp_path):
    text = PLAIN.replace(
        "  tau: {grid: [0.01, 0.1]}",
        "  train_batch_size_per_learner: {grid: [64, 512]}\n  replay_buffer_config.capacity: {grid: [1000, 300]}",
    )
    with pytest.raises(ValueError, match=r"my.yaml:7: `search_space.replay_buffer_config.capacity`: .*=512, .*=300"):
        check(write(tmp_path, text))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("model_config.fcnet_hiddens", "pbt cannot change"),
        ("seed", "under `seeds`"),
        ("num_env_runners", "pbt cannot change"),
        ("algorithm", "pbt cannot change .* at the top of the file"),
    ],
)
def test_pbt_changes_only_what_a_checkpoint_fits(key, text, tmp_path):
    values = "[MADDPG, MATD3]" if key == "algorithm" else "[1, 2]"
    file = write(
        tmp_path, PLAIN.replace("tau: {grid: [0.01, 0.1]}", f"{key}: {{choice: {values}}}") + "scheduler: pbt\nnum_samples: 4"
    )
    with pytest.raises(ValueError, match=rf"my.yaml:6: `search_space.{key}`: .*{text}"):
        check(file)


def test_pbt_knows_its_whole_population(tmp_path):
    text = PLAIN.replace("grid: [0.01, 0.1]", "loguniform: [0.01, 0.1]") + "search: random\nscheduler: pbt\n"
    with pytest.raises(ValueError, match="needs a population"):
        check(write(tmp_path, text))
    assert check(write(tmp_path, text + "seeds: [0, 1, 2]\n")).num_trials == 3
    with pytest.raises(ValueError, match=r"`max_concurrent`: 2 is less than the population of 3"):
        check(write(tmp_path, text + "seeds: [0, 1, 2]\n"), max_concurrent=2)


def test_no_file_and_no_mapping(tmp_path):
    with pytest.raises(ValueError, match=r"missing.yaml cannot be read"):
        read_sweep(tmp_path / "missing.yaml")
    with pytest.raises(ValueError, match=r"my.yaml:1: the file must hold keys and values"):
        read_sweep(write(tmp_path, "- a\n- b\n"))


def test_param_space_holds_domains_at_nested_keys(tmp_path):
    text = PLAIN.replace("[0.01, 0.1]}", "[1e-3, 0.1]}\n  model_config.fcnet_hiddens: {grid: [[8], [16, 16]]}")
    text = text.replace(
        "per_update: 50", "per_update: 50\n  model_config.fcnet_activation: tanh\n  replay_buffer_config.capacity: 5000"
    )
    sweep = check(write(tmp_path, text + "seeds: [3, 4]\ncheckpoint_every: 200\n"))
    space = param_space(sweep, 0.25)
    assert space["tau"] == {"grid_search": [0.001, 0.1]}  # 1e-3 is a number
    assert space["_model_config"] == {"fcnet_activation": "tanh", "fcnet_hiddens": {"grid_search": [[8], [16, 16]]}}
    assert space["replay_buffer_config"] == {**MADDPGConfig().replay_buffer_config, "capacity": 5000}
    assert (space["env"], space["env_config"]) == ("simple_spread", {"continuous_actions": True})
    assert space["num_gpus_per_learner"] == 0.25
    # Results come at least as often as checkpoints.
    assert space["min_sample_timesteps_per_iteration"] == 200
    assert (sweep.num_points, sweep.num_trials) == (4, 8)


def test_items_of_dicts_in_which_algorithms_differ(tmp_path):
    """Tune gives all trials one dict: that of the first algorithm, with the item set in it."""
    text = PLAIN.replace("tau:", "algorithm: {grid: [MADDPG, 'own_members:SmallReplay']}\n  tau:")
    check(write(tmp_path, text))
    text = text.replace("per_update: 50", "per_update: 50\n  replay_buffer_config.device: cpu")
    message = "MADDPG and own_members:SmallReplay have other defaults of `replay_buffer_config`. Set the whole dict"
    with pytest.raises(ValueError, match=message):
        check(write(tmp_path, text))
    check(write(tmp_path, text.replace("'own_members:SmallReplay'", "IDDPG")))


def test_trials_are_checked_with_the_config_of_their_algorithm(tmp_path):
    text = PLAIN.replace("tau:", "algorithm: {grid: [MADDPG, MATD3, 'own_members:OwnMember']}\n  tau:")
    sweep = check(write(tmp_path, text))
    assert sweep.num_points == 6
    assert [type(make_config(sweep, {"algorithm": name})) for name in sweep.algorithms] == [
        MADDPGConfig,
        MATD3Config,
        OwnConfig,
    ]
    assert trainable(sweep) is MemberTrial
    assert param_space(sweep, 0)["algorithm"] == {"grid_search": ["MADDPG", "MATD3", "own_members:OwnMember"]}
    # One algorithm for all: its own settings are known, for PBT too.
    text = PLAIN.replace("env: simple", "algorithm: own_members.OwnMember\nenv: simple").replace("tau: {grid", "tau: {choice")
    sweep = check(
        write(tmp_path, text.replace("per_update: 50", "per_update: 50\n  own_switch: true") + "scheduler: pbt\nseeds: [0, 1]")
    )
    assert param_space(sweep, 0)["algorithm"] == "own_members.OwnMember"
    assert check_trials(sweep).algo_class is OwnMember
    # The default is named where it is swept over, even alone.
    assert param_space(check(write(tmp_path, PLAIN.replace("tau: {grid: [0.01, 0.1]", "algorithm: {grid: [MADDPG]"))), 0)[
        "algorithm"
    ] == {"grid_search": ["MADDPG"]}
    # As before there were others.
    for text in (PLAIN, f"{PLAIN}algorithm: MADDPG\n"):
        sweep = check(write(tmp_path, text))
        assert trainable(sweep) == "MADDPG" and "algorithm" not in param_space(sweep, 0)


def test_command_line_goes_before_the_file(tmp_path):
    text = PLAIN.replace("grid: [0.01, 0.1]", "uniform: [0.01, 0.1]") + "search: random\nnum_samples: 3\nseeds: [0, 1]\n"
    assert read_sweep(write(tmp_path, text)).num_trials == 6
    sweep = read_sweep(write(tmp_path, text), num_samples=5, max_concurrent=2)
    assert (sweep.num_points, sweep.num_trials, sweep.max_concurrent) == (5, 10, 2)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_configs_are_valid(file):
    sweep = check(file)
    assert sweep.num_trials >= 3
    assert make_searcher(sweep) and make_scheduler(sweep)
    assert tune_num_samples(sweep) >= 1
    assert file.read_text().startswith("# ")


def test_configs_cover_the_ways_to_sweep():
    kinds = {(sweep.search, sweep.scheduler) for sweep in map(read_sweep, CONFIGS)}
    assert kinds >= {("grid", "fifo"), ("random", "asha"), ("optuna", "asha"), ("random", "pbt")}
    small = read_sweep(CONFIGS[0].with_name("grid_small.yaml"), num_samples=1)
    assert small.num_trials >= 8 and small.env_steps == 5000
    whole = {axis.key for axis in read_sweep(CONFIGS[0].with_name("grid.yaml")).axes}
    assert whole == {"tau", "actor_lr", "critic_lr", "train_batch_size_per_learner"}


def test_scenario_configs_have_the_settings_of_the_results_table(monkeypatch):
    monkeypatch.syspath_prepend(str(CONFIGS[0].parents[1] / "examples"))
    from learning import SCENARIOS

    for name in ("simple_speaker_listener", "simple_spread", "simple_adversary", "pendulum"):
        env, env_config, env_steps, settings, num_envs, _ = SCENARIOS[name]
        sweep = read_sweep(CONFIGS[0].with_name(f"{name}.yaml"))
        assert (sweep.env, sweep.env_config, sweep.env_steps) == (env, env_config, env_steps)
        assert len(sweep.seeds) >= 3
        wanted = {**settings, "num_envs_per_env_runner": num_envs}
        for axis in sweep.axes:
            # The published value is one of those that are tried.
            assert wanted.pop(axis.key) in axis.args, axis
        assert {"num_envs_per_env_runner": 1, **sweep.settings} == wanted


def test_a_swept_item_of_a_dict_in_settings_leaves_the_settings_alone(tmp_path):
    text = PLAIN.replace("num_env_steps_per_update: 50", "model_config: {fcnet_activation: tanh}")
    text = text.replace("tau: {grid: [0.01, 0.1]}", "model_config.fcnet_hiddens: {grid: [[8], [16]]}")
    sweep = check(write(tmp_path, text))
    space = param_space(sweep, 0)
    assert space["_model_config"] == {"fcnet_activation": "tanh", "fcnet_hiddens": {"grid_search": [[8], [16]]}}
    assert sweep.settings == {"model_config": {"fcnet_activation": "tanh"}}
