"""A run on images, read back: its network, and the images that it was trained and tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from gnnkd.claims import differences
from gnnkd.data import images
from gnnkd.data.image_task import ImageTask
from gnnkd.errors import UserError
from gnnkd.images import predictor
from gnnkd.images.predictor import ImagePredictor
from gnnkd.places import Branch, Place, read_json
from gnnkd.train import checkpoint


@final
@dataclass(frozen=True)
class Finished:
    """A saved network, and the description of its run where one lies beside it."""

    predictor: ImagePredictor
    file: Path
    config: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where the file lies."""
        return self.file.parent

    def task(self, dataset: str | None, root: str | None, workers: int | None = None) -> ImageTask:
        """The very task of the run, with the network's own normalisation.

        Args:
            dataset: name or path; the run's own by default.
            root: of the raw data.
            workers: processes that read images, for folders.

        Raises:
            UserError: the data is not there, or another one than the run's; or no run's description is there.
        """
        if not self.config:
            raise UserError(f"{self.folder} holds no config.json; give the folder of a run")
        name = dataset or self._dataset()
        found = load(name, root, None if is_known(name) else self.predictor.size, workers)
        task = images.task(
            found,
            protocol=self.config["protocol"],
            seed=self.config["seed"],
            val_fraction=self.config["data"]["val_fraction"],
        )
        if (task.fingerprint, task.content) != (self.config["fingerprint"], self.config["content"]):
            raise UserError(
                f"the data is not what {self.folder} was trained on (other images, labels or split); give that with "
                "--dataset and --data_root"
            )
        return replace(task, mean=self.predictor.mean, std=self.predictor.std)

    def _dataset(self) -> str:
        name = str(self.config["dataset"])
        if not is_known(name):
            raise UserError(f"{self.folder} is of a folder of images, '{name}'; say where it lies with --dataset DIR")
        return name


def is_known(name: str) -> bool:
    """Whether a set of images goes by this name, so that its size is its own; others are folders."""
    return _word(name) in ("digits", *images.NAMES)


def _word(name: str) -> str:
    return name.lower().replace("_", "-")


def load(name: str, root: str | None, size: int | None, workers: int | None = None) -> images.ImageDataset:
    """A set of images by name, or a folder of them brought to `size` pixels.

    Raises:
        UserError: a graph, an unknown name, data that is not there or damaged, or an option that does not apply.
    """
    from gnnkd.data import graphs

    if _word(name) in graphs.names() and not is_known(name):
        raise UserError(
            f"'{name}' is a graph; the accuracies of a graph's runs are in their result.json (python -m gnnkd.report "
            "FOLDER), and gnnkd.load(FOLDER).predict(x, edge_index) asks a saved network"
        )
    return images.load(name, root=root, size=size, workers=workers)


def read(path: Path) -> Finished:
    """The network in the folder of a run, or in a file that gnnkd wrote.

    Raises:
        UserError: it is not there, damaged, or of a graph.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise UserError(f"{path} holds no model.safetensors; give the folder of a finished run, as .../seed0")
    tensors, meta = checkpoint.load(file)
    if "model" in meta and meta.get("kind") != predictor.KIND:
        raise UserError(
            f"{file} holds a {meta['model']} network of graphs; its accuracies are in result.json (python -m "
            f"gnnkd.report {file.parent}), and gnnkd.load({str(file.parent)!r}).predict(x, edge_index) asks it"
        )
    config = file.parent / "config.json"
    return Finished(predictor.restored(tensors, meta, file), file, read_json(config) if config.exists() else {})


def is_own(path: Path) -> bool:
    """Whether a path is a folder, or a file that gnnkd wrote."""
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        return True
    if path.suffix != ".safetensors" or not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return "gnnkd" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def teacher_of(student: Finished) -> Finished:
    """The teacher that a student's run learned from: the one with its tag, or the plain one, if it is the same still.

    Raises:
        UserError: the run is a teacher's, or its teacher is not beside it any more.
    """
    wanted = student.config.get("teacher")
    if "student_model" not in student.config or not isinstance(wanted, Mapping):
        raise UserError(
            f"{student.folder} is no student's run; give a student's folder, or a student's and a teacher's"
        )
    folder = student.folder.resolve()
    branch, tag = Branch(folder.parents[2]), folder.parent.name.partition("@")[2] or None
    places = [branch.teacher(int(wanted["seed"]), some) for some in dict.fromkeys([tag, None])]
    for place in places:
        if place.finished and _same(place, wanted):
            return read(place.folder)
    where = " or ".join(str(place.folder) for place in places)
    raise UserError(f"the teacher of {student.folder} is not in {where}; give its folder as the second one")


def _same(place: Place, wanted: Mapping[str, Any]) -> bool:
    return place.config.exists() and not differences(read_json(place.config), wanted)
