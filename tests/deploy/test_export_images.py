"""Exported actors take images as the env gives them, in every format."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from pairs import config_of
from torch import nn

from rllib_maddpg.deploy.export import export_actors
from rllib_maddpg.deploy.formats import FORMATS, describe_network
from rllib_maddpg.deploy.maddpg_actors import _FORMATS, Actor, load_actors
from rllib_maddpg.deploy.program import ActorProgram
from rllib_maddpg.deploy.spaces import describe_action, describe_observation
from rllib_maddpg.modules.images import ImageFeatures, ImageNetwork, ImagePlace
from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.rows.actions import make_codec
from rllib_maddpg.runs.evaluation import restored_runner

BYTES = gym.spaces.Box(0, 255, (9, 6, 2), np.uint8)
FLOATS = gym.spaces.Box(-1.0, 3.0, (7, 8, 3), np.float32)
MOVES = make_codec(gym.spaces.Box(-2.0, 1.0, (3,), np.float32), "tanh", "a")
STRIDES = {"conv_filters": [[3, 4, 2], [4, [3, 2], [1, 2], "valid"]], "conv_activation": "tanh"}


def program_of(space, codec, settings) -> ActorProgram:
    torch.manual_seed(1)
    size = int(np.prod(space.shape))
    features = ImageFeatures(size, [ImagePlace(0, space)], settings)
    actor = ImageNetwork(features, MLP(features.width, codec.dim, (8,), layer_norm=True))
    return ActorProgram(actor, describe_observation(space, "a"), codec).eval()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("space", "codec", "settings"),
    [(BYTES, MOVES, STRIDES), (FLOATS, MOVES, {"conv_filters": [[5, 3, 1]], "conv_activation": "linear"})],
    ids=["bytes", "floats"],
)
def test_a_file_does_what_the_network_does(name, space, codec, settings, tmp_path):
    """On 40 images, and on one; 1e-5 in boxes' units."""
    program = program_of(space, codec, settings)
    file = tmp_path / "actor"
    file.write_bytes(FORMATS[name].encode(program))
    entry = {"observation": program.inputs, "action": describe_action(codec)}
    if name == "safetensors":
        entry["network"] = json.loads(json.dumps(describe_network(program)))
    actor = Actor("a", entry, {0: _FORMATS[name](file, entry)})
    space.seed(3)
    images = np.stack([space.sample() for _ in range(40)])
    with torch.no_grad():
        expected = program(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(actor.batch(images), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(actor(images[2]), expected[2], rtol=1e-5, atol=1e-5)
    assert (np.ptp(expected, 0) > 1e-3).all()


def test_what_an_actor_of_bytes_takes():
    program = program_of(BYTES, MOVES, {})
    entry = {"observation": program.inputs, "action": describe_action(MOVES)}
    seen = []
    actor = Actor("a", entry, {0: lambda parts: seen.append(parts[0]) or np.zeros((1, 3))})
    assert program.inputs[0] == {"name": "observation", "path": [], "kind": "Box", "shape": [9, 6, 2], "dtype": "uint8"}
    image = np.full((9, 6, 2), 7)
    actor(image.tolist())  # as JSON has it
    assert seen[0].dtype == np.uint8 and (seen[0] == 7).all()
    for wrong in (0.5, -1, 256):
        image = np.zeros((9, 6, 2))
        image[0, 0, 0] = wrong
        with pytest.raises(ValueError, match=r"Agent 'a': observation is an image of bytes: .* whole numbers from 0 to 255"):
            actor(image)
    with pytest.raises(ValueError, match=r"has shape \[9, 6\], not \[9, 6, 2\]"):
        actor(np.zeros((9, 6)))


def test_an_encoder_of_ones_own_has_no_weights_format():
    program = program_of(BYTES, MOVES, {})
    program.actor.features.encoders[0].register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(ValueError, match=r"is a ImageNetwork of your own.*--format onnx"):
        describe_network(program)
    assert isinstance(program.actor, nn.Module)


@pytest.mark.parametrize("name", FORMATS)
def test_a_checkpoint_of_images_is_exported(name, build, tmp_path):
    """Its actors choose as the env runner does, which is what the export checks on a thousand images of each agent."""
    algo = build(config_of(("images", "shared parameters", "ensembles")))
    algo.save_to_path(str(tmp_path / "checkpoint"))
    export = export_actors(tmp_path / "checkpoint", name, tmp_path / "exported")
    assert max(export.manifest["check"]["largest_difference"].values()) < 1e-5
    actors = load_actors(tmp_path / "exported", sub_policy=1)
    runner = restored_runner(tmp_path / "checkpoint", sub_policy=1)
    try:
        observations, _ = runner.env.envs[0].unwrapped.reset(seed=5)
        assert {agent: (obs.dtype, obs.shape) for agent, obs in observations.items()} == dict.fromkeys(
            "abc", (np.dtype(np.uint8), (4, 5, 2))
        )
        module = runner.module["c"].unwrapped()
        flat = torch.from_numpy(observations["c"].reshape(1, -1).astype(np.float32))
        module.sub_policy = 1
        expected = module.forward_inference({"obs": flat})["actions"].numpy()[0]
        np.testing.assert_allclose(actors.act(observations)["c"], expected, rtol=1e-5, atol=1e-5)
    finally:
        runner.stop()
