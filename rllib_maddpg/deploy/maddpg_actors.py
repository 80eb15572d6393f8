"""Plays exported MADDPG actors: observation in, environment action out, without noise.

    from maddpg_actors import load_actors
    actors = load_actors("exported")
    action = actors["agent_0"](observation)

`rllib-maddpg export` puts this file beside the actors. It needs NumPy and one of onnxruntime, torch and safetensors, whichever
the format asks for; neither Ray nor Gymnasium nor rllib-maddpg.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST = "manifest.json"
SCHEMA = 1

# From the inputs of a network, `[B, ...]` each, to actions `[B, ...]`.
Forward = Callable[[Sequence[np.ndarray]], np.ndarray]


def load_actors(folder: str | Path) -> Actors:
    """The actors of a folder that `rllib-maddpg export` has written.

    Raises:
        ValueError: If it is no such folder, or of another version of this file.
        ImportError: If the package that runs the format is not installed.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no {MANIFEST} that can be read ({error}). Give a folder of exported actors.") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise ValueError(f"{folder / MANIFEST} is not of this version. Use the maddpg_actors.py that lies beside it.")
    return Actors(folder, manifest)


class Actors(Mapping):
    """All actors of a game by agent id.

    Attributes:
        manifest: The content of manifest.json.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.manifest = manifest
        load = _FORMATS[manifest["format"]]
        self._actors = {
            agent: Actor(agent, entry, load(folder / entry["file"], entry)) for agent, entry in manifest["agents"].items()
        }

    def __getitem__(self, agent: str) -> Actor:
        return self._actors[agent]

    def __iter__(self) -> Iterator[str]:
        return iter(self._actors)

    def __len__(self) -> int:
        return len(self._actors)

    def act(self, observations: Mapping[str, Any]) -> dict[str, Any]:
        """Agent -> observation of those who act now; gives agent -> action."""
        return {agent: self._actors[agent](observation) for agent, observation in observations.items()}


class Actor:
    """One agent's decentralized policy.

    Attributes:
        agent: Its id.
        inputs: Per part of the observation what it looks like; one part unless the agent observes a Dict or a Tuple.
        action: What its action looks like.
    """

    def __init__(self, agent: str, entry: Mapping[str, Any], forward: Forward):
        self.agent = agent
        self.inputs: list[dict[str, Any]] = entry["observation"]
        self.action: dict[str, Any] = entry["action"]
        self._forward = forward

    def __call__(self, observation: Any) -> np.ndarray | np.generic:
        """The action for one observation, as the environment takes it.

        Raises:
            ValueError: If the observation is not what the agent observes; the message says what it is.
        """
        return self._act([part[None] for part in self._parts(observation, ())])[0]

    def batch(self, observations: Any) -> np.ndarray:
        """Actions `[B, ...]` for observations with a batch axis in front (of every part, if there are several)."""
        parts = self._parts(observations, (None,))
        if len({len(part) for part in parts}) > 1:
            raise ValueError(f"Agent {self.agent!r}: parts of the observation have batches of {[len(p) for p in parts]}.")
        return self._act(parts)

    def _act(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.asarray(self._forward(parts), self.action["dtype"])

    def _parts(self, observation: Any, front: tuple) -> list[np.ndarray]:
        return [self._part(observation, spec, front) for spec in self.inputs]

    def _part(self, observation: Any, spec: Mapping[str, Any], front: tuple) -> np.ndarray:
        """One input of the network, checked; `front` has an item for each axis ahead of the observation's own."""
        name = f"Agent {self.agent!r}: {spec['name']}"
        try:
            for key in spec["path"]:
                observation = observation[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"{name} is missing; the agent observes {[s['name'] for s in self.inputs]}.") from None
        try:
            array = np.asarray(observation)
            numbers = array.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{name} is not an array of numbers.") from None
        shape = tuple(spec["shape"])
        if array.ndim != len(front) + len(shape) or array.shape[len(front) :] != shape:
            wanted = ", ".join([*("batch" for _ in front), *map(str, shape)])
            raise ValueError(f"{name} has shape [{', '.join(map(str, array.shape))}], not [{wanted}].")
        if not np.isfinite(numbers).all():
            raise ValueError(f"{name} has NaN or infinity in it.")
        if "choices" in spec:
            low = np.reshape(spec["start"], shape)
            high = low + np.reshape(spec["choices"], shape)
            if (numbers != np.floor(numbers)).any() or (numbers < low).any() or (numbers >= high).any():
                raise ValueError(f"{name} must be whole numbers from {low.tolist()} to {(high - 1).tolist()}.")
        with np.errstate(over="ignore"):
            part = array.astype(spec["dtype"])
        if not np.isfinite(part).all():
            raise ValueError(f"{name} has numbers too large for {spec['dtype']}.")
        return part


# ------------------------------------------------------------------------------------------ formats


def _load_onnx(file: Path, entry: Mapping[str, Any]) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # best for small networks
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [spec["name"] for spec in entry["observation"]]
    return lambda parts: session.run(None, dict(zip(names, parts, strict=True)))[0]


def _load_torchscript(file: Path, entry: Mapping[str, Any]) -> Forward:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch advises against the format, not against this file
        network = torch.jit.load(str(file), map_location="cpu")

    def forward(parts: Sequence[np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            return network(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts)).numpy()

    return forward


def _load_safetensors(file: Path, entry: Mapping[str, Any]) -> Forward:
    from safetensors.numpy import load_file

    return NumpyNetwork(load_file(file), entry)


_FORMATS: dict[str, Callable[[Path, Mapping[str, Any]], Forward]] = {
    "onnx": _load_onnx,
    "torchscript": _load_torchscript,
    "safetensors": _load_safetensors,
}


# ------------------------------------------------------------------------------------------ the network in NumPy

_erf = np.frompyfunc(math.erf, 1, 1)

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))),
    "silu": lambda x: 0.5 * x * (1.0 + np.tanh(0.5 * x)),
    "gelu": lambda x: (0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)).astype(np.float64))).astype(np.float32),
    "leaky_relu": lambda x: np.where(x > 0.0, x, np.float32(0.01) * x),
    "linear": lambda x: x,
}


class NumpyNetwork:
    """A multilayer perceptron with what comes before and after it: parts of an observation in, actions out."""

    def __init__(self, weights: Mapping[str, np.ndarray], entry: Mapping[str, Any]):
        """
        Args:
            weights: "0.weight" `[out, in]`, "0.bias" `[out]`, "1.weight" and so on, float32.
            entry: The agent's part of the manifest.
        """
        self._layers = [(weights[f"{i}.weight"].T, weights[f"{i}.bias"]) for i in range(len(weights) // 2)]
        self._activation = ACTIVATIONS[entry["network"]["activation"]]
        self._inputs, self._action = entry["observation"], entry["action"]

    def __call__(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Parts `[B, ...]` -> actions `[B, ...]`."""
        x = np.concatenate([_vector(part, spec) for part, spec in zip(parts, self._inputs, strict=True)], -1)
        for i, (weight, bias) in enumerate(self._layers):
            x = x @ weight + bias
            if i + 1 < len(self._layers):
                x = self._activation(x)
        return self._choices(x) if "choices" in self._action else self._scaled(x)

    def _choices(self, output: np.ndarray) -> np.ndarray:
        action = self._action
        bounds = np.cumsum(action["choices"])[:-1]
        choices = np.stack([part.argmax(-1) for part in np.split(output, bounds, -1)], -1) + np.asarray(action["start"])
        return choices.reshape(-1, *action["shape"])

    def _scaled(self, output: np.ndarray) -> np.ndarray:
        action = self._action
        if action["head"] == "tanh":
            code = np.tanh(output)
        else:
            exp = np.exp(output - output.max(-1, keepdims=True))
            code = 2.0 * exp / exp.sum(-1, keepdims=True) - 1.0
        low, high = (np.asarray(action[bound], action["dtype"]) for bound in ("low", "high"))
        return np.clip(low + (code.reshape(-1, *action["shape"]) + 1.0) * (high - low) / 2.0, low, high)


def _vector(part: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """What the network sees of a part `[B, ...]`: `[B, width]` float32; whole numbers that choose become one-hots."""
    rows = part.reshape(len(part), -1)
    if "columns" not in spec:
        return rows
    blocks = [rows[:, i : i + 1] == np.asarray(values) for i, values in enumerate(spec["columns"])]
    return np.concatenate(blocks, -1).astype(np.float32)
