"""mixdpo: heterogeneous preferences in, specialised expert policies and a gate out.

`import mixdpo` is quick: the policy class, and torch with it, loads when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixdpo.policy import MixturePolicy

__version__ = "0.1.0"
__all__ = ["MixturePolicy", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "MixturePolicy":
        from mixdpo.policy import MixturePolicy

        return MixturePolicy
    raise AttributeError(f"module 'mixdpo' has no attribute {name!r}")
