"""The two halves of the house, graphs and images: which one a request is about, and what the command line sees."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gnnkd.errors import UserError, unknown

if TYPE_CHECKING:
    from gnnkd.logits import Logits
    from gnnkd.places import Place
    from gnnkd.train.progress import Progress

Groups = Mapping[str, Mapping[str, Any]]
OF_IMAGES = ("teacher_weights", "best_on_test")
"""What only the images' half has, beside `val_fraction`."""


class Task(Protocol):
    """What the command line knows of a dataset, split by a seed."""

    @property
    def name(self) -> str:
        """Of the dataset."""

    @property
    def protocol(self) -> str:
        """Of the split."""

    @property
    def setting(self) -> str:
        """`tran` or `ind`."""

    @property
    def seed(self) -> int:
        """Of the split, and of all that is drawn."""

    def to(self, device: Any) -> Any:
        """The same task on `device`."""


class Plan(Protocol):
    """One teacher and one student on one dataset, for any seed: a `Config` of graphs or an `ImageConfig`."""

    @property
    def dataset(self) -> str:
        """As the user called it."""

    @property
    def split(self) -> str | None:
        """The protocol asked for."""

    @property
    def setting(self) -> str:
        """`tran` or `ind`."""

    @property
    def teacher_model(self) -> str:
        """As results call it."""

    @property
    def student_model(self) -> str:
        """As results call it."""

    @property
    def method(self) -> str:
        """Of the student's stage."""

    @property
    def base(self) -> str | None:
        """What the method wraps."""

    @property
    def base_given(self) -> bool:
        """Whether the user named it."""

    @property
    def given(self) -> frozenset[str]:
        """What the user said himself, by the keys of a description."""

    @property
    def logits(self) -> Logits | None:
        """Ready logits, where no teacher is trained."""

    @property
    def DIFFERING(self) -> tuple[str, str]:
        """What another `fingerprint`, and another `content`, of a task mean."""

    def check_generators(self) -> None:
        """Refuse what would be found missing only after a teacher's training."""

    def load(self, root: str | None) -> Any:
        """The dataset, from files below `root` if it has any."""

    def task(self, dataset: Any, seed: int) -> Any:
        """What is to be learnt with one seed."""

    def notes(self, task: Any) -> tuple[str, ...]:
        """What a user should know of it."""

    def check_task(self, task: Any, folder: Path, *, student: bool) -> None:
        """Refuse what does not fit a task, or results in `folder`, before a place is claimed.

        `student`: whether one will be trained.
        """

    def check_shared(self, role: str, world: int) -> None:
        """Refuse so many processes for the stage of `role`, "teacher" or "student", if they cannot share it."""

    def describe_teacher(self, task: Any) -> dict[str, Any]:
        """All that determines the teacher's result."""

    def describe_student(self, task: Any, teacher: Mapping[str, Any]) -> dict[str, Any]:
        """All that determines the student's result."""

    def teacher_arguments(self) -> list[str]:
        """What the user said about data and teacher, as words of a command line."""

    def run_teacher(self, task: Any, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
        """Train a teacher and write its files; the content of `result.json`."""

    def run_student(self, task: Any, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
        """Train a student from the files of its teacher and write its own; the content of `result.json`."""


def plan(said: Mapping[str, Any], levels: tuple[Groups, ...]) -> Plan:
    """Names and options become the configuration of the half that they are about.

    Args:
        said: `dataset`, `split`, `setting`, `teacher_model`, `student_model`, `method` and those of `OF_IMAGES`, as far
            as the user named them; the teacher may be ready logits.
        levels: groups of options, weakest first.

    Raises:
        UserError: an unknown name or option, or one of the other half.
    """
    said, levels = _with_base(said, levels)
    if about_images(said.get("dataset", "digits"), said.get("teacher_model", said.get("student_model"))):
        from gnnkd.images.resolve import resolve

        return resolve(**said, levels=levels)
    from gnnkd import run

    for name in OF_IMAGES:
        if said.get(name):
            raise UserError(f"--{name} is of networks of images, and '{said.get('dataset', 'digits')}' is a graph")
    if any("val_fraction" in level.get("data", {}) for level in levels):
        raise UserError("val_fraction is of images; on a graph the split says which nodes validate (--split)")
    return run.resolve(**{name: value for name, value in said.items() if name not in OF_IMAGES}, levels=levels)


def _with_base(said: Mapping[str, Any], levels: tuple[Groups, ...]) -> tuple[Mapping[str, Any], tuple[Groups, ...]]:
    """The method `dot(gkd)` is `dot` with the base `gkd`."""
    found = re.fullmatch(r"([\w-]+) ?\( ?([\w-]+) ?\)", said.get("method", ""))
    if found is None:
        return said, levels
    from gnnkd import distillers

    method, base = (word.lower().replace("-", "_") for word in found.groups())
    there = {**distillers.graph_methods(), **distillers.methods()}
    wrapping = [name for name, kind in there.items() if kind.wraps]
    if method in there and method not in wrapping:
        raise UserError(f"method '{found[0]}': {method} wraps no other; those that do are {', '.join(wrapping)}")
    for level in levels:
        other = level.get("method", {}).get("base", base)
        if str(other).lower().replace("-", "_") != base:
            raise UserError(f"method '{found[0]}' and method.base '{other}' contradict each other; give one of them")
    return {**said, "method": method}, (*levels, {"method": {"base": base}})


def about_images(dataset: str, network: object) -> bool:
    """Whether a dataset's name or path, with the network named first, asks for the images' half.

    `digits` is of images when the network is; a path of nothing yet is so, too.

    Raises:
        UserError: an unknown name, with the nearest match.
    """
    from gnnkd.data import graphs, images

    name = dataset.lower().replace("_", "-")
    if name in graphs.names() and name != "digits":
        return False
    if name != "digits" and images.is_images(dataset):
        return True
    if name == "digits" or name.endswith(".npz") or os.sep in dataset or os.path.isfile(dataset):  # noqa: PTH113
        return isinstance(network, str) and _is_of_images(network)
    both = [*graphs.names(), *images.NAMES]
    raise UserError(
        f"{unknown('dataset', name, both)}; or give the path to a graph's .npz file, or to a folder of images"
    )


def _is_of_images(network: str) -> bool:
    from gnnkd.images.networks import known

    return known(network) is not None


def as_arguments(values: Mapping[str, Any], given: frozenset[str]) -> list[str]:
    """Plain values by dotted key, those in `given`, as arguments of `--set`; none without the flag itself."""
    pairs = [f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in values.items() if key in given]
    return ["--set", *pairs] if pairs else []
