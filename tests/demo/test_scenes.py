import cv2
import numpy as np
import pytest

from src.cli import ROOT
from src.demo.scenes import is_cut, make_thumbnail
from src.images.io import read_image


def portrait(name):
    """A sample in a frame of 320 x 240, the face amid it."""
    image = read_image(ROOT / "samples" / name)
    image = cv2.resize(image, (320, 320 * image.shape[0] // image.shape[1]), interpolation=cv2.INTER_AREA)
    return image[:240]


@pytest.fixture
def astronaut():
    return portrait("astronaut.png")


@pytest.fixture
def hopper():
    return portrait("grace_hopper.jpg")


def differ(before, after):
    return is_cut(make_thumbnail(before), make_thumbnail(after))


def test_cut_between_two_portraits(astronaut, hopper):
    assert differ(astronaut, hopper)
    assert differ(hopper, astronaut)
    assert differ(astronaut, np.zeros_like(astronaut))


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_pan_is_no_cut(astronaut, share):
    step = round(share * astronaut.shape[1])
    assert not differ(astronaut[:, step:], astronaut[:, :-step])
    assert not differ(astronaut[:-step, :-step], astronaut[step:, step:])


@pytest.mark.parametrize("factor", [0.8, 1.2, 1.5])
def test_step_of_the_exposure_is_no_cut(astronaut, hopper, factor):
    for image in (astronaut, hopper):
        assert not differ(image, cv2.convertScaleAbs(image, alpha=factor))


def test_turn_of_the_head_is_no_cut(astronaut):
    """The middle third of the frame is mirrored."""
    turned = astronaut.copy()
    turned[:, 107:213] = turned[:, 107:213][:, ::-1]
    assert not differ(astronaut, turned)


def test_frames_of_one_shade_are_no_error():
    black = np.zeros((48, 64, 3), np.uint8)
    assert not differ(black, black)
    assert not differ(black, black + 10)
