"""Stands in for cameras and videos: gives frames, fails, and comes back, as it is told."""

from collections import deque
from fractions import Fraction

import cv2
import numpy as np

from src.demo.sources import CameraReader


class FakeCapture:
    """Gives grey frames of the shades in `shades`; then every read fails."""

    def __init__(self, shades, rate=30.0):
        self.shades = list(shades)
        self.properties = {cv2.CAP_PROP_FPS: rate}
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

    def __call__(self, address, with_sound=False):
        self.opened += 1
        return CameraReader((self.captures.pop(0) if self.captures else None) or FakeCapture([]))


class FakeVideo:
    """Opens a video file of grey frames, `rate` per second."""

    finite, tracks, sound, pixel_aspect = True, [], deque(), None

    def __init__(self, shades, rate, damage=""):
        self.shades, self.rate, self.damage = list(shades), Fraction(rate), damage
        self.time_base, self.count, self.frames_read = 1 / self.rate, len(self.shades), len(self.shades)

    def __call__(self, address, with_sound=False):
        return self

    def frames(self):
        for number, shade in enumerate(self.shades):
            yield float(number / self.rate), np.full((48, 64, 3), shade, np.uint8)

    def close(self):
        pass
