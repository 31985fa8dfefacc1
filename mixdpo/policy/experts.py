"""Expert policies: K heads over one trunk (Mix-DPO, case 1) or K models of their own (MoE-DPO, case 2)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mixdpo.errors import ModelError
from mixdpo.policy.head_logps import KEPT_BYTES
from mixdpo.policy.heads import Heads
from mixdpo.policy.layout import Layout
from mixdpo.policy.lora import adapters, perturb_adapters
from mixdpo.policy.packing import fuse_activations, trunk_states
from mixdpo.policy.tokens import TokenBatch, context_of


class SharedTrunk(nn.Module):
    """One transformer body and K output heads.

    Attributes:
        trainable: whether the whole body learns; adapters in it (`lora.add_adapters`) do so while the rest is frozen.
    """

    def __init__(self, trunk: PreTrainedModel, heads: Heads, trainable: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = heads
        self.trainable = trainable
        fuse_activations(trunk)
        trunk.requires_grad_(trainable)
        for parameter in adapters(trunk).values():
            parameter.requires_grad_(True)

    @property
    def experts(self) -> int:
        return self.heads.experts

    @property
    def context(self) -> int | None:
        """How many positions the model reads, where its configuration says so."""
        return context_of(self.trunk)

    def forward(
        self,
        batch: TokenBatch,
        tile_tokens: int = 4096,
        states_CD: Tensor | None = None,
        recompute: bool = False,
    ) -> Tensor:
        """log π_k(y|x) of every row under every expert: (rows, experts), float32, nats.

        Only completion positions go under the heads, `tile_tokens` of them at a time.

        Args:
            states_CD: `completion_states(batch)` where they are known; None: the trunk computes them.
            recompute: keep less for the backward pass, which runs layers of the trunk again.
        """
        hidden_CD = self.completion_states(batch, recompute) if states_CD is None else states_CD
        kept = self._room(len(hidden_CD)) * tile_tokens // max(tile_tokens, len(hidden_CD))
        tiles = zip(hidden_CD.split(tile_tokens), batch.target.split(tile_tokens), strict=True)
        token_logps_CK = torch.cat([self.heads.logps(hidden, target, kept) for hidden, target in tiles])
        return token_logps_CK.new_zeros(batch.rows, self.experts).index_add(0, batch.row, token_logps_CK)

    def completion_states(self, batch: TokenBatch, recompute: bool = False) -> Tensor:
        """Trunk states that predict the completion tokens: (completion tokens, width)."""
        states = trunk_states(self.trunk, batch.input_ids, batch.layout, recompute)
        return states[batch.layout.places.to(states.device)[batch.row, batch.position]]

    def _room(self, tokens: int) -> int:
        """Bytes that logits may take until the way back: one head's, whatever K, and the gradients' of the trunk.

        Those come when the heads are done, so that the peak is no higher.
        """
        to_come: int = sum(each.nbytes for each in self.trunk.parameters() if each.requires_grad and each.grad is None)
        one_head = 4 * tokens * self.heads.vocabulary
        return min(KEPT_BYTES, one_head) + to_come

    def prompt_features(self, batch: TokenBatch) -> Tensor:
        """What a gate sees of each row: its mean word embedding and mean last state (rows, 2·width), float32.

        method.md §4 takes the last states alone. They are about the *next* token: in a small model a linear probe read
        the domain of an unseen prompt from them in 67 % of cases, from both together in 83 % (docs/results.md).
        """
        layout = Layout.apart(batch.layout.lengths)
        flat, lengths = (each.to(batch.input_ids.device) for each in (layout.flat, torch.tensor(layout.lengths)))
        embedded = self.trunk.get_input_embeddings()(batch.input_ids.flatten()[flat])
        both = torch.cat([embedded, trunk_states(self.trunk, batch.input_ids, layout)], dim=-1).float()
        row = torch.arange(batch.rows, device=lengths.device).repeat_interleave(lengths)
        return both.new_zeros(batch.rows, both.shape[-1]).index_add(0, row, both) / lengths[:, None]

    def perturb(self, scale: float, generator: torch.Generator) -> None:
        """Break the symmetry of equal experts (method.md §5)."""
        self.heads.perturb(scale, generator)

    def models(self) -> Iterator[tuple[SharedTrunk, int]]:
        """(the trunk that runs expert k, its head there) for k = 0 … K−1."""
        for head in range(self.experts):
            yield self, head

    def parts(self) -> Iterator[tuple[SharedTrunk, slice]]:
        """Each model once, and the columns of the log-probs that are its own."""
        yield self, slice(0, self.experts)

    def copy_expert(self, source: int, target: int) -> None:
        """Make expert `target` equal to expert `source`, in place."""
        self.heads.copy_expert(source, target)

    def select(self, experts: Sequence[int]) -> SharedTrunk:
        """These experts in this order over the same trunk: one named twice is copied, one not named is left out."""
        return SharedTrunk(self.trunk, self.heads.select(experts), self.trainable)

    def expert_parameters(self, expert: int) -> list[tuple[nn.Parameter, int | None]]:
        """Parameters that are one expert's own, each with its row in the first dimension (None: all of it)."""
        return [(parameter, expert) for parameter in self.heads.parameters()]


class IndependentExperts(nn.Module):
    """K models of their own, each a trunk with one head, so that both cases share every formula.

    They are whole models, or the same frozen model, whose weights exist once, with adapters of their own.

    Raises:
        ModelError: the models' vocabularies differ.
    """

    def __init__(self, members: Sequence[SharedTrunk]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        sizes = [member.heads.vocabulary for member in members]
        for place, size in enumerate(sizes):
            if size != sizes[0]:
                raise ModelError(
                    f"expert {place} knows {size} tokens but expert 0 knows {sizes[0]}; a mixture needs one "
                    f"vocabulary: name models of the same tokenizer and vocabulary size"
                )

    @property
    def experts(self) -> int:
        return len(self.members)

    @property
    def context(self) -> int | None:
        """How many positions all models read."""
        return min((member.context for member, _ in self.models() if member.context is not None), default=None)

    def forward(self, batch: TokenBatch, tile_tokens: int = 4096) -> Tensor:
        """log π_k(y|x): (rows, experts), float32, nats."""
        return torch.cat([member(batch, tile_tokens) for member in self.members], dim=-1)

    def prompt_features(self, batch: TokenBatch) -> Tensor:
        """What a gate sees of each row, under the first model: (rows, 2·width), float32."""
        return next(self.models())[0].prompt_features(batch)

    def perturb(self, scale: float, generator: torch.Generator) -> None:
        """Break the symmetry of equal experts (method.md §5)."""
        for member, _ in self.models():
            if adapters(member.trunk):
                perturb_adapters(member.trunk, scale, generator)
            else:
                member.perturb(scale, generator)

    def models(self) -> Iterator[tuple[SharedTrunk, int]]:
        for member in self.members:
            assert isinstance(member, SharedTrunk)
            yield member, 0

    def parts(self) -> Iterator[tuple[SharedTrunk, slice]]:
        """Each model once, and the columns of the log-probs that are its own."""
        for expert, (member, _) in enumerate(self.models()):
            yield member, slice(expert, expert + 1)

    @torch.no_grad()
    def copy_expert(self, source: int, target: int) -> None:
        """Make expert `target` equal to expert `source`, in place."""
        for (old, _), (new, _) in zip(self.expert_parameters(target), self.expert_parameters(source), strict=True):
            old.copy_(new)

    def select(self, experts: Sequence[int]) -> IndependentExperts:
        """These experts in this order: one named again is copied, one not named is left out."""
        members = [member for member, _ in self.models()]
        return IndependentExperts(
            [
                twin(members[expert]) if expert in experts[:place] else members[expert]
                for place, expert in enumerate(experts)
            ]
        )

    def expert_parameters(self, expert: int) -> list[tuple[nn.Parameter, int | None]]:
        """Parameters that are one expert's own: its adapters, or those of its whole model."""
        return [(parameter, None) for parameter in _own(list(self.models())[expert][0])]


Experts = SharedTrunk | IndependentExperts


def twin(member: SharedTrunk) -> SharedTrunk:
    """An equal model with parameters of its own; what lies under adapters is shared, not copied."""
    own = {id(parameter) for parameter in _own(member)}
    # deepcopy takes what its memo holds for copied already
    return copy.deepcopy(member, {id(shared): shared for shared in member.parameters() if id(shared) not in own})


def _own(member: SharedTrunk) -> list[nn.Parameter]:
    return list(adapters(member.trunk).values()) or list(member.parameters())


def split_causal_lm(model: PreTrainedModel) -> tuple[PreTrainedModel, Tensor, Tensor | None]:
    """Body, head weight (vocabulary, width) and head bias of a Hugging Face causal language model.

    Raises:
        ModelError: it has no plain output head, or its logits are not that head on its last states (scaled or
            capped logits), so K heads could not stand in for it.
    """
    head = model.get_output_embeddings()
    body = getattr(model, "base_model", None)
    if not isinstance(head, nn.Linear) or body is None or body is model:
        raise ModelError(
            f"{type(model).__name__} has no body with a linear output head; use a decoder such as GPT-2, Llama or NeoX"
        )
    with torch.no_grad():
        probe = torch.arange(4, device=model.device)[None] % head.out_features
        expected = model(input_ids=probe).logits.float()
        found = head(body(input_ids=probe).last_hidden_state).float()
    if not torch.allclose(expected, found, atol=1e-3, rtol=1e-3):
        raise ModelError(
            f"{type(model).__name__} changes its logits after the head (scaling or soft-capping), which expert heads "
            f"do not repeat; choose an architecture without that"
        )
    return body, head.weight, head.bias
