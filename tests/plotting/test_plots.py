"""Learning curves and films: what is read, drawn and written."""

import math

import numpy as np
import pytest
from PIL import Image

from rllib_maddpg.plotting.plots import LearningCurve, draw_learning_curve, read_learning_curve, save_gif, save_learning_curve

HEADER = (
    "num_env_steps_sampled_lifetime,env_runners/episode_return_mean,"
    "env_runners/agent_episode_returns_mean/b,env_runners/agent_episode_returns_mean/a\n"
)


def write_progress(folder, *rows):
    (folder / "progress.csv").write_text(HEADER + "".join(row + "\n" for row in rows))


def test_reads_team_and_sorted_agents_with_nan_before_the_first_episode(tmp_path):
    write_progress(tmp_path, "100.0,,,", "200.0,3.5,1.5,2.0")
    curve = read_learning_curve(tmp_path)
    assert curve.env_steps == [100.0, 200.0]
    assert math.isnan(curve.team[0]) and curve.team[1] == 3.5
    assert list(curve.agents) == ["a", "b"]
    assert curve.agents["a"][1] == 2.0 and curve.agents["b"][1] == 1.5


def test_leaves_out_rows_that_a_resumed_run_went_back_behind(tmp_path):
    write_progress(tmp_path, "100,1,1,0", "200,2,1,1", "300,3,1,2", "200,20,10,10", "250,25,10,15")
    curve = read_learning_curve(tmp_path)
    assert curve.env_steps == [100, 200, 250]
    assert curve.team == [1, 20, 25]


@pytest.mark.parametrize("rows", [[], ["100,,,"]])
def test_without_any_return_there_is_no_curve(tmp_path, rows):
    write_progress(tmp_path, *rows)
    with pytest.raises(ValueError, match="no episode has ended"):
        read_learning_curve(tmp_path)


def test_draws_one_line_for_the_team_and_one_for_each_agent():
    curve = LearningCurve([0, 1000], [3, 5], {"a": [1, 2], "b": [2, 3]})
    figure = draw_learning_curve(curve, "a title")
    team, agents = figure.axes
    assert figure.get_suptitle() == "a title"
    assert team.lines[0].get_ydata().tolist() == [3, 5]
    assert [line.get_ydata().tolist() for line in agents.lines] == [[1, 2], [2, 3]]
    assert [text.get_text() for text in agents.get_legend().get_texts()] == ["a", "b"]
    assert agents.get_xlabel() == "env steps"
    # Lines on top of each other must still be seen.
    assert agents.lines[0].get_linestyle() != agents.lines[1].get_linestyle()


def test_a_single_agent_needs_no_lines_of_its_own_and_many_no_legend():
    assert len(draw_learning_curve(LearningCurve([0, 1], [3, 5], {"a": [3, 5]}), "").axes) == 1
    many = draw_learning_curve(LearningCurve([0, 1], [3, 5], {str(n): [n, n] for n in range(40)}), "")
    assert len(many.axes[1].lines) == 40 and many.axes[1].get_legend() is None


def test_the_file_is_a_png_of_readable_size(tmp_path):
    write_progress(tmp_path, "100,1,1,0", "200,2,1,1")
    save_learning_curve(tmp_path, tmp_path / "curve.png", "t")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"
        assert image.size == (960, 864)


def test_gif_has_the_frames_and_the_speed(tmp_path):
    frames = [np.full((8, 6, 3), value, np.uint8) for value in (0, 100, 200)]
    save_gif(frames, tmp_path / "film.gif", frames_per_second=5)
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.format, film.n_frames, film.size, film.info["duration"]) == ("GIF", 3, (6, 8), 200)
        film.seek(2)
        assert film.convert("RGB").getpixel((0, 0)) == (200, 200, 200)
    with pytest.raises(ValueError, match="No frame"):
        save_gif([], tmp_path / "none.gif")
