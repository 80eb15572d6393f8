"""Records of a `RandomTurns` game for the function that makes rows of them, and the oracle's rows as columns of numbers."""

import numpy as np
from reference.turns import rows_of_episode
from turn_env import AGENTS, RandomTurns

from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import Column, RowSchema
from rllib_maddpg.rows.turns import turn_columns


def number_of(infos):
    """The `source` of a column of the env."""
    return infos["__common__"]["number"]


NUMBER = Column("number", "env", at_next=True, source=number_of)
ONE_EACH = {agent: f"module_{agent}" for agent in AGENTS}


def schema_of(env=None):
    env = env or RandomTurns()
    layout = JointLayout(env.observation_spaces, env.action_spaces, ONE_EACH.get)
    return RowSchema(layout, [NUMBER], turn_columns())


def play(env, rng, episodes, seed=0):
    """Plays at random; returns the log."""
    for k in range(episodes):
        env.reset(seed=seed + k)
        over = False
        while not over:
            _, _, terminateds, truncateds, _ = env.step({a: env.action_spaces[a].sample() for a in env._now})
            over = terminateds["__all__"] or truncateds["__all__"] or not env._alive
    return env.log


def coded(schema, agent, action):
    """The code of an action as it reaches the env; that of a Box lies in [-1, 1]."""
    codec = schema.layout.slots[schema.layout.index(agent)].codec
    action = np.asarray(action) if codec.categorical else np.asarray(action) / 2.0
    return codec.encode(action[None])[0]


def written(schema, rows, episode):
    """The oracle's rows as columns `[K, width]`; rewards are float64."""
    layout = schema.layout
    columns = {name: np.zeros((len(rows), schema.width(name))) for name in schema.columns}
    columns["episodes"][:] = episode
    for k, row in enumerate(rows):
        columns["t"][k] = row["t"]
        for i, slot in enumerate(layout.slots):
            a = slot.agent
            for name, key in (("obs", "obs"), ("new_obs", "new_obs")):
                if a in row[key]:
                    columns[name][k, slot.obs] = row[key][a]
            if a in row["actions"]:
                columns["actions"][k, slot.actions] = coded(schema, a, row["actions"][a])
            columns["rewards"][k, i] = row["rewards"].get(a, 0.0)
            for name, key in (
                ("alive", "alive"),
                ("next_alive", "next_alive"),
                ("acts", "own"),
                ("acted", "acted"),
                ("next_acts", "next_acts"),
                ("terminateds", "terminated"),
                ("truncateds", "truncated"),
            ):
                columns[name][k, i] = a in row[key]
        if "number" in schema.columns:
            columns["number"][k], columns["new_number"][k] = row["state"], row["next_state"]
    return columns


def expected(schema, log, numbers=None):
    """The oracle's rows of all episodes, one after the other."""
    parts = [written(schema, rows_of_episode(AGENTS, played), (numbers or range(len(log)))[k]) for k, played in enumerate(log)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def records_of(schema, log):
    """Records and their rewards in float64, as loops write them: each step for itself."""
    rows, paid = [], []
    layout = schema.layout
    for episode, played in enumerate(log):
        seen, acting, before, ended = dict(played.first), set(played.first), played.state, set()
        for t, step in enumerate(played.steps):
            row = schema.empty(1)
            columns = {name: column[0] for name, column in schema.split(row).items()}
            columns["episodes"][:], columns["t"][:] = episode, t
            columns["number"][:], columns["new_number"][:] = before, step.state
            dead, cut = step.terminated, step.truncated - step.terminated
            joining = {a for a in step.observed if a not in seen and a not in ended | dead | cut}
            reward = np.zeros(len(layout))
            for i, slot in enumerate(layout.slots):
                a = slot.agent
                reward[i] = step.rewards.get(a, 0.0)
                if a in seen:
                    columns["obs"][slot.obs] = seen[a]
                    columns["alive"][i] = 1.0
                    columns["next_alive"][i] = a not in dead
                    columns["terminateds"][i], columns["truncateds"][i] = a in dead, a in cut
                if a in acting:
                    columns["actions"][slot.actions] = coded(schema, a, step.actions[a])
                    columns["acts"][i] = columns["acted"][i] = 1.0
                if a in seen or a in joining:
                    columns["new_obs"][slot.obs] = step.observed.get(a, seen.get(a))
                    columns["next_acts"][i] = a in step.observed and a not in dead
                if a in joining:
                    columns["next_alive"][i] = 1.0
            columns["rewards"][:] = reward
            seen |= {a: step.observed[a] for a in joining | (set(seen) & set(step.observed))}
            ended |= dead | cut
            seen = {a: o for a, o in seen.items() if a not in dead | cut}
            acting = {a for a in step.observed if a in seen}
            before = step.state
            rows.append(row)
            paid.append(reward)
    return np.concatenate(rows), np.stack(paid)
