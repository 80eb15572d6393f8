"""Plays exported MADDPG actors: observation in, environment action out, without noise.

    from maddpg_actors import load_actors
    actors = load_actors("exported")
    action = actors["agent_0"](observation)

Agents of a policy ensemble play one of their sub-policies in an episode: call `actors.reset()` when an episode begins, which
draws them, or choose one (`load_actors("exported", sub_policy=0)`).

`rllib-maddpg export` puts this file beside the actors. It needs NumPy and one of onnxruntime, torch and safetensors, whichever
the format asks for; neither Ray nor Gymnasium nor rllib-maddpg.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST = "manifest.json"
SCHEMA = 2
_WITHOUT_HASHES = 1

# From the inputs of a network, `[B, ...]` each, to actions `[B, ...]`.
Forward = Callable[[Sequence[np.ndarray]], np.ndarray]


def load_actors(folder: str | Path, sub_policy: int | None = None, seed: int | None = None) -> Actors:
    """The actors of a folder that `rllib-maddpg export` has written.

    Args:
        folder: The folder.
        sub_policy: The one that all agents play; None: one is drawn by each `Actors.reset`, where there are several.
        seed: Of these draws; None: any.

    Raises:
        ValueError: If it is no such folder, of another version of this file, if a file has another content than the export
            has written, or an agent has no such sub-policy; before any of them is loaded.
        ImportError: If the package that runs the format is not installed.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no {MANIFEST} that can be read ({error}). Give a folder of exported actors.") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema == _WITHOUT_HASHES:
        warnings.warn(
            f"{folder / MANIFEST} was written by an older version, without hashes, so nobody can tell whether the files beside "
            "it are whole. Export the checkpoint again.",
            stacklevel=2,
        )
    elif schema == SCHEMA:
        _check_hashes(folder, manifest)
    else:
        raise ValueError(f"{folder / MANIFEST} is not of this version. Use the maddpg_actors.py that lies beside it.")
    for name, entry in manifest["agents"].items() if sub_policy is not None else ():
        if str(sub_policy) not in _files_of(entry):
            raise ValueError(f"sub_policy={sub_policy!r}: agent {name!r} has {sorted(map(int, _files_of(entry)))}.")
    return Actors(folder, manifest, sub_policy, seed)


def _files_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """File of each sub-policy of an agent, by its number; of most agents there is one, number 0."""
    return entry.get("sub_policies", {"0": entry["file"]})


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without the hash itself, however it is laid out in its file."""
    plain = json.loads(json.dumps({key: value for key, value in manifest.items() if key != "sha256"}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _check_hashes(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Nothing is loaded that is not what the export has written."""
    again = "Copy the folder again, or export the checkpoint again."
    if manifest.get("sha256") != manifest_hash(manifest):
        raise ValueError(f"{folder / MANIFEST} is damaged: its content does not have the hash that it names. {again}")
    for name, expected in manifest["files"].items():
        try:
            found = file_hash(folder / name)
        except OSError as error:
            raise ValueError(f"{folder / name} cannot be read ({error}), but {MANIFEST} names it. {again}") from error
        if found != expected:
            raise ValueError(f"{folder / name} is damaged: its content does not have the hash that {MANIFEST} names. {again}")


class Actors(Mapping):
    """All actors of a game by agent id: as the env has it, or its text.

    Attributes:
        manifest: The content of manifest.json.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], sub_policy: int | None = None, seed: int | None = None):
        self.manifest = manifest
        self._chosen, self._rng = sub_policy, np.random.default_rng(seed)
        load = _FORMATS[manifest["format"]]
        # By text, because no two ids have the same, and neither JSON nor HTTP has every type of id.
        self._actors = {
            name: Actor(
                entry.get("id", name), entry, {int(k): load(folder / file, entry) for k, file in _files_of(entry).items()}
            )
            for name, entry in manifest["agents"].items()
        }
        self.reset()

    def reset(self) -> dict[Hashable, int]:
        """Begins an episode: draws the sub-policies that agents play in it, unless one is chosen.

        Returns:
            Agent -> number of its sub-policy.
        """
        numbers = {name: self._rng.random() for name in self._actors}
        for first, *others in self.manifest.get("draw_together", ()):
            numbers.update(dict.fromkeys(others, numbers[first]))
        for name, actor in self._actors.items():
            own = actor.sub_policies
            actor.sub_policy = own[int(numbers[name] * len(own))] if self._chosen is None else self._chosen
        return {actor.agent: actor.sub_policy for actor in self._actors.values()}

    def __getitem__(self, agent: Hashable) -> Actor:
        return self._actors[str(agent)]

    def __iter__(self) -> Iterator[int | str]:
        return (actor.agent for actor in self._actors.values())

    def __len__(self) -> int:
        return len(self._actors)

    def act(self, observations: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Agent -> observation of those who act now, as the env gives it; gives agent -> action.

        Raises:
            ValueError: For an agent that has no actor, or as `Actor`.
        """
        for agent in observations:
            if agent not in self:
                raise ValueError(f"There is no agent {agent!r}. There are: {list(self)}.")
        return {agent: self[agent](observation) for agent, observation in observations.items()}


class Actor:
    """One agent's decentralized policy.

    Attributes:
        agent: Its id, a number if the env's is one, else text.
        inputs: Per part of the observation what it looks like; one part unless the agent observes a Dict or a Tuple.
        action: What its action looks like.
        sub_policies: Numbers of those that it has; most agents have one, 0.
        sub_policy: The one that it plays. May be set.
    """

    def __init__(self, agent: int | str, entry: Mapping[str, Any], forwards: Mapping[int, Forward]):
        self.agent = agent
        self.inputs: list[dict[str, Any]] = entry["observation"]
        self.action: dict[str, Any] = entry["action"]
        self._forwards = dict(forwards)
        self.sub_policies = sorted(self._forwards)
        self.sub_policy = self.sub_policies[0]
        self._has_mask = any(spec.get("mask") for spec in self.inputs)

    def __call__(self, observation: Any) -> np.ndarray | np.generic:
        """The action for one observation, as the environment takes it.

        Raises:
            ValueError: If the observation is not what the agent observes, or its action mask allows nothing; the message says
                what it is.
        """
        return self._act([part[None] for part in self._parts(observation, ())])[0]

    def batch(self, observations: Any) -> np.ndarray:
        """Actions `[B, ...]` for observations with a batch axis in front (of every part, if there are several)."""
        parts = self._parts(observations, (None,))
        if len({len(part) for part in parts}) > 1:
            raise ValueError(f"Agent {self.agent!r}: parts of the observation have batches of {[len(p) for p in parts]}.")
        return self._act(parts)

    def _act(self, parts: list[np.ndarray]) -> np.ndarray:
        if self._has_mask:
            for number, mask in enumerate(_masks(parts, self.inputs, self.action)):
                if not mask.any(-1).all():
                    of = f" for number {number} of its action" if len(self.action["choices"]) > 1 else ""
                    raise ValueError(f"Agent {self.agent!r}: its action mask allows nothing{of}.")
        return np.asarray(self._forwards[self.sub_policy](parts), self.action["dtype"])

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
        except ValueError:  # lists of unequal lengths
            array = np.empty((), object)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name} is not an array of numbers.")
        shape = tuple(spec["shape"])
        if not front and array.size == math.prod(shape) == 1:
            array = array.reshape(shape)  # one number is one number, however it is wrapped
        if array.ndim != len(front) + len(shape) or array.shape[len(front) :] != shape:
            wanted = ", ".join([*("batch" for _ in front), *map(str, shape)])
            raise ValueError(f"{name} has shape [{', '.join(map(str, array.shape))}], not [{wanted}].")
        numbers = array.astype(np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError(f"{name} has NaN or infinity in it.")
        if "choices" in spec:
            low = np.reshape(spec["start"], shape)
            high = low + np.reshape(spec["choices"], shape)
            if (numbers != np.floor(numbers)).any() or (numbers < low).any() or (numbers >= high).any():
                raise ValueError(f"{name} must be whole numbers from {low.tolist()} to {(high - 1).tolist()}.")
        if spec["dtype"] == "uint8" and ((numbers != np.floor(numbers)) | (numbers < 0) | (numbers > 255)).any():
            raise ValueError(f"{name} is an image of bytes: it must be whole numbers from 0 to 255.")
        if spec.get("mask") and ((numbers != 0) & (numbers != 1)).any():
            raise ValueError(f"{name} must be ones and zeros: it says which actions are allowed.")
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

_MASKED = np.float32(-1e30)  # output for actions that are not allowed
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
            weights: "0.weight" `[out, in]`, "0.bias" `[out]`, "1.weight" and so on, float32. Layer norm has "0.norm_weight" and
                "0.norm_bias" `[out]`, too; normalization of observations "obs.mean" and "obs.scale" `[in]`. Of what sees images
                "conv_0.weight" `[out, in, height, width]`, "conv_0.bias" `[out]` and so on come first.
            entry: The agent's part of the manifest.
        """
        network = entry["network"]
        layers = range(len(network["widths"]) - 1)
        self._layers = [(weights[f"{i}.weight"].T, weights[f"{i}.bias"]) for i in layers]
        self._norms = [(weights[f"{i}.norm_weight"], weights[f"{i}.norm_bias"]) for i in layers[:-1] if "layer_norm" in network]
        self._filter = (weights["obs.mean"], weights["obs.scale"]) if "obs_limit" in network else None
        self._activation, self._network = ACTIVATIONS[network["activation"]], network
        self._inputs, self._action = entry["observation"], entry["action"]
        convolutions = range(len(network["image"]["layers"])) if "image" in network else ()
        self._convolutions = [(weights[f"conv_{i}.weight"], weights[f"conv_{i}.bias"]) for i in convolutions]

    def __call__(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Parts `[B, ...]` -> actions `[B, ...]`."""
        if self._convolutions:
            x = self._features(parts[0])
        else:
            x = np.concatenate([_vector(part, spec) for part, spec in zip(parts, self._inputs, strict=True)], -1)
        if self._filter is not None:
            mean, scale = self._filter
            x = np.clip((x - mean) * scale, -self._network["obs_limit"], self._network["obs_limit"])
        for i, (weight, bias) in enumerate(self._layers):
            x = x @ weight + bias
            if i + 1 < len(self._layers):
                x = self._activation(self._normalized(x, *self._norms[i]) if self._norms else x)
        if "choices" not in self._action:
            return self._scaled(x)
        return self._choices(np.split(x, np.cumsum(self._action["choices"])[:-1], -1), parts)

    def _features(self, images: np.ndarray) -> np.ndarray:
        """`[B, height, width, channels]` -> `[B, features]`, row by row and pixel by pixel."""
        image = self._network["image"]
        x = (images.astype(np.float32) - np.float32(image["low"])) * np.float32(image["scale"])
        for (weight, bias), layer in zip(self._convolutions, image["layers"], strict=True):
            left, right, top, bottom = layer["padding"]
            x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (1, 2))  # [B, rows, columns, in, h, w]
            down, across = layer["strides"]
            x = np.tensordot(windows[:, ::down, ::across], weight, ((3, 4, 5), (1, 2, 3))) + bias
            x = ACTIVATIONS[image["activation"]](x)
        return x.reshape(len(x), -1)

    def _normalized(self, x: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(self._network["layer_norm"])) * gain + shift

    def _choices(self, outputs: Sequence[np.ndarray], parts: Sequence[np.ndarray]) -> np.ndarray:
        action = self._action
        if any(spec.get("mask") for spec in self._inputs):
            masks = _masks(parts, self._inputs, action)
            outputs = [np.where(mask, output, _MASKED) for output, mask in zip(outputs, masks, strict=True)]
        choices = np.stack([part.argmax(-1) for part in outputs], -1) + np.asarray(action["start"])
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


def _masks(parts: Sequence[np.ndarray], inputs: Sequence[Mapping[str, Any]], action: Mapping[str, Any]) -> list[np.ndarray]:
    """Per number of the actions which of its values are allowed, bool `[B, choices]`."""
    masks = [part.reshape(len(part), -1) > 0.5 for part, spec in zip(parts, inputs, strict=True) if spec.get("mask")]
    return np.split(np.concatenate(masks, -1), np.cumsum(action["choices"])[:-1], -1)


def _vector(part: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """What the network sees of a part `[B, ...]`: `[B, width]` float32; whole numbers that choose become one-hots."""
    rows = part.reshape(len(part), -1)
    if "columns" not in spec:
        return rows
    blocks = [rows[:, i : i + 1] == np.asarray(values) for i, values in enumerate(spec["columns"])]
    return np.concatenate(blocks, -1).astype(np.float32)
