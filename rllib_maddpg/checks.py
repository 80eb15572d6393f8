"""Checks of a config's settings: each `ValueError` names key, value, what is allowed, and the fix."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from itertools import pairwise
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.actions import ACTOR_HEADS
from rllib_maddpg.collecting import SAMPLE_MODES
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.exploration import NOISE_TYPES
from rllib_maddpg.losses import CRITIC_LOSSES
from rllib_maddpg.model_checks import check_models
from rllib_maddpg.require import is_whole, near, require
from rllib_maddpg.rllib_settings import check_classes, check_policies, check_recording, check_unheeded

DEFAULT_BATCH = 1024  # joint rows for each Learner (paper, appendix)
REPLAY_BUFFER_KEYS = ("type", "capacity", "device", "num_shards")
# What the Learner asks of each module's own settings.
PER_MODULE_KEYS = (
    "lr",
    "actor_lr",
    "critic_lr",
    "gamma",
    "tau",
    "grad_clip",
    "grad_clip_by",
    "actor_output_reg",
    "critic_loss",
    "huber_delta",
    "others_actions",
    "gumbel_softmax_temperature",
)


def check_settings(config: AlgorithmConfig) -> None:
    """Checks all settings that can be judged without the environment."""
    check_keys(config)
    check_api_stack(config)
    check_resources(config)
    check_numbers(config)
    check_choices(config)
    check_models(config)
    check_replay(config)
    check_classes(config)
    check_policies(config)
    check_unheeded(config)
    check_recording(config)


def check_api_stack(config: AlgorithmConfig) -> None:
    """New API stack only."""
    if not (config.enable_rl_module_and_learner and config.enable_env_runner_and_connector_v2):
        raise ValueError(
            "`api_stack`: MADDPG runs on RLlib's new API stack only (RLModule, Learner, EnvRunner). Leave "
            "`enable_rl_module_and_learner` and `enable_env_runner_and_connector_v2` True."
        )


def check_keys(config: AlgorithmConfig) -> None:
    """Every attribute is a known setting (RLlib sets unknown ones without a word)."""
    known = vars(type(config)())
    for key in vars(config):
        # "class" is left by RLlib when it rebuilds a config from its state.
        if key not in known and key != "class" and not key.startswith("__"):
            raise ValueError(unknown_key_message(key, [k for k in known if not k.startswith("_")]))


def check_resources(config: AlgorithmConfig) -> None:
    """Counts of actors, the seed, and settings of RLlib that MADDPG would pass over."""
    for key in ("num_learners", "num_env_runners"):
        require(config, key, is_whole(getattr(config, key), 0), "a whole number >= 0", "0: the main process does it.")
    require(config, "num_envs_per_env_runner", is_whole(config.num_envs_per_env_runner, 1), "a whole number > 0", "")
    interval = config.broadcast_interval
    require(config, "broadcast_interval", is_whole(interval, 1), "a whole number > 0", "1: new weights in each round.")
    timeout = config.sample_timeout_s
    ok = timeout is None or (_is_number(timeout) and timeout > 0)
    require(config, "sample_timeout_s", ok, "a number > 0, or None", "None: wait for fragments as long as it takes.")
    fast = config.env_runner_fast_path
    require(config, "env_runner_fast_path", isinstance(fast, bool), "True or False", "False: sample in RLlib's own loop.")
    require(config, "seed", config.seed is None or is_whole(config.seed, 0), "a whole number >= 0, or None", "")
    fix = "Batches reach the Learners as they lie in the replay buffer; change observations in `env_to_module_connector`."
    require(config, "learner_connector", config._learner_connector is None, "unset", fix, config._learner_connector)
    value = config._torch_lr_scheduler_classes
    fix = "Give `actor_lr` and `critic_lr` as schedules."
    require(config, "_torch_lr_scheduler_classes", not value, "unset", fix, value)
    key = "add_default_connectors_to_module_to_env_pipeline"
    require(config, key, getattr(config, key), "True", "Exploration noise is a part of that pipeline.")


def check_module_overrides(config: AlgorithmConfig, modules: Collection[str]) -> None:
    """`algorithm_config_overrides_per_module` names modules and settings that a module can have for itself."""
    for module, overrides in (config.algorithm_config_overrides_per_module or {}).items():
        key = "algorithm_config_overrides_per_module"
        require(
            config, key, module in modules, f"for modules of {sorted(modules)}", f"There is no {module!r}.", {module: overrides}
        )
        for name in overrides:
            require(
                config,
                key,
                name in PER_MODULE_KEYS,
                f"made of {list(PER_MODULE_KEYS)}",
                f"`{name}` holds for all modules.{did_you_mean(name, PER_MODULE_KEYS)}",
                {module: overrides},
            )
        own = config.copy(copy_frozen=False).update_from_dict(overrides)
        check_numbers(own)
        check_choices(own)


def check_numbers(config: AlgorithmConfig) -> None:
    """Numbers and schedules within their ranges."""
    num, pos = _is_number, lambda x: _is_number(x) and x > 0
    require(config, "tau", pos(config.tau) and config.tau <= 1, "in (0, 1]", "The paper uses 0.01.")
    require(config, "gamma", num(config.gamma) and 0 <= config.gamma <= 1, "in [0, 1]", "The paper uses 0.95.")
    for key in ("lr", "actor_lr", "critic_lr"):
        value = getattr(config, key)
        unset_is_ok = key != "lr" or (config.actor_lr is not None and config.critic_lr is not None)
        require(
            config,
            key,
            (value is None and unset_is_ok) or _is_schedule(value),
            "a rate >= 0 or a schedule [[0, rate], [env_steps, rate], ...]",
            "The paper uses 0.01.",
        )
    for key in ("noise_scale", "exploration_temperature"):
        require(
            config,
            key,
            _is_schedule(getattr(config, key)),
            "a number >= 0 or a schedule [[0, v], [t, v], ...]",
            "Try 0.1 or 1.",
        )
    for key in ("ou_theta", "ou_sigma", "actor_output_reg"):
        value = getattr(config, key)
        require(config, key, num(value) and value >= 0, "a number >= 0", "Set 0 to switch it off.")
    for key in ("num_env_steps_per_update", "gumbel_softmax_temperature", "huber_delta"):
        require(config, key, pos(getattr(config, key)), "a number > 0", "See `MADDPGConfig.training`.")
    for key in ("target_network_update_freq", "num_steps_sampled_before_learning_starts"):
        value = getattr(config, key)
        require(config, key, num(value) and value >= 0 and value == int(value), "a whole number >= 0", "In env steps.")
    if config.grad_clip is not None:
        require(config, "grad_clip", pos(config.grad_clip), "a number > 0, or None", "Set None for no clipping.")


def check_choices(config: AlgorithmConfig) -> None:
    """Settings that are one of a few words, and the networks' activations."""
    choices = {
        "actor_head": ACTOR_HEADS,
        "critic_loss": tuple(CRITIC_LOSSES),
        "others_actions": ("replay", "current"),
        "noise_type": NOISE_TYPES,
        "grad_clip_by": ("global_norm", "norm", "value"),
        "count_steps_by": ("env_steps",),  # a joint row is an env step
        "sample_mode": SAMPLE_MODES,
    }
    for key, allowed in choices.items():
        value = getattr(config, key)
        require(config, key, value in allowed, f"one of {list(allowed)}", near(value, allowed))
    require(
        config,
        "normalize_actions",
        config.normalize_actions,
        "True",
        "The actors act in [-1, 1]; RLlib scales to the env's bounds.",
    )


def check_replay(config: AlgorithmConfig) -> None:
    """Batch and replay buffer fit each other."""
    learners, total, own = config.num_learners or 1, config.train_batch_size, config.train_batch_size_per_learner
    if total is not None:
        fix = "Set `train_batch_size_per_learner` instead."
        require(config, "train_batch_size", is_whole(total, 1), "a whole number > 0", fix)
        require(config, "train_batch_size", total % learners == 0, f"divisible by the {learners} Learners", fix)
        agree = own in (DEFAULT_BATCH, total // learners)
        require(config, "train_batch_size", agree, f"unset beside `train_batch_size_per_learner`={own}", "Set one of the two.")
    require(config, "train_batch_size_per_learner", is_whole(own, 1), "a whole number > 0", "The paper uses 1024.")
    buffer = config.replay_buffer_config
    unknown = sorted(set(buffer) - set(REPLAY_BUFFER_KEYS))
    require(config, "replay_buffer_config", not unknown, f"made of {list(REPLAY_BUFFER_KEYS)}", f"Drop {unknown}.")
    require(
        config,
        "replay_buffer_config['type']",
        buffer["type"] == "JointReplayBuffer",
        "'JointReplayBuffer'",
        "RLlib's own buffers take joint transitions apart, so a centralized critic cannot learn from them.",
        buffer["type"],
    )
    capacity, key = buffer["capacity"], "replay_buffer_config['capacity']"
    require(config, key, is_whole(capacity, 1), "a whole number of env steps", "The paper uses 1,000,000.", capacity)
    require(
        config,
        key,
        capacity >= (total or own * learners),
        f"at least the total train batch size of {total or own * learners} rows",
        "Raise the capacity or lower `train_batch_size_per_learner`.",
        capacity,
    )

    shards, key = buffer["num_shards"], "replay_buffer_config['num_shards']"
    require(config, key, is_whole(shards, 0), "a whole number >= 0", "0: the main process keeps the rows.", shards)
    require(config, key, shards <= capacity, f"at most the capacity of {capacity} rows", "Some 4 shards are many.", shards)
    own = capacity // max(1, shards)

    fragment = config.get_rollout_fragment_length()
    rows = fragment * config.num_envs_per_env_runner
    what = f"capacity of {own} rows of each shard" if shards else f"capacity of {own} rows"
    fix = f"Lower it or `num_envs_per_env_runner`, or raise the {what}: else rows are lost unseen."
    require(config, "rollout_fragment_length", rows <= own, f"so short that {rows} rows fit the buffer", fix, fragment)
    check_replay_device(config)


def check_replay_device(config: AlgorithmConfig) -> None:
    """Rows can be kept on a GPU where this process has one and updates in it."""
    device, key = config.replay_buffer_config["device"], "replay_buffer_config['device']"
    ok = device == "cpu" or (isinstance(device, str) and re.fullmatch(r"cuda(:\d+)?", device) is not None)
    require(config, key, ok, "'cpu' or 'cuda'", "", device)
    if device != "cpu":
        has = torch.cuda.is_available() and int(device.partition(":")[2] or 0) < torch.cuda.device_count()
        fix = f"torch sees {torch.cuda.device_count()} GPUs here. Set 'cpu'."
        require(config, key, has, "a GPU that this process can use", fix, device)
        fix = "Remote Learners get their rows over the network: set 'cpu', or `num_learners=0`."
        require(config, key, not config.num_learners, "'cpu' with remote Learners", fix, device)
        fix = "Shards are processes of their own: set 'cpu', or `num_shards` to 0."
        require(config, key, not config.replay_buffer_config["num_shards"], "'cpu' with `num_shards`", fix, device)


def unknown_key_message(key: str, known: list[str]) -> str:
    """Text for a key that no setting has."""
    return f"`{key}` is no setting of MADDPG. {near(key, known)}"


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def _is_schedule(x: Any) -> bool:
    """Whether `x` is a number >= 0 or RLlib's `[[0, v0], [t1, v1], ...]` with rising times and values >= 0."""
    if _is_number(x):
        return x >= 0
    if not isinstance(x, (list, tuple)) or not x or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in x):
        return False
    times = [t for t, _ in x]
    return (
        len(x) > 1
        and times[0] == 0
        and all(a < b for a, b in pairwise(times))
        and all(_is_number(t) and _is_number(v) and v >= 0 for t, v in x)
    )
