"""Find the images of a folder by their content, and say what else is there."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

EXTENSIONS = frozenset(
    [".bmp", ".dib", ".jpe", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
)
"""File name endings of images, in lower case; files with other endings are images if they begin like one."""
SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",  # TIFF and raw files of cameras
    b"MM\0*",
    b"\xff\x4f\xff\x51",  # JPEG 2000
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\xff\x0a",  # JPEG XL
    b"\0\0\0\x0cJXL \r\n\x87\n",
    b"#?RADIANCE",
    b"\x76\x2f\x31\x01",  # OpenEXR
)
ISO_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
"""Kinds of ISO media files that hold images: AVIF and HEIF. OpenCV may lack a decoder, and the file is named then."""

RESULTS_MARK = os.path.join(".demo", "sources.jsonl")
"""The file by which a folder of results of `demo.py` is known."""


@dataclass
class FoundImages:
    """The files below a folder.

    Attributes:
        folder: Where the search began, or the folder of the one file that was asked for.
        paths: Images below `folder`, sorted.
        others: Number of other files by ending, such as `.txt`.
        results: Folders, as paths below `folder`, that hold results of `demo.py` and are skipped.
        loops: Linked folders, as paths below `folder`, that lead to a folder searched already.
        unreadable: What could not be opened, as a path below `folder`, and the reason.
    """

    folder: Path
    paths: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    results: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Describe what is no image in at most three lines: `3 other files: 2 .txt, 1 .xmp`."""
        lines = []
        if total := self.others.total():
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.others.most_common())
            lines.append(f"{total:,} other file{'s' * (total > 1)}: {kinds}")
        if self.results:
            lines.append(f"skipped {_first(self.results)}: results of demo.py")
        if self.loops:
            lines.append(f"skipped the link {_first(self.loops)}: it leads to a folder that is searched already")
        return lines


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1:,} more" if names[1:] else "")


def list_images(folder: str | os.PathLike, recursive: bool = True) -> list[Path]:
    """Return the images below `folder`, sorted by path; see `find_images`."""
    return find_images(folder, recursive).paths


def find_images(path: str | os.PathLike, recursive: bool = True, exclude: Path | None = None) -> FoundImages:
    """Search a folder for images; linked folders are followed, each folder is searched once.

    Hidden files and folders, whose names begin with a dot, are counted as other files. Folders that hold results
    of `demo.py` are skipped, except `path` itself.

    Args:
        path: A folder, or one file, which then is taken for an image.
        recursive: Search subfolders too.
        exclude: A folder that is skipped, such as that of the results.
    """
    if not os.path.isdir(path):
        return FoundImages(Path(path).parent, [Path(path)])
    found = FoundImages(Path(path))
    searched = {_identity(exclude)} if exclude and os.path.isdir(exclude) else set()
    links = list(_search(found.folder, found, searched, recursive))
    while links:  # after the folders themselves, so that these keep their names
        link = links.pop(0)
        if _identity(link) not in searched:
            links += _search(link, found, searched, recursive)
        elif not exclude or _identity(link) != _identity(exclude):
            found.loops.append(link.relative_to(found.folder).as_posix())
    found.paths.sort()
    return found


def begins_like_image(path: str | os.PathLike) -> bool:
    """Tell whether the first bytes of a file are those of an image format.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(16)
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in ISO_BRANDS
    portable = head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3].isspace()
    return portable or head.startswith(SIGNATURES)


def _search(folder: Path, found: FoundImages, searched: set, recursive: bool) -> Iterator[Path]:
    """Add the files of a folder and its subfolders to `found`.

    Yields:
        Links to folders, which are not followed here.
    """
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        try:
            identity = _identity(folder)
            if identity in searched:
                continue
            if folder != found.folder and os.path.exists(folder / RESULTS_MARK):
                found.results.append(folder.relative_to(found.folder).as_posix())
                continue
            searched.add(identity)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            _note(found, folder, error)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                found.others["hidden"] += 1
            elif not os.path.isdir(entry):  # entry.is_dir() raises on a link that leads to itself
                _add_file(entry, found)
            elif recursive and entry.is_symlink():
                yield Path(entry.path)
            elif recursive:
                waiting.append(Path(entry.path))


def _add_file(entry: os.DirEntry, found: FoundImages) -> None:
    ending = os.path.splitext(entry.name)[1].lower()
    try:
        if ending in EXTENSIONS or (entry.is_file() and begins_like_image(entry.path)):
            found.paths.append(Path(entry.path))
        else:
            found.others[ending or "without ending"] += 1
    except OSError as error:
        _note(found, Path(entry.path), error)


def _note(found: FoundImages, path: Path, error: OSError) -> None:
    found.unreadable[path.relative_to(found.folder).as_posix()] = error.strerror or str(error)


def _identity(folder: str | os.PathLike) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
