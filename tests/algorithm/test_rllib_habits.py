"""What an RLlib user does daily with algorithm and config: it works, or an error says what to do instead."""

import json
import pickle
import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from paths import ROOT
from ray import tune
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import EnvToModulePipeline, FlattenObservations, MeanStdFilter
from ray.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule
from ray.rllib.connectors.module_to_env import ModuleToEnvPipeline
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule, MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.policy.policy import PolicySpec
from torch import nn

from rllib_maddpg import MADDPG, MADDPGConfig, MADDPGTorchRLModule
from rllib_maddpg.sampling.env_runner import MADDPGEnvRunner
from rllib_maddpg.sampling.noise_connector import AddExplorationNoise

pytestmark = pytest.mark.usefixtures("ray_session")

RL_MODULE = "learner_group/learner/rl_module"


def small_config(seed=0):
    config = MADDPGConfig().environment("simple_adversary", env_config={"continuous_actions": True}).debugging(seed=seed)
    config.env_runners(num_envs_per_env_runner=2).reporting(min_sample_timesteps_per_iteration=100)
    config.training(num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=32)
    config.training(num_env_steps_per_update=25, replay_buffer_config={"capacity": 2000})
    return config.rl_module(model_config={"fcnet_hiddens": [16, 16]})


@pytest.fixture(scope="module")
def algo():
    """An algorithm after one iteration."""
    algo = small_config().build_algo()
    algo.train()
    yield algo
    algo.stop()


def actor_of(module):
    return torch.cat([p.detach().flatten() for p in module.unwrapped().actor.parameters()])


def learner_actor(algo, module_id):
    return actor_of(algo.learner_group._learner.module[module_id])


# ------------------------------------------------------------------------------------------ the algorithm


def test_modules_are_fixed(algo):
    for call in (algo.add_module, algo.add_policy):
        with pytest.raises(NotImplementedError, match=r"add_module\('new'\): MADDPG's modules are fixed.*load_state_path"):
            call("new", RLModuleSpec())
    for call in (algo.remove_module, algo.remove_policy):
        with pytest.raises(NotImplementedError, match=r"remove_module\('agent_0'\): .*policies_to_train"):
            call("agent_0")
    assert sorted(algo.get_weights()) == ["adversary_0", "agent_0", "agent_1"]


@pytest.mark.parametrize(
    "method",
    ["get_policy", "compute_single_action", "compute_actions", "export_policy_model", "export_policy_checkpoint"],
)
def test_the_old_api_stack_is_answered_with_what_to_do_instead(algo, method):
    with pytest.raises(NotImplementedError, match=rf"`{method}` is of RLlib's old API stack.*get_module"):
        getattr(algo, method)("agent_0")


def test_weights_can_be_set_and_single_modules_restored(algo, build, tmp_path):
    path = algo.save_to_path(str(tmp_path))
    other = build(small_config(seed=1).env_runners(num_env_runners=1))

    def check(equal):
        (runner,) = other.env_runner_group.foreach_env_runner(
            lambda r: {m: actor_of(module) for m, module in r.module.items()}, local_env_runner=False
        )
        for m in algo.layout.modules:
            assert torch.equal(learner_actor(other, m), learner_actor(algo, m)) == (m in equal)
            for actor in (actor_of(other.get_module(m)), runner[m]):
                assert torch.equal(actor, learner_actor(other, m)), m

    check([])
    other.restore_from_path(f"{path}/{RL_MODULE}/agent_0", component=f"{RL_MODULE}/agent_0")
    check(["agent_0"])
    other.set_weights(algo.get_weights(["agent_1"]))
    check(["agent_0", "agent_1"])
    other.restore_from_path(f"{path}/{RL_MODULE}", component=RL_MODULE)
    check(algo.layout.modules)
    other.train()


def test_a_module_from_a_checkpoint_acts_alone(algo, tmp_path):
    path = algo.save_to_path(str(tmp_path))
    module = RLModule.from_checkpoint(f"{path}/{RL_MODULE}/agent_0")
    obs = torch.randn(5, 10)
    actions = module.forward_inference({"obs": obs})["actions"]
    assert actions.shape == (5, 5)
    torch.testing.assert_close(actions, algo.get_module("agent_0").forward_inference({"obs": obs})["actions"])


def pendulum(**agents):
    config = MADDPGConfig().environment("Pendulum-v1").multi_agent(**agents).rl_module(model_config={"fcnet_hiddens": [8]})
    config.training(num_env_steps_per_update=10, train_batch_size_per_learner=8, replay_buffer_config={"capacity": 500})
    config.training(num_steps_sampled_before_learning_starts=10)
    return config.reporting(min_sample_timesteps_per_iteration=20).debugging(seed=0)


def test_the_only_module_is_found_without_its_name(algo, build):
    one = build(pendulum(policies={"default_policy"}, policy_mapping_fn=lambda *args, **kwargs: "default_policy"))
    one.train()
    assert one.layout.modules == ("default_policy",)
    assert one.get_module() is one.get_module("default_policy") is one.env_runner.module["default_policy"]
    other = build(pendulum())
    assert other.get_module() is other.get_module("agent_0") is other.env_runner.module["agent_0"]
    assert other.get_module("nobody") is None
    assert algo.get_module() is None  # of three, as with RLlib


def test_a_custom_evaluation_as_in_the_docs(build):
    text = (ROOT / "docs" / "pipeline.md").read_text()
    namespace = {}
    exec(next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def evaluate(" in block), namespace)
    config = small_config().evaluation(evaluation_interval=1, custom_evaluation_function=namespace["evaluate"])
    result = build(config).train()["evaluation"]
    assert result["env_runners"]["num_episodes"] == 2
    assert result["env_runners"]["episode_len_mean"] == 25
    assert result["env_runners"]["num_env_steps_sampled"] >= 50


def test_a_runner_by_hand_needs_no_validated_config():
    config = small_config().env_runners(num_envs_per_env_runner=3)
    runner = MADDPGEnvRunner(config=config)
    assert runner.layout.agents == ("adversary_0", "agent_0", "agent_1")
    (rollout,) = runner.sample(num_episodes=2)
    assert (rollout.env_steps(), rollout.agent_steps()) == (50, 150)
    (rollout,) = runner.sample(num_timesteps=40)
    assert rollout.env_steps() == 42  # rounds of three envs
    assert runner.get_metrics()["num_episodes"].peek() >= 2
    with pytest.raises(AttributeError, match=r"JointRollout has no `get_return`: .*`runner.get_metrics\(\)`.*docs/pipeline.md"):
        rollout.get_return()
    assert pickle.loads(pickle.dumps(rollout)).env_steps() == 42
    runner.stop()
    assert set(config.policies) == {"default_policy"}  # it has a config of its own


# ------------------------------------------------------------------------------------------ connectors alone


def played_by_restored_pipelines(path, explore, draws=200, change=lambda connector: None):
    """Actions by agent `[draws, 5]`, all of one observation, from a checkpoint's pipelines and modules without a runner."""
    module = MultiRLModule.from_checkpoint(f"{path}/{RL_MODULE}")
    before = EnvToModulePipeline.from_checkpoint(f"{path}/env_runner/env_to_module_connector")
    after = ModuleToEnvPipeline.from_checkpoint(f"{path}/env_runner/module_to_env_connector")
    change(next(piece for piece in after.connectors if isinstance(piece, AddExplorationNoise)))
    obs = {agent: np.full(10 if agent != "adversary_0" else 8, 0.3, np.float32) for agent in module.keys()}  # noqa: SIM118
    episode = MultiAgentEpisode(agent_to_module_mapping_fn=lambda agent, *args, **kwargs: agent)
    episode.add_env_reset(observations=obs)
    played = []
    for _ in range(draws):
        shared = {}
        batch = before(episodes=[episode], rl_module=module, explore=explore, shared_data=shared, batch={})
        forward = module.forward_exploration if explore else module.forward_inference
        result = after(batch=forward(batch), episodes=[episode], rl_module=module, explore=explore, shared_data=shared)
        played.append(result["actions"][0])
    greedy = {m: module[m].forward_inference({"obs": torch.tensor(x)[None]})["actions"][0].numpy() for m, x in obs.items()}
    return {agent: np.stack([actions[agent] for actions in played]) for agent in obs}, greedy


def test_restored_pipelines_explore_by_the_runs_settings_or_act_greedily(algo, tmp_path):
    path = algo.save_to_path(str(tmp_path))
    played, greedy = played_by_restored_pipelines(path, explore=False, draws=1)
    for agent, actions in played.items():
        np.testing.assert_allclose(actions[0], greedy[agent], atol=1e-6)
    # The run is past its random steps: Gaussian noise of 0.1.
    played, greedy = played_by_restored_pipelines(path, explore=True)
    for agent, actions in played.items():
        noise = actions - greedy[agent]
        assert noise[np.abs(actions) < 0.99].std() == pytest.approx(0.1, rel=0.15), agent
    # At env step 0 it would play at random, uniformly in [-1, 1].
    start = played_by_restored_pipelines(path, explore=True, change=lambda noise: setattr(noise, "_env_steps", 0))[0]
    for actions in start.values():
        assert actions.std() == pytest.approx(2 / 12**0.5, rel=0.1)

    def forget(noise):  # as in checkpoints from before it had settings
        noise._settings = None

    played, greedy = played_by_restored_pipelines(path, explore=True, draws=1, change=forget)
    for agent, actions in played.items():
        np.testing.assert_allclose(actions[0], greedy[agent], atol=1e-6)


def test_restored_pipelines_explore_also_after_sampling_on_remote_runners(build, tmp_path):
    path = build(small_config().env_runners(num_env_runners=1)).save_to_path(str(tmp_path))
    for actions in played_by_restored_pipelines(path, explore=True)[0].values():
        assert actions.std() == pytest.approx(2 / 12**0.5, rel=0.1)


@pytest.mark.parametrize("connector", [MeanStdFilter, FlattenObservations, FrameStackingEnvToModule])
@pytest.mark.parametrize("in_a_list", [False, True])
def test_connectors_made_for_single_agents_are_refused(connector, in_a_list):
    settings = {"num_frames": 2} if connector is FrameStackingEnvToModule else {}

    def make(env, spaces, device, **flag):
        piece = connector(**settings, **flag)
        return [piece] if in_a_list else piece

    for config in (pendulum(), small_config()):
        with pytest.raises(ValueError, match=r"`env_to_module_connector`: \w+ is made for single-agent.*\(multi_agent=True\)"):
            config.copy().env_runners(env_to_module_connector=make).validate()
        config.env_runners(env_to_module_connector=lambda env, spaces, device: make(env, spaces, device, multi_agent=True))
        config.validate()


# ------------------------------------------------------------------------------------------ the config


def weights_after_one_iteration(build, config):
    algo = build(config)
    algo.train()
    return algo.layout.description(), algo.get_weights()


def test_configs_survive_every_way_to_copy_them(build):
    config = small_config().multi_agent(
        algorithm_config_overrides_per_module={"agent_0": MADDPGConfig.overrides(actor_lr=3e-3)}
    )
    config.validate()
    copies = [
        MADDPGConfig().update_from_dict(config.to_dict()),
        MADDPGConfig.from_dict(config.to_dict()),
        MADDPGConfig.from_state(config.get_state()),
        config.copy(copy_frozen=True),
        pickle.loads(pickle.dumps(config)),
    ]
    plain = {k: repr(v) for k, v in config.to_dict().items()}
    layout, weights = weights_after_one_iteration(build, config)
    for copy in copies:
        # "class" is left by RLlib when it rebuilds a config from its state.
        assert {k: repr(v) for k, v in copy.to_dict().items() if k != "class"} == plain
        other_layout, others = weights_after_one_iteration(build, copy)
        assert other_layout == layout
        for module_id, state in weights.items():
            for name, value in state.items():
                np.testing.assert_array_equal(others[module_id][name], value, err_msg=f"{module_id}/{name}")
    serialized = config.serialize()
    # RLlib's own table of classes has places, too.
    assert serialized["env_runner_cls"] == "rllib_maddpg.sampling.env_runner.MADDPGEnvRunner"
    json.dumps(serialized)


def test_tune_takes_the_config_as_a_dict(tmp_path):
    config = small_config().to_dict()
    trial = tune.run("MADDPG", config=config, stop={"training_iteration": 1}, storage_path=str(tmp_path), verbose=0).trials[0]
    assert trial.status == "TERMINATED"
    assert trial.last_result["num_env_steps_sampled_lifetime"] == 104


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.framework("tf2"), "`framework_str`='tf2' is not allowed: it must be 'torch'"),
        (lambda c: c.env_runners(observation_filter="MeanStdFilter"), "`observation_filter`='MeanStdFilter'"),
        (lambda c: c.env_runners(gym_env_vectorize_mode="async"), "`gym_env_vectorize_mode`='async'"),
        (
            lambda c: c.env_runners(add_default_connectors_to_env_to_module_pipeline=False),
            "`add_default_connectors_to_env_to_module_pipeline`=False is not allowed: it must be True without",
        ),
        (lambda c: c.environment(clip_rewards=True), "`clip_rewards`=True is not allowed: it must be None"),
        (lambda c: c.training(num_epochs=3), "`num_epochs`=3 is not allowed: it must be 1"),
        (lambda c: c.training(minibatch_size=8), "`minibatch_size`=8 is not allowed: it must be None"),
        (lambda c: c.training(model={"fcnet_hiddens": [8]}), "`model`: ['fcnet_hiddens'] are not allowed here"),
        (lambda c: c.training(learner_class=SACTorchLearner), "it must be MADDPGTorchLearner or a subclass"),
        (lambda c: c.offline_data(input_="/recorded"), "`input_`='/recorded' is not allowed: it must be 'sampler'"),
        (lambda c: c.multi_agent(count_steps_by="agent_steps"), "`count_steps_by`='agent_steps' is not allowed"),
        (
            lambda c: c.multi_agent(policies={"agent_0": RLModuleSpec()}),
            "`policies['agent_0']` is an RLModuleSpec, but `policies` takes `PolicySpec()` or None",
        ),
        (
            lambda c: c.multi_agent(policies={"agent_0": PolicySpec(config={"lr": 1.0})}),
            "`policies['agent_0']` has the config {'lr': 1.0}, which RLlib's new API stack does not read",
        ),
        (lambda c: c.multi_agent(policies={"agent_0": (dict, None, None, {})}), "`policies['agent_0']` has the policy class"),
        (lambda c: c.rl_module(rl_module_spec=spec_of(agent_9={})), "`rl_module_spec` has a module 'agent_9'"),
        (
            lambda c: c.rl_module(rl_module_spec=spec_of(agent_0={"fcnet_hidden": [8]})),
            "`model_config['fcnet_hidden']` is no setting of MADDPG's networks. Did you mean 'fcnet_hiddens' or",
        ),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(change, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        change(small_config()).validate()


# ------------------------------------------------------------------------------------------ modules of their own


def spec_of(**model_configs):
    return MultiRLModuleSpec(rl_module_specs={m: RLModuleSpec(model_config=model) for m, model in model_configs.items()})


def widths(module, network):
    return [layer.out_features for layer in getattr(module.unwrapped(), network).modules() if isinstance(layer, nn.Linear)]


def test_agents_have_rates_and_networks_of_their_own(build):
    config = small_config().multi_agent(
        algorithm_config_overrides_per_module={
            "agent_0": MADDPGConfig.overrides(actor_lr=0.003, critic_lr=0.004),
            "agent_1": MADDPGConfig.overrides(lr=0.005, tau=1.0),
        }
    )
    config.rl_module(rl_module_spec=spec_of(agent_0={"fcnet_hiddens": [7]}, agent_1={"critic_fcnet_hiddens": [9, 9]}))
    algo = build(config)
    algo.train()
    learner = algo.learner_group._learner
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in learner._named_optimizers.items()}
    assert rates == {
        "adversary_0_actor": 0.01,
        "adversary_0_critic": 0.01,
        "agent_0_actor": 0.003,
        "agent_0_critic": 0.004,
        "agent_1_actor": 0.005,
        "agent_1_critic": 0.005,
    }
    sizes = {m: [widths(learner.module[m], network) for network in ("actor", "critic")] for m in algo.layout.modules}
    assert sizes == {
        "adversary_0": [[16, 16, 5], [16, 16, 1]],
        "agent_0": [[7, 5], [7, 1]],
        "agent_1": [[16, 16, 5], [9, 9, 1]],
    }
    # A target that follows at once equals its network; the others lag.
    for m in algo.layout.modules:
        module = learner.module[m].unwrapped()
        pairs = zip(module.actor.parameters(), module.target_actor.parameters(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs) == (m == "agent_1")


class Normed(MADDPGTorchRLModule):
    """Networks of a user's, with a setting of its own."""

    def build_actor(self, obs_dim, output_dim):
        width = self.model_config["my_width"]
        return nn.Sequential(nn.Linear(obs_dim, width), nn.LayerNorm(width), nn.Tanh(), nn.Linear(width, output_dim))

    def build_critic(self, input_dim):
        width = self.model_config["my_width"]
        return nn.Sequential(nn.Linear(input_dim, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 1))


def test_a_users_networks_train_and_come_back(build, tmp_path):
    spec = RLModuleSpec(module_class=Normed, model_config={"my_width": 11})
    algo = build(small_config().rl_module(rl_module_spec=spec).evaluation(evaluation_interval=1, evaluation_duration=2))
    before = {m: learner_actor(algo, m) for m in algo.layout.modules}
    assert algo.train()["evaluation"]["env_runners"]["num_episodes"] >= 2
    restored = MADDPG.from_checkpoint(algo.save_to_path(str(tmp_path)))
    try:
        for m in algo.layout.modules:
            assert widths(algo.get_module(m), "actor") == [11, 5]
            assert not torch.equal(learner_actor(algo, m), before[m])
            assert torch.equal(actor_of(algo.get_module(m)), learner_actor(algo, m))
            assert torch.equal(learner_actor(restored, m), learner_actor(algo, m))
        restored.train()
    finally:
        restored.stop()


# ------------------------------------------------------------------------------------------ connectors and evaluation


def test_a_filter_on_remote_runners_learns_from_all_of_them(build):
    """The agents' observations differ in size, which RLlib's own merging of filters refuses."""
    config = small_config().env_runners(
        num_env_runners=2, env_to_module_connector=lambda env, spaces, device: MeanStdFilter(multi_agent=True)
    )
    algo = build(config)
    for _ in range(3):
        algo.train()
    states = algo.env_runner_group.foreach_env_runner(
        lambda r: r._env_to_module.get_state()["AgentMeanStdFilter"], local_env_runner=True
    )
    for agent in ("adversary_0", "agent_0"):
        counts = [state[agent]["running_stats"][0]["num_pushes"] for state in states]
        assert min(counts) > 100
    obs = algo.replay_buffer.sample(500).columns["obs"]
    assert float(obs.abs().max()) <= 10.0  # the filter's clipping
    assert 0.5 < float(obs[:, algo.layout.slots[1].obs].std()) < 2.0


class PassesOn(ConnectorV2):
    def __call__(self, *, batch, **kwargs):
        return batch


def test_states_of_runners_are_merged_by_the_connectors_that_they_are_of():
    """RLlib's own pipeline has the first connector merge the first state, though that is the second connector's."""
    config = MADDPGConfig().multi_agent(policies={"a", "b"}, policy_mapping_fn=lambda agent, *args, **kwargs: agent)
    config.env_runners(env_to_module_connector=lambda env, spaces, device: [PassesOn(), MeanStdFilter(multi_agent=True)])
    observed = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (2,)), "b": gym.spaces.Box(-1, 1, (3,))})
    spaces = observed, gym.spaces.Dict(dict.fromkeys("ab", gym.spaces.Discrete(2)))
    pipeline = config.build_env_to_module_connector(spaces={INPUT_ENV_SPACES: spaces, INPUT_ENV_SINGLE_SPACES: spaces})
    state = pipeline.get_state()
    merged = pipeline.merge_states([state, state])
    assert list(merged) == ["AgentMeanStdFilter"]
    assert merged["AgentMeanStdFilter"].keys() == {"a", "b"}
    assert pipeline.merge_states([]) == {}
    # The noise, which is no connector of the user's, must not have one: theirs would be counted wrong.
    assert AddExplorationNoise(settings={}, env_steps=7).get_state() == {}


def test_evaluation_with_a_config_of_its_own(build):
    whole = small_config().environment(env_config={"continuous_actions": True, "max_cycles": 7})
    for own, episodes in (
        ({"env_config": {"max_cycles": 7}, "num_envs_per_env_runner": 3}, 3),
        (whole.env_runners(explore=False, num_envs_per_env_runner=3), 3),
    ):
        config = small_config().evaluation(evaluation_interval=1, evaluation_duration=3, evaluation_config=own)
        algo = build(config)
        result = algo.train()
        assert result["evaluation"]["env_runners"]["num_env_steps_sampled"] == 7 * episodes
        assert result["env_runners"]["episode_len_mean"] == 25
        assert algo.eval_env_runner.num_envs == 3
        assert not algo.eval_env_runner.config.explore


@pytest.mark.parametrize(("unit", "runners", "parallel"), [("timesteps", 0, False), ("timesteps", 1, True)])
def test_evaluation_in_time_steps_does_not_disturb_training(build, unit, runners, parallel):
    plain = build(small_config())
    config = small_config().evaluation(evaluation_interval=1, evaluation_duration=60, evaluation_duration_unit=unit)
    config.evaluation(evaluation_num_env_runners=runners, evaluation_parallel_to_training=parallel)
    evaluated = build(config)
    for _ in range(2):
        plain.train()
        result = evaluated.train()
        assert result["evaluation"]["env_runners"]["num_env_steps_sampled"] == 60
    for m, state in plain.get_weights().items():
        for name, value in state.items():
            np.testing.assert_array_equal(evaluated.get_weights()[m][name], value)
