import threading

import numpy as np
import pytest
from fake_estimator import FakeEstimator, face

from src.images.detector import Face
from src.images.io import ImageError
from src.inference import predictor as pipeline
from src.inference.predictor import Prediction, Predictor


class FakeDetector:
    """Finds a face in every 16 x 16 square whose first pixel has blue 9."""

    def detect(self, image):
        boxes = [(x, 0, x + 16, 16) for x in range(0, image.shape[1], 16) if image[0, x, 2] == 9]
        return [Face(box, 1.0) for box in boxes]


def draw(*ages):
    """Squares side by side, a face for every age, nothing for None."""
    squares = []
    for age in ages:
        square = face(age or 0, green=age or 0)
        square[..., 2] = 0 if age is None else 9
        squares.append(square)
    return np.hstack(squares)


def predictor(**options):
    return Predictor(FakeDetector(), FakeEstimator(**options), margin=0.0)


def test_one_image():
    assert predictor().predict(draw(30, None, 51)) == [
        Prediction((0, 0, 16, 16), 30.0, 30 / 255),
        Prediction((32, 0, 48, 16), 51.0, 0.2),
    ]
    assert predictor().predict(draw(None)) == []


def test_known_boxes_are_estimated_without_a_search():
    one = Predictor(None, FakeEstimator(), margin=0.0)
    assert one.estimate(draw(30, None, 51), [(32, 0, 48, 16)]) == [Prediction((32, 0, 48, 16), 51.0, 0.2)]
    assert one.estimate(draw(30), []) == []


def test_margin_decides_what_the_estimator_sees():
    image = np.hstack([draw(40), draw(None), draw(None)])
    wide = Predictor(FakeDetector(), FakeEstimator(), margin=1.0).predict(image)
    assert [prediction.age for prediction in wide] == [40.0]  # the left half of (0, 0, 32, 16)
    assert wide[0].male_probability == pytest.approx(20 / 255)  # the whole of it


def read(item):
    if isinstance(item, str):
        raise ImageError(item)
    return item


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_images_come_back_in_order_with_their_own_faces(workers, batch_size):
    ages = [[], [1], [2, 3], [None], [4, None, 5], [6], [7, 8, 9], [10]] * 3
    items = [(str(number), draw(*own) if own else "broken") for number, own in enumerate(ages)]
    images = list(predictor().predict_images(items, read, workers, batch_size))
    assert [labelled.name for labelled in images] == [name for name, _ in items]
    found = [[prediction.age for prediction in labelled.predictions] for labelled in images]
    assert found == [[age for age in own if age is not None] for own in ages]
    assert [labelled.error for labelled in images] == ["" if own else "broken" for own in ages]
    assert [labelled.image is None for labelled in images] == [not own for own in ages]


def test_faces_of_many_images_share_a_call_of_the_estimator():
    one = predictor()
    list(one.predict_images([(str(number), draw(number + 1)) for number in range(10)], read, 2, batch_size=4))
    assert one.estimator.calls == [4, 4, 2]


def test_images_without_faces_cost_no_call():
    one = predictor()
    assert len(list(one.predict_images([("a", draw(None))] * 5, read))) == 5
    assert one.estimator.calls == []
    assert list(one.predict_images([], read)) == []


def count_taken(batch_size, workers=2):
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield str(number), draw(number % 100 + 1)

    images = predictor().predict_images(items(), read, workers, batch_size)
    next(images)
    images.close()
    return len(taken)


def test_only_so_many_images_are_read_ahead(monkeypatch):
    assert count_taken(batch_size=8) <= 8 + pipeline.AHEAD * 2
    monkeypatch.setattr(pipeline, "MEMORY", 1)  # all images are large now
    assert count_taken(batch_size=8) <= 1 + 2 * 2


def test_frames_that_wait_for_a_thread_count_as_memory(monkeypatch):
    frames = [draw(number) for number in range(1, 60)]
    monkeypatch.setattr(pipeline, "MEMORY", 5 * frames[0].nbytes)
    first_seen, pulled = threading.Event(), []

    class SlowDetector(FakeDetector):
        def detect(self, image):
            if image is not frames[0]:
                assert first_seen.wait(60)
            return super().detect(image)

    items = ((str(number), pulled.append(number) or frame) for number, frame in enumerate(frames))
    images = Predictor(SlowDetector(), FakeEstimator(), margin=0.0).predict_images(items, read, 2, batch_size=1)
    next(images)
    assert len(pulled) == 6  # the first, and five that wait for the detector
    first_seen.set()
    assert len(list(images)) == 58


def test_leaving_early_stops_the_threads():
    before = threading.active_count()
    count_taken(batch_size=2)
    assert threading.active_count() == before


@pytest.mark.parametrize("fault", [OSError, KeyboardInterrupt])
def test_a_fault_of_the_source_comes_after_the_images_before_it(fault):
    def items():
        yield "a", draw(1)
        yield "b", draw(2)
        raise fault

    images = predictor().predict_images(items(), read)
    assert [next(images).name, next(images).name] == ["a", "b"]
    with pytest.raises(fault):
        next(images)


def test_a_defect_in_a_thread_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        list(predictor().predict_images([("a", draw(1))], lambda item: 1 / 0))
