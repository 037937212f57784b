"""What every method keeps to, whichever file it is in: a new one is found here by its file's name."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from gnnkd import distillers, nn
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.nodes.features import FeatureDistiller
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.images.resolve import resolve as resolve_images
from gnnkd.nn.around import ask
from gnnkd.options import of
from gnnkd.run import resolve
from gnnkd.types import Batch, Output, Step

GRAPHS, IMAGES = sorted(distillers.graph_methods()), sorted(distillers.image_methods())
OWN = [
    name for name, kind in distillers.graph_methods().items() if kind.__module__.startswith("gnnkd.distillers.nodes.")
]
"""Methods of graphs alone; some share their name with one on images."""
METHODS = [*sorted(distillers.methods()), *(f"{name} (graphs)" for name in OWN)]
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
    "count": [0],
    "redraw_every": [0],
    "concentration": [0.0],
    "sharpness": [-1.0],
    "propagations": [0],
    "hops": [-1],
    "mask": [-0.1, 1.0],
    "align_weight": [-1.0],
    "output_weight": [-0.1, 1.1],
    "steps": [0],
    "attention_dropout": [-0.1, 1.0],
    "kd_weight": [-1.0],
    "code_weight": [-1.0],
    "codes": [0],
    "decay": [-0.1, 1.0],
    "commitment": [-1.0],
    "tokenizer_epochs": [-1],
    "angle_samples": [2],
    "angle_weight": [-1.0],
    "d_every": [0],
    "distance_weight": [-1.0],
    "l1_weight": [-1.0],
    "weight": [-1.0],
    "noise": [0.0, -1.0],
    "warmup_epochs": [-1],
    "hardness": [-1.0],
    "anneal": [0.5],
    "eps": [-0.1],
    "pgd_steps": [-1],
    "walk_length": [0, 1],
    "walks": [0],
    "window": [0],
    "iterations": [-1],
    "gamma": [-0.1, 1.1],
    "self_coeff": [-0.1],
    "adversarial_weight": [-0.1],
    "similarity_weight": [-0.1],
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


def _name(method: str) -> tuple[str, bool]:
    """The key of a method, and whether it is that of graphs alone."""
    return method.removesuffix(" (graphs)"), method.endswith(" (graphs)")


def _kind(method: str) -> type[Distiller]:
    name, on_graphs = _name(method)
    return (distillers.graph_methods() if on_graphs else distillers.methods())[name]


def _options(method: str) -> dict[str, inspect.Parameter]:
    name, on_graphs = _name(method)
    return distillers.options(name, on_graphs=on_graphs)


def _reads_bank(kind: type[Distiller]) -> bool:
    return "bank" in inspect.signature(kind).parameters


def _built(method: str, **options: Any) -> Distiller:
    """A method without a context; one of images on its default base."""
    (name, on_graphs), kind = _name(method), _kind(method)
    base = {"base": "kd"} if kind.wraps and name in IMAGES else {}
    return distillers.build(name, *([None] if _reads_bank(kind) else []), on_graphs=on_graphs, **(base | options))


def _ways(method: str) -> list[Callable[..., Any]]:
    """What resolves the method's options: a run on a graph, a run on images, or both."""
    name, on_graphs = _name(method)
    if on_graphs:
        return [partial(resolve, method=name, student_model=_student(name))]
    ways = ((resolve, set(GRAPHS) - set(OWN)), (resolve_images, IMAGES))
    return [partial(way, method=name) for way, names in ways if name in names]


def _student(method: str) -> str:
    """A network that a method of graphs teaches."""
    return "mlp" if distillers.graph_methods()[method].on_rows else "gcn"


def _students(method: str) -> list[str]:
    kind = distillers.graph_methods()[method]
    return [name for name in sorted(nn.MODELS) if (kind.on_graphs if nn.needs_graph(name) else kind.on_rows)]


def _made(method: str, batch: Batch, **options: Any) -> Distiller:
    """A method of graphs."""
    context = (_bank(batch),) if _reads_bank(distillers.graph_methods()[method]) else ()
    return distillers.build(method, *context, on_graphs=True, **options)


def _shown(
    batch: Batch, distiller: Distiller, student: str, *, turned: bool = False
) -> tuple[torch.nn.Module, Output, Output]:
    """A student, its output in training, and the output of a teacher, another one if `turned`.

    The method has been prepared by them.
    """
    torch.manual_seed(0)
    small = {"layers": 2, "width": 8}
    options = {name: small[name] for name in of(nn.MODELS[student]) if name in small}
    network = distiller.learner(lambda inputs: nn.MODELS[student](inputs, C, **options), batch, C, 0)
    logits, features = (x.flip(0) if turned else x for x in (torch.randn(N, C), torch.randn(N, 10)))
    teacher = Output(logits, pooled=features if distiller.reads_maps else None)
    says = partial(_answer, teacher) if distiller.asks_teacher else None
    with torch.no_grad():
        seen = ask(network.eval(), batch.x, batch.graph, batch.index)
    distiller.prepare(Lesson(seen, teacher, (), batch.y, 0.9, 5e-4, 0, batch, says))
    torch.manual_seed(1)
    output = ask(network.train(), batch.x, batch.graph, batch.index)
    if distiller.wants_clean(STEP):
        output = replace(output, clean=seen)
    if distiller.asks_student:
        output = replace(output, again=lambda x: ask(network, x, batch.graph, batch.index))
    return network, output, teacher


def _answer(teacher: Output, x: Any) -> Output:
    """What a teacher might say about other features."""
    wide = (x if isinstance(x, Tensor) else x.dense()).double()
    return replace(teacher, logits=teacher.logits + (wide @ torch.ones(D, C, dtype=torch.float64)).sin().float())


# -- files and options -------------------------------------------------------------------------------------------


def test_a_method_is_a_file() -> None:
    folder = Path(inspect.getfile(distillers)).parent
    files = {f.stem for f in folder.glob("*.py")} | {f.parent.name for f in folder.glob("*/__init__.py")}
    shared = {"__init__", "base", "logits", "losses", "maps", "nodes", "ranges", "schedule", "space"}
    assert set(distillers.methods()) == files - shared
    files = {f.stem for f in folder.glob("nodes/*.py")} | {f.parent.name for f in folder.glob("nodes/*/__init__.py")}
    assert set(OWN) == files - {"__init__", "draws", "features", "neighbours", "pairs", "rows", "walks"}
    assert {*distillers.methods(), *OWN} == {*GRAPHS, *IMAGES}


@pytest.mark.parametrize("method", METHODS)
def test_the_module_says_what_departs_from_the_paper(method: str) -> None:
    text = sys.modules[_kind(method).__module__].__doc__
    assert text is not None
    assert "Departures" in text


@pytest.mark.parametrize("method", METHODS)
def test_options_are_keyword_only_with_types_and_defaults(method: str) -> None:
    kind = _kind(method)
    context = ["base", "bank", "seed"] if kind.wraps else []
    parameters = inspect.signature(kind, eval_str=True).parameters
    options = [p for name, p in parameters.items() if name not in context]
    assert all(p.kind is p.KEYWORD_ONLY for p in options)
    assert all(p.annotation is not p.empty and p.default is not p.empty for p in options)
    assert _options(method).keys() == {p.name for p in options}
    assert all(f"{p.name}:" in (kind.__doc__ or "") for p in options), "the docstring explains each option"


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_option_is_answered_with_the_nearest(method: str) -> None:
    own = sorted(_options(method))
    wrong = f"{own[0]}s" if own else "alpha"
    attempts = [lambda: _built(method, **{wrong: 1})]
    attempts += [partial(way, levels=({"method": {wrong: 1}},)) for way in _ways(method)]
    for attempt in attempts:
        with pytest.raises(UserError, match=wrong) as error:
            attempt()
        assert not own or f"did you mean '{own[0]}'" in str(error.value).replace("method.", "")


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types that an option may have: `float | None` has two."""
    return get_args(annotation) or (annotation,)


def _wrong(method: str, name: str) -> list[Any]:
    """Values of an option that have its type and lie outside its range."""
    kinds = _kinds(_options(method)[name].annotation)
    if any(get_origin(kind) is tuple for kind in kinds):
        return NO_SCHEDULE
    return OUT_OF_RANGE[name] if int in kinds or float in kinds else []


@pytest.mark.parametrize("method", METHODS)
def test_options_out_of_range_are_the_users_mistake(method: str) -> None:
    for name, option in _options(method).items():
        numbers = [math.nan, math.inf, -math.inf] if float in _kinds(option.annotation) else []
        for value in ["no_such_word", *_wrong(method, name), *numbers]:
            for way in _ways(method):
                with pytest.raises(UserError, match=rf"method\.{name}"):
                    way(levels=({"method": {name: value}},))


@pytest.mark.parametrize("method", METHODS)
def test_ranges_are_checked_without_the_command_line_too(method: str) -> None:
    for name in _options(method):
        for value in _wrong(method, name):
            with pytest.raises(UserError, match=rf"method\.{name} is"):
                _built(method, **{name: value})


@pytest.mark.parametrize("method", OWN)
def test_words_are_checked_without_the_command_line_too(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the types of arguments unchecked, as they are outside of tests."""
    kind, options = distillers.graph_methods()[method], distillers.options(method, on_graphs=True)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for name in [name for name, option in options.items() if get_origin(option.annotation) is Literal]:
        with pytest.raises(ValueError, match=rf"method\.{name} is 'no_such_word'; it must be one of") as error:
            kind(**{name: "no_such_word"})
        assert all(word in str(error.value) for word in get_args(options[name].annotation))


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'glnn'"):
        distillers.build("glnm")


@pytest.mark.parametrize("method", [m for m in METHODS if _kind(m).wraps])
def test_a_base_does_not_wrap_itself(method: str) -> None:
    with pytest.raises(UserError, match="wraps a method itself"):
        _built(method, base=method)


# -- losses and gradients on graphs (on images: test_image_contract.py) ----------------------------------------------


def _copies(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    dense = {name: t.dense() if isinstance(t, CSR) else t for name, t in tensors.items()}
    return {name: t.detach().clone() for name, t in dense.items()}


def _everything(batch: Batch, network: torch.nn.Module, student: Output, teacher: Output) -> dict[str, Tensor]:
    found = {"x": batch.x, "y": batch.y, "index": batch.index, "labelled": batch.labelled}
    found |= {f"params.{name}": p for name, p in network.named_parameters()}  # votes are the method's to set
    found |= {f"hidden.{name}": h for name, h in student.hidden.items()}
    found |= {f"raw.{name}": r for name, r in student.raw.items()}
    return _copies(found | {"student": student.logits, "teacher": teacher.logits})


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize(("method", "student"), [(m, s) for m in GRAPHS for s in _students(m)])
def test_terms_are_finite_scalars_and_gradients_have_names_and_shapes(method: str, student: str, sparse: bool) -> None:
    batch = _batch(sparse)
    wraps = distillers.graph_methods()[method].wraps
    distiller = _made(method, batch, **({"student_needs_graph": nn.needs_graph(student)} if wraps else {}))
    if student == "sgc" and (isinstance(distiller, FeatureDistiller) or (distiller.reads_maps and sparse)):
        with pytest.raises(UserError, match="rows"):  # its one weight matrix multiplies what no weight has made
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
    gradients = distiller.combine(gradients, params, batch, output, STEP)
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
    drawn = not torch.equal(torch.get_rng_state(), random)
    assert distiller.asks_student or not drawn, "a method draws no global random numbers, a student's dropout does"


@pytest.mark.parametrize("method", GRAPHS)
def test_the_teacher_is_read_by_the_methods_that_say_so_and_by_no_other(method: str) -> None:
    batch = _batch(sparse=False)
    distiller = _made(method, batch)
    found = []
    for turned in (False, True):
        _, output, teacher = _shown(batch, distiller, _student(method), turned=turned)
        terms = distiller.loss(batch, output, teacher if distiller.needs_teacher else None, STEP)
        found.append(torch.stack(list(terms.values())).sum())
    assert torch.equal(*found) is not distiller.needs_teacher


@pytest.mark.parametrize(
    "method", [m for m, kind in distillers.graph_methods().items() if kind.gradients is Distiller.gradients]
)
def test_default_gradients_are_those_of_the_sum_of_the_terms(method: str) -> None:
    batch = _batch(sparse=True)
    distiller = _made(method, batch)
    student = "gcn" if distillers.graph_methods()[method].on_graphs else "mlp"
    network, output, teacher = _shown(batch, distiller, student)
    params = dict(network.named_parameters())
    gradients = distiller.gradients(distiller.loss(batch, output, teacher, STEP), params, batch, output, STEP)
    twin, output, teacher = _shown(batch, distiller, student)
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
        _, output, teacher = _shown(given, distiller, _student(method))
        found.append(distiller.loss(given, output, teacher, STEP))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(t, found[1][name]) for name, t in found[0].items())
