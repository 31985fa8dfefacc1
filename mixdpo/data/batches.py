"""What arrived, as it lies below `inputs`: a directory a batch, numbered in order, whole or not there, never changed.

    arrivals/0001/manifest.json             what came, from where
    arrivals/0001/books/4f2c….parquet       a file of the landing place's directory books, named by its content

The number tells who was first: of near-duplicates the earlier one stays (mixdpo.data.cleaning), so that what was
trained on, or held out, stays that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mixdpo.config.data import ARRIVALS
from mixdpo.errors import DataError
from mixdpo.files import file_digest

MANIFEST = "manifest.json"
NAMED = 32  # hex digits of a file's sha256 that are its name


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Arrival(Record):
    """One file of a batch."""

    source: str  # its name in the landing place
    file: str  # below the batch's directory
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]
    rows: Annotated[int, Field(ge=1)]

    @property
    def identity(self) -> tuple[str, str]:
        """What makes two files the same: the content, and the directory, which says how it is read."""
        return str(Path(self.file).parent), self.sha256


class Batch(Record):
    """All files that one run took. The same files give the same manifest, whenever they came."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    number: Annotated[int, Field(ge=1)]
    files: tuple[Arrival, ...]

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.files)


def batch_directory(inputs: Path, number: int) -> Path:
    return inputs / ARRIVALS / f"{number:04}"


def read_batches(inputs: Path) -> list[Batch]:
    """Every batch below `inputs`, in order.

    Raises:
        DataError: one has no manifest, or what is there is none.
    """
    found = []
    for directory in sorted((inputs / ARRIVALS).glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            found.append(Batch.model_validate_json((directory / MANIFEST).read_bytes()))
        except (OSError, ValidationError) as error:
            raise DataError(
                f"{directory / MANIFEST} does not say what that batch is ({error}); restore the directory from a copy "
                "(`dvc checkout`, where it was added), or remove it: its files are taken again where they still lie"
            ) from error
    return found


def batch_number(path: Path, inputs: Path) -> int:
    """The batch that a file below `inputs` came with; 0 where it lay there from the start."""
    parts = path.relative_to(inputs).parts
    return int(parts[1]) if len(parts) > 2 and parts[0] == ARRIVALS and parts[1].isdigit() else 0


def check_unchanged(path: Path, inputs: Path) -> None:
    """Raises DataError where a file that arrived is not what it was then."""
    if batch_number(path, inputs) and not file_digest(path).startswith(path.stem):
        raise DataError(
            f"{path} was changed since it arrived: its sha256 does not begin with {path.stem}; restore it from a copy, "
            "and put corrected rows into the landing place as a new file"
        )
