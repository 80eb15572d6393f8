"""Random games with attention critics for the package's Learner."""

from __future__ import annotations

from typing import Any

import torch
from family_learners import family_config
from learner_games import build
from reference.attention import AttentionGame
from torch import Tensor

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning.learner import MADDPGTorchLearner


def attention_config(game: AttentionGame, **settings: Any) -> MADDPGConfig:
    config = family_config(game, critic_type="attention", **settings)
    model = {"critic_fcnet_hiddens": list(game.hiddens), "critic_attention_heads": game.heads}
    return config.rl_module(model_config={**config.model_config, **model})


def attention_learner(
    game: AttentionGame, double: bool = True, learner_class: type | None = None, **settings: Any
) -> MADDPGTorchLearner:
    """A Learner in this process with the game's weights."""
    config = attention_config(game, **settings)
    if learner_class is not None:
        config.training(learner_class=learner_class)
    learner = build(config, game, double=double)
    load_common(learner, game.common)
    return learner


def named(network: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters of an attention critic by the oracle's names."""
    names = {}
    for name, parameter in network.named_parameters():
        if name.startswith("head.layers."):
            linears = [k for k, layer in enumerate(network.head.layers) if isinstance(layer, torch.nn.Linear)]
            place, kind = name.removeprefix("head.layers.").split(".")
            name = f"{'W' if kind == 'weight' else 'b'}{linears.index(int(place))}"
        names[name] = parameter
    return names


@torch.no_grad()
def load_common(learner: MADDPGTorchLearner, common: dict[str, dict[str, Tensor]]) -> None:
    """Gives all modules that have these critics the weights."""
    for module_id in learner.module.keys():  # noqa: SIM118
        module = learner.module[module_id].unwrapped()
        for net, weights in common.items():
            for name, parameter in named(getattr(module, net)).items() if hasattr(module, net) else ():
                parameter.copy_(weights[name])


def common_of(learner: MADDPGTorchLearner, module_id: str, net: str) -> dict[str, Tensor]:
    """A copy of a module's critic's weights, by the oracle's names."""
    module = learner.module[module_id].unwrapped()
    return {name: p.detach().double().clone() for name, p in named(getattr(module, net)).items()}
