"""Exported actors do in every format what the env runner does, without Ray; what cannot be exported is refused."""

import functools
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import tree
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.examples.rl_modules.classes.random_rlm import RandomRLModule
from torch import nn
from zoo_env import GAMES, WIDTHS, ZOO, Zoo, module_of

from rllib_maddpg import MADDPGConfig, MADDPGTorchRLModule
from rllib_maddpg.cli.program import main
from rllib_maddpg.deploy.check import check_actor
from rllib_maddpg.deploy.export import export_actors
from rllib_maddpg.deploy.formats import FORMATS, describe_network, to_onnx, to_safetensors
from rllib_maddpg.deploy.maddpg_actors import ACTIVATIONS, file_hash, load_actors, manifest_hash
from rllib_maddpg.deploy.program import ActorProgram
from rllib_maddpg.deploy.spaces import describe_action, describe_observation
from rllib_maddpg.modules.networks import ACTIVATIONS as TORCH_ACTIVATIONS
from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.rule_modules import has_networks
from rllib_maddpg.ray_compat import FlattenObservations
from rllib_maddpg.rows.actions import make_codec
from rllib_maddpg.runs.evaluation import restored_runner

STEPS = 1000


class Residual(nn.Module):
    """A network that is no MLP."""

    def __init__(self, obs_dim, output_dim):
        super().__init__()
        self.inner, self.out = nn.Linear(obs_dim, obs_dim), nn.Linear(obs_dim, output_dim)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.out(self.dropout(x + torch.sin(self.inner(x))))


class OwnNetwork(MADDPGTorchRLModule):
    def build_actor(self, obs_dim, output_dim):
        return Residual(obs_dim, output_dim)


class Moody(nn.Module):
    """Its steps depend on its input."""

    def __init__(self, obs_dim, output_dim):
        super().__init__()
        self.out = nn.Linear(obs_dim, output_dim)

    def forward(self, x):
        return self.out(x) if float(x.detach().sum()) == 0.0 else -self.out(x)


class MoodyNetwork(MADDPGTorchRLModule):
    def build_actor(self, obs_dim, output_dim):
        return Moody(obs_dim, output_dim)


class OwnForward(MADDPGTorchRLModule):
    def _forward_inference(self, batch, **kwargs):
        return super()._forward_inference(batch, **kwargs)


def save(config, folder, gain=1.0):
    """A checkpoint of fresh networks whose weights are made larger, as training does, so that actions differ."""
    algo = config.debugging(seed=11).build_algo()
    for module in algo.learner_group._learner.module.values():
        if not has_networks(module.unwrapped()):
            continue
        parameters = list(module.unwrapped().actor.parameters())
        with torch.no_grad():
            for parameter in parameters[-2:] if not module.unwrapped().codec.categorical else parameters[:1]:
                parameter *= gain
    algo.save_to_path(str(folder))
    algo.stop()
    return folder


def seal(folder):
    """Hashes for what lies there now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {e["file"]: file_hash(folder / e["file"]) for e in manifest["agents"].values()}
    manifest["sha256"] = manifest_hash(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def config_of(game, head="tanh", **model_config):
    agents = GAMES[game]
    return (
        MADDPGConfig()
        .environment(Zoo, env_config={"game": game}, disable_env_checking=True)
        .multi_agent(policies={module_of(agent) for agent in agents}, policy_mapping_fn=module_of)
        .rl_module(model_config={"fcnet_hiddens": [16, 16], **model_config})
        .training(actor_head=head)
    )


def with_module(config, module_class):
    return config.rl_module(rl_module_spec=RLModuleSpec(module_class=module_class))


@pytest.fixture(scope="module")
def played(ray_session, tmp_path_factory):
    """Function of a game: its checkpoint, and per agent 1,000 observations and the actions that the env runner took on them."""
    return functools.cache(lambda game: play(game, tmp_path_factory.mktemp(game) / "checkpoint"))


@pytest.fixture(scope="module")
def exported(played, tmp_path_factory):
    """Function of a game and a format: the export."""

    def export(game, file_format):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*already in registry")  # Gymnasium's, of RLlib's second runner
            return export_actors(played(game)[0], file_format, tmp_path_factory.mktemp(file_format) / "out")

    return functools.cache(export)


def play(game, path):
    head = "softmax" if game == "simplex" else "tanh"
    activation = "tanh" if game == "simplex" else "relu"
    save(config_of(game, head, fcnet_activation=activation), path, gain=10.0)
    runner = restored_runner(path)
    assert runner._is_fast()
    runner.sample(num_timesteps=STEPS, explore=False)
    env = runner.env.envs[0].unwrapped
    seen, done = env.seen[:STEPS], env.done[:STEPS]
    assert len(done) == STEPS
    runner.stop()
    agents = GAMES[game]
    return path, {a: [obs[a] for obs in seen] for a in agents}, {a: np.stack([actions[a] for actions in done]) for a in agents}


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("game", GAMES)
def test_actions_are_those_of_the_env_runner(played, exported, game, file_format):
    _, seen, done = played(game)
    export, spaces = exported(game, file_format), GAMES[game]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actors = load_actors(export.folder)
    assert set(actors) == set(seen)
    for agent, observations in seen.items():
        space = spaces[agent][1]
        batch = tree.map_structure(lambda *parts: np.stack(parts), *observations)
        actions, expected = actors[agent].batch(batch), done[agent]
        assert actions.shape == expected.shape == (STEPS, *space.shape)
        assert actions.dtype == space.dtype
        assert all(space.contains(action) for action in actions)
        for i in (0, STEPS - 1):
            one = actors[agent](observations[i])
            np.testing.assert_allclose(one.astype(float), actions[i].astype(float), rtol=1e-5, atol=1e-5)
            assert one.shape == space.shape and one.dtype == space.dtype
        if isinstance(space, Discrete | MultiDiscrete):
            assert len(np.unique(expected, axis=0)) > 1  # or the comparison would say nothing
            np.testing.assert_array_equal(actions, expected)
            continue
        unit = max(1.0, np.abs([space.low, space.high]).max())
        difference = np.abs(actions.astype(float) - expected).reshape(STEPS, -1).max(-1) / unit
        by_width = difference.reshape(len(WIDTHS), -1)
        assert by_width[:2].max() < 1e-5
        # Here float32 itself is no better: the actor's output before its tanh or softmax goes into the thousands.
        assert (by_width[2:] < 1e-5).mean() > 0.95
        assert (by_width.max(-1) < 1e-7 * np.asarray(WIDTHS) + 1e-5).all()
    check = export.manifest["check"]
    assert check["observations"] == 1000 and set(check["largest_difference"]) == set(seen)
    assert sorted(p.name for p in export.folder.parent.iterdir()) == ["out"]  # nothing unfinished stays


def test_the_manifest_says_what_lies_there(played, exported):
    path, folder = played("zoo")[0], exported("zoo", "safetensors").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    agents = manifest["agents"]
    assert manifest["format"] == "safetensors" and manifest["checkpoint"] == str(path)
    assert manifest["env"] == {"name": "Zoo", "config": {"game": "zoo"}, "module": None}
    assert {"ray", "torch", "python", "rllib_maddpg"} <= manifest["versions"].keys()
    assert {a: e["module"] for a, e in agents.items()} == {a: module_of(a) for a in ZOO}
    assert agents["twin-0"]["file"] != agents["twin/0"]["file"]
    assert agents["twin/0"]["file"] == "twin-0-2.safetensors"
    twins = [(folder / agents[a]["file"]).read_bytes() for a in ("twin-0", "twin/0")]
    assert twins[0] == twins[1]
    assert agents["box"]["observation"] == [
        {"name": "observation", "path": [], "kind": "Box", "shape": [4], "dtype": "float32"}
    ]
    assert agents["box"]["action"] == {
        "kind": "Box",
        "shape": [3],
        "dtype": "float32",
        "low": [-2.0, 0.0, -100.0],
        "high": [1.0, 5.0, 100.0],
        "head": "tanh",
    }
    assert agents["box"]["network"] == {"activation": "relu", "widths": [4, 16, 16, 3]}
    assert agents["choice"]["action"] == {"kind": "Discrete", "shape": [], "dtype": "int64", "choices": [4], "start": [3]}
    assert agents["choice"]["observation"][0]["columns"] == [[-1, 0, 1, 2, 3]]
    assert agents["grid"]["observation"][0]["columns"] == [[1, 2], [-1, 0, 1], [0], [5, 6]]
    # Not sorted: in the order of the space.
    assert [part["name"] for part in agents["nested"]["observation"]] == ["observation.b.0", "observation.b.1", "observation.a"]
    assert agents["multi"]["action"]["dtype"] == "int32"


@pytest.mark.parametrize("file_format", FORMATS)
def test_plays_in_a_process_that_has_no_ray(exported, file_format):
    folder = exported("zoo", file_format).folder
    script = f"""
import sys
sys.path.insert(0, {str(folder)!r})
from maddpg_actors import load_actors
actors = load_actors({str(folder)!r})
assert actors["choice"](2) in (3, 4, 5, 6)
assert actors["box"]([0.5, 1, 2, 3]).shape == (3,)
found = {{name for name in ("ray", "gymnasium", "rllib_maddpg", "torch", "onnxruntime", "safetensors") if name in sys.modules}}
print(sorted(found))
"""
    # -I: neither this folder nor PYTHONPATH.
    result = subprocess.run([sys.executable, "-I", "-W", "error", "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    only = {"onnx": "onnxruntime", "torchscript": "torch", "safetensors": "safetensors"}[file_format]
    assert result.stdout.strip() == str([only])


def test_the_onnx_model_stands_for_itself(exported):
    """As other programs use it: names, types, a batch of any size."""
    import onnxruntime

    folder = exported("zoo", "onnx").folder
    session = onnxruntime.InferenceSession(str(folder / "multi.onnx"))
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [("observation", ["batch", 2], "tensor(int64)")]
    assert [(o.name, o.type) for o in session.get_outputs()] == [("action", "tensor(int32)")]
    for size in (1, 2, 7):
        assert session.run(["action"], {"observation": np.ones((size, 2), np.int64)})[0].shape == (size, 2)
    nested = onnxruntime.InferenceSession(str(folder / "nested.onnx"))
    assert [i.name for i in nested.get_inputs()] == ["observation.b.0", "observation.b.1", "observation.a"]


@pytest.mark.parametrize("activation", TORCH_ACTIVATIONS)
def test_numpy_has_every_activation(tmp_path, activation):
    space, codec = Box(-1, 1, (5,), np.float32), make_codec(Box(-1, 1, (2,), np.float32))
    torch.manual_seed(0)
    program = ActorProgram(MLP(5, 2, (16, 16), activation), describe_observation(space, "a"), codec)
    entry = {"file": "a.safetensors", "observation": program.inputs, "action": describe_action(codec)}
    entry["network"] = describe_network(program)
    assert entry["network"]["activation"] in ACTIVATIONS
    (tmp_path / "a.safetensors").write_bytes(to_safetensors(program))
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 2, "format": "safetensors", "agents": {"a": entry}}))
    seal(tmp_path)
    x = 3.0 * np.random.default_rng(0).standard_normal((1000, 5)).astype(np.float32)
    with torch.no_grad():
        expected = torch.tanh(program.actor(torch.from_numpy(x))).numpy()
    np.testing.assert_allclose(load_actors(tmp_path)["a"].batch(x), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "uint64"])
def test_integer_actions_of_every_type(dtype):
    import onnxruntime

    codec = make_codec(MultiDiscrete([3, 4], dtype=dtype))
    program = ActorProgram(MLP(3, 7), describe_observation(Box(-1, 1, (3,)), "a"), codec)
    actions = onnxruntime.InferenceSession(to_onnx(program)).run(None, {"observation": np.zeros((2, 3), np.float32)})[0]
    assert actions.dtype == dtype and actions.shape == (2, 2)


# ------------------------------------------------------------------------------------------ own networks


@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_a_network_of_the_users_is_traced(ray_session, tmp_path, file_format):
    path = save(with_module(MADDPGConfig().environment("Pendulum-v1"), OwnNetwork), tmp_path / "checkpoint")
    actors = load_actors(export_actors(path, file_format, tmp_path / "out").folder)
    runner = restored_runner(path)
    network = runner.module["agent_0"].unwrapped().actor.eval()
    x = np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32)
    with torch.no_grad():
        expected = 2.0 * torch.tanh(network(torch.from_numpy(x))).numpy()
    runner.stop()
    np.testing.assert_allclose(actors["agent_0"].batch(x), expected, atol=1e-5)


def test_weights_alone_say_nothing_of_a_network_of_the_users(ray_session, tmp_path):
    path = save(with_module(MADDPGConfig().environment("Pendulum-v1"), OwnNetwork), tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=r"Module 'agent_0': The actor is a Residual of your own.*Use --format onnx"):
        export_actors(path, "safetensors", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_a_network_that_cannot_be_traced_is_refused(ray_session, tmp_path, file_format):
    path = save(with_module(MADDPGConfig().environment("Pendulum-v1"), MoodyNetwork), tmp_path / "checkpoint")
    # ONNX export notices it at once; torch.jit goes one way for good, which the check then finds out.
    with pytest.raises(ValueError, match="cannot be traced"):
        export_actors(path, file_format, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_what_surrounds_the_network_must_be_known(ray_session, tmp_path):
    path = save(with_module(MADDPGConfig().environment("Pendulum-v1"), OwnForward), tmp_path / "forward")
    with pytest.raises(ValueError, match=r"class OwnForward overrides `_forward_inference`"):
        export_actors(path, "safetensors", tmp_path / "out")
    config = MADDPGConfig().environment("Pendulum-v1")
    config.env_runners(env_to_module_connector=lambda env, spaces, device: MeanStdFilter(multi_agent=True))
    path = save(config, tmp_path / "filter")
    with pytest.raises(ValueError, match=r"Connector AgentMeanStdFilter changes .* cannot be exported"):
        export_actors(path, "safetensors", tmp_path / "out")


def test_agents_that_act_by_a_rule_are_left_out_with_a_warning(ray_session, tmp_path, caplog):
    config = MADDPGConfig().environment("simple_adversary").multi_agent(policies_to_train=["agent_1"])
    rules = {"adversary_0": RLModuleSpec(module_class=RandomRLModule), "agent_0": RLModuleSpec(module_class=OwnForward)}
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=rules))
    path = save(config, tmp_path / "checkpoint")
    export = export_actors(path, "safetensors", tmp_path / "out")
    assert list(load_actors(export.folder)) == list(export.manifest["agents"]) == ["agent_1"]
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "rllib_maddpg.deploy.export"]
    assert warning.startswith("Agents ['adversary_0', 'agent_0'] are left out of the export. Module 'adversary_0' is a Random")


# ------------------------------------------------------------------------------------------ the check, bad input


@pytest.fixture(scope="module")
def pendulum(ray_session, tmp_path_factory):
    return save(MADDPGConfig().environment("Pendulum-v1"), tmp_path_factory.mktemp("pendulum") / "checkpoint")


def test_the_check_finds_a_wrong_weight(pendulum, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = export_actors(pendulum, "safetensors", tmp_path / "out").folder
    runner = restored_runner(pendulum)
    module, space = runner.module["agent_0"].unwrapped(), runner.env.envs[0].unwrapped.get_observation_space("agent_0")
    runner.stop()
    assert check_actor(load_actors(folder), "agent_0", module, space) < 1e-5
    file = folder / "agent_0.safetensors"
    weights = load_file(file)
    weights["2.bias"] = weights["2.bias"] + np.float32(1e-4)
    save_file(weights, file)
    seal(folder)
    with pytest.raises(ValueError, match=r"differs from its RLModule by 0.0001 \(allowed: 1\.\de-05\)"):
        check_actor(load_actors(folder), "agent_0", module, space)


def test_an_observation_that_does_not_fit_is_named(exported, tmp_path):
    actors = load_actors(exported("zoo", "safetensors").folder)
    for agent, observation, message in (
        ("box", [1, 2, 3], r"Agent 'box': observation has shape \[3\], not \[4\]"),
        ("box", [1, 2, 3, np.nan], "has NaN or infinity"),
        ("box", [1, 2, 3, 1e300], "too large for float32"),
        ("box", ["a", "b", "c", "d"], "not an array of numbers"),
        ("box", [[1], [2, 3]], "not an array of numbers"),
        ("box", None, "NaN|numbers|shape"),
        ("choice", 4, r"whole numbers from \[-1\] to \[3\]|whole numbers from -1 to 3"),
        ("choice", 1.5, "whole numbers"),
        ("multi", [1, 3], r"whole numbers from \[0, 0\] to \[1, 2\]"),
        ("grid", [[1, -2], [0, 5]], r"whole numbers from \[\[1, -1\], \[0, 5\]\] to \[\[2, 1\], \[0, 6\]\]"),
        ("box", ["1", "2", "3", "4"], "not an array of numbers"),
        ("box", [None] * 4, "not an array of numbers"),
        ("nested", {"a": [1, 2]}, r"observation\.b\.0 is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            actors[agent](observation)
    with pytest.raises(ValueError, match=r"has shape \[4\], not \[batch, 4\]"):
        actors["box"].batch([1, 2, 3, 4])
    with pytest.raises(ValueError, match=r"batches of \[1, 2, 2\]"):
        actors["nested"].batch({"a": np.zeros((2, 2)), "b": (np.zeros(1), np.zeros((2, 4)))})
    with pytest.raises(ValueError, match=r"has no manifest\.json"):
        load_actors(tmp_path)


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of an export, to damage."""
    return Path(shutil.copytree(exported("zoo", "safetensors").folder, tmp_path / "copy"))


def test_no_damaged_file_is_loaded(copied):
    rng = np.random.default_rng(0)
    files = [copied / "manifest.json", *sorted(copied.glob("*.safetensors"))]
    assert len(files) == 1 + len(ZOO)
    for file in files:
        content = file.read_bytes()
        for bit in rng.integers(0, 8 * len(content), 10):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << (bit % 8)
            file.write_bytes(damaged)
            if file.name != "manifest.json":
                with pytest.raises(ValueError, match=rf"{re.escape(file.name)} is damaged"):
                    load_actors(copied)
                continue
            try:  # white space that another has replaced says the same
                same = json.loads(bytes(damaged)) == json.loads(content)
            except ValueError:
                same = False
            if not same:
                with pytest.raises(ValueError, match=r"is damaged|has no manifest.json that can be read|not of this version"):
                    load_actors(copied)
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=r"is damaged|has no manifest.json that can be read"):
            load_actors(copied)
        file.unlink()
        with pytest.raises(ValueError, match=rf"{re.escape(file.name)} (cannot be read|that can be read)"):
            load_actors(copied)
        file.write_bytes(content)
    assert set(load_actors(copied)) == set(ZOO)


def test_an_export_of_an_earlier_version_is_loaded_with_a_warning(copied):
    """Without hashes and ids, and with the columns that its networks have learnt from."""
    new = load_actors(copied)
    manifest = json.loads((copied / "manifest.json").read_text())
    choice = manifest["agents"]["choice"]["observation"][0]
    choice["columns"] = [[0, 1, 2, 3, -1]]
    for entry in manifest["agents"].values():
        del entry["id"]
    old = {key: value for key, value in manifest.items() if key not in ("files", "sha256")} | {"schema": 1}
    (copied / "manifest.json").write_text(json.dumps(old))
    with pytest.warns(UserWarning, match=r"manifest.json was written by an older version, without hashes.*Export"):
        actors = load_actors(copied)
    assert actors.act({"box": np.ones(4)})["box"].tolist() == new.act({"box": np.ones(4)})["box"].tolist()
    # Value 0 had the first column then, as -1 has now.
    assert [actors["choice"](value) for value in (0, 1, 2, 3, -1)] == [new["choice"](value) for value in (-1, 0, 1, 2, 3)]


class Numbered(MultiAgentEnv):
    """Agents with ids that are no text."""

    def __init__(self, config):
        super().__init__()
        self.possible_agents = self.agents = [np.int64(0), 10, 9, ("drone", 1)]
        self.observation_spaces = {agent: Box(-1, 1, (2,)) for agent in self.agents}
        self.action_spaces = {agent: Box(-1, 1, (1,)) for agent in self.agents}

    def reset(self, *, seed=None, options=None):
        return {agent: np.zeros(2, np.float32) for agent in self.agents}, {}

    def step(self, actions):
        return self.reset()[0], dict.fromkeys(self.agents, 0.0), {"__all__": False}, {"__all__": False}, {}


def test_actors_know_the_ids_of_the_env(ray_session, tmp_path):
    path = save(MADDPGConfig().environment(Numbered), tmp_path / "checkpoint", gain=10.0)
    folder = export_actors(path, "safetensors", tmp_path / "out").folder
    actors = load_actors(folder)
    observations = {agent: np.full(2, i / 4, np.float32) for i, agent in enumerate(Numbered({}).agents)}
    actions = actors.act(observations)
    assert list(actions) == list(observations)
    assert list(actors) == ["('drone', 1)", 0, 10, 9] and len({float(a[0]) for a in actions.values()}) == 4
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {name: entry["id"] for name, entry in manifest["agents"].items()} == {
        "('drone', 1)": "('drone', 1)",
        "0": 0,
        "10": 10,
        "9": 9,
    }
    # As text, too, which is all that JSON and HTTP have for keys.
    for agent, observation in observations.items():
        assert actors[str(agent)](observation).tolist() == actions[agent].tolist()
    with pytest.raises(ValueError, match=r"There is no agent 1\. There are: \[.*10, 9\]"):
        actors.act({1: np.zeros(2)})


def test_parts_with_one_name_are_told_apart():
    box = Box(-1, 1, (2,))
    space = Dict([("a.b", box), ("a", Dict(b=box)), (1, box), ("1", box)])
    described = describe_observation(space, "a")
    assert [part["name"] for part in described] == ["observation.a.b", "observation.a.b-2", "observation.1", "observation.1-2"]
    assert [part["path"] for part in described] == [["a.b"], ["a", "b"], [1], ["1"]]
    with pytest.raises(ValueError, match=r"Agent 'a': the key \(1, 2\) of its observation cannot be written"):
        describe_observation(Dict([((1, 2), box)]), "a")


def test_flattening_of_the_users_is_exported_where_it_is_the_same(ray_session, tmp_path):
    config = config_of("simplex", "softmax")
    config.env_runners(env_to_module_connector=lambda env, spaces, device: FlattenObservations(multi_agent=True))
    path = save(config, tmp_path / "checkpoint")
    assert set(load_actors(export_actors(path, "safetensors", tmp_path / "out").folder)) == {"a", "b", "c"}


def test_bad_requests_are_refused(pendulum, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"is no folder"):
        export_actors(tmp_path / "nothing", "onnx", tmp_path / "out")
    with pytest.raises(ValueError, match=r"neither a run folder"):
        export_actors(tmp_path, "onnx", tmp_path / "out")
    with pytest.raises(ValueError, match=r"--format 'onx' must be one of .*Did you mean 'onnx'\?"):
        export_actors(pendulum, "onx", tmp_path / "out")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"full exists and is not an empty folder"):
        export_actors(pendulum, "safetensors", full)
    with pytest.raises(ValueError, match=r"mine.txt exists and is not an empty folder"):
        export_actors(pendulum, "safetensors", full / "mine.txt")
    with pytest.raises(ValueError, match=r"--out .* cannot be written: .*Not a directory"):
        export_actors(pendulum, "safetensors", full / "mine.txt" / "out")
    with pytest.raises(ValueError, match=r"--out /proc/actors cannot be written"):
        export_actors(pendulum, "safetensors", "/proc/actors")
    assert [p.name for p in full.iterdir()] == ["mine.txt"]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs the package onnxruntime.*pip install rllib-maddpg\[export\]"):
        export_actors(pendulum, "onnx", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ValueError, match=r"needs the package safetensors.*pip install rllib-maddpg\[export\]"):
        export_actors(pendulum, "safetensors", tmp_path / "out")


def test_command_line(pendulum, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["export", str(pendulum), "--format", "safetensors", "--out", str(empty)]) == 0
    out = capsys.readouterr().out
    assert "Pendulum-v1: 1 actors in" in out
    assert "agent_0.safetensors  observation [3] float32 -> Box [1] float32" in out
    assert "1,000 observations: largest difference" in out
    assert sorted(p.name for p in empty.iterdir()) == ["agent_0.safetensors", "maddpg_actors.py", "manifest.json"]
    assert main(["export", str(pendulum), "--format", "safetensors", "--out", str(empty)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert main(["export", str(pendulum), "--format", "safetensors"]) == 0  # beside the checkpoint
    assert (pendulum.parent / "exported_safetensors" / "manifest.json").is_file()
