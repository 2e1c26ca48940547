import pytest

from src.cli import UserError
from src.demo.results import RECORDING, Results, root_hash
from src.files import file_stamp


def choose(folder, root, *names, stamp=(5, 7)):
    return Results(folder).choose([(name, stamp) for name in names], root, lambda name: [name.lower(), f"{name}.png"])


def names(results):
    return [result.name for result in results]


def finish(folder, result, rows):
    results = Results(folder)
    with results.lock:
        results.finish(result, rows)


def test_a_source_finds_its_result_again(tmp_path):
    (first,) = choose(tmp_path, "x", "a.jpg")
    assert (first.name, first.file, first.rows) == ("a.jpg", "a.jpg", None)
    finish(tmp_path, first, 3)
    assert choose(tmp_path, "x", "a.jpg")[0].rows == 3
    assert choose(tmp_path, "x", "a.jpg", stamp=(5, 8))[0].rows is None  # it was changed since
    assert choose(tmp_path, "moved", "a.jpg", stamp=(5, 8))[0].name == "a.jpg"  # the same size and time elsewhere


def test_another_source_gets_another_name(tmp_path):
    choose(tmp_path, "x", "a.jpg", "sub/b.jpg")
    assert names(choose(tmp_path, "y", "a.jpg", "sub/b.jpg", stamp=(6, 7))) == ["a~2.jpg", "sub/b~2.jpg"]
    assert names(choose(tmp_path, "z", "a.jpg", stamp=(9, 9))) == ["a~3.jpg"]
    assert names(choose(tmp_path, "y", "a.jpg", stamp=(6, 9))) == ["a~2.jpg"]
    assert names(choose(tmp_path, "x", "a.jpg", stamp=(6, 9))) == ["a.jpg"]


def test_a_name_that_looks_numbered_is_its_own(tmp_path):
    choose(tmp_path, "x", "a.jpg")
    assert names(choose(tmp_path, "y", "a.jpg", "a~2.jpg", stamp=(6, 7))) == ["a~2.jpg", "a~2~2.jpg"]
    assert names(choose(tmp_path, "y", "a~2.jpg", "a.jpg", stamp=(6, 7))) == ["a~2~2.jpg", "a~2.jpg"]


def test_no_two_results_share_a_file(tmp_path):
    """Nor on a disk that does not tell upper from lower case."""
    files = [result.file for result in choose(tmp_path, "x", "A.jpg", "a.jpg", "a.jpg.png")]
    assert len({file.casefold() for file in files}) == 3


def test_files_of_the_user_are_not_replaced(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert choose(tmp_path, "x", "a.jpg")[0].file == "a.jpg.png"


def test_results_of_versions_without_a_list_are_the_users(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "predictions.csv").touch()
    assert choose(tmp_path, "x", "a.jpg")[0].file == "a.jpg"


def test_recordings_are_never_the_same(tmp_path):
    assert [choose(tmp_path, "camera", "camera0", stamp=RECORDING)[0].name for _ in range(3)] == [
        "camera0",
        "camera0~2",
        "camera0~3",
    ]


def test_a_torn_line_of_a_killed_run(tmp_path):
    (result,) = choose(tmp_path, "x", "a.jpg")
    with (tmp_path / ".demo" / "sources.jsonl").open("a") as file:
        file.write('["b.jpg", "b')
    finish(tmp_path, result, 2)
    assert choose(tmp_path, "x", "a.jpg")[0].rows == 2


def test_sources_that_are_gone(tmp_path):
    choose(tmp_path, "x", "a.jpg", "b.jpg")
    choose(tmp_path, "y", "c.jpg")
    current = choose(tmp_path, "x", "a.jpg")
    assert Results(tmp_path).outdated("x", current) == {"b.jpg"}


def test_sources_that_cannot_be_reached_are_not_gone(tmp_path):
    choose(tmp_path, "other", "sub/a.jpg", stamp=(6, 7))
    choose(tmp_path, "x", "sub/a.jpg", "sub/deep/b.jpg", "sub.jpg", "c.jpg")
    assert Results(tmp_path).outdated("x", [], ["sub", "c.jpg"]) == {"sub.jpg"}
    assert Results(tmp_path).outdated("x", [], ["sub/deep"]) == {"sub/a~2.jpg", "sub.jpg", "c.jpg"}


def test_a_video_is_neither_an_image_nor_gone(tmp_path):
    """An animation that is done as a video and as an image, and again."""
    for _ in range(2):
        (video,) = Results(tmp_path).choose([("a.gif", (5, 7))], "x", lambda name: [f"{name}.mp4"])
        (image,) = choose(tmp_path, "x", "a.gif")
        assert [(result.name, result.file) for result in (video, image)] == [
            ("a.gif", "a.gif.mp4"),
            ("a~2.gif", "a~2.gif"),
        ]
    assert Results(tmp_path).outdated("x", []) == {"a~2.gif"}


def test_one_run_at_a_time_writes_the_results_of_a_source(tmp_path):
    results = Results(tmp_path)
    with results.claimed("x"):
        with pytest.raises(UserError, match="another run"), Results(tmp_path).claimed("x"):
            pass
        with Results(tmp_path).claimed("y"):
            pass
    with Results(tmp_path).claimed("x"):
        pass


def test_files_of_a_folder_are_claimed_one_by_one(tmp_path):
    def is_free(*claim):
        try:
            with Results(tmp_path).claimed(*claim):
                return True
        except UserError:
            return False

    with Results(tmp_path).claimed("x", "a.jpg"):
        assert is_free("x", "b.jpg")
        assert is_free("y")
        assert not is_free("x", "a.jpg")
        assert not is_free("x")
    with Results(tmp_path).claimed("x"):
        assert not is_free("x", "a.jpg")
        assert is_free("y", "a.jpg")
    assert is_free("x")
    assert [path.name for path in (tmp_path / ".demo").iterdir()] == ["lock"]


def test_stamps_and_hashes(tmp_path):
    (tmp_path / "a").write_text("abc")
    assert file_stamp(tmp_path / "a") == (3, (tmp_path / "a").stat().st_mtime_ns)
    assert file_stamp(tmp_path / "missing") == (0, 0)
    assert root_hash(tmp_path) == root_hash(tmp_path / "x" / "..") != root_hash(tmp_path / "x")
    assert str(tmp_path) not in root_hash(tmp_path)
