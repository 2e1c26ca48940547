"""Small videos for tests, made with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from src.demo.video_reader import VideoReader
from tests.inference.test_predictor import draw

SIZE = (64, 48)


def write_video(
    path: Path,
    times=None,
    frames: int = 30,
    rate: int = 20,
    codec: str = "ffv1",
    face_from: int = 10,
    sound: str = "",
    size: tuple[int, int] = SIZE,
    sound_rate: int = 48_000,
    b_frames: int = 0,
    pixel_aspect: Fraction = Fraction(1),
    silent: bool = False,
    cut_at: int | None = None,
    **options: str,
) -> Path:
    """Write grey frames with a face of age 100 from one frame on; FFV1 keeps every pixel as it is.

    Args:
        times: Seconds of each frame; by default `rate` per second.
        sound: Codec of a tone of 440 Hz.
        silent: Announce the tone but write none of it.
        cut_at: Number of the frame at which another scene begins, with a face of age 20.
    """
    times = [number / rate for number in range(frames)] if times is None else times
    pixels = {"mjpeg": "yuvj420p", "ffv1": "bgr0"}.get(codec, "yuv420p")
    # Absolute and with a scheme, so that FFmpeg takes no name for an address.
    with av.open(f"file:{path.resolve()}", "w", options=options) as file:
        video = file.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = *size, pixels
        video.options = {"preset": "ultrafast", "g": "10", "bf": str(b_frames)} if codec == "libx264" else {}
        video.codec_context.sample_aspect_ratio = pixel_aspect
        video.codec_context.time_base = (
            Fraction(1, 1000) if any(time * rate % 1 for time in times) else Fraction(1, rate)
        )
        audio = file.add_stream(sound, rate=sound_rate, options={"strict": "-2"}, layout="stereo") if sound else None
        for number, time in enumerate(times):
            image = np.full((size[1], size[0], 3), 128, np.uint8)
            image[:16, :16] = draw(100) if number >= face_from else 0
            if cut_at is not None and number >= cut_at:
                image[: size[1] // 2], image[size[1] // 2 :] = 10, 250
                image[:16, :16] = draw(20)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time / video.codec_context.time_base), video.codec_context.time_base
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        if audio and not silent:
            for packet in tone(audio, len(times) / rate):
                file.mux(packet)
    return path


def tone(audio: av.AudioStream, seconds: float):
    count = round(seconds * 48_000)
    wave = (8000 * np.sin(2 * np.pi * 440 * np.arange(count) / 48_000)).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], format="s16", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    resampler = av.AudioResampler(audio.format, audio.layout, audio.rate, audio.frame_size or 1024)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        yield from audio.encode(part)
    yield from audio.encode(None)


def read_video(path: Path) -> tuple[list[float], list[np.ndarray], VideoReader]:
    """Return the times and the frames of a video, and its reader."""
    reader = VideoReader(f"file:{path.resolve()}", with_sound=True)
    times, images = map(list, zip(*reader.frames(), strict=True))
    return times, images, reader


def spectrum_peak(path: Path) -> float:
    """Return the loudest frequency of the sound of a video, Hz."""
    with av.open(f"file:{path.resolve()}") as file:
        frames = [frame.to_ndarray()[0].astype(float) for frame in file.decode(audio=0)]
        rate = file.streams.audio[0].rate
    wave = np.concatenate(frames)
    return float(np.argmax(np.abs(np.fft.rfft(wave))[1:]) + 1) * rate / len(wave)
