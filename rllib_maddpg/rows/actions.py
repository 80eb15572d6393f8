"""Action codes: how one agent's actions look inside critics and replay.

A codec belongs to one action space and one actor head. It knows three views of an action:

- the *head output*, `[..., dim]` float: what the actor network returns, unbounded;
- the *action code*, `[..., dim]` float: what critics and replay see (Box: scaled to [-1, 1]; Discrete: one-hot;
  MultiDiscrete: concatenated one-hots);
- the *episode action*: what RLlib's episodes hold (Box: [-1, 1] in the space's shape; Discrete: int; MultiDiscrete: ints).

RLlib turns episode actions into environment actions itself (`normalize_actions=True` unsquashes boxes to their bounds).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rllib_maddpg.rows.estimators import Estimate, one_hot_of_largest, straight_through

ACTOR_HEADS = ("tanh", "softmax")
# Head output of actions that are not allowed: finite, so that nothing becomes NaN, and so low that neither noise nor a
# temperature lifts it to where others are.
MASKED = -1e30


class ActionCodec(ABC):
    """Encodes, decodes and samples the actions of one space.

    Attributes:
        space: The agent's action space.
        dim: Width of head output and action code.
        noise: "additive" (noise is added to the action code) or "gumbel" (noise is added to the head output).
        categorical: True where codes are one-hot.
    """

    noise: str
    categorical: bool

    def __init__(self, space: gym.Space, dim: int):
        self.space = space
        self.dim = dim

    @abstractmethod
    def encode(self, actions: np.ndarray) -> np.ndarray:
        """Episode actions `[T, ...]` -> action codes `[T, dim]` float32."""

    @abstractmethod
    def decode(self, code: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """Action codes `[T, dim]` -> episode actions `[T, ...]`, as array or tensor like `code`."""

    def to_env(self, code: np.ndarray) -> np.ndarray:
        """Action codes `[T, dim]` -> actions as the environment takes them, `[T, ...]`; RLlib's connectors make the same."""
        return self.decode(code)

    def uniform(self, output: np.ndarray) -> np.ndarray:
        """Head output `[..., dim]` of an actor that likes all allowed actions alike; which are allowed is that of `output`."""
        return np.zeros_like(output)

    @abstractmethod
    def greedy(self, output: Tensor) -> Tensor:
        """The deterministic policy mu: head output `[..., dim]` -> action code `[..., dim]`."""

    @abstractmethod
    def greedy_numpy(self, output: np.ndarray) -> np.ndarray:
        """`greedy` for the env runners, where no gradient is needed."""

    def smoothed(self, output: Tensor, noise: Tensor) -> Tensor:
        """`greedy` with noise `[..., dim]`: on the action code ("additive"), or on the head output ("gumbel")."""
        if self.noise == "gumbel":
            return self.greedy(output + noise)
        return (self.greedy(output) + noise).clamp(-1.0, 1.0)

    @abstractmethod
    def sample(
        self,
        output: Tensor,
        gumbel: Tensor | None,
        temperature: float | Tensor,
        estimate: Estimate | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Action code `[..., dim]` through which the actor loss can be differentiated.

        Args:
            output: Head output `[..., dim]`.
            gumbel: Standard Gumbel noise `[..., dim]`; used by categorical spaces only, as all that follows.
            temperature: Of the relaxation.
            estimate: Of `rows.estimators`, function of one part's logits, noise, temperature and other noise; None:
                straight-through.
            extra: Other noise that the estimate needs, `[K, ..., dim]`.
        """

    @abstractmethod
    def key(self) -> tuple:
        """Equal for codecs that compute the same."""

    @abstractmethod
    def head_metrics(self, output: Tensor) -> dict[str, Tensor]:
        """What shows whether the head still explores: entropy (nats) or saturation (fraction of |a| > 0.99).

        Args:
            output: Head output `[..., dim]`.

        Returns:
            Name -> `[...]`.
        """

    def explore(self, output: np.ndarray, noise: np.ndarray, scale: float) -> np.ndarray:
        """Noisy action code `[..., dim]` float32.

        Args:
            output: Head output `[..., dim]`.
            noise: Gaussian or OU noise ("additive") or standard Gumbel noise ("gumbel"), `[..., dim]`.
            scale: Standard deviation in action-code units ("additive") or temperature ("gumbel").
        """
        if self.noise == "gumbel":
            # The argmax of output + T * gumbel is an exact draw from softmax(output / T).
            return self.greedy_numpy(output + np.float32(scale) * noise)
        code = self.greedy_numpy(output)
        code += np.float32(scale) * noise
        return np.minimum(np.maximum(code, -1.0, out=code), 1.0, out=code)


class BoxCodec(ActionCodec):
    """Continuous actions, scaled to [-1, 1]; the head is tanh or, for OpenAI's way of acting on MPE, softmax.

    With `head="softmax"` the head output becomes a point of the simplex, which the code holds as `2 * p - 1`.
    """

    categorical = False

    def __init__(self, space: gym.spaces.Box, head: str = "tanh"):
        super().__init__(space, int(np.prod(space.shape, dtype=int)))
        self._span = space.high - space.low
        self._is_unit = space.dtype == np.float32 and bool((space.low == 0.0).all() and (space.high == 1.0).all())
        self.head = head
        self.noise = "additive" if head == "tanh" else "gumbel"

    def encode(self, actions: np.ndarray) -> np.ndarray:
        return np.asarray(actions, np.float32).reshape(len(actions), self.dim)

    def decode(self, code: np.ndarray | Tensor) -> np.ndarray | Tensor:
        return code.reshape(len(code), *self.space.shape)

    def to_env(self, code: np.ndarray) -> np.ndarray:
        if self._is_unit:
            return (self.decode(code) + 1.0) / 2.0  # what is below, where codes are in [-1, 1]
        low, high = self.space.low, self.space.high
        # As RLlib's `unsquash_action` computes it, so that no bit differs.
        return np.minimum(np.maximum(low + (self.decode(code) + 1.0) * self._span / 2.0, low), high)

    def greedy(self, output: Tensor) -> Tensor:
        return torch.tanh(output) if self.head == "tanh" else 2.0 * torch.softmax(output, -1) - 1.0

    def greedy_numpy(self, output: np.ndarray) -> np.ndarray:
        if self.head == "tanh":
            return np.tanh(output)
        exp = np.exp(output - output.max(-1, keepdims=True))
        return (2.0 * exp / exp.sum(-1, keepdims=True) - 1.0).astype(np.float32)

    def sample(
        self,
        output: Tensor,
        gumbel: Tensor | None,
        temperature: float | Tensor,
        estimate: Estimate | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        return self.greedy(output)

    def head_metrics(self, output: Tensor) -> dict[str, Tensor]:
        return {"action_saturation": (self.greedy(output).abs() > 0.99).to(output.dtype).mean(-1)}

    def key(self) -> tuple:
        return self.head, self.dim


class CategoricalCodec(ActionCodec):
    """Discrete and MultiDiscrete actions: one one-hot block for each part.

    The forward value of a sample is a hard one-hot, its gradient that of an estimator, by default straight-through
    Gumbel-Softmax. So the critic sees in the actor loss what it sees in replay: one-hots.
    """

    categorical = True
    noise = "gumbel"

    def __init__(self, space: gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        self.single = isinstance(space, gym.spaces.Discrete)
        nvec = [space.n] if self.single else np.asarray(space.nvec).ravel()
        self.nvec = tuple(int(n) for n in nvec)
        starts = np.ravel(np.asarray(space.start, np.int64))
        self.starts = starts if starts.size == len(self.nvec) else np.zeros(len(self.nvec), np.int64)
        # Column at which each part's one-hot begins.
        self.offsets = np.concatenate([[0], np.cumsum(self.nvec)[:-1]]).astype(np.int64)
        self.one_hots = [np.eye(n, dtype=np.float32) for n in self.nvec]
        super().__init__(space, int(sum(self.nvec)))

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(self.nvec, -1)

    def encode(self, actions: np.ndarray) -> np.ndarray:
        choices = np.asarray(actions, np.int64).reshape(len(actions), len(self.nvec)) - self.starts
        code = np.zeros((len(choices), self.dim), np.float32)
        np.put_along_axis(code, choices + self.offsets, 1.0, axis=1)
        return code

    def decode(self, code: np.ndarray | Tensor) -> np.ndarray | Tensor:
        blocks = zip(self.offsets, self.nvec, self.starts, strict=True)
        choices = [code[:, o : o + n].argmax(-1) + int(s) for o, n, s in blocks]
        if self.single:
            return choices[0]
        stack = torch.stack if isinstance(code, Tensor) else np.stack
        return stack(choices, -1).reshape(len(code), *self.space.shape)

    def greedy(self, output: Tensor) -> Tensor:
        return torch.cat([one_hot_of_largest(part) for part in self._parts(output)], -1)

    def greedy_numpy(self, output: np.ndarray) -> np.ndarray:
        if len(self.nvec) == 1:
            return self.one_hots[0][output.argmax(-1)]
        blocks = zip(self.offsets, self.nvec, self.one_hots, strict=True)
        return np.concatenate([one_hot[output[..., o : o + n].argmax(-1)] for o, n, one_hot in blocks], -1)

    def uniform(self, output: np.ndarray) -> np.ndarray:
        return np.where(output <= 0.5 * MASKED, output, np.float32(0.0))

    def allowed(self, mask: Tensor) -> Tensor:
        """Which actions a mask `[..., dim]` of ones and zeros allows, bool.

        Where it allows no action of a part at all, as those of agents that do not act, all of the part are.
        """
        parts = self._parts(mask > 0.5)
        return torch.cat([part | ~part.any(-1, keepdim=True) for part in parts], -1)

    def masked(self, output: Tensor, allowed: Tensor) -> Tensor:
        """The head output `[..., dim]` with `MASKED` for actions that are not allowed, to which no gradient goes."""
        return output.masked_fill(~allowed, MASKED)

    def probabilities(self, output: Tensor) -> Tensor:
        """Softmax of each part: head output `[..., dim]` -> `[..., dim]`."""
        return torch.cat([torch.softmax(part, -1) for part in self._parts(output)], -1)

    def log_probabilities(self, output: Tensor) -> Tensor:
        """Logarithms of `probabilities`."""
        return torch.cat([torch.log_softmax(part, -1) for part in self._parts(output)], -1)

    def sample(
        self,
        output: Tensor,
        gumbel: Tensor | None,
        temperature: float | Tensor,
        estimate: Estimate | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        if estimate is None:
            return torch.cat([straight_through(scores) for scores in self._parts((output + gumbel) / temperature)], -1)
        extras = [None] * len(self.nvec) if extra is None else self._parts(extra)
        parts = zip(self._parts(output), self._parts(gumbel), extras, strict=True)
        return torch.cat([estimate(logits, noise, temperature, more) for logits, noise, more in parts], -1)

    def head_metrics(self, output: Tensor) -> dict[str, Tensor]:
        entropy = [-(F.softmax(p, -1) * F.log_softmax(p, -1)).sum(-1) for p in self._parts(output)]
        return {"action_entropy": torch.stack(entropy).mean(0)}

    def key(self) -> tuple:
        return "categorical", self.nvec


def make_codec(space: gym.Space, head: str = "tanh", agent: str = "") -> ActionCodec:
    """The codec of an action space.

    Args:
        space: Box with finite bounds of float32 or float64, Discrete or MultiDiscrete.
        head: "tanh" or "softmax", for Box spaces. "softmax" needs a one-dimensional Box(0, 1).
        agent: Named in errors.

    Raises:
        ValueError: For any other space, naming agent, space and what to do.
    """
    if isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)):
        return CategoricalCodec(space)
    if not isinstance(space, gym.spaces.Box):
        raise ValueError(
            f"Agent {agent!r}: action space {space} is not supported. MADDPG knows Box, Discrete and MultiDiscrete; wrap "
            "the env so that the agent has one of these (for example flatten a Tuple of Discretes into a MultiDiscrete)."
        )
    if space.dtype not in (np.float32, np.float64):  # RLlib scales no other boxes to their bounds
        raise ValueError(
            f"Agent {agent!r}: action space {space} is a Box of dtype {space.dtype}. Boxes must be float32 or float64; use "
            "MultiDiscrete for integer actions."
        )
    problem = _bounds_problem(space)
    if problem:
        raise ValueError(
            f"Agent {agent!r}: action space {space} {problem}. A deterministic actor needs finite bounds, to which its "
            "actions are scaled. Set low and high where the space is made (`action_spaces` of a MultiAgentEnv, "
            "`action_space(agent)` of a PettingZoo game), or wrap a game that is not yours with SuperSuit's "
            "`action_lambda_v1(env, lambda action, space: action, lambda space: Box(-1, 1, space.shape))`."
        )
    if head == "softmax" and (len(space.shape) != 1 or (space.low != 0).any() or (space.high != 1).any()):
        raise ValueError(
            f"Agent {agent!r}: `actor_head='softmax'` needs a one-dimensional Box from 0 to 1, not {space}. Set "
            "`actor_head='tanh'`."
        )
    return BoxCodec(space, head)


def _bounds_problem(space: gym.spaces.Box) -> str:
    """Why actions cannot be scaled to the bounds of a box, or nothing."""
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return "is unbounded: its low or high bound is infinite or NaN"
    if (low > high).any():
        return "has a low bound above the high one"
    with np.errstate(over="ignore"):
        widest = 2.0 * (high - low).max(initial=0.0)  # what scaling computes with
    if max(widest, np.abs([low, high]).max(initial=0.0)) > np.finfo(np.float32).max:
        return "has a bound near the largest float32 or beyond, so that scaling overflows"
    return ""
