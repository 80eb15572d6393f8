"""Users' columns that are none: refused before anything starts, with key, value and fix."""

import json
import re

import cloudpickle
import numpy as np
import pytest
from fuzz_settings import make_config

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.envs import probe_env
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import Column, RowSchema


def first_of(infos):
    return 0.0


def column(**changes):
    return Column(**{"name": "context", "per": "env", "source": first_of, **changes})


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (None, "`extra_columns`=None is not allowed: it must be a list of `rllib_maddpg.rows.schema.Column`s"),
        ({"context": 3}, "`extra_columns`={'context': 3} is not allowed"),
        (["context"], "`extra_columns`=['context'] is not allowed"),
        ([column(), "t"], "is not allowed: it must be a list of"),
        ([column(name="t")], "`extra_columns[0].name`='t' is not allowed: it must be a name that no other column has."),
        ([column(name="acts")], "Rows have a 'acts' already"),
        ([column(name="reward")], "Rows have a 'reward' already"),  # recordings have
        ([column(), column()], "`extra_columns[1].name`='context' is not allowed"),
        ([column(at_next=True), column(name="new_context")], "Rows have a 'new_context' already"),
        ([column(name="new_context"), column(at_next=True)], "Rows have a 'new_context' already"),
        ([column(name="obs", at_next=True)], "Rows have a 'obs' already"),
        ([column(name="a/b")], "`extra_columns[0].name`='a/b' is not allowed: it must be a name."),
        ([column(name=3)], "`extra_columns[0].name`=3 is not allowed"),
        ([column(name=[])], "`extra_columns[0].name`=[] is not allowed"),
        ([column(per="agent")], "`extra_columns['context'].per`='agent' is not allowed: it must be one of ['obs', 'actions', "),
        ([column(per=["env"])], "`extra_columns['context'].per`=['env'] is not allowed"),
        (
            [column(dtype="float64")],
            "`extra_columns['context'].dtype`='float64' is not allowed: it must be one of ['float32', ",
        ),
        ([column(dtype=np.float32)], "`extra_columns['context'].dtype`=<class 'numpy.float32'> is not allowed"),
        ([column(width=0)], "`extra_columns['context'].width`=0 is not allowed: it must be a whole number > 0"),
        ([column(width=2.0)], "`extra_columns['context'].width`=2.0 is not allowed"),
        ([column(width=True)], "`extra_columns['context'].width`=True is not allowed"),
        ([column(per="obs", width=2)], "`extra_columns['context'].width`=2 is not allowed: it must be 1 with per='obs'"),
        ([column(width=10**13)], "`replay_buffer_config['capacity']`=500 rows of 40000000000100 bytes need"),
        ([column(fill="x")], "`extra_columns['context'].fill`='x' is not allowed: it must be a number"),
        ([column(fill=float("nan"))], "`extra_columns['context'].fill`=nan is not allowed"),
        ([column(fill=1e300)], "`extra_columns['context'].fill`=1e+300 is not allowed"),
        ([column(dtype="uint8", fill=-1)], "`.fill`=-1 is not allowed: it must be a whole number from 0 to 255"),
        ([column(dtype="int32", fill=0.5)], "`.fill`=0.5 is not allowed: it must be a whole number from -2147483648"),
        ([column(finite="no")], "`extra_columns['context'].finite`='no' is not allowed: it must be True or False"),
        ([column(at_next=1)], "`extra_columns['context'].at_next`=1 is not allowed: it must be True or False"),
        ([column(source=None)], "`extra_columns['context'].source`=None is not allowed: it must be a function of the infos"),
        ([column(source="infos")], "`extra_columns['context'].source`='infos' is not allowed"),
    ],
)
def test_columns_that_are_none(columns, text):
    config = make_config().training(extra_columns=columns)
    with pytest.raises(ValueError, match=re.escape(text.replace("`.fill`", "`extra_columns['context'].fill`"))):
        config.validate()


def test_columns_that_are_some():
    columns = [
        column(width=3, at_next=True, fill=0.5),
        column(name="lives", per="agents", width=np.int64(2), dtype="int32", fill=-1),
        column(name="masks", per="actions", dtype="uint8", fill=255.0),
        column(name="seen", per="obs", finite=False),
    ]
    config = make_config().training(extra_columns=columns)
    config.validate()
    spaces = probe_env(config.env, config.env_config)
    schema = RowSchema(JointLayout(spaces.observation_spaces, spaces.action_spaces, str), config.extra_columns)
    assert list(schema.columns)[-6:] == ["new_context", "seen", "episodes", "t", "lives", "masks"]
    # Agents a (a box of 2) and b (one of 3), which observe 2 numbers each.
    assert [schema.width(name) for name in ("seen", "lives", "masks")] == [4, 4, 5]


def test_columns_are_settings_like_others():
    """In Tune's dicts, in checkpoints and as JSON."""
    columns = [column(width=2)]
    config = make_config().update_from_dict({"extra_columns": columns})
    config.validate()
    assert config.extra_columns == columns
    (restored,) = MADDPGConfig.from_state(cloudpickle.loads(cloudpickle.dumps(config.get_state()))).extra_columns
    assert (restored.name, restored.width, restored.source({})) == ("context", 2, 0.0)
    assert "name='context'" in json.loads(json.dumps(config.serialize()))["extra_columns"][0]
