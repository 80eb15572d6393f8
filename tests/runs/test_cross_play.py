"""Cross-play: who really plays, against hand-made actors and against all actors in one algorithm; and what is refused."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule, MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from tiny_algorithm import tiny_config

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.envs import EpisodeRecord
from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule
from rllib_maddpg.runs.cross_play import evaluate_cross_play, evaluate_pairings
from rllib_maddpg.runs.evaluation import Estimate, Evaluation, evaluate_algorithm, evaluate_checkpoint
from rllib_maddpg.sampling.connectors import AgentMeanStdFilter

ADVERSARY, GOOD = "adversary_0", ("agent_0", "agent_1")


def played(evaluation):
    """All that was played, episode by episode."""
    return evaluation.records


# ------------------------------------------------------------------------------------------ a game that tells who does what


class Farm(MultiAgentEnv):
    """Three steps; each agent earns the number of its action (or the sum of a box), and observes its own constant."""

    def __init__(self, config):
        super().__init__()
        self.possible_agents = self.agents = ["fox_0", "fox_1", *[f"hen_{i}" for i in range(config.get("hens", 2))]]
        box = gym.spaces.Box(config.get("low", -1), 1, (2,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, gym.spaces.Box(-9, 9, (config.get("width", 2),), np.float32))
        self.action_spaces = {a: box if a[:3] in config.get("box", "") else gym.spaces.Discrete(8) for a in self.agents}
        self.cycles = config.get("cycles", 3)

    def seen(self):
        return {a: np.full(self.observation_spaces[a].shape, i + 1, np.float32) for i, a in enumerate(self.agents)}

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self.seen(), {}

    def step(self, actions):
        self.time += 1
        rewards = {agent: float(np.sum(action)) for agent, action in actions.items()}
        return self.seen(), rewards, {"__all__": False}, {"__all__": self.time == self.cycles}, {}


class OtherFarm(Farm):
    """An env with the same spaces."""


def farm_config(cls=Farm, **env_config):
    config = MADDPGConfig().environment(cls, env_config=env_config).debugging(seed=0)
    return config.rl_module(model_config={"fcnet_hiddens": [4]})


def final_layer(algo, module):
    return algo.learner_group._learner.module[module].unwrapped().actor.linears[-1]


def save_fixed(build, config, folder, actions):
    """The checkpoint of modules that play these actions: module -> number, or outputs of a box's head."""
    algo = build(config)
    for module, action in actions.items():
        layer = final_layer(algo, module)
        layer.weight.data.zero_()
        layer.bias.data.copy_(torch.eye(len(layer.bias))[action] if isinstance(action, int) else torch.tensor(action))
    return Path(algo.save_to_path(str(folder)))


def returns_of(game):
    return {agent: estimate.mean for agent, estimate in game.evaluation.agents.items()}


@pytest.fixture(scope="module")
def farms(ray_session, tmp_path_factory):
    """Checkpoints: of a module for each agent, which play 0, 1, 2 and 3, with inferred policies; of one module for the foxes
    and one for the hens, 4 and 5, with twin critics; and of wider ones with local critics, 6 and 7."""
    tmp_path, built = tmp_path_factory.mktemp("farms"), []

    def build(config):
        built.append(config.build_algo())
        return built[-1]

    config = farm_config().training(infer_other_policies=True)
    own = save_fixed(build, config, tmp_path / "own", {"fox_0": 0, "fox_1": 1, "hen_0": 2, "hen_1": 3})
    shared = {"fox_0": "foxes", "fox_1": "foxes", "hen_0": "hens", "hen_1": "hens"}
    config = farm_config().multi_agent(policy_mapping_fn=shared, policies={"foxes", "hens"}).training(twin_q=True)
    four = save_fixed(build, config, tmp_path / "four", {"foxes": 4, "hens": 5})
    config = farm_config().multi_agent(policy_mapping_fn=shared, policies={"foxes", "hens"})
    config.training(critic_view="own").rl_module(model_config={"fcnet_hiddens": [9, 9], "fcnet_activation": "tanh"})
    six = save_fixed(build, config, tmp_path / "six", {"foxes": 6, "hens": 7})
    for algo in built:
        algo.stop()
    return own, four, six


def test_each_agent_does_what_its_own_run_taught_it(farms):
    own, four, _ = farms
    assert [returns_of(game) for game in evaluate_pairings(own, {"fox_*": four}, episodes=2)] == [
        {"fox_0": 0.0, "fox_1": 3.0, "hen_0": 6.0, "hen_1": 9.0},
        {"fox_0": 12.0, "fox_1": 12.0, "hen_0": 6.0, "hen_1": 9.0},
        {"fox_0": 0.0, "fox_1": 3.0, "hen_0": 15.0, "hen_1": 15.0},
        {"fox_0": 12.0, "fox_1": 12.0, "hen_0": 15.0, "hen_1": 15.0},
    ]
    # Part of a shared module, in both directions.
    assert returns_of(evaluate_cross_play(own, {"fox_1": four}, episodes=1)) == {
        "fox_0": 0.0,
        "fox_1": 12.0,
        "hen_0": 6.0,
        "hen_1": 9.0,
    }
    assert returns_of(evaluate_cross_play(four, {"hen_1": own}, episodes=1)) == {
        "fox_0": 12.0,
        "fox_1": 12.0,
        "hen_0": 15.0,
        "hen_1": 9.0,
    }


def test_several_opponents_and_patterns(farms):
    own, four, six = farms
    game = evaluate_cross_play(own, {"fox_[0]": four, "hen_?": six}, episodes=3)
    assert returns_of(game) == {"fox_0": 12.0, "fox_1": 3.0, "hen_0": 21.0, "hen_1": 21.0}
    assert game.players == {"fox_0": four, "fox_1": own, "hen_0": six, "hen_1": six}
    data = json.loads(json.dumps(game.to_dict(), allow_nan=False))
    assert data["pairing"] == {agent: str(path) for agent, path in game.players.items()}
    assert data["agent_return"]["hen_0"]["mean"] == 21.0
    # Two patterns of one run; modules of the same name in three runs.
    game = evaluate_cross_play(four, {"fox_0": six, "hen_1": six}, episodes=1)
    assert returns_of(game) == {"fox_0": 18.0, "fox_1": 12.0, "hen_0": 15.0, "hen_1": 21.0}


class AlwaysSeven(RLModule):
    """A rule without networks, which says how often it was asked since it was made."""

    def setup(self):
        self.asked = 0

    def _forward(self, batch, **kwargs):
        self.asked += 1
        return {"actions": np.full(len(batch["obs"]), 7 if self.asked <= 3 else 0)}


class SixBesideAnActor(MADDPGTorchRLModule):
    """Another rule, beside an actor network."""

    def _forward_inference(self, batch, **kwargs):
        return {"actions": torch.full((len(batch["obs"]),), 6)}


def test_rules_of_both_runs_play_in_rllibs_loop(farms, build, tmp_path):
    own = farms[0]
    specs = {"fox_0": RLModuleSpec(module_class=AlwaysSeven), "hen_0": RLModuleSpec(module_class=SixBesideAnActor)}
    config = farm_config().multi_agent(policies_to_train=["fox_1", "hen_1"])
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    rules = save_fixed(build, config, tmp_path / "rules", {"fox_1": 5, "hen_1": 5})
    crossed, swapped = ({"fox_0": 21.0, "fox_1": 15.0}, {"hen_0": 6.0, "hen_1": 9.0}), {"hen_0": 18.0, "hen_1": 15.0}
    assert returns_of(evaluate_cross_play(own, {"fox_*": rules}, episodes=1)) == {**crossed[0], **crossed[1]}
    assert returns_of(evaluate_cross_play(rules, {"hen_*": own}, episodes=1)) == {**crossed[0], **crossed[1]}
    assert returns_of(evaluate_cross_play(own, {"hen_*": rules}, episodes=1)) == {"fox_0": 0.0, "fox_1": 3.0, **swapped}
    # A module with a memory begins each game alike.
    games = evaluate_pairings(own, {"fox_*": rules}, episodes=1)
    assert [returns_of(game)["fox_0"] for game in games] == [0.0, 21.0, 0.0, 21.0]


def test_boxes(build, tmp_path):
    play, agents = {"one": [0.0, 9.0], "other": [-9.0, -9.0]}, ["fox_0", "fox_1", "hen_0", "hen_1"]
    one, other = (
        save_fixed(build, farm_config(box="fox hen"), tmp_path / name, dict.fromkeys(agents, heads))
        for name, heads in play.items()
    )
    game = evaluate_cross_play(one, {"hen_*": other}, episodes=1)
    assert returns_of(game) == pytest.approx({"fox_0": 3.0, "fox_1": 3.0, "hen_0": -6.0, "hen_1": -6.0}, abs=1e-6)


# ------------------------------------------------------------------------------------------ a real game, episode by episode


@pytest.fixture(scope="module")
def pair(ray_session, tmp_path_factory):
    """Two algorithms with other weights, and their checkpoints."""
    algos = [tiny_config(seed).build_algo() for seed in (1, 2)]
    folder = tmp_path_factory.mktemp("pair")
    yield algos, [Path(algo.save_to_path(str(folder / str(n)))) for n, algo in enumerate(algos)]
    for algo in algos:
        algo.stop()


def mixed(build, algos, config, of_second):
    """An algorithm with the actors of the first, and those of the second for these modules."""
    algo = build(config)
    first, second = (a.learner_group.get_weights() for a in algos)
    algo.learner_group.set_weights({m: second[m] if m in of_second else first[m] for m in first})
    return algo


def test_it_is_the_game_of_all_actors_in_one_algorithm(pair, build):
    algos, (first, second) = pair
    game = evaluate_cross_play(first, {ADVERSARY: second}, episodes=7, seed=4, num_envs=3)
    algo = mixed(build, algos, tiny_config(), [ADVERSARY])
    assert played(game.evaluation) == played(evaluate_algorithm(algo, 7, seed=4, num_envs=3))
    plain = [evaluate_checkpoint(path, episodes=7, seed=4, num_envs=3) for path in (first, second)]
    assert all(played(game.evaluation) != played(one) for one in plain)


def test_a_run_crossed_with_itself_is_itself(pair):
    path = pair[1][0]
    alone = evaluate_checkpoint(path, episodes=5, seed=1)
    assert played(evaluate_cross_play(path, {"agent_*": path}, episodes=5, seed=1).evaluation) == played(alone)


def test_either_run_may_come_first(pair):
    first, second = pair[1]
    one = evaluate_cross_play(first, {ADVERSARY: second}, episodes=5)
    other = evaluate_cross_play(second, {"agent_*": first}, episodes=5)
    assert played(one.evaluation) == played(other.evaluation) and one.players == other.players


def test_four_pairings_have_common_starts(pair):
    first, second = pair[1]
    games = evaluate_pairings(first, {"agent_*": second}, episodes=5, seed=2)
    both = [first, second], [second, first]
    assert [[g.players[ADVERSARY], g.players[GOOD[0]]] for g in games] == [[first, first], *both, [second, second]]
    assert played(games[0].evaluation) == played(evaluate_checkpoint(first, episodes=5, seed=2))
    assert played(games[3].evaluation) == played(evaluate_checkpoint(second, episodes=5, seed=2))
    assert played(games[1].evaluation) == played(evaluate_cross_play(first, {"agent_*": second}, 5, 2).evaluation)
    assert played(games[2].evaluation) == played(evaluate_cross_play(second, {"agent_*": first}, 5, 2).evaluation)


def test_frames_change_no_number(pair):
    first, second = pair[1]
    filmed = evaluate_cross_play(first, {"agent_1": second}, episodes=3, record_frames=2).evaluation
    assert len(filmed.frames) == 2 * 6 and filmed.frames[0].shape == (700, 700, 3)
    assert played(filmed) == played(evaluate_cross_play(first, {"agent_1": second}, episodes=3).evaluation)


def test_an_env_that_draws_nothing_cannot_be_filmed(farms):
    with pytest.raises(ValueError, match="env='Farm' cannot be filmed"):
        evaluate_cross_play(farms[0], {"fox_0": farms[1]}, record_frames=1)


def test_differences_by_hand():
    one = Evaluation.of([EpisodeRecord({"a": 1.0, "b": 3.0}, 7, {"m": 1.0}), EpisodeRecord({"a": 2.0}, 9, {"m": 0.0})])
    other = Evaluation.of([EpisodeRecord({"a": 4.0, "b": 1.0}, 7), EpisodeRecord({"a": 1.0, "b": 5.0}, 6, {"m": 1.0})])
    difference = one.minus(other)
    assert difference.team == Estimate.of([-1.0, -4.0])
    assert difference.agents["a"] == Estimate.of([-3.0, 1.0])
    assert difference.agents["b"].mean == 2.0  # of the one episode in which both have it
    assert difference.length == Estimate.of([0.0, 3.0])
    assert difference.metrics["m"].mean == -1.0 and difference.episodes == 2
    with pytest.raises(ValueError):
        one.minus(Evaluation.of([EpisodeRecord({"a": 1.0}, 1)]))


# ------------------------------------------------------------------------------------------ connectors


class Shift(ConnectorV2):
    """Adds a number to what agents observe."""

    def __init__(self, input_observation_space=None, input_action_space=None, *, by=0.0):
        super().__init__(input_observation_space, input_action_space)
        self.by = by

    def __call__(self, *, rl_module, batch, episodes, **kwargs):
        for episode in self.single_agent_episode_iterator(episodes):
            episode.set_observations(at_indices=-1, new_data=episode.get_observations(-1) + np.float32(self.by))
        return batch


def with_connectors(config, *make):
    return config.env_runners(env_to_module_connector=lambda env, spaces, device: [one() for one in make])


def observation_filter():
    return MeanStdFilter(multi_agent=True)


def test_each_agent_sees_what_its_own_filter_learnt(build, tmp_path):
    algos, paths = [], []
    for seed in (1, 2):
        algos.append(build(with_connectors(tiny_config(seed), observation_filter)))
        algos[-1].train()
        paths.append(algos[-1].save_to_path(str(tmp_path / str(seed))))
    algo = mixed(build, algos, with_connectors(tiny_config(), observation_filter), [ADVERSARY])
    states = [a.env_runner._env_to_module[AgentMeanStdFilter][0].get_state() for a in algos]
    game = evaluate_cross_play(paths[0], {ADVERSARY: paths[1]}, episodes=40, num_envs=2)
    wrong = evaluate_with(algo, states[0])
    assert played(game.evaluation) == played(evaluate_with(algo, {**states[0], ADVERSARY: states[1][ADVERSARY]}))
    assert played(game.evaluation) != played(wrong)  # the statistics matter
    # The runs' own statistics are as they were, so that all pairings begin alike.
    assert played(evaluate_pairings(paths[0], {ADVERSARY: paths[1]}, episodes=40, num_envs=2)[1].evaluation) == played(
        game.evaluation
    )


def evaluate_with(algo, statistics):
    algo.env_runner._env_to_module[AgentMeanStdFilter][0].set_state(statistics)
    return evaluate_algorithm(algo, 40, num_envs=2)


def test_connectors_that_differ_are_refused(build, tmp_path):
    def run(name, *make):
        return save_fixed(build, with_connectors(farm_config(), *make), tmp_path / name, {"hen_0": 3})

    one, same, other = (run(f"by{n}", lambda by=by: Shift(by=by)) for n, by in enumerate([1.0, 1.0, 2.0]))
    assert returns_of(evaluate_cross_play(one, {"hen_0": same}, episodes=1))["hen_0"] == 9.0
    with pytest.raises(ValueError, match=r"by2 was trained with other connectors than \S+by0: Shift has other settings"):
        evaluate_cross_play(one, {"hen_0": other})
    plain, filtered = run("plain"), run("filtered", observation_filter)
    with pytest.raises(ValueError, match=r"none there and \['Shift'\] here"):
        evaluate_cross_play(one, {"hen_0": plain})
    with pytest.raises(ValueError, match=r"\['AgentMeanStdFilter'\] there and none here.*Train both runs with the same"):
        evaluate_cross_play(plain, {"hen_0": filtered})
    clipped = run("clipped", lambda: MeanStdFilter(multi_agent=True, clip_by_value=1.0))
    with pytest.raises(ValueError, match="AgentMeanStdFilter has other settings"):
        evaluate_cross_play(filtered, {"hen_0": clipped})


class Together(MultiRLModule):
    """May act for all modules together."""


def test_modules_that_act_together_are_refused(farms, build, tmp_path):
    config = farm_config().rl_module(rl_module_spec=MultiRLModuleSpec(multi_rl_module_class=Together, rl_module_specs={}))
    path = save_fixed(build, config, tmp_path / "together", {"hen_0": 3})
    for first, second in ((farms[0], path), (path, farms[0])):
        with pytest.raises(ValueError, match="has a Together, which may act for all modules together"):
            evaluate_cross_play(first, {"hen_0": second})


# ------------------------------------------------------------------------------------------ other games


def test_patterns_that_do_not_fit_are_refused(farms):
    own, four, six = farms
    agents = r"The agents are \['fox_0', 'fox_1', 'hen_0', 'hen_1'\]"
    for opponents, text in (
        ({"fox": four}, rf"pattern 'fox' matches no agent\. Did you mean 'fox_\d'.*{agents}"),
        ({"FOX_*": four}, "pattern 'FOX_\\*' matches no agent"),
        ({"foxes": four}, "matches no agent"),  # a module
        ({"fox_*": four, "*_0": six}, rf"'fox_\*' and '\*_0' both match agent 'fox_0', which only one run can play. {agents}"),
        ({"*": four}, r"match all agents and leave none to \S+own\. .*Evaluate one of the opponents"),
        ({}, "There is no opponent"),
    ):
        with pytest.raises(ValueError, match=text):
            evaluate_cross_play(own, opponents)
    with pytest.raises(ValueError, match=r"four pairings of two runs, but the opponents are \['\S+four', '\S+six'\]"):
        evaluate_pairings(own, {"fox_0": four, "fox_1": six})
    with pytest.raises(ValueError, match="`episodes`=0 must be at least 1"):
        evaluate_cross_play(own, {"fox_0": four}, episodes=0)


def test_folders_without_a_checkpoint_are_named(farms, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Opponent 'fox_\*=\S+empty': .* is neither a run folder"):
        evaluate_cross_play(farms[0], {"fox_*": tmp_path / "empty"})
    with pytest.raises(ValueError, match=r"Opponent 'fox_\*=nowhere': \S+nowhere is no folder"):
        evaluate_cross_play(farms[0], {"fox_*": "nowhere"})


def test_another_layout_is_refused_and_says_why(farms, build, tmp_path):
    own = farms[0]
    box = save_fixed(build, farm_config(box="fox hen"), tmp_path / "box", {})
    text = r"another layout of agent 'hen_1': `action_space` is 'Box.*' there and 'Discrete\(8\)' in \S+own\. "
    with pytest.raises(ValueError, match=text + r"Their `env_config` differs: 'box' is 'fox hen' there and not set here\."):
        evaluate_cross_play(own, {"hen_1": box})
    wide = save_fixed(build, farm_config(width=3), tmp_path / "wide", {})
    with pytest.raises(ValueError, match=r"agent 'hen_1': `obs_dim` is 3 there and 2 in"):
        evaluate_cross_play(own, {"hen_1": wide})


def test_another_head_is_refused_where_it_matters(build, tmp_path):
    tanh, softmax = (
        save_fixed(build, farm_config(box="hen", low=0).training(actor_head=head), tmp_path / head, {"fox_0": 3})
        for head in ("tanh", "softmax")
    )
    text = r"agent 'hen_0': `head` is 'softmax' there and 'tanh' in .* and `actor_head`"
    with pytest.raises(ValueError, match=text):
        evaluate_cross_play(tanh, {"hen_0": softmax})
    assert returns_of(evaluate_cross_play(tanh, {"fox_0": softmax}, episodes=1))["fox_0"] == 9.0  # discrete
    with pytest.raises(ValueError, match=text):
        evaluate_pairings(tanh, {"fox_0": softmax})


def test_an_agent_that_the_other_run_does_not_know(farms, build, tmp_path):
    one_hen = save_fixed(build, farm_config(hens=1), tmp_path / "one_hen", {"hen_0": 6})
    with pytest.raises(ValueError, match=r"has no agent 'hen_1', only \['fox_0', 'fox_1', 'hen_0'\]\. .*'hens' is 1 there"):
        evaluate_cross_play(farms[0], {"hen_*": one_hen})


def test_another_env_config_must_be_meant(farms, build, tmp_path):
    long = save_fixed(build, farm_config(cycles=5), tmp_path / "long", {"hen_0": 7})
    with pytest.raises(ValueError, match=r"another `env_config` than \S+own: 'cycles' is 5 there and not set here\."):
        evaluate_cross_play(farms[0], {"hen_0": long})
    game = evaluate_cross_play(farms[0], {"hen_0": long}, episodes=1, env_config={"cycles": 2})
    assert returns_of(game) == {"fox_0": 0.0, "fox_1": 2.0, "hen_0": 14.0, "hen_1": 6.0}


def test_another_env_is_refused_whatever_its_spaces(farms, build, tmp_path):
    other = save_fixed(build, farm_config(OtherFarm), tmp_path / "other", {})
    with pytest.raises(ValueError, match=r"other was trained in env='OtherFarm', but \S+own in env='Farm'"):
        evaluate_cross_play(farms[0], {"hen_0": other})


def test_one_env_may_have_two_names(pair, build, tmp_path):
    config = tiny_config(2)
    config.env = "mpe2/simple_adversary_v3"
    path = build(config).save_to_path(str(tmp_path / "c"))
    game = evaluate_cross_play(pair[1][0], {ADVERSARY: path}, episodes=3)
    assert played(game.evaluation) == played(evaluate_cross_play(pair[1][0], {ADVERSARY: pair[1][1]}, episodes=3).evaluation)
