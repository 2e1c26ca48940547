import re
import subprocess
import sys
from contextlib import suppress
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from src.cli import ROOT, JobError
from src.demo.video_reader import VideoReader
from src.demo.video_writer import VideoFile
from tests.demo.videos import read_video, spectrum_peak, write_video


def video_file(path, time_base=Fraction(1, 25), **options):
    return VideoFile(path, path.with_name(".part"), time_base, **options)


def write_grey(video, shades, size=(48, 64)):
    for time, shade in shades:
        video.write(np.full((*size, 3), shade, np.uint8), time)


def copy(source, target):
    reader = VideoReader(f"file:{source}", with_sound=True)
    with VideoFile(target, target.with_name(".p"), reader.time_base, reader.rate, reader.tracks) as video:
        for seconds, image in reader.frames():
            video.write(image, seconds)
            while reader.sound:
                video.write_sound(*reader.sound.popleft())
        while reader.sound:
            video.write_sound(*reader.sound.popleft())
    return target


def test_video_reads_back_with_its_times_and_colours(tmp_path):
    path = tmp_path / "out.mp4"
    with video_file(path, Fraction(2, 25), rate=Fraction(25, 2)) as video:
        for number in range(10):
            frame = np.zeros((49, 65, 3), np.uint8)  # the codec wants even sides: one row and column go
            frame[..., 0] = 200
            video.write(frame, number * 0.08)
        assert not path.exists()
    times, frames, reader = read_video(path)
    assert times == pytest.approx(np.arange(10) * 0.08)
    assert (reader.rate, reader.damage) == (12.5, "")
    assert frames[0].shape == (48, 64, 3)
    assert np.abs(frames[5].mean(axis=(0, 1)) - [200, 0, 0]).max() < 25
    assert list(tmp_path.iterdir()) == [path]


def test_browsers_play_it(tmp_path):
    with video_file(tmp_path / "out.mp4") as video:
        write_grey(video, [(0, 10), (1, 200)])
    with av.open(str(tmp_path / "out.mp4")) as file:
        codec = file.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playing begins before all of it has arrived


@pytest.mark.parametrize("times", [[0, 0.04, 0.08, 0.5, 1.0, 3.25], [0, 20, 40, 60]])
def test_uneven_times_are_kept_by_players_too(tmp_path, times):
    with video_file(tmp_path / "out.mp4", Fraction(1, 1000)) as video:
        write_grey(video, [(time, 50) for time in times])
    assert read_video(tmp_path / "out.mp4")[0] == pytest.approx(times)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.duration / av.time_base >= times[-1]  # else players stop before the last frame


def test_times_that_do_not_grow_and_a_size_that_changes(tmp_path):
    with video_file(tmp_path / "out.mp4") as video:
        write_grey(video, [(0, 0), (0.2, 200), (0.2, 200)])
        write_grey(video, [(0.4, 100)], size=(96, 128))
    times, frames, _ = read_video(tmp_path / "out.mp4")
    assert times == pytest.approx([0, 0.2, 0.24, 0.4])
    assert [round(frame.mean(), -2) for frame in frames] == [0, 200, 200, 100]
    assert {frame.shape for frame in frames} == {(48, 64, 3)}


def test_pixels_that_are_not_square_stay_so(tmp_path):
    with video_file(tmp_path / "out.mp4", pixel_aspect=Fraction(16, 15)) as video:
        write_grey(video, [(0, 0)])
    assert read_video(tmp_path / "out.mp4")[2].pixel_aspect == Fraction(16, 15)


@pytest.mark.parametrize("codec", ["aac", "libopus", "mp3"])
def test_sound_is_copied(tmp_path, codec):
    source = write_video(tmp_path / "in.mkv", sound=codec)
    copy(source, tmp_path / "out.mp4")
    packets = []
    for path in (source, tmp_path / "out.mp4"):
        with av.open(str(path)) as file:
            packets.append([bytes(packet) for packet in file.demux(audio=0) if packet.size])
    assert packets[0] == packets[1]
    (track,) = read_video(tmp_path / "out.mp4")[2].tracks
    assert track.stream.codec_context.codec.canonical_name == codec.removeprefix("lib")


@pytest.mark.parametrize(("name", "codec"), [("in.webm", "vorbis"), ("in.avi", "pcm_s16le")])
def test_sound_that_mp4_does_not_take_becomes_aac(tmp_path, name, codec):
    source = write_video(tmp_path / name, sound=codec, codec="libvpx" if codec == "vorbis" else "mjpeg")
    copy(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.streams.audio[0].codec_context.name == "aac"
        assert float(file.streams.audio[0].duration * file.streams.audio[0].time_base) == pytest.approx(1.5, abs=0.05)
    assert spectrum_peak(tmp_path / "out.mp4") == pytest.approx(440, abs=5)


@pytest.mark.parametrize(("rate", "written"), [(11_025, "aac"), (16_000, "mp3")])
def test_slow_mp3_becomes_aac(tmp_path, rate, written):
    """FFmpeg refuses MP3 below 16 kHz in an MP4 file."""
    copy(write_video(tmp_path / "in.avi", codec="mpeg4", sound="mp3", sound_rate=rate), tmp_path / "out.mp4")
    assert read_video(tmp_path / "out.mp4")[2].tracks[0].stream.codec_context.codec.canonical_name == written
    assert spectrum_peak(tmp_path / "out.mp4") == pytest.approx(440, abs=5)


@pytest.mark.parametrize("codec", ["aac", "ac3"])
def test_a_track_without_sound_is_no_error(tmp_path, codec):
    """The beginning of a transport stream does not show the format of a track that starts late or never."""
    copy(write_video(tmp_path / "in.ts", codec="libx264", sound=codec, silent=True), tmp_path / "out.mp4")
    times, _, reader = read_video(tmp_path / "out.mp4")
    assert (len(times), reader.tracks) == (30, [])


@pytest.mark.parametrize(("codec", "rates"), [("aac", [48_000, 48_000]), ("mp2", [48_000, 44_100])])
def test_sound_of_joined_recordings_continues(tmp_path, codec, rates):
    """The times of the second one begin at 0 again, its sound may have another format."""
    parts = [
        write_video(tmp_path / f"{number}.ts", codec="libx264", sound=codec, sound_rate=rate)
        for number, rate in enumerate(rates)
    ]
    (tmp_path / "in.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    times, _, reader = read_video(copy(tmp_path / "in.ts", tmp_path / "out.mp4"))
    assert (len(times), reader.damage) == (60, "")
    assert np.diff([seconds for seconds, _, _ in reader.sound]) == pytest.approx(1024 / 48_000, abs=0.003)
    assert reader.sound[-1][0] == pytest.approx(3, abs=0.1)
    assert spectrum_peak(tmp_path / "out.mp4") == pytest.approx(440, abs=5)


def test_full_disk_stops_the_video_and_leaves_what_was_written(tmp_path, monkeypatch):
    path, stopped = tmp_path / "out.mp4", tmp_path / "out.partial.mp4"
    free = iter([10**9] * 6 + [1000])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=next(free)))
    with pytest.raises(JobError, match=r"full after 6 frames"), video_file(path, stopped_path=stopped) as video:
        write_grey(video, [(number / 25, 50) for number in range(20)])
    assert not path.exists()
    assert len(read_video(stopped)[0]) == 6


FILE_LIMIT = """
import resource, sys
from pathlib import Path
from fractions import Fraction
import numpy as np
from src.cli import JobError
from src.demo.video_writer import VideoFile
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
rng = np.random.default_rng(0)
path = Path(sys.argv[1])
try:
    with VideoFile(path, path.with_name(".part"), Fraction(1, 25)) as video:
        for number in range(60):
            video.write(rng.integers(0, 255, (240, 320, 3), dtype=np.uint8), number / 25)
except JobError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_video_that_cannot_grow_is_an_error_and_leaves_nothing(tmp_path):
    path = tmp_path / "out.mp4"
    command = [sys.executable, "-c", FILE_LIMIT, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=ROOT)
    assert f"cannot write {path}: File too large, after " in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_video_whose_name_is_held_gets_one_beside_it(tmp_path):
    """On Windows a player that shows an earlier video holds its name, here a folder does."""
    path, spare = tmp_path / "out.mp4", tmp_path / "out.new.mp4"
    path.mkdir()
    spare.write_text("mine")
    kept = tmp_path / "out.new~2.mp4"
    message = f"cannot replace {re.escape(str(path))}: .*; the annotated video is {re.escape(str(kept))}"
    with pytest.raises(JobError, match=message), video_file(path) as video:
        write_grey(video, [(0, 10), (1, 200)])
    assert len(read_video(kept)[0]) == 2
    assert sorted(tmp_path.iterdir()) == [path, spare, kept]
    assert spare.read_text() == "mine"


def test_stopped_video_whose_name_is_held_is_named(tmp_path, caplog):
    path = tmp_path / "out.mp4"
    path.mkdir()
    with suppress(KeyboardInterrupt), video_file(path) as video:
        write_grey(video, [(0, 10)])
        raise KeyboardInterrupt
    assert len(read_video(tmp_path / "out.new.mp4")[0]) == 1
    assert caplog.messages[0].endswith(f"the annotated video is {tmp_path / 'out.new.mp4'}")


def test_video_that_can_get_no_other_name_either_stays_where_it_grew(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with (
        pytest.raises(JobError, match=re.escape(f"the annotated video is {tmp_path / '.part'}")),
        video_file(tmp_path / "out.mp4") as video,
    ):
        write_grey(video, [(0, 10), (1, 200)])
    assert len(read_video(tmp_path / ".part")[0]) == 2


def test_video_nobody_wrote_to_leaves_nothing(tmp_path):
    with video_file(tmp_path / "out.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []
