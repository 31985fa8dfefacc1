"""Stage register: publish the chosen policy, with all that tells where it came from, and move the alias to it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mixdpo.config import Params
from mixdpo.errors import DataError, RegistryError
from mixdpo.files import file_digest, read_json
from mixdpo.layout import STANDING as SUFFIXES
from mixdpo.layout import Layout
from mixdpo.registry import Version, open_registry, signing_key
from mixdpo.registry.lineage import gather
from mixdpo.registry.manifest import PACKAGES, STANDING
from mixdpo.registry.sbom import bill_of_materials

REASON = "registered by `mixdpo register`"


def register(params: Params, layout: Layout, reason: str = REASON) -> Version:
    """Publish `registry.policy` as a version of `registry.name` and move `registry.alias` to it.

    The version holds the policy's directory and, below run/, params.yaml, dvc.lock, metrics, the report, what it
    showed on held-out prompts and the packages that were installed. Registering the same again makes no new version
    (`Version.created` is False).

    Raises:
        RegistryError: no such policy yet, unsafe files in it, or training found what `registry.refuse` names.
        DataError: evaluation has not run. StorageError: no space, not writable.
    """
    wanted = params.registry
    policy = layout.policy(wanted.policy)
    if not (policy / "mixture.json").is_file():
        raise RegistryError(
            f"{policy} holds no policy (mixture.json); run `mixdpo train {wanted.policy}` or `dvc repro` first"
        )
    _refuse_findings(wanted.policy, wanted.refuse, layout)
    registry, key = open_registry(wanted, layout.root), signing_key(wanted, layout.root)
    lineage = {**gather(params, layout), "start": _start(params, layout)}
    with tempfile.TemporaryDirectory() as directory:
        bill = Path(directory) / "packages.json"
        bill.write_bytes(bill_of_materials(layout.root / "requirements.lock"))
        files = {**_run_files(wanted.policy, layout), PACKAGES: bill}
        return registry.register(wanted.name, policy, lineage, wanted.alias, reason, files, key)


def registered(params: Params, layout: Layout) -> Version | None:
    """The latest version of `registry.name`, if it was made of the run that lies here, by the same settings; else None.

    Reads no data: dvc.lock holds the digests of all that the stages read and wrote.
    """
    lock = layout.root / "dvc.lock"
    registry = open_registry(params.registry, layout.root)
    if not lock.is_file() or params.registry.name not in registry.names():
        return None
    version = registry.resolve(params.registry.name)
    lineage = version.manifest.lineage
    settings = params.model_dump(mode="json", by_alias=True)["registry"]
    same = lineage.get("params", {}).get("registry") == settings
    return version if same and (lineage.get("dvc_lock") or {}).get("sha256") == file_digest(lock) else None


def _start(params: Params, layout: Layout) -> list[dict[str, str]]:
    """What training went on from: each entry of `start`, and the digest of the version or directory that it means."""
    policy = params.policies[params.registry.policy]
    if not policy.start:
        return []
    from mixdpo.stages.start import start_digests  # imports torch

    digests = start_digests(policy, params, layout)
    return [{"from": text, "sha256": each} for text, each in zip(policy.start, digests, strict=True)]


def _refuse_findings(policy: str, refuse: tuple[str, ...], layout: Layout) -> None:
    """Raise RegistryError where training found what `registry.refuse` names."""
    if not refuse:
        return
    path = layout.metrics(f"train-{policy}")
    summary = read_json(path)
    if "findings" not in summary:
        raise DataError(f"{path} says nothing of findings; run `mixdpo train {policy}` again, which writes them")
    found = [f"{each['name']}: {each['message']}" for each in summary["findings"] if each["name"] in refuse]
    if found:
        raise RegistryError(
            f"{policy} is not registered, because training found what registry.refuse names. "
            + "; ".join(found)
            + ". Mend that and train again, or take the finding out of registry.refuse"
        )


def _run_files(policy: str, layout: Layout) -> dict[str, Path]:
    """What the run left for people: path in the version → file."""
    root = layout.root
    figures = (path for path in (layout.reports / "figures").rglob("*") if path.is_file())
    found = [
        *(root / name for name in ("params.yaml", "dvc.lock")),
        *layout.metrics("evaluation").parent.glob("*.json"),
        layout.reports / "report.md",
        *figures,  # the report shows them
    ]
    run = {f"run/{path.relative_to(root).as_posix()}": path for path in found if path.is_file()}
    standing = {STANDING + suffix: layout.standing(policy).with_suffix(suffix) for suffix in SUFFIXES}
    return run | {path: file for path, file in standing.items() if file.is_file()}
