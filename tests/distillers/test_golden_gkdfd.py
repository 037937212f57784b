"""GK-DFD, stage by stage, against a slow evaluation of its formulas in float64."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.gkdfd import Gkdfd
from gnnkd.distillers.gkdfd.discriminative import Choice, alignment, discriminative_loss, space
from gnnkd.distillers.gkdfd.embedding import Embedding
from gnnkd.distillers.gkdfd.relations import Connection, Relations
from gnnkd.graph.build import class_aware, complete, uem
from gnnkd.nn.tag import TAGConv
from gnnkd.types import Batch, Output, Step

FOLDER = Path(__file__).parents[3] / "shared" / "golden"
STEP = Step(0, 240)
Golden = Mapping[str, Tensor]


@pytest.fixture(params=[0, 1])
def golden(request: pytest.FixtureRequest) -> Golden:
    """Inputs, parameters and stages of one case, all in float64."""
    path = FOLDER / f"gkdfd_{request.param}.npz"
    if not path.exists():
        pytest.skip(f"reference values {path.name} are not here")
    with np.load(path) as file:
        found = {name: torch.as_tensor(file[name]) for name in file.files}
    return {name: t.double() if t.is_floating_point() else t for name, t in found.items()}


def _prepared(golden: Golden, **options: str) -> tuple[Gkdfd, Batch, Output, Output]:
    """The method with the case's sizes and parameters, a batch, and what both networks say of it."""
    y, n = golden["target"], golden["target"].numel()
    method = Gkdfd(dim=golden["node_teacher"].shape[1], k1=int(golden["k1"]), k2=int(golden["k2"]), **options)  # type: ignore[arg-type]
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(golden["teacher_logits"].shape, generator=rng, dtype=torch.float64)
    student = Output(logits, pooled=golden["feature_student"])
    teacher = Output(golden["teacher_logits"], pooled=golden["feature_teacher"])
    method.prepare(Lesson(student, teacher, (), y, 0.9, 5e-4, 0))
    assert isinstance(method.part, Embedding)
    method.part.double()
    for side, letter in ((method.part.student, "s"), (method.part.teacher, "t")):
        assert isinstance(side.conv, TAGConv)
        side.load_state_dict(
            {
                "node.weight": golden[f"embed_{letter}"].t(),
                "node.bias": golden[f"embed_{letter}_b"],
                "conv.lins.0.weight": golden[f"w0_{letter}"].t(),
                "conv.lins.1.weight": golden[f"w1_{letter}"].t(),
                "conv.bias": golden[f"b_{letter}"],
            }
        )
    return method, Batch.of(torch.zeros(n, 1), y, None, torch.ones(n, dtype=torch.bool)), student, teacher


def _close(found: Tensor, wanted: Tensor) -> None:
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(("name", "given"), [("softmax_T4", "softmax"), ("logits", "logits")])
def test_relations(golden: Golden, name: str, given: str) -> None:
    found = Connection(given, 4.0, "both", 0.5, 0).among(golden["teacher_logits"], golden["target"])  # type: ignore[arg-type]
    _close(found.strength, golden[f"uem_{name}"])
    _close(found.adjacency, golden[f"cac_{name}"])
    method, *scene = _prepared(golden, uem_input=given)
    _close(method.seen(*scene, STEP).adjacency, golden[f"cac_{name}"])


def test_embeddings(golden: Golden) -> None:
    method, batch, student, teacher = _prepared(golden)
    assert isinstance(method.part, Embedding)
    found = Connection("softmax", 4.0, "both", 0.5, 0).among(teacher.logits, batch.y)
    for name, side, output in (("student", method.part.student, student), ("teacher", method.part.teacher, teacher)):
        assert output.pooled is not None
        embedded = side(output.pooled, found)
        _close(embedded.node, golden[f"node_{name}"])
        _close(embedded.graph, golden[f"graph_{name}"])
        assert embedded.edge is found.adjacency
    seen = method.seen(batch, student, teacher, STEP)
    _close(seen.teacher, golden["graph_teacher"])
    _close(seen.student, golden["graph_student"])


def test_losses(golden: Golden) -> None:
    method, *scene = _prepared(golden)
    terms = method.loss(*scene, STEP)
    _close(terms["graph"] / 0.7, golden["loss_graph"])
    _close(terms["dfd"] / 1.2, golden["loss_dfd"])
    seen = method.seen(*scene, STEP)
    assert seen.teacher_low.shape == (batch_size := golden["target"].numel(), golden["target"].unique().numel() - 1)
    assert seen.student_low.shape[0] == batch_size
    _close((seen.teacher_low - seen.student_low).square().sum(1).mean(), golden["loss_dfd"])


def test_alignment_from_the_golden_embeddings(golden: Golden) -> None:
    teacher, student = golden["graph_teacher"], golden["graph_student"]
    found = space(teacher, golden["target"], Choice("align", int(golden["k1"]), int(golden["k2"]), 2.0, whiten=False))
    _close(alignment(found.weights), golden["alignment"])
    _close(discriminative_loss(student, teacher, found, "align"), golden["loss_dfd"])


@pytest.mark.parametrize("letter", ["s", "t"])
def test_the_sparse_kernel_is_the_dense_product(golden: Golden, letter: str) -> None:
    """One hop of TAG on the kernels of graph networks, against plain matrix products, with gradients by A and h."""
    name = {"s": "student", "t": "teacher"}[letter]
    strength = uem((golden["teacher_logits"] / 4).softmax(1))
    outcomes = []
    for kernel in (True, False):
        h = golden[f"node_{name}"].clone().requires_grad_()
        a = class_aware(strength, golden["target"]).requires_grad_()
        weights = [golden[f"w{hop}_{letter}"] for hop in (0, 1)]
        if kernel:
            conv = TAGConv(h.shape[1], h.shape[1], k=1).double()
            named = {f"lins.{hop}.weight": w.t() for hop, w in enumerate(weights)}
            conv.load_state_dict(named | {"bias": golden[f"b_{letter}"]})
            g = conv(h, Relations(strength, a, complete(a)).graph)
        else:
            scale = a.sum(1).rsqrt()
            g = h @ weights[0] + (scale[:, None] * a * scale) @ h @ weights[1] + golden[f"b_{letter}"]
        g = F.normalize(g, dim=1)
        outcomes.append((g, *torch.autograd.grad(g.square().mul(torch.arange(g.shape[1])).sum(), (h, a))))
    for ours, dense in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-5, atol=1e-5)
    _close(outcomes[0][0].detach(), golden[f"graph_{name}"])
