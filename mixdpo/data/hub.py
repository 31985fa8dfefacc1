"""Rows of a Hugging Face data set: from the Hub at a revision, or from a local directory of the same layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mixdpo.config.data import HubSet
from mixdpo.data.tables import Row, numbered, require_columns
from mixdpo.errors import DataError, ModelError

BATCH = 1000


def hub_rows(source: HubSet, columns: Sequence[str], inputs: Path) -> Iterator[Row]:
    """The rows of the set's split with these columns only.

    Where `inputs`/`source.dataset` is a directory, it is read in the Hub's place (the revision then says nothing).

    Raises:
        ModelError: the Hub cannot be reached, or has no such data set or revision.
        DataError: the set has no such configuration, split or column, or cannot be read.
    """
    dataset = _load(source, inputs)
    origin = f"{source.dataset} ({source.split})"
    require_columns(columns, dataset.column_names, origin)
    chosen = dataset.select_columns(list(columns)).with_format("arrow")
    yield from numbered((batch.to_pylist() for batch in chosen.iter(batch_size=BATCH)), origin)


def _load(source: HubSet, inputs: Path) -> Any:
    # heavy, and only needed where a profile names the Hub
    import datasets
    import httpx

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it asks an outside host, even for a local directory
    directory = inputs / source.dataset
    local = directory.is_dir()
    place = str(directory) if local else source.dataset
    revision = None if local else source.revision
    try:
        return datasets.load_dataset(place, source.config, split=source.split, revision=revision)
    except (ConnectionError, httpx.HTTPError, datasets.exceptions.DatasetNotFoundError) as error:
        raise ModelError(
            f"data set {source.dataset} at revision {source.revision} cannot be had from the Hub "
            f"({_first_line(error)}); check the name, the revision and the network, or put a copy of its "
            f"repository in {directory}"
        ) from error
    except (datasets.exceptions.DatasetsError, ValueError, RuntimeError, OSError) as error:
        raise DataError(
            f"data set {place}: configuration {source.config} and split {source.split} cannot be read "
            f"({_first_line(error)}); correct `config` or `split` in params.yaml"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
