"""Checks of RLlib's own settings: the tables of `rllib_settings`, and what depends on more than one of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.models.catalog import MODEL_DEFAULTS
from ray.rllib.policy.policy import PolicySpec
from ray.util import log_once

from rllib_maddpg.config.kinds import BOOL, Kind
from rllib_maddpg.config.old_settings import OLD_SETTINGS, old_key_message
from rllib_maddpg.config.require import require, same, shown
from rllib_maddpg.config.rllib_settings import PASSED, REFUSED
from rllib_maddpg.learning.graphed_learner import GraphedTorchLearner
from rllib_maddpg.sampling.recording import make_folder

# What RLlib sets in the config of an evaluation, whatever `evaluation_config` says.
SET_FOR_EVALUATION = ("num_env_runners", "rollout_fragment_length", "batch_mode", "in_evaluation", "evaluation_config")

logger = logging.getLogger(__name__)


def check_rllib_settings(config: AlgorithmConfig) -> None:
    """Each of RLlib's settings by itself: of its kind, or as it was. What the table has is the table's."""
    defaults, table = defaults_of(type(config)), type(config).table()
    for key in defaults:
        if is_old(key, defaults) and not same(getattr(config, key), defaults[key]):
            raise ValueError(old_key_message(key))
    # Not each Ray has each of the settings.
    here = defaults.keys() - table
    for key in (key for key in REFUSED if key in here):
        value, default = getattr(config, key), defaults[key]
        require(config, public_name(key), means_default(value, default), shown(default), REFUSED[key], value)
    for key in (key for key in PASSED if key in here):
        check_kind(config, key, PASSED[key])
    _check_model(config.model)


def check_kind(config: AlgorithmConfig, key: str, kind: Kind) -> None:
    """The value of one key is of its kind."""
    value = getattr(config, key)
    if not kind.accepts(value):
        require(config, public_name(key), False, kind.allowed, kind.hint(value), value)


def public_name(key: str) -> str:
    """A setting's name as RLlib's methods have it, which keep some under another name."""
    return key[1:] if key.endswith("_connector") or key == "_learner_class" else key


def means_default(value: Any, default: Any) -> bool:
    """Whether a value says what the default says: an Enum's member may stand for its value or name, and False for None."""
    meant = (value.value, value.name) if isinstance(value, Enum) else (value,)
    return any(same(one, default) for one in meant) or (default is None and value is False)


def is_old(key: str, settings: Collection[str]) -> bool:
    """Whether a key is one of `OLD_SETTINGS`, and not of those `settings` that a subclass of MADDPG's config has added."""
    return key in OLD_SETTINGS and (key not in settings or key in defaults_of(AlgorithmConfig))


@cache
def defaults_of(cls: type[AlgorithmConfig]) -> dict[str, Any]:
    """The attributes of a new config of a class; not to be changed."""
    return vars(cls())


def _check_model(model: Any) -> None:
    if not isinstance(model, Mapping) or not same(dict(model), MODEL_DEFAULTS):
        changed = shown(model)
        if isinstance(model, Mapping):
            changed = [k for k, v in model.items() if k not in MODEL_DEFAULTS or not same(v, MODEL_DEFAULTS[k])]
        raise ValueError(
            f"`model`: {changed} are not allowed here, the key is of RLlib's old API stack. Describe the networks with "
            "`.rl_module(model_config={'fcnet_hiddens': [64, 64], ...})`."
        )


def check_batch_mode(config: AlgorithmConfig) -> None:
    """RLlib sets the mode for evaluations, which nobody reads on the new API stack."""
    modes = ("truncate_episodes", "complete_episodes") if config.in_evaluation else ("truncate_episodes",)
    fix = "Env runners return fragments of `rollout_fragment_length` env steps; their rows are the same."
    require(config, "batch_mode", any(same(config.batch_mode, mode) for mode in modes), "'truncate_episodes'", fix)


def check_compilation(config: AlgorithmConfig) -> None:
    """`torch_compile_learner` compiles what MADDPG runs."""
    if not config.torch_compile_learner:
        return
    what = config.torch_compile_learner_what_to_compile
    fix = (
        "MADDPG's update never calls `forward_train`: set `torch_compile_learner_what_to_compile='complete_update'`, or "
        "`torch_compile_learner=False`."
    )
    key = "torch_compile_learner_what_to_compile"
    require(config, key, what == "complete_update", "'complete_update' with `torch_compile_learner`", fix)
    key, backends = "torch_compile_learner_dynamo_backend", torch.compiler.list_backends(exclude_tags=())
    require(config, key, getattr(config, key) in backends, f"one of {backends}", "'inductor' is torch's own.")
    key, mode = "torch_compile_learner_dynamo_mode", config.torch_compile_learner_dynamo_mode
    modes = ["default", *torch._inductor.list_mode_options()]
    require(config, key, mode is None or mode in modes, f"one of {modes}, or None", "None is torch's default.")


def check_gpus(config: AlgorithmConfig) -> None:
    """The Learner of this process has its GPU; those that remote actors ask for, a cluster may get later."""
    here = torch.cuda.device_count()
    cluster = ray.cluster_resources().get("GPU", 0) if ray.is_initialized() else None
    learner, runner = "num_gpus_per_learner", "num_gpus_per_env_runner"
    if config.num_gpus_per_learner and not config.num_learners:
        # With Tune, this process may be on another machine of the cluster than the trials.
        fix = "torch sees none here, and no Ray cluster that has one is connected."
        require(config, learner, bool(here or cluster), "0 where there is no GPU", fix)
        # RLlib's own assertion would come when the actors run.
        if here:
            require(config, "local_gpu_idx", config.local_gpu_idx < here, f"below {here}, the GPUs that torch sees here", "")
    runners = config.num_env_runners or config.evaluation_num_env_runners
    for key, actors in ((learner, config.num_learners), (runner, runners)):
        wanted = getattr(config, key)
        if wanted and actors and cluster == 0 and log_once(f"no GPU for {key}"):
            logger.warning("`%s`=%s, but the Ray cluster has no GPU: its actors wait until it gets one.", key, wanted)


def check_graphs(config: AlgorithmConfig) -> None:
    """Updates that must be CUDA graphs can be, as far as it is known before there are networks."""
    if config.cuda_graph is not True:
        return
    fix = "Set 'auto', which makes graphs where they can be."
    require(config, "cuda_graph", bool(config.num_gpus_per_learner), "'auto' or False without `num_gpus_per_learner`", fix)
    learner = config.learner_class
    why_not = learner.why_no_graphs(config) if issubclass(learner, GraphedTorchLearner) else f"{learner.__name__} knows none"
    require(config, "cuda_graph", not why_not, f"'auto' or False where {why_not}", fix)


def check_evaluation(config: AlgorithmConfig) -> None:
    """Evaluation's settings fit each other, and the config that RLlib makes for it would be accepted by itself."""
    low, high = (f"evaluation_auto_duration_{end}_env_steps_per_sample" for end in ("min", "max"))
    fix = "Raise one or lower the other."
    require(config, low, getattr(config, low) <= getattr(config, high), f"at most `{high}`={getattr(config, high)}", fix)
    key, runners = "evaluation_parallel_to_training", config.evaluation_num_env_runners
    fix = "Set `evaluation_num_env_runners` to 1 or more."
    require(config, key, runners > 0 or not getattr(config, key), "False with `evaluation_num_env_runners`=0", fix)
    auto_is_ok = config.evaluation_parallel_to_training or config.evaluation_duration != "auto"
    fix = "Say how many episodes, or set `evaluation_parallel_to_training=True`."
    require(config, "evaluation_duration", auto_is_ok, "a whole number without `evaluation_parallel_to_training`", fix)
    ok = config.evaluation_config is None or not config.in_evaluation
    require(config, "in_evaluation", ok, "False with an `evaluation_config`", "RLlib sets it in the config for evaluation.")
    own, what = config.evaluation_config, "a dict of settings, a whole config of the same class, or None"
    ok = own is None or isinstance(own, (Mapping, type(config)))
    require(config, "evaluation_config", ok, what, "For example {'explore': False}.")
    overwritten = [key for key in SET_FOR_EVALUATION if own is not None and key in own]
    # A whole config, of which RLlib makes a dict, has all of them.
    ok = not overwritten or len(overwritten) == len(SET_FOR_EVALUATION)
    fix = "`evaluation_num_env_runners` says how many runners evaluate, and `evaluation_duration` how long."
    if not ok:
        keys = ", ".join(f"`{key}`" for key in overwritten)
        raise ValueError(
            f"`evaluation_config`={shown(own)} is not allowed: it must not contain {keys}, which RLlib overwrites. {fix}"
        )


def check_classes(config: AlgorithmConfig) -> None:
    """Classes of the user's are made from those that MADDPG needs."""
    from rllib_maddpg.learning.joint_learner import JointTorchLearner
    from rllib_maddpg.sampling.env_runner import MADDPGEnvRunner

    cls = config.algo_class
    require(config, "algo_class", _is_a(cls, Algorithm), "MADDPG or a subclass", "Leave it as `MADDPGConfig` has it.")
    cls = config.env_runner_cls
    fix = "Other runners return no joint rows."
    require(config, "env_runner_cls", _is_a(cls, MADDPGEnvRunner), "MADDPGEnvRunner or a subclass", fix)
    cls = config._learner_class
    ok = cls is None or _is_a(cls, JointTorchLearner)
    fix = "Other Learners know no joint rows: subclass it, and override `td_target`, `critic_loss` or `actor_loss`."
    require(config, "learner_class", ok, "MADDPGTorchLearner or a subclass", fix, cls)
    callbacks = config.callbacks_class
    for cls in callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]:
        ok = callable(cls) and (not isinstance(cls, type) or issubclass(cls, RLlibCallback))
        fix = "Import it from `ray.rllib.callbacks`."
        require(config, "callbacks_class", ok, "made of subclasses of RLlibCallback", fix, cls)
    key = "add_default_connectors_to_env_to_module_pipeline"
    check_kind(config, key, BOOL)
    ok = getattr(config, key) or config._env_to_module_connector is not None
    require(config, key, ok, "True without an `env_to_module_connector`", "Else no observation reaches the actors.")
    key = "add_default_connectors_to_module_to_env_pipeline"
    require(config, key, getattr(config, key) is True, "True", "Exploration noise is a part of that pipeline.")


def _is_a(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)


def check_policies(config: AlgorithmConfig) -> None:
    """`policies` names modules, and says nothing that only RLlib's old API stack would hear."""
    policies, fix = config.policies, "For example {'team', 'rival'}, or {'team': PolicySpec()}."
    ok = isinstance(policies, (Mapping, list, tuple, set, frozenset)) and all(isinstance(name, str) for name in policies)
    require(config, "policies", ok and bool(policies), "names of modules, or a dict by their names", fix)
    mapping, what = config.policy_mapping_fn, "a function of agent ids, or a dict of agent ids to module ids"
    require(config, "policy_mapping_fn", mapping is None or callable(mapping) or isinstance(mapping, Mapping), what, "")
    names, what = config.policies_to_train, "a list of module ids, a function, or None"
    ok = names is None or callable(names)
    ok |= isinstance(names, (list, tuple, set, frozenset)) and all(isinstance(name, str) for name in names)
    require(config, "policies_to_train", ok, what, "None: all modules learn.")
    for module, spec in policies.items() if isinstance(policies, Mapping) else ():
        if spec is None:
            continue
        what = f"`PolicySpec()` or None for {module!r}"
        is_spec = isinstance(spec, PolicySpec) or (isinstance(spec, (list, tuple)) and len(spec) == 4)
        require(config, "policies", is_spec, what, "Networks are described with `.rl_module()`.")
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
    try:
        make_folder(config.output)
    except (OSError, ValueError) as error:  # pyarrow's errors are these, too
        raise ValueError(
            f"`output`={str(config.output)!r} is not allowed: nothing can be written there ({error}). Give a folder that "
            "can be written to."
        ) from error
