"""Pictures of trained image networks: `python -m gnnkd.figures KIND RUN...`.

`tsne RUN...` shows the pooled features of test images in two dimensions, a panel for each run. `correlation STUDENT
[TEACHER]` shows how the correlations between the classes' logits differ between a teacher and its student, as the
literature on distillation does: the paler, the more of the teacher's view of the classes has the student taken over.

Of a student that GK-DFD taught, `graph STUDENT [TEACHER]` shows the graph between the images of one training batch, and
`discriminative STUDENT [TEACHER]` both networks' embeddings of that batch before and after training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from gnnkd.arguments import Parser, answered, whole
from gnnkd.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnkd.data.image_task import ImageTask
    from gnnkd.images.drawings import Rows
    from gnnkd.images.finished import Finished
    from gnnkd.images.revisited import Views


def _outputs(run: Finished, task: ImageTask, device: str, most: int | None) -> tuple[Rows, Rows, Int[np.ndarray, " N"]]:
    """Pooled features, logits and classes of the test images, in order; of `most` of them, drawn the same each time."""
    import torch

    rows = task.split.test.cpu().nonzero().flatten()
    if most is not None and most < len(rows):
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:most]]
    mask = torch.zeros_like(task.split.test, device="cpu").index_fill_(0, rows, True)
    network, task = run.predictor.network.to(device).eval(), task.to(device)
    with torch.no_grad():
        found = [network(batch.x) for batch in task.scan(mask.to(device), 256)]
    pooled = torch.cat([output.pooled for output in found if output.pooled is not None])
    logits = torch.cat([output.logits for output in found])
    return pooled.cpu().numpy(), logits.cpu().numpy(), task.y.cpu()[mask].numpy()


def _name(config: Mapping[str, Any]) -> str:
    """A run in words."""
    if "student_model" not in config:
        return f"{config['teacher_model']} (teacher)"
    method = config["method"] + (f"({config['base']})" if config.get("base") else "")
    return f"{config['teacher']['teacher_model']} -> {config['student_model']} by {method}"


def _where(task: ImageTask) -> str:
    return f"{task.name} {task.protocol}-{task.setting}, seed {task.seed}"


def tsne_picture(said: argparse.Namespace, device: str) -> Figure:
    """A panel for each run.

    Raises:
        UserError: a run that is not there, or runs on different data.
    """
    from gnnkd.images import drawings, finished

    panels: dict[str, Rows] = {}
    y, task = np.empty(0, np.int64), None
    for folder in said.runs:
        run = finished.read(Path(folder))
        here = run.task(said.dataset, said.data_root)
        if task is not None and (here.fingerprint, here.content) != (task.fingerprint, task.content):
            raise UserError(f"{folder} is of other images, or another split, than {said.runs[0]}; draw them one by one")
        task = here
        features, _, y = _outputs(run, task, device, said.images)
        name = _name(run.config)
        panels[f"{name} ({len(panels) + 1})" if name in panels else name] = drawings.tsne(features, seed=0)
    assert task is not None
    title = f"Pooled features of {len(y):,} test images, t-SNE, {task.n_classes} classes\n{_where(task)}"
    return drawings.draw_tsne(panels, y, task.classes, title)


def _pair(said: argparse.Namespace) -> tuple[Finished, Finished]:
    """A student, and the teacher that is given or lies beside it."""
    from gnnkd.images import finished

    if len(said.runs) > 2:
        raise UserError(f"{said.kind} is of one student and its teacher; give one folder, or two")
    student = finished.read(Path(said.runs[0]))
    return student, finished.read(Path(said.runs[1])) if len(said.runs) == 2 else finished.teacher_of(student)


def _check_split(student: Finished, teacher: Finished) -> None:
    if not teacher.config:
        raise UserError(f"{teacher.folder} holds no config.json; give the folder of a run")
    if student.config.get("fingerprint") != teacher.config.get("fingerprint"):
        raise UserError(f"{teacher.folder} is of another split than {student.folder}; give the student's own teacher")


def correlation_picture(said: argparse.Namespace, device: str) -> Figure:
    """The map of a student and its teacher.

    Raises:
        UserError: more than two runs, one that is not there, or runs on different data.
    """
    from gnnkd.images import drawings

    student, teacher = _pair(said)
    tasks = [run.task(said.dataset, said.data_root) for run in (student, teacher)]
    _check_split(student, teacher)
    logits = [_outputs(run, task, device, said.images)[1] for run, task in zip((student, teacher), tasks, strict=True)]
    difference = drawings.correlation(logits[0]) - drawings.correlation(logits[1])
    title = f"{_name(student.config)}\n{_where(tasks[0])}, {len(logits[0]):,} test images"
    return drawings.draw_difference(difference, tasks[0].classes, title, said.limit)


def graph_picture(said: argparse.Namespace, device: str) -> Figure:
    """The graph between the images of a batch, at the end of a training by GK-DFD.

    Raises:
        UserError: more than two runs, one that is not there, one of another method, or not the student's own teacher.
    """
    from gnnkd.images import relations

    views, task, title = _views(said, device)
    return relations.draw_graph(views.after, views.pixels.numpy(), task.classes, title)


def discriminative_picture(said: argparse.Namespace, device: str) -> Figure:
    """The embeddings of a batch before and after a training by GK-DFD.

    Raises:
        UserError: as `graph_picture`.
    """
    from gnnkd.images import relations

    views, task, title = _views(said, device)
    return relations.draw_spaces(views.before, views.after, task.classes, title)


def _views(said: argparse.Namespace, device: str) -> tuple[Views, ImageTask, str]:
    from gnnkd.images import revisited

    student, teacher = _pair(said)
    task = student.task(said.dataset, said.data_root)
    _check_split(student, teacher)
    views = revisited.views(student, teacher, task.to(device))
    what = f"{len(views.pixels)} training images, a batch of epoch {views.epoch + 1}"
    return views, task, f"{_name(student.config)}\n{_where(task)}, {what}"


KINDS: dict[str, Callable[[argparse.Namespace, str], Figure]] = {
    "tsne": tsne_picture,
    "correlation": correlation_picture,
    "graph": graph_picture,
    "discriminative": discriminative_picture,
}
OWN = {"limit": ("correlation",), "images": ("tsne", "correlation")}
"""Flags that not every picture has, and which have them."""


def _parser() -> Parser:
    parser = Parser(
        prog="python -m gnnkd.figures",
        usage="python -m gnnkd.figures tsne RUN... | correlation|graph|discriminative STUDENT [TEACHER] [flags]",
        description="Pictures of trained image networks.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("kind", metavar="KIND", help="tsne or correlation; of students by gkdfd: graph or discriminative")
    add("runs", metavar="RUN", nargs="+", help="folders of finished runs; a student's teacher is found beside it")
    add("--out", metavar="FILE", help="the picture (KIND.png in the first run's folder)")
    add("--dataset", "-d", metavar="DIR", help="where a folder of images lies now")
    add("--data_root", metavar="DIR", help="folder of the raw data ($GNNKD_DATA, or a cache folder of yours)")
    add("--images", metavar="N", type=whole(2), help="test images, drawn at random (tsne: 2000, correlation: all)")
    add("--limit", metavar="X", type=float, help="end of the colours of correlation, so that pictures can be compared")
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda (auto)")
    return parser


def run(said: argparse.Namespace) -> Path:
    """Draw what is asked for; the file.

    Raises:
        UserError: anything wrong with names, files or data.
    """
    from gnnkd import options
    from gnnkd.images.drawings import write

    kind = said.kind = options.word("picture", said.kind, KINDS)
    for flag, kinds in OWN.items():
        if getattr(said, flag) is not None and kind not in kinds:
            raise UserError(f"--{flag} is of {' and '.join(kinds)}, and {kind} has no use for it; leave it out")
    if said.limit is not None and not 0 < said.limit <= 2:
        raise UserError(f"limit is {said.limit}; it must lie above 0, and 2 is the largest difference that there is")
    if said.images is None and kind == "tsne":
        said.images = 2000
    first = Path(said.runs[0])
    file = Path(said.out) if said.out else (first if first.is_dir() else first.parent) / f"{kind}.png"
    if file.suffix.lower() != ".png":
        raise UserError(f"--out {file}: the picture is a PNG; give a name that ends with .png")
    write(KINDS[kind](said, options.device(said.device)), file)
    return file


def main(argv: Sequence[str] | None = None) -> int:
    """Draw one picture and print its file; returns the exit code."""
    return answered(lambda: print(run(_parser().understood(argv))))


if __name__ == "__main__":
    sys.exit(main())
