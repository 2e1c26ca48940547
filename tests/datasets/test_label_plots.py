import numpy as np
import pytest

from src.datasets.label_checks import plot_age_histograms, plot_face_scores, plot_faces, plot_images_per_person


def texts(axes):
    return axes.get_title(), axes.get_xlabel(), axes.get_ylabel()


def test_age_histograms_by_database_and_gender():
    figure = plot_age_histograms({"imdb": {"female": [20, 21, 37], "male": [3]}, "wiki": {"male": [50]}})
    imdb, wiki = figure.axes
    assert [text.get_text() for text in imdb.get_legend().get_texts()] == ["female (3)", "male (1)"]
    assert texts(wiki) == ("wiki: ages", "age (years)", "images per 5 years")


def test_face_scores_and_what_they_keep():
    left, right = plot_face_scores([1, 2, 3, 4, -np.inf, np.nan], 2.5, "imdb").axes
    assert left.get_title() == "imdb: 4 face scores (2 rows have none)"
    kept = right.lines[0]
    assert kept.get_xdata().tolist() == [1, 2, 3, 4]
    assert kept.get_ydata().tolist() == [100, 75, 50, 25]


def test_images_per_person():
    axes = plot_images_per_person([1, 1, 1, 7], "wiki").axes[0]
    assert axes.get_title() == "wiki: 4 persons, 10 images"
    assert axes.lines[0].get_xydata().tolist() == [[1, 3], [7, 1]]


def test_one_image_per_person_is_a_dot_at_one():
    axes = plot_images_per_person([1] * 150, "wiki").axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 150]]
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        shown = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
        assert shown[0] == 1
        assert len(shown) > 1


def test_faces_and_missing_images():
    image = np.full((4, 4, 3), 9, np.uint8)
    figure = plot_faces([image, None, image], ["F 20", "M -3", "F 7"], "the worst", columns=2)
    first, second, _, fourth = figure.axes
    assert first.images[0].get_array().tolist() == image.tolist()
    assert second.get_title() == "M -3\n(no image)"
    assert not fourth.images
    assert figure.get_suptitle() == "the worst"


@pytest.mark.parametrize("count", [0, 1])
def test_figures_of_next_to_nothing_are_saved(tmp_path, count):
    plot_face_scores([30.0] * count, 1.0, "imdb").savefig(tmp_path / "scores.png")
    plot_faces([], [], "none").savefig(tmp_path / "faces.png")
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
