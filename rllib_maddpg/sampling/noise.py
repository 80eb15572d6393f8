"""Exploration noise of boxes: what is added to the actors' actions, as a class that anyone can write."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rllib_maddpg.replay.class_path import load_class


class Noise:
    """Noise of several envs that step side by side, before its scale (`noise_scale`).

    A subclass has its own `next`, and `begin_episode` if it remembers what was. It draws no random numbers itself:
    `next` gets normal ones from the generator of each env's episode, so that a resumed run meets the same noise.

    Attributes:
        settings: Names of those settings of `MADDPGConfig` that the constructor takes by name, of `NOISE_SETTINGS`.
    """

    settings: tuple[str, ...] = ()

    def __init__(self, num_envs: int, width: int):
        """
        Args:
            num_envs: Number of envs that step side by side.
            width: Numbers in a joint action; those of agents whose actions are no boxes are not used.
        """
        self.num_envs, self.width = num_envs, width

    def begin_episode(self, env: int) -> None:
        """Forgets what env number `env` has had, since an episode begins there."""

    def next(self, envs: Sequence[int], normal: np.ndarray) -> np.ndarray | None:
        """The noise of one env step.

        Args:
            envs: Numbers of the E envs that act now, at most `num_envs`.
            normal: Independent standard normal numbers `[E, width]` float32. May be overwritten.

        Returns:
            `[E, width]` float32, finite; None: no noise.
        """
        raise NotImplementedError


class NoNoise(Noise):
    """The actors' actions stay as they are."""

    def next(self, envs: Sequence[int], normal: np.ndarray) -> None:
        return None


class GaussianNoise(Noise):
    """Independent of all before; standard deviation 1."""

    def next(self, envs: Sequence[int], normal: np.ndarray) -> np.ndarray:
        return normal


class OrnsteinUhlenbeckNoise(Noise):
    """`x' = x - theta x + sigma n`, from 0 at an episode's start (Lillicrap et al. 2016, section 7)."""

    settings = ("ou_theta", "ou_sigma")

    def __init__(self, num_envs: int, width: int, ou_theta: float = 0.15, ou_sigma: float = 0.2):
        super().__init__(num_envs, width)
        self.theta, self.sigma = ou_theta, ou_sigma
        self.state = np.zeros((num_envs, width), np.float32)

    def begin_episode(self, env: int) -> None:
        self.state[env] = 0.0

    def next(self, envs: Sequence[int], normal: np.ndarray) -> np.ndarray:
        state = self.state[envs]
        self.state[envs] = state = state - self.theta * state + self.sigma * normal
        return state


NOISES: dict[str, type[Noise]] = {"gaussian": GaussianNoise, "ornstein_uhlenbeck": OrnsteinUhlenbeckNoise, "none": NoNoise}
NOISE_SETTINGS = ("ou_theta", "ou_sigma")  # of `MADDPGConfig`, which a class may ask for
# A name of those, a class, "package.module.Class", or `functools.partial(Class, parameter=1.0)`.
NoiseType = str | type | functools.partial


class NoiseError(ValueError):
    """A noise class that cannot be used, or gave something else than noise; the text says what and how to fix it."""


def make_noise(noise_type: NoiseType, num_envs: int, width: int, settings: Mapping[str, Any]) -> Noise:
    """The noise that `noise_type` names.

    Args:
        noise_type: See `NoiseType`.
        num_envs: As for `Noise`.
        width: As for `Noise`.
        settings: Values of the settings that a class may ask for.

    Raises:
        NoiseError: If there is no such class, it is no noise, or its constructor failed.
    """
    if isinstance(noise_type, str) and noise_type in NOISES:
        return _construct(NOISES[noise_type], num_envs, width, settings)
    return CheckedNoise(noise_type, num_envs, width, settings)


def check_noise(noise_type: NoiseType, settings: Mapping[str, Any], num_envs: int = 2, width: int = 3) -> None:
    """Finds the class, and tries it on two steps.

    Args:
        noise_type, settings, num_envs, width: As for `make_noise`.

    Raises:
        NoiseError: If it cannot be used.
    """
    noise = make_noise(noise_type, num_envs, width, settings)
    rng = np.random.default_rng(0)
    everyone = list(range(num_envs))
    for env in everyone:
        noise.begin_episode(env)
    for envs in (everyone, everyone[-1:]):
        noise.next(envs, rng.standard_normal((len(envs), width), np.float32))


class CheckedNoise(Noise):
    """A user's noise, whose errors are told by the name of its class, and whose values are looked at."""

    def __init__(self, noise_type: NoiseType, num_envs: int, width: int, settings: Mapping[str, Any]):
        super().__init__(num_envs, width)
        make = _find(noise_type)
        self.name = _name(make)
        self.noise = _construct(make, num_envs, width, settings)

    def begin_episode(self, env: int) -> None:
        self._call("begin_episode", env)

    def next(self, envs: Sequence[int], normal: np.ndarray) -> np.ndarray | None:
        shape = normal.shape
        values = self._call("next", list(envs), normal)
        if values is None:
            return None
        if not isinstance(values, np.ndarray) or values.shape != shape or values.dtype.kind != "f":
            got = f"{values.dtype} {[*values.shape]}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
            raise NoiseError(f"{self.name}: `next` returned {got}, not float32 {[*shape]} (envs that act now, width).")
        with np.errstate(over="ignore"):  # infinity, of which is told below
            values = values.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise NoiseError(f"{self.name}: `next` returned {values[~np.isfinite(values)][0]}, and noise must be finite.")
        return values

    def _call(self, method: str, *args: Any) -> Any:
        try:
            return getattr(self.noise, method)(*args)
        except Exception as error:
            raise NoiseError(f"{self.name}: `{method}` raised {type(error).__name__}: {error}") from error


def _find(noise_type: NoiseType) -> Callable[..., Any]:
    """The class, or the partial of it, with the interface of `Noise`."""
    make = _load(noise_type) if isinstance(noise_type, str) else noise_type
    cls = make.func if isinstance(make, functools.partial) else make
    if not isinstance(cls, type):
        raise NoiseError(f"{_name(cls)} is a {type(cls).__name__}, not a class (or a `functools.partial` of one).")
    for method in ("begin_episode", "next"):
        if not callable(getattr(cls, method, None)):
            raise NoiseError(f"{_name(cls)} has no method `{method}`. Derive it from `rllib_maddpg.sampling.noise.Noise`.")
    if cls.next is Noise.next:
        raise NoiseError(f"{_name(cls)} has no `next` of its own.")
    return make


def _load(path: str) -> Any:
    try:
        return load_class(path)
    except ValueError as error:
        raise NoiseError(f"there is no noise {path!r}: {error}") from error


def _construct(make: Callable[..., Any], num_envs: int, width: int, settings: Mapping[str, Any]) -> Any:
    cls = make.func if isinstance(make, functools.partial) else make
    asked = getattr(cls, "settings", ())
    unknown = [name for name in asked if name not in settings]
    if unknown:
        raise NoiseError(f"{_name(make)}: `settings` has {unknown[0]!r}; it can have {sorted(settings)}.")
    bound = make.keywords if isinstance(make, functools.partial) else {}
    values = {name: settings[name] for name in asked if name not in bound}
    try:
        return make(num_envs, width, **values)
    except Exception as error:
        words = ", ".join(["num_envs", "width", *values])
        raise NoiseError(f"{_name(make)}({words}) raised {type(error).__name__}: {error}") from error


def _name(make: Any) -> str:
    cls = make.func if isinstance(make, functools.partial) else make
    return getattr(cls, "__qualname__", None) or repr(cls)
