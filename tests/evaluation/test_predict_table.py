import numpy as np
import pandas as pd
import pytest
from fake_estimator import FakeEstimator, face

from src.cli import ROOT, JobError, UserError
from src.evaluation.predict_table import predict_table
from src.images.detector import Face
from src.images.io import write_image

NAN = float("nan")


def table_of(paths, margin=0.4, **columns):
    return pd.DataFrame(
        {"path": [str(path) for path in paths], "gender": 1.0, "age": 30.0, "margin": margin, **columns}
    )


def write_faces(folder, ages, **kwargs):
    paths = [folder / f"{index:03d}.png" for index in range(len(ages))]
    for path, age in zip(paths, ages, strict=True):
        write_image(path, face(age, **kwargs))
    return paths


class CentreDetector:
    """Finds one face of 8 x 8 pixels in the middle, in images that are not black."""

    def detect(self, image):
        height, width = image.shape[:2]
        box = (width // 2 - 4, height // 2 - 4, width // 2 + 4, height // 2 + 4)
        return [Face(box, 1.0)] if image.any() else []


def test_answers_keep_the_order_and_come_in_batches(tmp_path):
    ages = list(range(10, 60))
    estimator = FakeEstimator(batch_size=8)
    outcome = predict_table(estimator, table_of(write_faces(tmp_path, ages, green=51)))
    assert outcome.predictions["predicted_age"].tolist() == ages
    assert outcome.predictions["male_probability"].tolist() == pytest.approx([0.2] * 50)
    assert estimator.calls == [8] * 6 + [2]
    assert outcome.skipped == outcome.faceless == []


def test_unreadable_images_are_named(tmp_path):
    paths = write_faces(tmp_path, [20, 30, 40])
    paths[1].write_bytes(b"no image")
    paths.append(tmp_path / "missing.png")
    outcome = predict_table(FakeEstimator(), table_of(paths))
    assert outcome.predictions["predicted_age"].tolist() == [20, 40]
    assert outcome.predictions["path"].tolist() == [str(paths[0]), str(paths[2])]
    assert [skipped.path for skipped in outcome.skipped] == [str(paths[1]), str(paths[3])]
    assert "not an image" in outcome.skipped[0].reason


@pytest.mark.parametrize("detect", [False, True])
def test_a_face_box_outside_its_image_is_named(tmp_path, detect):
    paths = write_faces(tmp_path, [20, 30])
    box = {"left": [0.0, 90.0], "top": [0.0, 90.0], "right": [8.0, 99.0], "bottom": [8.0, 99.0]}
    outcome = predict_table(FakeEstimator(), table_of(paths, margin=0.5, **box), CentreDetector(), detect)
    assert outcome.predictions["path"].tolist() == [str(paths[0])]
    assert [skipped.path for skipped in outcome.skipped] == [str(paths[1])]
    assert "(90, 90, 99, 99) lies outside the image" in outcome.skipped[0].reason


def test_face_crops_are_cut_to_the_margin_of_the_weights(tmp_path):
    # Margin 0.5 to 0: the central half of each side stays, here all 50; its surroundings are 200.
    image = face(200, size=32)
    image[8:24, 8:24, 0] = 50
    write_image(tmp_path / "face.png", image)
    outcome = predict_table(FakeEstimator(margin=0), table_of([tmp_path / "face.png"], margin=0.5))
    assert outcome.predictions["predicted_age"].tolist() == [50]


def test_margin_of_the_weights_above_that_of_the_images():
    with pytest.raises(UserError, match=r"the margin of the weights must be in 0\.\.0\.1, .* got 0\.4"):
        predict_table(FakeEstimator(margin=0.4), table_of(["face.png"], margin=0.1))


def test_whole_photographs_are_detected_and_cut(tmp_path):
    # The face is 8 x 8 in the middle; margin 0.5 makes it 16 x 16, of which the left half is 60.
    photograph = face(200, size=64)
    photograph[24:40, 24:32, 0] = 60
    write_image(tmp_path / "photograph.png", photograph)
    write_image(tmp_path / "nobody.png", np.zeros((64, 64, 3), np.uint8))
    table = table_of([tmp_path / "photograph.png", tmp_path / "nobody.png"], margin=NAN)
    outcome = predict_table(FakeEstimator(margin=0.5), table, detector=CentreDetector())
    assert outcome.predictions["predicted_age"].tolist() == [60]
    assert outcome.faceless == [str(tmp_path / "nobody.png")]


def test_faces_are_searched_for_in_crops_too_and_compared_with_the_tables(tmp_path):
    # The detector finds 8 x 8 pixels in the middle. Of a crop of 16 x 16 with margin 0.5 that is just the face; of one
    # with margin 0 it is a quarter; the third crop's face is said to be elsewhere, and the fourth shows none.
    write_faces(tmp_path, [20, 30, 40])
    write_image(tmp_path / "nobody.png", np.zeros((16, 16, 3), np.uint8))
    paths = [*(tmp_path / f"{index:03d}.png" for index in range(3)), tmp_path / "nobody.png", tmp_path / "000.png"]
    table = table_of(paths, margin=[0.5, 0.0, 0.0, 0.5, NAN])
    boxes = pd.DataFrame([[NAN] * 4] * 2 + [[0, 0, 4, 4]] + [[NAN] * 4] * 2, columns=["left", "top", "right", "bottom"])
    table = pd.concat([table, boxes], axis=1)
    outcome = predict_table(FakeEstimator(margin=0.25), table, detector=CentreDetector(), detect=True)
    assert outcome.predictions["predicted_age"].tolist() == [20, 30, 40, 20]
    assert outcome.faceless == [str(tmp_path / "nobody.png")]
    assert outcome.detections["boxes"].tolist() == [1, 1, 1, 0, 1]
    np.testing.assert_array_equal(outcome.detections["overlap"], [1, 0.25, 0, 0, NAN])
    assert predict_table(FakeEstimator(margin=0), table_of(paths[:1])).detections.empty


def test_real_photographs_with_the_real_detector():
    table = table_of(sorted((ROOT / "samples").glob("*.*g")), margin=NAN)
    outcome = predict_table(FakeEstimator(margin=0.1), table)
    assert len(outcome.predictions) == 2
    assert outcome.skipped == outcome.faceless == []


def test_images_inside_the_table(tmp_path):
    write_image(tmp_path / "file.png", face(70))
    images = pd.Series([face(25), None], dtype=object)
    table = table_of(["UTKFace.mat[0]", tmp_path / "file.png"], image=images)
    outcome = predict_table(FakeEstimator(), table)
    assert outcome.predictions["predicted_age"].tolist() == [25, 70]
    assert "image" not in outcome.predictions


def test_half_of_a_face_is_what_the_estimator_reads(tmp_path):
    paths = write_faces(tmp_path, [20], right=40)
    assert predict_table(FakeEstimator(), table_of(paths)).predictions["predicted_age"].tolist() == [20]


@pytest.mark.parametrize(("how", "age"), [("area", 125), ("bilinear", 250)])
def test_faces_are_resized_as_the_weights_want(how, age, tmp_path):
    """Every second column is red; four columns become one. Bilinear interpolation looks at the middle two only."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, 1::4, 0] = stripes[:, 2::4, 0] = 250
    estimator = FakeEstimator()
    estimator.info.resize = how
    outcome = predict_table(estimator, table_of(["stripes"], image=pd.Series([stripes], dtype=object)))
    assert outcome.predictions["predicted_age"].tolist() == [age]


def test_nothing_left_fails(tmp_path):
    with pytest.raises(JobError, match="none of 1 images got a prediction: 1 could not be read"):
        predict_table(FakeEstimator(), table_of([tmp_path / "missing.png"]))


def test_batch_size_must_be_positive():
    with pytest.raises(UserError, match="--batch_size must be >= 1, got 0"):
        predict_table(FakeEstimator(batch_size=0), table_of(["face.png"]))


class TwoFacesDetector:
    """Finds a large face in the left and a small one in the right of every image."""

    def detect(self, image):
        return [Face((0, 0, 16, 16), 1.0), Face((22, 0, 32, 10), 1.0)]


def test_of_several_faces_without_a_main_one_the_largest_is_used(tmp_path):
    photo = face(200, size=32)
    photo[:16, :16, 0] = 60
    write_image(tmp_path / "two.png", photo)
    table = table_of([tmp_path / "two.png"], margin=NAN)
    outcome = predict_table(FakeEstimator(margin=0), table, detector=TwoFacesDetector())
    assert outcome.predictions["predicted_age"].tolist() == [60]
