"""The oracle of critics that see the env's global state: ``critic_view="state"`` and ``"state+all"``, beside the other views.

Q_i(s, a_1 ... a_N) sees the state and all actions, Q_i(s, o_1 ... o_N, a_1 ... a_N) all observations, too. Targets see s'.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from reference.family import ReferenceFamily
from reference.family_games import FamilyGame, random_family_game
from reference.maddpg import TARGET, random_layers


class ReferenceWithState(ReferenceFamily):
    """As ReferenceFamily; ``now`` and ``then`` are the states s and s' of the rows of the next update, [B, S]."""

    now: Tensor
    then: Tensor

    def q_value(self, agent, obs, actions, net="critic", critic=None):
        self.shown = self.then if critic is None and net.startswith(TARGET) else self.now
        return super().q_value(agent, obs, actions, net, critic)

    def joint_input(self, agent: str, obs: Mapping[str, Tensor], actions: Mapping[str, Tensor]) -> Tensor:
        view = self.hyper[self.module_of[agent]].critic_view
        if view not in ("state", "state+all"):
            return super().joint_input(agent, obs, actions)
        pieces = [obs[j] for j in self.agents] if view == "state+all" else []
        pieces += [self.shown] + [actions[j] for j in self.agents]
        sharers = self.agents_of(self.module_of[agent])
        if len(sharers) > 1:
            index = torch.zeros(len(self.shown), len(sharers), dtype=torch.float64)
            index[:, sharers.index(agent)] = 1.0
            pieces.append(index)
        return torch.cat(pieces, dim=1)


class StateGame(FamilyGame):
    """A random game with a state of ``STATE_DIM`` numbers."""

    STATE_DIM = 5

    def reference(self) -> ReferenceWithState:
        return ReferenceWithState(
            self.agents, self.module_of, self.kinds, self.weights, self.hypers, self.activation, self.frozen
        )

    def states(self, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """s and s' of so many rows."""
        rng = np.random.default_rng([seed, 7])
        return tuple(torch.tensor(rng.normal(size=(size, self.STATE_DIM)).astype(np.float32)).double() for _ in range(2))


def random_state_game(seed: int, views: Mapping[str, str], **given: object) -> StateGame:
    """A random game of ``random_family_game`` in which modules have these views, "m0" to "m2", by default "all"."""
    game = random_family_game(seed, **given)
    own = {m: {**game.per_module.get(m, {}), "critic_view": views.get(m, "all")} for m in game.modules}
    game = StateGame(**{**vars(game), "per_module": own})
    shape, rng = game.reference(), np.random.default_rng([seed, 8])
    codes, observed = (sum(widths) for widths in ([k.code_dim for k in game.kinds.values()], game.obs_dims.values()))
    for m in game.modules:
        view, sharers = shape.hyper[m].critic_view, len(shape.agents_of(m))
        width = codes + (observed if view != "state" else 0) + (game.STATE_DIM if view != "all" else 0)
        hidden = [len(b) for _, b in game.weights[m]["actor"][:-1]]
        for net in shape.critics(m):
            for name in (net, TARGET + net):
                game.weights[m][name] = random_layers(rng, [width + (sharers if sharers > 1 else 0), *hidden, 1])
    return game
