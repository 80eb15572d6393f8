"""What images may be, and what their encoders are made from: all else is refused before anything starts, with what to do."""

import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from learner_games import SpacesEnv
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_maddpg import MADDPGConfig

BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
BYTES = gym.spaces.Box(0, 255, (20, 12, 3), np.uint8)
VECTOR = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)


def config_of(space=BYTES, other=BYTES, **model) -> MADDPGConfig:
    spaces = {"a": space, "b": other}
    return (
        MADDPGConfig()
        .environment(SpacesEnv, env_config={"obs_spaces": spaces, "action_spaces": dict.fromkeys(spaces, BOX)})
        .training(replay_buffer_config={"capacity": 2000})
        .rl_module(model_config=model)
    )


def box(shape, dtype=np.uint8, low=0, high=255):
    return gym.spaces.Box(low, high, shape, dtype)


@pytest.mark.parametrize(
    "space",
    [
        BYTES,
        box((1, 1, 1)),
        box((20, 12, 3), np.float32, -1.0, 1.0),
        box((15, 40)),  # numbers, though they are bytes
        box((40, 40), np.float32),
        gym.spaces.Dict({"image": BYTES, "speed": VECTOR}),  # stay vectors
    ],
    ids=str,
)
def test_what_is_taken(space):
    config_of(space).validate()
    config_of(space, VECTOR).validate()


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (box((16, 30)), "looks like an image without channels.*`frame_stack_v2`.*`reshape_v0`.*`flatten_v0`"),
        (box((4, 20, 12, 3)), "has 4 dimensions. Images have three.*`flatten_v0`"),
        (box((20, 12, 3), np.int64), "pixels of int64. Give uint8 or float32.*`dtype_v0`"),
        (box((20, 12, 3), np.float64), "pixels of float64. Give uint8 or float32"),
        (box((3, 3, 2), np.int8, 0, 1), "pixels of int8.*if it is no image.*`flatten_v0`"),
        (box((20, 12, 3), np.float32, -np.inf, np.inf), "pixels have no bounds.*`flatten_v0`"),
        (box((20, 12, 3), np.float32, 0.0, 0.0), "pixels have no bounds"),
        (box((20, 0, 3)), "has no pixels"),
    ],
    ids=str,
)
def test_spaces_that_are_refused(space, said):
    with pytest.raises(ValueError, match=rf"(?s)^Agent 'b': observation space .*{said}"):
        config_of(VECTOR, space).validate()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"conv_filters": []}, "`model_config['conv_filters']`=[] is not allowed: it must be a list of [channels, kernel"),
        ({"conv_filters": [[16, 4]]}, "`model_config['conv_filters']`=[[16, 4]] is not allowed"),
        ({"conv_filters": [[16, 0, 2]]}, "is not allowed"),
        ({"conv_filters": [[16, [4, 4, 4], 2]]}, "is not allowed"),
        ({"conv_filters": [[16, 4, 2, "full"]]}, "padding: one of ['same', 'valid']"),
        ({"critic_conv_filters": 16}, "`model_config['critic_conv_filters']`=16 is not allowed"),
        ({"conv_activation": "rely"}, "`model_config['conv_activation']`='rely' is not allowed"),
        ({"critic_conv_activation": 1}, "`model_config['critic_conv_activation']`=1 is not allowed"),
        ({"conv_kernel_initializer": "orthogonal"}, "`model_config['conv_kernel_initializer']`='orthogonal' is not allowed"),
        ({"conv_bias_initializer": "no_such_"}, "`model_config['conv_bias_initializer']`='no_such_' is not allowed"),
        ({"conv_kernel_initializer_kwargs": [1]}, "`model_config['conv_kernel_initializer_kwargs']`=[1] is not allowed"),
        ({"conv_filter": [[16, 4, 2]]}, "`model_config['conv_filter']` is no setting of MADDPG's networks. Did you mean"),
    ],
    ids=str,
)
def test_keys_that_are_refused(model, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        config_of(**model).validate()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            {"conv_filters": [[4, 4, 2], [4, 4, 2], [4, [2, 4], 1]]},
            "Agent 'a': its image of 20 x 12 is too small for `model_config['conv_filters']`: layer 2 has a kernel of 2 x 4, "
            "and sees a result of layer 1 of 5 x 3. Take fewer layers",
        ),
        (
            {"critic_conv_filters": [[4, [5, 13], 1]]},
            "too small for `model_config['critic_conv_filters']`: layer 0 has a kernel of 5 x 13, and sees an image of 20 x 12",
        ),
        (
            {"conv_filters": [[4, 10, 1, "valid"], [4, [3, 4], 1]]},
            "layer 1 has a kernel of 3 x 4, and sees a result of layer 0 of 11 x 3",
        ),
    ],
    ids=str,
)
def test_filters_fit_the_images(model, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        config_of(**model).validate()


def test_filters_that_fit_just_so():
    config_of(conv_filters=[[4, 10, 1, "valid"], [4, 3, 1, "valid"]], critic_conv_filters=[[4, [20, 12], 7]]).validate()


def test_an_actor_sees_its_own_image_and_the_critic_all():
    small = box((6, 6, 1))
    config_of(BYTES, small, conv_filters=[[4, 6, 1]], critic_conv_filters=[[4, 3, 1]]).validate()
    with pytest.raises(ValueError, match=r"Agent 'b': its image of 6 x 6 .*`model_config\['conv_filters'\]`"):
        config_of(BYTES, small, conv_filters=[[4, 7, 1]], critic_conv_filters=[[4, 3, 1]]).validate()
    with pytest.raises(ValueError, match=r"Agent 'b': its image of 6 x 6 .*`model_config\['critic_conv_filters'\]`"):
        config_of(BYTES, small, conv_filters=[[4, 3, 1]], critic_conv_filters=[[4, 7, 1]]).validate()


def of_modules(**models) -> MADDPGConfig:
    """Agent a observes an image of 20 x 12, agent b one of 6 x 6."""
    specs = {module: RLModuleSpec(model_config=model) for module, model in models.items()}
    return config_of(BYTES, box((6, 6, 1))).rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))


LARGE, SMALL = [[4, 8, 2, "valid"]], [[4, 3, 2]]


def test_filters_fit_the_images_that_a_network_sees():
    """Critics those of their view; approximations of others those of the others, by the filters of actors."""
    with pytest.raises(ValueError, match=r"Agent 'b': its image of 6 x 6 .*`model_config\['conv_filters'\]`"):
        of_modules(a={"conv_filters": LARGE}, b={"conv_filters": SMALL}).validate()
    of_modules(a={"conv_filters": LARGE}, b={"conv_filters": SMALL}).training(critic_view="own").validate()
    models = {"a": {"conv_filters": LARGE, "critic_conv_filters": SMALL}, "b": {"conv_filters": SMALL}}
    of_modules(**models).validate()
    with pytest.raises(ValueError, match=r"Agent 'b': its image of 6 x 6 .*`model_config\['conv_filters'\]`"):
        of_modules(**models).training(infer_other_policies=True).validate()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"conv_kernel_initializer": "eye_"}, "kernel_initializer'\\]`='eye_' .*parameters of 4 dimensions.* ValueError: Only"),
        ({"conv_kernel_initializer": "constant_"}, "kernel_initializer'\\]`='constant_' .*`=None. It raised TypeError.*'val'"),
        ({"conv_kernel_initializer": np.zeros}, "kernel_initializer'\\]`=<.*It raised TypeError"),
        ({"conv_bias_initializer": "xavier_uniform_"}, "bias_initializer'\\]`='xavier_uniform_' .*parameters of 1 dimensions"),
        (
            {"conv_kernel_initializer": "orthogonal_", "conv_kernel_initializer_kwargs": {"gian": 2.0}},
            "takes `conv_kernel_initializer_kwargs`=\\{'gian': 2.0\\}. It raised TypeError.*'gian'",
        ),
    ],
    ids=str,
)
def test_initializers_that_do_not_do(model, said):
    with pytest.raises(ValueError, match=rf"(?s)`model_config\['conv_.*{said}"):
        config_of(**model).validate()


def test_initializers_are_tried_without_anybodys_random_numbers():
    before = torch.random.get_rng_state()
    config_of(conv_kernel_initializer="orthogonal_", conv_kernel_initializer_kwargs={"gain": 0.5}).validate()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_images_nobody_describes_encoders():
    for key, value in {
        "conv_filters": [[16, 4, 2]],
        "critic_conv_activation": "tanh",
        "conv_bias_initializer": "zeros_",
    }.items():
        said = rf"`model_config\['{key}'\]` is no setting of MADDPG's networks where no agent observes an image \(agent 'a'"
        with pytest.raises(ValueError, match=said):
            config_of(VECTOR, VECTOR, **{key: value}).validate()
    config_of(VECTOR, VECTOR, conv_activation="relu", conv_filters=None).validate()  # as RLlib's dataclass has them


def test_images_are_not_normalized():
    for other in (BYTES, VECTOR):
        with pytest.raises(ValueError, match=r"`normalize_observations`=True is not allowed.*Agent 'a' observes an image"):
            config_of(BYTES, other).training(normalize_observations=True).validate()
    config_of().training(normalize_rewards=True).validate()
