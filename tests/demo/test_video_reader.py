from fractions import Fraction

import av
import numpy as np
import pytest

from src.demo.video_reader import VideoReader, find_hole, turn_upright
from tests.demo.videos import read_video, write_video

KINDS = [("v.mp4", "libx264"), ("v.mkv", "libx264"), ("v.webm", "libvpx"), ("v.avi", "mjpeg"), ("v.mov", "mpeg4")]
FRONT = {"movflags": "+faststart"}  # the index in front, so that a cut file can be opened


@pytest.mark.parametrize(("name", "codec"), [*KINDS, ("v.ts", "libx264"), ("v.flv", "libx264"), ("v.avi", "mpeg4")])
def test_whole_video_is_whole(tmp_path, name, codec):
    times, images, reader = read_video(write_video(tmp_path / name, codec=codec, frames=30))
    np.testing.assert_allclose(times, np.arange(30) / 20, atol=0.002)
    assert (reader.finite, reader.frames_read, reader.damage) == (True, 30, "")
    assert reader.count == 30
    assert images[0].shape == (48, 64, 3)


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_cut_video_is_damaged(tmp_path, name, codec):
    options = FRONT if name.endswith((".mp4", ".mov")) else {}
    path = write_video(tmp_path / name, codec=codec, frames=100, **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    times, _, reader = read_video(path)
    assert reader.count == 100
    assert 10 < reader.frames_read < 90
    assert reader.damage.startswith("damaged at ")
    assert float(reader.damage.split()[-2]) == pytest.approx(times[-1], abs=0.11)


@pytest.mark.parametrize(("name", "codec"), [*KINDS, ("v.ts", "libx264")])
def test_video_with_wrong_bytes_amid_it_is_damaged_and_read_on(tmp_path, name, codec):
    path = write_video(tmp_path / name, codec=codec, frames=100, size=(320, 240))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(data)
    times, _, reader = read_video(path)
    assert reader.damage.startswith("damaged at ")
    assert 20 < reader.frames_read < 100 == reader.count
    assert times[-1] > 4 or name.endswith((".mkv", ".webm"))  # these are read on from the next cluster


def test_transport_stream_that_ends_amid_a_packet_is_damaged(tmp_path):
    path = write_video(tmp_path / "v.ts", codec="libx264", frames=100)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 188 // 2 * 188 + 100])
    times, _, reader = read_video(path)
    assert 10 < reader.frames_read < 90
    assert reader.damage.startswith("damaged at ")
    assert float(reader.damage.split()[-2]) == pytest.approx(times[-1], abs=0.11)


def test_end_of_a_container_within_a_second_is_noticed(tmp_path):
    """Matroska holds no number of frames; its duration tells that half a second is missing."""
    path = write_video(tmp_path / "v.mkv", codec="ffv1", frames=40)
    assert read_video(path)[2].damage == ""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    assert read_video(path)[2].damage


def test_times_are_those_of_the_frames(tmp_path):
    times = [0, 0.04, 0.08, 0.5, 1.0, 3.25]
    assert read_video(write_video(tmp_path / "v.mkv", times))[0] == pytest.approx(times, abs=1e-6)


def test_bare_h264_gets_the_times_that_it_lacks(tmp_path):
    times, _, reader = read_video(write_video(tmp_path / "v.h264", codec="libx264"))
    assert times == pytest.approx(np.arange(30) / 20)
    assert (reader.frames_read, reader.damage) == (30, "")


def test_times_of_b_frames_in_avi_grow_evenly(tmp_path):
    times, _, reader = read_video(write_video(tmp_path / "v.avi", codec="libx264", b_frames=2))
    assert np.diff(times)[0] > 0  # the first frame's own time is early
    assert np.diff(times)[1:] == pytest.approx(0.05)
    assert (len(times), reader.damage) == (30, "")


def test_a_track_that_begins_later_does(tmp_path):
    times = read_video(write_video(tmp_path / "v.mkv", [0.5, 0.75, 1.5], sound="aac"))[0]
    assert times == pytest.approx([0.5, 0.75, 1.5], abs=0.03)


def test_no_video_in_the_file(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_text("no video")
    with pytest.raises(av.FFmpegError):
        VideoReader(f"file:{path}")
    with av.open(str(tmp_path / "a.wav"), "w") as file:
        file.add_stream("pcm_s16le", rate=8000, layout="mono")
    with pytest.raises(av.FFmpegError):
        VideoReader(f"file:{tmp_path / 'a.wav'}")


def test_frames_are_turned_upright():
    """A letter L of 3 x 2 pixels; matrices of `tkhd` for quarter turns and mirrors."""
    stored = np.array([[1, 0], [1, 0], [1, 1]], np.uint8)[..., None]
    for (a, b, c, d), shown in [
        ((1, 0, 0, 1), [[1, 0], [1, 0], [1, 1]]),
        ((0, 1, -1, 0), [[1, 1, 1], [1, 0, 0]]),  # a quarter turn clockwise
        ((0, -1, 1, 0), [[0, 0, 1], [1, 1, 1]]),
        ((-1, 0, 0, -1), [[1, 1], [0, 1], [0, 1]]),
        ((-1, 0, 0, 1), [[0, 1], [0, 1], [1, 1]]),  # left and right swapped, as front cameras do
    ]:
        matrix = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], np.int32).tobytes()
        np.testing.assert_array_equal(turn_upright(stored, matrix)[..., 0], shown)


def test_rotation_of_a_phone_is_honoured(tmp_path):
    """The matrix in the header of a track turns a video of 64 x 48 by a quarter, clockwise."""
    path = write_video(tmp_path / "v.mp4", codec="libx264", face_from=0, pixel_aspect=Fraction(4, 3))
    data = path.read_bytes()
    plain = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    turned = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30], ">i4").tobytes()
    track = data.index(plain, data.index(b"tkhd"))
    path.write_bytes(data[:track] + turned + data[track + len(turned) :])
    _, images, reader = read_video(path)
    assert images[0].shape == (64, 48, 3)
    assert reader.pixel_aspect == Fraction(3, 4)
    corner = images[0][:16, -16:].astype(int)  # the face was at the upper left
    assert corner[..., 0].mean() == pytest.approx(100, abs=12)
    assert corner[..., 2].mean() < 60


@pytest.mark.parametrize(
    ("codec", "kind"), [("aac", av.Packet), ("vorbis", av.AudioFrame), ("pcm_s16le", av.AudioFrame)]
)
def test_sound_comes_as_packets_where_mp4_takes_them(tmp_path, codec, kind):
    reader = read_video(write_video(tmp_path / "v.mkv", sound=codec))[2]
    seconds, tracks, items = zip(*reader.sound, strict=True)
    assert {type(item) for item in items} == {kind}
    assert set(tracks) == {reader.tracks[0].stream.index}
    assert seconds[-1] == pytest.approx(1.5, abs=0.1)
    assert list(seconds) == sorted(seconds)


def test_a_track_whose_codec_is_unknown_is_skipped_with_a_warning(tmp_path, caplog):
    """As the second one of videos with an iPhone's spatial sound."""
    path = write_video(tmp_path / "v.mp4", codec="libx264", sound="aac")
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"apac").replace(b"esds", b"xxxx"))
    times, _, reader = read_video(path)
    assert (len(times), reader.tracks, len(reader.sound), reader.damage) == (30, [], 0, "")
    assert caplog.messages == ["skipped 1 of 1 tracks of sound: FFmpeg cannot decode them"]


def test_hole_amid_even_times():
    even = np.arange(40) / 25
    assert find_hole(even) is None
    assert find_hole(np.delete(even, [20, 21])) == pytest.approx(0.8)
    assert find_hole(np.delete(np.arange(40) / 25 + 7, 5)) == pytest.approx(7.2)
    assert find_hole(np.cumsum([1, 1.5] * 20) / 30) is None  # films shown as television
    assert find_hole(np.cumsum(np.random.default_rng(0).uniform(0, 1, 40))) is None  # a variable rate
