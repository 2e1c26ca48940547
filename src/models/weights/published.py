"""Weight files known by name: the bundled ones, and published ones with their download."""

import dataclasses
import logging
import os
import sys
from pathlib import Path

from src.cli import ROOT, JobError, UserError, one_line
from src.files import file_hash

BUNDLED = "MobileNet_192"
"""Name of the default weights in `pretrained_models/`: `.hdf5`, and quantized `.onnx`."""
ADDRESS = "https://github.com/yu4u/age-gender-estimation/releases/download/{release}/{name}"


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of the table: the address of the file, and the input that its network expects."""

    release: str
    md5: str | None
    model_name: str
    img_size: int
    margin: float  # that the network was trained with, as a share of the sides of the face box
    data: str
    gender_order: tuple[str, str] = ("female", "male")
    colour: str = "BGR"


PUBLISHED = {
    "EfficientNetB3_224_weights.11-3.44.hdf5": Published(
        "v0.6", "6d7f7b7ced093a8b3ef6399163da6ece", "EfficientNetB3", 224, 0.4, "IMDB-WIKI"
    ),
    "weights.28-3.73.hdf5": Published("v0.5", "fbe63257a054c1c5466cfd7bf14646d6", "WideResNet", 64, 0.4, "IMDB-WIKI"),
    "weights.29-3.76_utk.hdf5": Published("v0.5", None, "WideResNet", 64, 0.0, "UTKFace", ("male", "female")),
}
"""Published files by name; their networks take raw values 0..255 (EfficientNet scales inside)."""


def bundled(ending: str = ".onnx") -> Path:
    """Return the weights that come with the project.

    Args:
        ending: ".onnx" for use (where it is missing, ".hdf5"), ".hdf5" to train on and to export.

    Raises:
        UserError: They are not in their place.
    """
    path = ROOT / "pretrained_models" / f"{BUNDLED}{ending}"
    if ending == ".onnx" and not path.exists():
        return bundled(".hdf5")
    if not path.is_file():
        raise UserError(f"the bundled weights {path} are missing; name others with --weight_file")
    return path


def folder() -> Path:
    """Return the folder of downloads: `AGE_GENDER_HOME`, else `pretrained_models/`."""
    home = os.environ.get("AGE_GENDER_HOME")
    return Path(home).expanduser() if home else ROOT / "pretrained_models"


def find_by_content(path: Path) -> str | None:
    """Find the name of the published file with the same bytes; None if there is none."""
    if path.stat().st_size > 2**30:  # published files are much smaller
        return None
    own = {f"{algorithm}:{file_hash(path, algorithm)}" for algorithm in ("md5", "sha256")}
    return next((name for name in PUBLISHED if known_hash(name) in own), None)


def known_hash(name: str) -> str | None:
    """Return `ALGORITHM:HASH` of a published file: the table's, or that of the first download, or None."""
    if md5 := PUBLISHED[name].md5:
        return f"md5:{md5}"
    try:
        words = (folder() / f"{name}.sha256").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None
    return f"sha256:{words[0].lower()}" if words else None


def fetch(name: str) -> Path:
    """Return the local path of a published file, downloading it if missing.

    The download goes to a temporary file and gets its name only when it is whole: its hash is the known one, or, where
    none is known, it opens as HDF5 (which knows its own length); its SHA-256 is then printed and noted beside it, in
    the format of `sha256sum`. A file that is there already is never replaced.

    Raises:
        JobError: The download failed or brought other bytes; nothing is left behind.
    """
    import h5py
    import pooch

    target, known = folder() / name, known_hash(name)
    if target.exists():
        return target
    address = ADDRESS.format(release=PUBLISHED[name].release, name=name)
    print(f"downloading {address} to {target}", file=sys.stderr)
    pooch.get_logger().setLevel(logging.ERROR)
    received: list[str] = []

    def download(url: str, output_file: str, _: object) -> None:
        fetch_file = pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=30.0)  # seconds without response
        fetch_file(url, output_file, None)
        hashes = " and ".join(f"{kind} {file_hash(output_file, kind)}" for kind in ("md5", "sha256"))
        received.append(f"got {Path(output_file).stat().st_size} other bytes with {hashes}")
        h5py.File(output_file, "r").close()  # raises an OSError unless it is HDF5 and whole

    try:
        pooch.retrieve(address, known_hash=known, fname=name, path=target.parent, downloader=download)
    except Exception as error:  # requests, urllib3, pooch and the disk each raise their own
        what = f"{name} with {known}" if known else name
        raise JobError(
            f"could not download {what}: {', '.join(received) or cause(error)}; nothing was kept. Try again, put the "
            f"file into {folder()} yourself, or use the bundled model ({BUNDLED}) by leaving --weight_file away"
        ) from error
    target.chmod(0o644)  # pooch's temporary files are for their owner only
    if known is None:
        note, sha256 = target.with_name(f"{name}.sha256"), file_hash(target, "sha256")
        print(f"SHA-256 of {name}: {sha256} (remembered in {note})", file=sys.stderr)
        note.write_text(f"{sha256}  {name}\n", encoding="utf-8")
    return target


def cause(error: Exception) -> str:
    """Describe why a connection failed, on one line: requests wraps urllib3 wraps the reason."""
    return one_line(getattr(error.args[0], "reason", error) if error.args else error)


def resolve(weight_file: str | Path) -> Path:
    """Return a path unchanged; download a published name, unless such a file is in the working folder.

    Raises:
        UserError: Neither a file that is not empty nor a published name.
        JobError: A download failed, see `fetch`.
    """
    check_weight_file(weight_file)
    path = Path(weight_file)
    return path if path.exists() else fetch(path.name)


def check_weight_file(weight_file: str | Path) -> None:
    """Raise `UserError` unless this is a file that is not empty, or a published name."""
    path = Path(weight_file)
    if path.exists() or path.is_symlink():
        check_regular(path)
    elif path.name != str(path) or path.name not in PUBLISHED:
        raise UserError(
            f"the weight file must be a path or one of the published names {', '.join(PUBLISHED)}, got {path}, "
            "which does not exist"
        )


def check_regular(path: Path) -> None:
    """Raise `UserError` unless the path is a regular file that is not empty."""
    if path.is_dir():
        raise UserError(f"the weight file must be a file, got the folder {path}")
    if not path.is_file():
        what = "a symbolic link that leads nowhere" if path.is_symlink() else "no such file"
        raise UserError(f"the weight file must be a file, got {path}: {'no regular file' if path.exists() else what}")
    if path.stat().st_size == 0:
        raise UserError(f"the weight file must not be empty, got {path}; copy or download it again")
