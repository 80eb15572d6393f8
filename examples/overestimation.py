"""How far critics' values lie above what follows: mean Q minus the return, of the same states and actions.

    python examples/overestimation.py results/learning/simple_spread_s0 results/learning/simple_spread_matd3_s0

The actors of a run play on, without noise, in episodes that are long enough for the discounted rewards beyond their end not to
count. Q(x, a) of the first `--steps` states of each episode, by the first critic of each module, is held against the discounted
rewards of its agent from there on. Starts are the same for all runs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

from rllib_maddpg.algorithm.checkpoint_files import ACTING
from rllib_maddpg.algorithm.checkpoints import load_config
from rllib_maddpg.results.run_folder import find_checkpoint
from rllib_maddpg.runs.evaluation import Estimate, restored_runner

SEED = 10_000  # of starts that no training run has seen


def q_minus_return(run: Path, episodes: int = 64, steps: int = 25, horizon: int = 150) -> dict[str, float]:
    """Mean Q and mean discounted return over all agents, and their difference with its 95 % interval over episodes.

    Args:
        run: Run folder or checkpoint folder.
        episodes: Number of episodes.
        steps: States of each episode that are judged.
        horizon: Env steps that follow the last of them.
    """
    checkpoint, _ = find_checkpoint(run, ACTING)
    length = steps + horizon
    runner = restored_runner(checkpoint, seed=SEED, num_envs=episodes, episodes=episodes, env_config={"max_cycles": length})
    rollouts = runner.sample(num_timesteps=episodes * length, explore=False)
    runner.stop()
    rows = np.concatenate([rollout.rows for rollout in rollouts])
    columns = runner.schema.split(torch.from_numpy(rows))
    # One row after the other of each episode, `[episodes, length, width]`.
    order = np.lexsort((columns["t"][:, 0].numpy(), columns["episodes"][:, 0].numpy()))
    columns = {name: values[order].unflatten(0, (episodes, length)) for name, values in columns.items()}
    gamma, rewards = load_config(checkpoint).gamma, columns["rewards"].double()
    returns = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(length)):
        following = rewards[:, t] + gamma * following
        returns[:, t] = following
    modules = MultiRLModule.from_checkpoint(checkpoint / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / COMPONENT_RL_MODULE)
    obs, actions = (columns[name][:, :steps].flatten(0, 1) for name in ("obs", "actions"))
    with torch.no_grad():
        values = [modules[m].unwrapped() for m in runner.layout.modules]
        q = torch.cat([module.q_values(module.critic, obs, actions) for module in values], 1)
    q = q.double().unflatten(0, (episodes, steps))
    gap = Estimate.of((q - returns[:, :steps]).mean((1, 2)).tolist())
    return {"q": float(q.mean()), "return": float(returns[:, :steps].mean()), **vars(gap)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, of critics that see all agents")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    found = {}
    print("| run | mean Q | mean return | Q - return [95 %] |\n|---|---|---|---|")
    for run in args.runs:
        found[run.name] = of = q_minus_return(run, args.episodes, args.steps)
        print(
            f"| {run.name} | {of['q']:.2f} | {of['return']:.2f} | {of['mean']:.2f} [{of['low']:.2f}, {of['high']:.2f}] |",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
