"""Draw boxes and labels on images."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from src.images import Box, shared_area
from src.inference import Prediction

FONT = cv2.FONT_HERSHEY_DUPLEX
WHITE = (255, 255, 255)
DARK = (40, 40, 40)
COLOURS = {"F": (190, 20, 110), "M": (15, 90, 200), "": DARK}
"""Colour of boxes and labels by gender, RGB; dark enough for white text."""
MIN_TEXT_HEIGHT = 12
"""Minimum height of a label's text, pixels, where the image has room for it."""


def draw_predictions(image: np.ndarray, predictions: Sequence[Prediction]) -> np.ndarray:
    """Draw a box and a label such as `34 F` for every face.

    Text and lines grow with the image and with the face; labels stay inside the image and, where there is room,
    off each other and off other faces.

    Args:
        image: `(height, width, 3)` uint8 RGB; it is not changed.

    Returns:
        A drawn copy of the same shape.
    """
    drawn = image.copy()
    line = max(round(max(image.shape[:2]) / 400), 1)
    for prediction in predictions:
        left, top, right, bottom = prediction.box
        for colour, width in ((WHITE, line + 2 * max(line // 3, 1)), (COLOURS[prediction.gender], line)):
            cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), colour, width)
    taken = [prediction.box for prediction in predictions]
    for prediction in predictions:
        text = label_text(prediction)
        scale, size = _fit_text(text, _text_height(image, prediction.box), image)
        place = _label_place(prediction.box, size, image, taken)
        _draw_text(drawn, text, scale, place, COLOURS[prediction.gender])
        taken.append(place)
    return drawn


def draw_status(image: np.ndarray, text: str) -> np.ndarray:
    """Write a small line of text into the lower left corner of a copy of `image`."""
    drawn = image.copy()
    height = image.shape[0]
    scale, (text_width, text_height) = _fit_text(text, max(0.02 * max(image.shape[:2]), MIN_TEXT_HEIGHT), image)
    _draw_text(drawn, text, scale, (0, height - text_height, text_width, height), DARK)
    return drawn


def label_text(prediction: Prediction) -> str:
    """Return the text of a label: what is known of age in whole years and gender.

    ASCII only, since OpenCV 4 draws nothing else.
    """
    age = "" if math.isnan(prediction.age) else str(round(prediction.age))
    return f"{age} {prediction.gender}".strip()


def _text_height(image: np.ndarray, box: Box) -> float:
    longest = max(image.shape[:2])
    return max(min(0.15 * (box[3] - box[1]), 0.06 * longest), 0.025 * longest, MIN_TEXT_HEIGHT)


def _fit_text(text: str, height: float, image: np.ndarray) -> tuple[float, tuple[int, int]]:
    """Return the font scale for this height, less if the image is too small; width and height of the background."""
    (full_width, full_height), _ = cv2.getTextSize(text, FONT, 1, 1)
    scale = min(height / full_height, image.shape[0] / (1.6 * full_height), image.shape[1] / (full_width + full_height))
    return scale, (int((full_width + full_height) * scale), int(1.6 * full_height * scale))


def _label_place(box: Box, size: tuple[int, int], image: np.ndarray, taken: Sequence[Box]) -> Box:
    """Choose the place above, below or inside a face that covers the least of what is drawn already."""
    width, height = size
    left = min(max(box[0], 0), image.shape[1] - width)
    places = []
    for top in (box[1] - height, box[3], box[1], box[3] - height):
        top = min(max(top, 0), image.shape[0] - height)
        places.append((left, top, left + width, top + height))
    return min(places, key=lambda place: sum(shared_area(place, other) for other in taken))


def _draw_text(drawn: np.ndarray, text: str, scale: float, place: Box, ground: tuple[int, int, int]) -> None:
    left, top, right, bottom = place
    cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), ground, cv2.FILLED)
    (width, height), _ = cv2.getTextSize(text, FONT, scale, 1)
    corner = left + (right - left - width) // 2, top + (bottom - top + height) // 2
    cv2.putText(drawn, text, corner, FONT, scale, WHITE, max(round(1.5 * scale), 1), cv2.LINE_AA)
