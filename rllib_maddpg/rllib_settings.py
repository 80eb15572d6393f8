"""Settings of RLlib that MADDPG would pass over or cannot have: refused, with what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.models.catalog import MODEL_DEFAULTS
from ray.rllib.policy.policy import PolicySpec

from rllib_maddpg.recording import make_folder
from rllib_maddpg.require import is_whole, require

UPDATES = "An update is one pass over `train_batch_size_per_learner` rows; `num_env_steps_per_update` says how often."
OFFLINE = "MADDPG learns from its own env runners only."
# Key -> the one value that it may have, and the fix.
UNHEEDED: dict[str, tuple[Any, str]] = {
    "framework_str": ("torch", "MADDPG's networks are PyTorch's."),
    "gym_env_vectorize_mode": ("sync", "RLlib steps multi-agent envs so; raise `num_env_runners` for more processes."),
    "remote_worker_envs": (False, "It is of RLlib's old API stack; raise `num_env_runners` for more processes."),
    "observation_filter": (
        "NoFilter",
        "It is of RLlib's old API stack: give `env_to_module_connector=lambda env, spaces, device: "
        "MeanStdFilter(multi_agent=True)` (`ray.rllib.connectors.env_to_module`).",
    ),
    "clip_rewards": (None, "Nothing clips rewards: wrap the env (`env_config={'wrappers': [['clip_reward_v0', {}]]}`)."),
    "render_env": (False, "It is of RLlib's old API stack; `rllib-maddpg evaluate --gif` draws episodes."),
    "num_epochs": (1, UPDATES),
    "minibatch_size": (None, UPDATES),
    "shuffle_batch_per_epoch": (False, "Rows are drawn at random from the replay buffer."),
    "optimizer": ({}, "It is of RLlib's old API stack. Override `MADDPGTorchLearner.configure_optimizers_for_module`."),
    "num_aggregator_actors_per_learner": (0, "Batches are drawn from the replay buffer, where nothing is to be aggregated."),
    "action_mask_key": (
        "action_mask",
        "Action masks are not supported yet: take the mask out of the observation, and let the env treat a forbidden action as "
        "one that does nothing.",
    ),
    "input_": ("sampler", OFFLINE),
    "offline_evaluation_interval": (None, OFFLINE),
}


def check_unheeded(config: AlgorithmConfig) -> None:
    """Settings that RLlib takes and MADDPG does not heed are as RLlib has set them."""
    for key, (value, fix) in UNHEEDED.items():
        now = getattr(config, key)
        # False is how some of RLlib's keys may say None.
        require(config, key, now == value or (value is None and now is False), f"{value!r}", fix)
    if config.model != MODEL_DEFAULTS:
        changed = sorted(k for k, v in config.model.items() if k not in MODEL_DEFAULTS or v != MODEL_DEFAULTS[k])
        raise ValueError(
            f"`model`: {changed} are not allowed here, the key is of RLlib's old API stack. Describe the networks with "
            "`.rl_module(model_config={'fcnet_hiddens': [64, 64], ...})`."
        )


def check_classes(config: AlgorithmConfig) -> None:
    """Classes of the user's are made from those that MADDPG needs."""
    from rllib_maddpg.env_runner import MADDPGEnvRunner
    from rllib_maddpg.joint_learner import JointTorchLearner

    cls = config.env_runner_cls
    ok = isinstance(cls, type) and issubclass(cls, MADDPGEnvRunner)
    require(config, "env_runner_cls", ok, "MADDPGEnvRunner or a subclass", "Other runners return no joint rows.")
    cls = config._learner_class
    ok = cls is None or (isinstance(cls, type) and issubclass(cls, JointTorchLearner))
    fix = "Other Learners know no joint rows: subclass it, and override `compute_critic_losses` or `compute_actor_losses`."
    require(config, "learner_class", ok, "MADDPGTorchLearner or a subclass", fix, cls)
    callbacks = config.callbacks_class
    for cls in callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]:
        ok = callable(cls) and (not isinstance(cls, type) or issubclass(cls, RLlibCallback))
        require(
            config, "callbacks_class", ok, "made of subclasses of RLlibCallback", "Import it from `ray.rllib.callbacks`.", cls
        )
    key = "add_default_connectors_to_env_to_module_pipeline"
    ok = getattr(config, key) or config._env_to_module_connector is not None
    require(config, key, ok, "True without an `env_to_module_connector`", "Else no observation reaches the actors.")


def check_policies(config: AlgorithmConfig) -> None:
    """`policies` names modules, and says nothing that only RLlib's old API stack would hear."""
    for module, spec in config.policies.items() if isinstance(config.policies, Mapping) else ():
        if spec is None:
            continue
        spec = spec if isinstance(spec, PolicySpec) else PolicySpec(*spec)
        if spec.policy_class is not None:
            raise ValueError(
                f"`policies[{module!r}]` has the policy class {spec.policy_class!r}, which is of RLlib's old API stack. Give "
                "`PolicySpec()`, and module classes with `.rl_module(rl_module_spec=MultiRLModuleSpec(...))`."
            )
        if spec.config:
            raise ValueError(
                f"`policies[{module!r}]` has the config {spec.config!r}, which RLlib's new API stack does not read. Set "
                f"`algorithm_config_overrides_per_module={{{module!r}: MADDPGConfig.overrides(...)}}` in `.multi_agent()`."
            )


def check_policy_values(policies: Any) -> None:
    """No RLModule specs in `policies`, where a user may look for their place."""
    for module, spec in policies.items() if isinstance(policies, Mapping) else ():
        if isinstance(spec, RLModuleSpec):
            raise ValueError(
                f"`policies[{module!r}]` is an RLModuleSpec, but `policies` takes `PolicySpec()` or None. Give "
                f"`.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs={{{module!r}: RLModuleSpec(...)}}))`."
            )


def check_recording(config: AlgorithmConfig) -> None:
    """`offline_data(output=...)`: what the Parquet files of joint rows can be made from."""
    if config.output is None:
        return
    ok = isinstance(config.output, (str, Path)) and str(config.output)
    require(config, "output", ok, "a folder or the URI of one", "Env steps are written there as Parquet files.")
    rows = "RLlib's readers know single agents' episodes only. Read the rows with `ray.data.read_parquet(output)`."
    require(config, "output_write_episodes", not config.output_write_episodes, "False", rows)
    method = config.output_write_method
    require(config, "output_write_method", method == "write_parquet", "'write_parquet'", "Rows are Parquet files.")
    for key in ("output_config", "output_filesystem", "output_filesystem_kwargs", "output_write_method_kwargs"):
        fix = "Say all with `output`, such as 's3://bucket/folder'."
        require(config, key, not getattr(config, key), "unset", fix)
    most = config.output_max_rows_per_file
    require(config, "output_max_rows_per_file", most is None or is_whole(most, 1), "a whole number > 0, or None", "")
    try:
        make_folder(config.output)
    except (OSError, ValueError) as error:  # pyarrow's errors are these, too
        raise ValueError(
            f"`output`={str(config.output)!r} is not allowed: nothing can be written there ({error}). Give a folder that "
            "can be written to."
        ) from error
