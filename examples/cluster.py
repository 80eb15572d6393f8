"""Trains on a Ray cluster: env runners, Learners and replay shards on several machines, results in a folder for all.

On the first machine, then on each of the others:

    ray start --head --port=6379
    ray start --address=HEAD:6379

Then, on any of them:

    python examples/cluster.py --address auto --storage-path /shared/results --num-env-runners 8 --num-learners 1

Or from outside:

    ray job submit --address http://HEAD:8265 --working-dir . -- python examples/cluster.py --storage-path /shared/results

A run that was interrupted goes on from its last checkpoint when the same command is given again.
"""

import argparse
from collections import Counter

import ray
from ray import tune

import rllib_maddpg
from rllib_maddpg import MADDPGConfig


def node_of_this_process(actor=None):
    """Id of the cluster's node where it runs."""
    return ray.get_runtime_context().get_node_id()


def count_nodes(algorithm, result, **kwargs):
    """Adds to each result how many runners and Learners each node has."""
    runners = algorithm.env_runner_group.foreach_env_runner(node_of_this_process, local_env_runner=False)
    learners = [node.get() for node in algorithm.learner_group.foreach_learner(node_of_this_process)]
    result["nodes"] = {
        "driver": node_of_this_process(),
        "env_runners": dict(Counter(runners)),
        "learners": dict(Counter(learners)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--address", default="auto", help="HOST:PORT of the head; auto: of the cluster that this machine is a part of")
    add("--storage-path", required=True, help="folder or URI (s3://...) that all machines see: results and checkpoints")
    add("--name", default="maddpg_cluster", help="of the folder there")
    add("--env", default="simple_spread")
    add("--env-steps", type=int, default=1_000_000)
    add("--num-env-runners", type=int, default=8)
    add("--num-envs", type=int, default=8, help="of each runner")
    add("--num-learners", type=int, default=1, help="0: the trial's main process learns")
    add("--num-gpus-per-learner", type=float, default=0)
    add("--num-shards", type=int, default=0, help="actors that keep the replay rows; 0: the main process does")
    add("--placement", default="SPREAD", choices=["SPREAD", "PACK"], help="over many machines, or on few")
    add("--sample-mode", default="pipelined", choices=["pipelined", "sync", "async"])
    add("--checkpoint-every", type=int, default=10, help="iterations")
    add("--ship-package", action="store_true", help="send this package to machines that do not have it installed")
    args = parser.parse_args()

    # Every actor finds it on its machine then. A job that was submitted has a runtime environment already; Ray joins the two.
    runtime_env = {"py_modules": [rllib_maddpg]} if args.ship_package else None
    ray.init(address=args.address, runtime_env=runtime_env)

    config = (
        MADDPGConfig()
        .environment(args.env)
        .env_runners(
            num_env_runners=args.num_env_runners,
            num_envs_per_env_runner=args.num_envs,
            rollout_fragment_length=25,
            sample_mode=args.sample_mode,
            # A machine that vanishes without a word holds up the others no longer than this.
            sample_timeout_s=30,
        )
        .learners(num_learners=args.num_learners, num_gpus_per_learner=args.num_gpus_per_learner)
        .training(replay_buffer_config={"num_shards": args.num_shards})
        .resources(placement_strategy=args.placement)
        .reporting(min_sample_timesteps_per_iteration=min(10_000, args.env_steps))
        .callbacks(on_train_result=count_nodes)
    )
    path = f"{args.storage_path.rstrip('/')}/{args.name}"
    if tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, "MADDPG", param_space=config, resume_errored=True)
    else:
        tuner = tune.Tuner(
            "MADDPG",
            param_space=config,
            run_config=tune.RunConfig(
                name=args.name,
                storage_path=args.storage_path,
                stop={"num_env_steps_sampled_lifetime": args.env_steps},
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=args.checkpoint_every, checkpoint_at_end=True),
                # A lost Learner or main process costs what came after the last checkpoint; lost runners cost nothing.
                failure_config=tune.FailureConfig(max_failures=3),
            ),
        )
    result = tuner.fit()[0]
    if result.error is not None:
        raise SystemExit(f"The run failed: {result.error}")
    print(
        f"{result.metrics['num_env_steps_sampled_lifetime']:,.0f} env steps; runners and Learners on: {result.metrics['nodes']}"
    )
    print(f"Checkpoint: {result.checkpoint.path}")


if __name__ == "__main__":
    main()
