"""Files of a checkpoint that are cut short, emptied, deleted or changed by one bit: the right result or a ValueError."""

import json
import random
import shutil

import pytest
from tiny_algorithm import same, state_of, tiny_config

from rllib_maddpg import MADDPG
from rllib_maddpg.algorithm.checkpoint_files import ACTING, HASHES_FILE, METADATA_FILE, is_in
from rllib_maddpg.results.run_folder import find_checkpoint
from rllib_maddpg.runs.evaluation import evaluate_checkpoint

KINDS = ("cut short", "emptied", "deleted", "bit flipped")


def damage(folder, rng):
    """Damages one file in one way; says which and how."""
    file = rng.choice(sorted(f for f in folder.rglob("*") if f.is_file()))
    kind, data = rng.choice(KINDS), file.read_bytes()
    if kind == "deleted":
        file.unlink()
    elif kind == "bit flipped":
        at = rng.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
    else:
        file.write_bytes(data[: 0 if kind == "emptied" else rng.randrange(len(data))])
    return file.relative_to(folder).as_posix(), kind


@pytest.fixture(scope="module")
def run(ray_session, tmp_path_factory):
    """An algorithm, a folder like a run's with an older checkpoint of it, and its state there; it has trained on since."""
    folder = tmp_path_factory.mktemp("run")
    algo = tiny_config().build_algo()
    algo.train()
    good = folder / "checkpoints" / "000000040"
    algo.save_to_path(good)
    right = state_of(algo)
    algo.train()
    yield algo, good, right
    algo.stop()


def test_every_damage_is_noticed_by_all_that_read_the_file_and_changes_nothing(run, request):
    algo, good, right = run
    before, played = state_of(algo), evaluate_checkpoint(good, episodes=1).to_dict()
    assert not same(before, right)
    rng, newest = random.Random(1), good.parent / "000000080"
    for draw in range(request.config.getoption("--damage")):
        shutil.rmtree(newest, ignore_errors=True)
        shutil.copytree(good, newest)
        case = draw, *damage(newest, rng)
        for read in (algo.restore_from_path, MADDPG.from_checkpoint):
            with pytest.raises(ValueError, match="checkpoint"):
                read(newest)
                pytest.fail(f"{read.__name__} took {case}")
        assert same(state_of(algo), before), case
        assert find_checkpoint(good.parents[1])[0] == good, case
        # Acting needs no replay rows and no optimizers; damage to the hashes may be to those of them.
        if any(is_in(case[1], part) for part in ACTING):
            with pytest.raises(ValueError, match="checkpoint"):
                evaluate_checkpoint(newest, episodes=1)
        elif case[1] != HASHES_FILE:
            assert evaluate_checkpoint(newest, episodes=1).to_dict() == played, case
    shutil.rmtree(newest)
    algo.restore_from_path(good)
    assert same(state_of(algo), right)
    algo.train()


def test_what_can_be_noticed_without_hashes_is_and_changes_nothing(run, request, tmp_path, caplog):
    algo, good, right = run
    old = tmp_path / "old"
    shutil.copytree(good, old)
    (old / HASHES_FILE).unlink()
    metadata = json.loads((old / METADATA_FILE).read_text())
    del metadata["content_hashes"]
    (old / METADATA_FILE).write_text(json.dumps(metadata))
    own = algo.save_to_path(tmp_path / "own")
    before, refused = state_of(algo), 0
    for read in (1, 2):
        algo.restore_from_path(old)
        assert same(state_of(algo), right), read
    assert caplog.text.count("old has no content_hashes.json") == 1
    algo.restore_from_path(own)
    rng, copy = random.Random(2), tmp_path / "copy"
    draws = request.config.getoption("--damage")
    for draw in range(draws):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(old, copy)
        case = draw, *damage(copy, rng)
        try:
            algo.restore_from_path(copy)
        except ValueError:
            refused += 1
            assert same(state_of(algo), before), case
            continue
        # A number of which one bit is another is a number.
        assert case[2] == "bit flipped" or same(state_of(algo), right), case
        algo.restore_from_path(own)
        assert same(state_of(algo), before), case
    # A third of the files are read, and a flipped bit is one of four kinds of damage.
    assert refused > draws / 6
