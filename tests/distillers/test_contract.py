"""What every method keeps to, whichever file it is in: a new one is found here by its file's name."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest
import torch
from torch import Tensor

from gnnkd import distillers, nn
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.images.resolve import resolve as resolve_images
from gnnkd.options import of
from gnnkd.run import resolve
from gnnkd.types import Batch, Output, Step

METHODS = sorted(distillers.methods())
GRAPHS, IMAGES = sorted(distillers.graph_methods()), sorted(distillers.image_methods())
STEP = Step(0, 10)
N, D, C = 40, 12, 3
OUT_OF_RANGE: dict[str, list[float]] = {
    "alpha": [-0.1, 1.1],
    "label_weight": [-0.1, 1.1],
    "temperature": [0.0, -1.0],
    "beta": [-1.0],
    "limit": [-1.0],
    "k": [-1],
    "every": [0],
    "warmup": [-1],
    "scale": [-1.0],
    "delta": [-0.1],
    "p": [0],
    "hint": [-1],
    "variance": [0.0],
    "negatives": [0],
    "momentum": [-0.1, 1.0],
    "dim": [0],
    "tau": [0.0],
    "cac": [-0.1, 1.1],
    "topk": [-1],
    "k1": [0],
    "k2": [-1],
    "pca_ratio": [0.9],
    "classes": [0],
    "samples": [0],
}
"""By option; an option of numbers that is not here fails the test below, so that none is forgotten."""
NO_SCHEDULE: list[Any] = [-1.0, (), ((0.0, -1.0),), ((0.0, 1.0), (5.0, math.inf)), ((5.0, 1.0), (2.0, 1.0))]
"""What no weight is that may change by epoch."""


def _batch(sparse: bool) -> Batch:
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.random((N, D)) * (rng.random((N, D)) < 0.3), dtype=torch.float32)
    graph = Graph.from_edge_index(torch.from_numpy(rng.integers(0, N, (2, 4 * N))), N)
    return Batch.of(CSR.from_dense(x) if sparse else x, torch.arange(N) % C, graph, torch.arange(N) < N // 2)


def _bank(batch: Batch) -> Bank:
    """Generators as a teacher's stage leaves them, but not trained."""
    torch.manual_seed(1)
    teacher = nn.gcn(D, C, layers=2, width=6).eval()
    output = teacher(batch.x, batch.graph)
    bank = Bank(Layers.of(output, dict(teacher.named_parameters()), N, 16), GeneratorSettings().resolved())
    for epoch in range(4):
        bank.offer(0.5, epoch, bank.untrained(seed=epoch))
    return bank


def _reads_bank(method: str) -> bool:
    return "bank" in inspect.signature(distillers.methods()[method]).parameters


def _built(method: str, **options: Any) -> Distiller:
    """A method without a context; one of images on its default base."""
    base = {"base": "kd"} if distillers.methods()[method].wraps and method in IMAGES else {}
    return distillers.build(method, *([None] if _reads_bank(method) else []), **(base | options))


def _ways(method: str) -> list[Callable[..., Any]]:
    """What resolves the method's options: a run on a graph, a run on images, or both."""
    return [way for way, names in ((resolve, GRAPHS), (resolve_images, IMAGES)) if method in names]


def _made(method: str, batch: Batch, **options: Any) -> Distiller:
    context = (_bank(batch),) if _reads_bank(method) else ()
    return distillers.build(method, *context, **options)


def _shown(batch: Batch, distiller: Distiller, student: str) -> tuple[torch.nn.Module, Output, Output]:
    """A student, its output in training, and the output of a teacher; the method has seen both if it reads more."""
    torch.manual_seed(0)
    small = {"layers": 2, "width": 8}
    options = {name: small[name] for name in of(nn.MODELS[student]) if name in small}
    network = nn.MODELS[student](D, C, **options)
    output = network(batch.x, batch.graph)
    if distiller.wants_clean(STEP):
        with torch.no_grad():
            output = replace(output, clean=network.eval()(batch.x, batch.graph))
    if not distiller.reads_maps:
        return network, output, Output(torch.randn(N, C))
    teacher = Output(torch.randn(N, C), pooled=torch.randn(N, 10))
    distiller.prepare(Lesson(output, teacher, (), batch.y, 0.9, 5e-4, 0))
    return network, output, teacher


# -- files and options -------------------------------------------------------------------------------------------


def test_a_method_is_a_file() -> None:
    folder = Path(inspect.getfile(distillers)).parent
    files = {f.stem for f in folder.glob("*.py")} | {f.parent.name for f in folder.glob("*/__init__.py")}
    assert set(METHODS) == files - {"__init__", "base", "logits", "losses", "maps", "ranges", "schedule"}
    assert set(METHODS) == {*GRAPHS, *IMAGES}


@pytest.mark.parametrize("method", METHODS)
def test_the_module_says_what_departs_from_the_paper(method: str) -> None:
    text = sys.modules[distillers.methods()[method].__module__].__doc__
    assert text is not None
    assert "Departures" in text


@pytest.mark.parametrize("method", METHODS)
def test_options_are_keyword_only_with_types_and_defaults(method: str) -> None:
    kind = distillers.methods()[method]
    context = ["base", "bank", "seed"] if kind.wraps else []
    parameters = inspect.signature(kind, eval_str=True).parameters
    options = [p for name, p in parameters.items() if name not in context]
    assert all(p.kind is p.KEYWORD_ONLY for p in options)
    assert all(p.annotation is not p.empty and p.default is not p.empty for p in options)
    assert distillers.options(method).keys() == {p.name for p in options}
    assert all(f"{p.name}:" in (kind.__doc__ or "") for p in options), "the docstring explains each option"


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_option_is_answered_with_the_nearest(method: str) -> None:
    own = sorted(distillers.options(method))
    wrong = f"{own[0]}s" if own else "alpha"
    attempts = [lambda: _built(method, **{wrong: 1})]
    attempts += [partial(way, method=method, levels=({"method": {wrong: 1}},)) for way in _ways(method)]
    for attempt in attempts:
        with pytest.raises(UserError, match=wrong) as error:
            attempt()
        assert not own or f"did you mean '{own[0]}'" in str(error.value).replace("method.", "")


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types that an option may have: `float | None` has two."""
    return get_args(annotation) or (annotation,)


def _wrong(method: str, name: str) -> list[Any]:
    """Values of an option that have its type and lie outside its range."""
    kinds = _kinds(distillers.options(method)[name].annotation)
    if any(get_origin(kind) is tuple for kind in kinds):
        return NO_SCHEDULE
    return OUT_OF_RANGE[name] if int in kinds or float in kinds else []


@pytest.mark.parametrize("method", METHODS)
def test_options_out_of_range_are_the_users_mistake(method: str) -> None:
    for name, option in distillers.options(method).items():
        numbers = [math.nan, math.inf, -math.inf] if float in _kinds(option.annotation) else []
        for value in ["no_such_word", *_wrong(method, name), *numbers]:
            for way in _ways(method):
                with pytest.raises(UserError, match=rf"method\.{name}"):
                    way(method=method, levels=({"method": {name: value}},))


@pytest.mark.parametrize("method", METHODS)
def test_ranges_are_checked_without_the_command_line_too(method: str) -> None:
    for name in distillers.options(method):
        for value in _wrong(method, name):
            with pytest.raises(UserError, match=rf"method\.{name} is"):
                _built(method, **{name: value})


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'glnn'"):
        distillers.build("glnm")


@pytest.mark.parametrize("method", [m for m in METHODS if distillers.methods()[m].wraps])
def test_a_base_does_not_wrap_itself(method: str) -> None:
    with pytest.raises(UserError, match="wraps a method itself"):
        _built(method, base=method)


# -- losses and gradients on graphs (on images: test_image_contract.py) ----------------------------------------------


def _copies(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    dense = {name: t.dense() if isinstance(t, CSR) else t for name, t in tensors.items()}
    return {name: t.detach().clone() for name, t in dense.items()}


def _everything(batch: Batch, network: nn.Network, student: Output, teacher: Output) -> dict[str, Tensor]:
    found = {"x": batch.x, "y": batch.y, "index": batch.index, "labelled": batch.labelled}
    found |= {f"params.{name}": p for name, p in network.state_dict().items()}
    found |= {f"hidden.{name}": h for name, h in student.hidden.items()}
    found |= {f"raw.{name}": r for name, r in student.raw.items()}
    return _copies(found | {"student": student.logits, "teacher": teacher.logits})


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("student", sorted(nn.MODELS))
@pytest.mark.parametrize("method", GRAPHS)
def test_terms_are_finite_scalars_and_gradients_have_names_and_shapes(method: str, student: str, sparse: bool) -> None:
    batch = _batch(sparse)
    wraps = distillers.methods()[method].wraps
    distiller = _made(method, batch, **({"student_needs_graph": nn.needs_graph(student)} if wraps else {}))
    if distiller.reads_maps and student == "sgc" and sparse:
        with pytest.raises(UserError, match="dense rows"):
            _shown(batch, distiller, student)
        return
    network, output, teacher = _shown(batch, distiller, student)
    params = dict(network.named_parameters())
    before, random = _everything(batch, network, output, teacher), torch.get_rng_state()

    terms = distiller.loss(batch, output, teacher, STEP)
    assert terms
    for name, term in terms.items():
        assert "/" not in name, "names with a slash are those of diagnostics"
        assert term.shape == ()
        assert torch.isfinite(term)
        assert term.requires_grad
    gradients = distiller.gradients(terms, params, batch, output, STEP)
    assert gradients.keys() <= params.keys()
    assert set(output.hidden) <= gradients.keys()
    for name, g in gradients.items():
        assert g.shape == params[name].shape
        assert g.dtype == params[name].dtype
        assert not g.requires_grad
        assert torch.isfinite(g).all()
    for name, value in distiller.diagnostics().items():
        assert "/" in name
        assert value.shape == ()
        assert torch.isfinite(value)

    after = _everything(batch, network, output, teacher)
    for name, t in before.items():
        assert torch.equal(t, after[name]), f"{name} was modified"
    assert all(p.grad is None for p in params.values())
    assert torch.equal(torch.get_rng_state(), random), "a method draws no global random numbers"


@pytest.mark.parametrize("method", GRAPHS)
def test_the_teacher_is_read_by_the_methods_that_say_so_and_by_no_other(method: str) -> None:
    batch = _batch(sparse=False)
    distiller = _made(method, batch)
    _, output, teacher = _shown(batch, distiller, "mlp")
    other = replace(teacher, logits=teacher.logits.flip(0)) if distiller.needs_teacher else None
    first, second = (torch.stack(list(distiller.loss(batch, output, t, STEP).values())).sum() for t in (teacher, other))
    assert torch.equal(first, second) is not distiller.needs_teacher


@pytest.mark.parametrize("method", [m for m in GRAPHS if distillers.methods()[m].gradients is Distiller.gradients])
def test_default_gradients_are_those_of_the_sum_of_the_terms(method: str) -> None:
    batch = _batch(sparse=True)
    distiller = _made(method, batch)
    network, output, teacher = _shown(batch, distiller, "gcn")
    params = dict(network.named_parameters())
    gradients = distiller.gradients(distiller.loss(batch, output, teacher, STEP), params, batch, output, STEP)
    twin, output, teacher = _shown(batch, distiller, "gcn")
    sum(distiller.loss(batch, output, teacher, STEP).values(), start=torch.zeros(())).backward()
    assert gradients.keys() == params.keys()
    for name, p in twin.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(gradients[name], p.grad)


@pytest.mark.parametrize("method", GRAPHS)
def test_no_label_outside_the_mask_reaches_a_loss(method: str) -> None:
    """Whatever stands in `y` there: a batch blanks it, and a method reads only what is left."""
    batch = _batch(sparse=False)
    other = Batch.of(batch.x, torch.where(batch.labelled, batch.y, 2 - batch.index % C), batch.graph, batch.labelled)
    found = []
    for given in (batch, other):
        distiller = _made(method, given)
        _, output, teacher = _shown(given, distiller, "mlp")
        found.append(distiller.loss(given, output, teacher, STEP))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(t, found[1][name]) for name, t in found[0].items())
