"""The examples of deployment: episodes without Ray, which equal RLlib's own, and actors behind HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import gymnasium as gym
import numpy as np
import pytest
import torch
from paths import EXAMPLES

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.deploy.export import export_actors
from rllib_maddpg.deploy.maddpg_actors import load_actors
from rllib_maddpg.runs.evaluation import evaluate_checkpoint, restored_runner

SEED = 11
EPISODES = 2


def save(env, env_config, folder):
    """A checkpoint of networks with larger last layers than fresh ones have, so that actions differ."""
    config = MADDPGConfig().environment(env, env_config=env_config).debugging(seed=5)
    algo = config.rl_module(model_config={"fcnet_hiddens": [16, 16]}).build_algo()
    for module in algo.learner_group._learner.module.values():
        with torch.no_grad():
            for parameter in list(module.unwrapped().actor.parameters())[-2:]:
                parameter *= 20.0
    algo.save_to_path(str(folder))
    algo.stop()
    return folder


class Witness(gym.Wrapper):
    """Keeps the actions of each episode."""

    def __init__(self, env):
        super().__init__(env)
        self.played = []

    def reset(self, **kwargs):
        self.played.append([])
        return self.env.reset(**kwargs)

    def step(self, actions):
        self.played[-1].append(actions)
        return self.env.step(actions)


def plain_python(*args, **kwargs):
    """A Python process that does not know this package."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, env=environment, **kwargs)


@pytest.mark.parametrize(
    ("env", "continuous", "file_format"),
    [("simple_adversary", True, "onnx"), ("simple_speaker_listener", False, "safetensors")],
)
def test_exported_actors_play_the_games_of_rllib(ray_session, tmp_path, env, continuous, file_format):
    path = save(env, {"continuous_actions": continuous, "max_cycles": 25}, tmp_path / "checkpoint")
    folder = export_actors(path, file_format, tmp_path / "out").folder
    runner = restored_runner(path, EPISODES, SEED, num_envs=EPISODES)
    witnesses = [Witness(seeded.env) for seeded in runner.env.envs]
    for seeded, witness in zip(runner.env.envs, witnesses, strict=True):
        seeded.env = witness
    runner.sample(num_timesteps=EPISODES * 25, explore=False)
    runner.stop()

    script = f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(EXAMPLES)!r})
import play_exported as p
actors = p.load(Path({str(folder)!r}))
env = p.make_env(actors.manifest)
games = [p.play(env, actors, p.episode_seed({SEED}, n)) for n in range({EPISODES})]
assert not {{"ray", "rllib_maddpg", "torch"}} & set(sys.modules)
plain = [(returns, [{{a: x.tolist() for a, x in step.items()}} for step in steps]) for returns, steps in games]
print(json.dumps(plain))
"""
    result = plain_python("-c", script)
    assert result.returncode == 0, result.stderr
    games = json.loads(result.stdout.splitlines()[-1])
    evaluation = evaluate_checkpoint(path, EPISODES, SEED)
    for (_, steps), witness in zip(games, witnesses, strict=True):
        expected = witness.played[0]
        assert len(steps) == len(expected) == 25
        for mine, theirs in zip(steps, expected, strict=True):
            assert mine.keys() == theirs.keys()
            for agent, action in theirs.items():
                # Rounding adds up along an episode: each state comes of all the actions before.
                np.testing.assert_allclose(mine[agent], action, atol=1e-4 if continuous else 0)
    for agent, estimate in evaluation.agents.items():
        mean = sum(returns[agent] for returns, _ in games) / EPISODES
        assert mean == pytest.approx(estimate.mean, abs=1e-3)
    team = [sum(returns.values()) for returns, _ in games]
    assert sum(team) / EPISODES == pytest.approx(evaluation.team.mean, abs=1e-3)

    shown = plain_python(str(EXAMPLES / "play_exported.py"), str(folder), "--seed", str(SEED), "--episodes", str(EPISODES))
    lines = [line for line in shown.stdout.splitlines() if line.startswith("episode")]
    assert [line.split(" (")[0] for line in lines] == [
        f"episode {n}: team return {x:.3f} in 25 steps" for n, x in enumerate(team)
    ]


def test_an_env_that_is_no_scenario_is_not_played(ray_session, tmp_path):
    folder = export_actors(save("Pendulum-v1", {}, tmp_path / "checkpoint"), "safetensors", tmp_path / "out").folder
    result = plain_python(str(EXAMPLES / "play_exported.py"), str(folder))
    assert result.returncode == 1
    assert "Pendulum-v1 is not a bare mpe2 scenario" in result.stderr


def ask(url, body=None):
    """Status and JSON of a request; `body` None: GET."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_actors_answer_over_http(ray_session, tmp_path):
    path = save("simple_adversary", {"continuous_actions": True, "max_cycles": 5}, tmp_path / "checkpoint")
    folder = export_actors(path, "safetensors", tmp_path / "out").folder
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "serve.py"), str(folder), "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
    log = (tmp_path / "log.txt").open("w")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        served = next((line for line in server.stdout if line.startswith("Serving on")), "")
        assert served, (tmp_path / "log.txt").read_text()
        url = f"http://127.0.0.1:{port}/"
        assert url in served
        actors = load_actors(folder)
        rng = np.random.default_rng(0)
        for agent in actors:
            observation = rng.standard_normal(actors[agent].inputs[0]["shape"]).astype(np.float32).tolist()
            status, answer = ask(url, {"agent": agent, "observation": observation})
            assert status == 200
            np.testing.assert_array_equal(np.float32(answer["action"]), actors[agent](observation))
        status, answer = ask(url)
        assert status == 200 and answer["agent_0"]["observation"][0]["shape"] == [10]
        for body, message in (
            ({"agent": "agent_0", "observation": [1.0]}, "observation has shape [1], not [10]"),
            ({"agent": "agent_9", "observation": [1.0]}, "There is no agent 'agent_9'. There are: ['adversary_0'"),
            ({"agent": "agent_0", "observation": [float("nan")] * 10}, "NaN or infinity"),
            ({"agent": "agent_0", "observation": [float("inf")] * 10}, "NaN or infinity"),
            ({"agent": "agent_0", "observation": [10**400] * 10}, "too large"),
            ({"agent": "agent_0", "observation": [1e300] * 10}, "too large"),
            ({"agent": "agent_0", "observation": [True] * 10}, "has true in it. Only numbers"),
            ({"agent": "agent_0", "observation": ["1"] * 10}, "Only numbers are allowed"),
            ({"agent": "agent_0", "observation": [None] * 10}, "has null in it. Only numbers"),
            ({"agent": "agent_0", "observation": {"x": 1.0}}, "agent_0"),
            ({"agent": "agent_0", "observation": 1.0}, "observation has shape []"),
            ({"agent": "agent_0", "observation": [[1.0], [1.0, 2.0]]}, "agent_0"),
            ({"agent": "agent_0"}, "observation"),
            ({"agent": None, "observation": [1.0]}, "agent"),
            ({"agent": 7, "observation": [1.0]}, "There is no agent '7'"),
            ({"observation": [1.0]}, "agent"),
            ([1.0], "object"),
            (b"no json", "JSON"),
            (b"", "JSON"),
            (b'{"agent": "agent_\xff\xfe", "observation": [1.0]}', "JSON"),
            (b'{"agent": "agent_0", "observation": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "recursion"),
            (b'{"agent": "agent_0", "observation": ' + b"[" * 100 + b"1" + b"]" * 100 + b"}", "agent_0"),
        ):
            status, answer = ask(url, body)
            assert (status, message in json.dumps(answer)) == (422, True), (body, answer)
        assert ask(url, {"agent": "agent_0", "observation": [3e38] * 10})[0] in (200, 422)
        fits = json.dumps({"agent": "agent_0", "observation": [0.5] * 10}).encode()
        assert ask(url, fits.ljust(2**20))[0] == 200
        status, answer = ask(url, fits.ljust(2**20 + 1))
        assert (status, answer["detail"]) == (413, "A body may have 1,048,576 bytes at most.")
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        if server.poll() is None:
            server.kill()
        log.close()


def test_serving_needs_a_folder_of_actors(tmp_path):
    result = plain_python(str(EXAMPLES / "serve.py"), str(tmp_path))
    assert result.returncode == 2
    assert "has no manifest.json" in result.stderr
