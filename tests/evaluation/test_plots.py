import numpy as np
import pytest

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


def test_a_full_disk_leaves_the_older_plot(tmp_path, monkeypatch):
    (tmp_path / "scatter.png").write_bytes(b"older")
    figure = plots.plot_scatter({"true age": ([30.0], [31.0])})

    def fail(path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        plots.save(figure, tmp_path / "scatter.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


@pytest.mark.parametrize("count", [0, 1])
def test_figures_of_next_to_nothing_are_saved(tmp_path, count):
    ages = [30.0] * count
    plots.save(plots.plot_scatter({"true age": (ages, ages)}), tmp_path / "scatter.png")
    plots.save(plots.plot_error_histogram({"true age": (ages, ages)}), tmp_path / "errors.png")
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
