"""A reward model in use: any Hugging Face sequence classifier, read as a probability of one label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.compute import Compute
from mixdpo.config.models import PretrainedReward
from mixdpo.errors import DataError, ModelError
from mixdpo.files import read_json, write_json
from mixdpo.hub import asking_hub, first_line
from mixdpo.linear import can_pack, laid_out, linear_weights
from mixdpo.progress import track
from mixdpo.rewards.batching import budgeted_batches, pad
from mixdpo.rewards.encoding import Encoder

Floats = NDArray[np.float64]

CARD = "reward.json"
CPU = Compute(torch.device("cpu"), torch.float32)
# weights of linear layers from which on products are what scoring costs; for fewer, setting up products of laid-out
# weights for a new size of batch (6 ms) costs more than is saved
LARGE = 4_000_000
PAYS_AFTER = 1024  # tokens: laying weights out costs what about 400 of them save
EXPECTED = "expected a directory with config.json, model.safetensors and a tokenizer, or a Hub id and its revision"


class RewardModel:
    """score = probability of one label after temperature: softmax(logits / T)[label]; sigmoid for a single logit."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        label: int,
        temperature: float,
        compute: Compute = CPU,
        name: str = "the reward model",
    ) -> None:
        self.model = model.to(compute.device).eval()
        self.tokenizer = tokenizer
        self.label = label
        self.temperature = temperature
        self.compute = compute
        self.name = name
        self.max_tokens = _max_tokens(model, tokenizer)

    @classmethod
    def load(cls, source: PretrainedReward | Path, compute: Compute = CPU, inputs: Path = Path()) -> RewardModel:
        """A model named in params.yaml (a directory below `inputs`, or a Hub id) or one that `mixdpo rewards` wrote.

        Raises:
            TransientError: no directory, and the Hub does not answer.
            ModelError: neither there nor on the Hub, not a sequence classifier, or without that label.
        """
        if isinstance(source, PretrainedReward):
            directory = inputs / source.model
            place = directory if directory.is_dir() else source.model
            model, tokenizer = _load(place, source.revision)
            label = resolve_label(model, source.label, str(place))
            return cls(model, tokenizer, label, source.temperature, compute, str(place))
        if not (source / CARD).is_file():
            raise ModelError(f"{source} holds no reward model ({CARD} is missing); run `mixdpo rewards`")
        card = read_json(source / CARD)
        model, tokenizer = _load(source, None)
        label = resolve_label(model, card["label"], str(source))
        return cls(model, tokenizer, label, card["temperature"], compute, str(source))

    def save(self, directory: Path, card: Mapping[str, Any]) -> None:
        """Write a Hugging Face directory and reward.json: `card` with what `load` needs."""
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        write_json(
            directory / CARD, {**card, "label": label_name(self.model, self.label), "temperature": self.temperature}
        )

    @cached_property
    def large(self) -> bool:
        return linear_weights(self.model) >= LARGE

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.max_tokens)

    def score(self, texts: Sequence[str], batch_tokens: int, what: str = "scoring") -> Floats:
        """Scores in [0, 1], (texts,), the same whichever texts come along (to 1e-6 in float32). See `score_texts`."""
        return score_texts({"": self}, texts, batch_tokens, what)[""]

    def score_rows(
        self, texts: Sequence[str], rows: Sequence[Sequence[int]], batch_tokens: int, what: str | None = None
    ) -> Floats:
        """Scores in [0, 1], (texts,), of texts that `encoder` has cut into token ids.

        Args:
            what: for the progress bar; None shows none.

        Raises:
            ModelError: the model says of a text what is no finite number.
        """
        logits = self._logits(rows, batch_tokens, what) / self.temperature
        if len(bad := (~logits.isfinite()).any(dim=1).nonzero()):
            place = int(bad[0])
            raise ModelError(
                f"{self.name} answers {logits[place].tolist()} to the text {texts[place][:60]!r} ({len(bad)} of "
                f"{len(texts)} texts are so), expected finite logits; "
                + ("set compute.dtype to float32" if self.compute.precision is torch.bfloat16 else "use another model")
            )
        if logits.shape[1] == 1:
            return logits[:, 0].sigmoid().numpy()
        return logits.softmax(dim=1)[:, self.label].numpy()

    def logits(self, texts: Sequence[str], batch_tokens: int, what: str | None = None) -> Tensor:
        """(texts, labels) in float64 on the CPU, before temperature."""
        return self._logits(self.encoder(texts), batch_tokens, what)

    @torch.inference_mode()
    def _logits(self, rows: Sequence[Sequence[int]], batch_tokens: int, what: str | None) -> Tensor:
        device, precision = self.compute
        batches = budgeted_batches([len(row) for row in rows], batch_tokens, device.type, self.large)
        order = [place for batch in batches for place in batch]
        parts = [torch.empty(0, self.model.config.num_labels, device=device)]
        half = torch.autocast(device.type, dtype=precision, enabled=precision is torch.bfloat16)
        pays = self.large and sum(map(len, rows)) >= PAYS_AFTER
        packed = pays and can_pack(self.model, device, precision)
        with half, laid_out(self.model, precision, packed):
            for batch in batches if what is None else track(batches, what):
                ids, mask = pad([rows[place] for place in batch], self.tokenizer.pad_token_id, device)
                parts.append(self.model(input_ids=ids, attention_mask=mask).logits)
        # one copy for all: a GPU does not wait between batches
        found = torch.cat([part.double() for part in parts]).cpu()
        return torch.empty_like(found).index_copy_(0, torch.tensor(order, dtype=torch.long), found)


def score_texts(
    models: Mapping[str, RewardModel], texts: Sequence[str], batch_tokens: int, what: str | None = None
) -> dict[str, Floats]:
    """Scores in [0, 1] of each text under each model: (texts,) by the models' names.

    Equal texts are read once, and cut into tokens once for all models whose tokenizers agree.

    Args:
        batch_tokens: at most so many at once.
        what: for the progress bar; None shows none.

    Raises:
        DataError: one of the texts is none. ModelError: a model's answer to one is no finite number.
    """
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {place} is {text!r} ({type(text).__name__}), expected a string; drop this row")
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    different, back = list(places), [places[text] for text in texts]
    rows: dict[str, list[list[int]]] = {}
    scores = {}
    for name, model in models.items():
        if model.encoder.key not in rows:
            rows[model.encoder.key] = model.encoder(different)
        scores[name] = model.score_rows(different, rows[model.encoder.key], batch_tokens, what)[back]
    return scores


def resolve_label(model: PreTrainedModel, label: str, source: str) -> int:
    """The index of `label`: a name in id2label, or an index.

    Raises:
        ModelError: there is no such label; the message lists those there are.
    """
    names = {index: str(name) for index, name in model.config.id2label.items()}
    for index, name in names.items():
        if name == label:
            return int(index)
    if label.isdigit() and int(label) in names:
        return int(label)
    listing = ", ".join(f"{name} ({index})" for index, name in sorted(names.items()))
    raise ModelError(f"{source} has no label {label!r}; it has {listing}: name one of these in params.yaml")


def label_name(model: PreTrainedModel, label: int) -> str:
    return str(model.config.id2label[label])


def _load(place: Path | str, revision: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    local = isinstance(place, Path)
    if not local and revision is None:
        raise ModelError(
            f"reward model {place!r} is no directory here, and a Hub id needs a `revision`: "
            "name the commit in params.yaml, or correct the path"
        )
    named = f"reward model {str(place)!r} (revision {revision})"
    try:
        with nullcontext() if local else asking_hub(named):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                str(place),
                revision=revision,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(str(place), revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{named} cannot be loaded as a sequence classifier ({first_line(error)}); {EXPECTED}"
        ) from error
    if report["missing_keys"]:
        raise ModelError(
            f"reward model {str(place)!r} is no sequence classifier: its weights lack "
            f"{', '.join(sorted(report['missing_keys']))}; name a model that was trained to classify"
        )
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"reward model {str(place)!r} has no padding token, so texts cannot be batched; "
            "name one as pad_token in its tokenizer_config.json and as pad_token_id in its config.json"
        )
    return model, tokenizer


def _max_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The longest text the model reads, in tokens, those of the tokenizer's own included."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)]
    for name, module in model.named_modules():
        # RoBERTa and its kin number positions from padding_idx + 1 on
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - offset)
    return int(min(limits))
