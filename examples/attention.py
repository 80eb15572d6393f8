"""Learning curves of attention critics beside plain ones, in `simple_spread` with 24 agents.

    python examples/attention.py results/attention --seeds 0 1
    python examples/attention.py results/attention --plot docs/attention.png

Both learn from the same number of env steps with the same settings, one run after the other. After each 10,000 env steps 50
episodes are played without noise. A line of `curves.csv` is the mean return of such episodes, over all agents; runs that are in
it are not repeated.
"""

import argparse
import csv
import time
from pathlib import Path

from rllib_maddpg import MADDPGConfig

AGENTS, ENV_STEPS, BETWEEN, EPISODES = 24, 100_000, 10_000, 50
KINDS = ("attention", "mlp")
FIELDS = ("critic_type", "seed", "env_steps", "return", "seconds")


def config_of(critic_type: str, seed: int) -> MADDPGConfig:
    """The settings of a run (`tune_configs/attention.yaml` has the same)."""
    return (
        MADDPGConfig()
        .environment("simple_spread", env_config={"N": AGENTS, "continuous_actions": True})
        .env_runners(num_envs_per_env_runner=8)
        .training(
            critic_type=critic_type,
            lr=0.002,
            num_env_steps_per_update=50,
            train_batch_size_per_learner=256,
            actor_output_reg=1e-4,
            normalize_rewards=True,
            noise_scale=[[0, 0.3], [80_000, 0.05]],
            replay_buffer_config={"capacity": ENV_STEPS},
        )
        .evaluation(evaluation_interval=1, evaluation_duration=EPISODES)
        .reporting(min_sample_timesteps_per_iteration=BETWEEN, min_time_s_per_iteration=0)
        .debugging(seed=seed)
    )


def learn(critic_type: str, seed: int, file: Path) -> None:
    """One run; its lines are written when it is over."""
    algorithm, lines, started = config_of(critic_type, seed).build_algo(), [], time.perf_counter()
    while not lines or lines[-1]["env_steps"] < ENV_STEPS:
        result = algorithm.train()
        steps = int(result["env_runners"]["num_env_steps_sampled_lifetime"])
        mean = float(result["evaluation"]["env_runners"]["episode_return_mean"])
        lines.append(dict(zip(FIELDS, (critic_type, seed, steps, mean, time.perf_counter() - started), strict=True)))
        print(lines[-1], flush=True)
    algorithm.stop()
    with open(file, "a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, FIELDS)
        if not out.tell():
            writer.writeheader()
        writer.writerows(lines)


def curves_of(file: Path) -> dict[tuple[str, int], list[tuple[int, float]]]:
    """(critic type, seed) -> (env steps, mean return)."""
    curves: dict[tuple[str, int], list[tuple[int, float]]] = {}
    if file.is_file():
        with open(file, newline="", encoding="utf-8") as lines:
            for line in csv.DictReader(lines):
                run = line["critic_type"], int(line["seed"])
                curves.setdefault(run, []).append((int(line["env_steps"]), float(line["return"])))
    return curves


def draw(curves: dict[tuple[str, int], list[tuple[int, float]]], file: Path) -> None:
    """A line for each run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    colors = dict(zip(KINDS, ("tab:blue", "tab:orange"), strict=True))
    for kind in KINDS:
        for k, run in enumerate(sorted(run for run in curves if run[0] == kind)):
            steps, returns = zip(*curves[run], strict=True)
            axes.plot(steps, returns, color=colors[kind], label=f"critic_type={kind!r}" if k == 0 else None)
    axes.set_xlabel("env steps")
    axes.set_ylabel("return of a noise-free episode, all agents")
    axes.set_title(f"simple_spread, N={AGENTS}, a line for each seed")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    """Learns, then draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of curves.csv")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="runs of both kinds with these seeds")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "curves.csv"
    for seed in options.seeds:
        for kind in KINDS:
            if (kind, seed) not in curves_of(file):
                learn(kind, seed, file)
    if options.plot:
        draw(curves_of(file), options.plot)


if __name__ == "__main__":
    main()
