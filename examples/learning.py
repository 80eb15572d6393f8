"""Learns the scenarios of the README's table and measures them noise-free: one run for each seed, then 500 episodes.

    python examples/learning.py simple_spread --seeds 0 1 2
    python examples/learning.py simple_spread_matd3 --minus simple_spread
    python examples/learning.py --table

A run that was stopped goes on where it was; a run that is finished is not repeated. Results are one JSON file for each run in
`results/learning/` (or `--out`).
"""

import argparse
import json
from pathlib import Path

from rllib_maddpg.algorithm.checkpoint_files import ACTING
from rllib_maddpg.results.run_folder import find_checkpoint
from rllib_maddpg.runs.evaluation import evaluate_checkpoint
from rllib_maddpg.runs.run import TrainOptions, train

# One rate for all, one update in 25 env steps (the paper: one in 100), noise that fades.
MPE = {"lr": 0.001, "num_env_steps_per_update": 25, "noise_scale": [[0, 0.3], [200_000, 0.05]]}

# Members of the family, see docs/family.md.
INFERRED = {"infer_other_policies": True}
MATD3 = {"twin_q": True, "policy_delay": 2, "target_policy_noise": 0.2}
SPEAKER, SPREAD = "simple_speaker_listener", "simple_spread"
# Networks of 128, as in the paper's cooperative navigation.
NAVIGATION = {
    **MPE,
    "num_env_steps_per_update": 12.5,
    "actor_output_reg": 1e-4,
    "model_config": {"fcnet_hiddens": [128, 128]},
}

# name -> (env, env_config, env steps, settings, number of envs, episodes of the evaluation)
SCENARIOS = {
    "simple_speaker_listener": (SPEAKER, {"continuous_actions": True}, 250_000, MPE, 8, 500),
    "simple_speaker_listener_inferred": (SPEAKER, {"continuous_actions": True}, 250_000, {**MPE, **INFERRED}, 8, 1000),
    "simple_speaker_listener_discrete": (SPEAKER, {"continuous_actions": False}, 250_000, MPE, 8, 1000),
    "simple_speaker_listener_discrete_inferred": (
        SPEAKER,
        {"continuous_actions": False},
        250_000,
        {**MPE, **INFERRED},
        8,
        1000,
    ),
    "simple_speaker_listener_discrete_greedy": (
        SPEAKER,
        {"continuous_actions": False},
        250_000,
        {**MPE, **INFERRED, "inferred_target": "greedy"},
        8,
        1000,
    ),
    "simple_speaker_listener_discrete_fast": (
        SPEAKER,
        {"continuous_actions": False},
        250_000,
        {**MPE, **INFERRED, "inferred_lr": 0.01},
        8,
        1000,
    ),
    "simple_spread": (SPREAD, {"continuous_actions": True}, 250_000, NAVIGATION, 8, 500),
    "simple_spread_matd3": (SPREAD, {"continuous_actions": True}, 250_000, {**NAVIGATION, **MATD3}, 8, 500),
    "simple_spread_discrete": (SPREAD, {"continuous_actions": False}, 250_000, MPE, 8, 500),
    # Acts on the simplex, as OpenAI's program does: its box actions are softmax(output + temperature * Gumbel noise).
    "simple_adversary": (
        "simple_adversary",
        {"continuous_actions": True},
        250_000,
        {
            "actor_head": "softmax",
            "lr": 0.003,
            "num_env_steps_per_update": 50,
            "exploration_temperature": [[0, 1.0], [200_000, 0.3]],
        },
        8,
        500,
    ),
    "pendulum": (
        "Pendulum-v1",
        {},
        30_000,
        {
            "lr": 0.001,
            "gamma": 0.98,
            "num_env_steps_per_update": 1,
            "train_batch_size_per_learner": 256,
            "grad_clip": None,
            "noise_scale": 0.1,
        },
        1,
        100,
    ),
}
# The episodes of the evaluation start from states that no training run has seen.
EVALUATION_SEED = 10_000


def run(name: str, seed: int, out: Path) -> dict:
    """Trains one seed of a scenario (or what is missing of it) and evaluates its last checkpoint."""
    env, env_config, env_steps, settings, num_envs, episodes = SCENARIOS[name]
    folder, file = out / f"{name}_s{seed}", out / f"{name}_s{seed}.json"
    if file.is_file():
        return json.loads(file.read_text())
    checkpoints = sorted(folder.glob("checkpoints/[0-9]*"))
    if not checkpoints or int(checkpoints[-1].name) < env_steps:
        options = TrainOptions(env, env_steps, seed, str(folder), num_envs=num_envs, env_config=env_config, settings=settings)
        summary = train(TrainOptions(resume=str(folder)) if checkpoints else options)
        if summary.error is not None:
            raise summary.error
        if summary.stop_signal is not None:
            raise SystemExit(f"Stopped at {summary.env_steps} env steps; the same command goes on from there.")
        checkpoints = [summary.checkpoint]
    evaluation = evaluate_checkpoint(checkpoints[-1], episodes, seed=EVALUATION_SEED)
    steps = int(checkpoints[-1].name)
    result = {"scenario": name, "seed": seed, "env_steps": steps, "settings": settings, **evaluation.to_dict()}
    file.write_text(json.dumps(result, indent=1))
    return result


def row(result: dict) -> str:
    """One line of a Markdown table."""
    metrics = ", ".join(f"{k} {v['mean']:.2f}" for k, v in result["metrics"].items())
    agents = ", ".join(f"{k} {v['mean']:.1f}" for k, v in result["agent_return"].items())
    team = result["team_return"]
    return (
        f"| {result['scenario']} | {result['seed']} | {result['env_steps']:,} | {team['mean']:.1f} "
        f"[{team['low']:.1f}, {team['high']:.1f}] | {agents} | {metrics} |"
    )


def difference(name: str, other: str, seed: int, out: Path) -> str:
    """One line of a Markdown table: team returns of two scenarios on 1,000 common starts, and their paired difference."""
    found = []
    for scenario in (name, other):
        run(scenario, seed, out)
        checkpoint, _ = find_checkpoint(out / f"{scenario}_s{seed}", ACTING)
        found.append(evaluate_checkpoint(checkpoint, 1000, seed=EVALUATION_SEED))
    mine, theirs = found
    gap = mine.minus(theirs).team
    return (
        f"| {name} - {other} | {seed} | {mine.team.mean:.1f} | {theirs.team.mean:.1f} | {gap.mean:.2f} "
        f"[{gap.low:.2f}, {gap.high:.2f}] |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS], help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("results/learning"))
    parser.add_argument("--table", action="store_true", help="print the table of all finished runs")
    parser.add_argument("--minus", choices=SCENARIOS, metavar="SCENARIO", help="print paired differences to its runs instead")
    args = parser.parse_args()
    for name in args.scenarios:
        for seed in args.seeds:
            line = difference(name, args.minus, seed, args.out) if args.minus else row(run(name, seed, args.out))
            print(line, flush=True)
    if args.table:
        print("| scenario | seed | env steps | team return [95 %] | agents | metrics |\n|---|---|---|---|---|---|")
        for file in sorted(args.out.glob("*.json")):
            print(row(json.loads(file.read_text())))


if __name__ == "__main__":
    main()
