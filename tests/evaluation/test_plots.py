import numpy as np
import pytest

from src.datasets.label_checks import plot_age_histograms, plot_face_scores, plot_faces, plot_pictures_per_person
from src.evaluation import plots

NAN = float("nan")


def texts(axes):
    return axes.get_title(), axes.get_xlabel(), axes.get_ylabel()


def test_scatter_has_a_panel_an_entry():
    figure = plots.plot_scatter({"apparent age": ([20, 40, NAN], [22, 31, 9]), "real age": ([50], [50])})
    left, right = figure.axes
    assert texts(left) == (
        "Predicted against apparent age\nn = 2, MAE 5.50 years, CS@5 0.500",
        "apparent age (years)",
        "predicted age (years)",
    )
    assert right.get_title() == "Predicted against real age\nn = 1, MAE 0.00 years, CS@5 1.000"
    dots = left.collections[-1].get_offsets()
    assert dots.tolist() == [[20, 22], [40, 31]]
    assert left.get_xlim() == left.get_ylim() == (0, 100)


def test_scatter_shows_ages_beyond_100():
    axes = plots.plot_scatter({"true age": ([116], [90])}).axes[0]
    assert axes.get_xlim() == (0, 116)


def test_error_histogram_counts_whole_years():
    axes = plots.plot_error_histogram({"true age": ([20, 20, 20, NAN], [20.4, 19.6, 23, 5])}).axes[0]
    bars = {round(bar.get_x() + 0.5): bar.get_height() for bar in axes.patches if bar.get_height()}
    assert bars == {0: 2, 3: 1}
    assert texts(axes) == (
        "Errors against true age\nn = 3, MAE 1.27 years, CS@5 1.000",
        "predicted age - true age (years)",
        "images per year of error",
    )
    assert axes.get_legend().get_texts()[0].get_text() == "mean error +1.00 years"


def test_confusion_shows_percentages_of_each_true_group():
    figure = plots.plot_confusion(["0-2", "3-9", "10+"], [[3, 1, 0], [0, 0, 0], [0, 0, 5]])
    axes = figure.axes[0]
    assert axes.get_title() == "Age groups, % of each true group\nn = 9, exact 0.889"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0-2", "3-9", "10+"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0-2  (n = 4)", "3-9  (n = 0)", "10+  (n = 5)"]
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [
        ((0, 0), "75"),
        ((1, 0), "25"),
        ((2, 2), "100"),
    ]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 0], [0, 0, 1]])


def test_age_histograms_by_database_and_gender():
    figure = plot_age_histograms({"imdb": {"female": [20, 21, 37], "male": [3]}, "wiki": {"male": [50]}})
    imdb, wiki = figure.axes
    assert [text.get_text() for text in imdb.get_legend().get_texts()] == ["female (3)", "male (1)"]
    assert texts(wiki) == ("wiki: ages", "age (years)", "pictures per 5 years")


def test_face_scores_and_what_they_keep():
    left, right = plot_face_scores([1, 2, 3, 4, -np.inf, NAN], 2.5, "imdb").axes
    assert left.get_title() == "imdb: face scores of 4 rows (2 have none)"
    kept = right.lines[0]
    assert kept.get_xdata().tolist() == [1, 2, 3, 4]
    assert kept.get_ydata().tolist() == [100, 75, 50, 25]


def test_pictures_per_person():
    axes = plot_pictures_per_person([1, 1, 1, 7], "wiki").axes[0]
    assert axes.get_title() == "wiki: 4 persons, 10 pictures"
    assert axes.lines[0].get_xydata().tolist() == [[1, 3], [7, 1]]


def test_one_picture_a_person_is_a_dot_at_one():
    axes = plot_pictures_per_person([1] * 150, "wiki").axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 150]]
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        shown = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
        assert shown[0] == 1
        assert len(shown) > 1


def test_faces_and_missing_pictures():
    image = np.full((4, 4, 3), 9, np.uint8)
    figure = plot_faces([image, None], ["F 20", "M -3"], "the worst", columns=3)
    first, second, third = figure.axes
    assert first.images[0].get_array().tolist() == image.tolist()
    assert second.get_title() == "M -3\n(no picture)"
    assert not third.images
    assert figure.get_suptitle() == "the worst"


@pytest.mark.parametrize("count", [0, 1])
def test_figures_of_next_to_nothing_are_saved(tmp_path, count):
    ages = [30.0] * count
    plots.save(plots.plot_scatter({"true age": (ages, ages)}), tmp_path / "scatter.png")
    plots.save(plots.plot_error_histogram({"true age": (ages, ages)}), tmp_path / "errors.png")
    plots.save(plot_face_scores(ages, 1.0, "imdb"), tmp_path / "scores.png")
    plots.save(plot_faces([], [], "none"), tmp_path / "faces.png")
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
