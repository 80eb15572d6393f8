"""Noise-free evaluation of trained actors over many episodes."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core import COMPONENT_ENV_RUNNER

from rllib_maddpg.algorithm.checkpoint_files import ACTING, RL_MODULE, CheckpointFiles, damaged
from rllib_maddpg.algorithm.checkpoints import check_layout, read_config
from rllib_maddpg.algorithm.state_checks import CONNECTORS, check_connector
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.config.sub_policy_checks import check_exists
from rllib_maddpg.envs import EpisodeRecord, RecordedEpisodes
from rllib_maddpg.modules.rule_modules import has_networks

logger = logging.getLogger(__name__)

# Any of them says where SDL, and so pygame, draws on Linux.
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes with its 95 % confidence interval, mean +- 1.96 standard errors."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """From one value per episode."""
        x = np.asarray(values, float)
        error = 1.96 * x.std(ddof=1) / math.sqrt(len(x)) if len(x) > 1 else math.nan
        return cls(float(x.mean()), float(x.mean() - error), float(x.mean() + error))


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        episodes: Number of episodes.
        team: Sum of all agents' undiscounted returns.
        agents: Undiscounted return of each agent, over the episodes that it played.
        length: Env steps of an episode.
        metrics: Scenario metrics, see `rllib_maddpg.envs.metrics`.
        frames: RGB frames of the recorded episodes, `[height, width, 3]` uint8 each.
        records: The episodes themselves. Those of two evaluations with the same `seed`, `episodes` and `num_envs` begin alike.
    """

    episodes: int
    team: Estimate
    agents: dict[str, Estimate]
    length: Estimate
    metrics: dict[str, Estimate]
    frames: list[np.ndarray] = field(default_factory=list, repr=False)
    records: list[EpisodeRecord] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, records: Sequence[EpisodeRecord], frames: Sequence[np.ndarray] = ()) -> Evaluation:
        """Summary of finished episodes."""
        agents = sorted({agent for r in records for agent in r.returns}, key=str)
        names = sorted({name for r in records for name in r.metrics})
        return cls(
            episodes=len(records),
            team=Estimate.of([sum(r.returns.values()) for r in records]),
            agents={str(a): Estimate.of([r.returns[a] for r in records if a in r.returns]) for a in agents},
            length=Estimate.of([r.length for r in records]),
            metrics={n: Estimate.of([r.metrics[n] for r in records if n in r.metrics]) for n in names},
            frames=list(frames),
            records=list(records),
        )

    def minus(self, other: Evaluation) -> Evaluation:
        """The paired differences to another evaluation whose episodes begin alike: what episode k has more than the other's.

        Agents, and metrics, that an episode has in one of the two only are left out of it; not so in the team's return.

        Raises:
            ValueError: If there are not equally many episodes.
        """
        pairs = list(zip(self.records, other.records, strict=True))

        def differences(part: str) -> dict[str, Estimate]:
            both = [(getattr(mine, part), getattr(theirs, part)) for mine, theirs in pairs]
            names = sorted({name for mine, theirs in both for name in mine.keys() & theirs.keys()}, key=str)
            return {str(n): Estimate.of([x[n] - y[n] for x, y in both if n in x and n in y]) for n in names}

        return Evaluation(
            episodes=len(pairs),
            team=Estimate.of([sum(mine.returns.values()) - sum(theirs.returns.values()) for mine, theirs in pairs]),
            agents=differences("returns"),
            length=Estimate.of([mine.length - theirs.length for mine, theirs in pairs]),
            metrics=differences("metrics"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; no frames."""
        return {
            "episodes": self.episodes,
            "team_return": _plain(self.team),
            "agent_return": {agent: _plain(estimate) for agent, estimate in self.agents.items()},
            "episode_length": _plain(self.length),
            "metrics": {name: _plain(estimate) for name, estimate in self.metrics.items()},
        }


def _plain(estimate: Estimate) -> dict[str, float | None]:
    # One episode has no interval, and JSON no NaN.
    return {name: value if math.isfinite(value) else None for name, value in vars(estimate).items()}


def evaluate_checkpoint(
    checkpoint: str | Path,
    episodes: int = 100,
    seed: int = 0,
    record_frames: int = 0,
    num_envs: int = 16,
    env_config: dict | None = None,
    render: bool = False,
    sub_policy: int | None = None,
) -> Evaluation:
    """Plays greedy episodes with the actors of a checkpoint; needs no running Ray.

    Args:
        checkpoint: Folder of an algorithm's checkpoint.
        episodes: Number of episodes.
        seed: Of the episodes' starts; the same seed gives the same games.
        record_frames: Number of episodes whose frames are kept, the first ones; the env must render "rgb_array".
        num_envs: Environments that run side by side.
        env_config: Overrides of the env's settings.
        render: Shows the games in a window (the env must render "human"), one after the other at the env's own speed.
        sub_policy: The one that all agents play; None: one is drawn for each episode, where there are several.

    Raises:
        ValueError: If the checkpoint is missing or damaged, if it does not fit the env as `env_config` makes it, if
            frames or a window are asked for that the env cannot render, if there is no display, if there is no such
            sub-policy, or if `episodes` is below 1.
    """

    def make(envs: int, render_mode: str | None) -> Any:
        return restored_runner(Path(checkpoint), episodes, seed, record_frames, envs, env_config, render_mode, sub_policy)

    return played(make, episodes, record_frames, num_envs, render)


def played(
    make: Callable[[int, str | None], Any], episodes: int, record_frames: int = 0, num_envs: int = 16, render: bool = False
) -> Evaluation:
    """What `evaluate_checkpoint` does, with the env runner of `make(num_envs, render_mode)`; arguments and errors as there."""
    if render and record_frames:
        raise ValueError("An env either records frames or shows a window, not both: `record_frames` or `render`.")
    if render:
        _check_display()
    render_mode = "human" if render else "rgb_array" if record_frames else None
    with _drawing_unseen() if record_frames else contextlib.nullcontext():
        return _play(make(1 if render else num_envs, render_mode), episodes)


def restored_runner(
    path: Path,
    episodes: int = 1,
    seed: int = 0,
    record_frames: int = 0,
    num_envs: int = 1,
    env_config: dict | None = None,
    render_mode: str | None = None,
    sub_policy: int | None = None,
) -> Any:
    """An env runner with the actors and connectors of a checkpoint; arguments and errors as in `evaluate_checkpoint`."""
    files = CheckpointFiles(path)
    files.check(ACTING)
    runner = evaluation_runner(read_config(files), episodes, seed, record_frames, num_envs, env_config, render_mode, sub_policy)
    try:
        # With other settings the env may have more agents or fewer than that of the training.
        check_layout(files.read_metadata(), runner.layout, f"{path} (env_config={env_config})", same_agents=not env_config)
        check_sub_policy(runner, sub_policy)
        _restore(runner, files)
    except ValueError:
        runner.stop()
        raise
    return runner


def evaluate_algorithm(
    algo: Any,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 16,
    seconds: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Plays greedy episodes with an algorithm's present actors.

    Args:
        algo: The algorithm.
        episodes: Number of episodes.
        seed: Of the episodes' starts; the same seed gives the same games.
        num_envs: Environments that run side by side.
        seconds: Wall time that it may take; then fewer episodes are played, equally many in each env.
        stopped: Is asked before each step whether to end at once.

    Returns:
        None if it ended before each env had finished an episode.
    """
    deadline = time.monotonic() + seconds
    if math.isfinite(seconds):
        # Some environments take seconds to start: as many as can in half of the time.
        trial = evaluation_runner(algo.config, 1, seed, 0, 1, None, None)
        before = time.monotonic()
        trial.make_env()
        num_envs = max(1, min(num_envs, int(seconds / 2 / (time.monotonic() - before))))
        trial.stop()
    runner = evaluation_runner(algo.config, episodes, seed, 0, num_envs, None, None)
    runner.module.set_state(algo.learner_group.get_weights())
    if algo.env_runner is not None:
        runner._env_to_module.set_state(algo.env_runner._env_to_module.get_state())
    return _play(runner, episodes, lambda: time.monotonic() < deadline and not stopped())


def check_sub_policy(runner: Any, sub_policy: int | None) -> None:
    """All modules of a runner that have networks have the sub-policy that is to act.

    Raises:
        ValueError: Naming the first module that has not.
    """
    if sub_policy is not None:
        networks = {m: module.unwrapped() for m, module in runner.module.items()}
        check_exists(sub_policy, {m: own.num_sub_policies for m, own in networks.items() if has_networks(own)})


def _restore(runner: Any, files: CheckpointFiles) -> None:
    """Gives the checkpoint's actors and connectors to the runner."""
    # Connectors may have learnt something, such as means and standard deviations of observations. Without a local env runner
    # the algorithm keeps them itself.
    base = f"{COMPONENT_ENV_RUNNER}/" if files.is_dir(COMPONENT_ENV_RUNNER) else ""
    for name in CONNECTORS:
        check_connector(files, f"{base}{name}", getattr(runner, f"_{name.removesuffix('_connector')}"))
    try:
        runner.module.restore_from_path(files.at(RL_MODULE))
        for name in CONNECTORS:
            if files.is_dir(f"{base}{name}"):
                getattr(runner, f"_{name.removesuffix('_connector')}").restore_from_path(files.at(f"{base}{name}"))
    except Exception as error:  # a damaged pickle can raise anything
        raise damaged(files.path, error) from error


def _check_display() -> None:
    """Without a display SDL would draw where nobody sees it, and say nothing."""
    if not sys.platform.startswith("linux") or os.environ.get("SDL_VIDEODRIVER"):
        return
    problem = ""
    if not any(os.environ.get(name) for name in _DISPLAYS):
        problem = "neither DISPLAY nor WAYLAND_DISPLAY is set"
    else:
        with contextlib.suppress(ImportError):  # then the env draws with something else
            import pygame

            pygame.display.init()
            if pygame.display.get_driver() in ("dummy", "offscreen"):
                problem = "the one that DISPLAY or WAYLAND_DISPLAY names cannot be opened"
            pygame.display.quit()
    if problem:
        raise ValueError(f"There is no display to open a window on: {problem}. Write a film instead: --gif FILE.")


@contextlib.contextmanager
def _drawing_unseen() -> Iterator[None]:
    """Lets pygame draw frames where there is no display."""
    alone = sys.platform.startswith("linux") and not any(os.environ.get(name) for name in _DISPLAYS)
    if alone:
        os.environ["SDL_VIDEODRIVER"] = "dummy"
    try:
        yield
    finally:
        if alone:
            del os.environ["SDL_VIDEODRIVER"]


def evaluation_runner(
    config: MADDPGConfig,
    episodes: int,
    seed: int,
    record_frames: int,
    num_envs: int,
    env_config: dict | None,
    render_mode: str | None,
    sub_policy: int | None = None,
) -> Any:
    """An env runner for noise-free episodes, with fresh actors; arguments and errors as in `evaluate_checkpoint`."""
    if episodes < 1:
        raise ValueError(f"`episodes`={episodes} must be at least 1.")
    config = config.copy(copy_frozen=False)
    config.output = None  # these episodes are no part of what the run was to record
    if env_config:
        # An env that is not the one trained in: its agents may have no actors.
        config.environment(env_config=env_config)
        config.validate()
    if render_mode:
        config.environment(env_config={"render_mode": render_mode})
    config.environment(disable_env_checking=True)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=min(num_envs, episodes), explore=False)
    # A rebuilt env would have no record of its episodes.
    config.fault_tolerance(restart_failed_sub_environments=False)
    config.debugging(seed=seed)
    config.in_evaluation, config.sub_policy = True, sub_policy
    runner = config.env_runner_cls(config=config, worker_index=0, num_workers=0)
    has = runner.env.envs[0].render_mode
    if render_mode and has != render_mode:
        what = "filmed" if record_frames else "shown in a window"
        name = runner.config.env.source.name
        raise ValueError(f"env={name!r} cannot be {what}: its `render_mode` is {has!r}, not {render_mode!r}.")
    for seeded, share in zip(runner.env.envs, _shares(runner, episodes), strict=True):
        recorded = min(share, record_frames)
        seeded.env = RecordedEpisodes(seeded.env, recorded)
        record_frames -= recorded
    return runner


def _shares(runner: Any, episodes: int) -> list[int]:
    """Episodes that each env plays."""
    envs = runner.num_envs
    return [episodes // envs + (e < episodes % envs) for e in range(envs)]


def _play(runner: Any, episodes: int, go_on: Callable[[], bool] = lambda: True) -> Evaluation | None:
    """Every env plays its share: taking the first that finish would favour short episodes."""
    envs = [seeded.env for seeded in runner.env.envs]
    shares = _shares(runner, episodes)
    while any(len(env.episodes) < share for env, share in zip(envs, shares, strict=True)):
        if not go_on():
            shares = [min(share, *(len(env.episodes) for env in envs)) for share in shares]
            break
        runner.sample(num_timesteps=len(envs), explore=False)
    records = [record for env, share in zip(envs, shares, strict=True) for record in env.episodes[:share]]
    frames = [frame for env in envs for frame in env.frames]
    runner.stop()
    return Evaluation.of(records, frames) if records else None
