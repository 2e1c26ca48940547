"""The recipe on a Ray cluster of two nodes on this machine, one of which is killed."""

import os
import re
import sys
import threading
import time
from functools import partial
from pathlib import Path

import fake_estimator
import numpy as np
import pandas as pd
import pytest
from script_runs import error_line, run_help, run_script

from recipes import label_with_ray
from recipes.label_with_ray import Labeller, label_images, load_predictor
from src.cli import ROOT, UserError
from src.images import Face, FoundImages, ImageError, read_image, write_image
from src.inference import Predictor

ray = pytest.importorskip("ray", reason="needs ray: pip install -r requirements-ray.txt")
pa = pytest.importorskip("pyarrow")
local_files = pytest.importorskip("pyarrow.fs").LocalFileSystem()
places = pytest.importorskip("recipes.places")
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="ray.cluster_utils does not run on Windows"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's use of its own deprecated settings
]

for module in (fake_estimator, label_with_ray, sys.modules[__name__]):
    ray.cloudpickle.register_pickle_by_value(module)  # workers cannot import from the folder of tests

STOP_AT = 6
"""Images; a task has 4."""
ORIGIN = places.Origin("/photos", "a.onnx", "0123456789")
BOX = ("left", "top", "right", "bottom")


class GatedDetector:
    """Takes the whole image for a face; notes in a file per node which images it was given.

    The node to be killed stops for ever in the middle of its second task. The other one waits in its first task until
    that node was killed.
    """

    def __init__(self, notes: Path, lost_id: str):
        node_id = ray.get_runtime_context().get_node_id()
        self.note, self.killed = notes / node_id, notes / "killed"
        self.is_lost = node_id == lost_id

    def detect(self, image: np.ndarray) -> list:
        with self.note.open("a") as file:
            file.write(f"{image[0, 0, 0]}\n")
        while len(noted(self.note)) == STOP_AT if self.is_lost else not self.killed.exists():
            time.sleep(0.01)
        return [Face((0, 0, 16, 16), 1.0)] if image[0, 0, 0] else []


def gated_predictor(notes: Path, lost_id: str, threads: int) -> Predictor:
    return Predictor(GatedDetector(notes, lost_id), fake_estimator.FakeEstimator(), margin=0.0)


def noted(note: Path) -> list[int]:
    return [int(line) for line in note.read_text().splitlines()] if note.exists() else []


def start_cluster(attempts: int = 5):
    """Start two nodes with a core each; again where the machine is so busy that Ray does not wait for its own node."""
    from ray.cluster_utils import Cluster

    for left in reversed(range(attempts)):
        cluster = Cluster()
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, include_dashboard=False)
            return cluster
        except Exception as error:
            cluster.shutdown()
            if not left or "timed out" not in str(error).lower():
                raise
    return None


@pytest.fixture(scope="module")
def cluster():
    """Two nodes; the first is the one that this process is connected to."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = start_cluster()
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """60 images whose red says their number; number 0 has no face, number 60 is damaged."""
    folder = tmp_path / "images"
    for number in range(60):
        path = folder / f"{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, fake_estimator.face(number))
    (folder / "60.jpg").write_text("no image")
    return folder


def read_rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder).sort_values("image", key=lambda names: names.map(lambda name: int(Path(name).stem)))


def check_rows(rows: pd.DataFrame) -> None:
    """Every image exactly once, with its own prediction."""
    assert list(rows.image) == [f"{number % 3}/{number}.png" for number in range(60)] + ["60.jpg"]
    assert list(rows.age[1:60]) == list(range(1, 60))
    assert rows.age[rows.image.isin(["0/0.png", "60.jpg"])].isna().all()
    assert rows.error.isna().tolist() == [True] * 60 + [False]


def test_a_killed_node_costs_no_image(cluster, images, tmp_path):
    notes, output = tmp_path / "notes", tmp_path / "labels"
    notes.mkdir()
    lost = next(iter(cluster.worker_nodes))

    def kill_in_the_middle():
        while len(noted(notes / lost.node_id)) < STOP_AT:
            time.sleep(0.01)
        cluster.remove_node(lost, allow_graceful=False)
        (notes / "killed").touch()

    killer = threading.Thread(target=kill_in_the_middle, daemon=True)
    killer.start()
    predictor = partial(gated_predictor, notes, lost.node_id)
    summary = label_images(str(images), str(output), predictor)
    killer.join(timeout=60)
    assert str(summary) == "59 face(s) in 60 image(s), 1 unreadable"
    check_rows(read_rows(output))
    begun, labelled_by_the_other = noted(notes / lost.node_id), noted(notes / cluster.head_node.node_id)
    assert len(begun) == STOP_AT
    assert set(begun[4:]) <= set(labelled_by_the_other)

    write_image(images / "61.png", fake_estimator.face(61))  # the same command labels what is new
    with pytest.raises(UserError, match="already has"):
        label_images(str(images), str(output), predictor)
    assert str(label_images(str(images), str(output), predictor, skip_existing=True)) == (
        "1 face(s) in 1 image(s), 60 done before, 1 unreadable"
    )
    assert sorted(read_rows(output).image)[-2:] == ["60.jpg", "61.png"]
    assert read_rows(output).error.isna().sum() == 61
    assert len(read_rows(output)) == 63  # the damaged image was tried again


def test_the_script_writes_what_the_demo_would(cluster, images, tmp_path):
    """With the bundled model, started as a user does."""
    folder, output = tmp_path / "photos", tmp_path / "labels"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "portrait.jpg").write_bytes((ROOT / "samples" / "grace_hopper.jpg").read_bytes())
    (folder / "note.png").write_text("no image")
    command = ["--images", folder, "--output_dir", output, "--workers", 1, "--address", cluster.address]
    result = run_script("recipes/label_with_ray.py", *command)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1:] == [f"1 face(s) in 1 image(s), 1 unreadable; results in {output}"]
    unreadable, portrait = pd.read_parquet(output).sort_values("image").to_dict("records")
    assert (unreadable["image"], portrait["image"]) == ("note.png", "sub/portrait.jpg")
    assert unreadable["error"]
    [expected] = load_predictor(1).predict(read_image(ROOT / "samples" / "grace_hopper.jpg"))
    assert tuple(portrait[side] for side in BOX) == expected.box
    assert portrait["age"] == pytest.approx(expected.age, abs=0.001)
    assert (portrait["gender"], portrait["male_probability"]) == (
        expected.gender,
        pytest.approx(expected.male_probability, abs=1e-4),
    )

    refused = run_script("recipes/label_with_ray.py", *command)
    assert refused.returncode == 2
    assert re.search(r"already has \d Parquet file\(s\)", error_line(refused))


def test_unusable_weights_are_refused_before_workers_start(images, tmp_path):
    arguments = ["--images", images, "--output_dir", tmp_path / "labels", "--weight_file", images / "60.jpg"]
    result = run_script("recipes/label_with_ray.py", *arguments)
    assert result.returncode == 2
    assert error_line(result).startswith("error: ")
    assert not (tmp_path / "labels").exists()


def test_workers_that_no_node_has_room_for_are_refused(cluster, images, tmp_path):
    with pytest.raises(UserError, match=r"--cpus_per_worker must be <= 1, got 2"):
        label_images(str(images), str(tmp_path / "labels"), partial(gated_predictor, tmp_path, ""), cpus_per_worker=2)


def test_missing_ray_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "ray")
    with pytest.raises(UserError, match=r"ray is missing; run pip install -r requirements-ray.txt"):
        label_with_ray.check_installed()


def test_help_needs_no_ray():
    assert "--images" in run_help("recipes/label_with_ray.py").stdout


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["a.jpg", "b/c.PNG", "b/d/e.webp"]),
        ("/*.jpg", ["a.jpg"]),
        ("/b/*", ["c.PNG"]),
        ("/**/*.webp", ["b/d/e.webp"]),
        ("/a.jpg", ["a.jpg"]),
    ],
)
def test_images_are_found_in_a_folder_by_a_glob_and_by_name(tmp_path, scheme, pattern, expected):
    touch(tmp_path, "a.jpg", "b/c.PNG", "b/d/e.webp", "notes.txt", ".hidden.jpg", ".git/f.jpg")
    place = places.open_place(f"{scheme}{tmp_path}{pattern}")
    found = places.find_images(place)
    assert list(found) == expected
    assert [os.path.relpath(os.fsdecode(path), tmp_path) for path in found.values()] == [
        os.path.relpath(os.path.join(place.path, name) if name != "a.jpg" else tmp_path / name, tmp_path)
        for name in expected
    ]


def test_images_of_a_local_folder_are_told_by_their_content(tmp_path):
    (tmp_path / "portrait.jfif_").write_bytes((ROOT / "samples" / "grace_hopper.jpg").read_bytes())
    assert list(places.find_images(places.open_place(str(tmp_path)))) == ["portrait.jfif_"]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch, capsys):
    touch(tmp_path, "a.jpg")
    found = FoundImages(tmp_path, [tmp_path / "a.jpg"], unreadable={"locked": "Permission denied"})
    monkeypatch.setattr(places, "find_local_images", lambda path: found)
    assert list(places.find_images(places.open_place(str(tmp_path)))) == ["a.jpg"]
    assert "skipped locked: Permission denied" in capsys.readouterr().err


def test_a_folder_may_be_named_like_a_pattern(tmp_path):
    touch(tmp_path, "[1]/a.jpg")
    assert list(places.find_images(places.open_place(str(tmp_path / "[1]")))) == ["a.jpg"]


@pytest.mark.parametrize("address", ["", "/nowhere", "/*.jpg", "/empty"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_no_image_is_a_user_error(tmp_path, scheme, address):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--images must name images"):
        places.find_images(places.open_place(f"{scheme}{tmp_path}{address}"))


def test_unknown_address_is_a_user_error():
    with pytest.raises(UserError, match="cannot open nowhere://x"):
        places.open_place("nowhere://x")


def test_query_of_an_address_is_no_wildcard():
    place = places.open_place("s3://bucket/photos/*.jpg?region=eu-west-1")
    assert (place.path, place.pattern, place.filesystem.region) == ("bucket/photos", "*.jpg", "eu-west-1")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_name_that_is_no_unicode(tmp_path):
    image = fake_estimator.face(7)
    path = os.fsencode(tmp_path) + b"/\xff.png"
    write_image(os.fsdecode(path), image)
    found = places.find_images(places.open_place(str(tmp_path)))
    assert found == {r"\xff.png": path}
    assert (Labeller(None, lambda threads: None, 1).read(path) == image).all()


@pytest.mark.parametrize("filesystem", [None, local_files])
def test_readers_of_all_file_systems_agree(tmp_path, filesystem):
    write_image(tmp_path / "good.png", fake_estimator.face(7))
    (tmp_path / "bad.png").write_text("no image")
    read = Labeller(filesystem, lambda threads: None, 1).read
    assert (read(os.fsencode(tmp_path / "good.png")) == fake_estimator.face(7)).all()
    with pytest.raises(ImageError, match="not a"):
        read(os.fsencode(tmp_path / "bad.png"))
    with pytest.raises(ImageError, match=r"^No such file or directory$"):
        read(os.fsencode(tmp_path / "gone.png"))


def table(*names: str):
    return pa.Table.from_pylist([{"image": name} for name in names], places.SCHEMA)


def test_rows_that_arrived_before_an_error_are_kept(tmp_path):
    target = places.Place(local_files, str(tmp_path / "new" / "labels"))

    def tables():
        yield table("a", "a")
        yield table("b")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        places.save(tables(), target, ORIGIN)
    assert places.find_done(target, True, ORIGIN) == {"a", "b"}
    places.save([table("c")], target, ORIGIN)
    assert sorted(path.name for path in Path(target.path).iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    assert pd.read_parquet(target.path).image.tolist() == ["a", "a", "b", "c"]


def test_images_with_an_error_are_not_done(tmp_path):
    target = places.Place(local_files, str(tmp_path))
    rows = [{"image": "a", "age": 30.0}, {"image": "b", "error": "timed out"}, {"image": "c"}]
    places.save([pa.Table.from_pylist(rows, places.SCHEMA)], target, ORIGIN)
    assert places.find_done(target, True, ORIGIN) == {"a", "c"}
    places.save([table("b")], target, ORIGIN)
    assert places.find_done(target, True, ORIGIN) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "origin", [("/photos/2024", "a.onnx", "0123456789"), ("/photos", "a.onnx", "9876543210"), ("/photos", "b.onnx", "")]
)
def test_labels_of_other_images_or_weights_do_not_count(tmp_path, origin):
    target = places.Place(local_files, str(tmp_path))
    places.save([table("a")], target, ORIGIN)
    other = places.Origin(*origin)
    message = f"holds labels of /photos by a.onnx (01234567), got {other}; name another folder"
    with pytest.raises(UserError, match=re.escape(message)):
        places.find_done(target, True, other)
    assert places.find_done(target, True, ORIGIN._replace(weights="renamed.onnx")) == {"a"}


def test_labels_of_an_older_version_count(tmp_path):
    pa.parquet.write_table(table("a"), tmp_path / "part-00000.parquet")
    assert places.find_done(places.Place(local_files, str(tmp_path)), True, ORIGIN) == {"a"}


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize("pattern", ["", "/*.jpg", "/**/*.jpg", "/a.jpg"])
def test_the_root_of_names(tmp_path, scheme, pattern):
    touch(tmp_path, "a.jpg")
    place = places.open_place(f"{scheme}{tmp_path}{pattern}")
    assert places.find_root(place, places.find_images(place)) == str(tmp_path)


def test_the_root_of_names_elsewhere():
    place = places.open_place("s3://bucket/photos/*.jpg?region=eu-west-1")
    assert places.find_root(place, {"a.jpg": b"bucket/photos/a.jpg"}) == "s3://bucket/photos"


def test_files_are_written_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "SECONDS_PER_FILE", 0)
    target = places.Place(local_files, str(tmp_path))
    written = []

    def tables():
        for name in "ab":
            yield table(name)
            written.append(len(list(tmp_path.iterdir())))

    places.save(tables(), target, ORIGIN)
    assert written == [1, 2]


def test_half_written_file_is_no_result(tmp_path):
    (tmp_path / ".part-00000.parquet").write_text("half")
    assert places.find_done(places.Place(local_files, str(tmp_path)), False, ORIGIN) == frozenset()
