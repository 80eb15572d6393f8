"""Updates from rows of games of turns: losses against loops over rows and agents, and who counts in which row."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from learner_games import build, env_steps
from turn_env import AGENTS, RandomTurns
from turn_records import NUMBER, play, records_of

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.rows.turns import OpenTurns, rows_of, turn_columns

GAMMA, DIMS = 0.8, {"a": 1, "b": 2, "c": 1, "d": 3}


class BoxTurns(RandomTurns):
    """All actions are vectors, so that nothing is drawn in an update."""

    def __init__(self, config=None):
        super().__init__(config)
        self.action_spaces = {a: gym.spaces.Box(-2.0, 2.0, (n,), np.float32) for a, n in DIMS.items()}


def learner_of(**settings):
    config = (
        MADDPGConfig()
        .environment(BoxTurns)
        .env_runners(turn_based=True)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .training(gamma=GAMMA, actor_lr=0.01, critic_lr=0.0, **settings)
        .debugging(seed=2)
    )
    return build(config)


def batch_of(learner, seed=5):
    """All rows of some games."""
    schema = learner.module["a"].unwrapped().model_config["schema"]
    noted = RowSchema(schema.layout, [NUMBER], turn_columns())
    log = play(BoxTurns({"length": 10}), None, 8, seed)
    rows = noted.split(rows_of(noted, *records_of(noted, log), OpenTurns(noted)))
    batch = schema.empty(len(rows["t"]))
    for name, values in schema.split(batch).items():
        if name in rows:
            values[:] = rows[name]
    return JointBatch(schema, torch.from_numpy(batch))


@torch.no_grad()
def losses_by_hand(learner, batch, others):
    """(critic loss, actor loss) of each agent before an update, which leaves critics as they are: their rate is 0."""
    columns = {name: column.numpy() for name, column in batch.columns.items()}
    slots = batch.layout.slots
    networks = {s.agent: learner.module[s.module].unwrapped() for s in slots}

    def acts(agent, observation, target):
        m, slot = networks[agent], next(s for s in slots if s.agent == agent)
        actor = m.target_actor if target else m.actor
        return slot.codec.greedy(actor(torch.from_numpy(observation[None])))[0].numpy()

    def q(agent, obs, actions, target):
        m = networks[agent]
        return float(
            m.q_values(m.target_critic if target else m.critic, torch.tensor(obs[None]), torch.tensor(actions[None]))[0, 0]
        )

    found = {}
    for i, slot in enumerate(slots):
        errors, values = [], []
        for k in range(len(batch)):
            if columns["acts"][k, i] == 0:
                continue
            next_obs, next_actions = np.zeros_like(columns["obs"][k]), np.zeros_like(columns["actions"][k])
            now = columns["actions"][k].copy()
            for j, other in enumerate(slots):
                if columns["next_alive"][k, j]:
                    next_obs[other.obs] = columns["new_obs"][k, other.obs]
                if columns["next_acts"][k, j]:
                    next_actions[other.actions] = acts(other.agent, columns["new_obs"][k, other.obs], True)
                if i == j or (others == "current" and columns["acted"][k, j]):
                    now[other.actions] = acts(other.agent, columns["obs"][k, other.obs], False)
            goes_on = 1.0 - columns["terminateds"][k, i]
            target = columns["rewards"][k, i] + GAMMA * goes_on * q(slot.agent, next_obs, next_actions, True)
            errors.append((q(slot.agent, columns["obs"][k], columns["actions"][k], False) - target) ** 2)
            values.append(q(slot.agent, columns["obs"][k], now, False))
        found[slot.agent] = np.mean(errors), -np.mean(values)
    return found


@pytest.mark.parametrize("others", ["recorded", "current"])
def test_losses_are_those_of_loops_over_rows_and_agents(others):
    """To 1e-5: sums of some 100 numbers of size 1 in float32."""
    settings = {} if others == "recorded" else {"others_actions": "current"}
    learner = learner_of(actor_output_reg=0.0, **settings)
    for module in learner.module.values():
        with torch.no_grad():
            for p in module.unwrapped().parameters():
                p.mul_(2.0)
    batch = batch_of(learner)
    columns = batch.columns
    assert (columns["acts"] < columns["acted"]).any() and (columns["next_acts"] < columns["next_alive"]).any()
    right = losses_by_hand(learner, batch, others)
    results = learner.update(batch=batch, timesteps=env_steps(1))
    for agent in AGENTS:
        found = [float(results[agent][name]) for name in ("critic_loss", "actor_loss")]
        assert found == pytest.approx(right[agent], rel=1e-5, abs=1e-5)


def test_moments_and_td_errors_count_each_turn_once():
    """What an agent observes again while it waits counts no more."""
    learner = learner_of(normalize_observations=True, normalize_rewards=True)
    batch = batch_of(learner)
    columns, layout = {name: column.numpy().copy() for name, column in batch.columns.items()}, batch.layout
    learner.collect_td_errors("mean")
    learner.update(batch=batch, timesteps=env_steps(1))
    for i, slot in enumerate(layout.slots):
        own = columns["acts"][:, i] > 0
        seen, moments = columns["obs"][own][:, slot.obs], learner.module[slot.module].unwrapped().moments
        assert 0 < own.sum() < (columns["alive"][:, i] > 0).sum()
        assert float(moments.obs_count) == own.sum()
        np.testing.assert_allclose(moments.obs_mean.numpy(), seen.mean(0), rtol=0, atol=1e-6)
        rewards = columns["rewards"][own, i].astype(float)
        np.testing.assert_allclose(moments.reward_squares.numpy(), np.square(rewards).sum(), rtol=1e-6)
    errors = learner.take_td_errors()
    # Somebody learns from each row.
    assert len(errors) == len(batch) and (errors > 0).all()
