"""What the joint rows of a game of turns are, in plain Python: agent by agent and step by step, from what was written down.

Nothing of `rllib_maddpg` is used here.
"""


def rows_of_episode(agents, played):
    """The rows of a `Played` episode, in order of (step at which they end, step at which they begin).

    Each is a dict: `t` (of its begin), `end`, `own` (agents whose transition it is), `acted`, `actions`, `obs`, `alive`,
    `new_obs`, `next_alive`, `next_acts`, `rewards`, `terminated`, `truncated`, `state`, `next_state`.
    """
    seen = dict(played.first)  # the latest observation of all in the game
    acting, ended = set(played.first), set()
    begun = {}  # agent -> [t, what was true then, rewards so far]
    before, rows = played.state, {}
    for t, step in enumerate(played.steps):
        assert set(step.actions) == acting
        then = {"obs": dict(seen), "alive": set(seen), "acted": set(acting), "actions": dict(step.actions), "state": before}
        for agent in acting:
            begun[agent] = [t, then, 0.0]
        for agent in begun:
            begun[agent][2] += step.rewards.get(agent, 0.0)
        # Who ends and is not in the game has never been.
        dead, cut = step.terminated & set(seen), (step.truncated - step.terminated) & set(seen)
        for agent, observation in step.observed.items():
            if agent in seen or agent not in ended | step.terminated | step.truncated:
                seen[agent] = observation
        here = dict(seen)
        acting = {agent for agent in step.observed if agent in seen and agent not in dead}
        after = {
            "new_obs": here,
            "next_alive": set(seen) - dead,
            "next_acts": set(acting),
            "next_state": step.state,
        }
        for agent in agents:
            if agent not in begun:
                continue
            if not (agent in dead or agent in acting or agent in cut):
                continue
            began, then, paid = begun.pop(agent)
            if agent in cut and agent not in acting:
                continue  # where it leads is not known
            row = rows.setdefault(
                (t, began),
                {"t": began, "end": t, **then, **after, "own": set(), "rewards": {}, "terminated": set(), "truncated": set()},
            )
            row["own"].add(agent)
            row["rewards"][agent] = paid
            if agent in dead:
                row["terminated"].add(agent)
            if agent in cut:
                row["truncated"].add(agent)
        for agent in dead | cut:
            del seen[agent]
        ended |= step.terminated | step.truncated
        acting -= cut
        before = step.state
    return [rows[key] for key in sorted(rows)]
