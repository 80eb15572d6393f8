"""Vectors of observations: those of `gymnasium.spaces.flatten`, for every space that has vectors of one length."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, OneOf, Sequence, Text, Tuple
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.utils.numpy import flatten_inputs_to_1d_tensor
from ray.rllib.utils.spaces.space_utils import get_base_struct_from_space

from rllib_maddpg.rows.observations import Flattener, ObservationError, differs_from_rllib

SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
KEYS = st.one_of(st.text("abc.", min_size=1, max_size=2), st.integers(-2, 2))


@st.composite
def multi_discretes(draw):
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    nvec, start = (
        np.reshape(draw(st.lists(st.integers(low, high), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))), shape)
        for low, high in ((1, 4), (-5, 5))
    )
    return MultiDiscrete(nvec, start=start)


LEAVES = st.one_of(
    st.builds(
        lambda shape, dtype: Box(0, 100, shape, dtype), SHAPES, st.sampled_from([np.float32, np.float64, np.uint8, np.int64])
    ),
    st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 5), st.integers(-7, 7)),
    st.builds(lambda shape: MultiBinary(shape or 2), SHAPES),
    multi_discretes(),
)
SPACES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(Tuple),
        # Pairs stay in their order, a mapping is sorted by its keys.
        st.dictionaries(KEYS, inner, min_size=1, max_size=3).map(lambda spaces: Dict([*spaces.items()])),
        st.dictionaries(KEYS, inner, min_size=1, max_size=3).map(Dict),
    ),
    max_leaves=6,
)


def as_lists(observation):
    """As an env may give it: lists for arrays, Python numbers for NumPy's."""
    if isinstance(observation, dict):
        return {key: as_lists(part) for key, part in observation.items()}
    if isinstance(observation, tuple):
        return [as_lists(part) for part in observation]
    return observation.tolist()


@settings(max_examples=300, deadline=None)
@given(SPACES, st.integers(0, 2**31 - 1))
def test_vectors_are_gymnasiums(space, seed):
    space.seed(seed)
    flattener = Flattener(space, "a")
    assert flattener.width == gym.spaces.flatdim(space)
    for _ in range(3):
        observation = space.sample()
        vector = flattener(observation)
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, gym.spaces.flatten(space, observation).astype(np.float32))
        np.testing.assert_array_equal(flattener(as_lists(observation)), vector)


@settings(max_examples=200, deadline=None)
@given(SPACES, st.integers(0, 2**31 - 1))
def test_rllibs_vectors_are_the_same_unless_that_is_known(space, seed):
    """What checkpoints of earlier versions were trained on."""
    space.seed(seed)
    observation = space.sample()
    try:
        theirs = flatten_inputs_to_1d_tensor(observation, get_base_struct_from_space(space), batch_axis=False)
    except Exception:  # RLlib's own, of every type
        theirs = None
    if not differs_from_rllib(space) and theirs is not None:
        np.testing.assert_allclose(theirs, Flattener(space, "a")(observation))
    if theirs is None and all(type(part) is str for p in Flattener(space, "a").parts for part in p.path):
        assert differs_from_rllib(space)


@pytest.mark.parametrize(
    ("space", "differs", "one_hots_differ"),
    [
        (Box(0, 1, (2, 2)), False, False),
        (Discrete(3), False, False),
        (Discrete(3, start=1), True, True),
        (Discrete(3, start=-1), True, True),
        (MultiDiscrete([2, 3]), False, False),
        (MultiDiscrete([2, 3], start=[0, 1]), True, True),
        (MultiDiscrete([[2, 3]]), True, True),
        (Dict({"b": Discrete(2), "a": Discrete(2)}), False, False),  # which Gymnasium sorts
        (Dict(b=Discrete(2), a=Discrete(2)), True, False),
        (Tuple([Discrete(2), Dict(b=Discrete(2), a=Discrete(2))]), True, False),
        (Tuple([Discrete(2), Discrete(2, start=1)]), True, True),
    ],
)
def test_where_rllib_has_other_columns(space, differs, one_hots_differ):
    assert differs_from_rllib(space) is differs
    assert differs_from_rllib(space, order_matters=False) is one_hots_differ


def test_parts_lie_in_the_order_of_the_space():
    flattener = Flattener(
        Dict(z=Tuple([Discrete(2, start=5), Box(0, 1, (1, 2))]), a=MultiDiscrete([[2], [3]], start=[[-1], [4]])), 1
    )
    assert [(p.name, p.kind, p.shape, p.width) for p in flattener.parts] == [
        ("observation.z.0", "Discrete", (), 2),
        ("observation.z.1", "Box", (1, 2), 2),
        ("observation.a", "MultiDiscrete", (2, 1), 5),
    ]
    assert flattener.parts[0].columns == [[5, 6]]
    assert flattener.parts[2].columns == [[-1, 0], [4, 5, 6]]
    assert flattener({"a": [[0], [6]], "z": (5, [[0.5, 7.0]])}).tolist() == [1, 0, 0.5, 7, 0, 1, 0, 0, 1]


NESTED = Dict(a=Tuple([Discrete(3, start=-1), Box(-1, 1, (2,))]), m=MultiDiscrete([2, 3], start=[1, 0]))
GOOD = {"a": (1, [0, 0]), "m": [1, 2]}


def changed(**parts):
    return {**GOOD, **parts}


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (
            changed(a=(2, [0, 0])),
            r"Agent 7: observation\.a\.0 is 2, outside of its space: whole numbers from -1 to 1\. Let the env",
        ),
        (changed(a=(-2, [0, 0])), r"observation\.a\.0 is -2, outside"),
        (changed(a=(0.5, [0, 0])), r"observation\.a\.0 is 0\.5, not whole numbers"),
        (changed(a=(np.nan, [0, 0])), r"observation\.a\.0 is nan, not whole numbers"),
        (changed(a=(np.inf, [0, 0])), r"observation\.a\.0 is inf, not whole numbers"),
        (changed(a=(1e300, [0, 0])), r"observation\.a\.0 is 1e\+300, outside"),
        (changed(a=("1", [0, 0])), r"observation\.a\.0 is '1', not an array of numbers"),
        (changed(a=(None, [0, 0])), r"observation\.a\.0 is None, not an array of numbers"),
        (changed(a=(1, [0, 0, 0])), r"observation\.a\.1 has shape \(3,\), not \(2,\)"),
        (changed(a=(1, [[0], [0, 0]])), r"observation\.a\.1 is \[\[0\], \[0, 0\]\], not an array of numbers"),
        (changed(a=(1, [0, 1j])), r"observation\.a\.1 .* not an array of numbers"),
        (changed(a=(1,)), r"observation\.a\.1 is missing: the agent observes \['observation\.a\.0', 'observation\.a\.1', 'obs"),
        (changed(m=[2, 3]), r"observation\.m is \[2, 3\], outside of its space: whole numbers from \[1 0\] to \[2 2\]"),
        (changed(m=[[1, 0]]), r"observation\.m has shape \(1, 2\), not \(2,\)"),
        ({"a": GOOD["a"]}, r"observation\.m is missing"),
        (None, r"observation\.a\.0 is missing"),
        (3, r"observation\.a\.0 is missing"),
    ],
)
def test_what_does_not_fit_is_named(observation, message):
    assert Flattener(NESTED, 7)(GOOD).tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 0, 1]
    with pytest.raises(ObservationError, match=message):
        Flattener(NESTED, 7)(observation)


def test_one_number_is_one_number_however_it_is_wrapped():
    for value in (2, 2.0, np.int8(2), np.array(2), np.array([2]), [2], [[2]]):
        assert Flattener(Discrete(2, start=1), "a")(value).tolist() == [0, 1]
        assert Flattener(Box(-1, 1, ()), "a")(value).tolist() == [2]  # also outside of the bounds, as RLlib has it
    assert Flattener(Discrete(2), "a")(True).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (Text(5), "Text"),
        (Graph(Box(0, 1, (2,)), None), "Graph"),
        (Sequence(Discrete(2)), "Sequence"),
        (OneOf([Discrete(2), Box(0, 1, (2,))]), "OneOf"),
    ],
)
def test_other_spaces_are_refused_by_kind(space, kind):
    with pytest.raises(ValueError, match=rf"Agent 'a': observation space .*a {kind}, cannot be flattened"):
        Flattener(space, "a")
    with pytest.raises(ValueError, match=rf"Agent 'a': .*its part 'x\.1', a {kind}, cannot be flattened"):
        Flattener(Dict(x=Tuple([Discrete(2), space])), "a")
