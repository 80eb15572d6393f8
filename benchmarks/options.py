"""The settings that all parts share, and their checks."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from importlib import import_module

import torch

DEFAULT_SCENARIOS = ("simple_spread", "simple_adversary")
# Numbers of env runners on a machine with 16 cores.
SCALING = (1, 2, 4, 8, 14)
# Env steps of each env in one `sample()` call: an episode of MPE.
FRAGMENT = 25


@dataclass(frozen=True)
class Options:
    """What is measured, and for how long.

    Attributes:
        scenarios: mpe2 scenarios without version; played with continuous actions.
        repeats: Rounds; each round measures every contender once.
        seconds: Wall time of a single measurement; at least one call is made.
        num_envs: Environments of each runner.
        batch: Joint rows of one update or one draw from a buffer.
        rows: Capacity of our replay buffer, which is full while part `replay` measures it and fills up in part `train`.
        stock_rows: Env steps in RLlib's replay buffer while it is measured.
        many_agents: Agents of the large game in part `update`.
        torch_threads: Of this process.
        device: Of the Learner in parts `update`, `replay`, `train` and `shared`, "cpu" or "cuda".
        soak_env_steps: Length of the soak run.
        drawn: Whether part `update` draws its rows, too; on a GPU it always does.
        runners: Numbers of env runners that part `train` is measured with; none: with at most one, but on a GPU `SCALING`.
        profile: Folder for profiles of part `update` with drawn rows; None: none are made.
        trials: At the same time in part `shared`.
    """

    scenarios: tuple[str, ...] = DEFAULT_SCENARIOS
    repeats: int = 7
    seconds: float = 1.0
    num_envs: int = 8
    batch: int = 1024
    rows: int = 100_000
    stock_rows: int = 10_000
    many_agents: int = 24
    torch_threads: int = 1
    device: str = "cpu"
    soak_env_steps: int = 1_000_000
    drawn: bool = False
    runners: tuple[int, ...] = ()
    profile: str | None = None
    trials: int = 8

    def check(self) -> None:
        """Raises a ValueError for a setting that cannot be measured here."""
        whole = {name for name, field in self.__dataclass_fields__.items() if field.type == "int"}
        for name in sorted(whole):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1.")
        if any(n < 1 for n in self.runners):
            raise ValueError(f"--runners {' '.join(map(str, self.runners))} must be numbers of at least 1.")
        if self.seconds < 0:
            raise ValueError(f"--seconds {self.seconds} must not be negative.")
        known = known_scenarios()
        for scenario in self.scenarios:
            if scenario not in known:
                raise ValueError(f"--scenarios {scenario} is not a scenario of mpe2. There are: {', '.join(known)}.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: torch sees no GPU on this machine. Leave it out, or set `--device cpu`.")


def known_scenarios() -> dict[str, str]:
    """Scenario of mpe2 -> its newest module.

    Raises:
        ValueError: If mpe2 is not installed.
    """
    try:
        path = import_module("mpe2").__path__
    except ImportError as error:
        raise ValueError("The benchmarks play mpe2's scenarios, which are not installed: pip install mpe2") from error
    modules = [module.name for module in pkgutil.iter_modules(path) if "_v" in module.name]
    return dict(sorted((module.rpartition("_v")[0], module) for module in modules))
