import numpy as np
import pytest

from src.cli import UserError
from src.datasets import adience, load_table

HEADER = "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang\tfiducial_yaw_angle\tfiducial_score"


def write_fold(folder, fold, *rows):
    """Rows are (user, image, face, age, gender)."""
    lines = [HEADER]
    for user, image, face, age, gender in rows:
        path = folder / "faces" / user / f"coarse_tilt_aligned_face.{face}.{image}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"image {path}".encode())
        lines.append("\t".join([user, image, face, age, gender, "0", "414", "1086", "1383", "-115", "30", "17"]))
    (folder / f"fold_{fold}_data.txt").write_text("\n".join(lines) + "\n")


def test_loads_the_fold_files(tmp_path):
    write_fold(tmp_path, 0, ("30601258@N03", "10399646885_67c7d20df9_o.jpg", "1", "(25, 32)", "f"))
    write_fold(tmp_path, 3, ("7890646@N03", "a.jpg", "22", "35", "m"), ("7890646@N03", "b.jpg", "2", "None", "u"))
    write_fold(tmp_path, 4, ("x@N00", "c.jpg", "3", "(60, 100)", ""))
    table = load_table("adience", image_dir=tmp_path)
    face = "coarse_tilt_aligned_face.1.10399646885_67c7d20df9_o.jpg"
    assert table["path"][0] == str(tmp_path / "faces" / "30601258@N03" / face)
    np.testing.assert_array_equal(table["gender"], [0, 1, np.nan, np.nan])
    np.testing.assert_array_equal(table["age"], [np.nan, 35, np.nan, np.nan])
    np.testing.assert_array_equal(table["age_min"], [25, np.nan, np.nan, 60])
    np.testing.assert_array_equal(table["age_max"], [32, np.nan, np.nan, 100])
    assert table["split"].tolist() == ["train", "val", "val", "test"]
    assert table["person"].tolist() == ["30601258@N03", "7890646@N03", "7890646@N03", "x@N00"]
    assert table["margin"].isna().all()


@pytest.mark.parametrize("cell", ["(25 32)", "adult", "-3", "(32, 25, 1)"])
def test_other_ages_are_named(tmp_path, cell):
    write_fold(tmp_path, 0, ("u", "a.jpg", "1", cell, "f"))
    with pytest.raises(UserError, match=r"fold_0_data\.txt, line 2: age must be an age such as \(25, 32\)"):
        adience.load(tmp_path)


def test_other_genders_and_missing_files(tmp_path, caplog):
    with pytest.raises(UserError, match=r"fold_0_data\.txt not found"):
        adience.load(tmp_path)
    write_fold(tmp_path, 0, ("u", "a.jpg", "1", "(0, 2)", "x"))
    with pytest.raises(UserError, match="line 2: gender must be f, m, u or empty, got 'x'"):
        adience.load(tmp_path)
    write_fold(tmp_path, 0, ("u", "a.jpg", "1", "(0, 2)", "f"), ("u", "b.jpg", "1", "(0, 2)", "f"))
    (tmp_path / "faces" / "u" / "coarse_tilt_aligned_face.1.a.jpg").unlink()
    assert len(adience.load(tmp_path)) == 1
    assert "1 of 2 images of Adience" in caplog.messages[0]
