"""Rows of images: where their bytes lie, what batches make of them, and which rows stay floats."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from image_histories import IMAGES, LAYOUT, SIZE, ImageHistory, image_schema

from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema, bytes_per_kept_row
from rllib_maddpg.rows.slots import SlotsBatch, SlotsLayout

SCHEMA = image_schema(3, weighs=True)


def layout_of(spaces):
    """Of agents that observe these spaces, which runners have flattened."""
    vectors = {agent: gym.spaces.Box(0, 255, (gym.spaces.flatdim(space),), np.float32) for agent, space in spaces.items()}
    return JointLayout(vectors, dict.fromkeys(spaces, gym.spaces.Discrete(2)), str, observed=spaces)


def rollout():
    """Rows with all kinds of numbers."""
    history = ImageHistory(seed=5)
    return JointRollout.concat(history.schema, list(history.rollouts(6)))


def test_bytes_lie_behind_all_other_columns():
    columns = list(SCHEMA.columns)
    assert columns[:2] == ["actions", "rewards"] and columns[-5:] == ["obs", "new_obs", "weights", "later_rewards", "steps"]
    assert SCHEMA.column("obs").dtype == SCHEMA.column("new_obs").dtype == "uint8" and SCHEMA.width("obs") == SIZE
    # Codes of 6, five numbers of three agents, contexts of 2; then episode and t, and lives of three bytes, in one word.
    assert SCHEMA.finite_width == 6 + 5 * 3 + 2 * 2
    assert SCHEMA.kept_width == SCHEMA.finite_width + 2 + 2 * 1 + 12 and SCHEMA.stored.row_width == SCHEMA.kept_width + 12
    assert [place.name for place in SCHEMA.kept] == columns[:-4] and SCHEMA.kept == SCHEMA.stored.places[:-1]
    # One in ten of the 12 words twice, which are two words, and 8 bytes for the links.
    assert SCHEMA.bytes_per_kept_row == 4 * SCHEMA.kept_width + 4 * 2 + 8
    assert SCHEMA.bytes_per_kept_row == bytes_per_kept_row(SIZE, 6, 3, SCHEMA.extra, observes_bytes=True)
    assert [SCHEMA.owner("new_obs", at) for at in (0, 9, 26, 27, 44)] == ["a", "b", "b", "c", "c"]
    kinds = SCHEMA.stored.description()["columns"]
    assert SCHEMA.version == 2 and kinds["obs"] == kinds["new_obs"] == {"per": "obs", "width": 1, "dtype": "uint8"}


@pytest.mark.parametrize(
    "spaces",
    [
        {**IMAGES, "c": gym.spaces.Box(0, 255, (4,), np.float32)},
        {agent: gym.spaces.Box(0.0, 1.0, space.shape, np.float32) for agent, space in IMAGES.items()},
        {**IMAGES, "c": gym.spaces.Dict(picture=IMAGES["c"])},
        {agent: gym.spaces.Box(0, 255, (8,), np.uint8) for agent in IMAGES},
    ],
    ids=["a mixed team", "images of floats", "an image in a Dict", "vectors of bytes"],
)
def test_all_other_rows_are_floats(spaces):
    schema, plain = RowSchema(layout_of(spaces)), RowSchema(layout_of({agent: gym.spaces.Box(0, 1, (4,)) for agent in "abc"}))
    assert list(schema.columns) == list(plain.columns) and schema.column("obs").dtype == "float32"
    assert schema.kept == schema.places and schema.bytes_per_kept_row == schema.bytes_per_row == 4 * schema.kept_width
    assert not schema.observes_bytes and SCHEMA.observes_bytes


def test_rows_of_floats_are_refused():
    floats = RowSchema(layout_of({**IMAGES, "c": gym.spaces.Box(0, 1, (4,))}))
    with pytest.raises(ValueError, match=r"Column 'obs' of it is \{.*'float32'\}, and here \{.*'uint8'\}"):
        RowSchema(LAYOUT).check_same(floats.description(), "It")


def test_a_schema_that_an_earlier_version_has_pickled():
    schema = RowSchema(layout_of({agent: gym.spaces.Box(0, 1, (4,)) for agent in "abc"}))
    state = vars(schema).copy()
    del state["observes_bytes"]
    old = RowSchema.__new__(RowSchema)
    old.__dict__.update(state)
    assert not old.observes_bytes and old.kept == schema.kept and old.bytes_per_kept_row == schema.bytes_per_row


# ------------------------------------------------------------------------------------------ batches


def test_columns_are_numbers_and_rows_are_bytes():
    given = rollout()
    batch = JointBatch(image_schema(), torch.from_numpy(given.rows))
    for name in ("obs", "new_obs"):
        assert given.columns[name].dtype == np.uint8 and given.columns[name].max() > 250
        assert batch.columns[name].dtype == torch.float32
        np.testing.assert_array_equal(batch.columns[name].numpy(), given.columns[name])
    assert batch.columns["obs"] is batch.columns["obs"]
    slot = LAYOUT.slots[1]
    expected = torch.from_numpy(np.float32(given.columns["obs"][:, slot.obs]))
    assert torch.equal(batch.modules[slot.module]["obs"], expected.unsqueeze(1))
    assert torch.equal(batch.stack((slot.module,), "obs"), expected[None, None])
    x_and_a = np.concatenate([given.columns["obs"], given.columns["actions"]], 1)
    np.testing.assert_array_equal(batch.obs_and_actions.numpy(), x_and_a)
    # Also of parts, of rows that have travelled, and with every bit.
    there = pickle.loads(pickle.dumps(batch)).to("cpu", batch.schema)
    assert torch.equal(there.joint_rows.view(torch.int32), batch.joint_rows.view(torch.int32))
    part = there.rows(slice(1, None, 2)).columns["new_obs"].numpy()
    np.testing.assert_array_equal(part, given.columns["new_obs"][1::2])


def test_several_games_in_one_pass():
    given = rollout()
    rows = torch.from_numpy(given.rows)[: 2 * (len(given) // 2)]
    slots = SlotsBatch(image_schema(), rows.view(2, -1, rows.shape[1]), SlotsLayout(LAYOUT, 2))
    ones = [JointBatch(image_schema(), own) for own in slots.joint_rows]
    for name, values in slots.columns.items():
        assert torch.equal(values, torch.stack([one.columns[name] for one in ones])), name
    assert torch.equal(slots.obs_and_actions, torch.stack([one.obs_and_actions for one in ones]))
    modules = slots.layout.of_all_slots(LAYOUT.modules[:1])
    expected = torch.cat([one.stack(LAYOUT.modules[:1], "new_obs") for one in ones])
    assert torch.equal(slots.stack(modules, "new_obs"), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_rows_of_columns_by_module(dtype):
    """Images of any type become bytes in rows of float32."""
    images = torch.randint(0, 256, (4, SIZE), dtype=torch.uint8)
    modules = {
        slot.module: {"obs": images[:, None, slot.obs].to(dtype), "new_obs": images.flip(0)[:, None, slot.obs].to(dtype)}
        for slot in LAYOUT.slots
    }
    modules["module_a"]["t"] = torch.arange(4)[:, None]
    batch = JointBatch.from_modules(image_schema(), modules)
    assert batch.joint_rows.dtype == torch.float32 and torch.equal(batch.columns["obs"], images.float())
    assert torch.equal(batch.columns["new_obs"], images.flip(0).float())
    assert batch.columns["t"].flatten().tolist() == [0, 1, 2, 3]


def test_what_must_be_finite():
    given = rollout()
    given.check_finite(image_schema())
    given.columns["context"][3] = np.nan
    with pytest.raises(ValueError, match="The value in column 'context' is nan at step 3"):
        given.check_finite(image_schema())
