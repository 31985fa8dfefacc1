"""What may be in a version: plain names below one directory, of file types that hold data and no code.

The same rules hold when publishing and when fetching, because a manifest may come from anyone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from mixdpo.errors import RegistryError

TEXT = {".json", ".jsonl", ".txt", ".md", ".csv", ".yaml", ".yml", ".html", ".svg", ".jinja", ".lock"}
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".keras"}
HEAD = 4096  # bytes of a file that its check looks at
MAX_PATH = 512

# No component starts with a dot, which excludes '..', hidden files and a store's own temporary names.
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]{0,199}(/[A-Za-z0-9_][A-Za-z0-9_.+=@-]{0,199})*")


def check_path(path: str) -> None:
    """Refuse a path in a version that leaves its directory or is of a type that is not published."""
    if len(path) > MAX_PATH or not _PATH.fullmatch(path):
        raise RegistryError(
            f"unsafe path {path!r} in a version: expected a relative path of letters, digits and _ . + = @ - whose "
            "parts start with a letter, digit or _; rename or remove that file"
        )
    suffix = os.path.splitext(path)[1].lower()
    if suffix in PICKLES:
        raise RegistryError(
            f"{path}: {suffix} files may hold pickles, which run code when they are loaded; "
            "save weights as .safetensors and tables as .parquet"
        )
    if suffix not in _CHECKS:
        raise RegistryError(
            f"{path}: files of type {suffix or '(none)'} are not published; allowed are {', '.join(sorted(_CHECKS))}"
        )


def check_paths(paths: Iterable[str]) -> None:
    """`check_path` of each, and none takes another's place, on disks that ignore case too."""
    taken: dict[str, str] = {}
    for path in sorted(paths):
        check_path(path)
        if other := taken.get(path.lower()):
            raise RegistryError(f"{other} and {path} differ in case only and cannot share a directory; rename one")
        taken[path.lower()] = path
    for lower, path in taken.items():
        for parent in PurePosixPath(lower).parents:
            if other := taken.get(str(parent)):
                raise RegistryError(f"{other} is a file and also the directory of {path}; rename one")


def check_content(path: str, file: Path) -> None:
    """Refuse a file whose first bytes are not what the suffix of `path` promises (a renamed pickle, say)."""
    _refuse_link(file)
    with file.open("rb") as handle:
        head = handle.read(HEAD)
    expected = _CHECKS[os.path.splitext(path)[1].lower()](head, file.stat().st_size)
    if expected:
        found = "a pickle" if _looks_pickled(head) else f"the first bytes {head[:8]!r}"
        raise RegistryError(f"{path}: expected {expected}, got {found}; remove the file or write it again")


def plain_files(directory: Path) -> dict[str, Path]:
    """Every file below `directory` by its POSIX path in it; links and devices are refused."""
    if not directory.is_dir():
        raise RegistryError(f"{directory} is not a directory, so there is nothing to register; run the stage before")
    found: dict[str, Path] = {}
    for parent, directories, names in os.walk(directory):
        for entry in (Path(parent, name) for name in (*directories, *names)):
            _refuse_link(entry)
            if entry.is_file():
                found[entry.relative_to(directory).as_posix()] = entry
            elif not entry.is_dir():
                raise RegistryError(f"{entry} is neither a file nor a directory; remove it")
    return found


def _refuse_link(file: Path) -> None:
    if file.is_symlink():
        raise RegistryError(
            f"{file} is a symbolic link, which is not published; put the file itself there "
            "(`dvc config cache.type copy`, then `dvc checkout --relink`)"
        )


def _looks_pickled(head: bytes) -> bool:
    protocol_2_and_up = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return protocol_2_and_up or head.startswith(b"PK\x03\x04")  # torch.save writes a zip of pickles


def _text(head: bytes, _: int) -> str | None:
    return "text" if b"\0" in head or head.startswith((b"\x80", b"PK\x03\x04")) else None


def _safetensors(head: bytes, size: int) -> str | None:
    # eight bytes: the length of the JSON header that follows
    whole = len(head) > 8 and head[8:9] == b"{" and 8 + int.from_bytes(head[:8], "little") <= size
    return None if whole else "a safetensors header"


def _magic(magic: bytes, what: str) -> Callable[[bytes, int], str | None]:
    return lambda head, _: None if head.startswith(magic) else what


# suffix → check of (first bytes, size) that returns what was expected where it is not so
_CHECKS: dict[str, Callable[[bytes, int], str | None]] = {
    **dict.fromkeys(TEXT, _text),
    ".safetensors": _safetensors,
    ".parquet": _magic(b"PAR1", "a Parquet file"),
    ".png": _magic(b"\x89PNG\r\n\x1a\n", "a PNG image"),
}
