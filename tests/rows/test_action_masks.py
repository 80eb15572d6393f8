"""Action masks in observations and head outputs: where they are, what they allow, and what is no mask."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from rllib_maddpg.rows.actions import MASKED, make_codec
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.observations import Flattener, ObservationError, mask_columns
from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.rows.slots import SlotsBatch, SlotsLayout

SEEN = Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("space", "columns"),
    [
        (Dict([("action_mask", MultiBinary(3)), ("observation", SEEN)]), slice(0, 3)),
        (Dict([("observations", SEEN), ("action_mask", Box(0, 1, (3,), np.int8))]), slice(2, 5)),
        (Dict([("a", SEEN), ("action_mask", Tuple([MultiBinary(2), MultiBinary(3)])), ("z", SEEN)]), slice(2, 7)),
        (Dict(observation=SEEN), None),
        (SEEN, None),
    ],
)
def test_columns_of_masks(space, columns):
    assert mask_columns(space, "a") == columns


def test_masks_are_read_and_checked():
    space = Dict([("observation", SEEN), ("action_mask", Tuple([MultiBinary(2), Box(0, 1, (2,), np.int8)]))])
    flattener = Flattener(space, "b")
    obs = {"observation": np.zeros(2), "action_mask": ([1, 0], np.int8([0, 1]))}
    np.testing.assert_array_equal(flattener.read_mask(obs), [1, 0, 0, 1])
    np.testing.assert_array_equal(flattener(obs), np.float32([0, 0, 1, 0, 0, 1]))
    for wrong, says in (
        (([1, 0], [2, 1]), r"action_mask\.1 is \[2, 1\]: a mask of actions has only 1"),
        (([1, 0], [0.5, 1]), r"action_mask\.1 is \[0\.5, 1\]: a mask"),
        (([1, 0], [np.nan, 1]), r"action_mask\.1 is \[nan, 1\]: a mask"),
        (([1, 0, 1], [0, 1]), r"action_mask\.0 has shape \(3,\), not \(2,\)"),
        (([1, 0],), r"action_mask\.1 is missing"),
    ):
        for read in (flattener, flattener.read_mask):
            with pytest.raises(ObservationError, match=f"Agent 'b': observation.{says}"):
                read({**obs, "action_mask": wrong})


def test_what_masks_allow_by_hand():
    """Of the second row's first part and the third row nothing is allowed, which is the same as all."""
    codec = make_codec(MultiDiscrete([2, 3]))
    mask = torch.tensor([[1.0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    allowed = codec.allowed(mask)
    assert allowed.int().tolist() == [[1, 0, 0, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    output = torch.tensor([[-5.0, 9, 9, 1, 2]] * 3, requires_grad=True)
    masked = codec.masked(output, allowed)
    np.testing.assert_array_equal(masked[0].detach(), np.float32([-5, MASKED, MASKED, 1, 2]))
    assert codec.greedy(masked).tolist() == [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0]]
    assert codec.probabilities(masked)[0, [1, 2]].tolist() == [0.0, 0.0]
    masked.clamp(min=-100.0).sum().backward()
    assert output.grad.tolist() == allowed.float().tolist()


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
def test_noise_and_temperatures_lift_nothing_that_is_masked(temperature):
    """The largest Gumbel noise that float32 uniform numbers give is some 17."""
    codec = make_codec(Discrete(3))
    output = codec.masked(torch.tensor([[0.0, -50.0, 0.0]]), torch.tensor([[False, True, False]]))
    noise = torch.tensor([[17.0, -4.0, 17.0]])
    for code in (
        codec.sample(output, noise, temperature),
        codec.smoothed(output, noise),
        torch.from_numpy(codec.explore(output.numpy(), noise.numpy(), temperature)),
    ):
        assert code.tolist() == [[0.0, 1.0, 0.0]]
    entropy = codec.head_metrics(output)["action_entropy"]
    assert entropy.tolist() == [0.0]


def test_uniform_outputs_keep_what_is_masked():
    output = np.float32([[3, MASKED, -2], [MASKED, np.nan, 1]])
    np.testing.assert_array_equal(make_codec(Discrete(3)).uniform(output), np.float32([[0, MASKED, 0], [MASKED, 0, 0]]))
    softmax = make_codec(Box(0.0, 1.0, (2,)), "softmax")
    np.testing.assert_array_equal(softmax.uniform(np.float32([[3, -2]])), [[0, 0]])


def layout():
    """A Discrete with its mask behind, two of a module with MultiDiscretes and their masks in front, a Box beside them."""
    observed = {
        "a": Dict([("observation", SEEN), ("action_mask", MultiBinary(3))]),
        **dict.fromkeys("bc", Dict([("action_mask", MultiBinary(4)), ("observation", SEEN)])),
        "d": SEEN,
    }
    vectors = {agent: gym.spaces.flatten_space(space) for agent, space in observed.items()}
    actions = {"a": Discrete(3), **dict.fromkeys("bc", MultiDiscrete([2, 2])), "d": Box(-1.0, 1.0, (1,))}
    return JointLayout(vectors, actions, {"a": "m0", "b": "m1", "c": "m1", "d": "m2"}.get, observed=observed)


def test_layouts_know_the_columns():
    assert [slot.mask for slot in layout().slots] == [slice(2, 5), slice(0, 4), slice(0, 4), None]
    box = JointLayout({"a": Box(-1, 1, (5,))}, {"a": Box(-1.0, 1.0, (3,))}, str, observed={"a": layout().slots[0].observed})
    assert box.slots[0].mask is None  # `validate` refuses it


def test_batches_say_what_rows_allow():
    """Also those of several games: `[S * G, n, B, dim]`."""
    joint_layout = layout()
    schema = RowSchema(joint_layout)
    rows = torch.zeros(2, 3, schema.row_width)
    obs, new_obs = (schema.split(rows)[name] for name in ("obs", "new_obs"))
    masks = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (2, 3, joint_layout.obs_dim))).float()
    obs.copy_(masks), new_obs.copy_(1 - masks)
    slots = SlotsLayout(joint_layout, 2)
    together = SlotsBatch(schema, rows, slots)
    for module, n, columns, nvec in (("m0", 1, [slice(2, 5)], [3]), ("m1", 2, [slice(5, 9), slice(11, 15)], [2, 2])):
        for column, values in (("obs", masks), ("new_obs", 1 - masks)):
            found = together.allowed(slots.everywhere(module), column)
            for s in range(2):
                alone = JointBatch(schema, rows[s]).allowed((module,), column)
                assert torch.equal(found[s], alone[0]) and alone.shape == (1, n, 3, sum(nvec)) and alone.dtype == torch.bool
                for i, own in enumerate(columns):
                    for b, mask in enumerate(values[s, :, own]):
                        by_hand = [list(part) if any(part) else [1.0] * len(part) for part in mask.split(nvec)]
                        assert alone[0, i, b].float().tolist() == [float(x) for part in by_hand for x in part]
    assert together.allowed(slots.everywhere("m2"), "obs") is None
