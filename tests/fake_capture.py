"""Stands in for `cv2.VideoCapture`: gives frames, fails, and comes back, as it is told."""

import cv2
import numpy as np


class FakeCapture:
    """Gives grey frames of the shades in `shades`; then every read fails."""

    def __init__(self, shades, rate=30.0, count=0.0):
        self.shades = list(shades)
        self.properties = {cv2.CAP_PROP_FPS: rate, cv2.CAP_PROP_FRAME_COUNT: count}
        self.released = False

    def read(self):
        if not self.shades:
            return False, None
        return True, np.full((48, 64, 3), self.shades.pop(0), np.uint8)

    def get(self, name):
        return self.properties.get(name, 0.0)

    def release(self):
        self.released = True


class FakeCamera:
    """Opens one capture after the other; where there is none left, or None, it opens one that gives nothing."""

    def __init__(self, *captures):
        self.captures = list(captures)
        self.opened = 0

    def __call__(self, camera):
        self.opened += 1
        return (self.captures.pop(0) if self.captures else None) or FakeCapture([])
