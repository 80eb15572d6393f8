"""`MethodsConfig`: the methods of a config that set MADDPG's settings, for whoever writes them with an editor's help."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.policy.policy import PolicySpec
from ray.rllib.utils.annotations import override

from rllib_maddpg.config.agent_mapping import AgentMapping
from rllib_maddpg.config.checks import unknown_key_message
from rllib_maddpg.config.modules_config import ModulesConfig
from rllib_maddpg.config.rllib_checks import check_policy_values
from rllib_maddpg.rows.schema import Column
from rllib_maddpg.sampling.noise import NoiseType


class MethodsConfig(ModulesConfig):
    """A config whose methods take the settings of the table beside RLlib's."""

    @override(AlgorithmConfig)
    def training(
        self,
        *,
        actor_lr: float | list = NotProvided,
        critic_lr: float | list = NotProvided,
        tau: float = NotProvided,
        target_network_update_freq: int = NotProvided,
        num_env_steps_per_update: float = NotProvided,
        num_steps_sampled_before_learning_starts: int = NotProvided,
        actor_output_reg: float = NotProvided,
        critic_loss: str = NotProvided,
        huber_delta: float = NotProvided,
        others_actions: str = NotProvided,
        critic_view: Any = NotProvided,
        critic_type: str = NotProvided,
        state_key: str | None = NotProvided,
        minibatch_per_module: bool = NotProvided,
        gumbel_softmax_temperature: float | list = NotProvided,
        twin_q: bool = NotProvided,
        policy_delay: int = NotProvided,
        target_policy_noise: float = NotProvided,
        target_noise_clip: float = NotProvided,
        infer_other_policies: bool = NotProvided,
        inferred_policy_entropy: float = NotProvided,
        inferred_lr: float | list = NotProvided,
        inferred_target: str = NotProvided,
        num_sub_policies: int = NotProvided,
        share_sub_policy_draw: bool | list = NotProvided,
        sub_policy: int | None = NotProvided,
        discrete_gradient_estimator: str = NotProvided,
        straight_through_gap: float = NotProvided,
        gumbel_rao_samples: int = NotProvided,
        actor_head: str = NotProvided,
        normalize_observations: bool = NotProvided,
        normalize_rewards: bool = NotProvided,
        replay_buffer_config: dict = NotProvided,
        n_step: int = NotProvided,
        store_buffer_in_checkpoints: bool = NotProvided,
        extra_columns: list[Column] = NotProvided,
        noise_type: NoiseType = NotProvided,
        noise_scale: float | list = NotProvided,
        ou_theta: float = NotProvided,
        ou_sigma: float = NotProvided,
        exploration_temperature: float | list = NotProvided,
        cuda_graph: bool | str = NotProvided,
        process_wide_speedups: bool = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Sets what MADDPG learns from and how. All of these are plain keys for Tune, too.

        Args:
            actor_lr: Adam's rate for actors, float or schedule. None: `lr`.
            critic_lr: The same for critics.
            tau: Polyak factor of the targets, in (0, 1].
            target_network_update_freq: Env steps between target updates; 0: after every update, as in Algorithm 1.
            num_env_steps_per_update: Env steps sampled for each update, for any number of envs and runners; below 1: several
                updates per env step.
            num_steps_sampled_before_learning_starts: Env steps with random actions before the first update (released code:
                25,600 without).
            actor_output_reg: Weight of mean(head output^2) in the actor loss.
            critic_loss: "mse" or "huber".
            huber_delta: TD error from which the Huber loss is linear.
            others_actions: In the actor loss: "replay" (the paper) or "current" (the others' current actors).
            critic_view: What a critic sees: "all" (every agent's observation and action), "own" (its own agent's: independent
                DDPG), "state" (the env's global state and all actions), "state+all" (all observations, too), or a `View`.
            critic_type: Networks of critics: "mlp" (the paper), or "attention" over all agents, whose weights all modules
                share (Iqbal and Sha 2019), so that they do not grow with the square of the number of agents.
            state_key: Key of the global state in the infos, for critics that see it: those of `__common__`, else of any agent.
                None: the env's method `state()`, as PettingZoo has it.
            minibatch_per_module: True: each module draws rows of its own (as Algorithm 1 is written); False: all learn from the
                same rows, which costs less.
            gumbel_softmax_temperature: Of the relaxation through which discrete actors learn, float or schedule over env steps.
                With the estimator "tags" it falls exponentially between the points of a schedule; a float v is then
                `[[0, v], [1000000, v / 10]]`.
            twin_q: True: each module has two critics, both of which learn from the smaller of their targets' values.
            policy_delay: Actors and targets learn in every so many updates; critics in all of them.
            target_policy_noise: Standard deviation of the noise on the actions in TD targets: on tanh boxes' codes, which lie
                in [-1, 1]; on the head output of all others.
            target_noise_clip: Limit of that noise, on both sides.
            infer_other_policies: True: each module learns approximations of the other modules' policies from what they were
                seen to do, and needs no actor but its own (paper, section 4.2).
            inferred_policy_entropy: Weight of the entropy of approximations in their loss (paper, equation 7).
            inferred_lr: Adam's rate for approximations, float or schedule. None: `lr`.
            inferred_target: What critics see of discrete approximations in TD targets: their "probabilities" (the paper), or
                the "greedy" action.
            num_sub_policies: Sub-policies of each agent, one of which is drawn for each episode (paper, section 4.3).
            share_sub_policy_draw: True: all agents play the sub-policies of one number in an episode; lists of agents: those of
                each list do, such as those of a team.
            sub_policy: The sub-policy that acts in evaluation: `evaluation_config={"sub_policy": 0}`. None: one is drawn for
                each episode.
            discrete_gradient_estimator: How a gradient passes through a draw of discrete actors: "straight_through"
                Gumbel-Softmax; "tags", the same with a falling temperature; "gapped_straight_through"; "gumbel_rao". See
                docs/family.md.
            straight_through_gap: By how much the logit of a drawn action is to stand above all others, for
                "gapped_straight_through".
            gumbel_rao_samples: Draws over which "gumbel_rao" averages.
            actor_head: "tanh", or "softmax" for boxes from 0 to 1 (as OpenAI's program acts on MPE).
            normalize_observations: True: networks see observations less their running mean, over their running standard
                deviation.
            normalize_rewards: True: critics learn from rewards over their running root mean square.
            replay_buffer_config: Is merged with the present one. `capacity`: env steps; memory is claimed as rows come.
                `device`: "cuda" keeps the rows beside a Learner on this process's GPU. `num_shards`: actors that share the
                rows, which then go from runners to Learners past this process; 0: it keeps them itself. `type`: also
                "PrioritizedJointReplayBuffer" with `alpha` (0.6), `beta` (0.4) and `priority` ("mean" or "max" of the agents'
                TD errors), "ShardedReplayBuffer", or your subclass of `JointReplay` or its path, which gets the other keys as
                arguments.
            n_step: Rewards of a TD target before it bootstraps. Rows are drawn with what came after them.
            store_buffer_in_checkpoints: Whether a resumed run goes on with the same replay rows; only the filled part is
                written.
            extra_columns: Columns of joint rows beside the built-in ones, filled from infos: `Column("context", "env", width=2,
                source=lambda infos: infos["agent_0"]["context"])`, see `rllib_maddpg.rows.schema.Column`.
            noise_type: For boxes: "gaussian", "ornstein_uhlenbeck", "none", or your class with the interface of
                `sampling.noise.Noise` (a `functools.partial` of it where it has parameters), or its "package.module.Class".
            noise_scale: Factor of that noise (actions lie in [-1, 1]), float or schedule over env steps.
            ou_theta: Pull of the OU noise to zero, per env step.
            ou_sigma: Standard deviation of its increments.
            exploration_temperature: Of the Gumbel noise of discrete actions and softmax heads, float or schedule.
            cuda_graph: "auto": updates on a GPU are CUDA graphs, unless something forbids it, which the log says;
                True: that is an error; False: they are not recorded. See docs/gpu.md.
            process_wide_speedups: True: a process with a Learner keeps freed memory (glibc), and torch no longer fills fresh
                memory with NaN where there is a `seed`. That holds for all else in the process; the command line does it.
            **kwargs: RLlib's own, such as `lr` (sets both rates), `gamma`, `grad_clip`, `train_batch_size_per_learner`.

        Raises:
            ValueError: For an unknown key.
        """
        given = {
            k: v for k, v in locals().items() if k not in ("self", "kwargs", "__class__") and v is not NotProvided
        } | kwargs
        takes, own = inspect.signature(super().training).parameters, self.own_keys("training")
        for key in given:
            if key in takes or key in own:
                continue
            if key in vars(self):
                raise ValueError(
                    f"`{key}` is a setting of RLlib, but none of `.training()`: set it with the method it belongs to."
                )
            raise ValueError(unknown_key_message(key, [*own, *takes]))
        if "replay_buffer_config" in given:
            given["replay_buffer_config"] = self._merged(given["replay_buffer_config"])
        super().training(**self._set_own("training", given))
        return self

    def _merged(self, replay: Any) -> Any:
        """A `replay_buffer_config` with the present one's items, too; what is no dict, `validate()` refuses."""
        return {**self.replay_buffer_config, **replay} if isinstance(replay, Mapping) else replay

    @override(AlgorithmConfig)
    def env_runners(
        self,
        *,
        turn_based: bool | None = NotProvided,
        env_runner_fast_path: bool = NotProvided,
        sample_mode: str = NotProvided,
        broadcast_interval: int = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """As RLlib's `env_runners`, and how remote runners and the Learner work together.

        Args:
            turn_based: True: agents of the env act in turns, so each one's transition goes from one turn of its to the next.
                None: it is found out.
            env_runner_fast_path: False: sample in RLlib's own loop also where MADDPG's columnar one gives the same rows.
            sample_mode: "pipelined": runners sample the next fragment while the Learner updates, so weights lag by exactly one
                fragment; "sync": they wait for each other; "async": each runner's fragment is taken as it comes.
            broadcast_interval: In "async" mode, rounds of sampling and updating from one sending of weights to the next.
            **kwargs: RLlib's own, such as `num_env_runners`, `num_envs_per_env_runner`, `sample_timeout_s`.
        """
        given = {
            k: v for k, v in locals().items() if k not in ("self", "kwargs", "__class__") and v is not NotProvided
        } | kwargs
        super().env_runners(**self._set_own("env_runners", given))
        return self

    @override(AlgorithmConfig)
    def learners(self, *, shared_learner: str | bool | None = NotProvided, **kwargs: Any) -> Self:
        """As RLlib's `learners`, and whether trials share one.

        Args:
            shared_learner: The name of a `SharedLearner`, an actor on one GPU (or none) that learns for many trials at once;
                True: that of the name "default". It is made if there is none. None: the trial learns for itself.
            **kwargs: RLlib's own, such as `num_learners`, `num_gpus_per_learner`.
        """
        given = {
            k: v for k, v in locals().items() if k not in ("self", "kwargs", "__class__") and v is not NotProvided
        } | kwargs
        super().learners(**self._set_own("learners", given))
        return self

    @override(AlgorithmConfig)
    def multi_agent(self, *, policy_mapping_fn: Any = NotProvided, **kwargs: Any) -> Self:
        """As RLlib's `multi_agent`; `policy_mapping_fn` may also be a dict of agent ids to module ids."""
        if isinstance(policy_mapping_fn, Mapping) and "type" not in policy_mapping_fn:
            policy_mapping_fn = AgentMapping(policy_mapping_fn)
        policies = kwargs.get("policies")
        check_policy_values(policies)
        if isinstance(policies, Mapping):
            kwargs["policies"] = {module: PolicySpec() if spec is None else spec for module, spec in policies.items()}
        super().multi_agent(policy_mapping_fn=policy_mapping_fn, **kwargs)
        return self
