"""The parameters of a transformer body spread over the ranks that train it: FSDP2, layer by layer."""

from __future__ import annotations

import warnings

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard_trunk(trunk: nn.Module, mesh: DeviceMesh) -> None:
    """Spread a body over the ranks of a mesh of one dimension, in place, and move it to their device.

    A layer is whole on a rank only while it computes. Gradients are summed over the ranks, as the loss asks, which
    each rank knows for its own pairs alone.
    """
    # it warns of writing over what a body returns, which nothing here does
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    layers = [layer for part in trunk.children() if isinstance(part, nn.ModuleList) for layer in part]
    for module in (*layers, trunk):
        # always: what a rank holds between passes is then its part, whichever pass came last
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        # a plain sum, which all backends know
        module.set_force_sum_reduction_for_comms(True)
