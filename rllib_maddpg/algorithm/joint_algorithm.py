"""What a fixed joint layout changes of RLlib's `Algorithm`, and its methods that are of the old API stack."""

from __future__ import annotations

import copy
from typing import Any, NoReturn

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.annotations import override

from rllib_maddpg.envs import resolve_env
from rllib_maddpg.rows.layout import JointLayout


class JointAlgorithm(Algorithm):
    """An algorithm whose modules are fixed, since each critic sees all agents; new API stack only.

    Attributes:
        layout: Order of agents and modules, set by the subclass.
    """

    layout: JointLayout

    @override(Algorithm)
    def get_weights(self, policies: list[str] | None = None) -> dict[str, dict]:
        """The weights of modules (None: of all), as they are now and stay: a league's snapshots, for example."""
        # RLlib's are views of a local Learner's parameters, which go on learning.
        return copy.deepcopy(super().get_weights(policies))

    @override(Algorithm)
    def set_weights(self, weights: dict[str, dict]) -> None:
        """Gives modules other weights (`get_weights()` has them all), on Learners and env runners."""
        # RLlib goes on from here with a call of the old API stack.
        self.set_state({COMPONENT_LEARNER_GROUP: {COMPONENT_LEARNER: {COMPONENT_RL_MODULE: weights}}})

    @override(Algorithm)
    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        if COMPONENT_LEARNER_GROUP in (kwargs.get("component") or ""):
            # Restored past the Learner, the weights would have the number of the old ones, which env runners then keep.
            self.learner_group.foreach_learner(lambda learner: learner.count_weights())
        super().restore_from_path(path, *args, **kwargs)

    @override(Algorithm)
    def get_module(self, module_id: str = DEFAULT_MODULE_ID) -> RLModule | None:
        """The module as env runners have it; without an id the only one, whatever its name. None: there is no such module."""
        modules = self.layout.modules
        if module_id == DEFAULT_MODULE_ID and len(modules) == 1:
            module_id = modules[0]
        return super().get_module(module_id)

    @staticmethod
    @override(Algorithm)
    def _get_env_id_and_creator(env_specifier: Any, config: Any) -> tuple[Any, Any]:
        """RLlib's, and functions, which RLlib does not take without a name."""
        if callable(env_specifier) and not isinstance(env_specifier, type):
            return env_specifier, resolve_env(env_specifier)
        return Algorithm._get_env_id_and_creator(env_specifier, config)

    # ------------------------------------------------------------------------------------------ fixed modules

    @override(Algorithm)
    def add_module(self, module_id: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: the critics of all other modules would have to grow.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"add_module({module_id!r}): MADDPG's modules are fixed, since every critic and every replay row has a place for "
            "each agent. Build a new algorithm with the module in `.multi_agent(policies=..., policy_mapping_fn=...)`; weights "
            "of modules that stay come over with `RLModuleSpec(load_state_path=...)` or `algo.set_weights(...)`."
        )

    @override(Algorithm)
    def remove_module(self, module_id: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: the critics of all other modules see what its agents do.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"remove_module({module_id!r}): MADDPG's modules are fixed, since every critic and every replay row has a place "
            "for each agent. To stop its training, leave it out of `.multi_agent(policies_to_train=[...])`; for a game "
            "without its agents build a new algorithm."
        )

    # ------------------------------------------------------------------------------------------ old API stack

    def _old_stack(self, method: str, instead: str) -> NoReturn:
        raise NotImplementedError(f"`{method}` is of RLlib's old API stack, on which MADDPG does not run. {instead}")

    @override(Algorithm)
    def add_policy(self, policy_id: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused, see `add_module`."""
        self.add_module(policy_id)

    @override(Algorithm)
    def remove_policy(self, policy_id: str = "default_policy", *args: Any, **kwargs: Any) -> NoReturn:
        """Refused, see `remove_module`."""
        self.remove_module(policy_id)

    @override(Algorithm)
    def get_policy(self, policy_id: str = "default_policy") -> NoReturn:
        """Old API stack."""
        self._old_stack("get_policy", f"Use `algo.get_module(module_id)`; the modules are {sorted(self.config.policies)}.")

    @override(Algorithm)
    def compute_single_action(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Old API stack."""
        self._old_stack("compute_single_action", ACT)

    @override(Algorithm)
    def compute_actions(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Old API stack."""
        self._old_stack("compute_actions", ACT)

    @override(Algorithm)
    def export_policy_model(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Old API stack."""
        self._old_stack("export_policy_model", SAVE)

    @override(Algorithm)
    def export_policy_checkpoint(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Old API stack."""
        self._old_stack("export_policy_checkpoint", SAVE)


ACT = (
    "Use `algo.get_module(module_id).forward_inference({'obs': tensor of shape [B, obs_dim]})['actions']`; Box actions come in "
    "[-1, 1], as `normalize_actions` says."
)
SAVE = "Use `algo.get_module(module_id)`, a torch module, or `algo.save_to_path()` and `RLModule.from_checkpoint()`."
