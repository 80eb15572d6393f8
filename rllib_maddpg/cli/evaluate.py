"""`rllib-maddpg evaluate`: reads its command line, plays, and prints what was found."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rllib_maddpg.algorithm.checkpoint_files import ACTING
from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.config.text_settings import parse_settings
from rllib_maddpg.plotting.plots import save_gif
from rllib_maddpg.results.output_paths import check_file, why_not_written
from rllib_maddpg.results.run_folder import find_checkpoint, short_path
from rllib_maddpg.runs.cross_play import CrossPlay, evaluate_cross_play, evaluate_pairings
from rllib_maddpg.runs.evaluation import Estimate, Evaluation, evaluate_checkpoint

PROGRAM = "rllib-maddpg evaluate"
GIF_EPISODES = 3
METRIC_MEANINGS = {
    "good_success": "share of episodes: a good agent ends within 0.4 of the target",
    "adversary_success": "share of episodes: the adversary ends within 0.4 of the target",
    "good_distance": "distance of the closest good agent to the target at the end",
    "distance_sum": "sum over landmarks of the distance of the closest agent, mean over steps",
    "mean_distance": "distance_sum / number of landmarks",
    "collisions": "colliding pairs of agents, summed over an episode's steps",
    "reach": "share of episodes: the listener ends within 0.45 of its landmark",
    "distance_squared": "squared distance of the listener to its landmark at the end",
}


def add_evaluate(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command to those of `rllib-maddpg`."""
    command = commands.add_parser(
        "evaluate",
        parents=[common],
        help="play episodes without exploration noise",
        description="Plays episodes without exploration noise; prints means and 95 % confidence intervals.",
        epilog=f"example: {PROGRAM} results/simple_adversary_s0_2026-01-31 --episodes 1000 --gif game.gif",
    )
    add = command.add_argument
    add("checkpoint", metavar="DIR", help="checkpoint folder, or run folder (its newest checkpoint)")
    add("--episodes", type=int, metavar="N", help=f"(default: 100, with --render {GIF_EPISODES})")
    add("--seed", type=int, default=0, metavar="S", help="the same seed gives the same games (default: 0)")
    add(
        "--opponent",
        action="append",
        default=[],
        metavar="PATTERN=DIR",
        help="cross-play: agents whose ids match PATTERN (*, ?, [abc]) are played by another run, such as "
        '"adversary_*=results/other", all others by DIR; may be given several times, each agent with one match at most',
    )
    add(
        "--sub-policy",
        type=int,
        metavar="K",
        help="the sub-policy that all agents play, from 0 (default: one is drawn for each episode)",
    )
    add("--json", action="store_true", help="print JSON only")
    what = command.add_mutually_exclusive_group()
    what.add_argument(
        "--pairings",
        action="store_true",
        help="with --opponent: all four pairings of the two runs, with common starts of episodes, and the paired "
        "differences to DIR against itself",
    )
    what.add_argument("--gif", metavar="FILE", help=f"film of the first {GIF_EPISODES} episodes")
    what.add_argument("--render", action="store_true", help="show the games in a window")
    command.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace, argv: list[str]) -> int:
    """Does what the command line says; returns the exit code.

    Raises:
        ValueError: As `evaluate_checkpoint` or `evaluate_cross_play`, and for a film that cannot be written.
    """
    checkpoint, _ = find_checkpoint(args.checkpoint, ACTING)
    opponents = _opponents(args.opponent)
    if args.pairings and not opponents:
        raise ValueError('--pairings needs another run: --opponent "PATTERN=DIR".')
    if args.gif:
        check_file("--gif", args.gif)
    # Whatever an environment prints shall not get into the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        games = _play(args, checkpoint, opponents)
        if args.gif:
            try:
                save_gif(games[0].evaluation.frames, args.gif)
            except OSError as error:
                raise ValueError(f"--gif {args.gif} cannot be written: {why_not_written(error)}.") from error
    if args.json:
        print(json.dumps({"checkpoint": str(checkpoint), "seed": args.seed, **_plain(games, bool(opponents))}, indent=2))
        return 0
    print(f"{load_config(checkpoint).env}, checkpoint {short_path(checkpoint)}")
    if args.pairings:
        print("differences: to the first pairing, episode by episode, from the same starts")
    first = games[0].evaluation
    for game in games:
        if args.pairings:
            print()
        if opponents:
            _print_players(game.players)
        print_evaluation(game.evaluation, None if game is games[0] else game.evaluation.minus(first))
    if args.gif:
        print(f"Film of {min(GIF_EPISODES, first.episodes)} episodes: {args.gif}")
    return 0


def _opponents(words: Sequence[str]) -> dict[str, str]:
    """Pattern -> folder."""
    opponents: dict[str, str] = {}
    for word in words:
        pattern, _, folder = word.partition("=")
        if not pattern or not folder:
            raise ValueError(
                f"--opponent {word!r} must be PATTERN=DIR: agents, and the run that plays them, such as "
                '--opponent "adversary_*=results/other".'
            )
        if pattern in opponents:
            raise ValueError(f"--opponent has {pattern!r} twice: with {opponents[pattern]!r} and {folder!r}. Take one out.")
        opponents[pattern] = folder
    return opponents


def _play(args: argparse.Namespace, checkpoint: Path, opponents: Mapping[str, str]) -> list[CrossPlay]:
    """One game, or all pairings; without opponents nobody says who plays."""
    asked: dict[str, Any] = {
        "episodes": args.episodes if args.episodes is not None else GIF_EPISODES if args.render else 100,
        "seed": args.seed,
        "env_config": parse_settings(args.env_config, "--env-config") or None,
        "sub_policy": args.sub_policy,
    }
    if args.pairings:
        return evaluate_pairings(checkpoint, opponents, **asked)
    asked |= {"record_frames": GIF_EPISODES if args.gif else 0, "render": args.render}
    if opponents:
        return [evaluate_cross_play(checkpoint, opponents, **asked)]
    return [CrossPlay({}, evaluate_checkpoint(checkpoint, **asked))]


def _plain(games: Sequence[CrossPlay], is_crossed: bool) -> dict[str, Any]:
    """What JSON says of the games."""
    first, *others = games
    if not others:
        return first.to_dict() if is_crossed else first.evaluation.to_dict()
    differences = [{"difference": game.evaluation.minus(first.evaluation).to_dict()} for game in others]
    return {"pairings": [game.to_dict() | more for game, more in zip(games, [{}, *differences], strict=True)]}


# ------------------------------------------------------------------------------------------ printing


def _print_players(players: Mapping[str, Path]) -> None:
    for path in dict.fromkeys(players.values()):
        agents = [agent for agent, own in players.items() if own == path]
        print(f"{', '.join(agents)} played by {short_path(path)}")


def print_evaluation(result: Evaluation, difference: Evaluation | None = None) -> None:
    """Prints a table of estimates.

    Args:
        result: What was found.
        difference: What it has more than another one; a second pair of columns.
    """
    rows = [("team return", "sum over agents, undiscounted", lambda e: e.team)]
    if len(result.agents) > 1:
        rows += [(f"  {agent}", "", lambda e, agent=agent: e.agents.get(agent)) for agent in result.agents]
    rows += [("episode length", "env steps", lambda e: e.length)]
    rows += [(n, METRIC_MEANINGS.get(n, ""), lambda e, n=n: e.metrics.get(n)) for n in result.metrics]
    if difference:
        rows = [(name, "", get) for name, _, get in rows]  # no room
    head = f"{result.episodes} episodes without noise"
    width = max(len(head), *(len(name) for name, _, _ in rows))
    shown = [(result, "mean")] + ([(difference, "difference")] if difference else [])
    print(f"{head:<{width}}" + "".join(f"  {name:>10}  {'95 % interval':<22}" for _, name in shown))
    for name, meaning, get in rows:
        cells = "".join(_cells(get(evaluation)) for evaluation, _ in shown)
        print(f"{name:<{width}}{cells}  {meaning}".rstrip())


def _cells(estimate: Estimate | None) -> str:
    if estimate is None:
        return " " * 36
    interval = "-" if math.isnan(estimate.low) else f"[{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"  {estimate.mean:>10.3f}  {interval:<22}"
