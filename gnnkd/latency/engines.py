"""What runs a network that looks at rows alone: torch as it is, compiled by torch, ONNX Runtime."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd import export
from gnnkd.data.augment import generator
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR
from gnnkd.latency.answers import Answer, Data, Way
from gnnkd.nn.around import ask
from gnnkd.predictor import Predictor

_AT_ONCE, _BYTES = 1 << 16, 1 << 26
"""Rows, and bytes of dense ones, that are answered at a time where all are asked about."""
_COMPARED = 50
"""Rows on which an engine is compared with the network as it is."""


class Engine(ABC):
    """Runs a network on rows."""

    name: ClassVar[str]
    dense: ClassVar[bool] = True
    """Whether it takes dense rows only."""
    on_host: ClassVar[bool] = False
    """Whether it takes rows on the host, wherever it computes."""

    @abstractmethod
    def logits(self, x: Tensor | CSR, index: Int[Tensor, " N"]) -> Float[Tensor, "N C"]:
        """Logits of rows [N, D] with these ids in the full data."""


@final
class Eager(Engine):
    """The network as it is, operation by operation; sparse rows stay sparse."""

    name: ClassVar[str] = "eager"
    dense: ClassVar[bool] = False

    def __init__(self, predictor: Predictor, device: str) -> None:
        self.network = predictor.network.to(device).eval()

    def logits(self, x: Tensor | CSR, index: Int[Tensor, " N"]) -> Float[Tensor, "N C"]:
        """Logits on the device."""
        return ask(self.network, x, None, index).logits


@final
class Compiled(Engine):
    """By `torch.compile`, for any number of rows.

    Raises:
        UserError: no compiler is there.
    """

    name: ClassVar[str] = "compiled"

    def __init__(self, predictor: Predictor, device: str) -> None:
        lack = _no_compiler(device)
        if lack is not None:
            raise UserError(lack)
        self._call = torch.compile(export.rows_of(predictor).to(device), dynamic=True)

    def logits(self, x: Tensor | CSR, index: Int[Tensor, " N"]) -> Float[Tensor, "N C"]:
        """Logits on the device."""
        found: Tensor = self._call(x)
        return found


@final
class Onnx(Engine):
    """By ONNX Runtime.

    Raises:
        UserError: the packages are not installed, or the runtime is not for the device.
    """

    name: ClassVar[str] = "onnx"
    on_host: ClassVar[bool] = True

    def __init__(self, predictor: Predictor, device: str) -> None:
        content = export.written(export.rows_of(predictor), predictor.n_features, {})
        self._session = export.Session(content, threads=torch.get_num_threads(), device=device)

    def logits(self, x: Tensor | CSR, index: Int[Tensor, " N"]) -> Float[Tensor, "N C"]:
        """Logits on the host."""
        assert isinstance(x, Tensor)
        return self._session(x)


_KINDS: dict[str, type[Eager | Compiled | Onnx]] = {kind.name: kind for kind in (Eager, Compiled, Onnx)}


@final
class OnRows(Way):
    """Rows of features are read and given to an engine; all of them some at a time.

    Args:
        engine: that answers.
        data: on the host.
    """

    name: ClassVar[str] = "rows"

    def __init__(self, engine: Engine, data: Data) -> None:
        self.engine, self.data = engine, data

    @torch.no_grad()
    def answer(self, nodes: Int[Tensor, " Q"] | None) -> Answer:
        """Fetch and compute are told apart."""
        if nodes is not None:
            return self._some(nodes)
        at_once = max(1, min(_AT_ONCE, _BYTES // (4 * self.data.x.shape[1])))
        parts = [self._some(part) for part in torch.split(torch.arange(self.data.n), at_once)]
        fetch, total = sum(part.fetch or 0.0 for part in parts), sum(part.total for part in parts)
        return Answer(torch.cat([part.logits for part in parts]), fetch, total, self.data.n, 0, self.data.size())

    def _some(self, nodes: Int[Tensor, " Q"]) -> Answer:
        data, clock, engine = self.data, self.data.clock, self.engine
        device = "cpu" if engine.on_host else data.device
        start = clock.now()
        x, index = data.rows(nodes, dense=engine.dense).to(device), data.index[nodes].to(device)
        middle = clock.now()
        logits = engine.logits(x, index).cpu()
        stop = clock.now()
        return Answer(logits, middle - start, stop - start, nodes.numel(), 0, data.size(nodes))


def made(name: str, predictor: Predictor, data: Data) -> OnRows:
    """An engine, whose logits have been compared with those of the network as it is.

    Args:
        name: one of `ENGINES`.
        predictor: of a network that looks at rows alone, or with ids where it is `eager`.
        data: on the host.

    Raises:
        UserError: why it cannot run here.
    """
    plain = OnRows(Eager(predictor, data.device), data)
    if name == Eager.name:
        return plain
    nodes = torch.randperm(data.n, generator=generator("compared rows", data.n))[:_COMPARED]
    try:
        found = OnRows(_KINDS[name](predictor, data.device), data)
        same = [export.close(found.answer(some).logits, plain.answer(some).logits) for some in (nodes, nodes[:1])]
    except UserError:
        raise
    # What a compiler says when it fails is of any kind; that it did is news, and no reason to give up the others.
    except Exception as problem:
        said = " ".join(str(problem).split())[:160]
        raise UserError(f"it fails here: {type(problem).__name__}: {said}") from problem
    if not all(same):
        raise UserError(f"its logits are more than {export.CLOSE:g} off; it is not timed")
    return found


def _no_compiler(device: str) -> str | None:
    """Why `torch.compile` cannot make code for a device."""
    if device == "cpu":
        there = [name for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name and shutil.which(name)]
        return None if there else "no C++ compiler is there (g++ or clang++); install one"
    return None if find_spec("triton") else "triton is not installed; pip install triton"
