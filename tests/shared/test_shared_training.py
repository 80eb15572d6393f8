"""A trial in a shared learner equals the same trial alone: what it learns, counts, reports and saves."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import ray
import torch
from image_env import ImageEnv
from shared_trials import CLOSE, assert_same_results, assert_same_states, in_twins, status_of, twin_config
from tiny_algorithm import same, state_of, tiny_config
from users_replays import PlainReplay

from rllib_maddpg import MADDPG, InferredMADDPGConfig, MATD3Config, SharedLearner
from rllib_maddpg.replay import JointReplayBuffer
from rllib_maddpg.shared.client import SharedLearnerDied

pytestmark = pytest.mark.usefixtures("shared_session")


class NewestFirst(JointReplayBuffer):
    """Chooses otherwise."""

    def choose(self, num_rows):
        return (self.next_place - 1 - np.arange(num_rows)) % len(self)


VARIANTS = {
    "remote runner": lambda config: config.env_runners(num_env_runners=1, num_envs_per_env_runner=2),
    "many updates, schedules": lambda config: config.env_runners(rollout_fragment_length=20).training(
        num_env_steps_per_update=0.5,
        minibatch_per_module=True,
        actor_lr=[[0, 0.01], [100, 0.0]],
        target_network_update_freq=30,
    ),
    "a ring that chooses": lambda config: config.training(replay_buffer_config={"type": NewestFirst}),
    "by TD errors": lambda config: config.training(replay_buffer_config={"type": "users_replays.PrioritizedReplay"}),
    "prioritized, n steps": lambda config: config.training(
        n_step=3, replay_buffer_config={"type": "PrioritizedJointReplayBuffer", "priority": "max"}
    ),
    "images": lambda config: config.environment(ImageEnv, env_config={}).training(n_step=2),
    "a user's own": lambda config: config.training(replay_buffer_config={"type": PlainReplay}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_equals_the_trial_alone(build, variant):
    alone, shared = in_twins(build, VARIANTS[variant])
    for _ in range(2):
        results = alone.train(), shared.train()
        assert_same_results(*results)
    assert_same_states(alone, shared)
    assert alone._num_updates == shared._num_updates > 5
    seq = [algo.learner_group.foreach_learner(lambda own: own._weights_seq_no) for algo in (alone, shared)]
    assert len({next(iter(one)).get() for one in seq}) == 1
    own = results[1]["shared_learner"]
    assert own.keys() == {"slot", "slots_per_pass_mean", "wait_ms_mean"} and own["slot"] == shared.learner_group.client.slot


@pytest.mark.parametrize("config", [MATD3Config, InferredMADDPGConfig])
def test_members_of_the_family_equal_those_alone(build, config):
    alone = build(tiny_config(config=config()))
    shared = build(twin_config(config=config()))
    for _ in range(2):
        assert_same_results(alone.train(), shared.train())
    assert_same_states(alone, shared)
    assert alone._num_updates > 5


def test_a_step_is_one_call(build):
    algo = build(twin_config())
    algo.train()
    client, calls = algo.learner_group.client, []
    begin, ask = client.begin, client._line.ask
    client.begin = lambda method, *args, **kwargs: calls.append(method) or begin(method, *args, **kwargs)
    client._line.ask = lambda *args: calls.append("update") or ask(*args)
    before = algo._num_updates
    algo.train()
    assert calls == ["update"] * (algo._num_updates - before) and len(calls) == 4


def train(algo, iterations):
    for _ in range(iterations):
        algo.train()


def test_trials_at_the_same_time_equal_those_alone(build):
    settings = [{"tau": 0.1}, {"train_batch_size_per_learner": 12}, {"num_env_steps_per_update": 5}]
    alone = [build(tiny_config(k).training(**own)) for k, own in enumerate(settings)]
    shared = [build(twin_config(seed=k).training(**own)) for k, own in enumerate(settings)]
    with ThreadPoolExecutor(len(shared)) as pool:
        trained = [pool.submit(train, algo, 3) for algo in shared]
        for algo in alone:
            train(algo, 3)
        for one in trained:
            one.result()
    for one, other in zip(alone, shared, strict=True):
        assert one._num_updates == other._num_updates
        assert_same_states(one, other)
    slots = {algo.learner_group.client.slot for algo in shared}
    status = status_of(shared[0])
    assert len(slots) == 3 and slots <= set(status["trials"]) and status["updates"] >= 3 * 3


def test_updates_that_are_made_as_one_equal_those_alone(build):
    with SharedLearner("merging", max_wait_ms=10_000) as shared:
        alone = [build(tiny_config(seed)) for seed in (0, 1)]
        trials = [build(twin_config(shared.name, seed)) for seed in (0, 1)]
        with ThreadPoolExecutor(2) as pool:
            for one in [pool.submit(train, algo, 2) for algo in trials]:
                one.result()
        status = status_of(trials[0])
        assert status["updates"] == sum(algo._num_updates for algo in trials) and status["slots_per_pass_mean"] > 1
        for one, other in zip(alone, trials, strict=True):
            train(one, 2)
            assert one._num_updates == other._num_updates > 5
            assert_same_states(one, other)
            other.stop()


# ------------------------------------------------------------------------------------------ checkpoints and RLlib's calls


@pytest.mark.parametrize("kind", ["JointReplayBuffer", "users_replays.PrioritizedReplay"])
def test_checkpoints_are_those_of_a_trial_alone(build, tmp_path, kind):
    alone, shared = in_twins(build, lambda config: config.training(replay_buffer_config={"type": kind}))
    for algo in (alone, shared):
        algo.train()
    paths = [algo.save_to_path(str(tmp_path / name)) for algo, name in ((alone, "alone"), (shared, "shared"))]
    files = [sorted(str(file.relative_to(path)) for file in tmp_path.joinpath(path).rglob("*")) for path in paths]
    assert files[0] == files[1] and "replay_buffer/state.pkl" in files[0]
    assert [algo.get_metadata()["replay_buffer"] for algo in (alone, shared)] == [kind.rpartition(".")[2]] * 2
    for algo in (alone, shared):
        algo.train()
    for path in paths:
        for config in (tiny_config(), twin_config()):
            resumed = build(config.training(replay_buffer_config={"type": kind}))
            resumed.restore_from_path(path)
            resumed.train()
            assert_same_states(resumed, alone)
    again = MADDPG.from_checkpoint(paths[1])
    try:
        again.train()
        assert again.config.shared_learner == "tests"
        assert_same_states(again, alone)
    finally:
        again.stop()
    if kind == JointReplayBuffer.__name__:
        buffer = JointReplayBuffer.from_checkpoint(f"{paths[1]}/replay_buffer")
        assert type(buffer) is JointReplayBuffer and len(buffer) == 40


def test_a_checkpoint_that_does_not_fit_is_refused_in_the_same_words(build, tmp_path):
    other = build(tiny_config().rl_module(model_config={"fcnet_hiddens": [5]}))
    path, errors = other.save_to_path(str(tmp_path / "other")), []
    for algo in in_twins(build):
        algo.train()
        before = state_of(algo)
        with pytest.raises(ValueError) as error:
            algo.restore_from_path(path)
        errors.append(str(error.value))
        assert same(state_of(algo), before)
    assert errors[0] == errors[1]


def test_weights_modules_and_components(build, tmp_path):
    alone, shared = in_twins(build)
    path = alone.save_to_path(str(tmp_path / "first"))
    for algo in (alone, shared):
        algo.train()
        weights = algo.get_weights()
        algo.set_weights({module: {name: value * 0 + 0.1 for name, value in own.items()} for module, own in weights.items()})
        algo.train()
        component = "learner_group/learner/rl_module/agent_0"
        algo.restore_from_path(f"{path}/{component}", component=component)
        algo.train()
        algo.evaluate()
    assert_same_states(alone, shared)
    for name, value in alone.get_module("agent_0").state_dict().items():
        torch.testing.assert_close(value, shared.get_module("agent_0").state_dict()[name], **CLOSE)


def test_a_trial_is_built_again_in_its_process(build):
    alone, shared = in_twins(build)
    for algo, config in ((alone, tiny_config(1)), (shared, twin_config(seed=1))):
        algo.train()
        algo.reset_config(config.training(tau=0.5).to_dict())
        algo.train()
    assert_same_states(alone, shared)


def test_a_trial_asks_for_no_gpu_and_is_freed_when_it_stops(build):
    algo, other = build(twin_config()), build(twin_config())
    assert MADDPG.default_resource_request(algo.config).bundles == MADDPG.default_resource_request(tiny_config()).bundles
    slot = algo.learner_group.client.slot
    assert slot in status_of(other)["trials"]
    algo.stop()
    assert slot not in status_of(other)["trials"] and slot not in status_of(other)["held_bytes"]
    with pytest.raises(RuntimeError, match="was given back"):
        algo.learner_group.get_weights()


# ------------------------------------------------------------------------------------------ what goes wrong


def spoil(algo, module="agent_0"):
    def set_nan(learner):
        with torch.no_grad():
            next(iter(learner.module[module].critic.parameters())).fill_(float("nan"))

    algo.learner_group.foreach_learner(set_nan)


def test_nan_of_one_trial_is_its_own_error_and_leaves_the_others_alone(build):
    alone, shared = in_twins(build)
    neighbour, expected = build(twin_config(seed=3)), build(tiny_config(3))
    for algo in (alone, shared, neighbour, expected):
        algo.train()
    errors = []
    for algo in (alone, shared):
        spoil(algo)
        with pytest.raises(ValueError) as error:
            algo.train()
        errors.append((type(error.value), str(error.value)))
        (note,) = error.value.__notes__
        folder = note.partition("is in the checkpoint ")[2].rstrip(".")
        again = MADDPG.from_checkpoint(folder)
        assert_same_states(again, algo)
        assert again._num_updates == algo._num_updates
        again.stop()
    assert errors[0] == errors[1] and "agent_0" in errors[0][1]
    assert_same_states(alone, shared)
    for algo in (neighbour, expected):
        algo.train()
    assert_same_states(neighbour, expected)


def test_skipped_updates_are_counted(build):
    alone, shared = in_twins(build, lambda config: config.framework(torch_skip_nan_gradients=True))
    for algo in (alone, shared):
        algo.train()
        spoil(algo)
    results = alone.train(), shared.train()
    assert_same_results(*results)
    assert results[1]["learners"]["agent_0"]["num_updates_skipped_lifetime"] > 0


def test_errors_of_functions_come_as_from_a_local_learner(build):
    algo = build(twin_config())

    def fail(learner):
        raise KeyError("something")

    with pytest.raises(KeyError, match="something") as error:
        algo.learner_group.foreach_learner(fail)
    assert "in fail" in str(error.value.__cause__)
    algo.train()  # it is not taken out of service


class Exhausted(JointReplayBuffer):
    """Cannot be made."""

    def __init__(self, schema, capacity, seed=None):
        raise StopIteration("no rows")


def test_a_stop_iteration_of_a_users_class_reaches_the_trial(build):
    build(twin_config())
    with pytest.raises(RuntimeError, match="StopIteration: no rows"):
        twin_config().training(replay_buffer_config={"type": Exhausted}).build_algo()


class Unreadable:
    """Can be pickled, but not be read."""

    def __reduce__(self):
        return int, ("no number",)


def test_answers_that_cannot_travel_are_errors_and_no_deaths(build):
    algo = build(twin_config())
    with pytest.raises(ValueError, match=r"<lambda>` returned a lock that cannot be pickled, .* Return numbers"):
        algo.learner_group.foreach_learner(lambda learner: threading.Lock())
    with pytest.raises(ray.exceptions.RayError, match="no number"):
        algo.learner_group.foreach_learner(lambda learner: Unreadable())
    assert algo.get_weights().keys() == {"adversary_0", "agent_0", "agent_1"}
    algo.train()


def test_the_end_of_the_shared_learner_is_an_error_and_nobody_waits(build):
    algo = build(twin_config("dies"))
    algo.train()
    ray.kill(algo.learner_group.client.actor)
    with pytest.raises(SharedLearnerDied, match=r"The shared learner 'dies' died, .* since its last checkpoint") as error:
        algo.train()
    assert not hasattr(error.value, "__notes__")  # there is nothing to save
    for call in (algo.get_weights, algo.get_state, algo.replay_buffer.get_state, algo.save_to_path):
        with pytest.raises(SharedLearnerDied):
            call()
    algo.stop()
