"""What the family's members and ways of training are, by name, and which pairs of them do not go together.

`python tests/helpers/pairs.py` prints the table of docs/family.md.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

from fake_graph import FakeGraph
from pairs_game import PairsGame

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning.learner import MADDPGTorchLearner

AGENTS = ("a", "b", "c")
SHARED = "pairs"


class GraphedLearner(MADDPGTorchLearner):
    """Whose updates are recorded on the CPU, too."""

    graph_class = FakeGraph


def _own(config: MADDPGConfig, **of_modules: dict) -> None:
    """Settings that modules have for themselves, beside those that they have already."""
    overrides = dict(config.algorithm_config_overrides_per_module)
    for module, settings in of_modules.items():
        overrides[module] = {**overrides.get(module, {}), **MADDPGConfig.overrides(**settings)}
    config.multi_agent(algorithm_config_overrides_per_module=overrides)


def _in_env(config: MADDPGConfig, **settings: bool) -> None:
    config.environment(env_config={**config.env_config, **settings})


def _shared_parameters(config: MADDPGConfig) -> None:
    config.multi_agent(policy_mapping_fn={"a": "a", "b": "a", "c": "c"})


# By name what makes it of a config. Views are those of single modules, so that each goes with all others.
FEATURES: dict[str, Callable[[MADDPGConfig], object]] = {
    "ensembles": lambda config: config.training(num_sub_policies=2),
    "inferred policies": lambda config: config.training(infer_other_policies=True),
    "MATD3": lambda config: config.training(twin_q=True, policy_delay=2, target_policy_noise=0.2),
    "local critics": lambda config: _own(config, a={"critic_view": "own", "critic_type": "mlp"}),
    "attention": lambda config: config.training(critic_type="attention"),
    "prioritized": lambda config: config.training(replay_buffer_config={"type": "PrioritizedJointReplayBuffer"}),
    "n-step": lambda config: config.training(n_step=3),
    "images": lambda config: _in_env(config, images=True),
    "masks": lambda config: _in_env(config, masks=True),
    "state": lambda config: _own(config, c={"critic_view": "state+all"}),
    "normalization": lambda config: config.training(normalize_observations=True, normalize_rewards=True),
    "shared parameters": _shared_parameters,
    "dead agents": lambda config: _in_env(config, deaths=True),
    "turns": lambda config: _in_env(config, turns=True),
    "2 Learners": lambda config: config.learners(num_learners=2),
    "shards": lambda config: config.training(replay_buffer_config={"num_shards": 2}),
    "pipelined runners": lambda config: config.env_runners(num_env_runners=1, sample_mode="pipelined"),
    "CUDA graphs": lambda config: config.learners(learner_class=GraphedLearner),
    "shared Learner": lambda config: config.learners(shared_learner=SHARED),
}
# Pair -> the key that the error names, what it says, and why.
REFUSED: dict[frozenset[str], tuple[str, str, str]] = {
    frozenset(("attention", "images")): ("critic_type", "observe images", "attention critics have no encoders for images"),
    frozenset(("images", "normalization")): ("normalize_observations", "image", "images are scaled to 0 ... 1 anyway"),
    frozenset(("n-step", "turns")): (
        "n_step",
        "where agents act in turns",
        "an agent's reward is that up to its next turn, after steps of others: what n of those would be is not defined",
    ),
    frozenset(("2 Learners", "CUDA graphs")): ("cuda_graph", "several Learners", "Learners wait for each other in an update"),
    frozenset(("2 Learners", "shared Learner")): ("num_learners", "one Learner each", "a trial has one Learner there"),
    frozenset(("shards", "shared Learner")): ("replay_buffer_config['num_shards']", "beside", "rows lie beside the Learner"),
    frozenset(("CUDA graphs", "shared Learner")): (
        "cuda_graph",
        "it has a GPU",
        "the shared Learner makes graphs itself, of several trials' updates, where it has a GPU",
    ),
}
PAIRS = list(combinations(FEATURES, 2))


def config_of(pair: tuple[str, ...]) -> MADDPGConfig:
    """A small run with all that is named."""
    config = (
        MADDPGConfig()
        .environment(PairsGame)
        .env_runners(num_envs_per_env_runner=2, rollout_fragment_length=4)
        .training(
            train_batch_size_per_learner=16,
            num_env_steps_per_update=4,
            num_steps_sampled_before_learning_starts=24,
        )
        .rl_module(model_config={"fcnet_hiddens": [8, 8]})
        .reporting(min_sample_timesteps_per_iteration=40)
        .debugging(seed=3)
    )
    for name in FEATURES:  # in one order, whatever the order of the pair
        if name in pair:
            FEATURES[name](config)
    return config


def refused_config(pair: frozenset[str]) -> MADDPGConfig:
    """A run that asks for two things which do not go together."""
    if "CUDA graphs" not in pair:
        return config_of(tuple(pair))
    # As it is asked for on a GPU.
    config = config_of(tuple(pair - {"CUDA graphs"})).training(cuda_graph=True)
    return config if "shared Learner" in pair else config.learners(num_gpus_per_learner=1)


def table() -> str:
    """Markdown: each pair once, with a number where it is refused, and the reasons below."""
    names, notes = list(FEATURES), {pair: number for number, pair in enumerate(REFUSED, 1)}
    lines = [f"| | {' | '.join(names[1:])} |", "|---" * len(names) + "|"]
    for k, row in enumerate(names[:-1]):
        cells = ["" if j <= k else _cell(notes.get(frozenset((row, column)))) for j, column in enumerate(names)]
        lines.append(f"| **{row}** | {' | '.join(cells[1:])} |")
    lines.append("")
    for pair, number in notes.items():
        key, _, reason = REFUSED[pair]
        first, second = [name for name in names if name in pair]
        lines.append(f"{number}. {first} and {second}: refused by `{key}`, since {reason}.")
    return "\n".join(lines) + "\n"


def _cell(number: int | None) -> str:
    return "yes" if number is None else f"no ({number})"


if __name__ == "__main__":
    print(table(), end="")
