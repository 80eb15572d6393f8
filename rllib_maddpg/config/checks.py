"""Checks of a config's settings: each `ValueError` names key, value, what is allowed, and the fix."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.column_checks import check_columns
from rllib_maddpg.config.kinds import (
    BOOL,
    POSITIVE,
    RATE,
    SCHEDULE,
    SECONDS,
    STEPS,
    Kind,
    between,
    is_number,
    one_of,
    python_scalars,
    whole,
)
from rllib_maddpg.config.model_checks import check_models
from rllib_maddpg.config.old_settings import OLD_SETTINGS, old_key_message
from rllib_maddpg.config.replay_checks import check_replay
from rllib_maddpg.config.require import is_whole, near, require, shown
from rllib_maddpg.config.rllib_checks import (
    check_batch_mode,
    check_classes,
    check_compilation,
    check_evaluation,
    check_gpus,
    check_kind,
    check_policies,
    check_recording,
    check_rllib_settings,
)
from rllib_maddpg.config.rllib_settings import MAX_SEED, PASSED
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.learning.losses import CRITIC_LOSSES
from rllib_maddpg.modules.views import VIEWS, View
from rllib_maddpg.rows.actions import ACTOR_HEADS
from rllib_maddpg.sampling.collecting import SAMPLE_MODES
from rllib_maddpg.sampling.exploration import NOISE_TYPES

DEFAULT_BATCH = 1024  # joint rows for each Learner (paper, appendix)
_ALL = "See `MADDPGConfig.training` for all settings."
_OFF = "Set 0 to switch it off."
_PROCESS = "0: the main process does it."
_AS_LONG = "None: wait for fragments as long as it takes."
# Settings of MADDPG, and of RLlib those that it uses itself.
SETTINGS: dict[str, Kind] = {
    "num_learners": whole(0).but(_PROCESS),
    "num_env_runners": whole(0).but(_PROCESS),
    "num_envs_per_env_runner": whole(1),
    "rollout_fragment_length": Kind("a whole number > 0, or 'auto'", lambda x: is_whole(x, 1) or x == "auto"),
    "broadcast_interval": whole(1).but("1: new weights in each round."),
    "sample_timeout_s": Kind("a number > 0, or None", lambda x: x is None or (SECONDS.accepts(x) and x > 0), _AS_LONG),
    "env_runner_fast_path": BOOL.but("False: sample in RLlib's own loop."),
    "seed": whole(0, MAX_SEED).or_none(f"At most {MAX_SEED:,}."),
    "tau": Kind("in (0, 1]", lambda x: is_number(x) and 0 < x <= 1, "The paper uses 0.01."),
    "gamma": Kind("in [0, 1]", lambda x: is_number(x) and 0 <= x <= 1, "The paper uses 0.95."),
    "actor_lr": RATE.or_none("None: as `lr`."),
    "critic_lr": RATE.or_none("None: as `lr`."),
    "noise_scale": SCHEDULE,
    "exploration_temperature": SCHEDULE,
    "ou_theta": between(0, 2).but("Beyond 2 the noise would grow without end."),
    "ou_sigma": between(0, 1e10).but(_OFF),
    "actor_output_reg": between(0, 1e10).but(_OFF),
    "num_env_steps_per_update": between(1e-3, 1e15).but(_ALL),
    "gumbel_softmax_temperature": between(1e-6, 1e6).but(_ALL),
    "huber_delta": between(1e-10, 1e10).but(_ALL),
    "target_network_update_freq": STEPS.but("In env steps."),
    "num_steps_sampled_before_learning_starts": STEPS.but("In env steps."),
    "grad_clip": POSITIVE.or_none("Set None for no clipping."),
    "minibatch_per_module": BOOL.but("True: each module draws rows of its own."),
    "store_buffer_in_checkpoints": BOOL.but("True: a resumed run goes on with the same rows."),
    "normalize_actions": Kind("True", lambda x: x is True, "The actors act in [-1, 1]; RLlib scales to the env's bounds."),
    "train_batch_size_per_learner": whole(1).but("The paper uses 1024."),
    "actor_head": one_of(*ACTOR_HEADS),
    "critic_loss": one_of(*CRITIC_LOSSES),
    "others_actions": one_of("replay", "current"),
    "critic_view": Kind("'all', 'own' or a View", lambda x: isinstance(x, View) or (isinstance(x, str) and x in VIEWS)),
    "noise_type": one_of(*NOISE_TYPES),
    "grad_clip_by": one_of("global_norm", "norm", "value"),
    "count_steps_by": one_of("env_steps"),  # a joint row is an env step
    "sample_mode": one_of(*SAMPLE_MODES),
}
# Settings that are numbers or are made of them, but for the dicts of which only the user knows what is in them.
_MAY_HAVE_SCALARS = {*SETTINGS, *PASSED, "lr", "train_batch_size", "replay_buffer_config", "_model_config"}
_MAY_HAVE_SCALARS |= {"algorithm_config_overrides_per_module"}
_MAY_HAVE_SCALARS -= {"env_config", "learner_config_dict"}
# What a module can have for itself.
PER_MODULE_NUMBERS = ("gamma", "tau", "grad_clip", "actor_output_reg", "huber_delta", "gumbel_softmax_temperature")
PER_MODULE_WORDS = ("grad_clip_by", "critic_loss", "others_actions", "critic_view")
PER_MODULE_KEYS = ("lr", "actor_lr", "critic_lr", *PER_MODULE_NUMBERS, *PER_MODULE_WORDS)


def use_python_scalars(config: AlgorithmConfig) -> None:
    """NumPy's scalars, such as searches give them, become Python's, which RLlib's own checks and JSON ask for."""
    for key in _MAY_HAVE_SCALARS:
        value = getattr(config, key)
        plain = python_scalars(value)
        if plain is not value:
            setattr(config, key, plain)


def check_settings(config: AlgorithmConfig) -> None:
    """Checks all settings that can be judged without the environment."""
    check_keys(config)
    check_api_stack(config)
    check_rllib_settings(config)
    check_own_settings(config)
    check_is_dict(config, "algorithm_config_overrides_per_module", "{'agent_0': {'tau': 0.01}}")
    check_models(config)
    check_columns(config)
    check_batch_size(config)
    check_replay(config)
    check_classes(config)
    check_policies(config)
    check_batch_mode(config)
    check_compilation(config)
    check_gpus(config)
    check_evaluation(config)
    check_recording(config)


def check_api_stack(config: AlgorithmConfig) -> None:
    """New API stack only."""
    for key in ("enable_rl_module_and_learner", "enable_env_runner_and_connector_v2"):
        if getattr(config, key) is not True:
            raise ValueError(
                "`api_stack`: MADDPG runs on RLlib's new API stack only (RLModule, Learner, EnvRunner). Leave "
                f"`enable_rl_module_and_learner` and `enable_env_runner_and_connector_v2` True; `{key}` is not."
            )


def check_keys(config: AlgorithmConfig) -> None:
    """Every attribute is a known setting (RLlib sets unknown ones without a word)."""
    known = _known_keys(type(config))
    for key in vars(config):
        # "class" is left by RLlib when it rebuilds a config from its state.
        if key not in known and key != "class" and not key.startswith("__"):
            raise ValueError(unknown_key_message(key, [k for k in known if not k.startswith("_")]))


@cache
def _known_keys(cls: type[AlgorithmConfig]) -> Collection[str]:
    return vars(cls()).keys()


def check_own_settings(config: AlgorithmConfig) -> None:
    """Numbers, schedules and words, each by itself."""
    for key, kind in SETTINGS.items():
        check_kind(config, key, kind)
    if config.lr is not None or config.actor_lr is None or config.critic_lr is None:
        check_kind(config, "lr", RATE)


def check_module_overrides(config: AlgorithmConfig, modules: Collection[str]) -> None:
    """`algorithm_config_overrides_per_module` names modules and settings that a module can have for itself."""
    for module, overrides in config.algorithm_config_overrides_per_module.items():
        what = f"`algorithm_config_overrides_per_module[{shown(module)}]`"
        if module not in modules:
            hint = did_you_mean(str(module), modules)
            raise ValueError(
                f"{what} is not allowed: it must be for modules of {sorted(modules)}. There is no {module!r}.{hint}"
            )
        if not isinstance(overrides, Mapping):
            raise ValueError(f"{what}={shown(overrides)} is not allowed: it must be a dict, such as {{'tau': 0.01}}.")
        for name in overrides:
            if name not in PER_MODULE_KEYS:
                hint = did_you_mean(str(name), PER_MODULE_KEYS)
                raise ValueError(
                    f"{what}: `{name}` holds for all modules.{hint} A module can have for itself: {list(PER_MODULE_KEYS)}."
                )
        own = config.copy(copy_frozen=False).update_from_dict(overrides)
        try:
            check_own_settings(own)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error


def check_batch_size(config: AlgorithmConfig) -> None:
    """The two keys of the batch agree."""
    learners, total, own = config.num_learners or 1, config.train_batch_size, config.train_batch_size_per_learner
    if total is not None:
        fix = "Set `train_batch_size_per_learner` instead."
        require(config, "train_batch_size", is_whole(total, 1), "a whole number > 0", fix)
        require(config, "train_batch_size", total % learners == 0, f"divisible by the {learners} Learners", fix)
        agree = own in (DEFAULT_BATCH, total // learners)
        require(config, "train_batch_size", agree, f"unset beside `train_batch_size_per_learner`={own}", "Set one of the two.")


def check_is_dict(config: AlgorithmConfig, key: str, example: str) -> None:
    """A setting is a dict with words as keys, so that it can be looked into."""
    value = getattr(config, key)
    ok = isinstance(value, Mapping) and all(isinstance(word, str) for word in value)
    require(config, key, ok, "a dict", f"For example {example}.")


def unknown_key_message(key: str, known: list[str]) -> str:
    """Text for a key that no setting has."""
    if key in OLD_SETTINGS:
        return old_key_message(key)
    return f"`{key}` is no setting of MADDPG. {near(key, known)}"
