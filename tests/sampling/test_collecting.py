"""Sampling beside the Learner: pipelined, synchronous and asynchronous, with runners that are slow, hang or die; and what is
made of the rows: several updates in a call, counts and metrics of each iteration, a checkpoint before an error."""

import copy
import logging
import os
import pickle
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import torch
from ledger_env import TIME_LIMIT, LedgerEnv
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from trouble_env import TellingRunner, TroubleEnv, make_trouble

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.sampling.collecting import RolloutCollector

pytestmark = pytest.mark.usefixtures("ray_session")

FRAGMENT, BATCH = 10, 16


def config_for(runners=0, mode="pipelined", per_update=20, env=TroubleEnv, iteration=100, **env_config):
    """Fragments of 10 env steps, updates of 16 rows."""
    config = MADDPGConfig().environment(env, env_config=env_config or {"script": TIME_LIMIT}).debugging(seed=3)
    config.env_runners(num_env_runners=runners, rollout_fragment_length=FRAGMENT, sample_mode=mode)
    config.env_runners(env_runner_cls=TellingRunner, sample_timeout_s=60)
    config.fault_tolerance(delay_between_env_runner_restarts_s=0)
    config.rl_module(model_config={"fcnet_hiddens": [8]})
    config.training(num_steps_sampled_before_learning_starts=40, train_batch_size_per_learner=BATCH, lr=1e-3)
    config.training(num_env_steps_per_update=per_update, replay_buffer_config={"capacity": 100_000})
    return config.reporting(min_sample_timesteps_per_iteration=iteration)


@pytest.fixture(scope="module")
def troubled(ray_session):
    """An algorithm with two remote runners, shared because these take long to start; and its first rounds."""
    algo = config_for(2, iteration=20).build_algo()
    yield algo, first_rounds(algo)
    algo.stop()


@pytest.fixture
def algo(troubled):
    """The shared algorithm in good health."""
    yield troubled[0]
    make_trouble(troubled[0].env_runner_group, sleep={}, die=())


def with_new_collector(algo, **settings):
    """Gives the algorithm a new collector with other settings, when what was asked for has come."""
    algo.env_runner_group.fetch_ready_async_reqs(tags=[], timeout_seconds=10)
    config = algo.config.copy(copy_frozen=False)
    for key, value in {"sample_timeout_s": 0.5, **settings}.items():
        setattr(config, key, value)
    algo.__dict__.pop("training_step", None)  # of `spy`
    algo.collector = RolloutCollector(algo.env_runner_group, config)
    return algo.collector


def spy(algo):
    """Writes down each round: [(runner, number of its weights, rows)], and the number of the Learner's weights after it."""
    fragments, numbers = [], [algo.learner_group._learner._weights_seq_no]
    collect, training_step = algo.collector.collect, algo.training_step

    def spied_collect(*args, **kwargs):
        collected = collect(*args, **kwargs)
        fragments.append([(r.worker_index, getattr(r, "weights_number", None), len(r)) for r in collected.rollouts])
        return collected

    def spied_step():
        training_step()
        numbers.append(algo.learner_group._learner._weights_seq_no)

    algo.collector.collect, algo.training_step = spied_collect, spied_step
    return fragments, numbers


def spy_waits(algo):
    """Writes down, for each time that fragments are waited for, the runners that are to bring them."""
    waits, fetch = [], algo.collector._fetch

    def spied_fetch(runners, timeout):
        if timeout:
            waits.append(set(runners))
        return fetch(runners, timeout)

    algo.collector._fetch = spied_fetch
    return waits


def weights_of(learner):
    modules = list(learner.module.keys())
    return {f"{m}/{k}": v.clone() for m in modules for k, v in learner.module[m].state_dict().items()}


def assert_counts_agree(algo, result):
    """Nothing counted that was not stored, and the other way round."""
    assert algo.replay_buffer.num_rows_added == algo._env_steps == result[NUM_ENV_STEPS_SAMPLED_LIFETIME]
    assert result["env_runners"][NUM_ENV_STEPS_SAMPLED_LIFETIME] == algo._env_steps


# ------------------------------------------------------------------------------------------ weights and determinism


def first_rounds(algo):
    """15 rounds with their fragments, the rows and the weights."""
    fragments, numbers = spy(algo)
    for _ in range(15):
        result = algo.train()
        assert_counts_agree(algo, result)
    return fragments, numbers, algo.replay_buffer.get_state()["columns"], weights_of(algo.learner_group._learner)


def test_pipelined_weights_lag_by_one_fragment(troubled):
    fragments, numbers, *_ = troubled[1]
    assert [[(w, n) for w, _, n in round_] for round_ in fragments] == [[(1, FRAGMENT), (2, FRAGMENT)]] * 15
    used = [{number for _, number, _ in round_} for round_ in fragments]
    # The first two rounds are sampled with the initial weights, and every other one with those of the last but one.
    assert used == [{numbers[max(0, k - 1)]} for k in range(15)]
    # Learning starts at 40 env steps.
    assert numbers[-1] - numbers[0] == 14 and numbers[1] == numbers[0]


def test_pipelined_runs_of_a_seed_are_the_same(troubled, build):
    *_, rows, weights = troubled[1]
    *_, rows_again, weights_again = first_rounds(build(config_for(2, iteration=20)))
    for name, values in rows.items():
        assert len(values) == 300
        np.testing.assert_array_equal(values, rows_again[name], err_msg=name)
    for name, value in weights.items():
        assert torch.equal(value, weights_again[name]), name


def test_synchronous_weights_do_not_lag(algo):
    with_new_collector(algo, sample_mode="sync")
    fragments, numbers = spy(algo)
    for _ in range(4):
        algo.train()
    used = [[(w, number) for w, number, _ in round_] for round_ in fragments[1:]]
    assert used == [[(1, number), (2, number)] for number in numbers[1:4]]
    assert numbers[-1] == numbers[0] + 4


def test_local_weights_do_not_lag(build):
    algo = build(config_for(per_update=10))
    _, numbers = spy(algo)
    local, sample, used = algo.env_runner, algo.env_runner.sample, []
    local.sample = lambda: used.append(local._weights_seq_no) or sample()
    assert_counts_agree(algo, algo.train())
    assert used == numbers[:-1] and numbers[-1] > numbers[0]


# ------------------------------------------------------------------------------------------ slow and dead runners


def test_a_slow_runner_is_waited_for_once(algo, caplog):
    with_new_collector(algo)
    algo.train()
    make_trouble(algo.env_runner_group, sleep={2: 0.2})  # a fragment takes 2 s, the timeout is 0.5 s
    algo.training_step()  # the fragment that was asked for before
    (fragments, _), waits = spy(algo), spy_waits(algo)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="rllib_maddpg.sampling.collecting"):
        while not any(w == 2 for round_ in fragments for w, *_ in round_) and time.monotonic() < began + 20:
            result = algo.train()
    late = [r for r in caplog.records if "has not returned its fragment" in r.message]
    assert len(late) == 1 and "Env runner 2" in late[0].message
    # Only the first round waited for the slow one, and its rows have come while the other one went on.
    assert [runners for runners in waits if 2 in runners] == [{1, 2}]
    assert waits[0] == {1, 2} and len(fragments) > 5
    assert fragments[-1][-1][::2] == (2, FRAGMENT)
    assert_counts_agree(algo, result)


def test_hanging_runners_end_the_run(algo, tmp_path, monkeypatch):
    with_new_collector(algo, num_consecutive_env_runner_failures_tolerance=1, sample_timeout_s=0.2)
    monkeypatch.setattr(algo, "_logdir", str(tmp_path))
    algo.train()
    make_trouble(algo.env_runner_group, sleep={1: 0.2, 2: 0.2})
    algo.training_step()
    algo.training_step()
    with pytest.raises(TimeoutError, match=r"No env runner has returned a fragment in 2 rounds of sample_timeout_s=0.2 s"):
        algo.training_step()
    # The rows are not lost: they come later.
    before, end = algo._env_steps, time.monotonic() + 10
    while algo._env_steps < before + 2 * FRAGMENT and time.monotonic() < end:
        algo.collector._empty_rounds = 0
        algo.training_step()
    assert algo._env_steps >= before + 2 * FRAGMENT


def test_dead_runners_come_back_and_stop_nobody(algo):
    """One dies, and while it is being restarted the other one, too."""
    with_new_collector(algo)
    algo.train()
    numbers, group = dict(algo._episode_numbers), algo.env_runner_group
    fragments, _ = spy(algo)
    times, end = [], time.monotonic() + 60

    def train_while(condition):
        while condition() and time.monotonic() < end:
            start = time.monotonic()
            algo.restore_env_runners(group)  # as RLlib does before each step
            algo.training_step()
            times.append(time.monotonic() - start)

    make_trouble(group, die=(2,))  # the restarted env is in good health
    train_while(lambda: group.num_healthy_remote_env_runners() == 2)
    times.clear()
    rounds, waits = len(fragments), spy_waits(algo)
    train_while(lambda: sum(map(bool, fragments[rounds:])) < 30)
    # The first one went on, and nobody waited for the other one. A round without a fragment shows a busy machine only.
    assert [[w for w, *_ in round_] for round_ in fragments[rounds:] if round_] == [[1]] * 30
    assert len(waits) >= 30 and all(runners == {1} for runners in waits)
    make_trouble(group, die=(1,))
    train_while(lambda: group.num_healthy_remote_env_runners() == 1)
    times.clear()
    train_while(lambda: not group.num_healthy_remote_env_runners())
    assert len(times) < 20 * sum(times) + 20  # no busy loop while nobody was there
    train_while(lambda: group.num_healthy_remote_env_runners() < 2)
    for _ in range(3):
        result = algo.train()
    assert [w for w, *_ in fragments[-1]] == [1, 2]
    assert_counts_agree(algo, result)
    for runner, before in numbers.items():
        assert algo._episode_numbers[runner] > before


def test_a_runner_that_dies_between_rounds_is_asked_anew(algo):
    """RLlib may find out elsewhere that a runner died: then what it was asked for is forgotten."""
    collector = with_new_collector(algo)
    algo.train()
    assert collector._asked == {1, 2}
    algo.env_runner_group._worker_manager.set_actor_state(2, healthy=False)
    end = time.monotonic() + 20
    while 2 not in algo.env_runner_group.healthy_env_runner_ids() and time.monotonic() < end:
        algo.restore_env_runners(algo.env_runner_group)
    assert collector._asked == {1}
    fragments, _ = spy(algo)
    algo.train()
    assert [w for w, *_ in fragments[-1]] == [1, 2]


# ------------------------------------------------------------------------------------------ asynchronous


def test_async_takes_fragments_as_they_come(algo):
    with_new_collector(algo, sample_mode="async", broadcast_interval=3)
    make_trouble(algo.env_runner_group, sleep={1: 0.01, 2: 0.05})
    fragments, numbers = spy(algo)
    rows, updates = algo._env_steps, algo._num_updates
    owed = algo._env_steps_since_update
    cpu, start = time.process_time(), time.monotonic()
    for _ in range(24):
        result = algo.train()
    cpu, wall = time.process_time() - cpu, time.monotonic() - start
    assert_counts_agree(algo, result)
    taken = Counter(w for round_ in fragments for w, *_ in round_)
    assert taken[1] > 2 * taken[2] >= 4
    assert all(round_ for round_ in fragments)  # no round comes back with nothing
    assert cpu < 0.6 * wall  # and none is a busy loop
    # An update per 20 env steps, whatever came when.
    rows, updates = algo._env_steps - rows, algo._num_updates - updates
    assert updates == int((owed + rows) // 20)
    assert algo._env_steps_since_update == pytest.approx((owed + rows) % 20)
    # New weights are sent every third round; a runner takes them when it is asked next.
    used = [number for round_ in fragments for w, number, _ in round_ if w == 1]
    assert used == sorted(used) and used[-1] > numbers[0]
    sent = set(used) - {used[0]}
    assert sent <= {number for k, number in enumerate(numbers) if k % 3 == 0}


def test_weights_wait_for_the_next_broadcast():
    """Also when updates and broadcasts fall into different rounds."""

    class Group:
        def num_remote_env_runners(self):
            return 1

        def healthy_env_runner_ids(self):
            return []

    config = config_for(1, "async").env_runners(broadcast_interval=2)
    collector = RolloutCollector(Group(), config)
    collector._wait_for_any = lambda timeout: []
    sent = []
    for k in range(6):
        collector.collect((k, np.zeros(3)) if k % 2 else None)
        sent.append(collector._weights)
    assert [w if w is None else w[0] for w in sent] == [None, None, 1, 1, 3, 3]


# ------------------------------------------------------------------------------------------ errors


class ExtremeEnv(LedgerEnv):
    """Rewards that the critics' loss cannot stand, or NaN, from `env_config["at"]` on."""

    def __init__(self, config):
        super().__init__({"script": TIME_LIMIT})
        self.at, self.reward, self.steps = config["at"], config["reward"], 0

    def step(self, actions):
        self.steps += 1
        result = super().step(actions)
        if self.steps >= self.at:
            result[1].update(dict.fromkeys(result[1], self.reward))
        return result


@pytest.mark.parametrize(
    ("reward", "text"),
    [(float("nan"), "reward of agent 'a' is nan"), (1e30, "NaN or infinity in the critic loss")],
)
def test_a_checkpoint_is_written_before_an_error(build, reward, text):
    algo = build(config_for(env=ExtremeEnv, iteration=50, at=85, reward=reward))
    folder = os.path.join(algo.logdir, "checkpoint_before_error")
    algo.train()
    assert not os.path.exists(folder)
    for _ in range(2):  # the second error overwrites the first one's checkpoint
        with pytest.raises(ValueError, match=text) as error:
            for _ in range(10):
                algo.train()
        assert [folder in note for note in error.value.__notes__] == [True]
        other = build(config_for(env=ExtremeEnv, at=10**9, reward=0.0))
        other.restore_from_path(folder)
        assert other._env_steps == algo._env_steps == len(other.replay_buffer) >= 80
        expected, restored = algo.replay_buffer.get_state()["columns"], other.replay_buffer.get_state()["columns"]
        for name, values in expected.items():
            np.testing.assert_array_equal(values, restored[name])
        for name, value in weights_of(algo.learner_group._learner).items():
            assert torch.equal(value, weights_of(other.learner_group._learner)[name])
    if np.isnan(reward):  # of which no row was stored
        other.train()


def test_an_error_is_the_same_when_no_checkpoint_can_be_written(build, monkeypatch):
    algo = build(config_for(env=ExtremeEnv, at=5, reward=float("nan")))
    monkeypatch.setattr(algo, "save_to_path", lambda folder: 1 / 0)
    with pytest.raises(ValueError, match="reward of agent") as error:
        algo.train()
    assert not hasattr(error.value, "__notes__")


def test_rows_beside_bad_ones_are_stored(build):
    algo = build(config_for())
    good, bad = algo.env_runner.sample(), algo.env_runner.sample()
    bad[0].columns["rewards"][3] = np.inf
    with pytest.raises(ValueError, match="reward"):
        algo._store(SimpleNamespace(rollouts=[*bad, *good], error=None))
    assert len(algo.replay_buffer) == len(good[0]) == algo._env_steps


# ------------------------------------------------------------------------------------------ updates


@pytest.fixture(scope="module")
def learned(ray_session):
    """Groups of Learners with the same weights, and rows to learn from."""
    algo = config_for().build_algo()
    algo.train()
    spaces = algo.env_runner_group.get_spaces()
    groups = [algo.learner_group]
    for num_learners in (0, 2):
        config = algo.config.copy(copy_frozen=False).learners(num_learners=num_learners)
        groups.append(config.build_learner_group(spaces=spaces))
    yield algo, groups
    for group in groups[1:]:
        group.shutdown()
    algo.stop()


def on_each(group, function):
    return [result.get() for result in group.foreach_learner(function)]


@pytest.mark.parametrize("per_module", [False, True])
def test_updates_in_one_call_or_of_two_learners_are_the_same(learned, per_module):
    algo, groups = learned
    rows, updates = BATCH * (3 if per_module else 1), 6
    state = copy.deepcopy(algo.learner_group.get_state())
    for group in groups:
        # The same object for all: none may go on in its arrays.
        on_each(group, lambda learner: learner.set_state(state["learner"]))
        on_each(group, lambda learner: setattr(learner, "config", learner.config.copy(copy_frozen=False)))
        on_each(group, lambda learner: setattr(learner.config, "minibatch_per_module", per_module))
    batch = algo.replay_buffer.sample(2 * updates * rows)
    # The game's own numbers are small, and so are gradients: Adam would make a difference in their last digits a large one.
    generator = torch.Generator().manual_seed(1)
    for name in ("obs", "new_obs", "rewards"):
        batch.columns[name].copy_(torch.randn(batch.columns[name].shape, generator=generator))
    one_call, single_calls, two = groups
    steps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: algo._env_steps}
    one_call.update(batch=batch, timesteps=steps, minibatch_size=2 * rows)
    for k in range(updates):
        part = batch.rows(slice(k * 2 * rows, (k + 1) * 2 * rows))
        single_calls.update(batch=part, timesteps=steps)
    two.update(batch_refs=[ray.put(shard) for shard in batch.shards(2, rows)], timesteps=steps, minibatch_size=rows)
    (expected,), (single,) = on_each(one_call, weights_of), on_each(single_calls, weights_of)
    start = state["learner"]["rl_module"]
    for name, value in expected.items():
        assert torch.equal(value, single[name]), name
        module_id, key = name.split("/")
        assert not np.array_equal(value.numpy(), start[module_id][key]), name
    for weights in on_each(two, weights_of):
        for name, value in expected.items():
            # Sums over the rows of two Learners are added up in another order.
            assert torch.allclose(value, weights[name], rtol=0, atol=1e-6), name


def test_batches_travel_and_are_shared_out(learned):
    batch = learned[0].replay_buffer.sample(24)
    other = pickle.loads(pickle.dumps(batch))
    assert other.schema is None and len(other) == 24
    assert torch.equal(batch.joint_rows, other.joint_rows) and other.joint_rows.data_ptr() != batch.joint_rows.data_ptr()
    # Of each update's 8 rows the first 4 are for the first Learner.
    numbers = torch.arange(24)
    batch.joint_rows[:] = numbers[:, None]
    first, second = (shard.joint_rows[:, -1].tolist() for shard in batch.shards(2, 4))
    assert first == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    assert second == [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23]


# ------------------------------------------------------------------------------------------ metrics


@pytest.mark.parametrize(
    ("per_update", "reporting"),
    [
        (20, {"min_sample_timesteps_per_iteration": 100}),
        (0.5, {"min_sample_timesteps_per_iteration": 20}),
        (70, {"min_sample_timesteps_per_iteration": 100}),  # less often than training steps
        (20, {"min_sample_timesteps_per_iteration": 35}),
        (20, {"min_sample_timesteps_per_iteration": 0, "min_time_s_per_iteration": 0.1}),
        (20, {"min_sample_timesteps_per_iteration": 50, "min_time_s_per_iteration": 0.1}),
        (20, {"min_sample_timesteps_per_iteration": 50, "min_train_timesteps_per_iteration": 160}),
        (10, {"min_sample_timesteps_per_iteration": 0}),
    ],
)
def test_each_iteration_has_its_metrics(build, tmp_path, per_update, reporting):
    algo = build(config_for(per_update=per_update).reporting(**reporting))
    for _ in range(4 if per_update == 10 else 1):  # up to the first updates
        algo.train()
    for k in range(5):
        before = algo._env_steps
        result = algo.train()
        assert_counts_agree(algo, result)
        learners = result["learners"]
        for module_id in "abc":
            assert np.isfinite(learners[module_id]["critic_loss"])
        trained = learners["__all_modules__"]["num_env_steps_trained_lifetime"]
        assert trained == algo._num_updates * BATCH == learners["__all_modules__"]["num_updates_lifetime"] * BATCH
        assert result["env_runners"]["num_env_steps_sampled"] == algo._env_steps - before
        assert "episode_return_mean" in result["env_runners"]
        # No longer than was asked for.
        least = reporting["min_sample_timesteps_per_iteration"]
        if len(reporting) == 1:
            assert least <= algo._env_steps - before < max(least, 1) + FRAGMENT
        if k == 2:
            path = algo.save_to_path(str(tmp_path / "c"))
            algo = build(config_for(per_update=per_update).reporting(**reporting))
            algo.restore_from_path(path)
            assert algo._env_steps > 0 and algo._num_updates > 0


def test_restoring_a_running_algorithm_gives_the_runners_its_weights(algo, tmp_path):
    with_new_collector(algo)
    algo.train()
    path = algo.save_to_path(str(tmp_path / "c"))
    saved = weights_of(algo.learner_group._learner)
    for _ in range(5):
        algo.train()
    algo.restore_from_path(path)
    steps = algo._env_steps
    actors = algo.env_runner_group.foreach_env_runner(lambda r: weights_of(r), local_env_runner=False)
    for weights in actors:
        for name, value in weights.items():
            assert torch.equal(value, saved[name]), name
    result = algo.train()
    assert_counts_agree(algo, result)
    assert algo._env_steps >= steps + 2 * FRAGMENT


def test_a_runner_that_died_for_good_ends_the_run_after_a_checkpoint(algo, build):
    """The last test of the shared algorithm."""
    with_new_collector(algo)
    algo.train()
    ray.kill(algo.env_runner_group._worker_manager.actors()[2], no_restart=True)
    with pytest.raises(RuntimeError, match=r"Env runner 2 died, .* max_num_env_runner_restarts=1000 are used up") as error:
        for _ in range(100):
            algo.train()
    folder = os.path.join(algo.logdir, "checkpoint_before_error")
    assert folder in error.value.__notes__[0]
    rows = algo.replay_buffer.num_rows_added
    other = build(config_for())
    other.restore_from_path(folder)
    assert other.replay_buffer.num_rows_added == other._env_steps == rows
    with pytest.raises(RuntimeError, match="Env runner 2 died"):
        for _ in range(100):
            algo.train()
    # The rows of the other runner are stored all the same.
    assert algo._env_steps > rows
    collector = with_new_collector(algo, restart_failed_env_runners=False, ignore_env_runner_failures=True)
    steps = algo._env_steps
    for _ in range(5):
        algo.train()
    assert algo._env_steps >= steps + 5 * FRAGMENT and collector._dead <= {2}
