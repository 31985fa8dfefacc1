"""params.yaml: where reviews and preferences come from, how they are cleaned, split and checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixdpo.config.base import Count, Fraction, Name, Natural, NonNegative, Positive, Section


class ReviewColumns(Section):
    """Which column of a source holds what; null where it has none."""

    text: str
    label: str | None  # 0 or 1, or a name that `labels` of the set translates
    stars: str | None  # 1 to 5
    user: str | None
    metadata: tuple[str, ...]  # kept as they are, in the JSON column


class ReviewSet(Section):
    """One table of reviews: files on this machine or a data set of the Hub."""

    domain: Name
    columns: ReviewColumns
    labels: dict[str, Literal[0, 1]] | None  # translation of label values; null where they are 0 and 1 already
    only: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] | None = (
        None  # column -> values of the rows to take
    )
    limit: Count | None  # at most so many rows, chosen by hash; null takes all


class FileSet(ReviewSet):
    paths: tuple[str, ...] = Field(min_length=1)  # globs below `inputs`; .parquet, .csv, .jsonl

    @model_validator(mode="after")
    def _all_that_arrives(self) -> FileSet:
        if self.limit is not None and reads_arrivals(self.paths):
            raise ValueError(
                f"limit is {self.limit}, but paths name what arrives: rows that a new file pushes beyond a limit would "
                "leave their near-duplicates free to come back in another split; set limit to null, and put a limited "
                "set of files that stay as they are beside this one"
            )
        return self


class HubSet(ReviewSet):
    dataset: str
    config: str | None
    split: str
    revision: str


class EmbeddedSource(Section):
    """Reviews from the project's own generator, whose properties are known (mixdpo.data.embedded)."""

    kind: Literal["embedded"]
    reviews: Count
    users: Count
    seed: Natural


class FilesSource(Section):
    kind: Literal["files"]
    sets: tuple[FileSet, ...] = Field(min_length=1)


class HubSource(Section):
    kind: Literal["hub"]
    sets: tuple[HubSet, ...] = Field(min_length=1)


Source = Annotated[EmbeddedSource | FilesSource | HubSource, Field(discriminator="kind")]


ARRIVALS = "arrivals"  # below `inputs`: what was taken from `arrivals.url`, a directory a batch


def reads_arrivals(paths: tuple[str, ...]) -> bool:
    """Whether one of these globs names what arrives, as `arrivals/*/books/*.csv` does."""
    return any(path.split("/")[0] == ARRIVALS for path in paths)


class Arrivals(Section):
    """A place where new files land; each run takes what came since the last one (mixdpo.data.arrivals)."""

    url: str  # a directory or s3://…, never written to; what lies in its directory books is read as arrivals/*/books/*
    settle_seconds: NonNegative  # a file is taken once it was left alone for so long: until then it may be half-written
    bad: Literal["quarantine", "refuse"]  # a file that cannot be read as params say: put it aside, or stop


class Cleaning(Section):
    min_words: Count
    max_words: Count  # longer reviews are cut there, at a sentence end where one is near
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | None  # Jaccard similarity of 5-word shingles; null keeps all

    @model_validator(mode="after")
    def _ordered(self) -> Cleaning:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}; lower it")
        return self


class Splits(Section):
    validation: Fraction
    test: Fraction

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Splits:
        if self.validation + self.test > 0.9:
            raise ValueError("validation + test is above 0.9, which leaves next to nothing to train on; lower them")
        return self


class Validation(Section):
    """When a gate stops instead of putting bad rows aside."""

    max_bad_fraction: Fraction  # of rows that may go to quarantine
    min_reviews: Count
    min_class_fraction: Annotated[float, Field(ge=0, le=0.5)]  # of the rarer sentiment label among labelled reviews
    min_pairs_per_annotator: Count


class Drift(Section):
    """How far the data may have moved from those of a version before a run says so, or stops (mixdpo.data.drift)."""

    against: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]  # alias of the version; it does not exist: no check
    warn: Positive  # population stability index of a column; 0.1 is a usual value
    refuse: Positive | None  # above it nothing is trained (only told of scores and labels made here); 0.25 is usual

    @model_validator(mode="after")
    def _ordered(self) -> Drift:
        if self.refuse is not None and self.refuse < self.warn:
            raise ValueError(f"refuse {self.refuse} is below warn {self.warn}; raise it, or set it to null")
        return self


class AnnotatedPairs(Section):
    """Pairs labelled here: annotators with styles compare scored candidates."""

    kind: Literal["annotated"]


class Compared(Section):
    """Two texts and what was said of them, as comparisons are usually collected."""

    first: str
    second: str
    choice: str
    values: dict[str, Literal["first", "second", "tie"]] = Field(min_length=1)  # what each value of `choice` means


class PreferenceColumns(Section):
    """Which column of ready preference data holds what; null where it has none."""

    prompt: str | Annotated[tuple[str, ...], Field(min_length=1)]  # several columns are joined, in order
    separator: str = ""  # written after the text of each prompt column
    chosen: str | None
    rejected: str | None
    compared: Compared | None = None  # in place of chosen and rejected, which are null then
    annotator: str | None  # null: every pair is its own annotator
    style: str | None  # known taste of the annotator, used in evaluation only
    domain: str | None
    split: str | None  # null: by hash of the prompt
    splits: dict[str, Literal["train", "validation", "test"]] | None = (
        None  # translation, where they are named otherwise
    )
    metadata: tuple[str, ...]

    @model_validator(mode="after")
    def _says_who_won(self) -> PreferenceColumns:
        if {self.chosen is None, self.rejected is None} != {self.compared is not None}:
            raise ValueError(
                "expected the columns chosen and rejected, or `compared` and null for these two; name one way to tell "
                "which text won"
            )
        if self.splits is not None and self.split is None:
            raise ValueError("splits translates the values of a column, but split is null; name the column")
        return self


class PreferenceFiles(Section):
    """The second door: ready preference data."""

    kind: Literal["files"]
    paths: tuple[str, ...] = Field(min_length=1)
    columns: PreferenceColumns
    min_pairs: Count | None = None  # annotators with fewer pairs (ties do not count) are left out
    per_annotator: Count | None = None  # at most so many pairs of an annotator in each split, chosen by hash
    limit: Count | None  # at most so many pairs, of whole annotators, chosen by hash


class Style(Section):
    """What one kind of annotator likes."""

    weights: dict[Name, float]  # of the standardised reward scores; negative dislikes
    share: Positive  # of annotators, relative to the other styles
    domains: dict[Name, Positive] | None  # how often they judge each domain, relative; null: as prompts come

    @model_validator(mode="after")
    def _likes_something(self) -> Style:
        if not any(self.weights.values()):
            raise ValueError("all weights are 0, so this style has no preference; give one a value")
        return self


class Annotators(Section):
    """A made population: who labels what. But for those who return, annotators of one split label in no other."""

    train: Count
    validation: Count
    test: Count
    pairs: Count  # labelled by each
    noise: Annotated[float, Field(ge=0, lt=0.5)]  # probability that a label is flipped
    min_gap: NonNegative  # pairs closer than this in utility (standard deviations) are not asked
    # share of the test annotators who labelled training pairs too (of other prompts): a gate may know them
    returning: Fraction = 0.0


class Preferences(Section):
    source: Annotated[AnnotatedPairs | PreferenceFiles, Field(discriminator="kind")]
    annotators: Annotators | None  # null where pairs come from files
    styles: dict[Name, Style]  # of these annotators

    @model_validator(mode="after")
    def _someone_labels(self) -> Preferences:
        if self.source.kind == "annotated" and not (self.annotators and self.styles):
            raise ValueError("pairs are to be labelled here, but annotators or styles are not given; fill both in")
        return self
