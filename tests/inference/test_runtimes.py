"""ONNX Runtime and Keras behind one function; what is imported for which file."""

import dataclasses
import subprocess
import sys
import threading

import numpy as np
import pytest
from onnx_networks import INFO, network, write

from src import models
from src.cli import ROOT, UserError
from src.images import crop_box, list_images, read_image
from src.images.detector import FaceDetector
from src.inference import AgeGenderEstimator
from src.inference.runtimes import PART, InBackground, Parts, onnx_runtime


def test_an_onnx_file_is_a_weight_file(tmp_path):
    """The heads of `network` see the mean colour; black gives all classes the same share."""
    estimator = AgeGenderEstimator.load(write(network(), tmp_path))
    ages, male_probability = estimator.predict([np.zeros((9, 7, 3), np.uint8)] * 3)
    np.testing.assert_allclose(ages, [50] * 3, rtol=1e-5)
    np.testing.assert_allclose(male_probability, [0.5] * 3)
    assert estimator.info == INFO
    assert estimator.describe() == (
        "a.onnx: MobileNetV2, 16 pixels, margin 0.25, trained on noise; age off by 5.50 years on average of its "
        "validation images"
    )


def test_what_the_description_says_is_done(tmp_path):
    """Batches of faces and mirror images have twice the rows."""
    estimator = AgeGenderEstimator.load(write(network(info=dataclasses.replace(INFO, mirrored=True)), tmp_path))
    rows = []
    run = estimator._run_network
    estimator._run_network = lambda batch: (rows.append(len(batch)), run(batch))[1]
    estimator.predict([np.zeros((9, 7, 3), np.uint8)] * 3)
    assert rows == [6]


@pytest.mark.parametrize("threads", [0, 1])
def test_a_large_batch_gives_what_its_faces_give_alone(threads, tmp_path):
    run, _ = onnx_runtime(write(network(), tmp_path), threads)
    batch = np.random.default_rng(0).integers(0, 256, (4 * PART + 1, 16, 16, 3), np.uint8)
    alone = [run(batch[row : row + 1]) for row in range(len(batch))]
    for output, outputs in zip(run(batch), zip(*alone, strict=True), strict=True):
        assert np.ptp(outputs, 0).max() > 1e-4  # the faces differ
        np.testing.assert_allclose(output, np.concatenate(outputs), atol=1e-6)


def test_parts_are_small_and_stay_in_order():
    sizes, opened = [], []

    def open_one():
        opened.append(1)
        return lambda batch: (sizes.append(len(batch)), (batch, 2 * batch))[1]

    parts, batch = Parts(open_one, threads=2), np.arange(2 * PART + 1)
    for _ in range(2):
        first, second = parts(batch)
        np.testing.assert_array_equal(first, batch)
        np.testing.assert_array_equal(second, 2 * batch)
    assert max(sizes) <= PART
    assert opened == [1]


def test_published_names_that_are_onnx_are_checked_first(tmp_path):
    path = write(network(info=None), tmp_path)
    with pytest.raises(UserError, match=r"export\.py wrote"):
        AgeGenderEstimator.load(path)


@pytest.mark.parametrize("use", [models.load_model, lambda path: models.load_weights_into(None, path)])
def test_onnx_files_cannot_be_trained_on(use, tmp_path):
    with pytest.raises(UserError, match=r"must be a \.hdf5, which can be trained on"):
        use(write(network(), tmp_path))


def test_identify(tmp_path):
    assert models.identify(write(network(), tmp_path)) == INFO


def test_onnx_needs_no_other_library(tmp_path):
    path = write(network(), tmp_path)
    script = f"""
import sys
import numpy as np
from src.inference import AgeGenderEstimator
for file in ({str(path)!r}, None):
    AgeGenderEstimator.load(file).predict([np.zeros((9, 9, 3), np.uint8)])
print(sorted({{"keras", "tensorflow", "h5py", "onnx", "pandas", "google.protobuf"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_bundled_files_are_alike():
    """The `.onnx` file is made of the `.hdf5` file, with 8-bit integers: `recipes/bundled_model.sh`."""
    onnx_file, hdf5_file = models.bundled(), models.bundled(".hdf5")
    assert (onnx_file.suffix, hdf5_file.suffix, onnx_file.stem) == (".onnx", ".hdf5", hdf5_file.stem)
    estimators = [AgeGenderEstimator.load(file) for file in (onnx_file, hdf5_file)]
    faces = []
    for path in list_images(ROOT / "samples"):
        image = read_image(path)
        found = FaceDetector().detect(image)
        faces += [crop_box(image, face.box, margin) for face in found for margin in (0, 0.1, 0.3)]
    faces += list(np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), np.uint8))
    (ages, male), (expected_ages, expected_male) = (estimator.predict(faces) for estimator in estimators)
    assert np.ptp(expected_ages) > 20, "the faces must tell networks apart"
    assert np.abs(ages - expected_ages).mean() < 0.5
    np.testing.assert_allclose(ages, expected_ages, atol=3)
    np.testing.assert_allclose(male, expected_male, atol=0.15)
    same = dataclasses.replace(estimators[1].info, colour="RGB", gender_order=("female", "male"), scaled=True)
    assert estimators[0].info == same


def test_a_network_in_the_background_is_waited_for():
    ready = threading.Event()

    def make():
        ready.wait(10)
        return lambda batch: batch + 1

    run = InBackground(make)
    threading.Timer(0.1, ready.set).start()
    assert run(1) == 2
    run.wait()


def test_what_goes_wrong_in_the_background_is_raised():
    def fail():
        raise UserError("another network")

    run = InBackground(fail)
    for ask in (run.wait, lambda: run(1)):
        with pytest.raises(UserError, match="another network"):
            ask()
