"""A student as an ONNX file, which other runtimes read: rows of features in, logits out.

The file holds all that lies between the two, the preparation of the features included, and by name the original labels
of the classes. Rows of any number can be asked about at once.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.data.augment import generator
from gnnkd.errors import UserError
from gnnkd.images.predictor import ImagePredictor
from gnnkd.nn.around import Around, kind_of
from gnnkd.nn.own import Own
from gnnkd.predictor import Predictor
from gnnkd.train.checkpoint import write_bytes
from gnnkd.types import Output

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "pip install 'gnnkd[export]'"
INPUT, OUTPUT = "x", "logits"
"""What the file calls its two tensors, [rows, D] and [rows, C], both float32."""
CLOSE = 1e-4
"""How far the logits of the file may be from the network's, by the largest one."""
_ROWS = 64
"""Rows on which they are compared."""


@final
class RowNetwork(nn.Module):
    """A network of rows as a function of one tensor, as tracers want it.

    Args:
        network: in eval mode; it looks at no edges and no ids.
        normalised: whether rows are divided by their sum first.
    """

    def __init__(self, network: nn.Module, *, normalised: bool = False) -> None:
        super().__init__()
        self.network, self.normalised = network, normalised

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Logits."""
        if self.normalised:
            total = x.sum(1, keepdim=True)
            x = x / torch.where(total > 0, total, torch.ones_like(total))
        found = self.network(x)
        logits: Tensor = found.logits if isinstance(found, Output) else found
        return logits.to(x.dtype)


def missing() -> list[str]:
    """The packages of the extra `export` that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def refusal(predictor: Predictor | ImagePredictor) -> str | None:
    """Why a network cannot be a function of rows alone; None where it can."""
    if isinstance(predictor, ImagePredictor):
        return f"{predictor.name} is a network of images, not of rows"
    if isinstance(predictor.network, Around):
        kind = kind_of(predictor.network).replace("_", " ")
        if predictor.network.needs_graph:
            return f"what is around it ({kind}) looks at the edges of the nodes asked about"
        if predictor.network.reads_index:
            return f"what is around it ({kind}) looks at the ids of the nodes asked about, and at edges of new ones"
    if predictor.needs_graph:
        return f"{predictor.name} passes messages along edges"
    return None


def rows_of(predictor: Predictor, *, normalised: bool = False) -> RowNetwork:
    """The network of a predictor as a function of rows.

    Raises:
        UserError: it is none; see `refusal`.
    """
    why = refusal(predictor)
    if why is not None:
        raise UserError(f"{why}; only a student that answers from rows of features alone can be exported, as an mlp")
    network = predictor.network.eval()
    return RowNetwork(network.module if isinstance(network, Own) else network, normalised=normalised).eval()


def to_onnx(predictor: Predictor | ImagePredictor, file: Path | str) -> Path:
    """Write a student as an ONNX file and compare its logits with the network's.

    Args:
        predictor: of a network that looks at rows alone, without anything around it or as an ensemble.
        file: its path, with `.onnx` added where it has no suffix.

    Returns:
        The path that was written: input `x` [rows, D], output `logits` [rows, C], float32; the key `gnnkd` of its
        metadata holds `classes`, the original label of each column, `model` and `features` as JSON.

    Raises:
        UserError: a network that needs more than rows, packages that are not installed, a module that cannot be
            traced, logits that differ by more than `CLOSE`, or a file that cannot be written.
    """
    if isinstance(predictor, ImagePredictor):
        raise UserError(f"{refusal(predictor)}; networks of images are loaded with gnnkd.load")
    network = rows_of(predictor, normalised=predictor.features == "row")
    about = {"classes": list(predictor.classes), "model": predictor.name, "features": predictor.features}
    content = written(network, predictor.n_features, about)
    _compare(content, network, predictor.n_features)
    path = Path(file)
    path = path if path.suffix else path.with_suffix(".onnx")
    write_bytes(path, content)
    return path


def written(network: RowNetwork, n_features: int, about: Mapping[str, Any]) -> bytes:
    """The bytes of an ONNX file of a network on the CPU.

    Args:
        network: in eval mode.
        n_features: width D of its rows.
        about: metadata, as JSON holds it.

    Raises:
        UserError: packages that are not installed, or a module that cannot be traced.
    """
    lack = missing()
    if lack:
        raise UserError(f"{', '.join(lack)} {'is' if len(lack) == 1 else 'are'} not installed; {INSTALL}")
    device = next(network.parameters()).device
    # Two rows: one alone would be taken for a size that never changes.
    example = torch.rand(2, n_features, generator=generator("exported rows", n_features)).to(device)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("rows")},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    # The module may be the user's, and the exporter raises whatever its passes raise.
    except Exception as problem:
        said = " ".join(str(problem).split())[:200]
        raise UserError(f"torch.onnx cannot export this network: {type(problem).__name__}: {said}") from problem
    model = program.model_proto  # type: ignore[union-attr]
    model.metadata_props.add(key="gnnkd", value=json.dumps(about))
    content: bytes = model.SerializeToString()
    return content


@final
class Session:
    """ONNX Runtime on the bytes of a file.

    Args:
        content: as `written` gives them.
        threads: of a product; 0 leaves the number to the runtime.
        device: cpu, or cuda where the runtime has it.

    Raises:
        UserError: the runtime is not installed, or not for that device.
    """

    def __init__(self, content: bytes, *, threads: int = 0, device: str = "cpu") -> None:
        if find_spec("onnxruntime") is None:
            raise UserError(f"onnxruntime is not installed; {INSTALL}")
        import onnxruntime

        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
        if provider not in onnxruntime.get_available_providers():
            raise UserError(f"onnxruntime has no {provider} here; pip install onnxruntime-gpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(content, options, providers=[provider])

    def __call__(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Logits of rows on the CPU."""
        (found,) = self._session.run([OUTPUT], {INPUT: x.numpy()})
        return torch.from_numpy(found)


def close(found: Float[Tensor, "N C"], want: Float[Tensor, "N C"]) -> bool:
    """Whether all logits are within `CLOSE` of the largest wanted one, or of 1 where all are smaller."""
    return bool((found - want).abs().max() <= CLOSE * max(1.0, float(want.abs().max())))


def _compare(content: bytes, network: RowNetwork, n_features: int) -> None:
    device = next(network.parameters()).device
    rows = torch.rand(_ROWS, n_features, generator=generator("compared rows", n_features))
    session = Session(content)
    for some in (rows, rows[:1]):
        with torch.no_grad():
            want = network(some.to(device)).cpu()
        found = session(some)
        if not close(found, want):
            off = float((found - want).abs().max())
            raise UserError(f"the exported file gives logits that are {off:.2g} off; it has not been written")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages that it does not find, and of torch's own parts."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch's exporter calls a form of its own pytree that it has deprecated.
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
            yield
    finally:
        log.setLevel(level)
