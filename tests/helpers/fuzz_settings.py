"""Random settings of MADDPG and RLlib: sensible ones, and any one of them with a value that makes no sense."""

import re

import gymnasium as gym
import numpy as np
from hypothesis import strategies as st
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.policy.policy import PolicySpec

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.config.old_settings import OLD_SETTINGS
from rllib_maddpg.config.rllib_settings import CHECKED_ELSEWHERE, PASSED, REFUSED


class Tiny(MultiAgentEnv):
    """Agents a and b, of two kinds of actions, for 5 steps."""

    def __init__(self, config=None):
        super().__init__()
        self.possible_agents = self.agents = ["a", "b"]
        self.observation_spaces = {agent: gym.spaces.Box(-1, 1, (2,)) for agent in "ab"}
        self.action_spaces = {"a": gym.spaces.Box(0, 1, (2,)), "b": gym.spaces.Discrete(3)}

    def _observe(self):
        return {agent: np.full(2, self.time / 5, np.float32) for agent in "ab"}

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self._observe(), {}

    def step(self, actions):
        self.time += 1
        end = self.time >= 5
        return self._observe(), {"a": 1.0, "b": -1.0}, {"__all__": False}, {"__all__": end}, {}

    def state(self):
        return [self.time]


def a_function(*args, **kwargs):
    """Does nothing, wherever RLlib calls it."""


def no_connectors(env=None, spaces=None, device=None):
    """As a user's connectors are given, but none."""
    return []


# Values of all kinds; those that a setting accepts are its sensible ones.
_PLAIN = [None, True, False, 0, 1, 2, 3, 0.25, 0.5, 1.0, 1.5, "auto", "training_only", {}, [[0, 0.5], [100, 0.1]], a_function]
_PLAIN += [np.int64(3), np.float32(0.5), np.bool_(True)]
_SOME_MODULE = [{"b": {"tau": 0.5}}, {"a": {"lr": 0.1, "critic_loss": "huber"}, "b": {"grad_clip": None}}]
# Where the plain values would be too many, too large or too few.
_SENSIBLE = {
    "replay_buffer_config": [
        {"capacity": 100},
        {"capacity": 1000, "type": "JointReplayBuffer"},
        {"type": "users_replays.PlainReplay"},
        {"num_shards": 0},
        {},
    ],
    "model_config": [{"fcnet_hiddens": (4,)}, {"fcnet_hiddens": [], "critic_fcnet_hiddens": [3]}, {"fcnet_activation": "tanh"}],
    "algorithm_config_overrides_per_module": [{}, *_SOME_MODULE],
    "evaluation_config": [None, {}, {"explore": True}, {"env_config": {"x": 1}}, {"num_envs_per_env_runner": 2}],
    "policies": [{"a", "b"}, ["a", "b"], {"a": PolicySpec(), "b": None}],
    "policy_mapping_fn": [None, {"a": "a", "b": "b"}, lambda agent, episode, **kwargs: agent],
    "policies_to_train": [None, [], ["a"], {"a", "b"}],
    "callbacks_class": [RLlibCallback, [RLlibCallback]],
    "env_config": [{}, {"x": 1}],
    "lr": [0.0, 0.01, [[0, 0.1], [1000, 0.0]]],
    "grad_clip": [None, 0.5, 1],
    "train_batch_size": [None, 8],
    "train_batch_size_per_learner": [1, 8, 16],
    "num_env_runners": [0] * 8 + [1],
    "evaluation_num_env_runners": [0] * 8 + [1],
    "num_learners": [0],
    "shared_learner": [None] * 8 + [True],
    "rollout_fragment_length": ["auto", 1, 5, 7],
    "num_env_steps_per_update": [1, 5, 12.5],
    "num_steps_sampled_before_learning_starts": [0, 20, 1e3],
    "min_time_s_per_iteration": [None, 0, 0.1],
    "min_train_timesteps_per_iteration": [None, 0, 16],
    "min_sample_timesteps_per_iteration": [None, 0, 1, 50.0],
    "num_gpus_per_learner": [0],
    "num_gpus_per_env_runner": [0],
    "_env_to_module_connector": [None, no_connectors],
    "_module_to_env_connector": [None, no_connectors],
    "custom_evaluation_function": [None],
    "custom_resources_per_env_runner": [{}],
    "custom_resources_per_learner": [{}, None],
    "delay_between_env_runner_restarts_s": [0, 0.5],
    "evaluation_sample_timeout_s": [None, 60],
    "sample_timeout_s": [None, 60],
    "evaluation_auto_duration_max_env_steps_per_sample": [100, 500],
    "extra_columns": [(), []],
    "share_sub_policy_draw": [False, True, [], [["a", "b"]], [("a",), ("b",)]],
    "sub_policy": [None, 0],
    "state_key": [None],  # needs a view that sees the state
    "cuda_graph": ["auto", False],  # True needs a GPU
    "process_wide_speedups": [False],  # would change the tests' process
    "torch_compile_learner": [False],  # takes seconds
    "_validate_config": [True],
    "stats_cls_lookup": [vars(MADDPGConfig()).get("stats_cls_lookup")],
}
_DEFAULTS = vars(MADDPGConfig())
_KINDS = PASSED | {key: setting.check for key, setting in MADDPGConfig.table().items()}


def _sensible_values(key):
    kind = _KINDS.get(key)
    if key in _SENSIBLE:
        return _SENSIBLE[key]
    return [*filter(kind.accepts, _PLAIN), *kind.words] if kind else [_DEFAULTS.get(key, -1)]


_NEVER = {"env", "in_evaluation", "_is_frozen", "_train_batch_size_per_learner", "_model_config", "output"}
_USED = sorted(key for key in {*_KINDS, *CHECKED_ELSEWHERE, *_SENSIBLE} - _NEVER if hasattr(MADDPGConfig(), key))
_UNUSED = sorted({*REFUSED, *OLD_SETTINGS} & _DEFAULTS.keys())
SENSIBLE = {key: _sensible_values(key) for key in [*_USED, *_UNUSED]}


class _Odd:
    """Raises whatever is asked of it."""

    def __eq__(self, other):
        raise ArithmeticError

    __hash__ = None

    def __repr__(self):
        raise ArithmeticError


def _deep():
    value = []
    for _ in range(5000):
        value = [value]
    return value


def _endless():
    value = [1]
    value.append(value)
    return value


_NAN, _INF = float("nan"), float("inf")
_ABSURD = [None, True, False, -1, 0, 1e30, 1e300, 2**31, 2**40, 2**63, 10**400, 0.5, -0.0, _NAN, _INF, -_INF]
_ABSURD += ["", "x", "no", "1", "\0", "auto", b"x", [], [None], [[0, 1.0]], [[0, 1.0], ["x", 0.1]], [[0, _NAN], [1, 1]]]
_ABSURD += [{}, {"a": None}, {1: 2}, {"a": {"lr": "x"}}, {"fcnet_hiddens": 3}, {"capacity": _NAN}, {"type": []}]
_ABSURD += [(), (1, 2), set(), {"a"}, object(), np.zeros(3), np.float32("nan"), np.int64(-1), _Odd(), _deep(), _endless()]
# A function of the user's may do anything when it is called.
_CALLABLE = [int, len, MultiAgentEnv, a_function]


def _absurd(functions):
    return st.sampled_from(_ABSURD + _CALLABLE * functions) | st.floats() | st.integers() | st.text(max_size=5)


# Made once: to make a strategy takes as long as to draw from it.
_SOME_KEYS = st.lists(st.sampled_from(_USED), min_size=1, max_size=5, unique=True)
_UNUSED_KEY = st.sampled_from(_UNUSED)
_ANY_KEY = st.sampled_from(_USED) | _UNUSED_KEY
_SENSIBLE_VALUE = {key: st.sampled_from(values) for key, values in SENSIBLE.items()}
_ABSURD_VALUE = {functions: _absurd(functions) for functions in (False, True)}


@st.composite
def random_settings(draw, functions=True):
    """A dict of some settings; in half of them one has an absurd value, which may be a function."""
    settings = {key: draw(_SENSIBLE_VALUE[key]) for key in draw(_SOME_KEYS)}
    if draw(st.booleans()):
        settings[draw(_ANY_KEY)] = draw(_ABSURD_VALUE[functions])
    else:
        key = draw(_UNUSED_KEY)
        settings[key] = SENSIBLE[key][0]
    return settings


def _base_config():
    config = MADDPGConfig().environment(Tiny).rl_module(model_config={"fcnet_hiddens": [4]}).debugging(seed=0)
    config.training(train_batch_size_per_learner=8, num_env_steps_per_update=10, replay_buffer_config={"capacity": 500})
    config.training(num_steps_sampled_before_learning_starts=20)
    return config.reporting(min_sample_timesteps_per_iteration=40)


_BASE = _base_config()


def make_config():
    """A config that trains fast."""
    return _BASE.copy(copy_frozen=False)


def put(config, settings, as_dict):
    """Sets them as Tune does, or as attributes."""
    if as_dict:
        return config.update_from_dict(settings)
    for key, value in settings.items():
        if key == "model_config":
            config.rl_module(model_config=value)
        elif key == "replay_buffer_config":
            config.training(replay_buffer_config=value)
        else:
            setattr(config, key, value)
    return config


def names_one_of(text, settings):
    """Whether an error names one of the settings by which it may have been caused."""
    return any(re.search(rf"(?<!\w)_?{key.strip('_')}_?(?!\w)", text) for key in settings)


# What is accepted, but asks for more time or room than a test has.
_MOST = {
    "num_env_runners": 1,
    "num_learners": 0,
    "evaluation_num_env_runners": 1,
    "num_envs_per_env_runner": 8,
    "train_batch_size_per_learner": 500,
    "rollout_fragment_length": 100,
    "num_env_steps_per_update": 1e4,
    "min_time_s_per_iteration": 1,
    "min_train_timesteps_per_iteration": 500,
    "min_sample_timesteps_per_iteration": 1000,
    "evaluation_duration": 20,
    "evaluation_auto_duration_min_env_steps_per_sample": 1000,
    "metrics_num_episodes_for_smoothing": 10**6,
    "num_cpus_per_env_runner": 1,
    "num_gpus_per_env_runner": 0,
}


def is_affordable(config):
    """Whether a test can train it."""
    sizes = (getattr(config, key) for key in _MOST)
    small = all(not isinstance(size, (int, float)) or size <= most for size, most in zip(sizes, _MOST.values(), strict=True))
    often = config.num_env_steps_per_update >= 0.1
    return small and often and not config.replay_buffer_config["num_shards"] and not config.custom_resources_per_env_runner
