"""The algorithm as RLlib runs it: updates per env step, runners, checkpoints, resuming, order, registration, Tune."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from ledger_env import TIME_LIMIT, LedgerEnv, TurnsEnv
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.tune.registry import get_trainable_cls

import rllib_maddpg
from rllib_maddpg import MADDPG, MADDPGConfig
from rllib_maddpg.runs.evaluation import evaluate_algorithm

pytestmark = pytest.mark.usefixtures("ray_session")


def small_config(env="simple_adversary", num_envs=2, seed=0, **training):
    """Settings that learn little but do everything within a few hundred env steps."""
    training = {
        "num_steps_sampled_before_learning_starts": 200,
        "train_batch_size_per_learner": 32,
        "num_env_steps_per_update": 25,
        "lr": 1e-3,
        **training,
    }
    config = MADDPGConfig().environment(env, env_config={"continuous_actions": True} if isinstance(env, str) else {})
    config.environment(disable_env_checking=True).debugging(seed=seed).env_runners(num_envs_per_env_runner=num_envs)
    return config.training(**training).reporting(min_sample_timesteps_per_iteration=100)


def weights_of(algo):
    """All network weights, targets included, as arrays by name."""
    state = algo.learner_group.get_state()["learner"]["rl_module"]
    return {f"{m}/{k}": np.asarray(v) for m, nets in state.items() for k, v in nets.items() if isinstance(v, np.ndarray)}


def assert_equal_weights(one, two):
    one, two = weights_of(one), weights_of(two)
    assert one.keys() == two.keys() and len(one) >= 3 * 4 * 6  # 3 modules, 4 networks, 6 tensors each
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def run_python(script, *envs):
    """Runs a script in a process of its own for each of `envs`, all at once, and returns what they printed."""
    command, pipe = [sys.executable, "-c", textwrap.dedent(script)], subprocess.PIPE
    runs = [subprocess.Popen(command, env={**os.environ, **env}, stdout=pipe, stderr=pipe, text=True) for env in envs or [{}]]
    try:
        printed = [run.communicate() for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [run.returncode for run in runs] == [0] * len(runs), printed
    return [out for out, _ in printed]


@pytest.mark.parametrize(("per_update", "num_envs", "runners"), [(7, 1, 0), (7, 3, 0), (0.5, 1, 0), (0.5, 3, 0), (0.5, 2, 2)])
def test_updates_per_env_step_are_what_was_asked_for(build, num_envs, runners, per_update):
    config = small_config(num_envs=num_envs, num_env_steps_per_update=per_update, train_batch_size_per_learner=4)
    config.env_runners(num_env_runners=runners, rollout_fragment_length=4)
    config.training(num_steps_sampled_before_learning_starts=50)
    algo = build(config)
    result = algo.train()
    sampled = result["num_env_steps_sampled_lifetime"]
    updates = result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"] / 4
    per_round = 4 * num_envs * max(1, runners)
    # Env steps up to the round that reaches 50 lead to no update, except that round's own.
    counted = sampled - per_round * (int(np.ceil(50 / per_round)) - 1)
    assert updates == counted // per_update
    assert algo._env_steps_since_update == pytest.approx(counted % per_update)


def test_remote_runners_have_actors_only_and_the_learners_weights(build):
    algo = build(small_config().env_runners(num_env_runners=2))
    result = algo.train()
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == result["num_env_steps_sampled_lifetime"] >= 100
    algo.train()
    algo.train()
    # New weights go with what the runners are asked for next; here they have to work on that first.
    algo.collector.collect(algo._new_weights)
    runners = algo.env_runner_group.foreach_env_runner(
        lambda r: {f"{m}/{k}": v.numpy() for m in r.module.keys() for k, v in r.module[m].state_dict().items()},  # noqa: SIM118
        local_env_runner=False,
    )
    learner = weights_of(algo)
    assert len(runners) == 2
    for state in runners:
        assert {name.split("/")[1].split(".")[0] for name in state} == {"actor"}
        for name, value in state.items():
            np.testing.assert_array_equal(value, learner[name])


def test_a_killed_runner_comes_back_with_other_games(build):
    config = small_config().env_runners(num_env_runners=2).fault_tolerance(restart_failed_env_runners=True)
    config.fault_tolerance(delay_between_env_runner_restarts_s=0)
    recreated = []
    config.callbacks(on_env_runners_recreated=lambda **arguments: recreated.append(arguments))
    algo = build(config)
    algo.train()
    algo.env_runner_group.foreach_env_runner(lambda r: os._exit(1) if r.worker_index == 2 else None, local_env_runner=False)
    before = algo._episode_numbers[2]
    end = time.monotonic() + 60
    while time.monotonic() < end and algo._episode_numbers[2] <= before:
        algo.train()  # the other one goes on
    assert algo.env_runner_group.num_healthy_remote_workers() == 2
    assert min(algo._episode_numbers[2]) >= max(before)
    assert len(recreated) == 1
    assert recreated[0] == {
        "algorithm": algo,
        "env_runner_group": algo.env_runner_group,
        "env_runner_indices": [2],
        "is_evaluation": False,
    }


def test_resume_in_a_new_process_equals_a_run_that_never_stopped(build, tmp_path):
    """3,000 env steps, against 1,500, a checkpoint, and 1,500 in another process: bit for bit."""
    config = small_config("simple_spread", num_envs=2, noise_type="ornstein_uhlenbeck", noise_scale=[[0, 0.4], [3000, 0.1]])
    config.training(actor_lr=[[0, 1e-3], [3000, 1e-4]]).env_runners(rollout_fragment_length=25)
    straight = build(config.copy())
    halfway = build(config.copy())
    for _ in range(15):
        straight.train()
        halfway.train()
    checkpoint = halfway.save_to_path(str(tmp_path / "half"))
    script = f"""
        import ray, rllib_maddpg
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        algo = rllib_maddpg.MADDPG.from_checkpoint({checkpoint!r})
        for _ in range(15):
            algo.train()
        algo.save_to_path({str(tmp_path / "full")!r})
    """
    run_python(script)
    for _ in range(15):
        straight.train()
    resumed = build(config.copy())
    resumed.restore_from_path(str(tmp_path / "full"))
    assert straight._env_steps == resumed._env_steps == 3000
    assert_equal_weights(straight, resumed)
    assert len(straight.replay_buffer) == len(resumed.replay_buffer) == 3000
    one, two = straight.replay_buffer.get_state(), resumed.replay_buffer.get_state()
    for name in one["columns"]:
        np.testing.assert_array_equal(one["columns"][name], two["columns"][name], err_msg=name)
    assert all(one[name] == two[name] for name in ("stream_key", "num_updates_drawn", "rng", "num_rows_added"))
    assert one["num_updates_drawn"] == straight._num_updates > 0
    trained = [a.metrics.peek(("learners", "__all_modules__", "num_env_steps_trained_lifetime")) for a in (straight, resumed)]
    assert trained[0] == trained[1] > 0
    assert straight._episode_numbers == resumed._episode_numbers == {0: [60, 60]}


def test_a_checkpoint_inside_an_episode_loses_only_its_remainder(build, tmp_path):
    algo = build(small_config("simple_spread", num_envs=1).env_runners(rollout_fragment_length=10))
    algo.train()
    steps = algo._env_steps
    assert steps % 25 == 0 or len(algo.replay_buffer) == steps
    algo.env_runner.sample(num_timesteps=3)  # the env now stands inside an episode
    numbers = algo.env_runner.episode_numbers
    checkpoint = algo.save_to_path(str(tmp_path / "c"))
    other = build(small_config("simple_spread", num_envs=1).env_runners(rollout_fragment_length=10))
    other.restore_from_path(checkpoint)
    assert len(other.replay_buffer) == steps == other._env_steps
    other.train()
    assert len(other.replay_buffer) == other._env_steps == steps + 100
    columns = other.replay_buffer.get_state()["columns"]
    # The first row after the checkpoint is a reset: agents stand still (an observation begins with the velocities).
    assert not columns["obs"][steps, :2].any() and not columns["obs"][steps, 18:20].any()
    assert other.env_runner.episode_numbers[0] == numbers[0] + 4
    assert columns["terminateds"].sum() == 0


def test_the_buffer_may_stay_out_of_checkpoints(build, tmp_path):
    algo = build(small_config(store_buffer_in_checkpoints=False))
    algo.train()
    path = algo.save_to_path(str(tmp_path / "c"))
    assert not os.path.exists(os.path.join(path, "replay_buffer"))
    other = build(small_config(store_buffer_in_checkpoints=False))
    other.restore_from_path(path)
    assert len(other.replay_buffer) == 0
    assert_equal_weights(algo, other)


def test_from_checkpoint_by_the_base_class_and_of_a_single_module(build, tmp_path):
    algo = build(small_config())
    for _ in range(3):
        algo.train()
    path = algo.save_to_path(str(tmp_path / "c"))
    assert json.loads((tmp_path / "c" / "rllib_checkpoint.json").read_text())["layout"]["agents"][0]["agent"] == "adversary_0"
    assert (tmp_path / "c" / "replay_buffer" / "state.pkl").is_file()
    other = Algorithm.from_checkpoint(path)
    assert isinstance(other, MADDPG)
    assert_equal_weights(algo, other)
    assert other.iteration == 3
    other.stop()
    module = RLModule.from_checkpoint(tmp_path / "c" / "learner_group" / "learner" / "rl_module" / "agent_0")
    obs = torch.linspace(-1, 1, 10).reshape(1, 10)
    own = algo.learner_group._learner.module["agent_0"]
    assert torch.equal(module.forward_inference({"obs": obs})["actions"], own.forward_inference({"obs": obs})["actions"])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda c: (c / "rllib_checkpoint.json").unlink(), "is no checkpoint"),
        (lambda c: (c / "rllib_checkpoint.json").write_text("{"), "damaged"),
        (lambda c: (c / "replay_buffer" / "state.pkl").write_bytes(b"\x80\x04"), "damaged"),
        (lambda c: (c / "learner_group" / "state.pkl").unlink(), "damaged"),
        (
            lambda c: shutil.rmtree(c / "learner_group" / "learner" / "rl_module" / "agent_0"),
            r"rl_module/agent_0/\S+ is missing",
        ),
        (lambda c: shutil.rmtree(c / "replay_buffer"), r"replay_buffer/\S+ is missing"),
    ],
)
def test_missing_and_damaged_checkpoint_files(build, tmp_path, damage, text):
    algo = build(small_config())
    algo.save_to_path(str(tmp_path / "c"))
    damage(tmp_path / "c")
    with pytest.raises(ValueError, match=text) as error:
        algo.restore_from_path(str(tmp_path / "c"))
    assert str(tmp_path / "c") in str(error.value)


def test_a_checkpoint_of_another_env_is_refused(build, tmp_path):
    path = build(small_config("simple_spread")).save_to_path(str(tmp_path / "c"))
    algo = build(small_config("simple_adversary"))
    before = weights_of(algo)
    with pytest.raises(ValueError, match=r"another environment or layout: agent 'adversary_0' is None there"):
        algo.restore_from_path(path)
    for name, value in weights_of(algo).items():
        np.testing.assert_array_equal(value, before[name])


def test_order_does_not_depend_on_the_hash_seed():
    """Two processes with different string hashes: the same layout and, from the same seed, weights and first batch."""
    script = """
        import hashlib, json, numpy as np, ray, rllib_maddpg
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
        from ray.tune.registry import register_env
        from mpe2 import simple_adversary_v3
        register_env("zoo", lambda c: ParallelPettingZooEnv(simple_adversary_v3.parallel_env(continuous_actions=True)))
        config = rllib_maddpg.MADDPGConfig().environment("zoo").debugging(seed=5)
        agents = {"agent_1", "adversary_0", "agent_0"}
        config.multi_agent(policies=agents, policy_mapping_fn=lambda aid, episode, **kw: aid)
        config.training(num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=16)
        algo = config.reporting(min_sample_timesteps_per_iteration=100).build_algo()
        weights = algo.learner_group.get_weights()
        digest = hashlib.sha256()
        for m in sorted(weights):
            for k in sorted(weights[m]):
                digest.update(np.ascontiguousarray(weights[m][k]).tobytes())
        algo.train()
        batch = algo.replay_buffer.sample(16)
        for m in sorted(batch.modules):
            for k in sorted(batch.modules[m]):
                digest.update(np.ascontiguousarray(batch.modules[m][k]).tobytes())
        print("RESULT", json.dumps([list(map(str, agents)), algo.layout.description(), digest.hexdigest()]))
    """
    printed = run_python(script, {"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"})
    results = [json.loads(out.split("RESULT ")[1].splitlines()[0]) for out in printed]
    assert results[0][0] != results[1][0], "the hash seeds give the set the same order: choose others"
    assert results[0][1:] == results[1][1:]


def test_the_name_is_registered_once_and_for_all():
    rllib_maddpg.register()
    rllib_maddpg.register()
    assert get_trainable_cls("MADDPG") is MADDPG
    assert ALGORITHMS["MADDPG"]()[0] is MADDPG


def tune_space():
    config = small_config(num_envs=1)
    return {
        "env": "simple_adversary",
        "env_config": {"continuous_actions": True},
        "num_steps_sampled_before_learning_starts": 50,
        "train_batch_size_per_learner": 16,
        "num_env_steps_per_update": config.num_env_steps_per_update,
        "min_sample_timesteps_per_iteration": 100,
        "lr": tune.grid_search([0.01, 0.001]),
        "seed": 1,
    }


def test_tune_run_by_name_sweeps_lr(tmp_path):
    analysis = tune.run("MADDPG", config=tune_space(), stop={"training_iteration": 2}, storage_path=str(tmp_path), verbose=0)
    rates = {t.last_result["learners"]["agent_0"]["actor_learning_rate"] for t in analysis.trials}
    assert {round(float(r), 6) for r in rates} == {0.01, 0.001}
    assert all(t.last_result["num_env_steps_sampled_lifetime"] >= 200 for t in analysis.trials)


def test_tuner_by_name_with_a_config_object(tmp_path):
    config = small_config(num_envs=1).training(actor_lr=tune.grid_search([0.002]), critic_lr=0.005)
    tuner = tune.Tuner(
        "MADDPG",
        param_space=config,
        run_config=tune.RunConfig(storage_path=str(tmp_path), stop={"num_env_steps_sampled_lifetime": 300}, verbose=0),
    )
    result = tuner.fit()[0]
    assert result.error is None
    learner = result.metrics["learners"]["agent_0"]
    assert float(learner["actor_learning_rate"]) == pytest.approx(0.002)
    assert float(learner["critic_learning_rate"]) == pytest.approx(0.005)


def test_evaluation_in_between_and_parallel_is_noise_free(build):
    config = small_config().evaluation(evaluation_interval=1, evaluation_duration=4, evaluation_num_env_runners=0)
    result = build(config).train()
    assert result["evaluation"]["env_runners"]["num_episodes"] == 4
    assert np.isfinite(result["evaluation"]["env_runners"]["episode_return_mean"])
    config = small_config().evaluation(
        evaluation_interval=1, evaluation_duration=4, evaluation_num_env_runners=1, evaluation_parallel_to_training=True
    )
    algo = build(config)
    result = algo.train()
    assert result["evaluation"]["env_runners"]["num_episodes"] >= 4
    explore = algo.eval_env_runner_group.foreach_env_runner(lambda r: r.config.explore, local_env_runner=False)
    assert explore == [False]


def test_evaluation_on_the_training_runner_is_noise_free_and_leaves_its_clock(build):
    algo = build(small_config(num_steps_sampled_before_learning_starts=10_000).evaluation(evaluation_duration=2))
    algo.train()
    clock = algo.env_runner.num_env_steps_sampled_lifetime
    drawn = []
    algo.env_runner.exploration.act = lambda *args: drawn.append(args)
    assert np.isfinite(algo.evaluate()["env_runners"]["episode_return_mean"])
    assert not drawn and algo.env_runner.num_env_steps_sampled_lifetime == clock
    assert algo.env_runner.config.explore


def test_a_turn_based_game_stops_the_run_also_on_remote_runners(build):
    config = small_config(TurnsEnv, num_envs=1).environment(env_config={"script": TIME_LIMIT}).env_runners(num_env_runners=1)
    with pytest.raises(ValueError, match=r"Agent 'a' has .*turn_based=True"):
        build(config).train()


def test_parameter_sharing_and_frozen_modules_train(build):
    config = small_config("simple_spread")
    config.multi_agent(
        policies=["shared", "alone"],
        policy_mapping_fn={"agent_0": "shared", "agent_1": "alone", "agent_2": "shared"},
        policies_to_train=["shared"],
    )
    algo = build(config)
    assert algo.layout.agents == ("agent_1", "agent_0", "agent_2")
    before = weights_of(algo)
    for _ in range(4):
        result = algo.train()
    assert np.isfinite(result["learners"]["shared"]["critic_loss"])
    for name, value in weights_of(algo).items():
        assert (value == before[name]).all() == name.startswith("alone"), name


def test_all_kinds_of_actions_in_one_game_and_dead_agents(build):
    algo = build(small_config(LedgerEnv).environment(env_config={"script": TIME_LIMIT}))
    for _ in range(4):
        result = algo.train()
    assert np.isfinite([result["learners"][m]["critic_loss"] for m in "abc"]).all()
    assert "action_saturation" in result["learners"]["a"] and "action_entropy" in result["learners"]["b"]


def test_dict_observations_are_flattened(build):
    import gymnasium as gym

    class DictObs(LedgerEnv):
        def __init__(self, config):
            super().__init__(config)
            box = gym.spaces.Box(-1e6, 1e6, (3,), np.float32)
            for a in "ab":
                self.observation_spaces[a] = gym.spaces.Dict({"x": box, "d": gym.spaces.Discrete(4)})

        def _obs(self, agent):
            obs = super()._obs(agent)
            return obs if agent == "c" else {"x": obs[:3], "d": self.time % 4}

    algo = build(small_config(DictObs).environment(env_config={"script": TIME_LIMIT}))
    algo.train()
    slots = {s.agent: s for s in algo.layout.slots}
    assert [slots[a].obs.stop - slots[a].obs.start for a in "abc"] == [7, 7, 6]
    rows = algo.replay_buffer.get_state()["columns"]
    one_hot = rows["obs"][:4, slots["a"].obs][:, :4]
    np.testing.assert_array_equal(one_hot, np.eye(4))


def test_two_learners_train_checkpoint_and_agree(build, tmp_path):
    config = small_config().learners(num_learners=2)
    algo = build(config.copy())
    for _ in range(3):
        result = algo.train()
    trained = result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"]
    assert trained % 64 == 0 and trained > 0
    states = algo.learner_group.foreach_learner(lambda learner: learner.module.get_state())
    one, two = [{f"{m}/{k}": v for m, nets in r.get().items() for k, v in nets.items()} for r in states]
    assert one.keys() == two.keys() and len(one) == 3 * 4 * 6
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    path = algo.save_to_path(str(tmp_path / "c"))
    alone = build(small_config(train_batch_size_per_learner=64))
    alone.restore_from_path(path)
    assert_equal_weights(algo, alone)
    alone.train()


def test_single_agent_gymnasium_env_is_ddpg(build):
    config = MADDPGConfig().environment("Pendulum-v1").debugging(seed=0)
    config.training(num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=16, num_env_steps_per_update=10)
    algo = build(config.reporting(min_sample_timesteps_per_iteration=250))
    result = algo.train()
    assert list(algo.layout.agents) == ["agent_0"]
    assert np.isfinite(result["learners"]["agent_0"]["critic_loss"])
    evaluation = evaluate_algorithm(algo, episodes=2, seed=1)
    assert evaluation.length.mean == 200 and -2000 < evaluation.team.mean < 0


def test_nan_from_the_env_names_agent_and_step_and_keeps_the_rows_before(build):
    class NanEnv(LedgerEnv):
        def step(self, actions):
            result = super().step(actions)
            if self.episode == 1 and self.time == 2:
                result[1]["b"] = float("nan")
            return result

    algo = build(small_config(NanEnv, num_envs=1).environment(env_config={"script": TIME_LIMIT}))
    with pytest.raises(ValueError, match=r"reward of agent 'b' is nan at step 2 of the episode in env 0 of env runner 0"):
        algo.train()
    # An episode of 4 steps, and the first of the next one.
    assert len(algo.replay_buffer) == 5


def test_a_users_multi_module_spec_and_subclass_stay_inference_only_on_runners(build):
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from rllib_maddpg import MADDPGTorchRLModule

    class Wide(MADDPGTorchRLModule):
        def build_critic(self, input_dim):
            return torch.nn.Sequential(torch.nn.Linear(input_dim, 7), torch.nn.ReLU(), torch.nn.Linear(7, 1))

    specs = {a: RLModuleSpec(module_class=Wide, model_config={"fcnet_hiddens": [5]}) for a in ("adversary_0", "agent_0")}
    algo = build(small_config().rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs)))
    algo.train()
    assert isinstance(algo.env_runner.module["agent_0"], Wide)
    for m in ("adversary_0", "agent_0", "agent_1"):
        assert not hasattr(algo.env_runner.module[m], "critic")
    assert algo.learner_group._learner.module["agent_0"].critic[0].out_features == 7
    assert algo.env_runner.module["agent_0"].actor.layers[0].out_features == 5
    assert algo.env_runner.module["agent_1"].actor.layers[0].out_features == 64
