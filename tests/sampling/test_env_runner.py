"""Stored rows against what really happened in the env, exploration, seeds, and the runner's state."""

import numpy as np
import pytest
from ledger_env import ALL_TERMINATE, FULL_HOUSE, LATE_JOINER, LEDGERS, MIXED_END, TIME_LIMIT, LedgerEnv, TurnsEnv
from ray.rllib.connectors.env_to_module import MeanStdFilter
from runners import make_runner, rows_of

from rllib_maddpg import MADDPGConfig


@pytest.fixture(params=[True, False], ids=["columns", "stock"])
def fast(request):
    """Whether to sample in the columnar loop or in RLlib's own."""
    return request.param


def expected_code(slot, action):
    """Action code of an action as the environment got it."""
    space = slot.codec.space
    if slot.agent == "a":
        return (np.asarray(action) - space.low) / (space.high - space.low) * 2 - 1
    if slot.agent == "b":
        return np.eye(3)[action - 1]
    return np.concatenate([np.eye(2)[action[0]], np.eye(4)[action[1]]])


@pytest.mark.parametrize("script", [MIXED_END, TIME_LIMIT, LATE_JOINER, FULL_HOUSE, ALL_TERMINATE])
@pytest.mark.parametrize(
    ("num_envs", "fragment", "style"),
    [
        (1, 1, "plain"),
        (3, 1, "plain"),
        (1, 3, "plain"),
        (3, 40, "plain"),
        (1, 7, "all_truncated"),
        (1, 7, "both"),
        (1, 7, "only_all"),
        (1, 7, "no_last_obs"),
    ],
)
def test_every_stored_row_is_one_step_of_the_env(script, num_envs, fragment, style, fast):
    runner = make_runner(LedgerEnv, {"script": script, "style": style}, num_envs, fast=fast)
    rollouts = [runner.sample(num_timesteps=fragment * num_envs, explore=True)[0] for _ in range(60 // fragment + 1)]
    columns, layout = rows_of(rollouts), runner.layout
    assert layout.agents == ("a", "b", "c")
    # The first entry of any observation is the env's number; rows of one env are in order of time.
    ledgers = {ledger.number: ledger for ledger in LEDGERS[-num_envs:]}
    place = {slot.agent: slot for slot in layout.slots}
    taken = dict.fromkeys(ledgers, 0)
    for row in range(len(columns["rewards"])):
        seen = [columns["obs"][row, place[a].obs] for a in place if columns["alive"][row, layout.index(a)]]
        number, episode, t = (round(float(x) * 100) for x in seen[0][:3])
        assert columns["episodes"][row] == episode * num_envs + list(ledgers).index(number) and columns["t"][row] == t
        truth = ledgers[number].rows[taken[number]]
        taken[number] += 1
        for agent, slot in place.items():
            i = layout.index(agent)
            obs, action, reward, next_obs, terminated = truth.get(agent, (None, None, None, None, True))
            kinds = {name: column.per for name, column in runner.schema.columns.items() if column.per != "env"}
            got = {name: columns[name][row, getattr(slot, kind) if kind != "agents" else i] for name, kind in kinds.items()}
            assert got["alive"] == (obs is not None)
            assert got["terminateds"] == (obs is not None and terminated)
            assert got["truncateds"] == (obs is not None and script[agent][1:] == (t + 1, "truncated"))
            # At a time limit the agent would act on: the target bootstraps from its true last observation.
            assert got["next_alive"] == (next_obs is not None and not terminated)
            np.testing.assert_array_equal(got["obs"], 0 if obs is None else obs)
            np.testing.assert_array_equal(got["new_obs"], 0 if next_obs is None else next_obs)
            if obs is None:
                assert not got["actions"].any() and got["rewards"] == 0
            else:
                assert got["rewards"] == np.float32(reward)
                # Scaling a Box action to the env's bounds and back costs float32 rounding.
                np.testing.assert_allclose(got["actions"], expected_code(slot, action), atol=1e-6)
    # Every env step is there, but for none: nothing is lost at the borders of fragments.
    assert taken == {number: len(ledger.rows) for number, ledger in ledgers.items()}
    assert len(columns["rewards"]) == sum(taken.values())


def test_agent_and_env_steps_count_the_living(fast):
    runner = make_runner(LedgerEnv, {"script": ALL_TERMINATE}, fast=fast)
    rollout = runner.sample(num_episodes=2)[0]
    assert rollout.env_steps() == 6
    assert rollout.agent_steps() == 2 * (3 + 3 + 1)


class Uneven(LedgerEnv):
    """Env number e has episodes of 3 + e steps."""

    def reset(self, **kwargs):
        self.script = dict.fromkeys("abc", (0, 3 + self.number, "truncated"))
        return super().reset(**kwargs)


def test_whole_episodes_and_new_starts(fast):
    runner = make_runner(Uneven, {"script": TIME_LIMIT}, 3, fast=fast)
    runner.sample(num_timesteps=6)

    def steps_of(rollout):
        """(env, episode, step) of each row, as agent a observes them."""
        at = runner.layout.slots[0].obs.start
        return sorted(map(tuple, np.rint(100 * rollout.columns["obs"][:, at : at + 3]).astype(int)))

    # Everyone starts again; when env 0 ends its second episode, the others are within theirs, whose rows are dropped.
    whole = [(0, 1, 3), (0, 2, 3), (1, 1, 4), (2, 1, 5)]
    rows = steps_of(runner.sample(num_episodes=4)[0])
    assert rows == [(e, k, t) for e, k, length in whole for t in range(length)]
    # And again after that, without being asked.
    begun = {(e, env.unwrapped.episode) for e, env in enumerate(runner.env.envs)}
    assert steps_of(runner.sample(num_timesteps=3)[0]) == sorted((e, k + 1, 0) for e, k in begun)
    assert steps_of(runner.sample(num_timesteps=3)[0]) == sorted((e, k + 1, 1) for e, k in begun)
    assert steps_of(runner.sample(num_timesteps=3, force_reset=True)[0]) == sorted((e, k + 2, 0) for e, k in begun)


def test_mpe_truncates_and_never_terminates(fast):
    runner = make_runner("simple_spread", {"continuous_actions": True}, num_envs=2, fast=fast)
    columns = runner.sample(num_timesteps=200)[0].columns
    assert len(columns["rewards"]) == 200
    assert columns["terminateds"].sum() == 0
    assert columns["next_alive"].min() == 1
    # The last observation of an episode is not the first of the next one.
    obs, new_obs = columns["obs"], columns["new_obs"]
    same_episode = (new_obs[:-1] == obs[1:]).all(1)
    assert same_episode.sum() == 199 - 7  # 8 episodes of 25 steps, one after the other
    steps = np.abs(new_obs - obs)[:, :4].max(1)
    assert steps.max() < 3, "a jump as long as a reset's"


def test_a_turn_based_game_is_refused(fast):
    rollout = make_runner(TurnsEnv, {"script": TIME_LIMIT}, fast=fast).sample(num_timesteps=8)[0]
    assert len(rollout) == (1 if fast else 0), "the columnar loop keeps the step before"
    # The algorithm raises it, also from remote runners.
    assert rollout.error.startswith("Agent 'a' has ") and "`turn_based=True`" in rollout.error


def test_same_seed_same_rows_and_envs_differ(fast):
    columns = [rows_of(make_runner("simple_spread", {}, 2, seed=s, fast=fast).sample(num_timesteps=100)) for s in (3, 3, 4)]
    for name in columns[0]:
        np.testing.assert_array_equal(columns[0][name], columns[1][name])
    assert (columns[0]["obs"] != columns[2]["obs"]).any()
    first_obs = columns[0]["obs"].reshape(-1, 25, columns[0]["obs"].shape[1])[:, 0]
    assert len(np.unique(first_obs, axis=0)) == len(first_obs), "two episodes with the same start"


def test_runners_play_different_games(fast):
    one, two = (make_runner("simple_spread", worker_index=w, fast=fast).sample(num_timesteps=25)[0] for w in (1, 2))
    assert (one.columns["obs"][0] != two.columns["obs"][0]).any()


def test_the_state_carries_the_episode_numbers_and_the_schedule_clock(fast):
    runner = make_runner("simple_spread", num_envs=2, fast=fast)
    runner.sample(num_timesteps=120)  # 2 envs x 60 steps: both are in their third episode
    state = runner.get_state()
    assert state["episode_numbers"] == {0: [3, 3]}
    assert runner.num_env_steps_sampled_lifetime == 120
    resumed = make_runner("simple_spread", num_envs=2, fast=fast)
    resumed.set_state(state)
    assert resumed.num_env_steps_sampled_lifetime == 120
    rollout = resumed.sample(num_timesteps=50)[0]
    fresh = make_runner("simple_spread", num_envs=2, fast=fast)
    games = fresh.sample(num_timesteps=200)[0].columns["obs"].reshape(8, 25, -1)
    starts = rollout.columns["obs"].reshape(2, 25, -1)[:, 0]
    # Unfinished third episodes are lost; both envs go on with their fourth game.
    fourth = [g[0] for g in games if (g[0] == starts[0]).all() or (g[0] == starts[1]).all()]
    assert len(fourth) == 2
    assert resumed.episode_numbers == [4, 4]


def test_warm_up_is_random_and_evaluation_is_noise_free(fast):
    runner = make_runner(
        "simple_spread", {"continuous_actions": True}, num_steps_sampled_before_learning_starts=50, noise_type="none", fast=fast
    )
    warm = runner.sample(num_timesteps=50)[0].columns["actions"]
    # 50 x 15 uniform numbers on [-1, 1]: standard deviation 0.577, error of the mean 0.021.
    assert abs(warm.mean()) < 0.1 and abs(warm.std() - 1 / np.sqrt(3)) < 0.05
    rollout = runner.sample(num_timesteps=50)[0].columns
    greedy = runner.sample(num_timesteps=50, explore=False)[0].columns
    import torch

    for columns in (rollout, greedy):
        for slot in runner.layout.slots:
            with torch.no_grad():
                mu = runner.module[slot.module].actor(torch.from_numpy(columns["obs"][:, slot.obs])).tanh().numpy()
            np.testing.assert_allclose(columns["actions"][:, slot.actions], mu, atol=1e-6)


def test_random_actions_are_uniform_over_every_space(fast):
    runner = make_runner(LedgerEnv, {"script": TIME_LIMIT}, num_steps_sampled_before_learning_starts=0, fast=fast)
    columns = runner.sample(num_timesteps=2000, random_actions=True)[0].columns
    mean = columns["actions"].mean(0)
    # a: Box around 0; b: 3 choices; c: 2 and 4 choices. Standard errors are below 0.013.
    expected = [0, 0, 1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 4]
    np.testing.assert_allclose(mean, expected, atol=0.05)


def test_a_normalizing_connector_reaches_the_rows():
    config = MADDPGConfig().environment("simple_spread", disable_env_checking=True).debugging(seed=0)
    config.env_runners(env_to_module_connector=lambda env, spaces, device: MeanStdFilter(multi_agent=True))
    config.validate()
    runner = config.env_runner_cls(config=config.copy(copy_frozen=False), worker_index=0, num_workers=0)
    columns = runner.sample(num_timesteps=500)[0].columns
    moving = columns["obs"][100:, :4]
    assert np.abs(moving.mean(0)).max() < 0.5 and 0.5 < moving.std() < 1.6
    same = (columns["new_obs"][:-1] == columns["obs"][1:]).all(1)
    assert same.sum() == 499 - 19


def test_a_failed_env_goes_on_with_other_games():
    class Fails(LedgerEnv):
        failed = False

        def step(self, actions):
            if self.episode == 1 and self.time == 2 and not Fails.failed:
                Fails.failed = True
                raise RuntimeError("a passing fault")
            return super().step(actions)

    config = MADDPGConfig().environment(Fails, env_config={"script": TIME_LIMIT}).debugging(seed=0)
    config.fault_tolerance(restart_failed_sub_environments=True)
    config.validate()
    runner = config.env_runner_cls(config=config.copy(copy_frozen=False), worker_index=0, num_workers=0)
    seeds = []
    original = runner._seeds.sequence
    runner._seeds.sequence = lambda e, *k: seeds.append(k[0]) or original(e, *k)
    runner.sample(num_timesteps=4)
    runner.sample(num_timesteps=8)
    assert Fails.failed and runner.episode_numbers == [4]
    # Each episode's number is asked for twice, for its reset and for its noise.
    assert sorted(set(seeds)) == [0, 1, 2, 3] and seeds == sorted(seeds)


@pytest.mark.parametrize("seed", [0, 7, 2**31, None])
def test_seeds_of_episodes_are_numpys(seed):
    config = MADDPGConfig().environment("simple_spread").debugging(seed=seed)
    config.validate()
    runner = config.env_runner_cls(config=config.copy(copy_frozen=False), worker_index=2, num_workers=2)
    *words, is_evaluation, worker = runner._seeds._words
    assert (is_evaluation, worker) == (0, 2)
    entropy = sum(word << 32 * i for i, word in enumerate(words))
    assert entropy == seed or (seed is None and entropy > 2**64)
    for child in ((), (0,)):
        ours = runner._seeds.sequence(1, 99, *child)
        theirs = np.random.SeedSequence(entropy, spawn_key=(0, 2, 1, 99, *child))
        np.testing.assert_array_equal(ours.generate_state(8), theirs.generate_state(8))


def test_a_users_module_to_env_connector_gets_noisy_actions():
    from ray.rllib.connectors.connector_v2 import ConnectorV2

    class Halve(ConnectorV2):
        def __call__(self, *, batch, **kwargs):
            batch["actions"] = {k: [0.5 * a for a in v] for k, v in batch["actions"].items()}
            return batch

    config = MADDPGConfig().environment("simple_spread", env_config={"continuous_actions": True}).debugging(seed=0)
    config.env_runners(module_to_env_connector=lambda env, spaces: Halve())
    config.validate()
    runner = config.env_runner_cls(config=config.copy(copy_frozen=False), worker_index=0, num_workers=0)
    actions = runner.sample(num_timesteps=300, explore=True)[0].columns["actions"]
    assert 0.49 < np.abs(actions).max() <= 0.5
