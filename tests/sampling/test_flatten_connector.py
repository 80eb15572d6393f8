"""Nested and discrete observations in RLlib's pipeline: rows, checkpoints, recordings, and what does not fit."""

import json
import re
import shutil

import gymnasium as gym
import numpy as np
import pyarrow.parquet as pq
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from ray.rllib.connectors.env_to_module import EnvToModulePipeline
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from runners import make_runner

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.algorithm.checkpoint_files import HAS_HASHES, HASHES_FILE, METADATA_FILE
from rllib_maddpg.ray_compat import FlattenObservations, since

TWIN = MultiDiscrete([[2, 3], [1, 2]], start=[[1, -1], [0, 5]])
SPACES = {
    "cell": Discrete(4, start=-2),
    "nested": Dict(z=Discrete(2, start=5), a=Tuple([Box(-1, 1, (2, 1)), MultiDiscrete([2, 2])])),
    "plain": Box(-1, 1, (2,)),
    "twin 1": TWIN,
    "twin 2": TWIN,
}
END = 4  # step at which "cell" leaves; the episode has one more


class Seer(MultiAgentEnv):
    """Agents observe samples of their spaces, as lists where arrays are meant; `bad` is seen by one agent at step 3.

    Attributes:
        seen: Per episode and step, agent -> observation as the space has it.
    """

    def __init__(self, config):
        super().__init__()
        self.possible_agents = self.agents = list(SPACES)
        self.observation_spaces, self.action_spaces = dict(SPACES), {agent: Discrete(3) for agent in SPACES}
        self.bad, self.seen = config.get("bad"), []
        for i, agent in enumerate(SPACES):
            SPACES[agent].seed(i)

    def reset(self, *, seed=None, options=None):
        self.time, self.agents = 0, list(SPACES)
        self.seen.append([])
        return self._observe(), {}

    def step(self, actions):
        self.time += 1
        observations, rewards = self._observe(), dict.fromkeys(actions, 1.0)
        ends = {"__all__": False, **({"cell": True} if self.time == END else {})}
        if self.time == END:
            self.agents = [agent for agent in self.agents if agent != "cell"]
        return observations, rewards, ends, {"__all__": self.time == END + 1}, {}

    def _observe(self):
        self.seen[-1].append({agent: self.observation_spaces[agent].sample() for agent in self.agents})
        observations = {agent: self._as_given(value) for agent, value in self.seen[-1][-1].items()}
        return {**observations, **self.bad} if self.bad and self.time == 3 else observations

    def _as_given(self, value):
        if isinstance(value, dict):
            return {key: self._as_given(part) for key, part in value.items()}
        if isinstance(value, tuple):
            return tuple(map(self._as_given, value))
        return value.tolist() if np.ndim(value) else value


def module_of(agent, episode=None, **kwargs):
    return agent.split()[0]


def with_modules(config):
    config.multi_agent(policies={module_of(agent) for agent in SPACES}, policy_mapping_fn=module_of)


def small(env=Seer, **env_config):
    config = MADDPGConfig().environment(env, env_config=env_config).rl_module(model_config={"fcnet_hiddens": [8]})
    with_modules(config)
    config.training(train_batch_size_per_learner=8, num_env_steps_per_update=5, num_steps_sampled_before_learning_starts=10)
    return config.reporting(min_sample_timesteps_per_iteration=20).debugging(seed=0)


def vector(agent, observation):
    return gym.spaces.flatten(SPACES[agent], observation).astype(np.float32)


@pytest.mark.parametrize("fast", [False, True])
def test_rows_hold_the_vectors_of_gymnasium(fast):
    runner = make_runner(Seer, fast=fast, change=with_modules)
    assert runner._is_fast() == fast
    columns = runner.sample(num_timesteps=7, explore=True)[0].columns  # in the middle of the second episode
    layout, env = runner.layout, runner.env.envs[0].unwrapped
    steps = [(0, t) for t in range(END + 1)] + [(1, 0), (1, 1)]
    assert len(columns["obs"]) == len(steps)
    for row, (episode, t) in enumerate(steps):
        for i, slot in enumerate(layout.slots):
            acts = slot.agent != "cell" or t < END
            now, then = (env.seen[episode][t], env.seen[episode][t + 1]) if acts else ({}, {})
            for column, seen in (("obs", now), ("new_obs", then)):
                expected = vector(slot.agent, seen[slot.agent]) if acts else 0.0
                np.testing.assert_array_equal(columns[column][row, slot.obs], expected)
            assert columns["alive"][row, i] == acts
            # Who terminates is not in the next state, but has observed it.
            assert columns["next_alive"][row, i] == (slot.agent != "cell" or t < END - 1)
    runner.stop()


@pytest.fixture(scope="module")
def trained(ray_session, tmp_path_factory):
    """A checkpoint."""
    path = tmp_path_factory.mktemp("seer") / "checkpoint"
    algo = small().build_algo()
    result = algo.train()
    assert np.isfinite([result["learners"][module]["critic_loss"] for module in algo.layout.modules]).all()
    algo.save_to_path(str(path))
    algo.stop()
    return path


def test_rllib_restores_the_pipeline(trained):
    pipeline = EnvToModulePipeline.from_checkpoint(str(trained / "env_runner" / "env_to_module_connector"))
    env = Seer({})
    episode = MultiAgentEpisode(observations=[env.reset()[0]], agent_to_module_mapping_fn=module_of)
    batch = pipeline(rl_module=None, batch={}, episodes=[episode], explore=False, shared_data={})
    for agent in ("cell", "nested", "plain"):
        np.testing.assert_array_equal(batch[agent]["obs"][0], vector(agent, env.seen[0][0][agent]))
    assert {type(piece).__name__ for piece in pipeline.connectors} >= {"FlattenAgentObservations"}


def test_a_checkpoint_with_other_columns_is_refused(trained, tmp_path):
    old = tmp_path / "as earlier versions have written it"
    shutil.copytree(trained, old)
    (old / HASHES_FILE).unlink()
    metadata = json.loads((old / METADATA_FILE).read_text())
    del metadata[HAS_HASHES]
    for agent in metadata["layout"]["agents"]:
        del agent["observes"]
    (old / METADATA_FILE).write_text(json.dumps(metadata))
    algo = small().build_algo()
    try:
        algo.restore_from_path(str(trained))
        with pytest.raises(
            ValueError, match=r"made by a version that put the observations of agent 'cell', Discrete\(4, start=-2\)"
        ):
            algo.restore_from_path(str(old))
    finally:
        algo.stop()


def test_recordings_hold_the_vectors(tmp_path):
    runner = make_runner(Seer, change=lambda config: (with_modules(config), config.offline_data(output=str(tmp_path))))
    runner.sample(num_episodes=1, explore=True)
    seen = runner.env.envs[0].unwrapped.seen[0]
    runner.stop()
    table = pq.read_table(tmp_path / "training")
    for agent in SPACES:
        np.testing.assert_array_equal(table[f"{agent}/obs"][2].as_py(), vector(agent, seen[2][agent]))


BAD = {
    "cell": (7, r"Agent 'cell': observation is 7, outside of its space: whole numbers from -2 to 1"),
    "nested": ({"z": 5, "a": ([[0], [0]], ["x", 0])}, r"Agent 'nested': observation\.a\.1 is \['x', 0\], not an array of num"),
    "twin 2": ([[1, 0]], r"Agent 'twin 2': observation has shape \(1, 2\), not \(2, 2\)"),
}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("agent", BAD)
def test_what_does_not_fit_is_named_with_its_step(agent, fast):
    observation, message = BAD[agent]
    runner = make_runner(Seer, {"bad": {agent: observation}}, fast=fast, change=with_modules)
    assert re.search(rf"{message}.* at step 3 of the episode.* Let the env observe", runner.sample(num_timesteps=5)[0].error)
    runner.stop()


def test_what_does_not_fit_on_a_remote_runner_is_named(ray_session):
    algo = small(bad={"cell": 7}).env_runners(num_env_runners=1, env_runner_fast_path=False).build_algo()
    with pytest.raises(ValueError, match=r"Agent 'cell': observation is 7.* at step 3 of the episode"):
        algo.train()
    algo.stop()


def with_rllibs(config, **kwargs):
    make = FlattenObservations
    config.env_runners(env_to_module_connector=lambda env, spaces, device: make(multi_agent=True, **kwargs))


class Plain(Seer):
    """What RLlib flattens right."""

    def __init__(self, config):
        super().__init__(config)
        self.observation_spaces = {agent: Dict(b=Discrete(3), a=Box(-1, 1, (1,))) for agent in SPACES}


def test_rllibs_connector_stays_where_the_user_has_put_it():
    runner = make_runner(Plain, change=with_rllibs)
    names = [type(piece).__name__ for piece in runner._env_to_module.connectors]
    assert names.count("FlattenObservations") == 1 and "FlattenAgentObservations" not in names
    row = runner.sample(num_timesteps=1, explore=True)[0].columns["obs"][0, :4]
    first = runner.env.envs[0].unwrapped.seen[0][0]["cell"]
    np.testing.assert_array_equal(row, [*first["a"], *np.eye(3)[first["b"]]])  # sorted by key
    runner.stop()


def test_rllibs_connector_is_refused_where_it_is_wrong():
    with pytest.raises(ValueError, match=r"FlattenObservations makes wrong one-hots of agent 'cell'.*Leave it out"):
        make_runner(Seer, change=lambda config: with_rllibs(config, agent_ids=["cell", "plain"]))
    if not since("2.52"):  # RLlib's own fails for some of the agents
        return
    runner = make_runner(Seer, change=lambda config: with_rllibs(config, agent_ids=["plain"]))  # ours does the rest
    assert runner.layout.obs_dim == sum(gym.spaces.flatdim(space) for space in SPACES.values())
    runner.stop()
