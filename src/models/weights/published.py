"""Weight files known by name: the bundled ones, and published ones with their download."""

import dataclasses
import hashlib
import logging
import os
import sys
from pathlib import Path

from src.cli import ROOT, JobError, UserError

BUNDLED = "EfficientNetLite0_128"
"""Name of the default weights in `pretrained_models/`: `.hdf5`, and the same as `.onnx`."""
ADDRESS = "https://github.com/yu4u/age-gender-estimation/releases/download/{release}/{name}"
TIMEOUT = 30.0
"""Seconds without a response after which a download fails."""
MAX_HASHED = 2**30
"""Maximum bytes of a file that is hashed; published files are much smaller."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of the table: the address of the file, and the input that its network expects.

    Attributes:
        md5: Hash of the file, or None if unknown.
        margin: Crop margin that the network was trained with, as a share of the sides of the face box.
    """

    release: str
    md5: str | None
    model_name: str
    img_size: int
    margin: float
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
        raise UserError(f"expected the bundled weights {path}, received no such file; name others with --weight_file")
    return path


def folder() -> Path:
    """Return the folder of downloads: `AGE_GENDER_HOME`, else `pretrained_models/`."""
    home = os.environ.get("AGE_GENDER_HOME")
    return Path(home).expanduser() if home else ROOT / "pretrained_models"


def find_by_content(path: Path) -> str | None:
    """Find the name of the published file with the same bytes; None if there is none."""
    if path.stat().st_size > MAX_HASHED:
        return None
    md5, sha256 = hashes(path)
    for name, published in PUBLISHED.items():
        if published.md5 == md5 or remembered_sha256(folder() / name) == sha256:
            return name
    return None


def hashes(path: Path) -> tuple[str, str]:
    """Compute MD5 and SHA-256 of a file, in hexadecimal."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            md5.update(block)
            sha256.update(block)
    return md5.hexdigest(), sha256.hexdigest()


def known_hash(name: str) -> str | None:
    """Return `ALGORITHM:HASH` of a published file, or None if neither the table nor a note has it."""
    md5, sha256 = PUBLISHED[name].md5, remembered_sha256(folder() / name)
    return f"md5:{md5}" if md5 else f"sha256:{sha256}" if sha256 else None


def note_path(path: Path) -> Path:
    """Return the path of the note with the SHA-256 of a download, in the format of `sha256sum`."""
    return path.with_name(f"{path.name}.sha256")


def remembered_sha256(path: Path) -> str | None:
    """Return the SHA-256 of the first download of a file, or None."""
    try:
        words = note_path(path).read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None
    return words[0].lower() if words else None


def fetch(name: str) -> Path:
    """Return the local path of a published file, downloading it if missing.

    The download goes to a temporary file and gets its name only when it is whole: its hash is the known one, or, where
    none is known, it opens as HDF5 (which knows its own length); its SHA-256 is then printed and remembered. A file
    that is there already is never replaced.

    Args:
        name: A key of `PUBLISHED`.

    Raises:
        JobError: The download failed or brought other bytes; nothing is left behind.
    """
    import pooch

    target = folder() / name
    if target.exists():
        return target
    published = PUBLISHED[name]
    known = known_hash(name)
    address = ADDRESS.format(release=published.release, name=name)
    print(f"downloading {address} to {target}", file=sys.stderr)
    pooch.get_logger().setLevel(logging.ERROR)
    download = Download()
    try:
        pooch.retrieve(address, known_hash=known, fname=name, path=target.parent, downloader=download)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # requests, urllib3, pooch and the disk each raise their own
        raise JobError(failure(name, known, download, error)) from error
    target.chmod(0o644)  # pooch's temporary files are for their owner only
    if published.md5 is None:
        print(f"SHA-256 of {name}: {download.sha256} (remembered in {note_path(target)})", file=sys.stderr)
        note_path(target).write_text(f"{download.sha256}  {name}\n", encoding="utf-8")
    return target


class Download:
    """Downloader for pooch with a progress bar that keeps what it received."""

    size: int | None = None
    md5 = sha256 = ""

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        import pooch

        pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=TIMEOUT)(url, output_file, None)
        path = Path(output_file)
        self.size = path.stat().st_size
        self.md5, self.sha256 = hashes(path)
        import h5py

        if not h5py.is_hdf5(path):
            raise ValueError("no HDF5 file")
        with h5py.File(path, "r"):
            pass


def failure(name: str, known: str | None, download: Download, error: Exception) -> str:
    """Describe a failed download in one line, with a remedy."""
    if download.size is None:
        reason = getattr(error.args[0], "reason", error) if error.args else error  # requests wraps urllib3 wraps why
        received = " ".join(str(reason).split())[:200] or type(error).__name__
    else:
        received = f"{download.size} other bytes with MD5 {download.md5} and SHA-256 {download.sha256}"
    expected = f" with {known}" if known else ""
    return (
        f"expected to download {name}{expected}, received {received}; nothing was kept. Try again, put the file into "
        f"{folder()} yourself, or use the bundled model ({BUNDLED}) by leaving --weight_file away"
    )


def resolve(weight_file: str | Path) -> Path:
    """Return a path unchanged; download a published name, unless such a file is in the working folder.

    Raises:
        UserError: Neither.
        JobError: See `fetch`.
    """
    path = Path(weight_file)
    if path.exists() or path.is_symlink():
        return path
    if path.name == str(path) and path.name in PUBLISHED:
        return fetch(path.name)
    raise UserError(
        f"expected a weight file or one of the published names {', '.join(PUBLISHED)}, received {path}, "
        "which does not exist; check the path"
    )


def check_regular(path: Path) -> None:
    """Raise `UserError` unless the path is a regular file that is not empty."""
    if path.is_dir():
        raise UserError(f"expected a weight file, received the folder {path}; name a file in it")
    if not path.is_file():
        what = "a symbolic link that leads nowhere" if path.is_symlink() else "no such file"
        what = "no regular file" if path.exists() else what
        raise UserError(f"expected a weight file, received {path}: {what}; check the path")
    if path.stat().st_size == 0:
        raise UserError(f"expected a weight file, received {path}, which is empty; copy or download it again")
