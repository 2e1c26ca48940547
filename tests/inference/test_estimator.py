import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from src.cli import ROOT, UserError
from src.images.detector import Face
from src.images.io import read_image
from src.inference.estimator import AgeGenderEstimator
from src.inference.predictor import Prediction
from src.models.backend import compile_predict
from src.models.factory import get_model
from src.models.weights.info import WeightsInfo
from src.models.weights.store import save_weights


def reading_model(size: tuple[int, int] = (4, 4)) -> keras.Model:
    """Gender and age heads that only read the color of the image: red says class 0, blue class 1 and the age."""
    inputs = keras.Input((*size, 3))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)
    gender = keras.layers.Dense(2, activation="softmax", name="pred_gender")
    age = keras.layers.Dense(101, activation="softmax", name="pred_age")
    model = keras.Model(inputs, [gender(mean), age(mean)])
    gender.set_weights([np.array([[0.1, 0], [0, 0], [0, 0.1]]), np.zeros(2)])
    kernel = np.zeros((3, 101))
    kernel[0, 20], kernel[2, 60] = 1, 1
    age.set_weights([kernel, np.zeros(101)])
    return model


def estimator(**info) -> AgeGenderEstimator:
    values = {"model_name": "reading", "img_size": 4, "margin": 0.4, **info}
    return AgeGenderEstimator(compile_predict(reading_model()), WeightsInfo(**values), batch_size=2)


def face(red: int, green: int, blue: int, height: int = 9, width: int = 7) -> np.ndarray:
    return np.full((height, width, 3), (red, green, blue), np.uint8)


RED, BLUE = face(200, 0, 0), face(0, 0, 200, 30, 40)


def test_rgb_faces_of_any_size():
    ages, male_probability = estimator().predict([RED, BLUE, RED])  # more than one batch of 2
    np.testing.assert_allclose(ages, [20, 60, 20], atol=1e-4)
    np.testing.assert_allclose(male_probability, [0, 1, 0], atol=1e-4)
    assert ages.dtype == male_probability.dtype == np.float64


def halves(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.concatenate([np.resize(left[0, 0], (8, 4, 3)), np.resize(right[0, 0], (8, 4, 3))], axis=1)


def left_model() -> keras.Model:
    """`reading_model` of the left half of the image alone."""
    inputs = keras.Input((4, 4, 3))
    return keras.Model(inputs, reading_model((4, 2))(keras.layers.Cropping2D(((0, 0), (0, 2)))(inputs)))


@pytest.mark.parametrize(
    ("own", "asked", "both"), [(False, None, 0), (True, None, 1), (True, False, 0), (False, True, 1)]
)
def test_average_over_mirror_images(own, asked, both):
    """The left half says 20 years and female, the right 60 and male; the middle of both is the average."""
    info = WeightsInfo("reading", 4, 0.4, mirrored=own)
    ages, male_probability = AgeGenderEstimator(
        compile_predict(left_model()), info, batch_size=2, mirrored=asked
    ).predict([halves(RED, BLUE), RED, halves(BLUE, RED)])
    np.testing.assert_allclose(ages, [40, 20, 40] if both else [20, 20, 60], atol=1e-4)
    np.testing.assert_allclose(male_probability, [0.5, 0, 0.5] if both else [0, 0, 1], atol=1e-4)


@pytest.mark.parametrize("head", ["age", "gender"])
def test_a_head_that_was_not_trained_has_no_output(head):
    metrics = {"val_pred_age_mae": 0.0, "val_pred_gender_accuracy": 0.9}
    one = estimator(heads=(head,), metrics=metrics)
    ages, male_probability = one.predict([RED, BLUE])
    assert np.isnan(ages).all() == (head == "gender")
    assert np.isnan(male_probability).all() == (head == "age")
    assert f", {head} only; {'age off' if head == 'age' else 'gender right'}" in one.describe()
    assert ("gender right" in one.describe()) == (head == "gender")


def test_the_average_is_said():
    assert ", averaged over mirror images" in estimator(mirrored=True).describe()
    assert "mirror" not in estimator().describe()


def test_faces_are_resized_as_the_weights_want():
    """Every second pair of columns is red; bilinear interpolation looks at the middle two of four only."""
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, 1::4, 0] = stripes[:, 2::4, 0] = 250
    assert (estimator().prepare([stripes])[..., 0] == 125).all()
    assert (estimator(resize="bilinear").prepare([stripes])[..., 0] == 250).all()


def test_weights_of_bgr_see_channels_swapped():
    ages, _ = estimator(colour="BGR").predict([RED, BLUE])
    np.testing.assert_allclose(ages, [60, 20], atol=1e-4)


def test_weights_with_male_first():
    _, male_probability = estimator(gender_order=("male", "female")).predict([RED, BLUE])
    np.testing.assert_allclose(male_probability, [1, 0], atol=1e-4)


def test_probability_and_expected_age_by_hand():
    """Grey: red = blue, so both genders 0.5, and the ages 20 and 60 share the softmax equally."""
    ages, male_probability = estimator().predict([face(250, 0, 250)])
    assert male_probability[0] == pytest.approx(0.5)
    assert ages[0] == pytest.approx(40, abs=1e-3)


def test_no_faces():
    ages, male_probability = estimator().predict([])
    assert ages.shape == male_probability.shape == (0,)


def test_faces_are_not_written_into():
    image = RED.copy()
    image.flags.writeable = False
    estimator().predict([image])


@pytest.mark.parametrize(
    ("image", "received"),
    [
        (RED[..., 0], r"uint8 \(9, 7\)"),
        (RED / 255, r"float64 \(9, 7, 3\)"),
        (np.zeros((9, 7, 4), np.uint8), r"uint8 \(9, 7, 4\)"),
        (RED[:0], r"\(0, 7, 3\)"),
        ("face.jpg", "str"),
    ],
)
def test_what_is_no_image_is_refused(image, received):
    for ask in (lambda: estimator().predict([RED, image]), lambda: estimator().predict_image(image)):
        with pytest.raises(ValueError, match=rf"image must .*, got .*{received}"):
            ask()


def test_views_of_all_kinds_are_images():
    turned = np.stack([RED[..., 2], RED[..., 1], RED[..., 0]], axis=-1)[..., ::-1]
    ages, _ = estimator().predict([turned, BLUE[::2, ::-1]])
    np.testing.assert_allclose(ages, [20, 60], atol=1e-4)


class TwoFaces:
    """Finds a large face on the left and a small one on the right of every image."""

    def detect(self, image):
        return [Face((10, 10, 20, 30), 1.0), Face((60, 10, 64, 14), 1.0)]


def test_whole_image():
    """With margin 0.5 the first face reaches from 5 to 25 and 0 to 40, the second from 58 to 66 and 8 to 16."""
    image = face(0, 0, 0, 50, 80)
    image[:40, 5:25] = RED[0, 0]
    image[8:16, 58:66] = BLUE[0, 0]
    first, second = estimator(margin=0.5).predict_image(image, TwoFaces())
    assert isinstance(first, Prediction)
    assert (first.box, second.box) == ((10, 10, 20, 30), (60, 10, 64, 14))
    assert (first.age, second.age) == (pytest.approx(20, abs=1e-3), pytest.approx(60, abs=1e-3))
    assert (first.gender, second.gender) == ("F", "M")
    assert second.male_probability == pytest.approx(1, abs=1e-4)


def test_whole_photograph_with_the_real_detector():
    (found,) = estimator().predict_image(read_image(ROOT / "samples" / "grace_hopper.jpg"))
    assert 150 < found.box[0] < found.box[2] < 390
    assert estimator().predict_image(face(9, 9, 9, 50, 50)) == []


def python_blocks(page: str) -> list[str]:
    """The Python of a page's section for library users."""
    section = (ROOT / page).read_text(encoding="utf-8").split("## From Python")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_documentation_shows_what_works():
    (short,) = python_blocks("README.md")
    image, faces = python_blocks("docs/demo.md")
    script = (
        f"{short}\ndel face\n{image}\nassert face.gender in 'FM'\n"
        f"{faces}\nassert ages.shape == male_probability.shape == (1,)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"\(\d+, \d+, \d+, \d+\) \d+ years, [FM], \d.\d\d male", first)
    assert first == second


def test_batches_do_not_change_the_answer(tiny_network):
    model = get_model("MobileNet", 32)
    faces = list(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8))
    info = WeightsInfo("MobileNet", 32, 0.0)
    one = AgeGenderEstimator(compile_predict(model), info, batch_size=1).predict(faces)
    all_at_once = AgeGenderEstimator(compile_predict(model), info, batch_size=5).predict(faces)
    np.testing.assert_allclose(one, all_at_once, rtol=1e-4)
    genders, _ = model.predict(np.stack(faces), verbose=0)
    np.testing.assert_allclose(one[1], genders[:, 1], rtol=1e-4)


def test_load_says_which_model_speaks_and_its_error(tiny_network, tmp_path):
    metrics = {"val_pred_age_mae": 6.54321, "val_pred_gender_accuracy": 0.9}
    info = WeightsInfo("MobileNet", 32, 0.1, data="utkface", metrics=metrics)
    save_weights(get_model("MobileNet", 32), tmp_path / "a.hdf5", info)
    loaded = AgeGenderEstimator.load(tmp_path / "a.hdf5")
    assert loaded.margin == 0.1
    line = loaded.describe()
    assert line.startswith("a.hdf5: MobileNet, 32 pixels, margin 0.1, trained on utkface; ")
    assert "age off by 6.54 years on average, gender right in 90.0% of its validation images" in line
    assert "\n" not in line


def test_unknown_error_is_said():
    assert estimator().describe().endswith("its error is not known")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="none.hdf5"):
        AgeGenderEstimator.load(tmp_path / "none.hdf5")


def test_without_bundled_weights_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr("src.models.weights.published.ROOT", tmp_path)
    with pytest.raises(UserError, match="bundled"):
        AgeGenderEstimator.load()


def test_padding_of_jax_batches():
    from src.models.backend import _pad_to_power_of_two

    shapes = [len(_pad_to_power_of_two(np.ones((n, 2)))) for n in (1, 2, 3, 5, 8)]
    assert shapes == [1, 2, 4, 8, 8]
    assert _pad_to_power_of_two(np.ones((3, 2))).sum() == 6
