"""The other members of MADDPG's family, transcribed as plainly as MADDPG in ``maddpg.py``, to test against.

- Inferred policies (Lowe et al. 2017, arXiv 1706.02275, section 4.2): each module learns approximations of the policies of
  all other modules' agents from what these did in the newest rows (equation 7), and its targets are by them (equation 8).
- MATD3 (Ackermann et al. 2019, arXiv 1910.01465; Fujimoto et al. 2018, arXiv 1802.09477): the smaller value of two critics,
  delayed actors and targets, smoothed target actions.
- Local critics: ``critic_view="own"``, in any combination with these.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reference.inferred_policies import divergence, entropy, log_likelihood, probabilities
from reference.maddpg import (
    TARGET,
    AgentRows,
    Batch,
    Box,
    Layers,
    Noise,
    ReferenceMADDPG,
    greedy_action,
    mlp,
    pointwise_loss,
)


@dataclass
class FamilyRecord:
    """What one update computed; of trained modules only, but for the weights.

    Attributes:
        targets: By module and agent y_i [B].
        q: Likewise Q_i(x, a) [B] of the first critic before the step.
        losses: By module and role.
        grads: By module and net, before clipping: W0, b0, W1, b1, ...
        reports: By module, before the step, "inferred_<agent>_...".
        weights: By module and net, after the update.
    """

    targets: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    q: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    losses: dict[tuple[str, str], float] = field(default_factory=dict)
    grads: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    reports: dict[str, dict[str, float]] = field(default_factory=dict)
    weights: dict[str, dict[str, Layers]] = field(default_factory=dict)


class ReferenceFamily(ReferenceMADDPG):
    """As ReferenceMADDPG, with more nets in ``weights``.

    These are "twin_critic" with ``twin_q``, and with ``infer_other_policies``, where the critic sees all agents, for the k-th
    of all modules, unless it is the module itself: "inferred_{k}", and if that has tanh boxes "inferred_{k}_std". All have
    targets but the latter.

    Attributes:
        updates: That were made.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.updates = 0
        (self.policy_delay,) = {hyper.policy_delay for hyper in self.hyper.values()}

    # Approximations.

    def inferred_modules(self, module: str) -> list[str]:
        """The modules whose policies this one infers."""
        hyper = self.hyper[module]
        if not hyper.infer_other_policies or hyper.critic_view == "own":
            return []
        return [m for m in self.modules if m != module]

    def inferred_net(self, module: str) -> str:
        """What the others call their approximation of this module's policy."""
        return f"inferred_{self.modules.index(module)}"

    def inferred_nets(self, module: str, other: str) -> list[str]:
        """The nets with which a module infers another one's policy."""
        kind = self.kinds[self.agents_of(other)[0]]
        net = self.inferred_net(other)
        return [net, f"{net}_std"] if isinstance(kind, Box) and kind.head == "tanh" else [net]

    def inferred_output(self, agent: str, obs: Tensor, layers: Layers) -> Tensor:
        """Head output of an approximation of the agent's policy."""
        sharers = self.agents_of(self.module_of[agent])
        if len(sharers) > 1:
            index = torch.zeros(len(obs), len(sharers), dtype=torch.float64)
            index[:, sharers.index(agent)] = 1.0
            obs = torch.cat([obs, index], dim=1)
        return mlp(layers, obs, self.activation)

    def inferred_head(
        self, module: str, agent: str, rows: AgentRows, nets: Mapping[str, Layers]
    ) -> tuple[Tensor, Tensor | None]:
        """Head output and rho, by these nets of the module."""
        name = self.inferred_net(self.module_of[agent])
        out = self.inferred_output(agent, rows.obs, nets[name])
        rho = mlp(nets[f"{name}_std"], rows.obs[:, :0], self.activation) if f"{name}_std" in nets else None
        return out, rho

    def inferred_loss(self, module: str, newest: Batch, nets: Mapping[str, Layers]) -> Tensor:
        """Equation 7 for all agents of other modules, a function of the module's approximations ``nets``."""
        hyper = self.hyper[module]
        total = torch.zeros((), dtype=torch.float64)
        for other in self.inferred_modules(module):
            gain = torch.zeros((), dtype=torch.float64)
            count = 0.0
            for j in self.agents_of(other):
                rows = newest[j]
                out, rho = self.inferred_head(module, j, rows, nets)
                good = log_likelihood(self.kinds[j], out, rho, rows.action, hyper)
                good = good + hyper.inferred_policy_entropy * entropy(self.kinds[j], out, rho, hyper)
                gain = gain + (rows.acting * good).sum()
                count += float(rows.acting.sum())
            total = total - gain / max(1.0, count)
        return total

    def inferred_reports(self, module: str, newest: Batch) -> dict[str, float]:
        """Means over the rows in which the agent acted."""
        hyper, reports = self.hyper[module], {}
        for other in self.inferred_modules(module):
            for j in self.agents_of(other):
                rows, kind = newest[j], self.kinds[j]
                out, rho = self.inferred_head(module, j, rows, self.weights[module])
                true_out = self.true_output(j, rows)
                count = max(1.0, float(rows.acting.sum()))
                mean = {
                    "log_likelihood": log_likelihood(kind, out, rho, rows.action, hyper),
                    "entropy": entropy(kind, out, rho, hyper),
                }
                if isinstance(kind, Box):
                    square = ((greedy_action(kind, out) - greedy_action(kind, true_out)) ** 2).mean(dim=1)
                    reports[f"inferred_{j}_rmse"] = float((rows.acting * square).sum() / count) ** 0.5
                else:
                    mean["kl"] = divergence(kind, out, true_out, hyper)
                reports |= {f"inferred_{j}_{name}": float((rows.acting * v).sum() / count) for name, v in mean.items()}
        return reports

    def true_output(self, agent: str, rows: AgentRows) -> Tensor:
        """Head output of the agent's own actor."""
        return self.head_output(agent, rows.obs)

    def known_output(self, agent: str, obs: Tensor, to: str) -> Tensor:
        if self.module_of[agent] in self.inferred_modules(self.module_of[to]):
            nets = self.weights[self.module_of[to]]
            return self.inferred_output(agent, obs, nets[self.inferred_net(self.module_of[agent])])
        return super().known_output(agent, obs, to)

    # Critics.

    def target_action(self, agent: str, obs: Tensor, to: str, z: Tensor) -> Tensor:
        """a'_j of ``agent``, as agent ``to`` knows it; ``z``: standard normal noise."""
        kind, owner = self.kinds[agent], self.module_of[agent]
        if owner in self.inferred_modules(self.module_of[to]):
            net, owner = TARGET + self.inferred_net(owner), self.module_of[to]
            out = self.inferred_output(agent, obs, self.weights[owner][net])
            as_probabilities = self.hyper[owner].inferred_target == "probabilities" and not isinstance(kind, Box)
        else:
            out = self.head_output(agent, obs, "target_actor")
            as_probabilities = False
        clip = self.hyper[owner].target_noise_clip
        noise = torch.clamp(self.hyper[owner].target_policy_noise * z, -clip, clip)
        if isinstance(kind, Box) and kind.head == "tanh":
            return torch.clamp(torch.tanh(out) + noise, -1.0, 1.0)
        return probabilities(kind, out + noise) if as_probabilities else greedy_action(kind, out + noise)

    def target(self, agent: str, batch: Batch, smoothing: Noise | None = None) -> Tensor:
        """y_i = r_i + gamma (1 - terminated_i) min over the module's critics of Q'_i(x', a'). Equation 8, TD3's equation 10.

        Args:
            agent: i.
            batch: The rows.
            smoothing: Standard normal noise [B, a], by agent; None is no noise.
        """
        next_obs, next_actions = {}, {}
        for j in self.agents:
            rows = batch[j]
            there = rows.next_acting[:, None]
            z = torch.zeros_like(rows.action) if smoothing is None else smoothing[j]
            next_obs[j] = rows.next_obs * there
            next_actions[j] = self.target_action(j, rows.next_obs, agent, z) * there
        hyper = self.hyper[self.module_of[agent]]
        q = self.q_value(agent, next_obs, next_actions, "target_critic")
        if hyper.twin_q:
            q = torch.minimum(q, self.q_value(agent, next_obs, next_actions, "target_twin_critic"))
        return (batch[agent].reward + hyper.gamma * (1.0 - batch[agent].terminated) * q).detach()

    def critics(self, module: str) -> list[str]:
        return ["critic", "twin_critic"] if self.hyper[module].twin_q else ["critic"]

    def critics_loss(self, module: str, batch: Batch, targets: Mapping[str, Tensor], nets: Mapping[str, Layers]) -> Tensor:
        """The sum of the losses of the module's critics ``nets``, all of which learn the same targets."""
        obs = {j: batch[j].obs for j in self.agents}
        actions = {j: batch[j].action for j in self.agents}
        total = torch.zeros((), dtype=torch.float64)
        for layers in nets.values():
            own, count = torch.zeros((), dtype=torch.float64), 0.0
            for i in self.agents_of(module):
                error = self.q_value(i, obs, actions, critic=layers) - targets[i]
                own = own + (batch[i].alive * pointwise_loss(self.hyper[module], error)).sum()
                count += float(batch[i].alive.sum())
            total = total + own / max(1.0, count)
        return total

    def actors(self, module: str) -> list[str]:
        return ["actor"]

    def actors_loss(self, module: str, batch: Batch, noise: Noise, nets: Mapping[str, Layers]) -> Tensor:
        """The loss of the module's actors ``nets``."""
        return self.actor_loss(module, batch, noise, nets["actor"])

    # Update.

    def update(
        self,
        batches: Batch | Mapping[str, Batch],
        noise: Noise | Mapping[str, Noise],
        newest: Batch | None = None,
        smoothing: Noise | Mapping[str, Noise] | None = None,
    ) -> FamilyRecord:
        """One update of all trained modules.

        Args:
            batches: One batch (agent -> AgentRows) for all modules, or a batch per trained module (module -> batch).
            noise: Standard Gumbel noise, likewise (agent -> noise, or module -> agent -> noise).
            newest: From which approximations learn; None: ``batches``, which must be one batch.
            smoothing: Standard normal noise of target actions, as ``noise``; None: none.
        """
        if newest is None:
            newest = batches
        if all(isinstance(value, AgentRows) for value in batches.values()):
            batches, noise, smoothing = (dict.fromkeys(self.trained, given) for given in (batches, noise, smoothing))
        self.updates += 1
        record = FamilyRecord()

        # Approximations.
        inferring = {m: self.inferred_modules(m) for m in self.trained if self.inferred_modules(m)}
        record.reports = {m: self.inferred_reports(m, newest) for m in inferring}
        nets = {m: [net for other in others for net in self.inferred_nets(m, other)] for m, others in inferring.items()}
        self.learn(record, "inferred", nets, lambda m, own: self.inferred_loss(m, newest, own))

        # Critics.
        for m in self.trained:
            batch = batches[m]
            obs = {j: batch[j].obs for j in self.agents}
            actions = {j: batch[j].action for j in self.agents}
            record.targets[m] = {i: self.target(i, batch, smoothing[m]) for i in self.agents_of(m)}
            record.q[m] = {i: self.q_value(i, obs, actions) for i in self.agents_of(m)}
        nets = {m: self.critics(m) for m in self.trained}
        self.learn(record, "critic", nets, lambda m, own: self.critics_loss(m, batches[m], record.targets[m], own))

        # Actors, by the first critic, and targets.
        if self.updates % self.policy_delay == 0:
            nets = {m: self.actors(m) for m in self.trained}
            self.learn(record, "actor", nets, lambda m, own: self.actors_loss(m, batches[m], noise[m], own))
            self.move_targets()
        record.weights = copy.deepcopy(self.weights)
        return record

    def learn(
        self,
        record: FamilyRecord,
        role: str,
        nets: Mapping[str, Sequence[str]],
        loss: Callable[[str, dict[str, Layers]], Tensor],
    ) -> None:
        """Steps of the nets of a role, as in ``steps``."""
        losses, grads = self.steps(nets, loss)
        record.losses |= {(m, role): value for m, value in losses.items()}
        record.grads |= {(m, net): own for m, by_net in grads.items() for net, own in by_net.items()}
