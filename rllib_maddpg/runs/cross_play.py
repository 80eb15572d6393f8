"""Cross-play: agents of several runs in one game, each played by the module that it was trained with."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ray.rllib.policy.policy import PolicySpec

from rllib_maddpg.algorithm.checkpoint_files import ACTING
from rllib_maddpg.config.agent_mapping import AgentMapping
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.modules.sub_policies import teams_of
from rllib_maddpg.results.run_folder import find_checkpoint
from rllib_maddpg.runs.cross_checks import PlayingRun, check_fits, check_same_env
from rllib_maddpg.runs.evaluation import Evaluation, check_sub_policy, evaluation_runner, played, restored_runner
from rllib_maddpg.sampling.connectors import AgentMeanStdFilter
from rllib_maddpg.sampling.sub_policies import sub_policy_counts
from rllib_maddpg.sampling.sub_policy_connector import SelectSubPolicies

# Agent -> the run that plays it.
Seats = dict[Hashable, PlayingRun]


@dataclass(frozen=True)
class CrossPlay:
    """A game of several runs, and how it went.

    Attributes:
        players: Agent -> the checkpoint whose module has played it.
        evaluation: What was found.
    """

    players: dict[str, Path]
    evaluation: Evaluation

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; no frames."""
        return {"pairing": {agent: str(path) for agent, path in self.players.items()}, **self.evaluation.to_dict()}


def evaluate_cross_play(
    checkpoint: str | Path,
    opponents: Mapping[str, str | Path],
    episodes: int = 100,
    seed: int = 0,
    record_frames: int = 0,
    num_envs: int = 16,
    env_config: dict | None = None,
    render: bool = False,
    sub_policy: int | None = None,
) -> CrossPlay:
    """Plays greedy episodes with agents of several runs; needs no running Ray.

    The game is that of `checkpoint`: its env, its env runner's class and its callbacks. Each agent gets the actions that its
    own run's module gives for what it observes: whatever the algorithm, network sizes, module ids and parameter sharing.

    Args:
        checkpoint: Checkpoint folder, or run folder (its newest checkpoint). It plays all agents that no pattern matches.
        opponents: Pattern of agent ids (as `fnmatch.fnmatchcase` has it: `*`, `?`, `[abc]`) -> folder, as `checkpoint`.
        episodes: Number of episodes.
        seed: Of the episodes' starts; the same seed gives the same starts, whoever plays.
        record_frames: Number of episodes whose frames are kept, as in `evaluate_checkpoint`.
        num_envs: Environments that run side by side.
        env_config: Overrides of the env's settings, for all of the runs.
        render: Shows the games in a window, as in `evaluate_checkpoint`.
        sub_policy: The one that all agents of all runs play; None: one is drawn for each episode, where there are several.
            Agents of different runs never draw together.

    Raises:
        ValueError: As `evaluate_checkpoint`; if a pattern matches no agent, two match the same one, or no agent is left to
            `checkpoint`; or if a run was trained in another game, with other spaces or `actor_head` of its agents, another
            `env_config`, or connectors that cannot be combined.
    """
    own, seats = _seated(checkpoint, opponents, env_config, sub_policy)
    return _play_seated(own, seats, episodes, seed, record_frames, num_envs, render, sub_policy)


def evaluate_pairings(
    checkpoint: str | Path,
    opponents: Mapping[str, str | Path],
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 16,
    env_config: dict | None = None,
    sub_policy: int | None = None,
) -> list[CrossPlay]:
    """Plays all four pairings of two runs, with the same starts of episodes: the paper's comparison of algorithms.

    Arguments and errors as in `evaluate_cross_play`; `opponents` must name one run, whatever the number of patterns.

    Returns:
        The games in which the agents that match and all others are played by: `checkpoint` both; the opponent and `checkpoint`;
        `checkpoint` and the opponent; the opponent both. Subtract their evaluations with `Evaluation.minus`.
    """
    own, seats = _seated(checkpoint, opponents, env_config, sub_policy)
    others = set(seats.values()) - {own}
    if len(others) > 1:
        paths = sorted(str(run.path) for run in others)
        raise ValueError(f"There are four pairings of two runs, but the opponents are {paths}. Name one run.")
    (other,) = others
    check_fits(own, other, own.layout.agents)
    swapped = {agent: own if run is other else other for agent, run in seats.items()}
    tables = (dict.fromkeys(seats, own), seats, swapped, dict.fromkeys(seats, other))
    return [_play_seated(own, table, episodes, seed, num_envs=num_envs, sub_policy=sub_policy) for table in tables]


def _seated(
    checkpoint: str | Path, opponents: Mapping[str, str | Path], env_config: dict | None, sub_policy: int | None
) -> tuple[PlayingRun, Seats]:
    """Loads and checks the runs: that of `checkpoint`, and who plays which agent."""
    path, _ = find_checkpoint(checkpoint, ACTING)
    paths = {}
    for pattern, folder in opponents.items():
        try:
            paths[pattern], _ = find_checkpoint(folder, ACTING)
        except ValueError as error:
            raise ValueError(f"Opponent '{pattern}={folder}': {error}") from error
    own = _load(path, env_config, sub_policy)
    pattern_of = _matched(own, paths)
    seats: Seats = dict.fromkeys(own.layout.agents, own)
    for other_path in dict.fromkeys(paths.values()):
        check_same_env(own, other_path)
        other = _load(other_path, env_config, sub_policy)
        agents = [agent for agent, pattern in pattern_of.items() if paths[pattern] == other_path]
        check_fits(own, other, agents)
        seats.update(dict.fromkeys(agents, other))
    return own, seats


def _load(path: Path, env_config: dict | None, sub_policy: int | None) -> PlayingRun:
    runner = restored_runner(path, env_config=env_config)
    runner.stop()  # only its actors and connectors are needed; some envs cannot be there twice
    try:
        check_sub_policy(runner, sub_policy)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return PlayingRun(path, runner.config, runner.layout, runner.module, _pipelines(runner))


def _pipelines(runner: Any) -> tuple[list[Any], list[Any]]:
    """Connectors from env to module, and from module to env, without that which says who plays which sub-policy: it is there
    where somebody in the game has several."""
    pieces = [piece for piece in runner._env_to_module.connectors if not isinstance(piece, SelectSubPolicies)]
    return pieces, runner._module_to_env.connectors


def _matched(own: PlayingRun, paths: Mapping[str, Path]) -> dict[Hashable, str]:
    """Agent -> the pattern that matches it."""
    agents, found = own.layout.agents, {}
    listed = f"The agents are {[str(agent) for agent in agents]}."
    if not paths:
        raise ValueError("There is no opponent. Name at least one, such as {'adversary_*': 'results/other_run'}.")
    for pattern in paths:
        matches = [agent for agent in agents if fnmatchcase(str(agent), pattern)]
        if not matches:
            raise ValueError(
                f"Opponent pattern {pattern!r} matches no agent.{did_you_mean(pattern, map(str, agents))} {listed} Name "
                "one, or several with a pattern such as 'adversary_*'."
            )
        for agent in matches:
            if agent in found:
                raise ValueError(
                    f"Opponent patterns {found[agent]!r} and {pattern!r} both match agent {str(agent)!r}, which only one run "
                    f"can play. {listed} Make the patterns narrower, such as 'adversary_[12]'."
                )
            found[agent] = pattern
    if len(found) == len(agents):
        raise ValueError(
            f"Opponent patterns {list(paths)} match all agents and leave none to {own.path}. {listed} Evaluate one of the "
            "opponents instead, or make the patterns narrower."
        )
    return found


def _play_seated(
    own: PlayingRun,
    seats: Seats,
    episodes: int,
    seed: int,
    record_frames: int = 0,
    num_envs: int = 16,
    render: bool = False,
    sub_policy: int | None = None,
) -> CrossPlay:
    def make(envs: int, render_mode: str | None) -> Any:
        return _runner(own, seats, episodes, seed, record_frames, envs, render_mode, sub_policy)

    evaluation = played(make, episodes, record_frames, num_envs, render)
    return CrossPlay({str(agent): seats[agent].path for agent in sorted(seats, key=str)}, evaluation)


def _runner(own: PlayingRun, seats: Seats, *playing: Any) -> Any:
    """An env runner of the game of `own`, with the modules and the connectors' states of all runs."""
    numbers = {run: n for n, run in enumerate(dict.fromkeys([own, *seats.values()]))}
    module_of, sources = {}, {}
    for agent, run in seats.items():
        module = run.layout.slots[run.layout.index(agent)].module
        # Two runs may have modules of one name.
        module_of[agent] = module if run is own else f"{module} of opponent {numbers[run]}"
        sources[module_of[agent]] = run, module
    config = own.config.copy(copy_frozen=False)
    config.policies = {module_id: PolicySpec() for module_id in sorted(sources)}
    config.policy_mapping_fn = AgentMapping(module_of)
    config._rl_module_spec = None  # it names the modules of one run
    config.share_sub_policy_draw = False  # each run has its own agents draw as they did
    episodes, seed, record_frames, envs, render_mode, sub_policy = playing
    runner = evaluation_runner(config, episodes, seed, record_frames, envs, None, render_mode, sub_policy)
    for module_id, (run, source) in sources.items():
        # Whole modules take the places of the fresh ones, so that each has the class, the networks and the settings that it was
        # trained with; copies, because one with a state of its own shall begin each evaluation alike.
        module = copy.deepcopy(run.module[source])
        module.model_config = {**module.model_config, "layout": runner.layout, "schema": runner.schema}
        runner.module.add_module(module_id, module, override=True)
    runner.draw_sub_policies(_teams(runner, seats))
    for pieces, saved in zip(_pipelines(runner), zip(*(run.pipelines for run in numbers), strict=True), strict=True):
        for place, piece in enumerate(pieces):
            _restore(piece, {run: run_pieces[place] for run, run_pieces in zip(numbers, saved, strict=True)}, own, seats)
    return runner


def _teams(runner: Any, seats: Seats) -> list[tuple[Hashable, ...]]:
    """Agents that draw their sub-policies together: as in their own run, those of it that play."""
    counts = sub_policy_counts(runner.layout, runner.module)
    teams = []
    for run in dict.fromkeys(seats.values()):
        playing = {agent: counts[agent] for agent, own in seats.items() if own is run}
        share = run.config.share_sub_policy_draw
        if isinstance(share, (list, tuple)):
            share = [[agent for agent in team if agent in playing] for team in share]
        teams += teams_of(playing, share)
    return teams


def _restore(piece: Any, saved: Mapping[PlayingRun, Any], own: PlayingRun, seats: Seats) -> None:
    """Gives a connector the state that it has in the runs."""
    state = saved[own].get_state()
    if isinstance(piece, AgentMeanStdFilter):
        # An agent sees what it saw in its own training.
        states = {run: one.get_state() for run, one in saved.items()}
        state = {agent: states[seats[agent]][agent] for agent in state}
    if state:
        piece.set_state(copy.deepcopy(state))
