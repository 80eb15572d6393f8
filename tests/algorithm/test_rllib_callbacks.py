"""RLlib's callbacks: every hook is called as often as things happen, with the arguments that RLlib documents."""

from collections import Counter

import pytest
import torch
from ledger_env import TIME_LIMIT, LedgerEnv
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from rllib_maddpg import MADDPG, MADDPGConfig
from rllib_maddpg.ray_compat import log_value, since
from rllib_maddpg.rows.rollout import JointRollout

pytestmark = pytest.mark.usefixtures("ray_session")

IN_EPISODE = {"episode", "env_runner", "metrics_logger", "env", "env_index", "rl_module"}
# Hook -> its arguments.
HOOKS = {
    "on_algorithm_init": {"algorithm", "metrics_logger"},
    "on_train_result": {"algorithm", "metrics_logger", "result"},
    "on_evaluate_start": {"algorithm", "metrics_logger"},
    "on_evaluate_end": {"algorithm", "metrics_logger", "evaluation_metrics"},
    "on_checkpoint_loaded": {"algorithm"},
    "on_environment_created": {"env_runner", "metrics_logger", "env", "env_context"},
    "on_sample_end": {"env_runner", "metrics_logger", "samples"},
    "on_episode_created": IN_EPISODE,
    "on_episode_start": IN_EPISODE,
    "on_episode_step": IN_EPISODE,
    "on_episode_end": {*IN_EPISODE, "prev_episode_chunks"},
}


class Notes(RLlibCallback):
    """Counts all hooks and logs each as a metric; keeps what the episodes were at their end."""

    def __init__(self):
        self.calls, self.arguments, self.ends, self.samples = Counter(), {}, [], []
        self.env = None


def _note(hook):
    def call(self, **arguments):
        self.calls[hook] += 1
        self.arguments[hook] = set(arguments)
        if "metrics_logger" in arguments:
            log_value(arguments["metrics_logger"], f"my_{hook}", 1, reduce="lifetime_sum")
        if hook == "on_episode_end":
            episode = arguments["episode"]
            assert isinstance(episode, MultiAgentEpisode)
            assert episode.is_done
            self.ends.append((len(episode), episode.get_return()))
            arguments["metrics_logger"].log_value("my_return", episode.get_return(), reduce="mean", window=100)
        if hook == "on_sample_end":
            self.samples += arguments["samples"]
        if hook == "on_environment_created":
            self.env = arguments["env"], dict(arguments["env_context"])

    return call


for _hook in HOOKS:
    setattr(Notes, _hook, _note(_hook))


class Outside(RLlibCallback):
    """Hooks that leave the columnar loop in place."""

    on_sample_end, on_environment_created = Notes.on_sample_end, Notes.on_environment_created
    __init__ = Notes.__init__


def config_with(*args, env_steps=75, num_envs=1, **functions):
    """One iteration is one fragment of `env_steps`."""
    config = MADDPGConfig().environment("simple_adversary", env_config={"continuous_actions": True}).debugging(seed=0)
    config.env_runners(num_envs_per_env_runner=num_envs).reporting(min_sample_timesteps_per_iteration=env_steps)
    config.rl_module(model_config={"fcnet_hiddens": [16, 16]}).callbacks(*args, **functions)
    return config.training(
        num_steps_sampled_before_learning_starts=50,
        train_batch_size_per_learner=32,
        num_env_steps_per_update=env_steps,
        replay_buffer_config={"capacity": 2000},
    )


@pytest.fixture(scope="module")
def noted():
    """An algorithm with `Notes` after one iteration (3 episodes of 25 steps), an evaluation of 3, and its result."""
    algo = config_with(Notes).evaluation(evaluation_interval=1, evaluation_duration=3).build_algo()
    yield algo, algo.train()
    algo.stop()


def test_all_hooks_are_called_as_often_as_things_happen(noted, tmp_path):
    algo, _ = noted
    here, runner, evaluator = algo.callbacks[0], algo.env_runner._callbacks[0], algo.eval_env_runner._callbacks[0]
    assert here.calls == {"on_algorithm_init": 1, "on_train_result": 1, "on_evaluate_start": 1, "on_evaluate_end": 1}
    # The last of the four episodes has only been made yet, as RLlib does at the end of each.
    calls = {"on_environment_created": 1, "on_sample_end": 1, "on_episode_created": 4, "on_episode_start": 3}
    calls |= {"on_episode_step": 75, "on_episode_end": 3}
    assert runner.calls == calls
    # Where whole episodes are asked for, older Rays make no other.
    assert evaluator.calls == calls | {"on_episode_created": 4 if since("2.54") else 3}
    algo.restore(algo.save(str(tmp_path)))
    assert here.calls["on_checkpoint_loaded"] == 1
    for notes in (here, runner, evaluator):
        for hook, arguments in notes.arguments.items():
            assert arguments == HOOKS[hook], hook


def test_episodes_in_hooks_are_those_of_the_results(noted):
    algo, result = noted
    for notes, results in (
        (algo.env_runner._callbacks[0], result["env_runners"]),
        (algo.eval_env_runner._callbacks[0], result["evaluation"]["env_runners"]),
    ):
        assert [length for length, _ in notes.ends] == [25, 25, 25]
        mean = sum(value for _, value in notes.ends) / 3
        assert results["episode_return_mean"] == pytest.approx(mean)
        assert results["my_return"] == pytest.approx(mean)
        assert isinstance(notes.samples[0], JointRollout)
        assert [s.env_steps() for s in notes.samples] == [75]


def test_what_hooks_log_is_in_the_results(noted):
    _, result = noted
    for results in (result["env_runners"], result["evaluation"]["env_runners"]):
        assert results["my_on_episode_step"] == 75
        assert results["my_on_episode_start"] == results["my_on_episode_end"] == 3
        assert results["my_on_sample_end"] == results["my_on_environment_created"] == 1
    assert result["my_on_algorithm_init"] == 1


def test_callback_functions_of_the_config():
    calls = Counter()
    hooks = [hook for hook in HOOKS if hook != "on_checkpoint_loaded"]

    def counter(hook):
        return lambda **arguments: calls.update([hook])

    functions = {hook: counter(hook) for hook in hooks}
    algo = config_with(**functions).build_algo()
    try:
        algo.train()
    finally:
        algo.stop()
    assert calls == {
        "on_algorithm_init": 1,
        "on_train_result": 1,
        "on_environment_created": 1,
        "on_sample_end": 1,
        "on_episode_created": 4,
        "on_episode_start": 3,
        "on_episode_step": 75,
        "on_episode_end": 3,
    }


def test_hooks_outside_of_episodes_work_in_the_columnar_loop():
    config = config_with([Outside, Outside], num_envs=3)
    config.environment(LedgerEnv, env_config={"script": TIME_LIMIT}, disable_env_checking=True)
    algo = config.build_algo()
    try:
        result = algo.train()
        assert algo.env_runner._stock_reason == ""
        for notes in algo.env_runner._callbacks:
            assert notes.calls == {"on_environment_created": 1, "on_sample_end": 1}
            assert sum(s.env_steps() for s in notes.samples) == 75
            assert notes.env[0].num_envs == 3
            assert notes.env[1]["script"] == TIME_LIMIT
        assert result["env_runners"]["my_on_sample_end"] == 2  # one of each object
    finally:
        algo.stop()


def test_hooks_on_remote_runners():
    config = config_with(Notes).env_runners(num_env_runners=2, sample_timeout_s=30)
    config.training(num_env_steps_per_update=50).reporting(min_sample_timesteps_per_iteration=50)
    algo = config.build_algo()
    try:
        results = algo.train()["env_runners"]
        # Runners may have sampled more than has been reported.
        assert results["my_on_episode_step"] >= results["num_env_steps_sampled_lifetime"]
        assert results["my_on_episode_step"] % 25 == 0
        assert results["my_on_environment_created"] == 2
    finally:
        algo.stop()


def test_a_new_algorithm_from_a_checkpoint_has_its_callbacks(noted, tmp_path):
    algo = MADDPG.from_checkpoint(noted[0].save_to_path(str(tmp_path / "checkpoint")))
    try:
        assert algo.callbacks[0].calls["on_algorithm_init"] == 1
    finally:
        algo.stop()


RL_MODULE = "learner_group/learner/rl_module"


def actor(module):
    return torch.cat([p.detach().flatten() for p in module.unwrapped().actor.parameters()])


def test_on_algorithm_init_gets_a_whole_algorithm(noted, build, tmp_path):
    """Saving, restoring one agent of three, setting weights, evaluating and restoring all work there, and reach the runners."""
    source, _ = noted
    path, at_init = source.save_to_path(str(tmp_path / "source")), str(tmp_path / "at_init")
    weights, seen = source.get_weights(["agent_1"]), {}

    def on_init(algorithm, **kwargs):
        own = algorithm.get_state()
        seen["env steps"] = own["counts"]["env_steps"], len(algorithm.replay_buffer)
        seen["own"] = {m: actor(algorithm.learner_group._learner.module[m]) for m in algorithm.layout.modules}
        algorithm.restore_from_path(f"{path}/{RL_MODULE}/agent_0", component=f"{RL_MODULE}/agent_0")
        algorithm.set_weights(weights)
        seen["length"] = algorithm.evaluate()["env_runners"]["episode_len_mean"]
        algorithm.save_to_path(at_init)

    config = config_with(on_algorithm_init=on_init).debugging(seed=1).env_runners(num_env_runners=1)
    config.evaluation(evaluation_interval=1, evaluation_duration=1)
    algo = build(config)
    assert seen["env steps"] == (0, 0)
    assert seen["length"] == 25

    (remote,) = algo.env_runner_group.foreach_env_runner(
        lambda runner: {m: actor(module) for m, module in runner.module.items()}, local_env_runner=False
    )
    theirs = {m: actor(source.learner_group._learner.module[m]) for m in ("agent_0", "agent_1")}
    for agent, want in {**seen["own"], **theirs}.items():
        saved = RLModule.from_checkpoint(f"{at_init}/{RL_MODULE}/{agent}")
        for now in (algo.learner_group._learner.module[agent], algo.get_module(agent), saved):
            assert torch.equal(actor(now), want), agent
        assert torch.equal(remote[agent], want), agent
    # As Tune does for a trial that gets another's actor: a new hook, which takes over all there is.
    whole = config_with(on_algorithm_init=lambda algorithm, **kwargs: algorithm.restore_from_path(path))
    assert algo.reset_config(whole.to_dict())
    assert len(algo.replay_buffer) == len(source.replay_buffer) == 75
    assert torch.equal(actor(algo.get_module("adversary_0")), actor(source.learner_group._learner.module["adversary_0"]))
    algo.train()


def test_classes_that_are_no_callbacks_are_refused():
    with pytest.raises(ValueError, match=r"`callbacks_class`=.*must be made of subclasses of RLlibCallback"):
        config_with(dict).validate()
