"""Read a video file or stream with PyAV: frames at their own times, the sound, and where it is damaged."""

import contextlib
import logging
import math
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.logging
import numpy as np

COPIED_SOUND = frozenset(["aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"])
"""Codecs of sound that an MP4 file holds as they are; sound of others is decoded."""
MIN_MP3_RATE = 16_000
"""Samples per second below which FFmpeg writes no MP3 into an MP4 file."""
USUAL_RATE = 25
"""Frames per second where the rate is not known."""
STREAM_TIMEOUT = 10.0
"""Seconds after which a stream that sends nothing counts as stopped."""
MAX_ERRORS = 100
"""Consecutive read errors after which the rest of a video is given up."""
MAX_TIMES = 1_000_000
"""Number of frames whose times are remembered, the last ones."""
MAX_GAP = 0.25
"""Seconds that an intact video may end before the duration in its header."""
TS_PACKETS = (188, 192, 204)
"""Bytes of a packet of an MPEG transport stream: plain, with a time stamp (Blu-ray), with error correction."""

logger = logging.getLogger(__name__)
logging.getLogger("libav").setLevel(logging.CRITICAL + 1)  # FFmpeg reports every broken packet; we report once


class SoundTrack(NamedTuple):
    """A stream of sound, and whether an MP4 file takes its packets as they are."""

    stream: av.AudioStream
    copied: bool


class VideoReader:
    """Decode a video once, from start to end, skipping what is damaged.

    Times are seconds since the start of the container, so that frames and sound stay together.

    Attributes:
        finite: Whether the video has an end; live streams have none.
        time_base: Unit of the time stamps, seconds.
        rate: Average number of frames per second, or None.
        tracks: The sound that can be decoded.
        sound: Sound that was read and not taken yet, if `with_sound`: `(seconds, index of the track, packet)`, or an
            `av.AudioFrame` in place of the packet where the track is not copied.
        count: Number of frames that the header promises; 0 where it promises none.
        pixel_aspect: Width of a pixel divided by its height, or None; of upright frames once the first is read.
        frames_read: Number of intact frames so far.
        damage: What is wrong and where, for example `damaged at 3.00 s`; empty for an intact video.
    """

    def __init__(self, address: str, with_sound: bool = False):
        """Open a video.

        Args:
            address: An address with a scheme; of a file `file:` and its path.
            with_sound: Collect the packets of sound of a finite video.

        Raises:
            av.FFmpegError: The video cannot be opened or holds no moving images.
        """
        local = address.startswith("file:")
        options = {"rtsp_transport": "tcp"} if address.startswith("rtsp") else {}
        self._container = av.open(address, timeout=None if local else STREAM_TIMEOUT, options=options)
        covers = av.stream.Disposition.attached_pic
        videos = [stream for stream in self._container.streams.video if not stream.disposition & covers]
        if not videos:
            self._container.close()
            raise av.InvalidDataError(0, "no video stream")
        self._video = videos[0]
        self._format = self._container.format.name
        starts = [
            stream.start_time * stream.time_base
            for stream in videos + list(self._container.streams.audio)
            if stream.start_time is not None and stream.time_base
        ]
        self._start = max(min(starts, default=Fraction(0)), Fraction(0))
        self._duration = Fraction(self._container.duration or 0, av.time_base)
        self.finite = local or self._duration > 0 or (self._container.size > 0 and self._format not in ("hls", "dash"))
        self.time_base = self._video.time_base or Fraction(1, 90_000)
        self.rate = self._video.average_rate
        self.tracks = find_tracks(self._container) if with_sound and self.finite else []
        self._copied = dict(self.tracks)
        self.sound: deque = deque()
        self.frames_read = self._packets_read = 0
        self.damage = ""
        self.count, self.pixel_aspect = self._promised_frames(), self._video.sample_aspect_ratio
        self._end = self._video_end = 0.0
        self._times: deque[float] = deque(maxlen=MAX_TIMES)

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """Decode all frames.

        Yields:
            Seconds since the start, and the upright frame, `(height, width, 3)` uint8 RGB.

        Raises:
            av.FFmpegError: A live stream stopped.
        """
        for packet in self._packets():
            if packet.stream == self._video:  # the index of the empty packets at the end is 0
                for frame in self._decode(packet):
                    self._note_frame(frame)
                    yield self._times[-1], to_rgb(frame)
            elif (copied := self._copied.get(packet.stream)) is not None:
                sound = _sound(packet, copied)
                self.sound.extend((self._seconds(item), packet.stream.index, item) for item in sound)
        if self.finite:
            self.count = max(self.count, self._promised_frames())  # some indexes grow while they are read
            self._check_end()

    def close(self) -> None:
        self._container.close()

    def _promised_frames(self) -> int:
        if self._format.startswith("mov"):
            return sum(not entry.is_discard for entry in self._video.index_entries) or self._video.frames
        tag = self._video.metadata.get("NUMBER_OF_FRAMES", "")
        if self._video.frames or tag.isdecimal():
            return self._video.frames or int(tag)
        return round(self._duration * self.rate) if self.rate else 0

    def _packets(self) -> Iterator[av.Packet]:
        packets, errors = self._container.demux(), 0
        while errors < MAX_ERRORS:
            try:
                packet = self._next_packet(packets)
            except av.FFmpegError:
                if not self.finite:
                    raise
                self._note_damage(self._video_end)
                packets, errors = self._container.demux(), errors + 1
                continue
            if packet is None:
                return
            errors = 0
            self._note_times(packet)
            yield packet

    def _next_packet(self, packets: Iterator[av.Packet]) -> av.Packet | None:
        """Read a packet; Matroska's reader jumps over damage and only logs it."""
        if not self._format.startswith("matroska"):
            return next(packets, None)
        before = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture(local=True) as messages:
                packet = next(packets, None)
        finally:
            av.logging.set_level(before)
        if any("matroska" in name for _, name, _ in messages):
            self._note_damage(self._video_end)
        return packet

    def _note_times(self, packet: av.Packet) -> None:
        if packet.pts is None:
            return
        end = self._seconds(packet) + float((packet.duration or 0) * packet.time_base)
        self._end = max(self._end, end)
        if packet.stream_index == self._video.index:
            self._packets_read += 1
            self._video_end = max(self._video_end, end)

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            frames, damaged = packet.decode(), packet.is_corrupt and self.frames_read
        except av.FFmpegError:
            frames, damaged = [], self.frames_read or self._has_index()  # a broadcast begins amid a group of frames
        if damaged:
            self._note_damage(self._seconds(packet) if packet.pts is not None else self._video_end)
        return frames

    def _note_frame(self, frame: av.VideoFrame) -> None:
        if not self._times and self.pixel_aspect and round(frame.rotation / 90) % 2:
            self.pixel_aspect = 1 / self.pixel_aspect
        self._times.append(self._time_of(frame))
        self._video_end = max(self._video_end, self._times[-1])
        if frame.is_corrupt:
            self._note_damage(self._times[-1])
        else:
            self.frames_read += 1

    def _time_of(self, frame: av.VideoFrame) -> float:
        """Return the time of a frame, which is after that of the frame before.

        Bare H.264 has no times, and AVI files hold those of H.264's B-frames in the order of decoding.
        """
        last = self._times[-1] if self._times else -math.inf
        for stamp in (frame.pts, frame.dts):
            if stamp is not None and (seconds := float(stamp * self.time_base - self._start)) > last:
                return seconds
        duration = float(frame.duration * self.time_base) or 1 / float(self.rate or USUAL_RATE)
        return max(last + duration, 0.0)

    def _has_index(self) -> bool:
        return self._format.startswith(("mov", "avi"))

    def _check_end(self) -> None:
        """Compare what was read with what the header promises."""
        if self._has_index() and self._packets_read < len(self._video.index_entries):
            self._note_damage(self._video_end)
        promised = float(self._duration) if self._format.startswith(("matroska", "flv")) else 0.0
        if self._format == "avi" and self.rate:
            promised = float(self._video.frames / self.rate)
        if self._end < promised - MAX_GAP:
            self._note_damage(self._video_end)
        if self._format == "mpegts":
            if (lost := find_hole(self._times)) is not None:
                self._note_damage(lost)
            if all(self._container.size % packet for packet in TS_PACKETS):  # no index tells of the rest
                self._note_damage(self._video_end)

    def _note_damage(self, seconds: float) -> None:
        self.damage = self.damage or f"damaged at {seconds:.2f} s"

    def _seconds(self, item: Any) -> float:
        """Convert the time stamp of a packet or frame to seconds since the start."""
        return float(item.pts * item.time_base - self._start)


def find_hole(times: Sequence[float]) -> float | None:
    """Return the time before which frames are missing amid evenly spaced ones; None if there is no such place.

    MPEG transport streams have no index, and their reader skips what it does not understand.
    """
    gaps = np.diff(times)
    if len(gaps) < 10:
        return None
    usual = np.median(gaps)
    holes = np.flatnonzero(gaps > 1.9 * usual)
    even = np.mean(np.abs(gaps - usual) <= 0.1 * usual) >= 0.9
    return float(times[holes[0]] + usual) if even and len(holes) else None


def find_tracks(container: av.container.InputContainer) -> list[SoundTrack]:
    """Return the streams of sound; a warning counts those that FFmpeg cannot decode, which are skipped."""
    tracks = [SoundTrack(stream, is_copied(stream)) for stream in container.streams.audio if stream.codec_context]
    total = len(container.streams.audio)
    if len(tracks) < total:
        logger.warning("skipped %d of %d tracks of sound: FFmpeg cannot decode them", total - len(tracks), total)
    return tracks


def is_copied(stream: av.AudioStream) -> bool:
    """Return whether an MP4 file holds this sound as it is; not if it starts so late that its format is not known."""
    name = stream.codec_context.codec.canonical_name
    known = stream.rate > 0 and stream.layout.nb_channels > 0
    return known and name in COPIED_SOUND and not (name == "mp3" and stream.rate < MIN_MP3_RATE)


def _sound(packet: av.Packet, copied: bool) -> list[Any]:
    """Return the packet if its track is copied, else the decoded frames; nothing of what is damaged."""
    if copied:
        return [packet] if packet.size and packet.pts is not None else []
    with contextlib.suppress(av.FFmpegError):
        return [frame for frame in packet.decode() if frame.pts is not None]
    return []


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Convert a decoded frame to upright RGB, `(height, width, 3)` uint8."""
    unknown = frame.colorspace == 2 and frame.height >= 720  # by convention that of HD television
    image = frame.to_ndarray(format="rgb24", src_colorspace="ITU709" if unknown else None)
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    return image if matrix is None else turn_upright(image, bytes(matrix))


def turn_upright(image: np.ndarray, matrix: bytes) -> np.ndarray:
    """Rotate and mirror a frame by quarter turns as the video's display matrix says.

    Args:
        matrix: 3 x 3 fixed-point numbers of 32 bits, row by row (ISO 14496-12, `tkhd`): a pixel at `(x, y)` is shown
            at `(a * x + c * y, b * x + d * y)`.
    """
    a, b, _, c, d = struct.unpack_from("5i", matrix)
    if abs(b) > abs(a):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
