"""`ModulesConfig`: what a config says of its modules, which are made for one game and its joint layout."""

from __future__ import annotations

from functools import partial
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.utils.annotations import override

from rllib_maddpg.config.agent_mapping import module_of_agent
from rllib_maddpg.config.described import DescribedConfig
from rllib_maddpg.config.kinds import is_number
from rllib_maddpg.config.model_checks import AddedToModel
from rllib_maddpg.config.own_columns import own_columns
from rllib_maddpg.config.state_columns import state_readers
from rllib_maddpg.envs import probe_env
from rllib_maddpg.rows.estimators import temperature_at
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema


class ModulesConfig(DescribedConfig):
    """A config of modules that know the joint layout; its settings hold for all of them, or for one."""

    @override(AlgorithmConfig)
    def get_multi_rl_module_spec(self, *, env: Any = None, spaces: Any = None, inference_only: bool = False, **kwargs: Any):
        """The spec of all modules, each of which gets the joint layout and the schema of rows in its `model_config`."""
        multi_spec = super().get_multi_rl_module_spec(env=env, spaces=spaces, inference_only=inference_only, **kwargs)
        observed, action_spaces = (dict(space or {}) for space in (spaces or {}).get(INPUT_ENV_SINGLE_SPACES, ({}, {})))
        if not action_spaces:
            env_spaces = probe_env(self.env, self.env_config, self.num_env_runners)
            observed, action_spaces = env_spaces.observation_spaces, env_spaces.action_spaces
        specs, module_of = multi_spec.rl_module_specs, partial(module_of_agent, self)
        obs_spaces = {agent: specs[module_of(agent)].observation_space for agent in action_spaces}
        layout = JointLayout(obs_spaces, action_spaces, module_of, self.actor_head, observed)
        schema = RowSchema(layout, self.extra_columns, own_columns(self))
        for module_id, spec in specs.items():
            # Set here too, because RLlib leaves a user's own specs as they are and would build critics on the runners.
            spec.inference_only = inference_only
            spec.model_config = {**spec.model_config, **self.added_to_model(module_id, schema)}
        return multi_spec

    def added_to_model(self, module_id: str, schema: RowSchema) -> dict[str, Any]:
        """What a module's `model_config` gets from this config."""
        keys = ("critic_view", "critic_type", "twin_q", "infer_other_policies", "num_sub_policies")
        words = {key: self.of_module(module_id, key) for key in keys}
        normalized = {key: getattr(self, key) for key in ("normalize_observations", "normalize_rewards")}
        return AddedToModel(schema.layout, schema, module_id, **words, **normalized)._asdict()

    def of_module(self, module_id: str, key: str) -> Any:
        """A module's own value of a setting, or that of all modules."""
        return self.algorithm_config_overrides_per_module.get(module_id, {}).get(key, getattr(self, key))

    # Numbers of the env's global state, as `validate()` finds them where a critic sees it.
    _global_state_width: int | None = None

    @property
    def asks_for_state(self) -> bool:
        """Whether the env's `state()` is asked after each step."""
        return bool(state_readers(self)) and self.state_key is None

    @override(DescribedConfig)
    def module_schedules(self, env_steps: int) -> dict[str, float]:
        falls, temperature = self.discrete_gradient_estimator == "tags", self.gumbel_softmax_temperature
        if not falls and is_number(temperature):
            return {}
        return {"gumbel_softmax_temperature": temperature_at(temperature, env_steps, falls)}

    @property
    def infers(self) -> bool:
        """Whether some module approximates the others' policies."""
        return any(self.of_module(m, "infer_other_policies") for m in self.policies)

    def learning_rate(self, lr: float | str) -> float | list:
        """Rate or schedule of a network.

        Args:
            lr: As in its `NetworkSpec`: a number, or a setting such as "actor_lr"; where that is None, `lr` holds.
                "actor" and "critic" stand for "actor_lr" and "critic_lr".
        """
        if not isinstance(lr, str):
            return lr
        own = getattr(self, lr if lr.endswith("lr") else f"{lr}_lr")
        return self.lr if own is None else own
