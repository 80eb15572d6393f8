"""Critics and actors on an auction in turns whose values are known exactly."""

import numpy as np
import pytest
import torch
from bidding_game import BIDDERS, Bidding, seen
from learner_games import build, env_steps
from reference.bidding import CAP, FEE, VALUES, best_reply, expected_return, own_value, truthful

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.envs import ReadableEndings, SeededEpisodes
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.sampling.joint_sampler import JointSampler

GAMMA = 0.9


def cautious(value, price):
    """Raises to at most one less than the good is worth."""
    return int(price + 2 <= value)


POLICIES = (truthful, cautious)


def value_and_price(obs):
    return int(obs[:3].argmax()) + 1, int(obs[3:].argmax())


def played(schema, who):
    """Rows of all games in which the other one keeps to its policy, and `who` does all that it can: each way once."""
    env = SeededEpisodes(ReadableEndings(Bidding()), lambda number: number // 4)
    sampler = JointSampler(schema, [env], lambda number: None)
    layout = schema.layout
    turns = {"episode": -1, "number": 0}

    def act(obs):
        codes = np.zeros((1, layout.action_dim), np.float32)
        if env.episode != turns["episode"]:
            turns.update(episode=env.episode, number=0)
        for i, slot in enumerate(layout.slots):
            if not sampler._games.acting[0, i]:
                continue
            me = BIDDERS.index(slot.agent)
            action = POLICIES[me](*value_and_price(obs[0, slot.obs]))
            if me == who:
                action = (env.episode % 4) >> turns["number"] & 1
                turns["number"] += 1
            codes[0, slot.actions] = np.eye(2)[action]
        return codes

    rollout = sampler.sample(act, num_episodes=4 * len(VALUES)).rollout
    own = rollout.columns["acts"][:, layout.index(BIDDERS[who])] > 0
    return rollout.rows[own]


def test_both_sides_of_the_game_by_hand():
    """Values 3 and 2: the first raises to 1, the second to 2, the first to 3, the second passes."""
    assert own_value((3, 2), 0, 0, 1, (truthful, truthful), 1.0) == pytest.approx(0.0 - 2 * FEE + FEE)
    assert own_value((3, 2), 1, 1, 1, (truthful, truthful), 1.0) == pytest.approx(-FEE + FEE)
    mean = expected_return((truthful, truthful))
    assert sum(mean) == pytest.approx(np.mean([s for v in VALUES for s in [_surplus(v)]]))


def _surplus(values):
    """What both together get: the value less the price that is paid to nobody."""
    price, me = 0, 0
    while price < CAP and truthful(values[me], price):
        price, me = price + 1, 1 - me
    return values[1 - me] - price if price else 0.0


@pytest.mark.parametrize("settings", [{}, {"others_actions": "current"}], ids=str)
def test_critics_of_fixed_policies_reach_the_exact_values(settings):
    """In every situation and for each action, within 2 % of the range of values.

    At the first turn the second bidder is not in the game: the critic sees the mean over its values. A critic that bootstrapped
    from anybody else's turn, or missed what is paid between turns, would be off by tens of percents.
    """
    updates = 350
    config = (
        MADDPGConfig()
        .environment(Bidding)
        .rl_module(model_config={"fcnet_hiddens": [], "critic_fcnet_hiddens": [64]})
        .training(
            gamma=GAMMA,
            tau=0.1,
            actor_lr=0.0,
            critic_lr=[[0, 0.01], [updates // 2, 0.01], [updates, 0.0002]],
            grad_clip=None,
            **settings,
        )
        .debugging(seed=1)
    )
    learner = build(config)
    schema = learner.module["first"].unwrapped().model_config["schema"]
    _fix(learner)
    rows = np.concatenate([played(schema.stored, who) for who in (0, 1)])
    batch = JointBatch(schema, torch.from_numpy(rows))
    for k in range(1, updates + 1):
        learner.update(batch=batch, timesteps=env_steps(k))
    exact = _exact(batch)
    q = _judged(learner, batch)
    for who, agent in enumerate(BIDDERS):
        own = batch.columns["acts"][:, batch.layout.index(agent)] > 0
        spread = exact[who][own].max() - exact[who][own].min()
        assert own.sum() > 20 and spread > 1.0
        assert np.abs(q[who] - exact[who])[own].max() < 0.02 * spread


@torch.no_grad()
def _fix(learner):
    """Linear actors that keep to the policies; what they see is a one-hot each of value and price."""
    for agent, policy in zip(BIDDERS, POLICIES, strict=True):
        for net in ("actor", "target_actor"):
            weight, bias = getattr(learner.module[agent].unwrapped(), net).parameters()
            # Raises where price + 1 <= value + margin: linear in both.
            values, prices = np.arange(1, 4), np.arange(CAP)
            margin = 0 if policy is truthful else -1
            raising = np.concatenate([values + margin + 0.5, -(prices + 1.0)])
            weight.copy_(torch.tensor(np.stack([np.zeros(3 + CAP), 20 * raising])))
            bias.zero_()
            for value in values:
                for price in prices:
                    chosen = (weight @ torch.tensor(seen(value, price))).argmax()
                    assert int(chosen) == policy(value, price)


def _exact(batch):
    """Of each row the exact value of what was done in it, for the first bidder and the second."""
    columns, layout = batch.columns, batch.layout
    found = np.zeros((2, len(batch)))
    for k in range(len(batch)):
        who = 0 if columns["acts"][k, layout.index("first")] > 0 else 1
        slots = [layout.slots[layout.index(agent)] for agent in BIDDERS]
        value, price = value_and_price(columns["obs"][k, slots[who].obs])
        action = int(columns["actions"][k, slots[who].actions].argmax())
        others = [value_and_price(columns["obs"][k, slots[1 - who].obs])[0]]
        if not columns["alive"][k, layout.index(BIDDERS[1 - who])]:
            others = [1, 2, 3]
        pairs = [(value, other) if who == 0 else (other, value) for other in others]
        found[who, k] = np.mean([own_value(pair, price, who, action, POLICIES, GAMMA) for pair in pairs])
    return found


@torch.no_grad()
def _judged(learner, batch):
    obs, actions = batch.columns["obs"], batch.columns["actions"]
    modules = [learner.module[agent].unwrapped() for agent in BIDDERS]
    return np.stack([m.q_values(m.critic, obs, actions)[..., 0].numpy() for m in modules])


def test_the_best_reply_is_known():
    value, table = best_reply(truthful)
    assert value > expected_return((truthful, truthful))[0] + 0.01
    assert expected_return([lambda v, p: table[v, p], truthful])[0] == value
