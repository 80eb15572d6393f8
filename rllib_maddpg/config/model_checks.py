"""Checks of what the networks are made from: `model_config`, module classes and their specs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

from rllib_maddpg.config.conv_checks import check_conv_keys
from rllib_maddpg.config.require import is_whole, near, require, same
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.modules.images import CONV_KEYS
from rllib_maddpg.modules.networks import ACTIVATIONS
from rllib_maddpg.modules.rule_modules import has_networks
from rllib_maddpg.modules.views import View
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema

# What the networks are made from; the rest of RLlib's model keys would be passed over.
MODEL_KEYS = (
    "fcnet_hiddens",
    "fcnet_activation",
    "use_layer_norm",
    "critic_fcnet_hiddens",
    "critic_fcnet_activation",
    "critic_use_layer_norm",
    "critic_attention_heads",
    *CONV_KEYS,
)


class AddedToModel(NamedTuple):
    """What `MADDPGConfig` adds to the `model_config` of a module."""

    layout: JointLayout
    schema: RowSchema
    module_id: str
    critic_view: View | str
    critic_type: str
    twin_q: bool
    infer_other_policies: bool
    num_sub_policies: int
    normalize_observations: bool
    normalize_rewards: bool


def check_models(config: AlgorithmConfig) -> None:
    """Module classes, and keys and values of all `model_config`s."""
    _check_types(config)
    own_networks = False
    specs = []
    default = _default_spec(config)
    for spec in [default, *_specs(config).values()]:
        cls = spec.module_class or default.module_class
        _check_class(config, cls)
        if has_networks(cls):
            specs.append(spec)  # other classes know what they want
            own_networks |= has_own_networks(cls)
    _check_model_config(config, config.model_config, own_networks)
    for spec in specs:
        _check_model_config(config, _merged(config, spec), own_networks)


def _check_types(config: AlgorithmConfig) -> None:
    """Specs are RLlib's, and what describes networks is a dict or RLlib's dataclass."""
    spec, fix = config._rl_module_spec, "Import them from `ray.rllib.core.rl_module`."
    ok = spec is None or isinstance(spec, (RLModuleSpec, MultiRLModuleSpec))
    if isinstance(spec, MultiRLModuleSpec):
        specs = spec.rl_module_specs
        ok = isinstance(specs, RLModuleSpec) or (
            isinstance(specs, dict) and all(isinstance(one, RLModuleSpec) for one in specs.values())
        )
    require(config, "rl_module_spec", ok, "an RLModuleSpec or a MultiRLModuleSpec of such", fix, spec)
    _check_is_model(config, config._model_config)
    for spec in _specs(config).values():
        if spec.model_config is not None:
            _check_is_model(config, spec.model_config)


def _check_is_model(config: AlgorithmConfig, model: Any) -> None:
    ok = isinstance(model, (Mapping, DefaultModelConfig))
    require(config, "model_config", ok, "a dict", "For example {'fcnet_hiddens': [64, 64]}.", model)


def check_spec_modules(config: AlgorithmConfig, modules: Collection[str]) -> None:
    """A user's `MultiRLModuleSpec` has modules of this game only."""
    if isinstance(config._rl_module_spec, MultiRLModuleSpec):
        for module in _specs(config):
            if module and module not in modules:
                raise ValueError(
                    f"`rl_module_spec` has a module {module!r}, to which `policy_mapping_fn` maps no agent. The modules are "
                    f"{sorted(modules)}; rename it or take it out."
                )


def _specs(config: AlgorithmConfig) -> dict[str, RLModuleSpec]:
    """The user's specs by module; one that is meant for all modules is that of ""."""
    spec = config._rl_module_spec
    if isinstance(spec, MultiRLModuleSpec):
        spec = spec.rl_module_specs
    if not spec:
        return {}
    return spec if isinstance(spec, dict) else {"": spec}


def specs_of(config: AlgorithmConfig, modules: Collection[str]) -> dict[str, RLModuleSpec]:
    """Module id -> the spec that the user gives it, or that of the config (`get_default_rl_module_spec`)."""
    specs, default = _specs(config), _default_spec(config)
    return {m: specs.get(m, specs.get("")) or default for m in modules}


def module_classes(config: AlgorithmConfig, modules: Collection[str]) -> dict[str, type]:
    """Module id -> its class; where its spec has none, that of the config."""
    default = _default_spec(config).module_class
    return {m: spec.module_class or default for m, spec in specs_of(config, modules).items()}


def model_config_of(spec: RLModuleSpec) -> dict[str, Any]:
    """The `model_config` of a spec, as a dict."""
    model = spec.model_config or {}
    return dataclasses.asdict(model) if dataclasses.is_dataclass(model) else dict(model)


def merged_model_config(config: AlgorithmConfig, module: str) -> dict[str, Any]:
    """What a module's networks are made from: its own keys, and those of all modules where it has none."""
    return _merged(config, specs_of(config, [module])[module])


def _merged(config: AlgorithmConfig, spec: RLModuleSpec) -> dict[str, Any]:
    # Specs may have been built before.
    own = {k: v for k, v in model_config_of(spec).items() if k not in AddedToModel._fields}
    return {**config.model_config, **own}


def _default_spec(config: AlgorithmConfig) -> RLModuleSpec:
    spec = config.get_default_rl_module_spec()
    ok = isinstance(spec, RLModuleSpec) and spec.module_class is not None
    fix = "For example RLModuleSpec(module_class=MyModule)."
    require(config, "get_default_rl_module_spec()", ok, "an RLModuleSpec with a class", fix, spec)
    return spec


def has_own_networks(cls: type) -> bool:
    """Whether a class makes its networks itself, from whatever `model_config` it wants."""
    from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule

    names = ("setup", "networks", "build_actor", "build_critic", "build_inferred", "inferred_networks", "actor_networks")
    return any(getattr(cls, name) is not getattr(MADDPGTorchRLModule, name) for name in names)


def _check_class(config: AlgorithmConfig, cls: type) -> None:
    from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule

    require(
        config,
        "rl_module_spec",
        isinstance(cls, type) and issubclass(cls, RLModule),
        "made of MADDPGTorchRLModule or subclasses; or of other RLModules, for those that are not trained",
        "Subclass it and override `build_actor` and `build_critic`.",
        getattr(cls, "__name__", cls),
    )
    if not has_networks(cls):
        return
    require(
        config,
        "rl_module_spec",
        cls.get_initial_state is MADDPGTorchRLModule.get_initial_state,
        "made of stateless modules",
        f"Remove `get_initial_state` from {cls.__name__}; stack frames instead.",
        cls.__name__,
    )


def _check_model_config(config: AlgorithmConfig, model: Mapping[str, Any], own_networks: bool) -> None:
    default = vars(DefaultModelConfig())
    fix = "Stateful modules are not supported; stack frames instead (`env_config={'wrappers': [['frame_stack_v2', {}]]}`)."
    require(config, "model_config['use_lstm']", not model.get("use_lstm"), "False", fix, True)
    for key, value in model.items():
        # A whole `DefaultModelConfig` may be given; what it has beyond our keys must be as it came.
        if not own_networks and key not in MODEL_KEYS and (key not in default or not same(value, default[key])):
            fix = "Override `MADDPGTorchRLModule.build_actor` and `build_critic` for other networks."
            raise ValueError(
                f"`model_config['{key}']` is no setting of MADDPG's networks.{did_you_mean(str(key), MODEL_KEYS)} {fix}"
            )
    for prefix in ("", "critic_"):
        unset = (None,) if prefix else ()
        key, activation = f"{prefix}fcnet_activation", model.get(f"{prefix}fcnet_activation")
        allowed = (*unset, *ACTIVATIONS)
        require(
            config,
            f"model_config['{key}']",
            any(same(activation, word) for word in allowed),
            f"one of {list(allowed)}",
            near(activation, allowed),
            activation,
        )
        key, hiddens = f"{prefix}fcnet_hiddens", model.get(f"{prefix}fcnet_hiddens")
        ok = isinstance(hiddens, (list, tuple)) and all(is_whole(n, 1) for n in hiddens)
        ok |= hiddens is None and bool(prefix)
        require(config, f"model_config['{key}']", ok, "a list of layer widths", "For example [64, 64].", hiddens)
        key = f"{prefix}use_layer_norm"
        value = model.get(key, None if prefix else False)
        ok = isinstance(value, bool) or (value is None and bool(prefix))
        fix = "None: as the actor." if prefix else "True: layer norm behind each hidden layer."
        require(config, f"model_config['{key}']", ok, "True or False", fix, value)
    check_conv_keys(config, model)
