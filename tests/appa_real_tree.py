"""A small APPA-REAL of true format: `gt_avg_{split}.csv` and `{split}/NAME_face.jpg`."""

from pathlib import Path

from fake_estimator import face

from src.images.io import write_image

HEADER = "file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age"


def write_split(folder: Path, split: str, rows: list[tuple], size: int = 20) -> None:
    """Rows are `(file_name, mean, std, real age)`; a fake estimator takes the image of each for its real age."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    lines = [HEADER]
    for name, mean, std, real in rows:
        lines.append(f"{name},38,{mean},{std},{real}")
        write_image(folder / split / f"{name}_face.jpg", face(real, size=size))
        write_image(folder / split / name, face(0, size=size))  # the whole photograph lies beside
    (folder / f"gt_avg_{split}.csv").write_text("\n".join(lines) + "\n")
