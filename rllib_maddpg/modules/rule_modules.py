"""Modules that choose actions by a rule of their own and not by MADDPG's networks: heuristics, other algorithms' modules.

They are never trained. Their actions are in the joint rows, where the critics of the others see them; what they would do next,
which the critics' targets need, the Learner asks them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.module_to_env import GetActions
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.numpy import convert_to_numpy
from torch import Tensor, nn

from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule
from rllib_maddpg.rows.actions import ActionCodec, CategoricalCodec
from rllib_maddpg.rows.layout import AgentSlot

logger = logging.getLogger(__name__)

FORWARDS = ("_forward_inference", "forward_inference")


class RuleError(ValueError):
    """A module has failed, or has chosen what is no action; the text names it."""


def has_networks(module: RLModule | type[RLModule]) -> bool:
    """Whether a module, or those of a class, have an actor and a critic that MADDPG can train."""
    return issubclass(module if isinstance(module, type) else type(module), MADDPGTorchRLModule)


def acts_by_rule(module: RLModule) -> bool:
    """Whether a module's `forward_inference` is not what its actor network says; so long as it is not trained, it counts."""
    return any(getattr(type(module), name, None) is not getattr(MADDPGTorchRLModule, name) for name in FORWARDS)


def check_not_trained(config: AlgorithmConfig, classes: Mapping[str, type]) -> None:
    """Modules without MADDPG's networks are left out of `policies_to_train`.

    Args:
        config: What says who is trained.
        classes: Module id -> class.

    Raises:
        ValueError: Naming module and class.
    """
    without = {m: cls for m, cls in classes.items() if not has_networks(cls)}
    for module_id, cls in without.items():
        if _is_trained(config.policies_to_train, module_id):
            others = sorted(set(classes) - set(without), key=str)
            fix = f"Set `policies_to_train={others}` in `.multi_agent()`, or subclass" if others else "Subclass"
            raise ValueError(
                f"`policies_to_train`={config.policies_to_train!r} is not allowed: it must be without {module_id!r}, whose "
                f"class {cls.__name__} is not a MADDPGTorchRLModule and has no actor and critic to train. {fix} "
                "MADDPGTorchRLModule and override `build_actor` and `build_critic`."
            )


def warn_of_trained_rules(config: AlgorithmConfig, classes: Mapping[str, type[RLModule]]) -> None:
    """Says of each module that overrides what it plays, and is trained all the same, what learns of it.

    Args:
        config: What says who is trained.
        classes: Module id -> class.
    """
    for module_id, cls in classes.items():
        own = [name for name in FORWARDS if getattr(cls, name, None) is not getattr(MADDPGTorchRLModule, name)]
        if own and has_networks(cls) and _is_trained(config.policies_to_train, module_id):
            logger.warning(
                "Module %r of class %s overrides `%s` and is trained: all critics, its own and the others', take it to play "
                "what its actor network says. If it plays by a rule, leave it out: `policies_to_train=%s`.",
                module_id,
                cls.__name__,
                own[0],
                sorted(set(classes) - {module_id}),
            )


def _is_trained(policies_to_train: Any, module_id: str) -> bool:
    if callable(policies_to_train):
        with contextlib.suppress(Exception):  # it may want to see a batch
            return bool(policies_to_train(module_id, None))
        return False
    return policies_to_train is None or module_id in policies_to_train


def check_stateless(modules: Iterable[tuple[str, RLModule]]) -> None:
    """No module carries a state from one step to the next, which rows do not hold.

    Raises:
        ValueError: Naming module and class.
    """
    for module_id, module in modules:
        if module.is_stateful():
            raise ValueError(
                f"Module {module_id!r} of class {type(module).__name__} has a state (`get_initial_state`), which joint rows do "
                "not hold. Let it act on its last observation alone; stack frames if that is not enough."
            )


def codes_of(actions: Any, codec: ActionCodec, module_id: str) -> np.ndarray:
    """Action codes `[T, dim]` of what a module has chosen, boxes clipped to [-1, 1] as RLlib clips what the env gets.

    Args:
        actions: In RLlib's episode format, `[T, ...]`; boxes in [-1, 1].
        codec: Of the module's agents.
        module_id: Named in errors.

    Raises:
        RuleError: If these are no actions of the codec's space.
    """
    actions, space = np.asarray(actions), codec.space
    fits = actions.shape[1:] == space.shape
    each = actions.reshape(len(actions), -1)
    if fits and isinstance(codec, CategoricalCodec):
        good = (each >= codec.starts) & (each < codec.starts + codec.nvec) & (each == np.floor(each))
    else:
        good = np.isfinite(each)
    if not (fits and good.all()):
        first = actions[0 if not fits else np.flatnonzero(~good.all(1))[0]]
        raise RuleError(
            f"Module {module_id!r} has chosen {first.tolist()} in a space of {space}. Return one action of that space for "
            "each observation under the key 'actions'; for boxes between -1 and 1, which RLlib scales to their bounds."
        )
    return codec.encode(actions if isinstance(codec, CategoricalCodec) else np.clip(actions, -1.0, 1.0))


def check_allowed(code: np.ndarray, obs: np.ndarray, slot: AgentSlot, step: int) -> None:
    """A module has chosen what the action mask allows.

    Args:
        code: Action code, `[dim]`.
        obs: What the agent has observed, `[obs_dim]`.
        slot: Of the agent.
        step: Number of the step in the episode, for the error.

    Raises:
        RuleError: Naming module, agent and step.
    """
    if slot.mask is None:
        return
    mask = obs[slot.mask]
    if (code[~slot.codec.allowed(torch.from_numpy(mask)).numpy()] > 0).any():
        raise RuleError(
            f"Module {slot.module!r} has chosen {np.asarray(slot.codec.decode(code[None])[0]).tolist()} for agent "
            f"{slot.agent!r} in step {step} of the episode, which its action mask {mask.astype(int).tolist()} does not allow. "
            f"The mask is in what the module observes: columns {slot.mask.start} to {slot.mask.stop - 1} of 'obs'. Choose "
            "where it is 1."
        )


def rule_codes(module_id: str, module: RLModule, codec: ActionCodec, obs: Tensor, alive: Tensor) -> Tensor:
    """What a module does without exploration, asked of its own `forward_inference`.

    On a GPU this waits for the device in every update, which only games with such modules pay: a rule may compute in NumPy.

    Args:
        module_id: Named in errors.
        module: One for which `acts_by_rule`.
        codec: Of its n agents.
        obs: `[B, n, obs_dim]`.
        alive: 0 or 1, `[B, n]`.

    Returns:
        Action codes `[n, B, dim]`, zeros where no agent is alive: the module is not asked about those.

    Raises:
        RuleError: If the module fails or gives no actions.
    """
    # Not as a decorator, which imports torch's compiler: seconds, for each process that imports this file.
    return torch.compiler.disable(_rule_codes)(module_id, module, codec, obs, alive)


@torch.no_grad()
def _rule_codes(module_id: str, module: RLModule, codec: ActionCodec, obs: Tensor, alive: Tensor) -> Tensor:
    codes, living = obs.new_zeros(*alive.shape, codec.dim), alive > 0
    if living.any():
        # A module that is none of torch's computes where env runners do, whatever the Learner's device.
        seen = obs[living] if isinstance(module, nn.Module) else obs[living].cpu()
        try:
            output = dict(module.forward_inference({Columns.OBS: seen}))
            # Also draws actions for modules that give the parameters of a distribution.
            actions = GetActions()(rl_module=module, batch=output, episodes=[None], explore=False)[Columns.ACTIONS]
        except Exception as error:
            raise RuleError(
                f"Module {module_id!r} of class {type(module).__name__} failed in `forward_inference` "
                f"({type(error).__name__}: {error}). The Learner asks it what it would do at the next observations, "
                "{'obs': tensor [B, obs_dim]}, which the others' critics have to know: return {'actions': [B, ...]}."
            ) from error
        chosen = codes_of(convert_to_numpy(actions), codec, module_id)
        codes[living] = torch.as_tensor(chosen, dtype=codes.dtype, device=codes.device)
    return codes.transpose(0, 1)
