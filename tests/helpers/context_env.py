"""A game whose infos say what agents do not observe, and a Learner that looks at what it learns from."""

import numpy as np
from pettingzoo.utils import BaseParallelWrapper

from rllib_maddpg import MADDPGTorchLearner
from rllib_maddpg.envs import resolve_env


class InContext(BaseParallelWrapper):
    """Says where the landmarks are, which agents observe from where they stand only."""

    def _infos(self, agents):
        places = np.concatenate([landmark.state.p_pos for landmark in self.unwrapped.world.landmarks])
        return {agent: {"landmarks": places} for agent in agents}

    def reset(self, seed=None, options=None):
        observations, _ = super().reset(seed=seed, options=options)
        return observations, self._infos(observations)

    def step(self, actions):
        *result, _ = super().step(actions)
        return *result, self._infos(result[0])


def spread_in_context(config):
    return InContext(resolve_env("simple_spread")(config).env)


def landmarks_of(infos):
    return infos["agent_0"]["landmarks"]


class Reader(MADDPGTorchLearner):
    """Looks at what its updates learn from."""

    seen = []

    def _uncompiled_update(self, batch, **kwargs):
        obs, context = (batch.stack(self.layout.modules, name) for name in ("obs", "context"))
        self.seen.append((obs.clone(), context.clone(), batch.columns["t"].clone()))
        return super()._uncompiled_update(batch, **kwargs)
