"""Whether there is such a replay buffer as `replay_buffer_config` asks for, and whether rows and batches fit it."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Collection, Mapping
from numbers import Real
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.require import is_whole, require, shown
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.replay.buffer import check_memory
from rllib_maddpg.replay.choice import DEFAULTS, OURS, replay_arguments, replay_class
from rllib_maddpg.replay.prioritized import AGENTS
from rllib_maddpg.replay.protocol import JointReplay
from rllib_maddpg.rows.drawn_columns import n_step_columns, weights_columns
from rllib_maddpg.rows.schema import Column

_KEY = "replay_buffer_config"
# How the methods of a class are called.
_CALLS: dict[str, tuple[tuple, dict[str, Any]]] = {
    "store": (([],), {}),
    "draw": ((1, 1, 1), {"shuffled": False}),
    "latest": ((1,), {}),
}


def check_replay(config: AlgorithmConfig) -> None:
    """The buffer can be made and holds a batch and a fragment."""
    cls, settings = check_replay_class(config)
    _check_device(config, settings.get("device", DEFAULTS["device"]))
    capacity = settings["capacity"]
    learners, total = config.num_learners or 1, config.train_batch_size
    rows = total or config.train_batch_size_per_learner * learners
    of = f" times {learners} (`num_learners`)" if learners > 1 and not total else ""
    fix = f"Raise the capacity or lower `train_batch_size_per_learner`{of}."
    holds = capacity >= rows
    require(config, _key("capacity"), holds, f"at least the total train batch size of {rows} rows", fix, capacity)

    parts = cls.parts(settings)
    own = capacity // parts
    fragment = config.get_rollout_fragment_length()
    rows = fragment * config.num_envs_per_env_runner
    what = f"capacity of {own} rows of each shard" if parts > 1 else f"capacity of {own} rows"
    by = " (by `num_env_steps_per_update`)" if config.rollout_fragment_length == "auto" else ""
    fix = f"Lower it{by} or `num_envs_per_env_runner`, or raise the {what}: else rows are lost unseen."
    require(config, "rollout_fragment_length", rows <= own, f"so short that {rows} rows fit the buffer", fix, fragment)
    _check_n_step(config, cls, parts, fragment)


def _check_n_step(config: AlgorithmConfig, cls: type[JointReplay], parts: int, fragment: int) -> None:
    """The class draws rows with what came after them; that of one rollout where the next one goes to another shard."""
    if config.n_step == 1 or config.in_evaluation:  # whose rollouts are not stored
        return
    ours = [name for name, own in OURS.items() if own.draws_n_steps]
    fix = f"{cls.__qualname__} draws rows of one step. Use one of {ours}, or have it fill the columns and say `draws_n_steps`."
    require(config, "n_step", cls.draws_n_steps, "1 with this `replay_buffer_config['type']`", fix)
    allowed = f"at most the {fragment} env steps that an env makes in a rollout, with {parts} shards"
    fix = "Rows of the next rollout lie in another shard: lower it, raise `rollout_fragment_length`, or set `num_shards` to 0."
    require(config, "n_step", parts == 1 or config.n_step <= fragment, allowed, fix)


def drawn_columns(config: AlgorithmConfig) -> list[Column]:
    """Columns that are made when rows are drawn: their weights, and what n-step returns need.

    Args:
        config: Need not have been validated.
    """
    try:
        weighs = replay_class(config.replay_buffer_config).weighs_rows
    except ValueError:  # `check_replay` says why
        weighs = False
    return [*(weights_columns() if weighs else []), *n_step_columns(config.n_step)]


def replay_settings(config: AlgorithmConfig) -> dict[str, Any]:
    """`replay_buffer_config` with the defaults of the keys it leaves out.

    Raises:
        ValueError: If it is no dict with words as keys.
    """
    given = config.replay_buffer_config
    is_dict = isinstance(given, Mapping) and all(isinstance(key, str) for key in given)
    require(config, _KEY, is_dict, "a dict with words as keys", "For example {'capacity': 1000000}.")
    return {**DEFAULTS, **given}


def replay_resources(config: AlgorithmConfig) -> list[dict[str, float]]:
    """What each actor of the replay buffer asks of Ray, for a config that need not have been validated.

    Raises:
        ValueError: As `check_replay_class`.
    """
    cls, settings = check_replay_class(config)
    return cls.resources(settings)


def check_replay_class(config: AlgorithmConfig) -> tuple[type[JointReplay], dict[str, Any]]:
    """The class that `replay_buffer_config` names, and its keyword arguments.

    Raises:
        ValueError: If there is no such class, it has not the protocol, it does not take these arguments, or does not say in
            how many parts its rows lie and what they ask of Ray.
    """
    buffer = replay_settings(config)
    _check_our_keys(config, buffer)
    try:
        cls = replay_class(buffer)
    except ValueError as error:
        allowed = f"one of {list(OURS)}, or a subclass of JointReplay or its path, 'package.module.Class'"
        hint = did_you_mean(buffer["type"], OURS) if isinstance(buffer["type"], str) else ""
        more = " RLlib's own buffers take joint transitions apart, so a centralized critic cannot learn from them."
        require(config, _key("type"), False, allowed, f"{error}{hint}{more}", buffer["type"])
    _check_protocol(config, cls)
    try:
        settings = replay_arguments(cls, buffer)
    except ValueError as error:
        require(config, _KEY, False, f"made of what {cls.__qualname__} takes", str(error))
    try:
        cls.check(settings)
    except ValueError as error:
        require(config, _KEY, False, f"what {cls.__qualname__} accepts", str(error))
    except Exception as error:  # code of the user's
        text = f"`{cls.__qualname__}.check` raised {type(error).__name__}: {error}"
        require(config, _KEY, False, f"what {cls.__qualname__} accepts", text)
    for method, is_right, allowed in _ANSWERS:
        _check_answer(config, cls, method, settings, is_right, allowed)
    return cls, settings


def check_replay_memory(config: AlgorithmConfig, bytes_per_row: int, has_images: bool = False) -> None:
    """A full buffer fits this machine, or its device; of one in several parts, each of them.

    A shared learner itself knows what fits it.

    Args:
        config: Its `replay_buffer_config` is looked at.
        bytes_per_row: That a buffer needs for each row.
        has_images: Whether some agent observes images, which could be smaller.

    Raises:
        ValueError: If not.
    """
    if config.shared_learner:
        return
    cls, settings = check_replay_class(config)
    # Where the parts will lie is not known yet; each looks at its own machine when it is made.
    rows = math.ceil(settings["capacity"] / cls.parts(settings))
    check_memory(rows, bytes_per_row, settings.get("device", DEFAULTS["device"]), has_images)


def _check_protocol(config: AlgorithmConfig, cls: type[JointReplay]) -> None:
    """Its methods take what they are called with, and it names the classes whose states it takes."""
    for method, (args, kwargs) in _CALLS.items():
        try:
            inspect.signature(getattr(cls, method)).bind(None, *args, **kwargs)
        except (TypeError, ValueError) as error:
            takes = ", ".join(inspect.signature(getattr(JointReplay, method)).parameters)
            fix = f"`{cls.__qualname__}.{method}`: {error}."
            require(config, _key("type"), False, f"a class whose `{method}` takes ({takes})", fix, cls)
    is_right = isinstance(cls.restores, Collection) and all(isinstance(name, str) for name in cls.restores)
    fix = f"`{cls.__qualname__}.restores` is {shown(cls.restores)}."
    require(config, _key("type"), is_right, "a class whose `restores` has names of classes", fix, cls)
    fix = f"`{cls.__qualname__}.feedback_of` is {shown(cls.feedback_of)}."
    require(config, _key("type"), cls.feedback_of in AGENTS, f"a class whose `feedback_of` is one of {list(AGENTS)}", fix, cls)


def _are_bundles(resources: Any) -> bool:
    """Whether these are what actors ask of Ray."""
    return isinstance(resources, (list, tuple)) and all(
        isinstance(bundle, dict) and all(isinstance(k, str) and isinstance(v, Real) and v >= 0 for k, v in bundle.items())
        for bundle in resources
    )


# Class methods whose answer is needed before the buffer is made: what is right, in a check and in words.
_ANSWERS = (
    ("parts", lambda parts: is_whole(parts, 1), "a whole number >= 1"),
    ("resources", _are_bundles, "a list of dicts with numbers >= 0, one dict for each actor, such as [{'CPU': 1}]"),
)


def _check_answer(
    config: AlgorithmConfig, cls: type[JointReplay], method: str, settings: dict[str, Any], is_right: Any, allowed: str
) -> None:
    name, allowed = f"`{cls.__qualname__}.{method}`", f"a class whose `{method}` returns {allowed}"
    try:
        answer = getattr(cls, method)(settings)
    except Exception as error:  # code of the user's
        require(config, _key("type"), False, allowed, f"{name} raised {type(error).__name__}: {error}", cls)
    require(config, _key("type"), is_right(answer), allowed, f"{name} returned {shown(answer)}.", cls)


def _check_our_keys(config: AlgorithmConfig, buffer: Mapping[str, Any]) -> None:
    """What means the same to all classes."""
    capacity, shards, device = buffer["capacity"], buffer["num_shards"], buffer["device"]
    whole = is_whole(capacity, 1)
    require(config, _key("capacity"), whole, "a whole number of env steps", "The paper uses 1,000,000.", capacity)
    fix = "0: the main process keeps the rows."
    require(config, _key("num_shards"), is_whole(shards, 0), "a whole number >= 0", fix, shards)
    fix = "Four shards are usually enough."
    require(config, _key("num_shards"), shards <= capacity, f"at most the capacity of {capacity} rows", fix, shards)
    ok = device == "cpu" or (isinstance(device, str) and re.fullmatch(r"cuda(:\d{1,3})?", device) is not None)
    require(config, _key("device"), ok, "'cpu' or 'cuda'", "", device)
    fix = "Shards are processes of their own: set 'cpu', or `num_shards` to 0."
    require(config, _key("device"), device == "cpu" or not shards, "'cpu' with `num_shards`", fix, device)


def _check_device(config: AlgorithmConfig, device: str) -> None:
    """Rows can be kept on a GPU where this process has one and updates in it."""
    if device == "cpu" or config.shared_learner:  # which keeps them on its own device
        return
    has = torch.cuda.is_available() and int(device.partition(":")[2] or 0) < torch.cuda.device_count()
    fix = f"torch sees {torch.cuda.device_count()} GPUs here. Set 'cpu'."
    require(config, _key("device"), has, "a GPU that this process can use", fix, device)
    fix = "Remote Learners get their rows over the network: set 'cpu', or `num_learners=0`."
    require(config, _key("device"), not config.num_learners, "'cpu' with remote Learners", fix, device)


def _key(key: str) -> str:
    return f"{_KEY}[{key!r}]"
