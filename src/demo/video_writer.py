"""Write frames and sound into an MP4 file that browsers play: H.264, yuv420p, its index in front."""

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from src.cli import JobError
from src.demo.results import numbered
from src.demo.video_reader import USUAL_RATE, SoundTrack

ENCODER = {"preset": "veryfast", "crf": "20", "bf": "0"}
"""Options of x264: speed, and quality from 0 (lossless) to 51."""
MIN_FREE_BYTES = 2**24
"""Free bytes that a disk needs for a video to continue: enough to complete the file."""
MAX_JITTER = 0.05
"""Seconds of silence in encoded sound that are closed up."""
FINEST_TIME_BASE = Fraction(1, 1_000_000)


logger = logging.getLogger(__name__)


class OtherNameError(JobError):
    """A video is complete, but under another name."""


class VideoFile:
    """Write a video that appears under its name when it is complete.

    Odd sides lose one pixel, since yuv420p has none.

    Attributes:
        frames: Number of frames written so far.
    """

    def __init__(
        self,
        path: Path,
        part: Path,
        time_base: Fraction,
        rate: Fraction | None = None,
        tracks: Sequence[SoundTrack] = (),
        pixel_aspect: Fraction | None = None,
        stopped_path: Path | None = None,
    ):
        """Prepare a file; it is created with the first frame.

        Args:
            path: Ends in `.mp4`; its folder exists.
            part: Where the file grows, on the same disk.
            time_base: Unit of the time stamps, seconds.
            rate: Average number of frames per second.
            tracks: Sound that will be written.
            pixel_aspect: Width of a pixel divided by its height.
            stopped_path: Name of the file when an exception ends the `with` block; by default `path`.
        """
        self.path, self.frames = path, 0
        self._part, self._stopped_path = part, stopped_path or path
        self._time_base = time_base if time_base >= FINEST_TIME_BASE else Fraction(1, 90_000)
        self._rate = rate or Fraction(USUAL_RATE)
        self._tracks, self._pixel_aspect = list(tracks), pixel_aspect
        self._file: Any = None
        self._last_pts = -1

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Append a frame, `(height, width, 3)` uint8 RGB, shown from `seconds` on.

        Raises:
            JobError: The disk is full, or the frame cannot be encoded.
        """
        if self._file is None:
            self._open(image)
        if shutil.disk_usage(self.path.parent).free < MIN_FREE_BYTES:
            raise JobError(f"the disk of {self.path.parent} is full after {self.frames} frames")
        frame = av.VideoFrame.from_ndarray(_fit(image, self._size), format="rgb24")
        self._last_pts = max(round(seconds / self._time_base), self._last_pts + 1)
        with self._errors_named():
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = self._last_pts, self._time_base
            self._file.mux(self._video.encode(frame))
        self.frames += 1

    def write_sound(self, seconds: float, track: int, sound: av.Packet | av.AudioFrame) -> None:
        """Append sound of the track of this index, heard from `seconds` on; the first frame comes before it."""
        with self._errors_named():
            self._file.mux(list(self._sound[track].convert(sound, seconds)))

    def close(self, path: Path | None = None) -> None:
        """Complete the file and give it its name, or `path`.

        Raises:
            JobError: The file cannot be completed, or is complete but has another name, which the error tells.
        """
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            with self._errors_named():
                for sound in self._sound.values():
                    file.mux(list(sound.flush()))
                file.mux(self._video.encode(None))
                file.close()
        except BaseException:
            with contextlib.suppress(av.FFmpegError):
                file.close()
            self._part.unlink(missing_ok=True)
            raise
        _give_name(self._part, path or self.path)

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.close(self._stopped_path)
        except OtherNameError as error:
            logger.warning("%s", error)
        except JobError:
            pass  # the first error is the one to report

    def _open(self, image: np.ndarray) -> None:
        height, width = (max(side - side % 2, 2) for side in image.shape[:2])
        self._size = width, height
        with self._errors_named():
            address = f"file:{self._part.resolve()}"
            self._file = av.open(address, "w", format="mp4", options={"movflags": "+faststart"})
            self._video = self._file.add_stream("libx264", rate=self._rate, options=dict(ENCODER))
            self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
            encoder = self._video.codec_context
            encoder.time_base = self._time_base
            encoder.sample_aspect_ratio = self._pixel_aspect or Fraction(1)
            encoder.colorspace = encoder.color_primaries = encoder.color_trc = 1  # BT.709
            encoder.color_range = 1  # 16..235
            self._sound: dict[int, Any] = {
                track.stream.index: _sound_track(self._file, track) for track in self._tracks
            }
            self._file.start_encoding()

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise JobError(f"cannot write {self.path}: {reason}, after {self.frames} frames") from error


class CopiedSound:
    """A track whose packets are written as they are; one that would come before the last is written after it."""

    def __init__(self, file: av.container.OutputContainer, track: av.AudioStream):
        self._stream = file.add_stream_from_template(track)
        self._last_dts = self._end = -math.inf

    def convert(self, packet: av.Packet, seconds: float) -> Iterator[av.Packet]:
        pts = round(seconds / packet.time_base)
        dts = pts if packet.dts is None or packet.pts is None else packet.dts + pts - packet.pts
        late = int(self._end) - dts if dts <= self._last_dts else 0
        packet.pts, packet.dts = pts + late, dts + late
        packet.stream = self._stream
        self._last_dts, self._end = packet.dts, packet.dts + max(packet.duration or 0, 1)
        yield packet

    def flush(self) -> Iterator[av.Packet]:
        return iter(())


class EncodedSound:
    """A track that becomes AAC, since MP4 files or browsers do not take its codec; its format may change."""

    def __init__(self, file: av.container.OutputContainer, track: av.AudioStream):
        rate = track.rate if track.rate in (av.Codec("aac", "w").audio_rates or ()) else 48_000
        layout = "mono" if track.layout.nb_channels == 1 else "stereo"
        self._stream = file.add_stream("aac", rate=rate, layout=layout)
        self._output = self._stream.format, layout, rate
        self._resampler = av.AudioResampler(*self._output)
        self._input: tuple[str, str, int] | None = None
        self._end = Fraction(0)

    def convert(self, frame: av.AudioFrame, seconds: float) -> Iterator[av.Packet]:
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if form != self._input:
            yield from self._encode(None)
            self._input, self._resampler = form, av.AudioResampler(*self._output)
        start = Fraction(seconds)
        if start < self._end + MAX_JITTER:  # time stamps of some containers are coarse
            start = self._end
        frame.pts, frame.time_base = round(start * frame.sample_rate), Fraction(1, frame.sample_rate)
        self._end = Fraction(frame.pts + frame.samples, frame.sample_rate)
        yield from self._encode(frame)

    def flush(self) -> Iterator[av.Packet]:
        yield from self._encode(None)
        yield from self._stream.encode(None)

    def _encode(self, frame: av.AudioFrame | None) -> Iterator[av.Packet]:
        """Resample and encode a frame; None ends what the resampler holds."""
        for resampled in self._resampler.resample(frame):
            if resampled is not None:  # what a resampler that has nothing to do returns for None
                yield from self._stream.encode(resampled)


def _give_name(part: Path, path: Path) -> None:
    """Rename a complete file; where another program holds its name, to a free one beside it.

    Raises:
        OtherNameError: The file has another name.
    """
    try:
        part.replace(path)
    except OSError as error:
        kept = _rename_beside(part, path)
        raise OtherNameError(f"cannot replace {path}: {error.strerror}; the annotated video is {kept}") from error


def _rename_beside(part: Path, path: Path) -> Path:
    names = (path.with_name(name) for name in numbered(f"{path.stem}.new{path.suffix}"))
    try:
        return part.replace(next(name for name in names if not os.path.lexists(name)))
    except OSError:
        return part


def _sound_track(file: av.container.OutputContainer, track: SoundTrack) -> CopiedSound | EncodedSound:
    return (CopiedSound if track.copied else EncodedSound)(file, track.stream)


def _fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut off an odd row and column; resize a frame whose size changed amid the video."""
    width, height = size
    if not (0 <= image.shape[1] - width <= 1 and 0 <= image.shape[0] - height <= 1):
        return cv2.resize(image, size)
    return np.ascontiguousarray(image[:height, :width])
