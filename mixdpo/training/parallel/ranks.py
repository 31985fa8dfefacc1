"""The processes that train one policy together, and this one's place among them (docs/scaling.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from mixdpo.training.parallel.roll import Roll

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """A grid of processes: `experts` rows, of which each holds its share of the experts, of `data` processes each.

    Neighbours share a row: what they exchange is the large part, the gradients of the same experts, and neighbours sit
    on one machine.

    Attributes:
        shard: whether the parameters of a transformer body are spread over all ranks that train it (FSDP2).
        mesh: of the dimensions "experts" and "data"; None for a process by itself.
        roll: signs of life of all ranks.
    """

    data: int = 1
    experts: int = 1
    rank: int = 0
    device: torch.device = CPU
    shard: bool = False
    mesh: DeviceMesh | None = None
    roll: Roll | None = None

    def reach(self, step: int) -> None:
        """Let the others know how far this rank is."""
        if self.roll is not None:
            self.roll.at = step

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first rank does it by itself; the others after it, who find what it left on the disk."""
        if self.roll is not None and not self.first:
            self.roll.wait_for("alone")
        yield
        if self.roll is not None and self.first:
            self.roll.announce("alone")

    @property
    def size(self) -> int:
        return self.data * self.experts

    @property
    def alone(self) -> bool:
        return self.mesh is None

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and speaks to people."""
        return self.rank == 0

    @property
    def expert_place(self) -> int:
        return self.rank // self.data

    @property
    def data_place(self) -> int:
        return self.rank % self.data

    def at(self, expert_place: int, data_place: int) -> int:
        """The rank at this place of the grid."""
        return expert_place * self.data + data_place

    def mesh_of(self, dimension: str) -> DeviceMesh:
        """The ranks that differ from this one along "data" or "experts" alone, or all of them ("world")."""
        assert self.mesh is not None
        if dimension == "world":
            return DeviceMesh(self.device.type, torch.arange(self.size), mesh_dim_names=("world",))
        return self.mesh[dimension]

    def group(self, dimension: str) -> dist.ProcessGroup:
        """The ranks that differ from this one along "data" or "experts" alone."""
        assert self.mesh is not None
        return self.mesh.get_group(dimension)


ALONE = Ranks()
