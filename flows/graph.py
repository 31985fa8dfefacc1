"""DVC's own graph of the stages, and which of them have to be looked at. Prefect's tasks are made from this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixdpo.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml; a member of a matrix is called `train@dpo`."""

    name: str
    upstream: tuple[str, ...]  # stages whose outputs it reads
    check: bool  # it, or one upstream of it, has changed: DVC decides whether it must run


def read_graph(root: Path) -> tuple[Stage, ...]:
    """The stages of the dvc.yaml in `root`, each after those it depends on.

    A stage below a changed one counts as to be checked: the changed one may write what it wrote before.

    Raises:
        ConfigError: there is no project in `root`, or its dvc.yaml or params.yaml does not fit.
    """
    import networkx as nx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError
    from dvc.stage import PipelineStage

    if not (root / "dvc.yaml").is_file():
        raise ConfigError(f"{root} has no dvc.yaml; run this in the project's directory, or name it with --root")
    try:
        with Repo(str(root), _wait_for_lock=True) as repo:
            graph = repo.index.graph  # an edge leads from a stage to one that it depends on
            status = repo.status()
            changed = {stage for stage in graph if stage.addressing in status}
    except (DvcException, SCMError) as error:
        reasons = [str(error)]
        while error := error.__cause__:  # DVC keeps the line and column in the causes
            reasons.append(str(error))
        raise ConfigError(f"DVC cannot read the project in {root}: {': '.join(reasons)}") from None
    check = changed.union(*(nx.ancestors(graph, stage) for stage in changed))
    # pointers to data (*.dvc) are nodes too, but nothing is to be run for them; stages of other directories (studies)
    # are run by name only, as `dvc repro` has it
    order = [
        stage
        for stage in reversed(list(nx.topological_sort(graph)))
        if isinstance(stage, PipelineStage) and Path(stage.path) == Path(repo.root_dir) / "dvc.yaml"
    ]
    names = {stage: stage.name for stage in order}
    return tuple(
        Stage(names[stage], tuple(sorted(names[up] for up in graph.successors(stage) if up in names)), stage in check)
        for stage in order
    )


def as_far_as(stages: Sequence[Stage], name: str) -> tuple[Stage, ...]:
    """Of these stages, in their order, the one of this name and all that it is made from.

    Raises:
        ConfigError: there is no such stage.
    """
    known = {stage.name: stage for stage in stages}
    if name not in known:
        raise ConfigError(f"dvc.yaml has no stage {name}; it has {', '.join(known)}")
    needed = {name}
    for stage in reversed(stages):
        if stage.name in needed:
            needed.update(stage.upstream)
    return tuple(stage for stage in stages if stage.name in needed)
