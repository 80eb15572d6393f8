"""The oracle's random games as RLlib games: the same spaces, weights, rows and noise for the package's Learner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import flatten_space
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from reference.maddpg import Batch, Box, Discrete, Game, Kind, Layers, Noise, flat
from torch import Tensor

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.rows.observations import is_flat_box

# Our column -> the oracle's name of it. Its `acting` is `alive`, so long as no agent of the game waits.
COLUMNS = {
    "obs": "obs",
    "actions": "action",
    "rewards": "reward",
    "new_obs": "next_obs",
    "terminateds": "terminated",
    "alive": "alive",
    "next_alive": "next_acting",
    "sub_policies": "sub_policy",  # of games with ensembles
}


class SpacesEnv(MultiAgentEnv):
    """An environment that has spaces and nothing else; `env_config`: `obs_spaces`, `action_spaces`."""

    def __init__(self, env_config: Mapping[str, Any]):
        super().__init__()
        self.observation_spaces = dict(env_config["obs_spaces"])
        self.action_spaces = dict(env_config["action_spaces"])
        self.possible_agents = list(self.observation_spaces)
        self.agents = list(self.observation_spaces)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        return {a: np.zeros(s.shape, np.float32) for a, s in self.observation_spaces.items()}, {}

    def step(self, action_dict: dict):
        raise NotImplementedError("The tests make the rows.")


# ---------------------------------------------------------------------------------------------------------------------
# The Learner of a game.


def action_space(kind: Kind) -> gym.Space:
    if isinstance(kind, Box):
        return gym.spaces.Box(0.0 if kind.head == "softmax" else -2.0, 1.0, (kind.dim,), np.float32)
    if isinstance(kind, Discrete):
        return gym.spaces.Discrete(kind.n)
    return gym.spaces.MultiDiscrete(kind.nvec)


def config_of(game: Game, config_class: type[MADDPGConfig] = MADDPGConfig, **settings: Any) -> MADDPGConfig:
    """The game and its hyper-parameters; `settings` go to `training()` on top of them."""
    hyper = dict(vars(game.hyper))
    hyper["actor_output_reg"] = hyper.pop("policy_reg")
    softmax = any(isinstance(kind, Box) and kind.head == "softmax" for kind in game.kinds.values())
    hidden = [len(b) for _, b in game.weights[game.modules[0]]["actor"][:-1]]
    agents = sorted(game.agents, reverse=True)  # not in the layout's order
    return (
        config_class()
        .environment(
            SpacesEnv,
            env_config={
                "obs_spaces": {a: gym.spaces.Box(-np.inf, np.inf, (game.obs_dims[a],), np.float32) for a in agents},
                "action_spaces": {a: action_space(game.kinds[a]) for a in agents},
            },
        )
        .multi_agent(
            policies=set(game.modules),
            policy_mapping_fn=game.module_of,
            policies_to_train=[m for m in game.modules if m not in game.frozen],
        )
        .rl_module(model_config={"fcnet_hiddens": hidden, "fcnet_activation": game.activation})
        .training(**{**hyper, "actor_head": "softmax" if softmax else "tanh", **settings})
        .debugging(seed=7)
    )


def spaces_of(config: MADDPGConfig) -> dict:
    """The spaces that an env runner would report: of the agents, and of the modules."""
    env = config.env(config.env_config)
    agents = env.observation_spaces, env.action_spaces
    vectors = {a: s if is_flat_box(s) else flatten_space(s) for a, s in agents[0].items()}
    modules = {config.policy_mapping_fn(a, None): (vectors[a], agents[1][a]) for a in env.possible_agents}
    return {INPUT_ENV_SINGLE_SPACES: tuple(map(gym.spaces.Dict, agents)), **modules}


def build(config: MADDPGConfig, game: Game | None = None, double: bool = False) -> MADDPGTorchLearner:
    """A Learner in this process, with the weights of `game` if one is given."""
    config.validate()
    learner = config.build_learner(spaces=spaces_of(config))
    if double:
        for module_id in game.modules:
            learner.module[module_id].double()
    if game is not None:
        load_weights(learner, game.weights)
    return learner


def build_group(config: MADDPGConfig, num_learners: int) -> LearnerGroup:
    """0: a Learner in this process; else so many Ray actors."""
    config = config.copy(copy_frozen=False).learners(num_learners=num_learners)
    config.validate()
    return config.build_learner_group(spaces=spaces_of(config))


@torch.no_grad()
def load_weights(learner: MADDPGTorchLearner, weights: Mapping[str, Mapping[str, Layers]]) -> None:
    for module_id, nets in weights.items():
        for net in nets:
            for param, value in zip(parameters(learner, module_id, net), flat(nets[net]), strict=True):
                param.copy_(value)


def parameters(learner: MADDPGTorchLearner, module_id: str, net: str) -> list[Tensor]:
    """W0, b0, W1, b1 ... of one network."""
    return list(getattr(learner.module[module_id].unwrapped(), net).parameters())


def weights_of(learner: MADDPGTorchLearner) -> dict[tuple[str, str], Tensor]:
    """A copy of each network's weights, as one float64 vector."""
    return {
        (m, net): torch.cat([p.detach().double().flatten() for p in parameters(learner, m, net)])
        for m in sorted(learner.module.keys())
        for spec in learner.module[m].unwrapped().network_specs
        for net in spec.attributes
    }


# ---------------------------------------------------------------------------------------------------------------------
# Rows and noise.


def columns_of(game: Game, batch: Batch) -> dict[str, dict[str, Tensor]]:
    """The rows as the Learner gets them: per module `[B, n, dim]` or `[B, n]`, float64."""
    known = vars(next(iter(batch.values())))
    names = COLUMNS | ({"later_rewards": "later"} if "later" in known else {})
    columns = {
        m: {
            column: torch.stack([getattr(batch[a], name) for a in game.agents if game.module_of[a] == m], 1)
            for column, name in names.items()
            if name in known
        }
        for m in game.modules
    }
    if "later_rewards" in names:
        rows = batch[game.agents[0]]
        columns[game.modules[0]] |= {"steps": rows.steps[:, None], "weights": rows.weight[:, None]}
    return columns


def multi_agent_batch(game: Game, batch: Batch) -> MultiAgentBatch:
    """The rows as the replay buffer gives them, float32."""
    columns = columns_of(game, batch)
    rows = len(columns[game.modules[0]]["rewards"])
    return MultiAgentBatch(
        {m: SampleBatch({c: v.numpy().astype(np.float32) for c, v in columns[m].items()}) for m in columns},
        env_steps=rows,
    )


def interleaved(batches: list[Batch]) -> Batch:
    """One batch in which row `r * M + d` is row r of the d-th of M batches."""
    return {
        agent: replace(
            batches[0][agent],
            **{
                name: torch.stack([getattr(batch[agent], name) for batch in batches], 1).flatten(0, 1)
                for name in vars(batches[0][agent])
            },
        )
        for agent in batches[0]
    }


class NextNoise:
    """The noise of a Learner's next update, computed otherwise: by the published SplitMix64 on unsigned numbers."""

    GAMMA = np.uint64(0x9E3779B97F4A7C15)

    def __init__(self, learner: MADDPGTorchLearner):
        self.keys = {kind: np.uint64(key % 2**64) for kind, key in learner._noise.keys().items()}
        self.number = np.uint64(learner._num_updates + 1)

    def draw(self, kind: str, rows: int, width: int, d: int = 0, of: int = 1) -> Tensor:
        """For the rows of the d-th of several batches of so many rows, which are interleaved: `[rows, width]` float64."""
        with np.errstate(over="ignore"):
            start = self._mix(self.keys[kind] + self.number * self.GAMMA)
            at = (np.arange(rows, dtype=np.uint64) * np.uint64(of) + np.uint64(d)) * np.uint64(width)
            elements = at[:, None] + np.arange(width, dtype=np.uint64)
            bits = self._mix(start + (elements + np.uint64(1)) * self.GAMMA)
        first, second = ((bits >> np.uint64(shift)) % np.uint64(2**23) for shift in (41, 18))
        u, v = ((part.astype(np.float64) + 0.5) / 2**23 for part in (first, second))
        noise = -np.log(-np.log(u)) if kind == "gumbel" else np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)
        return torch.from_numpy(noise)

    def _mix(self, z: np.ndarray) -> np.ndarray:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def draw_noise(game: Game, noise: NextNoise, rows: int, d: int = 0, of: int = 1, kind: str = "gumbel") -> Noise:
    """What the Learner will draw for the d-th of several interleaved batches, by agent; Gumbel noise is for no boxes."""
    in_order = [a for m in game.modules for a in game.agents if game.module_of[a] == m]
    widths = [game.kinds[a].code_dim for a in in_order]
    drawn = noise.draw(kind, rows, sum(widths), d, of).split(widths, 1)
    return {a: own for a, own in zip(in_order, drawn, strict=True) if kind == "normal" or not isinstance(game.kinds[a], Box)}


def env_steps(n: int) -> dict[str, int]:
    return {NUM_ENV_STEPS_SAMPLED_LIFETIME: n}


# ---------------------------------------------------------------------------------------------------------------------
# Several Learners.


def on_each(group: LearnerGroup, function) -> list:
    return [result.get() for result in group.foreach_learner(function)]


def start_noise(learner) -> None:
    """The noise of the first update of a run with the seed 3."""
    learner._num_updates = 0
    learner._noise.set_keys(learner._noise.keys_of(3))


def weights_and_noise(group: LearnerGroup) -> list[dict]:
    """Of each Learner: all weights, and which noise comes next."""

    def of(learner) -> dict:
        noise = [learner._num_updates, *learner._noise.keys().values()]
        return {**weights_of(learner), "noise": torch.tensor(noise)}

    return on_each(group, of)
