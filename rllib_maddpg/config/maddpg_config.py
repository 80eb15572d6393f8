"""`MADDPGConfig`: the settings of the algorithm, by the table in `config/table.py`, and what RLlib asks a config."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import tree
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_POLICY_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override
from ray.util import log_once

from rllib_maddpg.config.agent_mapping import AgentMapping, resolve_agents
from rllib_maddpg.config.checks import check_settings, use_python_scalars
from rllib_maddpg.config.member_checks import check_members
from rllib_maddpg.config.methods import MethodsConfig
from rllib_maddpg.config.replay_checks import replay_settings
from rllib_maddpg.config.require import shown
from rllib_maddpg.config.rllib_table import MIN_REMOTE_FRAGMENT
from rllib_maddpg.config.setters import name_settings
from rllib_maddpg.config.shared_checks import shared_learner_name
from rllib_maddpg.config.table import SETTINGS
from rllib_maddpg.config.turn_checks import resolve_turns
from rllib_maddpg.envs import probe_env
from rllib_maddpg.envs.masks import MASKS_KEY
from rllib_maddpg.modules.views import VIEWS, View
from rllib_maddpg.ray_compat import warn_if_untested
from rllib_maddpg.rows.schema import Column
from rllib_maddpg.sampling.connectors import check_connectors, with_agent_filters
from rllib_maddpg.sampling.flatten_connector import flatten_where_needed
from rllib_maddpg.shared.learner_group import SharedLearnerGroup


@name_settings
class MADDPGConfig(MethodsConfig):
    """Settings of MADDPG; defaults from the paper (Lowe et al. 2017, appendix) or its released code.

    ```python
    from rllib_maddpg import MADDPGConfig

    config = MADDPGConfig().environment("simple_adversary", env_config={"continuous_actions": True})
    algo = config.build_algo()
    for _ in range(10):
        print(algo.train()["env_runners"]["episode_return_mean"])
    ```

    Without `.multi_agent(...)` every agent gets a module of its own, named after it.
    """

    SETTINGS = SETTINGS

    def __init__(self, algo_class: type | None = None):
        from rllib_maddpg.algorithm.maddpg import MADDPG
        from rllib_maddpg.sampling.env_runner import MADDPGEnvRunner

        super().__init__(algo_class=algo_class or MADDPG)
        # Not in the table, which cannot import them.
        self.env_runner_cls = MADDPGEnvRunner
        self.policy_mapping_fn: Callable = AgentMapping()
        self._global_state_width: int | None = None  # what `validate()` finds

    @property
    @override(AlgorithmConfig)
    def is_multi_agent(self) -> bool:
        """True. RLlib would tell it by the names of the modules, one of which may be "default_policy" here, too."""
        return True

    @property
    def is_resolved(self) -> bool:
        """Whether `policies` are those of an env, as `validate()` makes them."""
        untouched = list(self.policies) == [DEFAULT_POLICY_ID] and self.policy_mapping_fn == AgentMapping()
        return isinstance(self.policies, Mapping) and not untouched

    @property
    def has_own_connectors(self) -> bool:
        """Whether connectors of the user's, which may have a state, change observations or actions on the env runners."""
        return self._env_to_module_connector is not None or self._module_to_env_connector is not None

    # ------------------------------------------------------------------------------------------ checks

    @override(AlgorithmConfig)
    def validate(self) -> None:
        """Checks every setting before any actor starts.

        Raises:
            ValueError: Naming key, value, what is allowed, and the fix.
        """
        if self._validate_config is False:  # other values that count as False are refused below
            return
        warn_if_untested()
        use_python_scalars(self)
        if isinstance(self.critic_view, View) and self.critic_view in VIEWS.values():
            self.critic_view = self.critic_view.name
        self.replay_buffer_config = replay_settings(self)
        check_settings(self)
        if self.train_batch_size is not None:
            self.train_batch_size_per_learner = self.train_batch_size // (self.num_learners or 1)
        if self.env is not None:
            spaces = probe_env(self.env, self.env_config, self.num_env_runners)
            if spaces.info_masks:  # as env runners, and whoever restores a checkpoint, shall have the env
                self.env_config = {**self.env_config, MASKS_KEY: list(spaces.info_masks)}
            resolve_turns(self, spaces)
            resolve_agents(self, spaces)
            check_connectors(self, spaces)
            check_members(self, spaces)
        # RLlib would warn that MADDPG "now" runs on the new API stack; it never ran on another.
        log_once(f"{self.algo_class.__name__}_on_new_api_stack")
        super().validate()
        if self.evaluation_config:
            self._validate_evaluation_config()

    def _validate_evaluation_config(self) -> None:
        """What RLlib would do when the actors for training run already."""
        try:
            self.get_evaluation_config_object().validate()
        except ValueError as error:
            raise ValueError(f"`evaluation_config`={shown(self.evaluation_config)} is not allowed: {error}") from error

    # ------------------------------------------------------------------------------------------ RLlib's hooks

    @property
    @override(AlgorithmConfig)
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"}

    @override(AlgorithmConfig)
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule

        return RLModuleSpec(module_class=MADDPGTorchRLModule)

    @override(AlgorithmConfig)
    def get_default_learner_class(self) -> type:
        from rllib_maddpg.learning.learner import MADDPGTorchLearner

        return MADDPGTorchLearner

    @override(AlgorithmConfig)
    def build_learner_group(
        self, *, env: Any = None, spaces: Any = None, rl_module_spec: Any = None, **kwargs: Any
    ) -> LearnerGroup:
        """RLlib's, or what stands for it where the trial learns in a shared learner."""
        name = shared_learner_name(self)
        if rl_module_spec is None:
            rl_module_spec = self.get_multi_rl_module_spec(env=env, spaces=spaces)
        if name is None:
            return super().build_learner_group(rl_module_spec=rl_module_spec, **kwargs)
        return SharedLearnerGroup(config=self.copy(), module_spec=rl_module_spec, name=name)

    @property
    def needs_newest_rows(self) -> bool:
        """Whether a stage of the Learner does."""
        return any(stage.newest for stage in self.learner_class.stages(self))

    @override(AlgorithmConfig)
    def build_env_to_module_connector(self, env: Any = None, spaces: Any = None, device: Any = None):
        """RLlib's pipeline; with `FlattenAgentObservations` where an agent does not observe a vector already."""
        pipeline = super().build_env_to_module_connector(env=env, spaces=spaces, device=device)
        flatten_where_needed(pipeline)
        return with_agent_filters(pipeline)

    @override(AlgorithmConfig)
    def get_evaluation_config_object(self) -> AlgorithmConfig | None:
        """RLlib's, but noise-free unless the user's `evaluation_config` says otherwise."""
        config = super().get_evaluation_config_object()
        if config is None:
            return None
        # A whole config for the evaluation says nothing of how often to evaluate, but is what RLlib asks.
        for key in [k for k in vars(self) if k.startswith("evaluation_") and k != "evaluation_config"]:
            setattr(config, key, getattr(self, key))
        if not isinstance(self.evaluation_config, AlgorithmConfig):
            config.explore = (self.evaluation_config or {}).get("explore", False)
        return config

    @override(AlgorithmConfig)
    def serialize(self) -> dict[str, Any]:
        """RLlib's, with class paths also where it leaves classes, and columns as text, so that JSON takes all of it."""
        return tree.map_structure(_plain, super().serialize())

    @override(AlgorithmConfig)
    def get_rollout_fragment_length(self, worker_index: int = 0) -> int:
        """Env steps of each env in one `sample()` call.

        "auto": such that all envs together reach the next update, but no fewer than `MIN_REMOTE_FRAGMENT` of a remote runner.
        """
        if self.rollout_fragment_length != "auto":
            return self.rollout_fragment_length
        num_envs = max(1, self.num_env_runners) * self.num_envs_per_env_runner
        least = MIN_REMOTE_FRAGMENT if self.num_env_runners else 1
        return max(least, math.ceil(self.num_env_steps_per_update / num_envs))


def _plain(value: Any) -> Any:
    if isinstance(value, (Column, View, partial)):
        return repr(value)
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else value
