"""A plain transcription of MADDPG (Lowe et al. 2017, arXiv 1706.02275, Algorithm 1), to test against.

Everything is float64, written agent by agent and term by term, with no regard for speed. Nothing here comes from the
package under test.

What is known of the other agents in the gradient of agent i's actor is either what is in the replayed row
(``others_actions="replay"``, as in Algorithm 1) or what their current actors do (``"current"``).

Other members of the family are in ``family.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

NETS = ("actor", "critic", "target_actor", "target_critic")  # of plain MADDPG; a module may have more
TARGET = "target_"  # net "target_x" follows net "x"
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8

Layers = list[tuple[Tensor, Tensor]]  # per layer: W [out, in], b [out]


# ---------------------------------------------------------------------------------------------------------------------
# Data.


@dataclass(frozen=True)
class Box:
    """A real vector in [-1, 1]^dim."""

    dim: int
    head: str = "tanh"  # or "softmax"

    @property
    def code_dim(self) -> int:
        return self.dim


@dataclass(frozen=True)
class Discrete:
    """One of n actions; its code is a one-hot."""

    n: int

    @property
    def parts(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def code_dim(self) -> int:
        return self.n


@dataclass(frozen=True)
class MultiDiscrete:
    """One choice per part; the code is the one-hots of the parts, one after the other."""

    nvec: tuple[int, ...]

    @property
    def parts(self) -> tuple[int, ...]:
        return self.nvec

    @property
    def code_dim(self) -> int:
        return sum(self.nvec)


Kind = Box | Discrete | MultiDiscrete


@dataclass
class AgentRows:
    """One agent's share of B joint rows. The last four are 0 or 1, as float64."""

    obs: Tensor  # [B, o]; zeros where the agent did not act
    action: Tensor  # [B, a], the action's code; zeros where the agent did not act
    reward: Tensor  # [B]
    next_obs: Tensor  # [B, o]
    terminated: Tensor  # [B]
    alive: Tensor  # [B], still in the game at the row's start: the row counts in this agent's critic loss
    acting: Tensor  # [B], acted in this row: the row counts in this agent's actor loss
    next_acting: Tensor  # [B], would act at the next state: 0 if dead there, 1 at a time limit


Batch = dict[str, AgentRows]  # by agent
Noise = dict[str, Tensor]  # by agent: standard Gumbel noise [B, code dim]


@dataclass(frozen=True)
class Hyper:
    gamma: float = 0.95
    tau: float = 0.05
    actor_lr: float = 0.003
    critic_lr: float = 0.007
    grad_clip: float | None = None
    grad_clip_by: str = "global_norm"  # or "norm", "value"
    policy_reg: float = 0.001
    critic_loss: str = "mse"  # or "huber"
    huber_delta: float = 1.0
    others_actions: str = "replay"  # or "current"
    gumbel_softmax_temperature: float = 1.0
    critic_view: str = "all"  # or "own": the critic sees the observation and the action of its own agent only
    # Of other members only (family.py).
    twin_q: bool = False
    policy_delay: int = 1
    target_policy_noise: float = 0.0
    target_noise_clip: float = 0.5
    infer_other_policies: bool = False
    inferred_policy_entropy: float = 0.001
    inferred_lr: float | None = None
    inferred_target: str = "probabilities"  # or "greedy"
    exploration_temperature: float = 1.0
    num_sub_policies: int = 1  # more than one in ensembles.py only

    def lr(self, net: str) -> float:
        """Adam's rate for a net: that of actors, of approximations, or else of critics."""
        if net.startswith("inferred"):
            return self.inferred_lr
        return self.actor_lr if net.startswith("actor") else self.critic_lr


@dataclass
class UpdateRecord:
    """What one update computed. Each dict is by module id; all but ``weights`` have the trained modules only."""

    targets: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # y_i [B], by agent of the module
    q: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # Q_i(x, a) [B] before the step, by agent
    critic_loss: dict[str, float] = field(default_factory=dict)
    critic_grads: dict[str, list[Tensor]] = field(default_factory=dict)  # before clipping: W0, b0, W1, b1, ...
    actor_loss: dict[str, float] = field(default_factory=dict)
    actor_grads: dict[str, list[Tensor]] = field(default_factory=dict)  # before clipping: W0, b0, W1, b1, ...
    weights: dict[str, dict[str, Layers]] = field(default_factory=dict)  # after the update, by net of NETS


# ---------------------------------------------------------------------------------------------------------------------
# The pieces.


def mlp(layers: Layers, x: Tensor, activation: str) -> Tensor:
    for k, (w, b) in enumerate(layers):
        x = x @ w.T + b
        if k < len(layers) - 1:
            x = {"relu": torch.relu, "tanh": torch.tanh}[activation](x)
    return x


def hard_one_hot(scores: Tensor) -> Tensor:
    code = torch.zeros_like(scores)
    for row in range(scores.shape[0]):
        code[row, int(scores[row].argmax())] = 1.0
    return code


def greedy_action(kind: Kind, out: Tensor) -> Tensor:
    """The deterministic action's code from the head's output."""
    if isinstance(kind, Box):
        if kind.head == "tanh":
            return torch.tanh(out)
        assert kind.head == "softmax"
        return 2.0 * torch.softmax(out, dim=1) - 1.0
    return torch.cat([hard_one_hot(part) for part in out.split(kind.parts, dim=1)], dim=1)


def straight_through(kind: Discrete | MultiDiscrete, logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Straight-through Gumbel-Softmax: the value is a hard sample, the gradient is that of the soft one."""
    codes = []
    for part, g in zip(logits.split(kind.parts, dim=1), noise.split(kind.parts, dim=1), strict=True):
        y = torch.softmax((part + g) / temperature, dim=1)
        codes.append(hard_one_hot(y.detach()) + y - y.detach())
    return torch.cat(codes, dim=1)


def pointwise_loss(hyper: Hyper, e: Tensor) -> Tensor:
    if hyper.critic_loss == "mse":
        return e**2
    assert hyper.critic_loss == "huber"
    delta = hyper.huber_delta
    return torch.where(e.abs() < delta, 0.5 * e**2, delta * (e.abs() - 0.5 * delta))


def clip_gradients(grads: Sequence[Tensor], clip: float | None, by: str) -> list[Tensor]:
    """The gradients of one network, clipped."""
    if clip is None:
        return list(grads)
    if by == "value":
        return [g.clamp(-clip, clip) for g in grads]
    if by == "norm":
        return [g * min(1.0, clip / (float((g**2).sum()) ** 0.5 + 1e-6)) for g in grads]
    assert by == "global_norm"
    norm = sum(float((g**2).sum()) for g in grads) ** 0.5
    return [g * min(1.0, clip / (norm + 1e-6)) for g in grads]


class Adam:
    """Adam for one network."""

    def __init__(self, layers: Layers, lr: float):
        self.lr = lr
        self.t = 0
        self.m = [torch.zeros_like(p) for p in flat(layers)]
        self.v = [torch.zeros_like(p) for p in flat(layers)]

    def step(self, layers: Layers, grads: Sequence[Tensor]) -> Layers:
        self.t += 1
        new = []
        for k, (p, g) in enumerate(zip(flat(layers), grads, strict=True)):
            self.m[k] = BETA1 * self.m[k] + (1 - BETA1) * g
            self.v[k] = BETA2 * self.v[k] + (1 - BETA2) * g**2
            m_hat = self.m[k] / (1 - BETA1**self.t)
            v_hat = self.v[k] / (1 - BETA2**self.t)
            new.append(p - self.lr * m_hat / (v_hat.sqrt() + EPS))
        return unflat(new)


def polyak(target: Layers, source: Layers, tau: float) -> Layers:
    return unflat([tau * w + (1 - tau) * w_ for w, w_ in zip(flat(source), flat(target), strict=True)])


def flat(layers: Layers) -> list[Tensor]:
    """[W0, b0, W1, b1, ...]."""
    return [p for layer in layers for p in layer]


def unflat(tensors: Sequence[Tensor]) -> Layers:
    return [(tensors[k], tensors[k + 1]) for k in range(0, len(tensors), 2)]


def with_gradients(layers: Layers) -> Layers:
    return unflat([p.detach().clone().requires_grad_(True) for p in flat(layers)])


# ---------------------------------------------------------------------------------------------------------------------
# The algorithm.


class ReferenceMADDPG:
    """The networks of all modules, and the update of all of them.

    Args:
        agents: All agents, ordered by (module id, agent id).
        module_of: The module of each agent.
        kinds: The action kind of each agent.
        weights: ``weights[module][net]``, for net in NETS and any others: the layers. They are copied.
        hyper: The hyper-parameters, of all modules or by module.
        activation: "relu" or "tanh", of the hidden layers of all networks.
        frozen: The modules that are not trained.
    """

    def __init__(
        self,
        agents: Sequence[str],
        module_of: Mapping[str, str],
        kinds: Mapping[str, Kind],
        weights: Mapping[str, Mapping[str, Layers]],
        hyper: Hyper | Mapping[str, Hyper],
        activation: str = "relu",
        frozen: Sequence[str] | frozenset[str] = (),
    ):
        self.agents = list(agents)
        assert self.agents == sorted(agents, key=lambda agent: (module_of[agent], agent))
        self.module_of = dict(module_of)
        self.kinds = dict(kinds)
        self.activation = activation
        self.frozen = frozenset(frozen)
        self.modules = sorted({module_of[agent] for agent in agents})
        self.trained = [m for m in self.modules if m not in self.frozen]
        self.hyper = dict.fromkeys(self.modules, hyper) if isinstance(hyper, Hyper) else dict(hyper)
        self.weights: dict[str, dict[str, Layers]] = {
            m: {net: [(w.detach().double().clone(), b.detach().double().clone()) for w, b in nets[net]] for net in nets}
            for m, nets in weights.items()
        }
        self.adam = {
            (m, net): Adam(self.weights[m][net], self.hyper[m].lr(net))
            for m in self.trained
            for net in self.weights[m]
            if not net.startswith(TARGET)
        }

    # Networks.

    def agents_of(self, module: str) -> list[str]:
        return [agent for agent in self.agents if self.module_of[agent] == module]

    def head_output(self, agent: str, obs: Tensor, net: str = "actor", actor: Layers | None = None) -> Tensor:
        layers = self.weights[self.module_of[agent]][net] if actor is None else actor
        return mlp(layers, obs, self.activation)

    def joint_input(self, agent: str, obs: Mapping[str, Tensor], actions: Mapping[str, Tensor]) -> Tensor:
        """The input of the agent's critic: [all obs, all action codes, index in the module if it is shared].

        With ``critic_view="own"`` "all" is the agent itself.
        """
        seen = self.agents if self.hyper[self.module_of[agent]].critic_view == "all" else [agent]
        pieces = [obs[j] for j in seen] + [actions[j] for j in seen]
        sharers = self.agents_of(self.module_of[agent])
        if len(sharers) > 1:
            index = torch.zeros(obs[agent].shape[0], len(sharers), dtype=torch.float64)
            index[:, sharers.index(agent)] = 1.0
            pieces.append(index)
        return torch.cat(pieces, dim=1)

    def q_value(
        self,
        agent: str,
        obs: Mapping[str, Tensor],
        actions: Mapping[str, Tensor],
        net: str = "critic",
        critic: Layers | None = None,
    ) -> Tensor:
        """Q_i(x, a), [B]."""
        layers = self.weights[self.module_of[agent]][net] if critic is None else critic
        return mlp(layers, self.joint_input(agent, obs, actions), self.activation)[:, 0]

    # Critic.

    def target(self, agent: str, batch: Batch) -> Tensor:
        """y_i = r_i + gamma (1 - terminated_i) Q'_i(x', a'), with a'_j = mu'_j(o'_j) for every agent j."""
        next_obs, next_actions = {}, {}
        for j in self.agents:
            there = batch[j].next_acting[:, None]
            out = self.head_output(j, batch[j].next_obs, "target_actor")
            next_obs[j] = batch[j].next_obs * there
            next_actions[j] = greedy_action(self.kinds[j], out) * there
        q = self.q_value(agent, next_obs, next_actions, "target_critic")
        gamma = self.hyper[self.module_of[agent]].gamma
        return (batch[agent].reward + gamma * (1.0 - batch[agent].terminated) * q).detach()

    def critic_loss(self, module: str, batch: Batch, critic: Layers | None = None) -> Tensor:
        """The loss of the module's critic, a function of ``critic`` (default: the module's present critic)."""
        obs = {j: batch[j].obs for j in self.agents}
        actions = {j: batch[j].action for j in self.agents}
        total = torch.zeros((), dtype=torch.float64)
        count = 0.0
        for i in self.agents_of(module):
            e = self.q_value(i, obs, actions, critic=critic) - self.target(i, batch)
            total = total + (batch[i].alive * pointwise_loss(self.hyper[module], e)).sum()
            count += float(batch[i].alive.sum())
        return total / max(1.0, count)

    # Actor.

    def known_output(self, agent: str, obs: Tensor, to: str) -> Tensor:
        """The head output of ``agent``'s present policy, so far as agent ``to`` knows it: here, that of its actor."""
        return self.head_output(agent, obs)

    def others_action(self, agent: str, batch: Batch, noise: Noise, others_actions: str, to: str = "") -> Tensor:
        """The action of ``agent`` in the gradient of the actor of somebody else, agent ``to``."""
        if others_actions == "replay":
            return batch[agent].action
        assert others_actions == "current"
        kind = self.kinds[agent]
        out = self.known_output(agent, batch[agent].obs, to)
        if isinstance(kind, Box):
            action = greedy_action(kind, out)
        else:
            temperature = self.hyper[self.module_of[agent]].gumbel_softmax_temperature
            action = straight_through(kind, out, noise[agent], temperature)
        return (action * batch[agent].acting[:, None]).detach()

    def actor_loss(self, module: str, batch: Batch, noise: Noise, actor: Layers | None = None) -> Tensor:
        """The loss of the module's actor, a function of ``actor`` (default: the module's present actor).

        ``actor`` gives the own action of each agent of the module only; the others' actions, also those of agents of
        the same module, are by the present actors (or replayed).
        """
        obs = {j: batch[j].obs for j in self.agents}
        hyper = self.hyper[module]
        total = torch.zeros((), dtype=torch.float64)
        count = 0.0
        for i in self.agents_of(module):
            kind = self.kinds[i]
            out = self.head_output(i, obs[i], actor=actor)
            if isinstance(kind, Box):
                own = greedy_action(kind, out)
            else:
                own = straight_through(kind, out, noise[i], hyper.gumbel_softmax_temperature)
            others = {j: self.others_action(j, batch, noise, hyper.others_actions, i) for j in self.agents if j != i}
            actions = {i: own, **others}
            q = self.q_value(i, obs, actions)
            acting = batch[i].acting
            total = total + (acting * -q).sum()
            total = total + hyper.policy_reg * (acting * (out**2).mean(dim=1)).sum()
            count += float(acting.sum())
        return total / max(1.0, count)

    # Update.

    def update(self, batches: Batch | Mapping[str, Batch], noise: Noise | Mapping[str, Noise]) -> UpdateRecord:
        """One update of all trained modules.

        Args:
            batches: One batch (agent -> AgentRows) for all modules, or a batch per trained module (module -> batch).
            noise: Likewise (agent -> noise, or module -> agent -> noise).
        """
        shared = all(isinstance(value, AgentRows) for value in batches.values())
        if shared:
            batches = dict.fromkeys(self.trained, batches)
            noise = dict.fromkeys(self.trained, noise)
        record = UpdateRecord()

        # Critics.
        for m in self.trained:
            batch = batches[m]
            obs = {j: batch[j].obs for j in self.agents}
            actions = {j: batch[j].action for j in self.agents}
            record.targets[m] = {i: self.target(i, batch) for i in self.agents_of(m)}
            record.q[m] = {i: self.q_value(i, obs, actions) for i in self.agents_of(m)}
        record.critic_loss, record.critic_grads = self.step("critic", lambda m, net: self.critic_loss(m, batches[m], net))
        # Actors: by the critics just updated.
        record.actor_loss, record.actor_grads = self.step("actor", lambda m, net: self.actor_loss(m, batches[m], noise[m], net))
        self.move_targets()
        record.weights = copy.deepcopy(self.weights)
        return record

    def step(self, net: str, loss: Callable[[str, Layers], Tensor]) -> tuple[dict[str, float], dict[str, list[Tensor]]]:
        """One step of this net of all trained modules.

        Args:
            net: For example "critic".
            loss: The loss of a module as a function of its net's layers.

        Returns:
            By module the losses, and the gradients before clipping.
        """
        losses, grads = self.steps({m: [net] for m in self.trained}, lambda m, nets: loss(m, nets[net]))
        return losses, {m: own[net] for m, own in grads.items()}

    def steps(
        self, nets: Mapping[str, Sequence[str]], loss: Callable[[str, dict[str, Layers]], Tensor]
    ) -> tuple[dict[str, float], dict[str, dict[str, list[Tensor]]]]:
        """One step of several nets of some modules. All gradients are taken before any net changes.

        Args:
            nets: By module the names of nets that learn.
            loss: The loss of a module as a function of the layers of these, by name.

        Returns:
            By module the losses, and by module and net the gradients before clipping.
        """
        losses, grads = {}, {}
        for m, names in nets.items():
            layers = {net: with_gradients(self.weights[m][net]) for net in names}
            value = loss(m, layers)
            losses[m] = float(value.detach())
            grads[m] = {net: gradients(value, own) for net, own in layers.items()}
        for m, own in grads.items():
            for net in own:
                clipped = clip_gradients(own[net], self.hyper[m].grad_clip, self.hyper[m].grad_clip_by)
                self.weights[m][net] = self.adam[m, net].step(self.weights[m][net], clipped)
        return losses, grads

    def move_targets(self) -> None:
        """theta' <- tau theta + (1 - tau) theta', for each net that has a target."""
        for m in self.trained:
            nets = self.weights[m]
            for target in [net for net in nets if net.startswith(TARGET)]:
                nets[target] = polyak(nets[target], nets[target.removeprefix(TARGET)], self.hyper[m].tau)


def gradients(loss: Tensor, layers: Layers) -> list[Tensor]:
    """d loss / d each tensor; zeros if the loss does not depend on it."""
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in flat(layers)]
    grads = torch.autograd.grad(loss, flat(layers), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(flat(layers), grads, strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# Random games.


@dataclass
class Game:
    """A random heterogeneous game: what ReferenceMADDPG takes, and random rows of it."""

    agents: list[str]
    module_of: dict[str, str]
    kinds: dict[str, Kind]
    obs_dims: dict[str, int]
    weights: dict[str, dict[str, Layers]]
    hyper: Hyper
    activation: str
    frozen: frozenset[str]
    dead: bool  # rows have dead agents
    waiting: bool  # rows have agents that are alive and do not act

    @property
    def modules(self) -> list[str]:
        return sorted(set(self.module_of.values()))

    def reference(self) -> ReferenceMADDPG:
        return ReferenceMADDPG(self.agents, self.module_of, self.kinds, self.weights, self.hyper, self.activation, self.frozen)

    def with_hyper(self, **changes) -> Game:
        return replace(self, hyper=replace(self.hyper, **changes))

    def batch(self, size: int, seed: int) -> Batch:
        return random_batch(self, size, seed)

    def noise(self, size: int, seed: int) -> Noise:
        return random_noise(self, size, seed)

    def batches(self, size: int, seed: int) -> dict[str, Batch]:
        """Another batch for each module, of another size each."""
        return {m: random_batch(self, size + k, seed + 1000 * k) for k, m in enumerate(self.modules)}

    def noises(self, size: int, seed: int) -> dict[str, Noise]:
        """The noise that goes with ``batches``."""
        return {m: random_noise(self, size + k, seed + 1000 * k) for k, m in enumerate(self.modules)}


def random_layers(rng: np.random.Generator, sizes: Sequence[int]) -> Layers:
    """Layers of an MLP with the given sizes (input, hidden ..., output); biases are random too."""
    layers = []
    for n_in, n_out in pairwise(sizes):
        w = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in)
        b = 0.3 * rng.normal(size=n_out)
        layers.append((torch.tensor(w), torch.tensor(b)))
    return layers


def random_kind(rng: np.random.Generator, name: str) -> Kind:
    if name == "tanh":
        return Box(int(rng.integers(1, 4)), "tanh")
    if name == "softmax":
        return Box(int(rng.integers(2, 4)), "softmax")
    if name == "discrete":
        return Discrete(int(rng.integers(2, 5)))
    assert name == "multi_discrete"
    return MultiDiscrete(tuple(int(n) for n in rng.integers(2, 4, size=2)))


def random_weights(
    rng: np.random.Generator,
    agents: Sequence[str],
    module_of: Mapping[str, str],
    kinds: Mapping[str, Kind],
    obs_dims: Mapping[str, int],
    hidden: Sequence[int],
) -> dict[str, dict[str, Layers]]:
    """All four nets of every module, each drawn by itself (the targets differ from what they follow)."""
    joint = sum(obs_dims[a] for a in agents) + sum(kinds[a].code_dim for a in agents)
    weights = {}
    for m in sorted(set(module_of.values())):
        sharers = [a for a in agents if module_of[a] == m]
        index = len(sharers) if len(sharers) > 1 else 0
        actor_sizes = [obs_dims[sharers[0]], *hidden, kinds[sharers[0]].code_dim]
        critic_sizes = [joint + index, *hidden, 1]
        weights[m] = {net: random_layers(rng, actor_sizes if "actor" in net else critic_sizes) for net in NETS}
    return weights


def random_game(
    seed: int,
    *,
    n_agents: int | None = None,
    kinds: Sequence[str | Kind] | None = None,
    shared: bool | None = None,
    dead: bool | None = None,
    waiting: bool | None = None,
    frozen: bool | None = None,
    activation: str | None = None,
    hidden: Sequence[int] | None = None,
    obs_dim: int | None = None,
    hyper: Mapping[str, object] | None = None,
) -> Game:
    """A random game. Whatever is None is drawn.

    Args:
        seed: Seed of everything drawn.
        n_agents: 2 to 4 if drawn.
        kinds: The action kind per module, repeated as often as needed: a kind, or one of "tanh", "softmax",
            "discrete", "multi_discrete", whose dimensions are then drawn.
        shared: One module is shared by two agents or more.
        dead: Rows have dead agents.
        waiting: Rows have agents that are alive and do not act.
        frozen: One module is frozen.
        activation: "relu" or "tanh".
        hidden: The hidden layers' sizes, the same for all networks.
        obs_dim: Width of all observations.
        hyper: Hyper-parameters, over those drawn.
    """
    rng = np.random.default_rng(seed)
    draw_shared, draw_frozen = bool(rng.random() < 0.5), bool(rng.random() < 0.3)
    if n_agents is None:
        n_agents = int(rng.integers(3 if shared and frozen else 2, 5))
    if shared is None:
        shared = draw_shared and not (frozen and n_agents == 2)
    if frozen is None:
        frozen = draw_frozen and not (shared and n_agents == 2)
    assert not (shared and frozen and n_agents == 2), "no module would be trained"
    dead = bool(rng.random() < 0.5) if dead is None else dead
    waiting = bool(rng.random() < 0.5) if waiting is None else waiting
    activation = str(rng.choice(["relu", "tanh"])) if activation is None else activation
    hidden = [int(h) for h in rng.integers(3, 7, size=rng.integers(1, 3))] if hidden is None else list(hidden)

    # A frozen module leaves another one to train.
    sharers = int(rng.integers(2, n_agents + (0 if frozen else 1))) if shared else 1
    n_modules = n_agents - sharers + 1
    modules = [f"m{k}" for k in range(n_modules)]
    where = int(rng.integers(n_modules))  # the module that is shared
    # The agents' ids are in another order than their modules.
    names = [f"a{k}" for k in rng.permutation(n_agents)]
    module_of, module_kinds, module_obs = {}, {}, {}
    for k, m in enumerate(modules):
        for _ in range(sharers if k == where else 1):
            module_of[names.pop()] = m
        choices = ["tanh", "softmax", "discrete", "multi_discrete"]
        kind = str(rng.choice(choices)) if kinds is None else kinds[k % len(kinds)]
        module_kinds[m] = random_kind(rng, kind) if isinstance(kind, str) else kind
        drawn = int(rng.integers(1, 5))
        module_obs[m] = drawn if obs_dim is None else obs_dim
    agents = sorted(module_of, key=lambda agent: (module_of[agent], agent))
    agent_kinds = {a: module_kinds[module_of[a]] for a in agents}
    obs_dims = {a: module_obs[module_of[a]] for a in agents}

    drawn = {
        "gamma": float(rng.uniform(0.8, 0.99)),
        "tau": float(rng.uniform(0.01, 0.3)),
        "actor_lr": float(rng.uniform(0.001, 0.02)),
        "critic_lr": float(rng.uniform(0.001, 0.02)),
        "grad_clip": [None, 0.1, 0.5][rng.integers(3)],
        "grad_clip_by": str(rng.choice(["global_norm", "norm", "value"])),
        "policy_reg": float(rng.choice([0.0, 0.001, 0.1])),
        "critic_loss": str(rng.choice(["mse", "huber"])),
        "huber_delta": float(rng.uniform(0.3, 1.5)),
        "others_actions": str(rng.choice(["replay", "current"])),
        "gumbel_softmax_temperature": float(rng.uniform(0.5, 2.0)),
    }
    return Game(
        agents=agents,
        module_of=module_of,
        kinds=agent_kinds,
        obs_dims=obs_dims,
        weights=random_weights(rng, agents, module_of, agent_kinds, obs_dims, hidden),
        hyper=Hyper(**{**drawn, **(hyper or {})}),
        activation=activation,
        frozen=frozenset([modules[int(rng.integers(n_modules))]]) if frozen else frozenset(),
        dead=dead,
        waiting=waiting,
    )


def random_code(rng: np.random.Generator, kind: Kind) -> np.ndarray:
    if isinstance(kind, Box):
        return rng.uniform(-1, 1, size=kind.dim)
    return np.concatenate([np.eye(n)[rng.integers(n)] for n in kind.parts])


def random_batch(game: Game, size: int, seed: int) -> Batch:
    """Random joint rows.

    A row is in the middle of an episode, or ends it for all (terminated) or is cut by a time limit. With
    ``game.dead``, some agents are dead at the row's start (their entries are all zeros, but ``terminated``) and some
    die in the row. With ``game.waiting``, some that are alive do not act (obs and action are zeros, the reward is
    not). The next_obs of an agent that dies in the row is not zeros.
    """
    rng = np.random.default_rng(seed)
    rows = {a: [] for a in game.agents}
    for _ in range(size):
        alive = {a: not game.dead or rng.random() < 0.75 for a in game.agents}
        if not any(alive.values()):
            alive[game.agents[int(rng.integers(len(game.agents)))]] = True
        end = str(rng.choice(["no", "terminated", "time limit"], p=[0.7, 0.15, 0.15]))
        for a in game.agents:
            obs_dim, code = game.obs_dims[a], random_code(rng, game.kinds[a])
            acting = alive[a] and (not game.waiting or rng.random() < 0.7)
            dies = end == "terminated" or (end == "no" and game.dead and rng.random() < 0.2)
            next_acting = alive[a] and not dies
            if end == "no" and game.waiting and rng.random() < 0.3:
                next_acting = False
            rows[a].append(
                (
                    acting * rng.normal(size=obs_dim),
                    acting * code,
                    alive[a] * rng.normal(),
                    alive[a] * rng.normal(size=obs_dim),
                    float(dies or not alive[a]),
                    float(alive[a]),
                    float(acting),
                    float(next_acting),
                )
            )
    return {
        a: AgentRows(*(torch.tensor(np.array(column), dtype=torch.float64) for column in zip(*rows[a], strict=True)))
        for a in game.agents
    }


def random_noise(game: Game, size: int, seed: int) -> Noise:
    """Standard Gumbel noise for every agent; that of Box agents is not used."""
    rng = np.random.default_rng([seed, 1])
    return {a: torch.tensor(rng.gumbel(size=(size, game.kinds[a].code_dim))) for a in game.agents}
