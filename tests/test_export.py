"""An exported student says what the student says; networks that need more than rows are refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnkd import export, nn
from gnnkd.errors import UserError
from gnnkd.nn.around.ensemble import Ensemble
from gnnkd.nn.around.label_propagation import LabelPropagation
from gnnkd.nn.around.peers import Peers
from gnnkd.nn.around.positions import Positions
from gnnkd.nn.around.propagated import Propagated
from gnnkd.nn.own import Own
from gnnkd.predictor import Predictor

D, C = 7, 3


def _predictor(network: torch.nn.Module, name: str = "mlp", features: str = "raw") -> Predictor:
    return Predictor(network.eval(), name, {}, (10, 20, 30), features, D)


def _mlp(**options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return nn.mlp(D, C, **{"layers": 2, "width": 8, **options})


def _inner(width: int) -> torch.nn.Module:
    return nn.mlp(width, C, layers=2, width=8)


def _around() -> dict[str, tuple[torch.nn.Module, str]]:
    ids = torch.arange(4)
    known: dict[str, Any] = {"labelled": ids, "y": ids % C, "nodes": ids}
    propagation = LabelPropagation(_inner, D, C, steps=1, weights="ind", attention_dropout=0.0, **known)
    return {
        "propagated": (Propagated(_inner(D), k=1, loops=True), "edges"),
        "peers": (Peers(_inner, D, dim=4), "edges"),
        "label propagation": (propagation, "edges"),
        "positions": (Positions(_inner(D + 2), ids, torch.randn(4, 2), n_features=D), "ids"),
    }


@pytest.mark.parametrize("name", sorted(set(nn.MODELS) - {"mlp"}))
def test_networks_that_pass_messages_are_refused(name: str, tmp_path: Path) -> None:
    network = _predictor(nn.MODELS[name](D, C), name)
    assert export.refusal(network) == f"{name} passes messages along edges"
    with pytest.raises(UserError, match="rows of features alone"):
        export.to_onnx(network, tmp_path / "student.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", _around())
def test_students_with_something_around_them_that_needs_more_are_refused(kind: str) -> None:
    network, needs = _around()[kind]
    reason = export.refusal(_predictor(network))
    assert reason is not None
    assert f"({kind})" in reason
    assert needs in reason


def test_an_ensemble_of_networks_of_rows_and_a_users_module_are_functions_of_rows() -> None:
    x = torch.randn(5, D)
    module = torch.nn.Sequential(torch.nn.Linear(D, 4), torch.nn.ReLU(), torch.nn.Linear(4, C))
    for network in (Ensemble(_inner, D, count=3), Own(module), _mlp(norm="batch")):
        predictor = _predictor(network, "Sequential" if isinstance(network, Own) else "mlp")
        assert export.refusal(predictor) is None
        found = export.rows_of(predictor)(x)
        assert torch.allclose(found, predictor.logits(x), atol=1e-6)
    assert export.refusal(_predictor(Own(module, graph=True), "Sequential")) is not None


def test_rows_are_prepared_as_the_predictor_prepares_them() -> None:
    x = torch.rand(6, D)
    x[2] = 0
    predictor = _predictor(_mlp(), features="row")
    assert torch.allclose(export.rows_of(predictor, normalised=True)(x), predictor.logits(x), atol=1e-6)
    assert not torch.allclose(export.rows_of(predictor)(x), predictor.logits(x), atol=1e-3)


def test_what_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"onnxscript, onnxruntime are not installed; pip install 'gnnkd\[exp"):
        export.to_onnx(_predictor(_mlp()), tmp_path / "student.onnx")
    with pytest.raises(UserError, match="onnxruntime is not installed"):
        export.Session(b"")


def test_logits_are_close_by_the_largest_one() -> None:
    want = torch.tensor([[100.0, 0.0]])
    assert export.close(want + 0.009, want)
    assert not export.close(want + 0.011, want)
    assert not export.close(torch.full((1, 2), 2e-4), torch.zeros(1, 2))


needs_extra = pytest.mark.skipif(bool(export.missing()), reason=f"{', '.join(export.missing())} not installed")


@needs_extra
@pytest.mark.parametrize("kind", ["raw", "row", "batch norm", "ensemble"])
def test_a_file_says_what_the_student_says_about_any_number_of_rows(kind: str, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    network = Ensemble(_inner, D, count=2) if kind == "ensemble" else _mlp(norm="batch" if "norm" in kind else "none")
    predictor = _predictor(network, features="row" if kind == "row" else "raw")
    file = export.to_onnx(predictor, tmp_path / "student")
    assert file == tmp_path / "student.onnx"
    onnx.checker.check_model(onnx.load(str(file)), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for n in (1, 2, 3, 100):
        x = torch.rand(n, D)
        (found,) = session.run(["logits"], {"x": x.numpy()})
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, predictor.logits(x).numpy(), rtol=1e-4, atol=1e-5)
    about = json.loads(session.get_modelmeta().custom_metadata_map["gnnkd"])
    assert about == {"classes": [10, 20, 30], "model": "mlp", "features": predictor.features}


@needs_extra
def test_a_file_that_says_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = export.written(export.rows_of(_predictor(_mlp(width=9))), D, {})
    monkeypatch.setattr(export, "written", lambda *_: other)
    with pytest.raises(UserError, match="off; it has not been written"):
        export.to_onnx(_predictor(_mlp()), tmp_path / "student.onnx")
    assert list(tmp_path.iterdir()) == []


@needs_extra
def test_a_module_that_cannot_be_traced_is_the_users_mistake(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = torch.nn.Linear(D, C)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.map(torch.from_numpy(x.detach().numpy()))

    with pytest.raises(UserError, match=r"torch\.onnx cannot export this network"):
        export.to_onnx(_predictor(Own(Odd()), "Odd"), tmp_path / "student.onnx")
