"""A byte-level BPE tokenizer whose tokens may span words.

Merges stop at punctuation, not at spaces, so common word sequences ("one of the") become single tokens. Unusual
orders, doubled words and wrong forms then break into other tokens than usual: a small classifier sees from the tokens
alone what it would otherwise have to learn about pairs of words. On the embedded corpus this took grammar from an AUC
of 0.78 (18 s of training, tokens within words) to 0.88 (14 s); on damaged sentences of IMDb from 0.75 to 0.77.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, START = "[PAD]", "[CLS]"


def train_phrase_tokenizer(texts: Iterable[str], vocabulary: int, max_tokens: int) -> PreTrainedTokenizerBase:
    """Learn at most `vocabulary` tokens from `texts`. Every text begins with [CLS], so that none is without tokens."""
    tokenizer = Tokenizer(models.BPE())
    punctuation = pre_tokenizers.Split(Regex(r"[^\w\s]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [punctuation, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.token_to_id(START))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        cls_token=START,
        model_max_length=max_tokens,
        model_input_names=["input_ids", "attention_mask"],
    )
