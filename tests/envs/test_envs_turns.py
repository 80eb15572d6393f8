"""Games of turns: PettingZoo's AEC envs in our adapter against their own loop, and how such games are found out."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from pettingzoo import AECEnv
from pettingzoo.classic import connect_four_v3, tictactoe_v3
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.wrappers.pettingzoo_env import PettingZooEnv
from runners import make_runner
from turn_env import RandomTurns

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.envs import RecordedEpisodes, TurnBasedPettingZoo, resolve_env
from rllib_maddpg.envs.errors import EnvFailure


class Lots(AECEnv):
    """Four agents in an order by lot, of which some end early; everybody may be paid at any step.

    The one whose `stays` it is has turns after its end; `grows` is observed in another space in the second episode.
    """

    metadata = {"name": "lots_v0", "is_parallelizable": False}

    def __init__(self, stays=None, grows=None, **_):
        self.possible_agents = ["d", "b", "a", "c"]
        self.stays, self.grows, self.episode = stays, grows, 0

    def observation_space(self, agent):
        grown = agent == self.grows and self.episode > 1
        return gym.spaces.Box(-100.0, 100.0, (3 if grown else 2,), np.float32)

    def action_space(self, agent):
        return gym.spaces.Discrete(3)

    def observe(self, agent):
        return np.float32([self.t, ord(agent)])

    def reset(self, seed=None, options=None):
        self.episode += 1
        self.rng = np.random.default_rng(seed)
        self.t, self.agents = 0, list(self.possible_agents)
        self.rewards, self._cumulative_rewards = dict.fromkeys(self.agents, 0.0), dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.agent_selection = str(self.rng.choice(self.agents))

    def step(self, action):
        if self.terminations[self.agent_selection] or self.truncations[self.agent_selection]:
            if self.agent_selection != self.stays:
                self._was_dead_step(action)
            return
        assert action in (0, 1, 2)
        self.t += 1
        self._cumulative_rewards[self.agent_selection] = 0.0
        self.rewards = {agent: float(self.rng.integers(-8, 9)) / 4 for agent in self.agents}
        self._accumulate_rewards()
        if self.t >= 14:
            self.truncations = dict.fromkeys(self.agents, True)
        else:
            self.terminations = {agent: bool(self.rng.random() < 0.06) for agent in self.agents}
        going_on = [a for a in self.agents if not (self.terminations[a] or self.truncations[a])]
        if going_on:
            self.agent_selection = str(self.rng.choice(going_on))
        self._deads_step_first()


def by_their_own_loop(env, seed):
    """Per agent what `last()` says at each of its turns: (t, reward, terminated, truncated)."""
    env.reset(seed=seed)
    seen = {agent: [] for agent in env.possible_agents}
    for agent in env.agent_iter():
        observation, reward, terminated, truncated, _ = env.last()
        seen[agent].append((float(observation[0]), reward, terminated, truncated))
        env.step(None if terminated or truncated else 1)
    return seen


def test_agents_see_and_get_what_pettingzoos_own_loop_gives():
    env = TurnBasedPettingZoo(Lots())
    assert env.possible_agents == ["a", "b", "c", "d"]
    ends = set()
    for seed in range(40):
        right = by_their_own_loop(Lots(), seed)
        observations, _ = env.reset(seed=seed)
        seen = {agent: [] for agent in env.possible_agents}
        (agent,) = observations
        # Before its first step an agent of this game has been paid nothing.
        seen[agent].append((0.0, 0.0, False, False))
        over = False
        while not over:
            (agent,) = [a for a in observations if a in env.agents]
            observations, rewards, terminateds, truncateds, _ = env.step({agent: 1})
            over = terminateds["__all__"] or truncateds["__all__"]
            assert not (terminateds["__all__"] and truncateds["__all__"])
            assert over == (not env.agents)
            for a, observation in observations.items():
                seen[a].append((float(observation[0]), rewards[a], terminateds[a], truncateds[a]))
        assert seen == right
        ends |= {own[-1][2:] for own in seen.values() if own}
    assert ends >= {(True, False), (False, True)}


def test_rewards_of_rows_and_returns_are_those_of_pettingzoos_own_loop():
    """Of each turn's row the reward is that of the agent's next `last()`; returns have those before first turns, too."""
    runner = make_runner(lambda config: Lots())
    seeds = [runner._seeds.of_env(0, episode) for episode in range(12)]
    (rollout,) = runner.sample(num_episodes=12)
    returns = [runner._tally._total.episodes[k].returns for k in range(12)]
    runner.stop()
    columns, agents = rollout.columns, runner.layout.agents
    for episode, seed in enumerate(seeds):
        right = by_their_own_loop(Lots(), seed)
        rows = columns["episodes"][:, 0] == episode
        for i, agent in enumerate(agents):
            own = rows & (columns["acts"][:, i] > 0)
            # Only from the second turn on a reward is for an action.
            assert columns["rewards"][own, i].tolist() == [reward for _, reward, _, _ in right[agent][1:]]
            assert columns["terminateds"][own, i].tolist() == [float(terminated) for *_, terminated, _ in right[agent][1:]]
            acted_once = len(right[agent]) > 1
            if acted_once:
                assert returns[episode][agent] == sum(reward for _, reward, _, _ in right[agent])


@pytest.mark.parametrize("name", ["classic/tictactoe_v3", "classic/connect_four_v3"])
def test_games_by_name_have_masks_and_only_legal_moves(name):
    config = MADDPGConfig().environment(name)
    config.validate()
    assert config.turn_based is True
    runner = make_runner(name, num_envs=3)
    assert runner._is_fast() and all(slot.mask is not None for slot in runner.layout.slots)
    (rollout,) = runner.sample(num_timesteps=300, explore=True)
    runner.stop()
    assert rollout.error == "" and rollout.env_steps() == 300
    columns = rollout.columns
    assert (columns["acts"].sum(1) == 1).all() and (columns["acts"] == columns["acted"]).all()
    for i, slot in enumerate(runner.layout.slots):
        acts = columns["acts"][:, i] > 0
        mask = columns["obs"][:, slot.obs][:, slot.mask]
        assert ((columns["actions"][:, slot.actions] * mask).sum(1)[acts] == 1).all()
        assert (columns["actions"][:, slot.actions][~acts] == 0).all()
    # Both are paid at the end, by whoever's move it came.
    ends = columns["terminateds"].sum(1) > 0
    assert set(columns["rewards"].sum(1)[ends].tolist()) <= {-1.0, 0.0, 1.0}
    assert (columns["rewards"][~ends] == 0).all()


class Mine(MultiAgentEnv):
    """Three agents who move one after the other, each of whose moves pays the next one."""

    def __init__(self, config=None):
        self.possible_agents = self.agents = ["a", "b", "c"]
        super().__init__()
        self.observation_spaces = dict.fromkeys("abc", gym.spaces.Box(0.0, 99.0, (1,), np.float32))
        self.action_spaces = dict.fromkeys("abc", gym.spaces.Discrete(2))
        self.empty_at = (config or {}).get("empty_at")

    def see(self):
        agent = "abc"[self.time % 3]
        return {} if self.time == self.empty_at else {agent: np.float32([self.time])}

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self.see(), {}

    def step(self, actions):
        assert list(actions) == ["abc"[self.time % 3]]
        self.time += 1
        return self.see(), {"abc"[self.time % 3]: 1.0}, {"__all__": False}, {"__all__": self.time >= 9}, {}


def test_a_users_game_of_turns_is_found_out():
    for env, found in ((Mine, True), (RandomTurns, True), ("simple_spread", None), ("Pendulum-v1", None)):
        config = MADDPGConfig().environment(env)
        config.validate()
        assert config.turn_based is found, env
        # A config that has been looked at is the same when it is looked at again.
        config.validate()
        assert config.turn_based is found


def test_turn_based_may_be_said_and_not_denied():
    config = MADDPGConfig().environment(Mine).env_runners(turn_based=False)
    with pytest.raises(ValueError, match=r"`turn_based`=False is not allowed: it must be True or None with this env"):
        config.validate()
    config = MADDPGConfig().environment("simple_spread").env_runners(turn_based=True)
    config.validate()
    assert config.turn_based is True
    config = MADDPGConfig().environment("classic/tictactoe_v3").training(n_step=3)
    with pytest.raises(ValueError, match=r"`n_step`=3 is not allowed: it must be 1 where agents act in turns"):
        config.validate()


def say_turns(config, turns):
    config.env_runners(turn_based=turns)


@pytest.mark.parametrize("fast", [True, False])
def test_a_game_in_which_all_act_has_the_same_rows_as_turns(fast):
    """Said to have turns, a game of simultaneous moves has the rows that it has without, and what is said of turns beside."""
    rows = []
    for turns in (None, True):
        runner = make_runner("simple_spread", num_envs=2, fast=fast, change=partial(say_turns, turns=turns))
        rows.append(runner.sample(num_timesteps=120)[0].columns)
        runner.stop()
    plain, turned = rows
    n = min(len(plain["t"]), len(turned["t"]))
    assert n >= 110
    if not fast:  # RLlib's loop has finished episodes first
        rows = [{name: c[np.lexsort((r["t"][:, 0], r["episodes"][:, 0]))] for name, c in r.items()} for r in rows]
        plain, turned = rows
    for name, values in plain.items():
        np.testing.assert_array_equal(values, turned[name], err_msg=name)
    for name in ("acts", "acted", "next_acts"):
        assert (turned[name] == 1).all()


def test_rllibs_adapter_for_turns_gives_way_to_ours_and_a_subclass_of_it_does_not():
    class Own(PettingZooEnv):
        pass

    env = resolve_env(lambda config: PettingZooEnv(tictactoe_v3.env()))({})
    assert type(env) is TurnBasedPettingZoo
    make = {"ours": lambda config: PettingZooEnv(tictactoe_v3.env()), "theirs": lambda config: Own(tictactoe_v3.env())}
    columns = {}
    for which, env in make.items():
        runner = make_runner(env, num_envs=1)
        assert runner.config.turn_based
        (rollout,) = runner.sample(num_timesteps=60)
        runner.stop()
        assert rollout.error == ""
        columns[which] = rollout.columns
    for name, values in columns["ours"].items():
        np.testing.assert_array_equal(values, columns["theirs"][name], err_msg=name)


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("fast", [True, False])
def test_an_env_that_gives_nobody_a_turn_is_refused(fast):
    def error_of(empty_at):
        config = {"empty_at": empty_at}
        runner = make_runner(Mine, config, fast=fast, change=lambda c: c.env_runners(turn_based=True))
        (rollout,) = runner.sample(num_timesteps=30)
        runner.stop()
        return rollout.error

    class Later(Mine):
        empty = True

        def reset(self, **kwargs):
            first, infos = super().reset(**kwargs)
            return ({} if self.empty else first), infos

        def step(self, actions):
            return super().step(actions or {"a": 0})

    with pytest.raises(ValueError, match=r"Later.*: `reset` gives no agent a turn: it observes nobody, after `reset`"):
        MADDPGConfig().environment(Later).validate()
    assert error_of(0).startswith("`reset` gives no agent a turn: it observes nobody, at step 0 of the episode in env 0")
    text = error_of(4)
    assert text.startswith("`step` gives no agent a turn: it observes nobody that goes on, though the episode does, at step 4")
    assert "Who is observed acts next" in text


def test_an_env_whose_agent_keeps_its_turns_after_its_end_is_refused():
    env = TurnBasedPettingZoo(Lots(stays="a"))
    with pytest.raises(EnvFailure, match="Agent 'a' has ended and still has turns"):
        for seed in range(20):
            observations, _ = env.reset(seed=seed)
            while env.agents:
                (agent,) = [a for a in observations if a in env.agents]
                observations, *_ = env.step({agent: 0})


def test_a_game_that_changes_its_agents_spaces_is_refused():
    runner = make_runner(lambda config: Lots(grows="b"))
    (rollout,) = runner.sample(num_timesteps=60)
    runner.stop()
    assert rollout.error.startswith("The observation space of agent 'b' was Box(-100.0, 100.0, (2,), float32) and is Box(")
    assert "An agent keeps its spaces: make them as large as they ever get" in rollout.error


def test_an_aec_env_takes_wrappers_but_none_for_parallel_ones():
    env = resolve_env(lambda config: Lots())({"wrappers": [["frame_stack_v2", {"stack_size": 3}]]})
    assert type(env) is TurnBasedPettingZoo and env.get_observation_space("a").shape == (6,)
    observations, _ = env.reset(seed=1)
    assert [o.shape for o in observations.values()] == [(6,)]
    with pytest.raises(ValueError, match=r"black_death_v3 wraps parallel envs"):
        resolve_env(lambda config: Lots())({"wrappers": ["black_death_v3"]})


def test_records_of_episodes_have_what_was_paid_before_the_first_turn():
    env = RecordedEpisodes(Mine())
    env.reset()
    for k in range(9):
        env.step({"abc"[k % 3]: 0})
    (episode,) = env.episodes
    # The move of a pays b, before b has ever moved.
    assert episode.returns == {"a": 3.0, "b": 3.0, "c": 3.0} and episode.length == 9


class Folds(Mine):
    """The first move of a ends the game, and pays b, who has had no turn; c has none and is paid nothing."""

    def step(self, actions):
        rewards = {"a": -1.0, "b": 1.0, "c": 0.0}
        return {a: np.float32([9]) for a in "abc"}, rewards, {"__all__": True}, {"__all__": False}, {}


def test_returns_are_those_of_agents_that_never_had_a_turn_too():
    runner = make_runner(Folds, change=partial(say_turns, turns=True))
    (rollout,) = runner.sample(num_timesteps=3)
    assert [e.returns for e in runner._tally._total.episodes] == [{"a": -1.0, "b": 1.0}] * 3
    assert runner._tally._total.episodes[0].agent_steps == {"a": 1, "b": 0}
    runner.stop()
    assert (rollout.columns["acts"] == [1, 0, 0]).all() and (rollout.columns["rewards"] == [-1, 0, 0]).all()
    env = RecordedEpisodes(Folds())
    env.reset()
    env.step({"a": 0})
    assert env.episodes[0].returns == {"a": -1.0, "b": 1.0}


def test_connect_four_can_be_filmed():
    env = TurnBasedPettingZoo(connect_four_v3.env(render_mode="rgb_array"))
    env.reset(seed=0)
    assert env.render_mode == "rgb_array" and np.asarray(env.render()).ndim == 3
    env.close()
