"""Rows of a Hugging Face data set: from the Hub at a revision, or from a local directory of the same layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mixdpo.config.data import HubSet
from mixdpo.data.tables import Row, numbered, require_columns
from mixdpo.errors import DataError

BATCH = 1000


def hub_rows(source: HubSet, columns: Sequence[str], inputs: Path) -> Iterator[Row]:
    """The rows of the set's split with these columns only.

    Where `inputs`/`source.dataset` is a directory, it is read in the Hub's place (the revision then says nothing).

    Raises:
        TransientError: the Hub does not answer.
        DataError: it has no such data set or revision, or the set no such configuration, split or column.
    """
    dataset = _load(source, inputs)
    origin = f"{source.dataset} ({source.split})"
    require_columns(columns, dataset.column_names, origin)
    chosen = dataset.select_columns(list(columns)).with_format("arrow")
    yield from numbered((batch.to_pylist() for batch in chosen.iter(batch_size=BATCH)), origin)


def _load(source: HubSet, inputs: Path) -> Any:
    # heavy, and only needed where a profile names the Hub
    import datasets

    from mixdpo.hub import asking_hub, first_line

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it asks an outside host, even for a local directory
    directory = inputs / source.dataset
    local = directory.is_dir()
    place = str(directory) if local else source.dataset
    revision = None if local else source.revision
    named = f"data set {source.dataset} at revision {source.revision}"
    try:
        with nullcontext() if local else asking_hub(named):
            return datasets.load_dataset(place, source.config, split=source.split, revision=revision)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"{named} is not on the Hub ({first_line(error)}); "
            f"check the name and the revision, or put a copy of its repository in {directory}"
        ) from error
    except (datasets.exceptions.DatasetsError, ValueError, RuntimeError, OSError) as error:
        raise DataError(
            f"data set {place}: configuration {source.config} and split {source.split} cannot be read "
            f"({first_line(error)}); correct `config` or `split` in params.yaml"
        ) from error
