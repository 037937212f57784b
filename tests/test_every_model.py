"""Every network as a teacher and as a student, through both stages, with generators and gradient fusion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gnnkd import nn
from gnnkd.data.dataset import from_arrays
from gnnkd.data.task import NodeTask, task
from gnnkd.options import of
from gnnkd.run import resolve
from gnnkd.stages import train_student, train_teacher
from gnnkd.train.progress import Silent

MODELS = sorted(nn.MODELS)
N, C = 90, 3
EPOCHS = 5


def _task() -> NodeTask:
    """A planted partition with masks."""
    rng, y = np.random.default_rng(0), np.arange(N) % C
    a, b = rng.integers(0, N, (2, 8 * N))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    words = rng.random((N, 30)) < np.where(np.arange(30) % C == y[:, None], 0.4, 0.05)
    parts = np.arange(N) * 3 // N
    masks = {name: parts == i for i, name in enumerate(("train_mask", "val_mask", "test_mask"))}
    return task(
        from_arrays({"edge_index": np.stack([a, b])[:, near], "x": words.astype(np.float32), "y": y} | masks), seed=0
    )


def _run(teacher: str, student: str, **method: Any) -> tuple[Any, Any, Any]:
    def small(model: str) -> dict[str, Any]:
        return {
            name: value for name, value in {"width": 8, "layers": 2, "heads": 2}.items() if name in of(nn.MODELS[model])
        }

    level = {"teacher": small(teacher), "student": small(student), "train": {"epochs": EPOCHS}, "method": method}
    config = resolve("data", teacher_model=teacher, student_model=student, method="dgd", levels=(level,))
    taught = train_teacher(_task(), config, Silent())
    learnt = train_student(_task(), config, taught.logits, taught.bank, Silent())
    return taught, learnt.predictor, learnt.reached


def _weights(network: torch.nn.Module) -> list[str]:
    """Names of the weight matrices of the linear maps; MoNet's 2 x 2 map of coordinates is a mixture parameter."""
    names = [name for name, p in network.named_parameters() if p.dim() == 2 and name.endswith("weight")]
    return [name for name in names if "coordinates" not in name]


@pytest.mark.parametrize("preset", ["tuned", "paper"])
@pytest.mark.parametrize("teacher", MODELS)
def test_generators_learn_from_every_weight_matrix_of_a_teacher(teacher: str, preset: str) -> None:
    taught, _, _ = _run(teacher, "mlp", preset=preset)
    assert sorted(taught.bank.layers.names) == sorted(_weights(taught.predictor.network))
    last = taught.reached.history[-1]
    for name in taught.bank.layers.names:
        assert -1 <= last[f"imitation/{name}/generator"] <= 1


ONE_MAP = {"sgc"}
"""Of a single linear map under a softmax the gradient's entries sum to zero, whatever the weights: no curvature."""


@pytest.mark.parametrize("student", sorted(set(MODELS) - ONE_MAP))
def test_gradients_of_every_weight_matrix_of_a_student_are_moved(student: str) -> None:
    _, learned, reached = _run("gat", student, preset="tuned", k=2)
    for name in _weights(learned.network):
        sizes = [row[f"bias/{name}"] for row in reached.history]
        assert all(0 < size <= 0.3001 for size in sizes), name


@pytest.mark.parametrize("student", sorted(ONE_MAP))
def test_one_linear_map_has_no_curvature_so_its_gradient_stays(student: str) -> None:
    _, _, reached = _run("gcn", student)
    sizes = [value for row in reached.history for key, value in row.items() if key.startswith("bias/")]
    assert len(sizes) == EPOCHS
    assert max(sizes) < 1e-4
