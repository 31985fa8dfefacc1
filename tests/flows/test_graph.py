"""The graph that Prefect runs is DVC's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from flows.graph import Stage, as_far_as, read_graph
from mixdpo.errors import ConfigError

# pygtrie, which DVC uses, warns of its own future
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

DIAMOND = """
    first: {cmd: echo 1 > first.txt, outs: [first.txt]}
    side:
      matrix: {name: [left, right]}
      cmd: cat first.txt > ${item.name}.txt
      deps: [first.txt]
      outs: ["${item.name}.txt"]
    last: {cmd: cat left.txt right.txt > last.txt, deps: [left.txt, right.txt], outs: [last.txt]}
"""


def test_stages_come_after_those_they_depend_on(make_project: Callable[[str], Path]) -> None:
    stages = read_graph(make_project(DIAMOND))
    assert {stage.name: stage.upstream for stage in stages} == {
        "first": (),
        "side@left": ("first",),
        "side@right": ("first",),
        "last": ("side@left", "side@right"),
    }
    seen: set[str] = set()
    for stage in stages:
        assert seen.issuperset(stage.upstream)
        seen.add(stage.name)


def test_only_what_changed_and_what_depends_on_it_is_checked(
    make_project: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_project(DIAMOND)
    monkeypatch.chdir(root)  # from where DVC reproduces, whichever repository it is asked for
    assert all(stage.check for stage in read_graph(root))
    with Repo(str(root)) as repo:
        repo.reproduce()
    assert not any(stage.check for stage in read_graph(root))
    (root / "left.txt").unlink()
    assert {stage.name for stage in read_graph(root) if stage.check} == {"side@left", "last"}


def test_pointers_to_data_are_not_stages(make_project: Callable[[str], Path]) -> None:
    root = make_project("only: {cmd: cat data.txt > out.txt, deps: [data.txt], outs: [out.txt]}")
    (root / "data.txt").write_text("rows")
    with Repo(str(root)) as repo:
        repo.add(str(root / "data.txt"))
    assert read_graph(root) == (Stage("only", (), True),)


def test_stages_of_other_directories_are_left_alone(make_project: Callable[[str], Path]) -> None:
    root = make_project("only: {cmd: echo 1 > out.txt, outs: [out.txt]}")
    (root / "studies").mkdir()
    (root / "studies" / "dvc.yaml").write_text("stages:\n  other: {cmd: cat ../out.txt > o.txt, deps: [../out.txt]}\n")
    assert read_graph(root) == (Stage("only", (), True),)


def test_a_directory_without_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_graph(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has no dvc.yaml; run this in the project's directory, or name it with --root"
    )


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ("only: {cmds: echo}", "extra keys not allowed"),
        ("only: {cmd: 'echo ${absent}'}", "Could not find 'absent'"),
        ("one: {cmd: echo, outs: [a]}\ntwo: {cmd: echo, outs: [a]}", "is specified in"),
    ],
)
def test_a_faulty_graph_is_named(make_project: Callable[[str], Path], stages: str, told: str) -> None:
    root = make_project(stages)
    with pytest.raises(ConfigError) as caught:
        read_graph(root)
    assert str(caught.value).startswith(f"DVC cannot read the project in {root}: ")
    assert told in str(caught.value)


def test_as_far_as_a_stage_is_that_stage_and_what_it_is_made_from() -> None:
    stages = (Stage("a", (), True), Stage("b", (), True), Stage("c", ("a",), True), Stage("d", ("b", "c"), True))
    assert [stage.name for stage in as_far_as(stages, "c")] == ["a", "c"]
    assert as_far_as(stages, "d") == stages
    with pytest.raises(ConfigError, match=r"dvc\.yaml has no stage e; it has a, b, c, d"):
        as_far_as(stages, "e")
