"""An environment that writes down what really happened, to hold stored rows against it."""

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv

# agent -> (first step in the game, step of its end, how it ends); the episode ends with its last agent.
MIXED_END = {"a": (0, 5, "truncated"), "b": (0, 3, "terminated"), "c": (0, 5, "terminated")}
TIME_LIMIT = {"a": (0, 4, "truncated"), "b": (0, 4, "truncated"), "c": (0, 4, "truncated")}
LATE_JOINER = {"a": (0, 6, "truncated"), "b": (0, 2, "truncated"), "c": (3, 6, "truncated")}
FULL_HOUSE = {"a": (0, 5, "truncated"), "b": (0, 5, "truncated"), "c": (2, 5, "truncated")}
ALL_TERMINATE = {"a": (0, 3, "terminated"), "b": (0, 3, "terminated"), "c": (0, 1, "terminated")}

# Each env of this process, in the order of creation.
LEDGERS = []


class LedgerEnv(MultiAgentEnv):
    """Agents b (Discrete), a (Box of unequal bounds) and c (MultiDiscrete) with observations that are never twice the same.

    An observation is (env, episode, step, agent number) / 100, plus two more entries for c. `rows` holds, per env step, agent
    -> (obs, env action, reward, next obs, terminated) for the agents that acted, in the order they happened.
    """

    def __init__(self, config):
        self.script = config["script"]
        # How the env reports ends: "plain" (each agent's own flag, `__all__` as our adapters), "all_truncated" (a time limit
        # tops all), "both" (who terminates at the end is also truncated), "only_all" (no flags of agents at the end),
        # "no_last_obs" (who terminates observes nothing more).
        self.style = config.get("style", "plain")
        self.possible_agents = ["b", "a", "c"]
        self.observation_spaces = {
            agent: gym.spaces.Box(-1e6, 1e6, (6 if agent == "c" else 4,), np.float32) for agent in self.possible_agents
        }
        self.action_spaces = {
            "a": gym.spaces.Box(np.float32([-2.0, 0.0]), np.float32([6.0, 1.0])),
            "b": gym.spaces.Discrete(3, start=1),
            "c": gym.spaces.MultiDiscrete([2, 4]),
        }
        self.number = len(LEDGERS)
        self.episode = -1
        self.rows = []
        super().__init__()
        LEDGERS.append(self)

    def _obs(self, agent):
        obs = np.float32([self.number, self.episode, self.time, ord(agent)]) / 100
        return np.concatenate([obs, np.float32([7.0, 8.0])]) if agent == "c" else obs

    def reset(self, *, seed=None, options=None):
        self.episode += 1
        self.time = 0
        self.agents = [a for a in self.possible_agents if self.script[a][0] == 0]
        self.last_obs = {a: self._obs(a) for a in self.agents}
        return dict(self.last_obs), {}

    def step(self, actions):
        assert set(actions) == set(self.agents), (actions, self.agents)
        self.time += 1
        acted, joined = list(self.agents), [a for a in self.possible_agents if self.script[a][0] == self.time]
        obs = {a: self._obs(a) for a in acted + joined}
        rewards = {a: float(self.time + ord(a) / 1000) for a in acted}
        ends = {a: self.script[a][2] if self.script[a][1] == self.time else "" for a in acted}
        self.rows.append(
            {a: (self.last_obs[a], actions[a], rewards[a], obs[a], ends[a] == "terminated") for a in acted}
            | {a: (None, None, None, obs[a], False) for a in joined}
        )
        self.agents = [a for a in acted if not ends[a]] + joined
        self.last_obs = {a: obs[a] for a in self.agents}
        over = not self.agents
        terminateds = {a: ends[a] == "terminated" for a in acted}
        truncateds = {a: ends[a] == "truncated" for a in acted}
        terminateds["__all__"] = over and any(terminateds.values())
        truncateds["__all__"] = over and not terminateds["__all__"]
        if self.style == "all_truncated" and over:
            terminateds["__all__"], truncateds["__all__"] = False, True
        if self.style == "both" and over:
            truncateds = dict.fromkeys(truncateds, True)
        if self.style == "only_all" and over and len(set(ends.values())) == 1:
            terminateds, truncateds = {"__all__": terminateds["__all__"]}, {"__all__": truncateds["__all__"]}
        if self.style == "no_last_obs":
            for a in acted:
                if ends[a] == "terminated":
                    # What is stored then is the observation before.
                    self.rows[-1][a] = (*self.rows[-1][a][:3], self.rows[-1][a][0], True)
                    del obs[a]
        # Who joins has done nothing yet, but may be given a reward.
        return obs, rewards | dict.fromkeys(joined, 0.0), terminateds, truncateds, {}


class TurnsEnv(LedgerEnv):
    """Agent a observes nothing at step 2 and is back at step 3: no joint transition there."""

    def step(self, actions):
        result = super().step({a: actions.get(a, self.action_spaces[a].sample()) for a in self.agents})
        if self.time == 2:
            result[0].pop("a")
        return result


class Nested(LedgerEnv):
    """Agents a and c observe no vectors; their first column is still the number of the env."""

    def __init__(self, config):
        super().__init__(config)
        box, clock = gym.spaces.Box(-1e6, 1e6, (2, 2), np.float32), gym.spaces.Discrete(8, start=-1)
        self.observation_spaces["a"] = gym.spaces.Dict([("z", box), ("a", clock)])
        numbers = gym.spaces.MultiDiscrete([[8, 2]], start=[[0, 7]])
        self.observation_spaces["c"] = gym.spaces.Tuple([gym.spaces.Box(-1e6, 1e6, (6,)), numbers])

    def _obs(self, agent):
        obs, time = super()._obs(agent), self.time % 7
        nested = {"a": {"z": obs.reshape(-1, 2), "a": time - 1}, "c": (list(map(float, obs)), [[time, 7 + time % 2]])}
        return nested.get(agent, obs)


class ZooLedger(ParallelEnv):
    """The same games as a PettingZoo env."""

    metadata = {"name": "ledger"}

    def __init__(self, config):
        self.game = (Nested if config.get("nested") else LedgerEnv)(config)
        self.possible_agents = self.game.possible_agents

    def observation_space(self, agent):
        return self.game.observation_spaces[agent]

    def action_space(self, agent):
        return self.game.action_spaces[agent]

    def reset(self, seed=None, options=None):
        observations, _ = self.game.reset()
        self.agents = self.game.agents
        return observations, {agent: {} for agent in observations}

    def step(self, actions):
        results = self.game.step(actions)
        self.agents = self.game.agents
        return tuple({agent: value for agent, value in part.items() if agent != "__all__"} for part in results)
