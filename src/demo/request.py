"""What is asked of the demo, checked before anything slow is imported, so that an invalid request fails at once."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

from src.cli import THRESHOLD, UserError, check_margin, check_threshold
from src.images import FoundImages, find_images
from src.inference import check_weight_file

MIN_SIDE = 80
SCREENS = {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"}
"""Variables of the environment, one of which every program with windows needs on Linux."""
NO_SCREEN = (
    "the demo's window requires a screen, found none; use --output_dir FOLDER to write files instead "
    "(or install opencv-python in place of its headless variant)"
)


@dataclass(frozen=True)
class Request:
    """The options of `demo.py`; its `--help` describes them."""

    image_dir: Path | None = None
    camera: str = "0"
    output_dir: Path | None = None
    weight_file: str | None = None
    margin: float | None = None
    threshold: float = THRESHOLD
    upsample: int | str = "auto"
    max_side: int | str = "auto"
    profiles: bool = True
    skip_existing: bool = False
    with_json: bool = False


def run_demo(request: Request) -> None:
    """Run the demo.

    Raises:
        UserError: The request is invalid.
        JobError: The job failed.
        OSError: Results cannot be written.
    """
    found = check_request(request)
    from src.demo.run import run_request

    run_request(request, found)


def check_request(request: Request) -> FoundImages | None:
    """Check everything that needs neither numpy nor OpenCV.

    Returns:
        The images of `image_dir`.

    Raises:
        UserError: The request is invalid.
    """
    check_options(request)
    if request.weight_file is not None:
        check_weight_file(request.weight_file)
    found = None if request.image_dir is None else find_input(request.image_dir, request.output_dir)
    if found is None:
        describe_source(request.camera)
    if request.output_dir is None:
        check_display()
    elif request.output_dir.exists() and not request.output_dir.is_dir():
        raise UserError(f"--output_dir must be a folder, got the file {request.output_dir}")
    return found


def check_options(request: Request) -> None:
    """Raise `UserError` for options that are invalid, or that need an `output_dir` without one."""
    if request.margin is not None:
        check_margin(request.margin)
    if request.output_dir is None and (request.skip_existing or request.with_json):
        raise UserError("--skip_existing and --json require --output_dir FOLDER")
    check_threshold(request.threshold)
    if isinstance(request.max_side, int) and request.max_side < MIN_SIDE:
        raise UserError(f"--max_side must be >= {MIN_SIDE}, got {request.max_side}")


def find_input(image_dir: Path, output_dir: Path | None = None) -> FoundImages:
    """Find the images below `image_dir`, or the one photo, without those below an `output_dir` inside it.

    Raises:
        UserError: There is no such folder, it holds no image, or results would replace the images.
    """
    if not image_dir.exists():
        raise UserError(f"--image_dir must be a folder of images or an image, got {image_dir}, which does not exist")
    folder = image_dir if image_dir.is_dir() else image_dir.parent
    if output_dir and os.path.realpath(output_dir) == os.path.realpath(folder):
        raise UserError(f"--output_dir must differ from --image_dir, got {output_dir}: images would be replaced")
    found = find_images(image_dir, exclude=output_dir)
    if not found.paths:
        reasons = [*found.notes(), *(f"{name}: {reason}" for name, reason in found.unreadable.items())]
        raise UserError(f"--image_dir {image_dir} holds no image" + f" ({'; '.join(reasons)})" * bool(reasons))
    return found


def describe_source(camera: str) -> tuple[str, str, Path | None]:
    """Return a readable name, an index or address to open, and the path of a video file, of a `--camera` value.

    Raises:
        UserError: It is neither a camera nor an address nor an existing file.
    """
    if camera.isdecimal():
        return f"camera {int(camera)}", str(int(camera)), None
    if sys.platform == "linux" and (device := re.fullmatch(r"/dev/video(\d+)", os.path.realpath(camera))):
        return describe_source(device[1])
    path = Path(url2pathname(_split_address(camera).path) if camera.startswith("file://") else camera)
    if path.is_file():
        address = f"file:{os.path.realpath(path)}"  # with a scheme, so that no name is taken for an address
        return path.name, address, path
    if "://" in camera and not camera.startswith("file://"):
        parts = _split_address(camera)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}", camera, None  # without a password
    problem = "is no file" if path.exists() else "does not exist"
    raise UserError(
        f"--camera must be a camera's index or device, an address or a video file, got {camera}, which {problem}"
    )


def _split_address(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:  # its text may hold a password
        raise UserError(
            "--camera must be a valid address, got one that cannot be parsed; percent-encode special characters in its"
            " password, such as [ as %5B"
        ) from error


def check_display() -> None:
    """Check in another process that a window can be opened, since Qt ends a process that fails to.

    Raises:
        UserError: There is no screen, or OpenCV was built without windows.
    """
    if sys.platform == "linux" and not SCREENS & os.environ.keys():
        raise UserError(NO_SCREEN)
    try_window = "import cv2; cv2.namedWindow('try'); cv2.waitKey(1)"
    try:
        subprocess.run([sys.executable, "-c", try_window], capture_output=True, timeout=60, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise UserError(NO_SCREEN) from error
