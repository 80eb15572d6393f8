"""Quicker methods for mpe2's worlds, with the same results to the last bit.

mpe2 calls numpy on arrays of two numbers, where nearly all of its time goes into the calls. Here Python's floats do the
arithmetic. IEEE 754 fixes the results of + - * / and sqrt, so they are numpy's as long as the operations keep their order, and
here they do. Nothing is kept from step to step: a world may change between any two.
"""

import math
from functools import partial
from itertools import combinations
from operator import attrgetter
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
from mpe2._mpe_utils.core import Agent, AgentState, Entity, EntityState, World
from mpe2._mpe_utils.simple_env import SimpleEnv

# Discrete action -> direction.
_MOVES = ((0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))


def make_quick(raw: SimpleEnv) -> None:
    """Gives `raw` and its world quicker methods with the same results, in place of those that they have from mpe2's bases."""
    world = raw.world
    if world.dim_p == 2:
        if is_stock(raw, SimpleEnv, "_set_action"):
            raw._set_action = partial(set_action, raw)
        if is_stock(world, World, "entities", "step", "apply_environment_force", "get_collision_force", "integrate_state"):
            world.step = partial(step_world, world)
    quick_states = {EntityState: QuickEntityState, AgentState: QuickAgentState}
    make_sums_quick(raw.scenario)
    for entity in world.entities:
        entity.state.__class__ = quick_states.get(type(entity.state), type(entity.state))


def make_sums_quick(scenario: Any) -> None:
    """Has a scenario's own methods add up their arrays without the Python half of `np.sum`, which takes as long as the sum.

    The methods of this one scenario get another `np`; that of its module, and so of all others, stays.
    """
    for name in dir(type(scenario)):
        method = getattr(type(scenario), name)
        if isinstance(method, FunctionType) and method.__globals__.get("np") is np and name not in vars(scenario):
            quick = FunctionType(
                method.__code__, {**method.__globals__, "np": _QUICK_NUMPY}, name, method.__defaults__, method.__closure__
            )
            quick.__kwdefaults__ = method.__kwdefaults__
            setattr(scenario, name, MethodType(quick, scenario))


def _sum(values: Any, *args: Any, **kwargs: Any) -> Any:
    """`np.sum`."""
    if type(values) is np.ndarray and not args and not kwargs:
        return np.add.reduce(values, None)
    return np.sum(values, *args, **kwargs)


_QUICK_NUMPY = SimpleNamespace(**{**vars(np), "sum": _sum})


class QuickEntityState(EntityState):
    """Reads positions without the two Python calls that mpe2 spends on making sure that they are there."""

    p_pos = property(attrgetter("_p_pos"), EntityState.p_pos.fset)
    p_vel = property(attrgetter("_p_vel"), EntityState.p_vel.fset)


class QuickAgentState(QuickEntityState, AgentState):
    """Likewise, also for messages."""

    c = property(attrgetter("_c"), AgentState.c.fset)


def set_action(raw: SimpleEnv, parts: list, agent: Agent, *_: Any) -> None:
    """`SimpleEnv._set_action`: `parts` are the agent's move, if it is movable, and its message, if it is not silent."""
    action, x, y = agent.action, 0.0, 0.0
    if agent.movable:
        move = parts[0]
        if raw.continuous_actions:  # subtracted in the action's float32; there added to zeros, which leaves no -0.0
            x, y = 0.0 + float(move[2] - move[1]), 0.0 + float(move[4] - move[3])
        else:
            x, y = _MOVES[move]
        sensitivity = 5.0 if agent.accel is None else agent.accel
        x, y = x * sensitivity, y * sensitivity
    action.u = np.array([x, y])
    if not agent.silent and raw.continuous_actions:
        action.c = parts[-1]
    else:
        action.c = np.zeros(raw.world.dim_c)
        if not agent.silent:
            action.c[parts[-1]] = 1.0


def step_world(world: World) -> None:
    """`World.step` in two dimensions."""
    if world.scripted_agents:  # whose actions may be of any dtype
        World.step(world)
        return
    entities = world.entities
    # Motor noise, and below the noise on messages, is drawn where it always is.
    forces = [force if force is None else force.tolist() for force in world.apply_action_force([None] * len(entities))]
    # Only pairs in which both collide have a force; they come in the same order as among all pairs.
    colliders = [(i, entity, *entity.state.p_pos.tolist()) for i, entity in enumerate(entities) if entity.collide]
    for (a, entity_a, x_a, y_a), (b, entity_b, x_b, y_b) in combinations(colliders, 2):
        x, y = _collision_force(world, x_a - x_b, y_a - y_b, entity_a.size + entity_b.size)
        if entity_a.movable:
            u, v = forces[a] or (0.0, 0.0)
            forces[a] = (x + u, y + v)
        if entity_b.movable:
            u, v = forces[b] or (0.0, 0.0)
            forces[b] = (-x + u, -y + v)
    for entity, force in zip(entities, forces, strict=True):
        if entity.movable:
            _move(world, entity, force)
    for agent in world.agents:
        world.update_agent_state(agent)


def _collision_force(world: World, x: float, y: float, distance_min: float) -> tuple[float, float]:
    """`World.get_collision_force` on the first of two colliding entities, which is (x, y) away from the second."""
    distance = math.sqrt(x * x + y * y) or np.float64(0.0)  # by numpy's zero one can divide
    margin = world.contact_margin
    overlap = -(distance - distance_min) / margin
    # numpy's own function, since other libraries may round it otherwise. Far below 0 exp(overlap) is 0, and so is this.
    penetration = 0.0 if overlap < -750.0 else float(np.logaddexp(0.0, overlap)) * margin
    return world.contact_force * x / distance * penetration, world.contact_force * y / distance * penetration


def _move(world: World, entity: Entity, force: tuple[float, float] | None) -> None:
    """`World.integrate_state` for one entity."""
    state, dt, keep = entity.state, world.dt, 1 - world.damping
    position = state.p_pos
    (x, y), (u, v) = position.tolist(), state.p_vel.tolist()
    position[0], position[1] = x + u * dt, y + v * dt  # the same array, as there
    u, v = u * keep, v * keep
    if force is not None:
        mass = entity.mass
        u, v = u + force[0] / mass * dt, v + force[1] / mass * dt
    if entity.max_speed is not None:
        speed = math.sqrt(u * u + v * v)
        if speed > entity.max_speed:
            u, v = u / speed * entity.max_speed, v / speed * entity.max_speed
    state.p_vel = np.array([u, v])


def is_stock(thing: Any, base: type, *names: str) -> bool:
    """Whether `thing` has these attributes from `base`: neither its class nor itself puts others in their place."""
    return all(getattr(type(thing), name) is getattr(base, name) and name not in vars(thing) for name in names)
