"""VQGraph: the codebook's laws, the tokenizer's pairs, and the distillation of codes by hand."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkd import nn
from gnnkd.data.augment import generator
from gnnkd.distillers.base import Lesson
from gnnkd.distillers.glnn import Glnn
from gnnkd.distillers.nodes.vqgraph import Codes, Vqgraph
from gnnkd.distillers.nodes.vqgraph.codebook import distances, followed, nearest, perplexity, unit
from gnnkd.distillers.nodes.vqgraph.tokenizer import Settings, Tokenizer, drawn, trained
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.types import Batch, Output, Step

N, D, C = 60, 12, 3
STEP = Step(2, 10)
SMALL: dict[str, Any] = {"codes": 9, "dim": 5, "tokenizer_epochs": 4, "samples": 25}


def _batch(*, sparse: bool = False) -> Batch:
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(N) % C
    a, b = torch.randint(N, (2, 8 * N), generator=rng)
    near = (y[a] == y[b]) | (torch.rand(a.numel(), generator=rng) < 0.1)
    x = (torch.rand(N, D, generator=rng) < torch.where(torch.arange(D) % C == y[:, None], 0.5, 0.1)).float()
    graph = Graph.from_edge_index(torch.stack([a, b])[:, near], N)
    index = torch.randperm(500, generator=rng)[:N]
    return Batch.of(CSR.from_dense(x) if sparse else x, y, graph, torch.arange(N) < 20, index)


def _settings(**changes: Any) -> Settings:
    given = {"layer": "gcn", "codes": 9, "dim": 5, "decay": 0.8, "commitment": 0.25, "pairs": 40, "epochs": 4}
    return Settings(**(given | changes))


def _prepared(batch: Batch, **options: Any) -> tuple[Vqgraph, Output, Output]:
    torch.manual_seed(0)
    student = nn.MODELS["mlp"](D, C, layers=2, width=7, dropout=0.0)(batch.x)
    teacher = Output(torch.randn(N, C))
    method = Vqgraph(**(SMALL | options))
    method.prepare(Lesson(student, teacher, (), batch.y, 0.0, 0.0, 3, batch))
    return method, student, teacher


# -- the codebook ------------------------------------------------------------------------------------------------


def test_the_nearest_code_is_that_of_the_largest_cosine() -> None:
    u, codes = unit(torch.randn(5000, 4)), unit(torch.randn(7, 4))
    want = torch.stack([F.cosine_similarity(codes, row[None], dim=1).argmax() for row in u[:200]])
    found = nearest(u, codes)
    assert torch.equal(found[:200], want)
    assert torch.equal(found, distances(u, codes).argmin(1)), "of unit vectors it is the closest one, too"


@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_codes_follow_the_direction_of_their_rows(decay: float) -> None:
    u, codes = unit(torch.randn(40, 4)), unit(torch.randn(9, 4))
    at = torch.arange(40) % 6
    found = followed(codes, u, at, decay)
    for k in range(9):
        mine = u[at == k]
        want = (
            codes[k] if k >= 6 else F.normalize(decay * codes[k] + (1 - decay) * F.normalize(mine.sum(0), dim=0), dim=0)
        )
        torch.testing.assert_close(found[k], want)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(9))


def test_codes_that_are_their_rows_stay() -> None:
    codes = unit(torch.randn(9, 4))
    torch.testing.assert_close(followed(codes, codes.repeat(3, 1), torch.arange(9).repeat(3), 0.8), codes)


def test_repeated_steps_end_at_the_direction_of_the_mean() -> None:
    u = unit(torch.randn(30, 4) + torch.tensor([3.0, 0.0, 0.0, 0.0]))
    codes, at = unit(torch.randn(1, 4)), torch.zeros(30, dtype=torch.long)
    for _ in range(200):
        codes = followed(codes, u, at, 0.8)
    torch.testing.assert_close(codes[0], F.normalize(u.mean(0), dim=0))


def test_perplexity_counts_codes_in_use() -> None:
    assert float(perplexity(torch.zeros(9, dtype=torch.long), 5)) == pytest.approx(1)
    assert float(perplexity(torch.arange(20) % 5, 5)) == pytest.approx(5)
    assert float(perplexity(torch.tensor([0, 0, 0, 1]), 5)) == pytest.approx(
        math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    )


def test_distances_are_euclidean_and_differentiable_where_a_row_is_a_code() -> None:
    z, codes = torch.randn(8, 4, dtype=torch.float64, requires_grad=True), torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(distances(z, codes), torch.cdist(z, codes))
    on = codes.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distances(on, codes).sum(), on, create_graph=True)
    assert bool(slope.isfinite().all())
    assert bool(torch.autograd.grad(slope.sum(), on)[0].isfinite().all())


# -- the tokenizer -----------------------------------------------------------------------------------------------


def test_half_of_the_pairs_are_edges_and_all_are_told_right() -> None:
    batch = _batch()
    assert isinstance(batch.graph, Graph)
    a = batch.graph.adjacency
    there = {*zip(a.row.tolist(), a.col.tolist(), strict=True)}
    i, j, told = drawn(a, 2000, torch.Generator().manual_seed(0))
    assert i.shape == j.shape == told.shape == (2000,)
    assert told.tolist() == [float(pair in there) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    assert bool(told[:1000].all())
    assert not bool(told[1000:].all())
    none = Graph.from_edge_index(torch.zeros(2, 0, dtype=torch.long), N).adjacency
    assert not drawn(none, 10, torch.Generator().manual_seed(0))[2].any()


@pytest.mark.parametrize("layer", ["gcn", "sage"])
@pytest.mark.parametrize("sparse", [True, False])
def test_tokens_are_unit_vectors_of_the_asked_sizes(layer: str, sparse: bool) -> None:
    tokens = trained(_batch(sparse=sparse), C, _settings(layer=layer), seed=0)
    assert tokens.rows.shape == (N, 5)
    assert tokens.codes.shape == (9, 5)
    torch.testing.assert_close(tokens.codes.norm(dim=1), torch.ones(9))
    assert not tokens.rows.requires_grad
    assert 1 <= float(tokens.perplexity) <= 9
    assert 0 < float(tokens.used) <= 1
    assert trained(_batch(), C, _settings(codes=10**6, epochs=1), seed=0).codes.shape == (N, 5)


def test_training_brings_rows_to_codes_and_neighbours_to_the_same_ones() -> None:
    batch = _batch()
    before, after = (trained(batch, C, _settings(epochs=epochs), seed=0) for epochs in (0, 80))
    y = torch.arange(N) % C

    def pure(rows: Tensor, codes: Tensor) -> float:
        """Share of the nodes that are of their code's most frequent class."""
        at = nearest(rows, codes)
        return sum(int(torch.bincount(y[at == k]).max()) for k in at.unique().tolist()) / N

    assert pure(after.rows, after.codes) > max(0.9, pure(before.rows, before.codes))


def test_it_repeats_follows_the_seed_and_leaves_the_random_state() -> None:
    state = torch.get_rng_state()
    one, same, other = (trained(_batch(), C, _settings(), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.rows, same.rows)
    assert torch.equal(one.codes, same.codes)
    assert not torch.equal(one.codes, other.codes)


def test_the_loss_of_a_tokenizer_by_hand() -> None:
    batch = _batch()
    assert isinstance(batch.graph, Graph)
    assert isinstance(batch.x, Tensor)
    torch.manual_seed(0)
    tokenizer = Tokenizer(D, C, layer="gcn", dim=5)
    u, codes = tokenizer.rows(batch.x, batch.graph), unit(torch.randn(9, 5))
    code = codes[nearest(u.detach(), codes)]
    i, j, told = drawn(batch.graph.adjacency, 40, torch.Generator().manual_seed(0))
    given = tokenizer.loss(batch.graph, u, code, (i, j, told), batch.y, 0.25)
    edges = tokenizer.of_edges(code)
    scores = (edges[i] * edges[j]).sum(1)
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    logits = tokenizer.head(tokenizer.hidden(edges, batch.graph).relu())
    want = F.cross_entropy(logits[:20], torch.arange(20) % C) + 1e-3 * F.mse_loss(tokenizer.of_rows(code), u)
    want = want + 0.03 * F.mse_loss(scaled, told).sqrt() + 0.25 * F.mse_loss(u, code)
    torch.testing.assert_close(given, want)
    reached = torch.autograd.grad(given, list(tokenizer.parameters()))
    assert all(bool(g.any()) for g in reached), "a row's gradient passes through its code"


# -- the method --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [25, 2048])
def test_the_term_of_codes_by_hand(samples: int) -> None:
    batch = _batch()
    method, student, teacher = _prepared(batch, samples=samples, code_weight=0.3, temperature=2.0)
    part = method.part
    assert isinstance(part, Codes)
    given = method.loss(batch, student, teacher, STEP)["codes"]
    rows = torch.randperm(N, generator=generator("vqgraph", 3, STEP.epoch))[:samples]
    hidden = list(student.hidden.values())[-1]
    assert isinstance(hidden, Tensor)
    total = 0.0
    for i in rows.tolist():
        z = part.map(hidden[i])
        p = (part.rows[i] @ part.codes.t() / 2).softmax(0)
        q = (-(z - part.codes).norm(dim=1) / 2).softmax(0)
        total += (p * (p / q).log()).sum().item()
    assert given.item() == pytest.approx(0.3 * 4 * total / len(rows), rel=1e-3)


def test_a_batch_of_some_rows_finds_their_tokens() -> None:
    batch = _batch()
    method, student, teacher = _prepared(batch, code_weight=1.0)
    order = torch.randperm(N)
    hidden = {name: h[order] for name, h in student.hidden.items() if isinstance(h, Tensor)}
    assert isinstance(batch.x, Tensor)
    some = Batch(batch.x[order], batch.y[order], batch.index[order], None, batch.labelled[order])
    shown, taught = Output(student.logits[order], hidden), Output(teacher.logits[order])
    method.samples = N
    want, given = method.loss(batch, student, teacher, STEP), method.loss(some, shown, taught, STEP)
    torch.testing.assert_close(given["codes"], want["codes"])


def test_without_weight_it_is_glnn() -> None:
    batch = _batch()
    method, student, teacher = _prepared(batch, code_weight=0.0, label_weight=0.2)
    given, want = method.loss(batch, student, teacher, STEP), Glnn(label_weight=0.2).loss(batch, student, teacher, STEP)
    assert given.keys() == want.keys()
    assert all(torch.equal(term, want[name]) for name, term in given.items())
    assert method.part is None, "no tokenizer was trained"
    assert not method.diagnostics()


def test_the_codebook_is_told_and_kept() -> None:
    batch = _batch()
    method, student, teacher = _prepared(batch)
    method.loss(batch, student, teacher, STEP)
    told = method.diagnostics()
    assert told.keys() == {"codebook/perplexity", "codebook/used", "codebook/agreement"}
    assert method.state().keys() == {"map.weight", "map.bias", "rows", "codes"}
    other, *_ = _prepared(batch)
    other.load_state({name: t + 1 for name, t in method.state().items()})
    assert all(torch.equal(t, method.state()[name] + 1) for name, t in other.state().items())


def test_rows_without_edges_are_refused() -> None:
    batch = _batch()
    bare = Batch(batch.x, batch.y, batch.index, None, batch.labelled)
    shown = partial(Lesson, momentum=0.0, weight_decay=0.0, seed=0, norms=(), y=batch.y)
    with pytest.raises(UserError, match="without edges"):
        Vqgraph().prepare(shown(student=Output(torch.randn(N, C)), teacher=None, batch=bare))
