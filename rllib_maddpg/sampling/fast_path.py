"""Whether the columnar loop samples just what RLlib's own loop would, and if not, why."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors import env_to_module as to_module
from ray.rllib.connectors import module_to_env as to_env
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env.vector.sync_vector_multi_agent_env import SyncVectorMultiAgentEnv
from ray.rllib.utils import force_list

from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule
from rllib_maddpg.sampling.flatten_connector import FlattenAgentObservations
from rllib_maddpg.sampling.noise_connector import AddExplorationNoise
from rllib_maddpg.sampling.stock_loop import StockLoop
from rllib_maddpg.sampling.sub_policy_connector import SelectSubPolicies

# What the columnar loop does itself, in RLlib's order.
DEFAULT_CONNECTORS = (
    to_module.AddObservationsFromEpisodesToBatch,
    to_module.AddTimeDimToBatchAndZeroPad,
    to_module.AddStatesFromEpisodesToBatch,
    to_module.AgentToModuleMapping,
    to_module.BatchIndividualItems,
    to_module.NumpyToTensor,
    to_env.GetActions,
    to_env.TensorToNumpy,
    to_env.UnBatchToIndividualItems,
    to_env.ModuleToAgentUnmapping,
    to_env.RemoveSingleTsTimeRankFromBatch,
    to_env.NormalizeAndClipActions,
    to_env.ListifyDataForVectorEnv,
)
EPISODE_CALLBACKS = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")
FORWARDS = ("_forward", "_forward_exploration", "_forward_inference", "forward_exploration", "forward_inference")
# Parts of RLlib's loop that a subclass may have changed and the columnar loop does not call.
RUNNER_PARTS = (
    "_try_env_step",
    "_try_env_reset",
    "_reset_envs",
    "_new_episode",
    "_make_on_episode_callback",
    "_increase_sampled_metrics",
    "_log_episode_metrics",
    "_log_env_steps",
)


def reason_for_stock_path(runner: StockLoop) -> str | None:
    """Why the runner has to sample in RLlib's own loop, naming what asks for it; None if it need not."""
    return next(_reasons(runner), None)


def _reasons(runner: StockLoop) -> Iterator[str]:
    config = runner.config
    if not config.env_runner_fast_path:
        yield "`env_runner_fast_path` is False"
    if config.policy_mapping_fn is None:
        yield "there is no `policy_mapping_fn`"
    yield from _connectors(runner)
    for name in EPISODE_CALLBACKS:
        for callback in runner._callbacks:
            if getattr(type(callback), name) is not getattr(RLlibCallback, name):
                yield f"callback class {type(callback).__name__} has `{name}`"
        if force_list(getattr(config, f"callbacks_{name}")):
            yield f"`callbacks({name}=...)` is set"
    if type(runner.module) is not MultiRLModule:
        yield f"module class {type(runner.module).__name__} may forward in its own way"
    for module_id, module in runner.module.items():
        cls = type(module.unwrapped())
        for name in FORWARDS:
            if getattr(cls, name) is not getattr(MADDPGTorchRLModule, name):
                yield f"module {module_id!r} of class {cls.__name__} overrides `{name}`"
        if module.is_stateful():
            yield f"module {module_id!r} has a state"
    for name in RUNNER_PARTS:
        # Unwrapped, because Ray wraps the methods of the classes that it makes actors from.
        if inspect.unwrap(getattr(type(runner), name)) is not inspect.unwrap(getattr(StockLoop, name)):
            yield f"env runner class {type(runner).__name__} overrides `{name}`"
    if type(runner.env.unwrapped) is not SyncVectorMultiAgentEnv:
        yield f"the vector env is a {type(runner.env.unwrapped).__name__}"


def _connectors(runner: StockLoop) -> Iterator[str]:
    """Connectors beside RLlib's default ones, and default ones that are missing or have been moved."""
    types = [type(piece) for piece in (*runner._env_to_module.connectors, *runner._module_to_env.connectors)]
    types.remove(AddExplorationNoise)
    types = [cls for cls in types if cls is not SelectSubPolicies]  # the columnar loop selects, too
    if types and types[0] is FlattenAgentObservations:  # before all others it sees what the env gave, as the columnar loop does
        del types[0]
    for cls in types:
        if cls not in DEFAULT_CONNECTORS:
            yield f"connector {cls.__name__} is in use"
    for cls in DEFAULT_CONNECTORS:
        if cls not in types:
            yield f"RLlib's default connector {cls.__name__} is left out"
    if tuple(types) != DEFAULT_CONNECTORS:
        yield "RLlib's default connectors have another order"
