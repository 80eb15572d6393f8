"""The columnar loop against RLlib's own: the same rows and metrics from the same seed, and when it steps back."""

import logging

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from image_env import ImageEnv
from ledger_env import ALL_TERMINATE, LATE_JOINER, LEDGERS, MIXED_END, TIME_LIMIT, LedgerEnv, Nested, ZooLedger
from pettingzoo.utils import BaseParallelWrapper
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from runners import make_runner, rows_of

import rllib_maddpg.sampling.games
from rllib_maddpg import MADDPGTorchRLModule
from rllib_maddpg.envs import resolve_env
from rllib_maddpg.ray_compat import FlattenObservations, since
from rllib_maddpg.sampling.env_runner import MADDPGEnvRunner
from rllib_maddpg.sampling.exploration import JointExploration
from rllib_maddpg.sampling.fast_path import reason_for_stock_path

CONTINUOUS = {"continuous_actions": True}
SHARED = {"agent_0": "shared", "agent_1": "alone", "agent_2": "shared"}


class SquareActs(LedgerEnv):
    """Agent a acts with a matrix of float64."""

    def __init__(self, config):
        super().__init__(config)
        self.action_spaces["a"] = gym.spaces.Box(np.float64([[-2, 0], [1, 1]]), np.float64([[6, 1], [2, 9]]), dtype=np.float64)


class Simplex(LedgerEnv):
    def __init__(self, config):
        super().__init__(config)
        self.action_spaces["a"] = gym.spaces.Box(0.0, 1.0, (5,))


def share(config):
    config.multi_agent(policies=["shared", "alone"], policy_mapping_fn=SHARED)


def with_model(**model):
    return lambda config: config.rl_module(model_config=model)


GAMES = {
    "spread": ("simple_spread", CONTINUOUS, 3, {}, None),
    "spread_discrete": ("simple_spread", {}, 3, {}, None),
    "spread_softmax": ("simple_spread", CONTINUOUS, 2, {"actor_head": "softmax", "exploration_temperature": 0.5}, None),
    "spread_shared": ("simple_spread", CONTINUOUS, 2, {}, share),
    "adversary": ("simple_adversary", CONTINUOUS, 2, {"noise_type": "ornstein_uhlenbeck", "noise_scale": 0.7}, None),
    "adversary_discrete": ("simple_adversary", {}, 2, {"exploration_temperature": [[0, 2.0], [100, 0.1]]}, None),
    "speaker": ("simple_speaker_listener", CONTINUOUS, 2, {"noise_scale": [[0, 1.0], [200, 0.0]]}, None),
    "warm_up": ("simple_spread", CONTINUOUS, 2, {"num_steps_sampled_before_learning_starts": 67}, None),
    "gelu": ("simple_spread", CONTINUOUS, 2, {}, with_model(fcnet_activation="gelu", fcnet_hiddens=[9])),
    "linear": ("simple_spread", CONTINUOUS, 2, {}, with_model(fcnet_hiddens=[], fcnet_activation="tanh")),
    "spread_in_turns": ("simple_spread", {**CONTINUOUS, "direct_stepping": False}, 3, {}, None),
    "zoo_mixed_end": (ZooLedger, {"script": MIXED_END}, 3, {}, None),
    "zoo_late_joiner": (ZooLedger, {"script": LATE_JOINER}, 2, {}, None),
    "mixed_end": (LedgerEnv, {"script": MIXED_END}, 3, {}, None),
    "late_joiner": (LedgerEnv, {"script": LATE_JOINER}, 3, {"noise_type": "ornstein_uhlenbeck"}, None),
    "all_terminate": (LedgerEnv, {"script": ALL_TERMINATE}, 3, {"noise_type": "none"}, None),
    "no_last_obs": (LedgerEnv, {"script": MIXED_END, "style": "no_last_obs"}, 2, {}, None),
    "matrix_action": (SquareActs, {"script": TIME_LIMIT}, 2, {}, None),
    "simplex": (Simplex, {"script": LATE_JOINER}, 2, {}, None),
    "nested": (Nested, {"script": MIXED_END}, 3, {}, None),
    "nested_late_joiner": (Nested, {"script": LATE_JOINER}, 2, {}, None),
    "zoo_nested": (ZooLedger, {"script": MIXED_END, "nested": True}, 2, {}, None),
    "images": (ImageEnv, {}, 2, {}, None),
}


def per_env(runner, rounds, **how):
    """Columns of each env, in order of time.

    mpe2 resets all envs in the same round, so there a round has one row of each env, in order. LedgerEnv observes its number.
    """
    num_envs = runner.num_envs
    rollouts = [runner.sample(num_timesteps=num_envs, **how)[0] for _ in range(rounds)]
    columns = rows_of(rollouts)
    if not LEDGERS:
        assert all(len(r) == num_envs for r in rollouts)
        return [{name: column[e::num_envs] for name, column in columns.items()} for e in range(num_envs)]
    firsts = [slot.obs.start for slot in runner.layout.slots]
    numbers = np.rint(100 * columns["obs"][:, firsts].max(1)).astype(int)
    return [{name: column[numbers == e] for name, column in columns.items()} for e in range(num_envs)]


def both(env, env_config, num_envs, training, change):
    training = {"num_steps_sampled_before_learning_starts": 0, **training}
    made = [make_runner(env, env_config, num_envs, fast=fast, change=change, **training) for fast in (True, False)]
    assert reason_for_stock_path(made[0]) is None and reason_for_stock_path(made[1])
    return made


@pytest.mark.parametrize(
    ("game", "how"),
    [(game, {"explore": True}) for game in GAMES]
    + [(game, how) for game in ("spread", "mixed_end", "simplex") for how in ({"explore": False}, {"random_actions": True})],
    ids=str,
)
def test_same_seed_same_rows(game, how):
    rows = []
    for runner in both(*GAMES[game]):
        # Larger weights than a fresh actor's: its actions then depend on what it sees.
        with torch.no_grad():
            for module in runner.module.values():
                for p in module.parameters():
                    p.mul_(2.0)
        rows.append(per_env(runner, 60, **how))
    for e, (columnar, stock) in enumerate(zip(*rows, strict=True)):
        n = min(len(columnar["rewards"]), len(stock["rewards"]))
        # RLlib spends a round on each reset.
        assert n >= 40
        assert columnar.keys() == stock.keys() >= {"truncateds", "episodes", "t"}
        for name in columnar:
            message = f"{name} of env {e}"
            np.testing.assert_allclose(columnar[name][:n], stock[name][:n], atol=1e-6, rtol=1e-6, err_msg=message)


@pytest.mark.parametrize("env", [LedgerEnv, SquareActs])
def test_envs_get_the_same_actions(env):
    """To the bit for equal codes, and of the same types."""
    given = []
    for runner in both(env, {"script": LATE_JOINER}, 1, {}, None):
        runner.sample(num_timesteps=30, random_actions=True)
        given.append([{a: step[a][1] for a in step} for step in runner.env.envs[0].unwrapped.rows])
    assert len(given[0]) == len(given[1]) == 30
    for columnar, stock in zip(*given, strict=True):
        assert columnar.keys() == stock.keys()
        for agent, action in columnar.items():
            assert type(action) is type(stock[agent])
            np.testing.assert_array_equal(action, stock[agent], strict=True)


# ------------------------------------------------------------------------------------------ quicker steps


class Listing(ZooLedger):
    """Keeps the order of the actions that it is given, and returns a list."""

    orders = []

    def step(self, actions):
        self.orders.append(list(actions))
        return list(super().step(actions))


def test_pettingzoo_envs_get_actions_in_their_order_whatever_the_modules():
    modules = {"a": "z", "b": "y", "c": "x"}
    orders = []
    for runner in both(
        Listing, {"script": MIXED_END}, 1, {}, lambda c: c.multi_agent(policies=["x", "y", "z"], policy_mapping_fn=modules)
    ):
        assert [str(slot.agent) for slot in runner.layout.slots] == ["c", "b", "a"]
        Listing.orders.clear()
        runner.sample(num_timesteps=10)
        orders.append(list(Listing.orders))
    assert orders[0] == orders[1] and ["a", "b", "c"] in orders[0] and ["a", "c"] in orders[0]


class Tenfold(BaseParallelWrapper):
    """Rewards times ten."""

    def step(self, actions):
        observations, rewards, *others = super().step(actions)
        return observations, {agent: 10 * reward for agent, reward in rewards.items()}, *others


@pytest.mark.parametrize("late", [False, True])
def test_wrappers_are_not_passed_over(late):
    """Neither around an mpe2 scenario that is stepped directly, nor put around the env of a runner that has sampled."""

    def make(config):
        env = resolve_env("simple_spread")(config)
        return env if late else Tenfold(env.env)

    rewards = []
    for runner in both(make, CONTINUOUS, 1, {}, None):
        runner.sample(num_timesteps=25)
        if late:
            inner = runner.env.envs[0]
            while isinstance(inner.env, gym.Wrapper):
                inner = inner.env
            inner.env = TenfoldGame(inner.env)
        # RLlib's loop spends a round on the reset.
        rewards.append(rows_of([runner.sample(num_timesteps=1)[0] for _ in range(6)])["rewards"][:5])
    np.testing.assert_allclose(*rewards, rtol=1e-6)
    assert rewards[0].min() < -5.0


class TenfoldGame(gym.Wrapper):
    def step(self, actions):
        observations, rewards, *others = self.env.step(actions)
        return observations, {agent: 10 * reward for agent, reward in rewards.items()}, *others


def test_a_runner_may_explore_in_its_own_way():
    class Still(JointExploration):
        def act(self, envs, outputs):
            return np.zeros_like(super().act(envs, outputs))

    class StillRunner(MADDPGEnvRunner):
        exploration_class = Still

    for fast in (True, False):
        runner = make_runner("simple_spread", CONTINUOUS, fast=fast, change=lambda c: c.env_runners(env_runner_cls=StillRunner))
        assert bool(reason_for_stock_path(runner)) != fast
        assert not rows_of(runner.sample(num_timesteps=30, explore=True))["actions"].any()


# ------------------------------------------------------------------------------------------ metrics

# What RLlib's connectors log about themselves, and times.
OTHERS = ("connector", "env_to_module", "env_reset_timer", "time_between_sampling")
TIMES = ("env_step_timer", "rlmodule_inference_timer", "sample", "episode_duration_sec_mean")


def metrics_of(runner, calls):
    """What an algorithm would report, key -> value, after so many calls of `sample`."""
    root = MetricsLogger(root=True)
    for how in calls:
        runner.sample(**how)
        root.aggregate([runner.get_metrics()])
    reduced = root.reduce(compile=True) if since("2.53") else root.reduce()
    flat = {"/".join(map(str, path)): value for path, value in tree.flatten_with_path(reduced)}
    return {key: value for key, value in flat.items() if not any(other in key for other in OTHERS)}


STEPS, EPISODES = (
    [{"num_timesteps": 40}] * 5,
    [{"num_timesteps": 7}, {"num_episodes": 3, "explore": False}, {"num_timesteps": 9}],
)


@pytest.mark.parametrize(
    ("game", "calls"),
    [(game, STEPS) for game in ("spread", "spread_shared", "mixed_end", "late_joiner", "all_terminate")]
    + [("spread", EPISODES), ("mixed_end", EPISODES), ("spread", [{"num_timesteps": 3}])],
)
def test_same_metrics(game, calls):
    env, env_config, num_envs, *rest = GAMES[game]
    # RLlib's rounds of resets shift the games of several envs against each other unless all end together.
    columnar, stock = (
        metrics_of(runner, calls) for runner in both(env, env_config, num_envs if env != LedgerEnv else 1, *rest)
    )
    assert columnar.keys() == stock.keys()
    for key in columnar.keys() - TIMES:
        if "shared" in key and key.startswith("module_episode_returns") and not since("2.54"):
            continue  # RLlib's own has the return of one of the agents
        assert columnar[key] == pytest.approx(stock[key], rel=1e-6, nan_ok=True), key
    if calls == STEPS:
        assert columnar["num_env_steps_sampled_lifetime"] >= 200
        assert columnar["num_episodes_lifetime"] > 5 and columnar["episode_duration_sec_mean"] > 0


def test_an_episodes_time_is_that_of_its_samples_only(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(rllib_maddpg.sampling.games.time, "perf_counter", lambda: now[0])

    class Slow(LedgerEnv):
        def step(self, actions):
            now[0] += 1.0
            return super().step(actions)

    runner = make_runner(Slow, {"script": MIXED_END}, num_envs=2)
    for _ in range(4):
        runner.sample(num_timesteps=3)
        now[0] += 1000.0
    # Five rounds of two envs, over three calls.
    assert runner.get_metrics()["episode_duration_sec_mean"].peek() == 10


def test_the_prometheus_counters_go_on():
    runner = make_runner("simple_spread", num_envs=2)
    counted = []
    runner._metrics_num_env_steps_sampled.inc = lambda value: counted.append(value)
    for _ in range(2):
        runner.sample(num_timesteps=30)
    runner.get_metrics()  # as they are logged with the metrics
    runner.get_metrics()
    assert counted == [60]


# ------------------------------------------------------------------------------------------ reasons


class OnStep(RLlibCallback):
    def on_episode_step(self, **kwargs):
        pass


class OnSample(RLlibCallback):
    """Callbacks that both loops call."""

    def on_sample_end(self, *, env_runner, samples, **kwargs):
        env_runner.seen_rows = len(samples[0])

    def on_environment_created(self, *, env_runner, **kwargs):
        env_runner.seen_env = True


class OwnForward(MADDPGTorchRLModule):
    def _forward_exploration(self, batch, **kwargs):
        return super()._forward_exploration(batch, **kwargs)


class OwnActor(MADDPGTorchRLModule):
    def build_actor(self, obs_dim, output_dim):
        return torch.nn.Sequential(torch.nn.Linear(obs_dim, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, output_dim))


class OwnStep(MADDPGEnvRunner):
    def _try_env_step(self, actions):
        return super()._try_env_step(actions)


class Idle(ConnectorV2):
    def __call__(self, *, batch, **kwargs):
        return batch


REASONS = {
    "Idle": lambda c: c.env_runners(env_to_module_connector=lambda env, spaces, device: Idle()),
    "connector Idle is in use": lambda c: c.env_runners(module_to_env_connector=lambda env, spaces: [Idle()]),
    "`on_episode_step`": lambda c: c.callbacks(OnStep),
    "on_episode_end": lambda c: c.callbacks(on_episode_end=lambda **kwargs: None),
    "on_episode_created": lambda c: c.callbacks(on_episode_created=[lambda **kwargs: None]),
    "OwnForward overrides `_forward_exploration`": lambda c: c.rl_module(rl_module_spec=RLModuleSpec(module_class=OwnForward)),
    "OwnStep overrides `_try_env_step`": lambda c: c.env_runners(env_runner_cls=OwnStep),
    "`env_runner_fast_path` is False": lambda c: c.env_runners(env_runner_fast_path=False),
    "connector FlattenObservations is in use": lambda c: c.env_runners(
        env_to_module_connector=lambda env, spaces, device: FlattenObservations(multi_agent=True)
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_reasons_for_rllibs_own_loop_are_logged_once(reason, caplog):
    caplog.set_level(logging.INFO, "rllib_maddpg")
    runner = make_runner(LedgerEnv, {"script": TIME_LIMIT}, change=REASONS[reason])
    rows = [len(runner.sample(num_timesteps=6)[0]) for _ in range(3)]
    assert rows == [6, 6, 6] and runner._sampler is None
    lines = [record for record in caplog.records if "RLlib's own, slower loop" in record.getMessage()]
    assert len(lines) == 1 and reason in lines[0].getMessage()
    # Whoever has set the switch need not be warned.
    assert lines[0].levelno == (logging.INFO if "fast_path" in reason else logging.WARNING)


def test_a_pipeline_without_rllibs_default_pieces_is_left_to_rllib():
    runner = make_runner(LedgerEnv, {"script": TIME_LIMIT})
    runner._env_to_module.remove("NumpyToTensor")
    assert "NumpyToTensor is left out" in reason_for_stock_path(runner)


def test_other_callbacks_and_networks_stay_on_the_columnar_path(caplog):
    caplog.set_level(logging.INFO, "rllib_maddpg")
    spec = RLModuleSpec(module_class=OwnActor)
    runner = make_runner("simple_spread", CONTINUOUS, 2, change=lambda c: c.callbacks(OnSample).rl_module(rl_module_spec=spec))
    columns = runner.sample(num_timesteps=50, explore=False)[0].columns
    assert runner._sampler is not None and not caplog.records
    assert runner.seen_env and runner.seen_rows == 50
    for slot in runner.layout.slots:
        with torch.no_grad():
            mu = runner.module[slot.module].actor(torch.from_numpy(columns["obs"][:, slot.obs])).tanh().numpy()
        np.testing.assert_allclose(columns["actions"][:, slot.actions], mu, atol=1e-6)


def test_new_weights_are_used_at_once():
    runner = make_runner("simple_spread", CONTINUOUS)
    runner.sample(num_timesteps=5, explore=False)
    state = runner.module.get_state()
    for tensors in state.values():
        for value in tensors.values():
            value[...] = 0.0
    runner.set_state({"rl_module": state})
    assert not runner.sample(num_timesteps=5, explore=False)[0].columns["actions"].any()
