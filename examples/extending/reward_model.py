"""A third network of your own: a model of the rewards, with a stage, an optimizer, a target and settings of its own.

    python examples/extending/reward_model.py
    python examples/extending/reward_model.py --model-lr 0.001 --model-share 1 --env-steps 10000

Each module gets a network that predicts the reward of each of its agents from all observations and actions, as a critic sees
them. Its error is reported. With `model_share=1` critics learn from the predictions of its slowly moving target instead of the
rewards, which helps where rewards are noisy; 0 is plain MADDPG, which watches the model.
"""

import argparse
from functools import partial

import torch
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_maddpg import MADDPG, MADDPGConfig, MADDPGTorchLearner, MADDPGTorchRLModule
from rllib_maddpg.config.kinds import RATE, between
from rllib_maddpg.config.setting import Setting
from rllib_maddpg.learning import losses
from rllib_maddpg.learning.stages import LossStage
from rllib_maddpg.modules.specs import NetworkSpec
from rllib_maddpg.modules.views import ALL


class RewardModelModule(MADDPGTorchRLModule):
    """Actor, critic, and a model r(x, a_1 ... a_N)."""

    def networks(self):
        build = partial(self.build_critic, self.input_dim(ALL))
        return [*super().networks(), NetworkSpec("model", role="model", build=build, lr="model_lr", view=ALL)]


class RewardModelLearner(MADDPGTorchLearner):
    """Trains the models first, since critics learn from what they say."""

    @classmethod
    def stages(cls, config):
        return [LossStage(role="model", losses=cls.compute_model_losses), *super().stages(config)]

    def compute_model_losses(self, ctx):
        """The mean squared error of each trained module's model, by module id."""
        result = {}
        for group in ctx.groups("model"):
            rows, inputs = ctx.rows(group), ctx.inputs(group)
            acts, rewards = rows["acts"], rows["rewards"]
            predicted = group.network.q_values(inputs)  # [G, n, B]
            with torch.no_grad():
                by_target = group.target.q_values(inputs)
            ctx.add_column(group, predicted_rewards=by_target)
            # Divided by the agents in the rows of all Learners, whose gradients are added up.
            loss = (acts * (predicted - rewards).square()).sum((1, 2)) / rows.count("acts")
            result.update(zip(group.modules, loss, strict=True))
            if ctx.reports:  # Learners' metrics are averaged
                for name, values in (("model_error", predicted), ("target_model_error", by_target)):
                    error = (acts * (values - rewards).abs()).sum((1, 2)) / acts.sum((1, 2)).clamp(min=1.0)
                    ctx.note(group, **{name: error})
        return {m: result[m] for m in ctx.trained}

    def td_target(self, next_q, rows, settings):
        """The paper's, of rewards of which `model_share` is predicted."""
        rewards = torch.lerp(rows["rewards"], rows["predicted_rewards"], settings.model_share)
        return losses.td_target(rewards, rows["terminateds"], settings.gamma, next_q)


class RewardModelConfig(MADDPGConfig):
    """MADDPG's settings and two more, both of which a module can have for itself and PBT may change."""

    SETTINGS = (
        *MADDPGConfig.SETTINGS,
        Setting("model_lr", None, RATE.or_none("None: `lr`."), "Adam's rate for models.", per_module=True, mutable=True),
        Setting("model_share", 0.0, between(0, 1), "Share of predictions in rewards.", per_module=True, mutable=True),
    )

    def __init__(self, algo_class=None):
        super().__init__(algo_class or RewardModelMADDPG)

    def get_default_rl_module_spec(self):
        return RLModuleSpec(module_class=RewardModelModule)

    def get_default_learner_class(self):
        return RewardModelLearner


class RewardModelMADDPG(MADDPG):
    """What Tune runs: `tune.Tuner(RewardModelMADDPG, param_space={"model_lr": tune.loguniform(1e-4, 1e-2), ...})`."""

    @classmethod
    def get_default_config(cls):
        return RewardModelConfig()


def main(arguments: list[str] | None = None) -> None:
    """The program; `arguments` as in the command line, None: those."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-lr", type=float, default=0.01)
    parser.add_argument("--model-share", type=float, default=0.0)
    parser.add_argument("--env-steps", type=int, default=5000)
    args = parser.parse_args(arguments)

    config = RewardModelConfig().environment("simple_spread", env_config={"continuous_actions": True})
    config.training(model_lr=args.model_lr, model_share=args.model_share, lr=0.003, num_env_steps_per_update=20)
    config.training(num_steps_sampled_before_learning_starts=500, train_batch_size_per_learner=256)
    algo = config.debugging(seed=0).build_algo()
    env_steps = 0
    while env_steps < args.env_steps:
        result = algo.train()
        env_steps, metrics = int(result["num_env_steps_sampled_lifetime"]), result["learners"].get("agent_0", {})
        if "model_error" in metrics:
            errors = f"{metrics['model_error']:.3f}, of the target {metrics['target_model_error']:.3f}"
            print(f"{env_steps:>7} env steps: error of agent_0's model {errors}", flush=True)
    algo.stop()


if __name__ == "__main__":
    main()
