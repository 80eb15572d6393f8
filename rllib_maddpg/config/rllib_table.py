"""Rows of the table for RLlib's own settings: those that MADDPG uses itself or has another default for.

All others of RLlib stand in `rllib_settings.py`.
"""

from __future__ import annotations

from ray.rllib.algorithms.algorithm_config import NotProvided

from rllib_maddpg.config.kinds import BOOL, DICT, NUMBER, SECONDS, Kind, dict_of_words, one_of, only, whole
from rllib_maddpg.config.require import is_whole, same
from rllib_maddpg.config.setting import Setting

# numpy takes seeds of 32 bits; RLlib adds 1,000,000 for evaluation, and the number of the runner.
MAX_SEED = 4_290_000_000
# Env steps. What a remote runner's fragment costs the algorithm's process hardly depends on its length (docs/scaling.md).
MIN_REMOTE_FRAGMENT = 8
_PROCESS = "0: the main process does it."
_AS_LONG = "None: wait for fragments as long as it takes."

# How much runs where.
RESOURCES: tuple[Setting, ...] = (
    Setting("seed", NotProvided, whole(0, MAX_SEED).or_none(f"At most {MAX_SEED:,}."), method="debugging", main=True),
    Setting("num_env_runners", NotProvided, whole(0).but(_PROCESS), method="env_runners", main=True, short="runners"),
    Setting("num_envs_per_env_runner", NotProvided, whole(1), method="env_runners", main=True, short="envs"),
    Setting("num_learners", NotProvided, whole(0).but(_PROCESS), method="learners", main=True),
)

OTHERS: tuple[Setting, ...] = (
    Setting(
        "rollout_fragment_length",
        "auto",
        Kind("a whole number > 0, or 'auto'", lambda x: is_whole(x, 1) or same(x, "auto")),
        'Env steps of each env in one call of a runner; "auto": such that all envs together reach the next update, and at '
        f"least {MIN_REMOTE_FRAGMENT} of remote runners, each of whose fragments costs time.",
        method="env_runners",
        part="sampling",
    ),
    Setting(
        "sample_timeout_s",
        NotProvided,
        Kind("a number > 0, or None", lambda x: x is None or (SECONDS.accepts(x) and x > 0), _AS_LONG),
        method="env_runners",
        part="sampling",
    ),
    Setting(
        "torch_skip_nan_gradients",
        NotProvided,
        BOOL,
        "False: an update with NaN raises and names module and quantity; True: it is skipped and counted.",
        method="framework",
    ),
    Setting(
        "min_sample_timesteps_per_iteration",
        1000,
        NUMBER.or_none(),
        "Env steps from one result to the next, at least.",
        method="reporting",
        short="steps/iteration",
    ),
    Setting(
        "algorithm_config_overrides_per_module",
        NotProvided,
        dict_of_words("{'agent_0': {'tau': 0.01}}"),
        'Module -> its own values, such as `{"agent_0": {"tau": 0.02}}`, of settings that say *module* here.',
        method="rl_module",
    ),
    Setting("env_config", NotProvided, DICT, method="environment"),
    # RLlib's own check refuses games of one step, such as matrix games.
    Setting("disable_env_checking", True, BOOL, method="environment"),
    Setting(
        "normalize_actions",
        NotProvided,
        Kind("True", lambda x: x is True, "The actors act in [-1, 1]; RLlib scales to the env's bounds."),
        method="environment",
    ),
    Setting("count_steps_by", NotProvided, one_of("env_steps"), method="multi_agent"),  # a joint row is an env step
    Setting(
        "output_write_episodes",
        False,
        only(False, "RLlib's readers know single agents' episodes only. Read the rows with `ray.data.read_parquet(output)`."),
        method="offline_data",
    ),
    Setting(
        "_dont_auto_sync_env_runner_states",
        True,
        only(True, "`MADDPG.step` tells the env runners what they need."),
        method="experimental",
    ),
)
