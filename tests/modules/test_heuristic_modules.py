"""Modules that choose actions by a rule, with or without networks: what they play, and what others learn of it."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from exact_games import GAMMA, POLICIES, chain_rows, critic_values, fix_policies, joint_batch
from learner_games import build as build_learner
from learner_games import env_steps
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.examples.rl_modules.classes.random_rlm import RandomRLModule
from reference.markov_games import ClimbingGame, TwoAgentChain, chain_game, exact_q

from rllib_maddpg import MADDPG, MADDPGConfig, MADDPGTorchRLModule
from rllib_maddpg.modules.rule_modules import codes_of, rule_codes
from rllib_maddpg.rows.actions import make_codec
from rllib_maddpg.runs.evaluation import evaluate_checkpoint


def beside_a_learner(config, rule, learner="agent_0", other="agent_1"):
    """`learner` is trained, `other` is of the class `rule` and is not."""
    specs = {learner: RLModuleSpec(), other: RLModuleSpec(module_class=rule)}
    config.multi_agent(policies_to_train=[learner])
    return config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))


# ---------------------------------------------------------------------------------------------------------------------
# What critics and actors learn.


class ChainRule(RLModule):
    """Plays agent 1's policy of the chain; no parameters, NumPy."""

    def _forward(self, batch, **kwargs):
        return {"actions": np.array(POLICIES[1])[np.asarray(batch["obs"]).argmax(-1)]}


class ChainRuleBesideAnActor(MADDPGTorchRLModule):
    """The same policy, beside an actor network that plays another."""

    def _forward_inference(self, batch, **kwargs):
        return {"actions": torch.tensor(POLICIES[1])[batch["obs"].argmax(-1)]}

    _forward_exploration = _forward_inference


@pytest.mark.parametrize("rule", [ChainRule, ChainRuleBesideAnActor])
def test_a_critic_beside_a_rule_reaches_the_exact_values(rule):
    """Within 2 % of the range of values, as between two actors (`test_exact_values`)."""
    updates, game = 450, chain_game(0.0)
    config = (
        MADDPGConfig()
        .environment(TwoAgentChain, env_config={"slip": 0.0})
        .training(
            gamma=GAMMA,
            tau=0.1,
            actor_lr=0.0,
            critic_lr=[[0, 0.01], [updates // 2, 0.01], [updates, 0.0002]],
            grad_clip=None,
        )
        .debugging(seed=1)
    )
    beside_a_learner(config, rule).rl_module(model_config={"fcnet_hiddens": [], "critic_fcnet_hiddens": [64]})
    learner = build_learner(config)
    fix_policies(learner, POLICIES[:1])
    rows = chain_rows(game, 1)
    for k in range(1, updates + 1):
        learner.update(batch=rows, timesteps=env_steps(k))
    ours = critic_values(learner, np.eye(game.n_states), game.n_actions, ("agent_0",))[0]
    exact = exact_q(game, POLICIES, GAMMA)[0]
    assert np.abs(ours - exact).max() < 0.02 * (exact.max() - exact.min())


class AlwaysTwo(MADDPGTorchRLModule):
    """Plays 2 with an actor that says 0."""

    def setup(self):
        super().setup()
        final = self.actor.linears[-1]
        final.weight.data.zero_()
        final.bias.data.copy_(torch.tensor([5.0, 0.0, 0.0]))

    def _forward_inference(self, batch, **kwargs):
        return {"actions": torch.full((len(batch["obs"]),), 2)}

    _forward_exploration = _forward_inference


# Of agent 0: the best answer to action 2 is 1, that to action 0 (what the rule's actor says) is 0, and that to any, 2.
PAYOFF = np.array([[8.0, -4.0, -4.0], [-4.0, -4.0, 4.0], [2.0, 2.0, 0.0]])


@pytest.mark.parametrize(("others_actions", "best"), [("current", 1), ("replay", 2)])
def test_an_actor_answers_what_the_rule_does_now(others_actions, best):
    assert PAYOFF[:, 2].argmax() == 1 and PAYOFF[:, 0].argmax() == 0 and PAYOFF.mean(1).argmax() == 2
    config = MADDPGConfig().environment(ClimbingGame).debugging(seed=1)  # for its spaces
    actor_lr = [[0, 0.0], [100, 0.0], [101, 0.02], [200, 0.02]]  # once the critic knows
    config.training(actor_lr=actor_lr, critic_lr=0.03, grad_clip=None, others_actions=others_actions)
    beside_a_learner(config, AlwaysTwo).rl_module(model_config={"fcnet_hiddens": [64]})
    learner = build_learner(config)
    rng = np.random.default_rng(0)
    for k in range(1, 201):
        actions = rng.integers(3, size=(128, 2))
        payoff = PAYOFF[actions[:, 0], actions[:, 1]]
        ones = np.ones((len(actions), 1))
        rows = joint_batch(ones, actions, np.stack([payoff, payoff], 1), ones, np.ones(len(actions)), (3, 3))
        learner.update(batch=rows, timesteps=env_steps(k))
    assert learner.module["agent_0"].forward_inference({"obs": torch.ones(1, 1)})["actions"].item() == best


def test_a_rule_is_asked_only_about_agents_that_are_there():
    seen = []

    class Sign(RLModule):
        def _forward(self, batch, **kwargs):
            seen.append(batch["obs"].clone())
            return {"actions": batch["obs"][:, :1].sign()}

    space = gym.spaces.Box(-2, 2, (1,), np.float32)
    module = Sign(observation_space=space, action_space=space, model_config={})
    obs = torch.tensor([[[3.0], [-4.0]], [[-5.0], [0.0]]])  # two rows of two agents
    alive = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    codes = rule_codes("m", module, make_codec(space), obs, alive)
    assert codes.tolist() == [[[1.0], [-1.0]], [[-1.0], [0.0]]]  # agent by agent
    assert [x.tolist() for x in seen] == [[[3.0], [-4.0], [-5.0]]]
    rule_codes("m", module, make_codec(space), obs, torch.zeros(2, 2))
    assert len(seen) == 1


# ---------------------------------------------------------------------------------------------------------------------
# What is played.


class Played(MultiAgentEnv):
    """Episodes of 4 steps; keeps what the agents play. "b" sees 0, 1, 2, 3."""

    actions: list[dict] = []

    def __init__(self, config):
        super().__init__()
        self.possible_agents = self.agents = ["a", "b"]
        self.observation_spaces = dict.fromkeys("ab", gym.spaces.Box(0, 9, (1,), np.float32))
        self.action_spaces = {"a": gym.spaces.Discrete(3), "b": config["space"]}

    def _obs(self):
        return {agent: np.full(1, self.time, np.float32) for agent in "ab"}

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self._obs(), {}

    def step(self, actions):
        self.actions.append((self.time, actions["a"], actions["b"]))
        self.time += 1
        return self._obs(), {"a": float(actions["a"]), "b": 0.0}, {"__all__": False}, {"__all__": self.time == 4}, {}


def played_config(space, rule):
    Played.actions.clear()
    config = MADDPGConfig().environment(Played, env_config={"space": space}).debugging(seed=0)
    config.training(num_steps_sampled_before_learning_starts=40, train_batch_size_per_learner=16, num_env_steps_per_update=10)
    config.training(replay_buffer_config={"capacity": 1000}).reporting(min_sample_timesteps_per_iteration=80)
    config.rl_module(model_config={"fcnet_hiddens": [8]})
    return beside_a_learner(config, rule, "a", "b")


class TimeTimesTwo(RLModule):
    """2 t, of which a box gets at most 1 before RLlib scales it."""

    def _forward(self, batch, **kwargs):
        return {"actions": 2.0 * batch["obs"]}


class TimeUpToThree(RLModule):
    """t + 4 in a space that starts at 4; after the last step the Learner asks about t = 4, too."""

    def _forward(self, batch, **kwargs):
        return {"actions": batch["obs"][:, 0].long().clamp(max=3) + 4}


@pytest.mark.parametrize(
    ("space", "rule", "plays", "codes"),
    [
        (gym.spaces.Box(-2.0, 3.0, (1,), np.float32), TimeTimesTwo, [0.5, 3.0, 3.0, 3.0], [[0.0], [1.0], [1.0], [1.0]]),
        (gym.spaces.Discrete(4, start=4), TimeUpToThree, [4, 5, 6, 7], np.eye(4).tolist()),
    ],
)
def test_rows_and_env_get_what_the_rule_chose_also_in_the_warm_up(ray_session, build, space, rule, plays, codes):
    algo = build(played_config(space, rule))
    algo.train()
    assert len(Played.actions) >= 80
    for time, _, b in Played.actions:
        assert np.ravel(b).item() == plays[time]
    columns = algo.replay_buffer.sample(200).columns
    at = algo.layout.slots[algo.layout.index("b")]
    for obs, code in zip(columns["obs"][:, at.obs], columns["actions"][:, at.actions], strict=True):
        assert code.tolist() == codes[int(obs)]
    # The learner explored: in the warm-up it plays all three actions.
    assert {int(a) for _, a, _ in Played.actions[:40]} == {0, 1, 2}
    Played.actions.clear()
    algo.evaluate()
    assert {time: np.ravel(b).item() for time, _, b in Played.actions} == dict(enumerate(plays))


class FrozenPPO(DefaultPPOTorchRLModule):
    """RLlib's PPO module, which gives the parameters of a distribution."""


@pytest.mark.parametrize(("rule", "runners"), [(RandomRLModule, 1), (FrozenPPO, 0)])
def test_modules_of_rllib_as_opponents_in_runners_and_checkpoints(ray_session, build, tmp_path, rule, runners):
    algo = build(played_config(gym.spaces.Discrete(2), rule).env_runners(num_env_runners=runners))
    result = algo.train()
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] >= 80
    assert np.isfinite(result["learners"]["a"]["critic_loss"])
    assert "critic_loss" not in result["learners"]["b"]
    algo.save_to_path(str(tmp_path))
    other = MADDPG.from_checkpoint(str(tmp_path))
    try:
        for module_id, weights in algo.get_weights().items():
            for name, weight in weights.items():
                np.testing.assert_array_equal(other.get_weights()[module_id][name], weight)
        other.train()
    finally:
        other.stop()
    assert evaluate_checkpoint(tmp_path, episodes=2).length.mean == 4


# ---------------------------------------------------------------------------------------------------------------------
# What is refused.


def test_a_module_without_networks_must_not_be_trained():
    message = (
        r"`policies_to_train`=.* it must be without 'b', whose class RandomRLModule is not a MADDPGTorchRLModule.*"
        r"`policies_to_train=\['a'\]`"
    )
    for trained in (None, ["a", "b"], lambda module, batch: True):
        config = played_config(gym.spaces.Discrete(2), RandomRLModule)
        config.policies_to_train = trained
        with pytest.raises(ValueError, match=message):
            config.validate()
    config.multi_agent(policies_to_train=lambda module, batch: module == "a")
    config.validate()


class Remembers(RLModule):
    def get_initial_state(self):
        return {"h": np.zeros(3)}


class Breaks(RLModule):
    def _forward(self, batch, **kwargs):
        raise RuntimeError("no idea")


def test_states_and_failures_are_named(ray_session):
    config = played_config(gym.spaces.Discrete(2), Remembers)
    with pytest.raises(ValueError, match=r"Module 'b' of class Remembers has a state .*stack frames"):
        build_learner(config)
    module = Breaks(observation_space=None, action_space=None, model_config={})
    codec = make_codec(gym.spaces.Discrete(2))
    with pytest.raises(ValueError, match=r"Module 'b' of class Breaks failed in `forward_inference` \(RuntimeError: no idea\)"):
        rule_codes("b", module, codec, torch.zeros(3, 1, 1), torch.ones(3, 1))


def test_a_rule_that_is_trained_is_warned_of(ray_session, build, caplog):
    config = played_config(gym.spaces.Discrete(3), AlwaysTwo)
    build(config.copy())
    assert "overrides" not in caplog.text
    build(config.copy().multi_agent(policies_to_train=["a", "b"]))
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "rllib_maddpg.modules.rule_modules"]
    assert warning.startswith("Module 'b' of class AlwaysTwo overrides `_forward_inference` and is trained")
    assert warning.endswith("leave it out: `policies_to_train=['a']`.")


class PlaysTooMuch(RLModule):
    def _forward(self, batch, **kwargs):
        return {"actions": batch["obs"][:, 0].long() + 1}


class Speechless(RLModule):
    def _forward(self, batch, **kwargs):
        return {"action_dist_inputs": batch["obs"]}

    def get_exploration_action_dist_cls(self):
        raise RuntimeError("no distribution")


class PlaysTooFew(RLModule):
    def _forward(self, batch, **kwargs):
        return {"actions": batch["obs"][1:, 0].long()}


@pytest.mark.parametrize(
    ("rule", "runners", "named"),
    [
        (Breaks, 0, r"Module 'b' of class Breaks failed on env runner 0 \(RuntimeError: no idea\)\. Fix its `forward_e"),
        (Breaks, 1, r"Module 'b' of class Breaks failed on env runner 1 \(RuntimeError: no idea\)"),
        (PlaysTooMuch, 0, r"Module 'b' has chosen 2 in a space of Discrete\(2\)\. Return one action of that space"),
        (PlaysTooMuch, 1, r"Module 'b' has chosen 2 in a space of Discrete\(2\)"),
        (Speechless, 0, r"Module 'b' of class Speechless failed .*no distribution"),
        (PlaysTooFew, 0, r"Module 'b' of class PlaysTooFew failed on env runner 0 \(IndexError: "),
    ],
)
def test_a_rule_that_fails_on_a_runner_is_named_at_once(ray_session, build, rule, runners, named):
    config = played_config(gym.spaces.Discrete(2), rule).env_runners(num_env_runners=runners, sample_timeout_s=20.0)
    algo = build(config)
    for _ in range(2):  # the next call begins with new episodes
        with pytest.raises(ValueError, match=named):
            algo.train()


@pytest.mark.parametrize(
    ("space", "actions", "named"),
    [
        (gym.spaces.Discrete(3), [1, 3], "3"),
        (gym.spaces.Discrete(3), [-1], "-1"),
        (gym.spaces.Discrete(3), [0.5], "0.5"),
        (gym.spaces.Discrete(3, start=1), [0], "0"),
        (gym.spaces.MultiDiscrete([2, 3]), [[1, 3]], r"\[1, 3\]"),
        (gym.spaces.MultiDiscrete([2, 3]), [1], "1"),
        (gym.spaces.Box(-2, 2, (2,), np.float32), [0.5], "0.5"),
        (gym.spaces.Box(-2, 2, (2,), np.float32), [[0.5, 0.5], [0.5, np.nan]], r"\[0.5, nan\]"),
    ],
)
def test_actions_outside_of_the_space_are_named(space, actions, named):
    with pytest.raises(ValueError, match=rf"Module 'b' has chosen {named} in a space of"):
        codes_of(actions, make_codec(space), "b")


def test_actions_inside_of_the_space_have_their_codes():
    for space, actions, codes in (
        (gym.spaces.Discrete(3, start=1), [1, 3], [[1, 0, 0], [0, 0, 1]]),
        (gym.spaces.MultiDiscrete([2, 3]), [[1, 2]], [[0, 1, 0, 0, 1]]),
        (gym.spaces.Box(-8, 8, (2,), np.float32), [[0.5, -7.0]], [[0.5, -1.0]]),
    ):
        assert codes_of(actions, make_codec(space), "b").tolist() == codes
