"""Direct stepping of mpe2 against its own `parallel_env`: equal to the last bit, type and order."""

import copy

import numpy as np
import pytest
from mpe2 import simple_spread_v3, simple_tag_v3
from mpe2._mpe_utils.core import Action, Agent, Landmark, World
from mpe2.all_modules import mpe_environments
from pettingzoo import ParallelEnv
from pettingzoo.utils.conversions import aec_to_parallel_wrapper
from pettingzoo.utils.env_logger import EnvLogger
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from supersuit import pad_observations_v0

from rllib_maddpg.envs import RecordedEpisodes, mpe, resolve_env, scenario_metrics
from rllib_maddpg.envs.mpe import DirectMPE, can_step_directly
from rllib_maddpg.envs.mpe_world import make_quick, step_world


def bits(value):
    """What `==` compares to the last bit, with types and the order of keys."""
    if isinstance(value, dict):
        return [(key, bits(item)) for key, item in value.items()]
    if isinstance(value, tuple | list):
        return type(value), [bits(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return type(value), value.dtype.str, value.shape, value.tobytes()
    return type(value), value.hex() if isinstance(value, float) else value


def pair(name, **config):
    """Returns the scenario in mpe2's own parallel env and stepped directly."""
    direct = resolve_env(name)(config).env
    assert type(direct) is DirectMPE
    return mpe_environments[name].parallel_env(**config), direct


def reset(envs, seed):
    plain, direct = (env.reset(seed=seed) for env in envs)
    assert bits(direct) == bits(plain)
    assert envs[1].agents == envs[0].agents == envs[0].possible_agents


def outcome(env, actions):
    """What a step returns or raises, what PettingZoo says to it, and who is left."""
    EnvLogger.flush()
    try:
        result = bits(env.step(copy.deepcopy(actions)))
    except Exception as error:
        result = type(error), str(error)
    return result, list(EnvLogger.mqueue), list(env.agents)


def step(envs, actions):
    plain, direct = (outcome(env, actions) for env in envs)
    assert direct == plain
    return plain[0]


def random_actions(env, rng):
    actions = {}
    for agent in env.possible_agents:
        space = env.action_space(agent)
        if env.unwrapped.continuous_actions:
            actions[agent] = np.clip(rng.uniform(-0.2, 1.2, space.shape), 0, 1).astype(np.float32)
        else:
            actions[agent] = rng.choice([int, np.int64])(rng.integers(space.n))
    return actions


def play(envs, rng):
    """Plays to the end and one step on; returns the number of steps in the episode."""
    steps = 0
    while envs[0].agents:
        step(envs, random_actions(envs[0], rng))
        steps += 1
    assert envs[1].agents == envs[1].env.agents == envs[1].unwrapped.agents == []
    assert bits(envs[1].state()) == bits(envs[0].state())
    assert step(envs, {}) == bits(({},) * 5)
    return steps


# The two that take many times as long as the others; in their usual size they are below.
SMALL = {
    "mpe/simple_world_comm_v3": {"num_good": 1, "num_adversaries": 2, "num_food": 1, "num_forests": 1},
    "mpe/collect_treasure_v1": {"num_collectors": 2, "num_deposits": 1, "num_treasures": 2},
}


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", mpe_environments)
def test_200_episodes_of_every_scenario(name, continuous):
    envs = pair(name, continuous_actions=continuous, benchmark_data=True, **SMALL.get(name, {}))
    rng = np.random.default_rng(0)
    for episode in range(200):
        cycles = 25 if episode % 50 == 0 else 2
        for env in envs:
            env.unwrapped.max_cycles = cycles
        reset(envs, seed=episode if episode % 2 == 0 else None)  # None: goes on with the generator of the last one
        assert play(envs, rng) == cycles


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", mpe_environments)
def test_joint_steps_of_every_scenario(name, continuous):
    """As the columnar loop steps them: lists in an order of its own, observations written into arrays of its own."""
    config = {"continuous_actions": continuous, **SMALL.get(name, {})}
    plain, game = mpe_environments[name].parallel_env(**config), resolve_env(name)(config)
    agents = list(reversed(plain.possible_agents))
    seen = [np.full(plain.observation_space(agent).shape, np.nan, np.float32) for agent in agents]
    joint_step = game.joint_step(agents, seen)
    rng = np.random.default_rng(0)
    for episode in range(40):
        cycles = 25 if episode % 20 == 0 else 3
        plain.unwrapped.max_cycles = game.unwrapped_env.max_cycles = cycles
        assert bits(game.reset(seed=episode)[0]) == bits(dict(sorted(plain.reset(seed=episode)[0].items())))
        for step in range(1, cycles + 1):
            actions = random_actions(plain, rng)
            observations, rewards, *_ = plain.step(copy.deepcopy(actions))
            result = joint_step([actions[agent] for agent in agents])
            if step < cycles:
                assert bits(result) == bits([rewards[agent] for agent in agents])
                assert bits(seen) == bits([observations[agent] for agent in agents])
                continue
            assert bits(result[0]) == bits(dict(sorted(observations.items())))
            assert bits(result[1]) == bits(dict(sorted(rewards.items())))
            assert result[2] == dict.fromkeys([*sorted(agents), "__all__"], False)
            assert result[3] == dict.fromkeys([*sorted(agents), "__all__"], True)
        assert game.agents == game.env.agents == game.unwrapped_env.agents == []


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("mpe/simple_spread_v3", {"N": 5, "local_ratio": 0.3, "num_agent_neighbors": 2, "num_landmark_neighbors": 1}),
        ("mpe/simple_spread_v3", {"N": 1, "local_ratio": 1.0, "max_cycles": 1}),
        ("mpe/simple_spread_v3", {"N": 2, "local_ratio": np.float64(0.7), "max_cycles": 0}),
        ("mpe/simple_reference_v3", {"local_ratio": 0.0, "max_cycles": 40}),
        ("mpe/simple_adversary_v3", {"N": 4, "num_agent_neighbors": 2, "benchmark_data": True}),
        ("mpe/simple_tag_v3", {"num_good": 3, "num_adversaries": 4, "num_obstacles": 3, "num_agent_neighbors": 3}),
        ("mpe/simple_world_comm_v3", {"max_cycles": 15}),
        ("mpe/simple_formation_v1", {"N": 6}),
        ("mpe/collect_treasure_v1", {"max_cycles": 15}),
    ],
)
@pytest.mark.parametrize("continuous", [False, True])
def test_keywords_of_scenarios(name, config, continuous):
    envs = pair(name, continuous_actions=continuous, **config)
    for seed in range(3):
        reset(envs, seed)
        assert play(envs, np.random.default_rng(seed)) == max(1, config.get("max_cycles", 25))


def test_the_signs_of_zeros():
    envs = pair("mpe/simple_v3", continuous_actions=True)
    reset(envs, 0)
    for env in envs:
        world = env.unwrapped.world
        world.agents[0].state.p_pos = world.landmarks[0].state.p_pos.copy()
    action = np.float32([0.0, 0.0, -0.0, 0.0, -0.0])
    rewards = step(envs, {"agent_0": action})[1][1]
    assert rewards == bits({"agent_0": 0.0})  # the scenario's reward is -0.0
    plain, direct = (env.unwrapped.world.agents[0].action.u for env in envs)
    assert bits(direct) == bits(plain)


def test_ends_on_success_terminate():
    lengths = set()
    for name, threshold in (("simple_spread_v3", "CAPTURE_RADIUS"), ("simple_line_v1", "DIST_THRESHOLD")):
        envs = pair(f"mpe/{name}", N=2, terminate_on_success=True)
        for env in envs:
            setattr(env.unwrapped.scenario, threshold, 0.6)
        for seed in range(20):
            reset(envs, seed)
            lengths.add(play(envs, np.random.default_rng(seed)))
    assert min(lengths) < 25 and len(lengths) > 5


def test_curricula_change_the_world_between_and_within_episodes():
    for name in ("mpe/simple_tag_v3", "mpe/simple_spread_v3"):
        envs = pair(name, curriculum=True, max_cycles=6)
        rng = np.random.default_rng(0)
        for stage in (0, 1, 2, 0):
            for env in envs:
                env.unwrapped.set_curriculum_stage(stage)
            reset(envs, stage)
            step(envs, random_actions(envs[0], rng))
            for env in envs:
                env.unwrapped.world.landmarks[0].collide = stage % 2 == 0
                env.unwrapped.world.landmarks[0].movable = stage == 2
                env.unwrapped.world.agents[0].size *= 1.3
            play(envs, rng)


CONTINUOUS = np.float32([0.1, 0.9, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("continuous", "odd"),
    [
        (True, np.float32([0.1, 1.5, 0.2, -0.3, 0.4])),
        (True, np.float32([0.1, 0.5, 0.2, -0.3, 0.4])),
        (True, np.float32([0.1, np.nan, 0.2, 0.3, 0.4])),
        (True, np.float32([np.inf, 0.1, 0.2, 0.3, -np.inf])),
        (True, CONTINUOUS.astype(np.float64)),
        (True, CONTINUOUS.astype(np.float64) * 3),
        (True, CONTINUOUS.astype(np.float16)),
        (True, CONTINUOUS[:4]),
        (True, [0.1, 0.9, 0.2, 0.3, 0.4]),
        (True, [0.1, 0.9, 0.2, 0.3, 1.4]),
        (True, np.array([0, 1, 1, 0, 1])),
        (True, None),
        (False, 5),
        (False, -1),
        (False, 2.0),
        (False, True),
        (False, np.int8(3)),
        (False, np.uint64(3)),
        (False, np.array(3)),
        (False, np.array([3])),
        (False, 10**30),
        (False, None),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_odd_actions_are_clipped_or_refused_as_ever(continuous, odd):
    envs = pair("mpe/simple_spread_v3", continuous_actions=continuous)
    rng = np.random.default_rng(0)
    for agent in ("agent_0", "agent_1", "agent_2"):
        reset(envs, 4)
        step(envs, random_actions(envs[0], rng))
        step(envs, random_actions(envs[0], rng) | {agent: odd})
        for _ in range(3):  # also if the turns have stopped at a refused action
            step(envs, random_actions(envs[0], rng))
    reset(envs, 5)
    actions = random_actions(envs[0], rng)
    step(envs, actions | {"stranger": odd})
    del actions["agent_1"]
    assert step(envs, actions) == (KeyError, "'agent_1'")
    step(envs, random_actions(envs[0], rng))
    reset(envs, 6)  # in the middle of an episode
    assert play(envs, rng) == 25


def test_noise_and_scripted_agents_draw_the_same_numbers():
    def push(agent, world):
        action = Action()
        action.u = np.random.randn(2).astype(np.float32)
        action.c = np.zeros(world.dim_c)
        return action

    for scripted in (False, True):
        envs = pair("mpe/simple_reference_v3", continuous_actions=True)
        for env in envs:
            first, second = env.unwrapped.world.agents
            first.u_noise = second.c_noise = 0.3
            second.action_callback = push if scripted else None
        rng = np.random.default_rng(0)
        reset(envs, 0)
        while envs[0].agents:
            actions, results = random_actions(envs[0], rng), []
            for env in envs:
                np.random.seed(7)
                results.append((outcome(env, actions), np.random.rand()))
            assert results[0] == results[1]


def random_world(rng):
    world = World()
    world.dim_c = 1
    world.agents, world.landmarks = [Agent() for _ in range(4)], [Landmark() for _ in range(3)]
    for entity in world.entities:
        entity.movable, entity.collide = rng.random() < 0.8, rng.random() < 0.8
        entity.size, entity.initial_mass = rng.uniform(0.1, 0.6), rng.uniform(0.5, 2)
        entity.max_speed = rng.uniform(0.1, 1) if rng.random() < 0.5 else None
        entity.state.p_pos, entity.state.p_vel = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
    for agent in world.agents:
        agent.action.u, agent.action.c = rng.choice([0.0, -0.0, 1.0, -2.5], 2), rng.random(1)
        agent.silent = rng.random() < 0.5
    return world


def world_bits(world):
    states = [bits([entity.state.p_pos, entity.state.p_vel]) for entity in world.entities]
    return states, [bits(agent.state.c) for agent in world.agents]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_step_world_is_world_step():
    rng = np.random.default_rng(0)
    for i in range(200):
        stock = random_world(rng)
        if i % 10 == 0:  # at one place, or at two whose distance squared is 0
            stock.agents[0].state.p_pos, stock.agents[1].state.p_pos = np.zeros(2), np.array([0.0, 1e-200 * (i % 20)])
        quick = copy.deepcopy(stock)
        held = [entity.state.p_pos for entity in quick.entities]
        for _ in range(4):
            stock.step()
            step_world(quick)
            assert world_bits(quick) == world_bits(stock)
        assert all(entity.state.p_pos is position for entity, position in zip(quick.entities, held, strict=True))


def test_worlds_with_their_own_ways_keep_them():
    class Springs(World):
        def get_collision_force(self, entity_a, entity_b):
            return [np.ones(2), -np.ones(2)]

    class Deep(World):
        def __init__(self):
            super().__init__()
            self.dim_p = 3

    for world in (Springs(), Deep()):
        raw = simple_spread_v3.raw_env()
        raw.world = world
        make_quick(raw)
        assert "step" not in vars(world)
    raw = simple_spread_v3.raw_env()
    raw.world.integrate_state = lambda p_force: None
    make_quick(raw)
    assert "step" not in vars(raw.world)


@pytest.mark.parametrize("config", [{}, {"dynamic_rescaling": False}])
@pytest.mark.parametrize("name", ["mpe/simple_reference_v3", "mpe/collect_treasure_v1"])
def test_frames(name, config):
    envs = pair(name, render_mode="rgb_array", max_cycles=4, **config)
    rng = np.random.default_rng(0)
    reset(envs, 1)
    while envs[0].agents:
        np.testing.assert_array_equal(envs[1].render(), envs[0].render())
        step(envs, random_actions(envs[0], rng))
    frame = envs[1].render()
    np.testing.assert_array_equal(frame, envs[0].render())
    assert frame.shape == (700, 700, 3)


def test_a_window_is_drawn_after_every_turn():
    envs = pair("mpe/simple_spread_v3", max_cycles=2)
    seen = ([], [])
    for env, poses in zip(envs, seen, strict=True):
        raw = env.unwrapped
        raw.render_mode = "human"
        raw.render = lambda raw=raw, poses=poses: poses.append(raw.world.agents[0].state.p_pos.copy())
    reset(envs, 0)
    play(envs, np.random.default_rng(0))
    assert len(seen[0]) == 6
    assert bits(seen[0]) == bits(seen[1])


def test_joint_steps_draw_a_window_after_every_turn_too():
    plain, game = simple_spread_v3.parallel_env(), resolve_env("simple_spread")()
    for env in (plain, game):
        env.reset(seed=0)
    raw, drawn = game.unwrapped_env, []
    raw.render_mode, raw.render = "human", lambda: drawn.append(raw.world.agents[0].state.p_pos.copy())
    result = game.joint_step(game.possible_agents, [np.zeros(18, np.float32)] * 3)([1, 2, 3])
    assert len(drawn) == 3
    assert bits(result[:2]) == bits(plain.step({"agent_0": 1, "agent_1": 2, "agent_2": 3})[:2])


def test_before_the_first_reset():
    for env in pair("mpe/simple_spread_v3"):
        with pytest.raises(AttributeError):
            _ = env.agents
        with pytest.raises(AttributeError, match="before reset"):
            env.step({})
        with pytest.raises(AssertionError, match="before state"):
            env.state()
        with pytest.raises(AssertionError, match="before render"):
            env.render()


def test_the_switch():
    creator = resolve_env("simple_spread")
    config = {"direct_stepping": False, "N": 2}
    turns = creator(config)
    assert config == {"direct_stepping": False, "N": 2}
    assert type(turns.env) is aec_to_parallel_wrapper
    assert not {"step"} & set(vars(turns.unwrapped_env.world))
    assert type(creator({"direct_stepping": True}).env) is DirectMPE
    assert type(resolve_env("mpe2/simple_tag")().env) is DirectMPE
    # By what is made, not by name; also of a game of turns.
    assert type(resolve_env(lambda config: simple_tag_v3.parallel_env())({"direct_stepping": True}).env) is DirectMPE
    assert type(resolve_env(lambda config: simple_tag_v3.env())().env) is DirectMPE


def test_wrapped_scenarios_are_stepped_in_turns():
    for env in (
        resolve_env("simple_spread")({"wrappers": ["pad_observations_v0"], "direct_stepping": True}),
        resolve_env(lambda config: pad_observations_v0(simple_spread_v3.parallel_env()))(),
    ):
        assert "step" not in vars(env.unwrapped_env.world)
        layers = [env.env]
        while isinstance(layers[-1], ParallelEnv) and hasattr(layers[-1], "env"):
            layers.append(layers[-1].env)
        assert not any(isinstance(layer, DirectMPE) for layer in layers)


def error_of(env, value):
    with pytest.raises(ValueError) as info:
        resolve_env(env)({"direct_stepping": value})
    return str(info.value)


def test_what_the_switch_refuses(monkeypatch):
    assert error_of("simple_spread", "no") == "env_config[\"direct_stepping\"]='no' is not a bool. Give True or False."
    assert "=None is not a bool" in error_of("simple_spread", None)
    assert "=0 is not a bool" in error_of("Pendulum-v1", 0)
    for env in (
        "Pendulum-v1",
        "classic/rps_v2",
        lambda config: pad_observations_v0(simple_spread_v3.parallel_env()),
        lambda config: ParallelPettingZooEnv(simple_spread_v3.parallel_env()),
    ):
        for value in (True, False):
            text = error_of(env, value)
            assert text.startswith(f'env_config["direct_stepping"]={value}: env=')
            assert "is not a bare mpe2 scenario" in text and "Take the key out" in text
    monkeypatch.setattr(mpe.mpe2, "__version__", "9.0.0")
    assert type(resolve_env("simple_spread")().env) is aec_to_parallel_wrapper
    assert "version is not known" in error_of("simple_spread", True)


def test_an_unknown_version_of_mpe2_is_stepped_in_turns_and_the_log_says_so_once(monkeypatch, caplog):
    resolve_env("simple_spread")()
    assert not caplog.messages  # nothing to say of a known one
    monkeypatch.setattr(mpe.mpe2, "__version__", "9.0.1")
    for _ in range(3):
        assert type(resolve_env("simple_spread")().env) is aec_to_parallel_wrapper
    # A game that is stepped in turns whatever the version is no reason to say it.
    assert not can_step_directly(aec_to_parallel_wrapper(simple_spread_v3.raw_env()))
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("WARNING", "rllib_maddpg.envs.mpe")
    assert record.getMessage() == (
        "mpe2 9.0.1 is stepped turn by turn, which takes about twice the time: stepping all agents at once was checked against "
        "mpe2 1.1.0 and 1.1.1 only. Install one of these to have it."
    )


def test_a_scenario_of_ones_own_is_stepped_in_turns():
    class MyEnv(simple_spread_v3.raw_env):
        pass

    assert not can_step_directly(aec_to_parallel_wrapper(MyEnv()))
    assert not can_step_directly(aec_to_parallel_wrapper(simple_spread_v3.raw_env()))
    assert can_step_directly(simple_spread_v3.parallel_env())


def test_recorded_episodes_are_the_same():
    records, frames = [], []
    for direct_stepping in (True, False):
        config = {"direct_stepping": direct_stepping, "render_mode": "rgb_array", "max_cycles": 5}
        env = RecordedEpisodes(resolve_env("simple_spread")(config), record_frames=1)
        assert scenario_metrics(env).world is env.unwrapped.unwrapped_env.world
        for seed in range(3):
            env.reset(seed=seed)
            for time in range(5):
                env.step({agent: (time + int(agent[-1])) % 5 for agent in env.unwrapped.agents})
        records.append([(bits(record.returns), record.length, bits(record.metrics)) for record in env.episodes])
        frames.append(env.frames)
    assert len(records[0]) == 3
    assert records[0] == records[1]
    assert len(frames[0]) == 6
    np.testing.assert_array_equal(frames[0], frames[1])
