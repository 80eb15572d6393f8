"""Plays episodes of an mpe2 scenario with exported actors alone: no Ray, no rllib-maddpg, no torch.

    rllib-maddpg export results/spread --format onnx --out exported
    python examples/play_exported.py exported --seed 0

Needs mpe2, NumPy and onnxruntime (or safetensors, for that format). The first 16 episodes of a seed are those of
`rllib-maddpg evaluate results/spread --episodes 16 --seed 0`.
"""

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np


def load(folder: Path):
    """The actors of a folder, read by the file that the export has put there."""
    sys.path.insert(0, str(folder.resolve()))
    from maddpg_actors import load_actors

    return load_actors(folder)


def make_env(manifest: dict):
    """The env that the actors were trained in."""
    env, config = manifest["env"], dict(manifest["env"]["config"])
    config.pop("direct_stepping", None)  # a matter of speed, for training
    if env["module"] is None or config.pop("wrappers", None):
        raise SystemExit(f"{env['name']} is not a bare mpe2 scenario: build the env yourself and give `play` what it needs.")
    module = importlib.import_module(env["module"])
    if not hasattr(module, "parallel_env"):
        raise SystemExit(f"{env['name']} is a game of turns: play it as examples/tictactoe.py does.")
    return module.parallel_env(**config)


def episode_seed(seed: int, number: int) -> int:
    """The seed with which `rllib-maddpg evaluate --seed SEED` resets its env number `number` first."""
    return int(np.random.SeedSequence(seed, spawn_key=(1, 0, number, 0)).generate_state(1)[0] >> 1)


def play(env, actors, seed: int) -> tuple[dict[str, float], list[dict]]:
    """One episode. Returns each agent's undiscounted return, and all actions."""
    observations, _ = env.reset(seed=seed)
    actors.reset()  # draws sub-policies, where there are any
    returns, steps = dict.fromkeys(observations, 0.0), []
    while env.agents:
        actions = actors.act(observations)
        observations, rewards, _, _, _ = env.step(actions)
        steps.append(actions)
        for agent, reward in rewards.items():
            returns[agent] += float(reward)
    return returns, steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that `rllib-maddpg export` has written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=1)
    args = parser.parse_args()
    actors = load(args.folder)
    env = make_env(actors.manifest)
    for number in range(args.episodes):
        returns, steps = play(env, actors, episode_seed(args.seed, number))
        agents = ", ".join(f"{agent} {value:.3f}" for agent, value in sorted(returns.items()))
        print(f"episode {number}: team return {sum(returns.values()):.3f} in {len(steps)} steps ({agents})")
    env.close()


if __name__ == "__main__":
    main()
