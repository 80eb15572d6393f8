"""The schema: where columns of all types lie, that no bit of them is lost, and which rows of other versions fit."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import BUILT_IN, DTYPES, PER, VERSION, Column, RowSchema, bytes_per_kept_row, with_next

LAYOUT = JointLayout(
    {a: gym.spaces.Box(-1, 1, (n,)) for a, n in {"a": 2, "b": 3, "c": 2, "d": 2}.items()},
    {a: gym.spaces.Discrete(4 if a == "b" else 3) for a in "abcd"},
    {"a": "m", "c": "m", "b": "n", "d": "o"}.get,
)
LIVES = Column("lives", "agents", width=2, dtype="int32", fill=3)
PIXELS = Column("pixels", "env", width=5, dtype="uint8", at_next=True)
CONTEXT = Column("context", "env", width=3, at_next=True)
MAYBE = Column("maybe", "obs", finite=False)
EXTRA = [LIVES, PIXELS, MAYBE, CONTEXT]


def extras():
    """Lists of columns of all kinds."""
    column = st.builds(
        Column,
        name=st.text("xyz", min_size=1, max_size=6),
        per=st.sampled_from(PER),
        width=st.integers(1, 5),
        dtype=st.sampled_from(DTYPES),
        fill=st.integers(0, 255),
        finite=st.booleans(),
        at_next=st.booleans(),
    )
    return st.lists(column, max_size=6, unique_by=lambda c: c.name)


def some_bits(schema, rows, seed):
    """Rows of random bits, NaN and all."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (rows, 4 * schema.row_width), np.uint8).view(np.float32)


# ------------------------------------------------------------------------------------------ places


def test_the_built_in_columns_and_their_order():
    schema = RowSchema(LAYOUT)
    first = ["obs", "actions", "rewards", "new_obs", "terminateds", "alive", "next_alive", "truncateds", "episodes", "t"]
    assert list(schema.columns) == first
    assert [place.start for place in schema.places[:3]] == [0, 9, 22]
    # 2 x 9 numbers observed, codes of 13, five columns of 4 agents, two of the env.
    assert schema.row_width == 18 + 13 + 20 + 2 and schema.finite_width == schema.row_width - 2
    assert {name: schema.columns[name].dtype for name in first[-3:]} == {
        "truncateds": "float32",
        "episodes": "int32",
        "t": "int32",
    }


def test_floats_come_first_and_those_that_must_be_finite_before_all():
    schema = RowSchema(LAYOUT, EXTRA)
    assert list(schema.columns)[8:] == ["context", "new_context", "maybe", "episodes", "t", "lives", "pixels", "new_pixels"]
    assert schema.finite_width == schema._by_name["maybe"].start
    # 8 numbers of 4 bytes, and 5 bytes in two words.
    assert [schema.width(name) for name in ("lives", "pixels", "acts")] == [8, 5, 4]
    assert [schema._by_name[name].words for name in ("lives", "pixels")] == [8, 2]
    with_extra = schema.bytes_per_row - RowSchema(LAYOUT).bytes_per_row
    assert with_extra == 4 * (2 * 3 + 9 + 8 + 2 * 2)


@settings(deadline=None)
@given(extras(), st.integers(0, 2**32))
def test_every_word_belongs_to_one_column_and_keeps_its_bits(extra, seed):
    schema = RowSchema(LAYOUT, extra)
    assert schema.bytes_per_row == bytes_per_kept_row(9, 13, 4, extra)
    assert schema.columns.keys() == {column.name for column in with_next(extra)}
    rows = some_bits(schema, 6, seed)
    columns = {name: values.copy() for name, values in schema.split(rows).items()}
    other = np.zeros_like(rows)
    for name, values in schema.split(other).items():
        assert not values.view(f"u{values.itemsize}").any()  # nobody else has written there
        assert values.dtype == schema.columns[name].dtype and values.shape == (6, schema.width(name))
        values[:] = columns[name]
    for place in schema.places:
        if place.dtype != "uint8":  # bytes beyond the last number stay
            words = slice(place.start, place.start + place.words)
            np.testing.assert_array_equal(other[:, words].view(np.int32), rows[:, words].view(np.int32))
    # Tensors show the same, also where rows are views and after a journey to another process.
    batch = pickle.loads(pickle.dumps(JointBatch(schema, torch.from_numpy(rows)))).to("cpu", schema)
    for name, values in batch.rows(slice(1, None, 2)).columns.items():
        if name in columns:
            expected = columns[name][1::2]
            got = values.numpy()
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(*(np.ascontiguousarray(x).view(np.uint8) for x in (got, expected)))


def test_rows_begin_with_the_fill():
    columns = RowSchema(LAYOUT, EXTRA).split(RowSchema(LAYOUT, EXTRA).empty(2, 3))
    assert (columns["lives"] == 3).all() and (columns["episodes"] == -1).all() and (columns["t"] == -1).all()
    assert all(not values.any() for name, values in columns.items() if name not in ("lives", "episodes", "t"))


# ------------------------------------------------------------------------------------------ batches


def test_shares_of_modules_and_stacks():
    schema = RowSchema(LAYOUT, EXTRA)
    rows = torch.from_numpy(schema.empty(5))
    columns = schema.split(rows)
    # Order of agents: a, c (module m), b (n), d (o).
    columns["lives"][:] = torch.arange(8) + 100 * torch.arange(5)[:, None]
    columns["context"][:] = torch.arange(3.0)
    columns["alive"][:] = torch.tensor([1.0, 0.0, 1.0, 0.0])
    columns["pixels"][:] = torch.arange(5, dtype=torch.uint8) + 250
    batch = JointBatch(schema, rows)
    assert batch.layout is LAYOUT
    assert batch.modules["m"]["lives"][1].tolist() == [[100, 101], [102, 103]]
    assert batch.modules["n"]["lives"].shape == (5, 1, 2) and batch.modules["m"]["alive"].shape == (5, 2)
    assert batch.modules["o"]["context"].shape == (5, 3) and set(batch.modules["o"]) == set(schema.columns)
    # n and o lie side by side, m and o do not.
    for modules in (("n", "o"), ("m",), ("n",)):
        agents = len(LAYOUT.slots_of(modules[0]))
        for name in ("lives", "alive", "pixels", "context", "t"):
            expected = [batch.modules[m][name] for m in modules]
            if schema.columns[name].per == "env":
                expected = [own.unsqueeze(1).expand(-1, agents, -1) for own in expected]
            stacked = batch.stack(modules, name)
            assert torch.equal(stacked, torch.stack([own.transpose(0, 1) for own in expected])), (modules, name)
            assert stacked.dtype == batch.columns[name].dtype
    wide = RowSchema(LAYOUT, [LIVES])
    apart = JointBatch(wide, torch.from_numpy(wide.empty(5)))
    assert apart.stack(("n", "o"), "lives").shape == (2, 1, 5, 2)


def test_who_acts_is_who_is_in_the_game():
    schema = RowSchema(LAYOUT, EXTRA)
    batch = JointBatch(schema, torch.from_numpy(some_bits(schema, 4, 0)))
    assert "acts" in schema and "acts" not in schema.columns
    for alias, name in (("acts", "alive"), ("next_acts", "next_alive")):
        assert batch.columns[alias] is batch.columns[name]
        assert batch.stack(("m",), alias) is batch.stack(("m",), name)
        assert batch.modules["m"][alias].data_ptr() == batch.modules["m"][name].data_ptr()


def test_columns_of_modules_are_joined_and_the_others_filled():
    schema = RowSchema(LAYOUT, EXTRA)
    rows = some_bits(schema, 5, 1)
    split = JointBatch(schema, torch.from_numpy(rows)).modules
    joined = JointBatch.from_modules(schema, split)
    for name in schema.columns:
        np.testing.assert_array_equal(*(b.columns[name].numpy() for b in (joined, JointBatch(schema, torch.from_numpy(rows)))))
    left_out = {m: {name: own[name] for name in own if name not in ("lives", "t", "context")} for m, own in split.items()}
    joined = JointBatch.from_modules(schema, left_out)
    assert (joined.columns["lives"] == 3).all() and (joined.columns["t"] == -1).all()
    assert not joined.columns["context"].any() and joined.columns["lives"].dtype == torch.int32


# ------------------------------------------------------------------------------------------ numbers that are none


def test_only_columns_that_must_be_finite_are_looked_at():
    schema = RowSchema(LAYOUT, EXTRA)
    rollout = JointRollout.empty(schema, 4)
    columns = rollout.columns
    columns["lives"][:], columns["t"][:], columns["pixels"][:] = -1, 0x7F800000, 255  # NaN and infinity, were they floats
    columns["maybe"][2, 1] = np.nan
    rollout.check_finite(schema)


@pytest.mark.parametrize(
    ("name", "at", "text"),
    [
        ("new_obs", 4, "The next observation of agent 'b' is inf at step 2"),
        ("actions", 3, "The action of agent 'c' is inf at step 2"),
        ("truncateds", 3, "The value in column 'truncateds' of agent 'd' is inf at step 2"),
        ("new_context", 1, "The value in column 'new_context' is inf at step 2 of the rollout of env runner 0"),
        ("gain", 5, "The value in column 'gain' of agent 'b' is inf at step 2"),
    ],
)
def test_numbers_that_are_none_are_named(name, at, text):
    schema = RowSchema(LAYOUT, [*EXTRA, Column("gain", "agents", width=2)])
    rollout = JointRollout.empty(schema, 4)
    rollout.columns[name][2, at] = np.inf
    with pytest.raises(ValueError, match=text):
        rollout.check_finite(schema)


# ------------------------------------------------------------------------------------------ versions


def test_a_rollout_carries_no_schema_but_shows_its_columns_elsewhere():
    schema = RowSchema(LAYOUT, EXTRA)
    rollout = JointRollout(some_bits(schema, 3, 2), schema.places)
    data = pickle.dumps(rollout)
    assert len(data) < rollout.rows.nbytes + 1500
    for name, values in pickle.loads(data).columns.items():
        np.testing.assert_array_equal(*(np.ascontiguousarray(x).view(np.uint8) for x in (values, rollout.columns[name])))


def test_rows_with_less_fit_and_rows_with_more_do_not():
    schema = RowSchema(LAYOUT, [CONTEXT])
    description = schema.description()
    assert description["version"] == VERSION == 2
    assert description["columns"]["new_context"] == {"per": "env", "width": 3, "dtype": "float32"}
    RowSchema(LAYOUT, EXTRA).check_same(description, "It")
    schema.check_same(description, "It")
    schema.check_same(None, "It")
    with pytest.raises(ValueError, match=r"It has a column 'maybe', which this run has not.*`extra_columns`"):
        schema.check_same(RowSchema(LAYOUT, EXTRA).description(), "It")
    other = RowSchema(LAYOUT, [Column("context", "env", width=2, at_next=True)])
    with pytest.raises(ValueError, match=r"Column 'context' of it is \{.*'width': 2.*and here \{.*'width': 3"):
        schema.check_same(other.description(), "It")


@pytest.mark.parametrize("version", [3, 10**6, "2", None])
def test_rows_of_the_future_are_refused(version):
    schema = RowSchema(LAYOUT)
    with pytest.raises(ValueError, match=rf"It has joint rows of version {version!r}, made by a newer .* versions up to 2"):
        schema.check_same({**schema.description(), "version": version}, "It")


def test_columns_have_owners():
    schema = RowSchema(LAYOUT, EXTRA)
    assert [schema.owner("lives", at) for at in range(8)] == ["a", "a", "c", "c", "b", "b", "d", "d"]
    assert schema.owner("maybe", 4) == schema.owner("obs", 4) == "b" and schema.owner("context", 0) is None
    assert schema.column("acts") is BUILT_IN[5]
