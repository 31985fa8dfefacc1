"""Where every stage reads and writes: the only place that knows a path. `dvc.yaml` repeats it, a test compares them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TABLES = ("reviews", "scores", "preferences")
PROFILES = ("reviews", "preferences")  # parts of the data that are described: before and after annotators judged
STANDING = (".json", ".safetensors")  # the files that say how a policy stands, by suffix


@dataclass(frozen=True)
class Layout:
    """All paths of one project directory (`root` holds params.yaml and dvc.yaml)."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    # what arrives
    @property
    def arrivals_quarantine(self) -> Path:
        """Copies of landed files that cannot be read as params.yaml says, and why (manifest.json)."""
        return self.data / "quarantine" / "arrivals"

    @property
    def landing_digests(self) -> Path:
        """Untracked: sha256 of files in the landing place that were read already."""
        return self.root / ".mixdpo" / "arrivals.json"

    @property
    def check(self) -> Path:
        """Untracked: a rehearsal of the next run's first stages."""
        return self.root / ".mixdpo" / "check"

    # stage prepare
    @property
    def prepared_reviews(self) -> Path:
        return self.data / "prepared" / "reviews.parquet"

    # stages annotate and preferences write these; stage validate reads them
    @property
    def annotated_scores(self) -> Path:
        return self.data / "annotated" / "scores.parquet"

    @property
    def labelled_preferences(self) -> Path:
        return self.data / "labelled" / "preferences.parquet"

    # stage validate TABLE
    def unvalidated(self, table: str) -> Path:
        return {
            "reviews": self.prepared_reviews,
            "scores": self.annotated_scores,
            "preferences": self.labelled_preferences,
        }[table]

    def validated(self, table: str) -> Path:
        return self.data / "validated" / f"{table}.parquet"

    def quarantine(self, table: str) -> Path:
        return self.data / "quarantine" / f"{table}.parquet"

    def validation_page(self, table: str) -> Path:
        return self.root / "reports" / f"validation-{table}.html"

    # stage describe PART
    def profile(self, part: str) -> Path:
        return self.metrics(f"profile-{part}")

    # stages rewards, sft, candidates, reference
    @property
    def rewards(self) -> Path:
        return self.data / "rewards"

    def reward_model(self, dimension: str, role: str) -> Path:
        return self.rewards / dimension / role

    @property
    def sft(self) -> Path:
        return self.data / "sft"

    @property
    def candidates(self) -> Path:
        return self.data / "candidates" / "candidates.parquet"

    @property
    def reference(self) -> Path:
        return self.data / "reference"

    @property
    def reference_stores(self) -> Path:
        """Untracked: log-probs and prompt features of frozen models, by content; later runs find them."""
        return self.root / ".mixdpo" / "reference"

    # stage train NAME
    def policy(self, name: str) -> Path:
        return self.data / "policies" / name

    def training_curve(self, name: str) -> Path:
        return self.root / "plots" / f"train-{name}.csv"

    # stages evaluate and report
    @property
    def evaluation(self) -> Path:
        return self.data / "evaluation"

    def standing(self, policy: str) -> Path:
        """Of the files that say how a policy stands, without their suffixes."""
        return self.standings(self.evaluation) / policy

    @staticmethod
    def standings(evaluation: Path) -> Path:
        return evaluation / "standings"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    def metrics(self, stage: str) -> Path:
        """metrics/STAGE.json; STAGE may carry an argument, as in `validation-reviews` or `train-mix`."""
        return self.root / "metrics" / f"{stage}.json"

    # studies
    @property
    def study_params(self) -> Path:
        return self.root / "studies" / "params.yaml"

    def study(self, name: str) -> Path:
        return self.root / "studies" / "results" / name

    @property
    def study_cache(self) -> Path:
        """Untracked: figures of finished variants, and what all of them share."""
        return self.root / ".mixdpo" / "studies"

    def work(self, stage: str, key: str) -> Path:
        """Untracked directory for a stage's resumable state, keyed by a digest of all its inputs."""
        return self.root / ".mixdpo" / "work" / f"{stage}-{key[:16]}"

    def lock(self, stage: str) -> Path:
        """Untracked: held by the process that writes the outputs of `stage`, as in "train-moe", and names it."""
        return self.root / ".mixdpo" / "locks" / f"{stage.replace('/', '-')}.lock"
