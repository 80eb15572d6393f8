"""The newest rows on their way to the Learners, beside those that were drawn."""

import pickle

import pytest
import torch
from sample_rows import SCHEMA, rows
from users_replays import PlainReplay

from rllib_maddpg.replay.answers import check_latest
from rllib_maddpg.replay.newest import BatchWithNewest, with_newest
from rllib_maddpg.rows.joint_batch import JointBatch

CPU = torch.device("cpu")


def batch(first, last):
    return JointBatch(SCHEMA, torch.from_numpy(rows(first, last).rows.copy()))


def bits(some):
    """Whole numbers among the columns may be NaN as floats."""
    return some.joint_rows.view(torch.int32)


def test_each_learner_gets_its_share():
    drawn = [batch(0, 4), batch(4, 8)]
    one, two = with_newest(drawn, batch(10, 17))
    assert len(one) == len(two) == 4 and isinstance(one, BatchWithNewest)
    arrived = [pickle.loads(pickle.dumps(each)).to(CPU, SCHEMA) for each in (one, two)]
    for there, sent, newest in zip(arrived, drawn, [batch(11, 14), batch(14, 17)], strict=True):
        assert torch.equal(bits(there), bits(sent)) and torch.equal(bits(there.newest), bits(newest))
        # A minibatch has the same newest rows.
        assert there.rows(slice(1, 3)).newest is there.newest and len(there.rows(slice(1, 3))) == 2


def test_a_joint_batch_takes_its_newest_rows_along():
    sent = batch(0, 3)
    assert sent.newest is None and pickle.loads(pickle.dumps(sent)).newest is None
    sent.newest = batch(5, 7)
    there = pickle.loads(pickle.dumps(sent)).to(CPU, SCHEMA)
    assert torch.equal(bits(there.newest), bits(batch(5, 7))) and there.newest.schema is SCHEMA


def test_with_less_than_a_row_for_each_learner_batches_stay_as_they_are():
    drawn = [batch(0, 4), batch(4, 8)]
    assert with_newest(drawn, batch(10, 11)) == drawn


@pytest.mark.parametrize(
    ("latest", "text"),
    [
        (batch(0, 4), "gave 4 rows, not 3 at most"),
        (None, "gave a NoneType, not a JointBatch"),
        (BatchWithNewest(batch(0, 2), batch(0, 2)), "gave a BatchWithNewest, not a JointBatch"),
        (JointBatch(SCHEMA, torch.zeros(2, 5)), r"gave a JointBatch of torch.float32 \[2, 5\]"),
    ],
)
def test_wrong_answers_name_class_and_method(latest, text):
    with pytest.raises(ValueError, match=rf"`PlainReplay.latest\(3\)` {text}.*Correct its `latest`"):
        check_latest(PlainReplay(SCHEMA, 10, None), latest, 3)
    check_latest(PlainReplay(SCHEMA, 10, None), batch(0, 3), 3)
