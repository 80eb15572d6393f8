"""Settings of exploration: random actions at first, then noise on boxes' actions and Gumbel noise on all others."""

from __future__ import annotations

from rllib_maddpg.config.kinds import SCHEDULE, STEPS, between
from rllib_maddpg.config.noise_check import NOISE_TYPE
from rllib_maddpg.config.setting import Setting

EXPLORATION: tuple[Setting, ...] = (
    Setting(
        "num_steps_sampled_before_learning_starts",
        1500,
        STEPS.but("In env steps."),
        "Env steps with random actions before the first update (released code: 25,600 without).",
        part="exploration",
        main=True,
        short="random steps",
    ),
    Setting(
        "noise_type",
        "gaussian",
        NOISE_TYPE,
        'For boxes: "gaussian", "ornstein_uhlenbeck", "none", or your class with the interface of `sampling.noise.Noise` (a '
        '`functools.partial` of it where it has parameters), or its "package.module.Class".',
        part="exploration",
        main=True,
    ),
    Setting(
        "noise_scale",
        0.1,
        SCHEDULE,
        "Factor of that noise (actions lie in [-1, 1]), float or schedule over env steps.",
        part="exploration",
        mutable=True,
        main=True,
    ),
    Setting(
        "ou_theta",
        0.15,
        between(0, 2).but("Beyond 2 the noise would grow without end."),
        "Pull of the OU noise to zero, per env step.",
        part="exploration",
        mutable=True,
    ),
    Setting(
        "ou_sigma",
        0.2,
        between(0, 1e10).but("Set 0 to switch it off."),
        "Standard deviation of its increments.",
        part="exploration",
        mutable=True,
    ),
    Setting(
        "exploration_temperature",
        1.0,
        SCHEDULE,
        "Of the Gumbel noise of discrete actions and softmax heads, float or schedule.",
        part="exploration",
        mutable=True,
        main=True,
    ),
)
