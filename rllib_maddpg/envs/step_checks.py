"""What joint rows ask of one env step; both loops refuse the same in the same words."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Any

import numpy as np

from rllib_maddpg.envs.api import check_step_result
from rllib_maddpg.envs.errors import EnvFailure
from rllib_maddpg.rows.observations import ObservationError, Part

LIVES = (
    "An agent that has ended must stay away. Give each life an id of its own (`b_1`, `b_2`, ..., all of them in "
    "`possible_agents`); or keep the agent in the game, for PettingZoo by SuperSuit's black_death: "
    'env_config={"wrappers": ["black_death_v3"]}.'
)
_TURNS = (
    "If agents of this game act in turns, set `turn_based=True` in `.env_runners()`; else every agent in the game must be "
    "observed at every step."
)
_NO_TURN = "Who is observed acts next: observe an agent that is in the game, or end the episode."

_DICTS = [dict] * 5
_NUMBERS = {float, int, np.float64, np.float32}


def check_known(agents: Collection[Hashable], named: Collection[Hashable]) -> None:
    """Refuses agents that have no place in a joint row.

    Args:
        agents: All that have one.
        named: Those in what the env gave.

    Raises:
        EnvFailure: Naming the first that has none.
    """
    for agent in named:
        if agent not in agents:
            fix = "Add it to the env's `possible_agents`, with its spaces."
            raise EnvFailure(f"Agent {agent!r} is not one of {list(agents)}", fix, can_pass=False)


def is_sound(acted: Collection[Hashable], result: tuple | list) -> bool:
    """Whether a step has plainly nothing that `check_step` would refuse, as nearly all; a small part of its time.

    Args:
        acted: Those in the game up to this step.
        result: What the env's `step` gave.
    """
    if [*map(type, result)] != _DICTS:
        return False
    observations, rewards, *_ = result
    return observations.keys() == rewards.keys() == {*acted} and _NUMBERS.issuperset(map(type, rewards.values()))


def check_step(
    agents: Collection[Hashable], acted: Collection[Hashable], ended: Collection[Hashable], result: tuple | list
) -> None:
    """Refuses a step of which no joint row can be made, or whose row would leave something out.

    Args:
        agents: All agents that have a place in a row.
        acted: Those in the game up to this step.
        ended: Those whose part in this episode was over before it.
        result: What the env's `step` gave, its ends in the form of `ReadableEndings`.

    Raises:
        EnvFailure: Naming method or agent.
    """
    check_step_result(result)
    observations, rewards, terminateds, truncateds, _ = result
    check_known(agents, observations)
    check_known(agents, rewards)
    over = terminateds.get("__all__") or truncateds.get("__all__")
    for agent in acted:
        if agent not in observations:
            raise _not_observed(agent, acted, ended, observations, bool(over or truncateds.get(agent)))
    for agent in ended:
        if agent in observations and not (over or terminateds.get(agent) or truncateds.get(agent)):
            raise EnvFailure(f"Agent {agent!r} is observed after its end", LIVES, can_pass=False)
    for agent in acted:
        if agent not in rewards or not is_number(rewards[agent]):
            what = f"The reward of agent {agent!r} is {rewards.get(agent, 'missing')!r}"
            raise EnvFailure(what, "Every agent that acts gets a number.")
    check_no_reward_is_lost([agent for agent in rewards if agent not in acted], ended, rewards)


def check_first_turn(observations: Mapping[Hashable, Any]) -> None:
    """Refuses a reset of a game of turns after which nobody acts.

    Raises:
        EnvFailure: If nobody is observed.
    """
    if not observations:
        raise EnvFailure("`reset` gives no agent a turn: it observes nobody,", _NO_TURN, can_pass=False)


def check_turns(agents: Collection[Hashable], ended: Collection[Hashable], result: tuple | list) -> None:
    """Refuses a step of a game of turns of which no rows can be made, or whose rows would leave something out.

    Args:
        agents, ended, result: As in `check_step`.

    Raises:
        EnvFailure: Naming method or agent.
    """
    check_step_result(result)
    observations, rewards, terminateds, truncateds, _ = result
    check_known(agents, observations)
    check_known(agents, rewards)
    if terminateds.get("__all__") or truncateds.get("__all__"):
        acting = []
    else:
        acting = [agent for agent in observations if not (terminateds.get(agent) or truncateds.get(agent))]
        for agent in ended:
            if agent in acting:
                raise EnvFailure(f"Agent {agent!r} is observed after its end", LIVES, can_pass=False)
        if not acting:
            what = "`step` gives no agent a turn: it observes nobody that goes on, though the episode does,"
            raise EnvFailure(what, _NO_TURN, can_pass=False)
    for agent, reward in rewards.items():
        if not is_number(reward):
            raise EnvFailure(f"The reward of agent {agent!r} is {reward!r}", "Rewards are numbers; others may be left out.")
    check_no_reward_is_lost([agent for agent in rewards if agent in ended], ended, rewards)


def check_no_reward_is_lost(idle: Collection[Hashable], ended: Collection[Hashable], rewards: Mapping[Hashable, Any]) -> None:
    """Refuses a reward that belongs to no transition; zeros may be left out.

    Args:
        idle: Agents that did not act at this step.
        ended: Those whose part in the episode was over before it.
        rewards: agent -> reward.

    Raises:
        EnvFailure: Naming agent and reward.
    """
    for agent in idle:
        reward = rewards.get(agent)
        if reward is None or (is_number(reward) and not float(reward)):
            continue
        when = "after its end" if agent in ended else "at a step at which it does not act"
        raise EnvFailure(
            f"Agent {agent!r} gets the reward {reward!r} {when}",
            "A reward belongs to an action: pay it at the agent's last step, or to agents that still act; or keep the agent in "
            'the game (PettingZoo: env_config={"wrappers": ["black_death_v3"]}).',
            can_pass=False,
        )


def fitting(observation: Any, agent: Hashable, part: Part) -> np.ndarray:
    """The observation as an array of numbers; lists, tuples and scalars become arrays where that is what is meant.

    Args:
        observation: What the env gave, for an agent whose space is a Box.
        agent: Whose it is.
        part: That of the space.

    Returns:
        Its numbers `[size]`.

    Raises:
        EnvFailure: If it is not an array of numbers, or has another shape.
    """
    try:
        return part.numbers(observation)
    except ValueError as error:
        raise failure_of(ObservationError.of(agent, part, error)) from None


def failure_of(error: ObservationError) -> EnvFailure:
    """What a wrong observation is to the loops: an env's code observes it in every episode."""
    return EnvFailure(error.what, error.fix, can_pass=False)


def _not_observed(
    agent: Hashable, acted: Collection, ended: Collection, observations: Mapping[Hashable, Any], is_over: bool
) -> EnvFailure:
    if is_over:
        fix = "The target bootstraps from it: return it in the step that truncates the agent."
        return EnvFailure(f"Agent {agent!r} has no last observation, though it is truncated,", fix, can_pass=False)
    others = [other for other in observations if other not in acted and other not in ended]
    if others:
        what = f"Agent {agent!r} acted but was not observed, while agent {others[0]!r} was observed without having acted,"
        return EnvFailure(what, "This is a turn-based game. Set `turn_based=True` in `.env_runners()`.", can_pass=False)
    what = f"Agent {agent!r} has no observation, though it is in the game,"
    return EnvFailure(what, f"{_TURNS} An agent that is truncated needs its last observation.", is_turn=True)


def is_number(value: Any) -> bool:
    """Whether a reward can be one: a number, or what holds just one."""
    if isinstance(value, str | bytes):
        return False
    try:
        float(value)
    except (OverflowError, TypeError, ValueError):
        return False
    return True
