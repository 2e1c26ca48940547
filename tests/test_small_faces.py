"""The recipe of the filter that hints at small faces."""

import dlib
import numpy as np
import pytest

from recipes.small_faces import join, read_backgrounds
from src.cli import UserError


def test_images_side_by_side_keep_their_boxes():
    images = [np.full(shape, value, np.uint8) for value, shape in ((1, (4, 3)), (2, (2, 5)), (3, (3, 3)))]
    boxes = [dlib.rectangle(0, 1, 2, 3), dlib.rectangle(1, 0, 4, 1), dlib.rectangle(0, 0, 2, 2)]
    (first, moved), (second, alone) = join(images, boxes, count=2)
    assert first.tolist() == 4 * [[1, 1, 1, 2, 2, 2, 2, 2]]
    assert moved == [dlib.rectangle(0, 1, 2, 3), dlib.rectangle(4, 0, 7, 1)]
    assert (second.shape, alone) == ((3, 3), [dlib.rectangle(0, 0, 2, 2)])


def test_a_folder_without_backgrounds_is_an_error(tmp_path):
    with pytest.raises(UserError, match="--backgrounds must be a folder of images without faces, got none in"):
        read_backgrounds(tmp_path / "missing")
