"""`rllib-maddpg`: reads the command line and prints; the work is done in `run` and `evaluation`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym

from rllib_maddpg.algorithm.members import MEMBERS, new_config
from rllib_maddpg.cli.console import guarded_output
from rllib_maddpg.cli.evaluate import add_evaluate, print_evaluation
from rllib_maddpg.cli.screen import Screen
from rllib_maddpg.config.config_file import DEFAULT_ALGORITHM
from rllib_maddpg.config.text_settings import parse_settings, with_booleans
from rllib_maddpg.deploy.command import add_export
from rllib_maddpg.plotting.command import add_plot
from rllib_maddpg.results.output_paths import why_not_written
from rllib_maddpg.results.run_folder import CHECKPOINTS, short_path
from rllib_maddpg.results.versions import __version__
from rllib_maddpg.runs.run import DEFAULT_ENV_STEPS, DEFAULT_SEED, RunSummary, TrainOptions, train
from rllib_maddpg.runs.stop_signals import StoppedAtOnce
from rllib_maddpg.sweeps.command import add_sweep

PROGRAM = "rllib-maddpg"
CHECKOUT = Path(__file__).parents[2]


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        Exit code: 0 done, 1 failed in training or what was printed could not be written, 2 wrong usage or settings, 129, 130
        or 143 stopped by SIGHUP, SIGINT or SIGTERM. That nobody reads on (`| head -1`, a closed terminal) changes no exit code.
    """
    with guarded_output() as console:
        code = _main(sys.argv[1:] if argv is None else argv)
    if console.error is not None:
        print(f"{PROGRAM}: error: what was printed is cut short: {why_not_written(console.error)}.", file=sys.stderr)
    return code or int(console.error is not None)


def _main(argv: list[str]) -> int:
    # pygame, which mpe2 imports, would greet on stdout.
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    args = make_parser(with_bench=argv[:1] == ["bench"]).parse_args(argv)
    try:
        with contextlib.nullcontext() if args.verbose else _quiet():
            return args.run(args, argv)
    except ValueError as error:
        print(f"{PROGRAM}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except StoppedAtOnce as stopped:
        print(f"\n{PROGRAM}: stopped at once; what came after the last checkpoint is lost.", file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: stopped.", file=sys.stderr)
        return 128 + signal.SIGINT


# ------------------------------------------------------------------------------------------ reading


def make_parser(with_bench: bool = False) -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, a function of the parsed arguments and the words.

    Args:
        with_bench: Whether the arguments of `bench` are needed, for which the benchmarks are imported.
    """
    parser = argparse.ArgumentParser(PROGRAM, description="MADDPG (Lowe et al. 2017) and its family on Ray RLlib.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    verbose = argparse.ArgumentParser(add_help=False)
    verbose.add_argument("-v", "--verbose", action="store_true", help="show the messages of Ray and Gymnasium, too")
    common = argparse.ArgumentParser(add_help=False, parents=[verbose])
    common.add_argument(
        "--env-config",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the env, also as one JSON object",
    )
    _add_train(commands, common)
    add_evaluate(commands, common)
    add_plot(commands, verbose)
    add_sweep(commands, verbose)
    _add_bench(commands, verbose, with_bench)
    add_export(commands, verbose)
    return parser


def _add_bench(commands: Any, common: argparse.ArgumentParser, wanted: bool) -> None:
    """The benchmarks lie beside the package in a checkout, and in no installed one."""
    if wanted and (CHECKOUT / "benchmarks" / "command.py").is_file():
        # First, because others may have benchmarks, too.
        sys.path.insert(0, str(CHECKOUT))
        from benchmarks.command import add_bench

        add_bench(commands, common)
        return
    command = commands.add_parser("bench", parents=[common], help="measure speed and memory, in a checkout")
    command.add_argument("words", nargs="*")
    command.set_defaults(run=_no_bench)


def _no_bench(args: argparse.Namespace, argv: list[str]) -> int:
    raise ValueError(
        "`bench` needs a checkout: the benchmarks are not installed with the package. Clone the repository and "
        "run `python -m benchmarks` there."
    )


def _add_train(commands: Any, common: argparse.ArgumentParser) -> None:
    command = commands.add_parser(
        "train",
        parents=[common],
        help="train actors; writes results, checkpoints and a learning curve",
        description="Trains MADDPG, or another of its family, in one environment. Ctrl-C saves a checkpoint for --resume.",
        epilog=f"example: {PROGRAM} train simple_adversary --set lr=0.001 model_config.fcnet_hiddens=[128,128]",
    )
    add = command.add_argument
    add("env", nargs="?", metavar="ENV", help="mpe2, PettingZoo or Gymnasium name, or package.module:callable")
    add(
        "--algorithm",
        metavar="NAME",
        help=f"{', '.join(MEMBERS)}, or package.module:Class (default: {DEFAULT_ALGORITHM}, or that of the resumed run)",
    )
    add(
        "--env-steps",
        type=int,
        metavar="N",
        help=f"env steps in all, also of a resumed run (default: {DEFAULT_ENV_STEPS})",
    )
    add("--seed", type=int, metavar="S", help=f"the same seed gives the same run (default: {DEFAULT_SEED})")
    add("--out", metavar="DIR", help="run folder, new or empty (default: results/ENV_sSEED_DATE-TIME)")
    add("--num-env-runners", type=int, metavar="K", help="processes that sample (default: 0, the main process does)")
    add("--num-envs", type=int, metavar="M", help="environments of each of them, side by side (default: 1)")
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any setting of the algorithm's config or RLlib; value as JSON, else a string; dots lead into dicts",
    )
    add("--checkpoint-every", type=int, metavar="N", help="env steps (default: 20000, or what the resumed run had)")
    add("--keep-checkpoints", type=int, metavar="N", help="the newest N stay (default: 2, or what the resumed run had)")
    add(
        "--eval-episodes",
        type=int,
        metavar="N",
        help="at the end, in a tenth of the time (default: 100; 0: none)",
    )
    add(
        "--torch-threads",
        type=int,
        default=1,
        metavar="T",
        help="threads of torch (default: 1, best for small networks)",
    )
    add("--address", metavar="HOST:PORT", help="of a Ray cluster's head, or auto: env runners and Learners run there")
    add(
        "--resume",
        metavar="DIR",
        help="continue a run folder, or one of its checkpoint folders, with the run's settings",
    )
    command.set_defaults(run=_train)


# ------------------------------------------------------------------------------------------ commands


def _train(args: argparse.Namespace, argv: list[str]) -> int:
    config_class = type(new_config(args.algorithm))
    settings = with_booleans(parse_settings(args.set, "--set"), config_class)
    if args.resume is None:  # a run keeps the settings that it has
        settings.setdefault("process_wide_speedups", True)  # this process has nothing else to do
    names = ("env", "env_steps", "seed", "out", "num_env_runners", "num_envs", "checkpoint_every", "keep_checkpoints")
    options = TrainOptions(
        **{name: getattr(args, name) for name in (*names, "eval_episodes", "torch_threads", "address", "resume", "algorithm")},
        env_config=parse_settings(args.env_config, "--env-config"),
        settings=settings,
        argv=argv,
    )
    screen = Screen()
    summary = train(options, screen)
    screen.finish()
    if summary.error is not None:
        _print_error(summary)
        return 1
    again = f"{PROGRAM} train --resume {shlex.quote(short_path(summary.folder))}"
    if summary.stop_signal is not None:
        print(f"Stopped at {summary.env_steps:,} env steps, all saved. Continue with: {again}")
        return 128 + summary.stop_signal
    closing = summary.closing
    if closing.result is not None:
        print()
        print_evaluation(closing.result)
    if closing.why_not:
        what = "Fewer episodes than announced were played" if closing.result else "No episodes were played at the end"
        print(f"{what}: {closing.why_not}. Play some with: {PROGRAM} evaluate {shlex.quote(short_path(summary.folder))}")
    print(f"\nRun folder: {short_path(summary.folder)} (learning_curve.png, progress.csv, checkpoints/)")
    return 0


def _print_error(summary: RunSummary) -> None:
    error = summary.error
    # Errors of this package say what to do; others need their place.
    if not isinstance(error, ValueError):
        traceback.print_exception(error, file=sys.stderr)
    text = " ".join(str(error).split())
    print(f"{PROGRAM}: error: training failed at {summary.env_steps:,} env steps: {text}", file=sys.stderr)
    print(_checkpoint_sentence(summary), file=sys.stderr)


def _checkpoint_sentence(summary: RunSummary) -> str:
    """The one thing that is said about checkpoints after an error."""
    lost = ""
    if summary.save_error is not None:
        lost = f"What came after it could not be saved: {' '.join(str(summary.save_error).split())}"
    if summary.checkpoint is None:
        return lost.replace("What came after it", "No checkpoint")
    path = summary.checkpoint
    words = [short_path(path.parent.parent)] if path.parent.name == CHECKPOINTS else [short_path(path), "--out", "NEW_FOLDER"]
    again = f"{PROGRAM} train --resume {shlex.join(words)}"
    return f"Last checkpoint: {short_path(path)}. Go on from it with: {again}\n{lost}".strip()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back warnings of Ray, RLlib and Gymnasium about matters that a user of this command cannot change."""
    # By handlers, not loggers: RLlib sets the levels of its loggers itself.
    loggers = (logging.getLogger(name) for name in ("ray", "ray.rllib"))
    handlers = {handler: handler.level for logger in loggers for handler in logger.handlers}
    gym_level = gym.logger.min_level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for handler in handlers:
            handler.setLevel(logging.ERROR)
        gym.logger.min_level = logging.ERROR
        try:
            yield
        finally:
            gym.logger.min_level = gym_level
            for handler, level in handlers.items():
                handler.setLevel(level)
