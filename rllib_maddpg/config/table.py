"""The table of settings: all of MADDPG's, and those of RLlib that it uses itself or has another default for.

Defaults, checks, overrides of modules, what population based training may change, `config.yaml`, short names and the README's
table derive from it. To add a setting, add a row here and, for editors, the same key and text to `MADDPGConfig.training`. A
subclass of `MADDPGConfig` adds rows of its own:

```python
class MyConfig(MADDPGConfig):
    SETTINGS = (*MADDPGConfig.SETTINGS, Setting("bonus", 0.5, between(0, 10), "Weight of the bonus.", per_module=True))
```

Sources of defaults: the paper (Lowe et al. 2017, appendix), or its released code (openai/maddpg).
"""

from __future__ import annotations

from rllib_maddpg.config.exploration_table import EXPLORATION
from rllib_maddpg.config.family_table import FAMILY
from rllib_maddpg.config.kinds import (
    AUTO,
    BOOL,
    POSITIVE,
    RATE,
    STEPS,
    TEMPERATURE,
    TEXT,
    Kind,
    between,
    dict_of_words,
    is_number,
    one_of,
    whole,
)
from rllib_maddpg.config.rllib_table import OTHERS, RESOURCES
from rllib_maddpg.config.setting import Setting
from rllib_maddpg.config.shared_checks import SHARED_LEARNER
from rllib_maddpg.learning.losses import CRITIC_LOSSES
from rllib_maddpg.modules.critic_types import CRITIC_TYPES
from rllib_maddpg.modules.views import VIEWS, View
from rllib_maddpg.replay.choice import DEFAULTS
from rllib_maddpg.rows.actions import ACTOR_HEADS
from rllib_maddpg.rows.schema import Column
from rllib_maddpg.sampling.collecting import SAMPLE_MODES

_ALL = "See `MADDPGConfig.training` for all settings."
_OFF = "Set 0 to switch it off."


SETTINGS: tuple[Setting, ...] = (
    *RESOURCES,
    # Learning.
    Setting(
        "lr",
        0.01,
        RATE.or_none("The paper uses 0.01."),
        "Adam's rate for actors and critics that have none of their own, float or schedule `[[0, v0], [t1, v1], ...]` over env "
        "steps.",
        per_module=True,
        mutable=True,
        main=True,
    ),
    Setting(
        "actor_lr",
        None,
        RATE.or_none("None: as `lr`."),
        "Adam's rate for actors, float or schedule. None: `lr`.",
        per_module=True,
        mutable=True,
        main=True,
    ),
    Setting(
        "critic_lr",
        None,
        RATE.or_none("None: as `lr`."),
        "The same for critics.",
        per_module=True,
        mutable=True,
        main=True,
    ),
    Setting(
        "gamma",
        0.95,
        Kind("in [0, 1]", lambda x: is_number(x) and 0 <= x <= 1, "The paper uses 0.95."),
        "Discount.",
        per_module=True,
        mutable=True,
        main=True,
    ),
    Setting(
        "tau",
        0.01,
        Kind("in (0, 1]", lambda x: is_number(x) and 0 < x <= 1, "The paper uses 0.01."),
        "Polyak factor of the targets, in (0, 1].",
        per_module=True,
        mutable=True,
        main=True,
    ),
    Setting(
        "target_network_update_freq",
        0,
        STEPS.but("In env steps."),
        "Env steps between target updates; 0: after every update, as in Algorithm 1.",
        mutable=True,
    ),
    Setting(
        "train_batch_size_per_learner",
        1024,
        whole(1).but("The paper uses 1024."),
        "Joint rows of an update, for each Learner.",
        mutable=True,
        main=True,
        short="batch",
    ),
    # RLlib's older key: the total of all Learners.
    Setting("train_batch_size", None, whole(1).or_none("Set `train_batch_size_per_learner` instead.")),
    Setting(
        "num_env_steps_per_update",
        100.0,
        between(1e-3, 1e15).but(_ALL),
        "Env steps sampled for each update, for any number of envs and runners; below 1: several updates per env step.",
        mutable=True,
        main=True,
        short="steps/update",
    ),
    Setting(
        "grad_clip",
        0.5,
        POSITIVE.or_none("Set None for no clipping."),
        "Limit of the gradients of each actor and of each critic. None: no limit.",
        per_module=True,
        mutable=True,
    ),
    Setting(
        "grad_clip_by",
        "global_norm",
        one_of("global_norm", "norm", "value"),
        'What has that limit: "global_norm" of all tensors of a network, "norm" of each tensor, or each "value".',
        per_module=True,
        structural=True,
    ),
    # Losses.
    Setting(
        "actor_output_reg",
        1e-3,
        between(0, 1e10).but(_OFF),
        "Weight of mean(head output^2) in the actor loss.",
        per_module=True,
        mutable=True,
    ),
    Setting("critic_loss", "mse", one_of(*CRITIC_LOSSES), '"mse" or "huber".', per_module=True, structural=True),
    Setting(
        "huber_delta",
        1.0,
        between(1e-10, 1e10).but(_ALL),
        "TD error from which the Huber loss is linear.",
        per_module=True,
        mutable=True,
    ),
    Setting(
        "others_actions",
        "replay",
        one_of("replay", "current"),
        'In the actor loss: "replay" (the paper) or "current" (the others\' current actors).',
        per_module=True,
        structural=True,
    ),
    Setting(
        "critic_view",
        "all",
        Kind(f"one of {list(VIEWS)}, or a View", lambda x: isinstance(x, View) or one_of(*VIEWS).accepts(x), words=(*VIEWS,)),
        'What a critic sees: "all" (every agent\'s observation and action), "own" (its own agent\'s: independent DDPG), '
        '"state" (the env\'s global state and all actions), "state+all" (all observations, too), or a `View`.',
        per_module=True,
        structural=True,
    ),
    Setting(
        "critic_type",
        "mlp",
        one_of(*CRITIC_TYPES),
        'Networks of critics: "mlp" (the paper), or "attention" over all agents, whose weights all modules share (Iqbal and '
        "Sha 2019), so that they do not grow with the square of the number of agents.",
        per_module=True,
        structural=True,
    ),
    Setting(
        "state_key",
        None,
        TEXT.or_none("None: that of the env's `state()`."),
        "Key of the global state in the infos, for critics that see it: those of `__common__`, else of any agent. None: the "
        "env's method `state()`, as PettingZoo has it.",
    ),
    Setting(
        "minibatch_per_module",
        False,
        BOOL.but("True: each module draws rows of its own."),
        "True: each module draws rows of its own (as Algorithm 1 is written); False: all learn from the same rows, which costs "
        "less.",
    ),
    Setting(
        "gumbel_softmax_temperature",
        1.0,
        TEMPERATURE,
        "Of the relaxation through which discrete actors learn, float or schedule over env steps. With the estimator "
        '"tags" it falls exponentially between the points of a schedule; a float v is then `[[0, v], [1000000, v / 10]]`.',
        per_module=True,
        mutable=True,
    ),
    *FAMILY,
    # Networks.
    Setting(
        "actor_head",
        "tanh",
        one_of(*ACTOR_HEADS),
        '"tanh", or "softmax" for boxes from 0 to 1 (as OpenAI\'s program acts on MPE).',
        main=True,
    ),
    Setting(
        "normalize_observations",
        False,
        BOOL.but("True: for observations of other sizes than 1."),
        "True: networks see observations less their running mean, over their running standard deviation.",
    ),
    Setting(
        "normalize_rewards",
        False,
        BOOL.but("True: for rewards of other sizes than 1."),
        "True: critics learn from rewards over their running root mean square.",
    ),
    # Replay.
    Setting(
        "replay_buffer_config",
        dict(DEFAULTS),
        dict_of_words("{'capacity': 1000000}"),
        'Is merged with the present one. `capacity`: env steps; memory is claimed as rows come. `device`: "cuda" keeps the '
        "rows beside a Learner on this process's GPU. `num_shards`: actors that share the rows, which then go from runners to "
        'Learners past this process; 0: it keeps them itself. `type`: also "PrioritizedJointReplayBuffer" with `alpha` '
        '(0.6), `beta` (0.4) and `priority` ("mean" or "max" of the agents\' TD errors), "ShardedReplayBuffer", or your '
        "subclass of `JointReplay` or its path, which gets the other keys as arguments.",
        main=True,
    ),
    Setting(
        "n_step",
        1,
        whole(1, 1000).but("1: one-step targets. At most 1,000."),
        "Rewards of a TD target before it bootstraps. Rows are drawn with what came after them.",
    ),
    Setting(
        "store_buffer_in_checkpoints",
        True,
        BOOL.but("True: a resumed run goes on with the same rows."),
        "Whether a resumed run goes on with the same replay rows; only the filled part is written.",
    ),
    Setting(
        "extra_columns",
        [],
        Kind(
            "a list of `rllib_maddpg.rows.schema.Column`s",
            lambda x: isinstance(x, (list, tuple)) and all(isinstance(column, Column) for column in x),
            "Set [] for none.",
        ),
        'Columns of joint rows beside the built-in ones, filled from infos: `Column("context", "env", width=2, '
        'source=lambda infos: infos["agent_0"]["context"])`, see `rllib_maddpg.rows.schema.Column`.',
    ),
    *EXPLORATION,
    # Sampling.
    Setting(
        "turn_based",
        None,
        BOOL.or_none("None: it is found out."),
        "True: agents of the env act in turns, so each one's transition goes from one turn of its to the next. None: it is "
        "found out.",
        method="env_runners",
        part="sampling",
    ),
    Setting(
        "env_runner_fast_path",
        True,
        BOOL.but("False: sample in RLlib's own loop."),
        "False: sample in RLlib's own loop also where MADDPG's columnar one gives the same rows.",
        method="env_runners",
        part="sampling",
    ),
    Setting(
        "sample_mode",
        "pipelined",
        one_of(*SAMPLE_MODES),
        '"pipelined": runners sample the next fragment while the Learner updates, so weights lag by exactly one fragment; '
        '"sync": they wait for each other; "async": each runner\'s fragment is taken as it comes.',
        method="env_runners",
        part="sampling",
    ),
    Setting(
        "broadcast_interval",
        1,
        whole(1).but("1: new weights in each round."),
        'In "async" mode, rounds of sampling and updating from one sending of weights to the next.',
        method="env_runners",
        part="sampling",
    ),
    # Processes and devices.
    Setting(
        "shared_learner",
        None,
        SHARED_LEARNER,
        "The name of a `SharedLearner`, an actor on one GPU (or none) that learns for many trials at once; True: that of the "
        'name "default". It is made if there is none. None: the trial learns for itself. See docs/shared_learner.md.',
        method="learners",
    ),
    Setting(
        "cuda_graph",
        "auto",
        AUTO,
        '"auto": updates on a GPU are CUDA graphs, unless something forbids it, which the log says; True: that is an '
        "error; False: they are not recorded. See docs/gpu.md.",
    ),
    Setting(
        "process_wide_speedups",
        False,
        BOOL.but("True: keep freed memory, and leave fresh memory unfilled, in the whole process."),
        "True: a process with a Learner keeps freed memory (glibc), and torch no longer fills fresh memory with NaN where "
        "there is a `seed`. That holds for all else in the process; the command line does it.",
    ),
    *OTHERS,
)
