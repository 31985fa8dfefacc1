"""In bfloat16 products alone are narrow: what is made of log-probs is float32, and a run goes where it would have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mixdpo.training import run
from mixdpo.training.estep import Assigned
from mixdpo.training.mixture import Forward
from mixdpo.training.mstep import m_step_loss
from mixdpo.training.passes import Passes

# torch says so whenever flags of oneDNN are set
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")

Make = Callable[..., Any]
HALF = torch.bfloat16
TRAINABLE = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}
LOWRANK = {"kind": "shared", "head": "lowrank", "rank": 4, "trunk": "trainable"}
GATE = {"kind": "gate", "hidden": 4, "entropy": 0.01, "rest_steps": 0, "learning_rate": 1e-2}
# what exponentiates, normalises, gathers log-probs of tokens or moves parameters, by the names of its operations
SENSITIVE = {"exp", "exp2", "log", "logsumexp", "softmax", "log_softmax", "log_sigmoid_forward", "index_add"}
SENSITIVE |= {"linalg_vector_norm", "foreach_norm", "fused_adamw"}
# loss and responsibilities by so much, margins by so many nats
CLOSE = {"loss": 0.01, "margins": 0.05, "responsibilities": 0.03}


@pytest.fixture(params=[True, False], ids=["oneDNN", "without"])
def products(request: pytest.FixtureRequest) -> Iterator[None]:
    """By the library that uses matrix units where there are some, and by torch's own loops."""
    with torch.backends.mkldnn.flags(enabled=request.param):
        yield


class Watched(TorchDispatchMode):
    """The types of what each operation is given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = self.seen.setdefault(func.overloadpacket.__name__, set())
        given |= {each.dtype for each in torch.utils._pytree.tree_leaves(args) if isinstance(each, Tensor)}
        return func(*args, **(kwargs or {}))


@contextmanager
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Forward, Tensor, Assigned, Tensor]]]:
    """Margins and weights, logits, responsibilities and loss of every step."""
    found: list[tuple[Forward, Tensor, Assigned, Tensor]] = []
    usual = m_step_loss

    def seen(result: Forward, logits: Tensor, assigned: Assigned, *others: Any) -> Any:
        loss, log = usual(result, logits, assigned, *others)
        found.append((result, logits.detach(), assigned, loss.detach()))
        return loss, log

    with monkeypatch.context() as patch:
        patch.setattr(run, "m_step_loss", seen)
        yield found


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("architecture", [TRAINABLE, LOWRANK], ids=["linear", "lowrank"])
def test_what_is_made_of_log_probs_is_float32(
    architecture: dict[str, Any], make_task: Make, train: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task([3, 3], each=4)
    logps: list[Tensor] = []
    forward = Passes.forward

    def kept(*given: Any) -> Tensor:
        logps.append(forward(*given))
        return logps[-1]

    monkeypatch.setattr(Passes, "forward", kept)
    with steps(monkeypatch) as found, Watched() as watched:
        trained = train(task, task, 2, precision=HALF, architecture=architecture, weights=GATE)
    assert HALF in watched.seen["mm"]
    seen = {name.strip("_"): types for name, types in watched.seen.items()}
    assert {"exp2", "log", "logsumexp", "softmax", "index_add", "fused_adamw"} <= seen.keys()
    assert not [name for name in SENSITIVE & seen.keys() if HALF in seen[name]]
    for result, logits, assigned, loss in found:
        made = (*logps, result.margins, result.log_weights, logits, assigned.pairs, assigned.beliefs, loss)
        assert {each.dtype for each in made} == {torch.float32}
    parameters = [*trained.experts.parameters(), *trained.weighting.parameters()]
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


@pytest.mark.parametrize(("experts", "products"), [(1, True), (3, False)], indirect=["products"])
@pytest.mark.usefixtures("products")
def test_a_run_in_bfloat16_stays_with_the_run_in_float32(
    experts: int, make_task: Make, train: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task([8, 8, 8] if experts > 1 else [20, 4], each=8)
    symmetry = {"kind": "noise", "scale": 0.2} if experts > 1 else {"kind": "none"}
    options = {"architecture": TRAINABLE, "learning_rate": 1e-2, "epochs": 10, "symmetry": symmetry}
    trajectories = []
    for precision in (torch.float32, HALF):
        with steps(monkeypatch) as seen:
            train(task, task, experts, precision=precision, **options)
        trajectories.append(
            {
                "loss": torch.stack([loss for *_, loss in seen]),
                "margins": torch.cat([result.margins.detach() for result, *_ in seen]),
                "responsibilities": torch.cat([assigned.pairs for _, _, assigned, _ in seen]),
            }
        )
    for name, tolerance in CLOSE.items():
        wide, half = (trajectory[name] for trajectory in trajectories)
        assert (wide - half).abs().max() < tolerance
        if experts > 1 or name != "responsibilities":
            assert wide.max() - wide.min() > 10 * tolerance  # there was something to stay with
