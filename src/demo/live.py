"""The demo in a window: capture, three steps of following faces, and display in threads; the newest frame wins."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Generic, TypeVar

import numpy as np

from src.cli import JobError
from src.demo.drawing import draw_predictions, draw_status
from src.demo.following import Captured, Faces, Labels
from src.demo.sources import Source
from src.demo.window import Window
from src.images import write_image
from src.inference import Predictor

T = TypeVar("T")

REST = 3
"""Pause after a full search for new faces, as a multiple of the time that it took; no pause while a face is missing."""
PATIENCE = 0.5
"""Share of the time between two frames for which a frame waits for its own boxes; after that it is shown with older
ones."""


class Slot(Generic[T]):
    """Hold the newest item of a thread for any number of readers; older items are dropped."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._number = 0
        self.ended = False

    def put(self, item: T) -> None:
        with self._changed:
            self._item, self._number = item, self._number + 1
            self._changed.notify_all()

    def end(self) -> None:
        """Tell the readers that no more items will come."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def newer(self, than: int, seconds: float) -> tuple[int, T | None]:
        """Return the newest item and its number once the number is above `than`; `(than, None)` if none comes."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > than or self.ended, seconds)
            return (self._number, self._item) if self._number > than else (than, None)

    def wait_for(self, wanted: Callable[[T], bool], seconds: float) -> T | None:
        """Return the newest item, as soon as it is one that is wanted or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or (self._item is not None and wanted(self._item)), seconds)
            return self._item


@dataclass
class LiveSummary:
    """What was shown, all but `shown` of the last frames and in seconds.

    Attributes:
        shown: Number of frames.
        times: When a frame was shown.
        delays: How long after its capture a frame was shown.
        label_ages: How much older than the shown frame the one is of which the shown ages were estimated.
        box_ages: The same for the one in which the boxes were found.
    """

    shown: int = 0
    times: deque = field(default_factory=lambda: deque(maxlen=500))
    delays: deque = field(default_factory=lambda: deque(maxlen=500))
    label_ages: deque = field(default_factory=lambda: deque(maxlen=500))
    box_ages: deque = field(default_factory=lambda: deque(maxlen=500))

    @property
    def rate(self) -> float:
        """Frames per second over the last ones shown."""
        return (len(self.times) - 1) / (self.times[-1] - self.times[0]) if len(self.times) > 1 else 0.0

    def line(self) -> str:
        labels = f", labels {median(self.label_ages) * 1000:.0f} ms older than their frame" if self.label_ages else ""
        return f"{self.shown} frames shown, {self.rate:.0f} per second{labels}"


class Live:
    """Run the threads for `run_live`: one captures, the others follow faces, search for new ones and estimate them."""

    def __init__(self, source: Source, predictor: Predictor):
        self.frames: Slot[Captured] = Slot()
        self.labels: Slot[Labels] = Slot()
        self.fault: BaseException | None = None
        self.paused = False
        self._source = source
        self._faces = Faces(predictor)
        self._missing = threading.Event()
        self._publishing = threading.Lock()
        jobs = (self._capture, self._follow, self._search, self._estimate)
        self._threads = [threading.Thread(target=self._guard, args=(job,)) for job in jobs]

    def __enter__(self) -> "Live":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()
        self._end()
        for thread in self._threads:
            thread.join()

    def _guard(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self.fault = error
        finally:
            self._end()

    def _end(self) -> None:
        self.frames.end()
        self.labels.end()
        self._missing.set()

    def _capture(self) -> None:
        start, last = None, -math.inf
        for frame in self._source.frames():
            if not self._source.live:  # a file is played at its own pace, and waits
                start = time.monotonic() - frame.time if start is None else start
                start = max(start, time.monotonic() - frame.time - 1)
                if self._source.wait(start + frame.time - time.monotonic()):
                    return
                while self.paused and not self.frames.ended:
                    time.sleep(0.02)
            if self.frames.ended:
                return
            now = time.monotonic()
            self.frames.put(Captured(frame.image, now, min(now - last, 1.0)))
            last = now
        if self._source.input.damage:
            raise JobError(self._source.describe_damage())

    def _new_frames(self) -> Iterator[Captured]:
        number = 0
        while not self.frames.ended:
            number, frame = self.frames.newer(number, 1.0)
            if frame is not None:
                yield frame

    def _follow(self) -> None:
        for frame in self._new_frames():
            if not self._faces.follow(frame):
                self._missing.set()
            self._publish()

    def _search(self) -> None:
        for frame in self._new_frames():
            start = time.monotonic()
            self._faces.search(frame)
            self._missing.wait(REST * (time.monotonic() - start))
            self._missing.clear()

    def _estimate(self) -> None:
        number = 0
        while not self.labels.ended:
            number, _ = self.labels.newer(number, 1.0)
            while not self.labels.ended and self._faces.estimate():
                self._publish()

    def _publish(self) -> None:
        with self._publishing:  # so that no thread replaces newer labels by older ones
            self.labels.put(self._faces.labels())


def run_live(
    source: Source,
    window: Window,
    predictor: Predictor,
    model_name: str,
    save_dir: Path = Path(),
) -> LiveSummary:
    """Show a camera or video with labels until Esc or q is pressed, the window is closed, or the video ends.

    Keys: space pauses, s saves the shown image into `save_dir`.

    Raises:
        JobError: The camera stopped and did not come back, or the video is damaged.
    """
    summary = LiveSummary()
    shown = None
    with Live(source, predictor) as live:
        number = 0
        while True:
            newest, frame = live.frames.newer(number, 0.03)
            if frame is not None:
                number = newest
            elif live.frames.ended:
                break
            if frame is not None and not live.paused:
                shown = _show(window, frame, live, summary, model_name)
            key = window.key(1)
            if key == "quit":
                break
            if key == " ":
                live.paused = not live.paused
                if live.paused and shown is not None:
                    window.show(draw_status(shown, "paused - space resumes"))
            elif key in ("s", "S") and shown is not None:
                save_image(shown, save_dir)
    if live.fault:
        raise live.fault
    return summary


def _show(window: Window, frame: Captured, live: Live, summary: LiveSummary, model_name: str) -> np.ndarray:
    """Draw the frame's labels on it, or older ones, and show it; return what was shown, without the line of status."""
    until = frame.time + PATIENCE * frame.interval
    labels = live.labels.wait_for(lambda labels: labels.time >= frame.time, max(until - time.monotonic(), 0))
    predictions = labels.predictions if labels else []
    drawn = draw_predictions(frame.image, predictions)
    summary.shown += 1
    if labels and predictions:
        summary.label_ages.append(frame.time - labels.estimated)
        summary.box_ages.append(frame.time - labels.time)
    window.show(draw_status(drawn, f"{summary.rate:.0f} fps  {model_name}"))
    summary.times.append(time.monotonic())
    summary.delays.append(summary.times[-1] - frame.time)
    return drawn


def save_image(image: np.ndarray, folder: Path) -> None:
    """Save an image under the time of day and print its name, or the error, which stops nothing."""
    path = folder / f"demo_{datetime.now():%Y%m%d_%H%M%S_%f}.png"
    try:
        write_image(path, image)
        print(f"saved {path}", flush=True)
    except OSError as error:
        print(f"could not save {path}: {error.strerror}", flush=True)
