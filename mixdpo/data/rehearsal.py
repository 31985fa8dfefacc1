"""What the next run would read, put together beside the project: `inputs` as they are, and what landed, not taken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from mixdpo.config import Params
from mixdpo.config.data import ARRIVALS
from mixdpo.data.arrivals import Arrived, look
from mixdpo.layout import Layout

INPUTS = "inputs"


@contextmanager
def rehearsed(params: Params, layout: Layout) -> Iterator[tuple[Params, Layout, Arrived | None]]:
    """Values and a layout under which stages read what a run would read now, and what landed (None: nothing is to).

    What they write stays below .mixdpo/check until the next rehearsal; the project and the landing place are only read.

    Raises:
        As `look`.
    """
    root, inputs = layout.check, layout.root / params.inputs
    shutil.rmtree(root, ignore_errors=True)
    shown = root / INPUTS
    (shown / ARRIVALS).mkdir(parents=True)
    arrived = look(params, layout, staging=shown) if params.arrivals is not None else None
    for place in (inputs, inputs / ARRIVALS):
        for path in place.iterdir() if place.is_dir() else ():
            if path != inputs / ARRIVALS:
                (shown / path.relative_to(inputs)).symlink_to(path.absolute())
    try:
        yield params.model_copy(update={"inputs": INPUTS}), Layout(root), arrived
    finally:
        shutil.rmtree(shown)
