"""An estimator whose predictions can be read off the images."""

from types import SimpleNamespace

import numpy as np


class FakeEstimator:
    """The age is the mean red of a face's left half, the probability of being male its mean green / 255."""

    def __init__(self, margin=0.4, img_size=8, batch_size=4):
        self.info = SimpleNamespace(margin=margin, img_size=img_size, resize="area", heads=("gender", "age"))
        self.source = None
        self.batch_size = batch_size
        self.calls = []

    def wait(self):
        """It is loaded at once."""

    def describe(self):
        return "fake: 8 pixels; its error is not known"

    def predict(self, faces):
        self.calls.append(len(faces))
        ages = [face[:, : face.shape[1] // 2, 0].mean() for face in faces]
        return np.array(ages), np.array([face[..., 1].mean() / 255 for face in faces])


def face(age, green=255, size=16, right=None):
    """An image that `FakeEstimator` takes for this age; `right` is the red of its right half."""
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0], image[..., 1] = age, green
    if right is not None:
        image[:, size // 2 :, 0] = right
    return image
