"""What a team shares: DVC's remotes, the code of a run by its commit, signatures of versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixdpo.config import Params
from mixdpo.doctor.finding import Finding
from mixdpo.errors import MixDPOError

SECONDS = 5  # that a remote may take to answer


def remotes(root: Path) -> Finding:
    """Whether each remote answers with these credentials, and looks at what it sends."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    try:
        with Repo(str(root)) as repo:
            settings: dict[str, dict[str, Any]] = repo.config["remote"]
            silent = {name: fault for name in settings if (fault := _fault(repo, name))}
    except (DvcException, SCMError):
        return Finding("DVC remote", "ok", "not looked at: see pipeline")
    if not settings:
        return Finding("DVC remote", "ok", "none: data and runs stay on this machine")
    if silent:
        found = "\n".join(f"{name} ({settings[name]['url']}): {fault}" for name, fault in silent.items())
        remedy = "set the credentials (AWS_* or `dvc remote modify --local`), or correct it with `dvc remote modify`"
        return Finding("DVC remote", "fail", found, remedy)
    trusting = [name for name, each in settings.items() if not each.get("verify")]
    if trusting:
        found = f"{', '.join(trusting)}: a damaged object would be taken for a good one"
        return Finding("DVC remote", "warn", found, f"`dvc remote modify {trusting[0]} verify true`")
    return Finding("DVC remote", "ok", f"{', '.join(settings)}: answers, and what it sends is verified")


def _fault(repo: Any, name: str) -> str | None:
    """What is wrong with a remote; None where it answers."""
    if repo.config["remote"][name]["url"].startswith("s3://"):
        repo.config["remote"][name].setdefault("connect_timeout", SECONDS)
        repo.config["remote"][name].setdefault("read_timeout", SECONDS)
    try:
        remote = repo.cloud.get_remote(name)
        remote.fs.exists(remote.path)  # of an empty one too: only no answer is a fault
    except Exception as error:  # noqa: BLE001 (each kind of remote has its own)
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def code(root: Path) -> Finding:
    """Whether the commit says what code a version is made with."""
    from mixdpo.registry.lineage import git_state

    state = git_state(root)
    if state is None:
        found = "no commit of git here: versions cannot say what code made them"
        return Finding("code", "warn", found, "work in a clone of the repository")
    if state["dirty"]:
        found = f"differs from commit {state['commit'][:12]}: a version registered now cannot be made again from it"
        return Finding("code", "warn", found, "commit what a version is to be made with")
    return Finding("code", "ok", f"as in commit {state['commit'][:12]}")


def signatures(params: Params, root: Path) -> Finding:
    """Whether versions would be signed, and by a key that those who read them trust."""
    from mixdpo.registry import signing_key
    from mixdpo.registry.trust import Trust

    signing = params.registry.signing
    asked = [Trust(signing.trusted, signing.required)] if signing else []
    asked += [each for each in (Trust.of_environment(),) if each is not None]
    try:
        key = signing_key(params.registry, root)
        for policy in asked:
            policy.ids()  # each must be a key
            policy.check_signer(key)
    except MixDPOError as error:
        return Finding("signatures", "fail", str(error), "`mixdpo keygen PATH` makes a key and prints its public half")
    if key is None:
        return Finding("signatures", "ok", "versions are not signed, and need not be")
    from mixdpo.registry.keys import public_text

    return Finding("signatures", "ok", f"versions are signed by {public_text(key.public_key())}")
