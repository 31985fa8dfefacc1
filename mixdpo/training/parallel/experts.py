"""K experts of which each rank holds a share."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import Parameter

from mixdpo.policy.experts import Experts, SharedTrunk
from mixdpo.training.parallel.gradients import GradientSum, local, squared_norm
from mixdpo.training.parallel.ranks import Ranks
from mixdpo.training.parallel.sharding import shard_trunk
from mixdpo.training.parallel.shares import expert_spans


class _Part(NamedTuple):
    """Parameters of which so many ranks hold a copy, each with a gradient of its own pairs."""

    parameters: list[Parameter]
    copies: int
    group: dist.ProcessGroup | None  # those ranks; None: all


class SpreadExperts(nn.Module):
    """This rank's share of K experts; to a run it stands for all of them.

    Attributes:
        experts: K.
        own: those that this rank holds.
        held: their numbers.
        spans: the numbers that each row of the grid holds.
        learns: whether any rank holds a parameter that learns.
    """

    def __init__(self, whole: Experts, ranks: Ranks) -> None:
        """Take a share of experts that every rank has whole.

        Models of their own, and a shared trunk, stay the same objects unless they are sharded; heads become copies.

        Raises:
            ConfigError: a rank would hold no expert.
        """
        super().__init__()
        self.experts, self.ranks = whole.experts, ranks
        self.spans = expert_spans(whole.experts, ranks.experts)
        self.held = self.spans[ranks.expert_place]
        self.learns = any(parameter.requires_grad for parameter in whole.parameters())
        self.own: Experts = whole.select(self.held)
        self.shared = isinstance(self.own, SharedTrunk)
        if ranks.shard:
            self.own = copy.deepcopy(self.own)
            mesh = ranks.mesh_of("world" if self.shared else "data")
            for trunk in {id(member.trunk): member.trunk for member, _ in self.own.models()}.values():
                shard_trunk(trunk, mesh)
        self.to(ranks.device)
        self._parts = self._divide()
        self._sums = [GradientSum(part.parameters, part.group) for part in self._parts if part.copies > 1]

    def expert_parameters(self, expert: int) -> list[tuple[Parameter, int | None]]:
        """As of `policy.Experts`; none where another rank holds the expert."""
        return self.own.expert_parameters(expert - self.held.start) if expert in self.held else []

    @torch.no_grad()
    def copy_expert(self, source: int, target: int) -> None:
        """Make expert `target` equal to expert `source`, wherever they are, in place. All ranks call this."""
        if source in self.held and target in self.held:
            self.own.copy_expert(source - self.held.start, target - self.held.start)
        elif source in self.held:
            for tensor in self._tensors(source):
                dist.send(tensor.contiguous(), dst=self._holder(target))
        elif target in self.held:
            for tensor in self._tensors(target):
                found = torch.empty_like(tensor, memory_format=torch.contiguous_format)
                dist.recv(found, src=self._holder(source))
                tensor.copy_(found)

    def sum_gradients(self) -> None:
        """Add up the gradients of parameters that several ranks hold; FSDP has done so for those that are spread."""
        for add_up in self._sums:
            add_up()

    def clip_gradient(self, limit: float) -> Tensor | None:
        """Bound the norm of the gradient of all K experts, in place; the norm before, equal on all ranks.

        None where none of them learns.
        """
        if not self.learns:
            return None
        norm = self._gradient_norm()
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        for part in self._parts:
            for parameter in part.parameters:
                if parameter.grad is not None:
                    local(parameter.grad).mul_(scale)
        return norm

    def _gradient_norm(self) -> Tensor:
        total = torch.stack([squared_norm(part.parameters, part.copies) for part in self._parts]).sum()
        total = total.to(self.ranks.device)
        dist.all_reduce(total)
        return total.sqrt().float()

    def _divide(self) -> list[_Part]:
        """The parameters that learn, by the ranks that hold copies."""
        ranks = self.ranks
        trunk = {id(parameter) for member, _ in self.own.models() for parameter in member.trunk.parameters()}
        learning = [parameter for parameter in self.own.parameters() if parameter.requires_grad]
        bodies = [parameter for parameter in learning if id(parameter) in trunk]
        heads = [parameter for parameter in learning if id(parameter) not in trunk]
        of_heads = _Part(heads, ranks.data, ranks.group("data"))
        if ranks.shard:
            return [_Part(bodies, 1, None), of_heads]
        if self.shared:
            return [_Part(bodies, ranks.size, None), of_heads]
        return [_Part(learning, ranks.data, ranks.group("data"))]

    def _tensors(self, expert: int) -> list[Tensor]:
        parts = self.expert_parameters(expert)
        return [local(parameter if place is None else parameter[place]) for parameter, place in parts]

    def _holder(self, expert: int) -> int:
        """The rank of this rank's column that holds an expert."""
        place = next(place for place, span in enumerate(self.spans) if expert in span)
        return self.ranks.at(place, self.ranks.data_place)
