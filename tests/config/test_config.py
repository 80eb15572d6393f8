"""Every setting that is refused: before any actor starts, with key, value, what is allowed and the fix."""

import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from ledger_env import TIME_LIMIT, LedgerEnv
from pettingzoo import ParallelEnv
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.rllib.policy.policy import PolicySpec
from runners import make_runner

from rllib_maddpg import MADDPG, MADDPGConfig, MADDPGTorchRLModule
from rllib_maddpg.ray_compat import FlattenObservations
from rllib_maddpg.rows.actions import make_codec


def config_for(env="simple_adversary", **env_config):
    return MADDPGConfig().environment(env, env_config=env_config)


def ledger_config():
    return config_for(LedgerEnv, script=TIME_LIMIT)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("tau", 0.0, "in (0, 1]"),
        ("tau", 1.5, "in (0, 1]"),
        ("tau", "fast", "in (0, 1]"),
        ("gamma", -0.1, "in [0, 1]"),
        ("gamma", 1.01, "in [0, 1]"),
        ("lr", -1e-3, "a rate >= 0 or a schedule"),
        ("lr", None, "a rate >= 0 or a schedule"),
        ("actor_lr", -1.0, "a rate >= 0 or a schedule"),
        ("critic_lr", [[5, 0.1], [10, 0.2]], "a rate >= 0 or a schedule"),
        ("critic_lr", [[0, 0.1], [10, -0.2]], "a rate >= 0 or a schedule"),
        ("critic_lr", float("nan"), "a rate >= 0 or a schedule"),
        ("noise_scale", -0.1, "a number >= 0 or a schedule"),
        ("exploration_temperature", [[0, 1.0]], "a number >= 0 or a schedule"),
        ("noise_type", "gausian", "one of ['gaussian', 'ornstein_uhlenbeck', 'none']"),
        ("ou_theta", -1, "a number >= 0"),
        ("actor_head", "relu", "one of ['tanh', 'softmax']"),
        ("critic_loss", "mae", "one of ['mse', 'huber']"),
        ("huber_delta", 0, "a number > 0"),
        ("others_actions", "target", "one of ['replay', 'current']"),
        ("gumbel_softmax_temperature", 0, "a number > 0"),
        ("gumbel_softmax_temperature", 3e-104, "a number > 0, from 1e-06 to 1e+06"),
        ("num_env_steps_per_update", 1e-300, "a number > 0, from 0.001"),
        ("huber_delta", 1e300, "a number > 0, from 1e-10 to 1e+10"),
        ("lr", 1e30, "with rates of at most 100"),
        ("noise_scale", [[0, 1e30], [9, 0]], "with values of at most 1e10"),
        ("ou_theta", 2.5, "a number >= 0, at most 2"),
        ("num_env_steps_per_update", 0, "a number > 0"),
        ("num_steps_sampled_before_learning_starts", -1, "a whole number >= 0"),
        ("target_network_update_freq", 1.5, "a whole number >= 0"),
        ("grad_clip", 0, "a number > 0, or None"),
        ("grad_clip_by", "layer", "one of ['global_norm', 'norm', 'value']"),
        ("normalize_actions", False, "True"),
        ("train_batch_size_per_learner", 0, "a whole number > 0"),
        ("train_batch_size", "256", "a whole number > 0"),
        ("num_learners", -1, "a whole number >= 0"),
        ("num_env_runners", -1, "a whole number >= 0"),
        ("num_envs_per_env_runner", 0, "a whole number > 0"),
        ("sample_mode", "pipelnied", "one of ['pipelined', 'sync', 'async']"),
        ("sample_mode", None, "one of ['pipelined', 'sync', 'async']"),
        ("broadcast_interval", 0, "a whole number > 0"),
        ("broadcast_interval", 1.5, "a whole number > 0"),
        ("sample_timeout_s", 0, "a number > 0, or None"),
        ("sample_timeout_s", "60", "a number > 0, or None"),
        ("seed", "x", "a whole number >= 0, or None"),
        ("_torch_lr_scheduler_classes", [object], "None"),
        ("add_default_connectors_to_module_to_env_pipeline", False, "True"),
        ("env_runner_fast_path", "no", "True or False"),
        ("_validate_config", "", "True or False"),
        ("minibatch_per_module", "yes", "True or False"),
        ("store_buffer_in_checkpoints", 0, "True or False"),
        ("min_sample_timesteps_per_iteration", float("nan"), "a number >= 0, or None"),
        ("min_time_s_per_iteration", float("inf"), "a number of seconds from 0 to 1e9, or None"),
        ("min_train_timesteps_per_iteration", "x", "a number >= 0, or None"),
        ("evaluation_interval", "x", "a whole number >= 0, or None"),
        ("evaluation_duration", 1.5, "a whole number > 0, or 'auto'"),
        ("evaluation_duration_unit", "x", "one of ['episodes', 'timesteps']"),
        ("placement_strategy", "x", "one of ['PACK', 'SPREAD', 'STRICT_PACK', 'STRICT_SPREAD']"),
        ("log_level", "LOUD", "one of ["),
        ("batch_mode", "complete_episodes", "'truncate_episodes'"),
        ("seed", 2**40, "a whole number >= 0, or None"),
        ("lr", [[0, 0.1], ["x", 0.1]], "a rate >= 0 or a schedule"),
        ("clip_actions", True, "False"),
        ("compress_observations", True, "False"),
        ("action_mask_key", "mask", "'action_mask'"),
        ("observation_space", gym.spaces.Discrete(2), "None"),
        ("log_gradients", True, "False"),
        ("replay_buffer_config", None, "a dict"),
        ("policies", 3, "names of modules"),
        ("policies_to_train", "agent_0", "a list of module ids, a function, or None"),
        ("num_gpus_per_learner", 1.5, "a number of GPUs"),
    ],
)
def test_values_that_are_not_allowed(key, value, allowed):
    config = config_for()
    setattr(config, key, value)
    with pytest.raises(ValueError) as error:
        config.validate()
    text = str(error.value)
    assert f"`{key}`={value!r}" in text and allowed in text


def test_a_near_miss_is_named():
    config = config_for().training(noise_type="gausian")
    with pytest.raises(ValueError, match="Did you mean 'gaussian'"):
        config.validate()


def test_unknown_keys():
    with pytest.raises(ValueError, match=r"`actor_learning_rate` is no setting of MADDPG.*"):
        MADDPGConfig().training(actor_learning_rate=0.1)
    with pytest.raises(ValueError, match=r"`torch_skip_nan_gradients` is a setting of RLlib, but none of `.training\(\)`"):
        MADDPGConfig().training(torch_skip_nan_gradients=True)
    with pytest.raises(ValueError, match=r"`crtic_lr` is no setting of MADDPG. Did you mean 'critic_lr'"):
        config_for().update_from_dict({"crtic_lr": 0.1}).validate()


def test_batch_and_buffer():
    config = config_for().training(replay_buffer_config={"capacity": 1000})
    with pytest.raises(
        ValueError, match=r"`replay_buffer_config\['capacity'\]`=1000 .* at least the total train batch size of 1024"
    ):
        config.validate()
    config = config_for().training(train_batch_size=1023).learners(num_learners=2)
    with pytest.raises(ValueError, match=r"`train_batch_size`=1023 .* divisible by the 2 Learners"):
        config.validate()
    config = config_for().training(train_batch_size=512).learners(num_learners=2)
    config.validate()
    assert config.train_batch_size_per_learner == 256 and config.total_train_batch_size == 512
    config.training(train_batch_size_per_learner=100)
    with pytest.raises(ValueError, match=r"`train_batch_size`=512 .* unset beside `train_batch_size_per_learner`=100"):
        config.validate()
    config = config_for()
    config.replay_buffer_config = {"capacity": 2000.5}
    with pytest.raises(ValueError, match=r"`replay_buffer_config\['capacity'\]`=2000.5 .* a whole number of env steps"):
        config.validate()
    with pytest.raises(ValueError, match=r"'MultiAgentEpisodeReplayBuffer'.*take joint transitions apart"):
        config_for().training(replay_buffer_config={"type": "MultiAgentEpisodeReplayBuffer"}).validate()
    with pytest.raises(ValueError, match=r"`replay_buffer_config`=.*alpha"):
        config_for().training(replay_buffer_config={"alpha": 0.6}).validate()


@pytest.mark.parametrize(
    ("runners", "envs", "env_steps_per_update", "length"),
    [
        (0, 1, 100, 100),
        (0, 8, 100, 13),
        (0, 8, 4, 1),
        (1, 8, 100, 13),
        (1, 8, 10, 8),
        (2, 8, 100, 8),
        (14, 8, 100, 8),
        (4, 1, 100, 25),
    ],
)
def test_fragments_reach_the_next_update_and_are_not_too_short(runners, envs, env_steps_per_update, length):
    config = MADDPGConfig().env_runners(num_env_runners=runners, num_envs_per_env_runner=envs)
    config.training(num_env_steps_per_update=env_steps_per_update)
    assert config.get_rollout_fragment_length() == length
    assert config.env_runners(rollout_fragment_length=3).get_rollout_fragment_length() == 3


def test_a_fragment_longer_than_the_buffer():
    config = config_for().training(replay_buffer_config={"capacity": 1024})
    config.env_runners(rollout_fragment_length=512, num_envs_per_env_runner=2).validate()
    config.env_runners(rollout_fragment_length=513)
    with pytest.raises(ValueError, match=r"`rollout_fragment_length`=513 .* so short that 1026 rows fit .* capacity of 1024"):
        config.validate()
    # Also where the length follows from the updates.
    config.env_runners(rollout_fragment_length="auto").training(num_env_steps_per_update=2000)
    with pytest.raises(ValueError, match=r"`rollout_fragment_length`=1000 .* so short that 2000 rows fit"):
        config.validate()


@pytest.mark.parametrize(
    ("device", "gpus", "learners", "text"),
    [
        ("gpu", 1, 0, "'cpu' or 'cuda'"),
        (None, 1, 0, "'cpu' or 'cuda'"),
        ("cuda:x", 1, 0, "'cpu' or 'cuda'"),
        ("cuda", 0, 0, "a GPU that this process can use. torch sees 0 GPUs here. Set 'cpu'"),
        ("cuda:1", 1, 0, "a GPU that this process can use. torch sees 1 GPUs here. Set 'cpu'"),
        ("cuda", 1, 1, "'cpu' with remote Learners"),
    ],
)
def test_devices_of_the_buffer(monkeypatch, device, gpus, learners, text):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config = config_for().training(replay_buffer_config={"device": device}).learners(num_learners=learners)
    with pytest.raises(ValueError) as error:
        config.validate()
    assert f"`replay_buffer_config['device']`={device!r} is not allowed" in str(error.value) and text in str(error.value)


def test_a_capacity_that_the_gpu_cannot_hold(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20, 2**30))
    config = config_for().training(replay_buffer_config={"capacity": 100_000, "device": "cuda"})
    with pytest.raises(
        ValueError, match=r"`replay_buffer_config\['capacity'\]`=100000 rows .* device 'cuda' has 0.0 GiB .*Set a"
    ):
        config.validate()


def test_a_capacity_beyond_memory_is_an_error_with_a_mend():
    config = config_for().training(replay_buffer_config={"capacity": 10**12})
    with pytest.raises(
        ValueError, match=r"`replay_buffer_config\['capacity'\]`=1000000000000 rows .* GiB .*Set a capacity of at most"
    ):
        config.build_algo()


def test_unknown_environment():
    with pytest.raises(ValueError, match=r"simple_advesary.*simple_adversary"):
        config_for("simple_advesary").validate()


class OneAgent(LedgerEnv):
    """The ledger env with agent a's action space replaced."""

    def __init__(self, config):
        super().__init__({"script": TIME_LIMIT})
        self.action_spaces = {**self.action_spaces, "a": config["space"]}


MAX = float(np.finfo(np.float32).max)


def with_low(value):
    """A box whose bounds were changed after it was made, which Gymnasium does not notice."""
    space = gym.spaces.Box(-1, 1, (2,))
    space.low[1] = value
    return space


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (gym.spaces.Box(-np.inf, 1.0, (2,)), "unbounded: its low or high bound is infinite or NaN.*`action_lambda_v1"),
        (gym.spaces.Box(-MAX, MAX, (2,)), "bound near the largest float32"),
        (gym.spaces.Box(-MAX / 2, MAX / 2, (2,)), "bound near the largest float32"),
        (gym.spaces.Box(-1e300, 1e300, (2,), np.float64), "bound near the largest float32 or beyond"),
        (gym.spaces.Box(1e39, 1e39, (2,), np.float64), "bound near the largest float32 or beyond"),
        (with_low(np.nan), "bound is infinite or NaN"),
        (with_low(2.0), "low bound above the high one"),
        (gym.spaces.Box(0, 5, (2,), np.int64), "Boxes must be float"),
        (gym.spaces.Box(0, 5, (2,), np.float16), "Boxes must be float32 or float64"),
        (gym.spaces.MultiBinary(3), "MADDPG knows Box, Discrete and MultiDiscrete"),
        (gym.spaces.Tuple([gym.spaces.Discrete(2)]), "MADDPG knows Box, Discrete and MultiDiscrete"),
    ],
)
def test_action_spaces_that_are_not_supported(space, text):
    with pytest.raises(ValueError, match=rf"Agent 'a': .*{text}"):
        config_for(OneAgent, space=space).validate()


def test_bounds_that_are_large_but_can_be_scaled_to():
    for space in (gym.spaces.Box(-MAX / 4, MAX / 4, (2,)), gym.spaces.Box(np.float32([1, 0]), np.float32([1, 1]))):
        config_for(OneAgent, space=space).validate()
        env_actions = make_codec(space).to_env(np.float32([[-1, -1], [1, 1]]))
        np.testing.assert_array_equal(env_actions, [space.low, space.high])


class Unbounded(ParallelEnv):
    """A PettingZoo game of two agents with unbounded actions, of unlike shapes."""

    metadata = {"name": "unbounded"}

    def __init__(self, render_mode=None):
        self.possible_agents, self.render_mode, self.taken = ["a", "b"], render_mode, []

    def observation_space(self, agent):
        return gym.spaces.Box(-1, 1, (2,))

    def action_space(self, agent):
        return gym.spaces.Box(-np.inf, np.inf, (1 if agent == "a" else 3,))

    def reset(self, seed=None, options=None):
        self.time, self.agents = 0, ["a", "b"]
        return {agent: np.zeros(2, np.float32) for agent in "ab"}, {"a": {}, "b": {}}

    def step(self, actions):
        self.time += 1
        self.taken.append(dict(actions))  # PettingZoo's converters use theirs again
        end = dict.fromkeys("ab", self.time == 5)
        self.agents = [] if self.time == 5 else self.agents
        return {agent: np.zeros(2, np.float32) for agent in "ab"}, {"a": 0.0, "b": 0.0}, end, end, {"a": {}, "b": {}}


def test_the_advice_for_unbounded_actions_works_for_several_agents():
    with pytest.raises(
        ValueError, match=r"Agent 'a': .*unbounded.*SuperSuit's `action_lambda_v1\(env, lambda action, space: ac"
    ):
        config_for(Unbounded).validate()
    advice = {
        "change_action_fn": lambda action, space: action,
        "change_space_fn": lambda space: gym.spaces.Box(-1, 1, space.shape),
    }
    runner = make_runner(Unbounded, {"wrappers": [["action_lambda_v1", advice]]})
    rows = runner.sample(num_timesteps=4, random_actions=True)[0].columns["actions"]
    env = runner.env.envs[0].unwrapped.env.unwrapped
    taken = np.array([np.concatenate([actions["a"], actions["b"]]) for actions in env.taken])
    assert taken.shape == (4, 4) and np.abs(taken).max() <= 1
    np.testing.assert_allclose(taken, rows, atol=1e-6)
    runner.stop()


def test_agents_that_differ_in_type_only_are_refused():
    class Twins(LedgerEnv):
        def __init__(self, config):
            super().__init__({"script": TIME_LIMIT})
            self.possible_agents = config["agents"]
            self.observation_spaces = {agent: gym.spaces.Box(-1, 1, (2,)) for agent in self.possible_agents}
            self.action_spaces = {agent: gym.spaces.Discrete(2) for agent in self.possible_agents}

    config = config_for(Twins, agents=[1, "1"]).multi_agent(policies={"x", "y"}, policy_mapping_fn={1: "x", "1": "y"})
    with pytest.raises(
        ValueError, match=r"Agents (1 \(int\) and '1' \(str\)|'1' \(str\) and 1 \(int\)) have the same string form '1'"
    ):
        config.validate()
    config_for(Twins, agents=[1, "2", ("a", 1)]).validate()
    config = config_for(Twins, agents=[1, "2"]).multi_agent(policies={"x"}, policy_mapping_fn={"1": "x", 3: "x"})
    with pytest.raises(ValueError, match=r"maps agents \['1', 3\] that env .* leaves out \[1, '2'\]"):
        config.validate()


BOX, CHOICE, OTHER = gym.spaces.Box, gym.spaces.Discrete(4), gym.spaces.Box(-1, 1, (2,))


def masked_ledger(observed, acts):
    class Masked(LedgerEnv):
        def __init__(self, config):
            super().__init__({"script": TIME_LIMIT})
            self.observation_spaces = {**self.observation_spaces, "b": gym.spaces.Dict(observed)}
            self.action_spaces = {**self.action_spaces, "b": acts}

    return Masked


@pytest.mark.parametrize(
    ("observed", "acts", "part"),
    [
        ({"obs": gym.spaces.Dict(action_mask=BOX(0, 1, (4,)))}, CHOICE, "obs.action_mask"),
        ({"obs": gym.spaces.Dict(valid_avail_actions_mask=BOX(0, 1, (9,)))}, CHOICE, "obs.valid_avail_actions_mask"),
        ({"avail_actions": gym.spaces.MultiBinary(4), "obs": OTHER}, CHOICE, "avail_actions"),
        ({"legal_moves": gym.spaces.MultiDiscrete([2] * 4), "obs": OTHER}, CHOICE, "legal_moves"),
        ({"mask": gym.spaces.Tuple([BOX(0, 1, (2,)), BOX(0, 1, (3,))])}, gym.spaces.MultiDiscrete([2, 3]), "mask"),
        ({"action_mask": BOX(0, 1, (4,)), "legal_moves": BOX(0, 1, (4,))}, CHOICE, "legal_moves"),
        *[
            ({name: OTHER}, CHOICE, name)
            for name in (
                "act_mask",
                "legal_actions_mask",
                "action_legal_mask",
                "actionMask",
                "mask_of_actions",
                "mask-action-1",
            )
        ],
        *[
            ({name: OTHER}, CHOICE, None)
            for name in ("contact_mask", "factory_mask", "interaction_mask", "active_mask", "mask_contacts", "mask_active")
        ],
        # A feature of another width, and features with such words in their names.
        ({"mask": BOX(0, 1, (3,)), "obs": OTHER}, CHOICE, None),
        ({"last_valid_action": BOX(0, 1, (4,)), "landmask": BOX(0, 1, (4,))}, CHOICE, None),
        # Masks.
        ({"action_mask": BOX(0, 1, (4,)), "observation": OTHER}, CHOICE, None),
        ({"action_mask": BOX(0, 1, (2, 2)), "obs": OTHER}, CHOICE, None),
        ({"action_mask": gym.spaces.MultiBinary(5), "observations": OTHER}, gym.spaces.MultiDiscrete([2, 3]), None),
        (
            {"action_mask": gym.spaces.Tuple([BOX(0, 1, (2,)), BOX(0, 1, (3,))]), "observation": OTHER},
            gym.spaces.MultiDiscrete([2, 3]),
            None,
        ),
    ],
)
def test_action_masks_by_other_names_are_not_taken_for_features(observed, acts, part):
    config = config_for(masked_ledger(observed, acts))
    if part is None:
        config.validate()
        return
    with pytest.raises(
        ValueError, match=rf"Agent 'b': observation\.{re.escape(part)} looks like an action mask.*'action_mask' beside 'obs"
    ):
        config.validate()


TWO = gym.spaces.MultiDiscrete([2, 3])


@pytest.mark.parametrize(
    ("mask", "acts", "says"),
    [
        (
            BOX(0, 1, (3,)),
            CHOICE,
            r"does not fit the action space Discrete\(4\)\. Give a Box or MultiBinary of 4 numbers, 1 for",
        ),
        (BOX(0, 1, (5, 2)), TWO, r"Box or MultiBinary of 5 numbers.*, or a Tuple of 2 with \[2, 3\]"),
        (gym.spaces.Tuple([BOX(0, 1, (3,)), BOX(0, 1, (2,))]), TWO, r"or a Tuple of 2 with \[2, 3\]"),
        (gym.spaces.MultiDiscrete([2] * 4), CHOICE, "Box or MultiBinary of 4"),
        (gym.spaces.Dict(x=BOX(0, 1, (4,))), CHOICE, "Box or MultiBinary of 4"),
    ],
)
def test_action_masks_fit_the_actions(mask, acts, says):
    with pytest.raises(ValueError, match=rf"Agent 'b': observation\.action_mask is .*{says}"):
        config_for(masked_ledger({"action_mask": mask, "observation": OTHER}, acts)).validate()


def test_connectors_leave_action_masks_as_they_are():
    def config_with(*pieces):
        env = masked_ledger({"action_mask": BOX(0, 1, (4,)), "observation": OTHER}, CHOICE)
        return config_for(env).env_runners(env_to_module_connector=lambda *args: [make() for make in pieces])

    config_with(lambda: FlattenObservations(multi_agent=True)).validate()
    flatten_and_filter = (lambda: FlattenObservations(multi_agent=True)), (lambda: MeanStdFilter(multi_agent=True))
    for pieces in (flatten_and_filter, flatten_and_filter[1:]):
        with pytest.raises(ValueError, match=r"`env_to_module_connector` is set, and agent 'b' has an action mask.*a wrapper"):
            config_with(*pieces).validate()


def test_another_name_for_the_mask_is_refused():
    with pytest.raises(ValueError, match=r"`action_mask_key`='legal' is not allowed.*Name the mask so in a Dict"):
        config_for().environment(action_mask_key="legal").validate()


def test_softmax_heads_need_unit_boxes():
    with pytest.raises(ValueError, match=r"Agent 'a': `actor_head='softmax'` needs .* Set `actor_head='tanh'`"):
        ledger_config().training(actor_head="softmax").validate()
    config_for(continuous_actions=True).training(actor_head="softmax").validate()


def test_mapping_and_policies():
    config = ledger_config().multi_agent(policies={"p"}, policy_mapping_fn={"a": "p", "b": "p", "zoe": "p"})
    with pytest.raises(ValueError, match=r"maps agents \['zoe'\] that env .* leaves out \['c'\]"):
        config.validate()
    config = ledger_config().multi_agent(policies={"p", "q"}, policy_mapping_fn=lambda aid, episode, **kw: "p")
    with pytest.raises(ValueError, match=r"`policies` has 'q', but `policy_mapping_fn` maps no agent"):
        config.validate()
    config = ledger_config().multi_agent(
        policies={"p"}, policy_mapping_fn=lambda aid, episode, **kw: "p" if aid == "a" else "r"
    )
    with pytest.raises(ValueError, match=r"maps agent 'b' to 'r', which is not in `policies` \['p'\]"):
        config.validate()
    config = ledger_config().multi_agent(policies={"p"}, policy_mapping_fn=lambda aid, episode, **kw: episode.id_)
    with pytest.raises(ValueError, match=r"`policy_mapping_fn` failed for agent 'a' .*static mapping"):
        config.validate()


def test_a_shared_module_needs_equal_spaces():
    config = ledger_config().multi_agent(policies={"p"}, policy_mapping_fn=lambda aid, episode, **kw: "p")
    with pytest.raises(ValueError, match=r"Module 'p' serves agents 'a' and 'b', whose spaces differ: .*pad_observations_v0"):
        config.validate()


def test_observations_that_are_no_vectors():
    class Words(LedgerEnv):
        def __init__(self, config):
            super().__init__({"script": TIME_LIMIT})
            self.observation_spaces = {**self.observation_spaces, "c": gym.spaces.Sequence(gym.spaces.Discrete(3))}

    with pytest.raises(ValueError, match=r"Agent 'c': observation space Sequence.* cannot be flattened"):
        config_for(Words).validate()


def test_agents_get_their_own_modules_by_default_and_sorted():
    config = ledger_config()
    config.validate()
    assert list(config.policies) == ["a", "b", "c"]
    # RLlib's own adapter has its agents in a set.
    from mpe2 import simple_spread_v3

    config = config_for(lambda c: ParallelPettingZooEnv(simple_spread_v3.parallel_env()))
    config.validate()
    assert list(config.policies) == ["agent_0", "agent_1", "agent_2"]
    config = config_for("simple_spread").multi_agent(
        policies={"agent_2": PolicySpec(), "agent_0": PolicySpec(), "agent_1": PolicySpec()}
    )
    config.validate()
    assert list(config.policies) == ["agent_0", "agent_1", "agent_2"]


def test_policies_to_train_must_exist():
    with pytest.raises(ValueError, match=r"policies_to_train.*agent_7"):
        config_for().multi_agent(policies_to_train=["agent_7"]).validate()


def test_old_api_stack_is_refused():
    config = config_for().api_stack(enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False)
    with pytest.raises(ValueError, match="`api_stack`: MADDPG runs on RLlib's new API stack only"):
        config.validate()


def test_networks_that_are_not_known_or_stateful():
    with pytest.raises(ValueError, match=r"`model_config\['fcnet_activation'\]`='rellu'.*'relu'"):
        config_for().rl_module(model_config={"fcnet_activation": "rellu"}).validate()
    with pytest.raises(ValueError, match=r"use_lstm.*frame_stack_v2"):
        config_for().rl_module(model_config={"use_lstm": True}).validate()

    class Stateful(MADDPGTorchRLModule):
        def get_initial_state(self):
            return {"h": np.zeros(3)}

    with pytest.raises(ValueError, match=r"made of stateless modules.*Stateful"):
        config_for().rl_module(rl_module_spec=RLModuleSpec(module_class=Stateful)).validate()
    with pytest.raises(ValueError, match="DefaultPPOTorchRLModule is not a MADDPGTorchRLModule"):
        from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule

        config_for().rl_module(rl_module_spec=RLModuleSpec(module_class=DefaultPPOTorchRLModule)).validate()


def test_runners_that_return_no_joint_rows():
    with pytest.raises(ValueError, match=r"`env_runner_cls`=.*MADDPGEnvRunner or a subclass"):
        config_for().env_runners(env_runner_cls=MultiAgentEnvRunner).validate()


def test_lr_sets_both_rates_that_have_none_of_their_own():
    config = MADDPGConfig()
    assert config.learning_rate("actor") == config.learning_rate("critic") == 0.01
    config.training(lr=0.002)
    assert config.learning_rate("actor") == config.learning_rate("critic") == 0.002
    config.training(actor_lr=[[0, 0.1], [10, 0.0]])
    assert config.learning_rate("actor") == [[0, 0.1], [10, 0.0]] and config.learning_rate("critic") == 0.002


def test_settings_survive_dicts_and_states():
    """Tune hands settings over as dicts, checkpoints as states."""
    config = config_for().training(tau=0.3, noise_scale=[[0, 0.5], [100, 0.1]], replay_buffer_config={"capacity": 5000})
    config.validate()
    again = MADDPGConfig().update_from_dict(config.to_dict())
    again.validate()
    twice = AlgorithmConfig.from_state(again.get_state())
    assert isinstance(twice, MADDPGConfig)
    twice.validate()
    for copy in (again, twice):
        assert copy.tau == 0.3 and copy.noise_scale == [[0, 0.5], [100, 0.1]]
        assert copy.replay_buffer_config == {"type": "JointReplayBuffer", "capacity": 5000, "device": "cpu", "num_shards": 0}
        assert list(copy.policies) == ["adversary_0", "agent_0", "agent_1"]
    assert MADDPG.get_default_config().tau == 0.01


def test_search_spaces_pass_through_training():
    space = tune.loguniform(1e-4, 1e-2)
    assert MADDPGConfig().training(lr=space).lr is space


def test_what_tune_and_yaml_hand_over_raw():
    settings = {"policies": ["p", "q"], "policy_mapping_fn": {"a": "p", "b": "q", "c": "c"}, "policies_to_train": ["q"]}
    with pytest.raises(ValueError, match=r"maps agent 'c' to 'c', which is not in `policies`"):
        ledger_config().update_from_dict(settings).validate()
    settings["policies"].append("c")
    config = ledger_config().update_from_dict(settings)
    config.validate()
    assert list(config.policies) == ["c", "p", "q"] and config.policy_mapping_fn("a") == "p"


def test_steps_are_env_steps():
    with pytest.raises(ValueError, match=r"`count_steps_by`='agent_steps'.*one of \['env_steps'\]"):
        config_for().multi_agent(count_steps_by="agent_steps").validate()


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"nobody": {"tau": 0.1}}, r"for modules of \['adversary_0', 'agent_0', 'agent_1'\]. There is no 'nobody'"),
        ({"agent_0": {"taau": 0.1}}, r"`taau` holds for all modules. Did you mean 'tau'"),
        ({"agent_0": {"noise_scale": 0.1}}, r"`noise_scale` holds for all modules"),
        ({"agent_0": {"tau": 5}}, r"`tau`=5 is not allowed"),
        ({"agent_0": {"critic_loss": "mae"}}, r"`critic_loss`='mae' is not allowed"),
    ],
)
def test_overrides_of_modules_are_checked(overrides, text):
    with pytest.raises(ValueError, match=text):
        config_for().rl_module(algorithm_config_overrides_per_module=overrides).validate()
    config_for().rl_module(algorithm_config_overrides_per_module={"agent_0": {"critic_lr": 0.1, "tau": 0.2}}).validate()


@pytest.mark.parametrize(
    ("model_config", "text"),
    [
        (
            {"fcnet_hidens": [4]},
            r"`model_config\['fcnet_hidens'\]` is no setting of MADDPG's networks. Did you mean 'fcnet_hiddens'",
        ),
        ({"fcnet_hiddens": 64}, r"`model_config\['fcnet_hiddens'\]`=64 .* a list of layer widths"),
        ({"critic_fcnet_hiddens": [8, 0]}, r"`model_config\['critic_fcnet_hiddens'\]`=\[8, 0\] .* a list of layer widths"),
        ({"conv_filters": [[16, 4, 2]]}, r"`model_config\['conv_filters'\]` is no setting"),
    ],
)
def test_model_configs_are_checked(model_config, text):
    with pytest.raises(ValueError, match=text):
        config_for().rl_module(model_config=model_config).validate()


def test_rllibs_default_model_config_is_accepted():
    config = config_for().rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[32], fcnet_activation="tanh"))
    config.validate()
    assert config.model_config["fcnet_hiddens"] == [32]


def test_changing_mappings_are_refused():
    draws = iter("pq" * 1000)
    config = ledger_config().multi_agent(policies={"p", "q"}, policy_mapping_fn=lambda aid, episode, **kw: next(draws))
    with pytest.raises(ValueError, match="to one module now and to another then"):
        config.validate()


def test_learner_connectors_would_be_passed_over():
    with pytest.raises(ValueError, match=r"`learner_connector`=.*env_to_module_connector"):
        config_for().training(learner_connector=lambda obs_space, act_space: []).validate()
