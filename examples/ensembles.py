"""What policy ensembles bring against opponents of other runs (Lowe et al. 2017, section 4.3): K sub-policies against one.

    rllib-maddpg sweep tune_configs/ensembles.yaml --out results/ensembles
    python examples/ensembles.py results/ensembles

Each run's good agents meet the adversaries of all runs of other seeds, of both kinds, as `rllib-maddpg evaluate RUN --opponent
"adversary_*=OTHER"` has it, without noise and from common starts. Of each side the table has the mean return of either kind,
and their difference, paired by seed, opponent and start, with 95 % intervals over starts.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from rllib_maddpg.runs.cross_play import evaluate_cross_play
from rllib_maddpg.runs.evaluation import Estimate

SEED = 10_000  # of starts that no training run has seen
KEY, PATTERN = "num_sub_policies", "adversary_*"
# Which agent's return stands for a side.
SIDES = {"good agents": "agent_0", "adversary": "adversary_0"}
Run = tuple[int, int]  # K, seed


def runs_of(folder: Path) -> dict[Run, Path]:
    """Per run of a sweep its newest checkpoint."""
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["checkpoint"]]
    return {(int(row[KEY]), int(row["seed"])): folder / row["checkpoint"] for row in rows}


def play(runs: dict[Run, Path], episodes: int) -> dict[tuple[Run, Run], dict[str, np.ndarray]]:
    """(run of the good agents, run of the adversary) -> side -> return of each start; of runs of unlike seeds."""
    games = {}
    for good, checkpoint in runs.items():
        for adversary, other in runs.items():
            if good[1] != adversary[1]:
                records = evaluate_cross_play(checkpoint, {PATTERN: other}, episodes, SEED).evaluation.records
                games[good, adversary] = {
                    side: np.array([record.returns[agent] for record in records]) for side, agent in SIDES.items()
                }
    return games


def estimates(games: dict[tuple[Run, Run], dict[str, np.ndarray]], side: str) -> dict[str, Estimate]:
    """Mean return of each kind on a side over all its games, and the difference of the larger K to the smaller one."""
    place = list(SIDES).index(side)
    of_kind: dict[int, list[np.ndarray]] = {}
    for pair in sorted(games, key=lambda pair: (pair[place], pair[1 - place])):
        of_kind.setdefault(pair[place][0], []).append(games[pair][side])
    # A start is played in all games, which are not independent of each other.
    means = {k: np.mean(returns, 0) for k, returns in of_kind.items()}
    few, many = min(means), max(means)
    found = {f"K = {k}": Estimate.of(own.tolist()) for k, own in sorted(means.items())}
    return {**found, f"K = {many} minus K = {few}": Estimate.of((means[many] - means[few]).tolist())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a sweep over num_sub_policies and seeds")
    parser.add_argument("--episodes", type=int, default=1000, help="of each pair of runs")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    games = play(runs_of(args.folder), args.episodes)
    found = {side: estimates(games, side) for side in SIDES}
    print("| side | what | mean return [95 %] |\n|---|---|---|")
    for side, own in found.items():
        for what, e in own.items():
            print(f"| {side} | {what} | {e.mean:.3f} [{e.low:.3f}, {e.high:.3f}] |")
    if args.json:
        plain = {side: {what: vars(e) for what, e in own.items()} for side, own in found.items()}
        args.json.write_text(json.dumps(plain, indent=1))


if __name__ == "__main__":
    main()
