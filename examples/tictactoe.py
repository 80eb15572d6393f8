"""How trained players of a PettingZoo game of turns do against one that plays any legal move.

    rllib-maddpg sweep tune_configs/tictactoe.yaml --out results/tictactoe
    python examples/tictactoe.py results/tictactoe --games 1000

The actors are exported, and play in PettingZoo's own loop, without noise; nothing that has trained them takes part. For each
run and side there are so many games: how many were won, drawn and lost, and the 95 % interval of that share of wins (Wilson).
"""

import argparse
import importlib
import json
import math
import tempfile
from pathlib import Path

import numpy as np

from rllib_maddpg.deploy.export import export_actors
from rllib_maddpg.deploy.maddpg_actors import load_actors


def runs_of(folder: Path) -> list[Path]:
    """The runs in a folder of a sweep; the folder itself, if it is a run or a checkpoint."""
    runs = sorted(path.parent for path in folder.glob("*/config.yaml"))
    return runs or [folder]


def wilson(wins: int, games: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, share = 1.96, wins / games
    center, half = share + z**2 / (2 * games), z * math.sqrt(share * (1 - share) / games + z**2 / (4 * games**2))
    return (center - half) / (1 + z**2 / games), (center + half) / (1 + z**2 / games)


def play(env, actors, side, rng) -> float:
    """One game, in which `side` is played by its actor and everyone else at random. Returns the side's return."""
    env.reset()
    paid = 0.0
    for agent in env.agent_iter():
        observation, reward, terminated, truncated, _ = env.last()
        paid += reward if agent == side else 0.0
        if terminated or truncated:
            action = None
        elif agent == side:
            action = actors.act({agent: observation})[agent]
        else:
            action = int(rng.choice(np.flatnonzero(observation["action_mask"])))
        env.step(action)
    return paid


def results_of(run: Path, games: int, seed: int) -> dict[str, dict]:
    """Side -> wins, draws, losses and the interval of wins."""
    with tempfile.TemporaryDirectory() as folder:
        actors = load_actors(export_actors(run, "safetensors", Path(folder) / "actors").folder)
        env = importlib.import_module(actors.manifest["env"]["module"]).env()
        found = {}
        for side in env.possible_agents:
            rng = np.random.default_rng(seed)
            returns = [play(env, actors, side, rng) for _ in range(games)]
            wins = sum(x > 0 for x in returns)
            draws = sum(x == 0 for x in returns)
            found[side] = {"wins": wins, "draws": draws, "losses": games - wins - draws, "interval": wilson(wins, games)}
        env.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a sweep, a run or a checkpoint")
    parser.add_argument("--games", type=int, default=1000, help="of each run and side")
    parser.add_argument("--seed", type=int, default=0, help="of the random player")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    found = {}
    print("| run | side | wins | draws | losses | wins [95 %] |\n|---|---|---|---|---|---|", flush=True)
    for run in runs_of(args.folder):
        found[run.name] = results_of(run, args.games, args.seed)
        for side, own in found[run.name].items():
            low, high = own["interval"]
            share = f"{own['wins'] / args.games:.3f} [{low:.3f}, {high:.3f}]"
            print(f"| {run.name} | {side} | {own['wins']} | {own['draws']} | {own['losses']} | {share} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
