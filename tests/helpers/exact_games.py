"""Rows of games whose values are known exactly, critics' values of them, and actors that play a given policy."""

from __future__ import annotations

import numpy as np
import torch
from learner_games import parameters
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from reference.markov_games import AGENTS, MarkovGame, all_transitions

GAMMA = 0.9
# pi_j(s): both play differently in different states, and the chain neither ends nor stands still at once.
POLICIES = ((1, 0, 1, 0), (0, 1, 2, 0))


def joint_batch(obs, actions, rewards, new_obs, terminated, num_actions) -> MultiAgentBatch:
    """Rows of two agents that observe the same: obs `[B, d]`, actions and rewards `[B, 2]`, terminated `[B]`."""
    one = np.ones((len(obs), 1))
    columns = {
        agent: {
            "obs": obs[:, None],
            "actions": np.eye(n)[actions[:, i]][:, None],
            "rewards": rewards[:, i : i + 1],
            "new_obs": new_obs[:, None],
            "terminateds": terminated[:, None],
            "alive": one,
            "next_alive": one,
        }
        for i, (agent, n) in enumerate(zip(AGENTS, num_actions, strict=True))
    }
    return MultiAgentBatch(
        {a: SampleBatch({name: c.astype(np.float32) for name, c in columns[a].items()}) for a in AGENTS}, len(obs)
    )


def chain_rows(game: MarkovGame, copies: int) -> MultiAgentBatch:
    """All transitions, each as often in `copies` visits of its (s, a0, a1) as it is likely."""
    rows = [t for t in all_transitions(game) for _ in range(round(copies * t.probability))]
    assert len(rows) == copies * game.n_states * np.prod(game.n_actions)
    states = np.eye(game.n_states)
    return joint_batch(
        obs=states[[t.state for t in rows]],
        actions=np.array([t.actions for t in rows]),
        rewards=np.array([t.rewards for t in rows]),
        new_obs=states[[t.next_state for t in rows]],
        terminated=np.array([float(t.terminated) for t in rows]),
        num_actions=game.n_actions,
    )


@torch.no_grad()
def critic_values(learner, states: np.ndarray, num_actions: tuple[int, int], agents=AGENTS) -> np.ndarray:
    """Q_i(s, a0, a1) of these agents' critics, `[agents, states, a0, a1]`."""
    shape = (len(states), *num_actions)
    s, a0, a1 = (index.ravel() for index in np.indices(shape))
    obs = torch.tensor(np.concatenate([states[s]] * 2, 1), dtype=torch.float32)
    actions = torch.tensor(np.concatenate([np.eye(num_actions[0])[a0], np.eye(num_actions[1])[a1]], 1))
    networks = [learner.module[agent].unwrapped() for agent in agents]
    return np.stack([m.q_values(m.critic, obs, actions.float()).numpy().reshape(shape) for m in networks])


def fix_policies(learner, policies) -> None:
    """Linear actors of the first agents that choose `policies[j][s]` in state s; the targets, too."""
    for agent, policy in zip(AGENTS, policies, strict=False):
        for net in ("actor", "target_actor"):
            weight, bias = parameters(learner, agent, net)
            with torch.no_grad():
                weight.copy_(torch.tensor(np.eye(len(weight))[list(policy)].T))
                bias.zero_()
