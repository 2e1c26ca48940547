"""The demo in a window: capture, estimation and display run in threads of their own; the newest frame wins."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from src.cli import JobError
from src.demo.drawing import draw_predictions, draw_status
from src.demo.sources import Source
from src.demo.tracking import Tracker
from src.demo.window import Window
from src.images import write_image
from src.inference import Prediction, Predictor

T = TypeVar("T")


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


class Captured(NamedTuple):
    """A frame and the second of `time.monotonic` at which it was captured."""

    image: np.ndarray
    time: float


class Labels(NamedTuple):
    """Predictions for a frame that was captured at `time`."""

    predictions: list[Prediction]
    time: float


@dataclass
class LiveSummary:
    """Number of frames shown, and of the last ones the times of showing and the ages of their labels, seconds."""

    shown: int = 0
    times: deque = field(default_factory=lambda: deque(maxlen=500))
    label_ages: deque = field(default_factory=lambda: deque(maxlen=500))

    @property
    def rate(self) -> float:
        """Frames per second over the last ones shown."""
        return (len(self.times) - 1) / (self.times[-1] - self.times[0]) if len(self.times) > 1 else 0.0

    def line(self) -> str:
        labels = f", labels {median(self.label_ages) * 1000:.0f} ms older than their frame" if self.label_ages else ""
        return f"{self.shown} frames shown, {self.rate:.0f} per second{labels}"


class Live:
    """Run the capturing and the estimating thread for `run_live`."""

    def __init__(self, source: Source, predict: Callable[[np.ndarray], list[Prediction]]):
        self.frames: Slot[Captured] = Slot()
        self.labels: Slot[Labels] = Slot()
        self.fault: BaseException | None = None
        self.paused = False
        self._source = source
        self._predict = predict
        self._threads = [threading.Thread(target=self._guard, args=(job,)) for job in (self._capture, self._estimate)]

    def __enter__(self) -> "Live":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()
        self.frames.end()
        for thread in self._threads:
            thread.join()

    def _guard(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self.fault = error
        finally:
            self.frames.end()

    def _capture(self) -> None:
        start = None
        for frame in self._source.frames():
            if not self._source.live:  # a file is played at its own pace, and waits
                start = time.monotonic() - frame.time if start is None else start
                start = max(start, time.monotonic() - frame.time - 1)
                time.sleep(max(start + frame.time - time.monotonic(), 0))
                while self.paused and not self.frames.ended:
                    time.sleep(0.02)
            if self.frames.ended:
                return
            self.frames.put(Captured(frame.image, time.monotonic()))
        if self._source.input.damage:
            raise JobError(self._source.describe_damage())

    def _estimate(self) -> None:
        tracker, number = Tracker(), 0
        while not self.frames.ended:
            number, frame = self.frames.newer(number, 1.0)
            if frame is not None:
                self.labels.put(Labels(tracker.update(self._predict(frame.image)), frame.time))


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
    with Live(source, predictor.predict) as live:
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
    """Draw the newest labels on the frame and show it; return what was shown, without the line of status."""
    _, labels = live.labels.newer(0, 0)
    predictions = labels.predictions if labels else []
    drawn = draw_predictions(frame.image, predictions)
    summary.shown += 1
    summary.times.append(time.monotonic())
    if labels and predictions:
        summary.label_ages.append(frame.time - labels.time)
    window.show(draw_status(drawn, f"{summary.rate:.0f} fps  {model_name}"))
    return drawn


def save_image(image: np.ndarray, folder: Path) -> None:
    """Save an image under the time of day and print its name, or the error, which stops nothing."""
    path = folder / f"demo_{datetime.now():%Y%m%d_%H%M%S_%f}.png"
    try:
        write_image(path, image)
        print(f"saved {path}", flush=True)
    except OSError as error:
        print(f"could not save {path}: {error.strerror}", flush=True)
