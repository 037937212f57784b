"""Names and options of a run on images, resolved and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gnnkd import distillers, options
from gnnkd.data.image_task import PROTOCOLS
from gnnkd.distillers.base import Distiller
from gnnkd.distillers.gkdfd import Gkdfd
from gnnkd.errors import UserError
from gnnkd.halves import Groups
from gnnkd.images import networks, presets, sizes, weights
from gnnkd.images.config import IDLE, ImageConfig, ImageDataSettings, Published
from gnnkd.train.settings import ImageTrainSettings

WAY = ", or bring the images to such a size with --set data.size=N"
"""For a network that is laid out for other images than those of a folder."""
OF_STUDENT = frozenset({"cache_teacher"})
"""Settings of training that only a student's has."""


def resolve(
    dataset: str = "digits",
    *,
    split: str | None = None,
    setting: str = "tran",
    teacher_model: object = None,
    student_model: object = None,
    method: str = "kd",
    teacher_weights: str | None = None,
    best_on_test: bool = False,
    levels: tuple[Groups, ...] = (),
) -> ImageConfig:
    """Names and options become a checked configuration.

    Args:
        teacher_model: a network's name; by default the dataset's (`presets.PAIRS`).
        student_model: likewise.
        teacher_weights: file of a published checkpoint of the teacher.
        best_on_test: score the test images after each epoch too.
        levels: groups `data teacher student method train` of options, weakest first; presets and defaults stand below.

    Raises:
        UserError: an unknown name or option, a value of a wrong type or out of range, or one of graphs.
    """
    if options.word("setting", setting, ("tran", "ind")) == "ind":
        raise UserError("setting 'ind' hides nodes of a graph and their edges; images have none: leave it out")
    split = None if split is None else options.word("split", split, PROTOCOLS)
    data = ImageDataSettings(**options.checked("data", options.layered(levels)["data"], options.of(ImageDataSettings)))
    size = sizes.of(dataset, data.size)
    kind = presets.kind(dataset, size)
    way = "" if dataset.lower().replace("_", "-") in presets.KINDS else WAY
    teacher, student = _pair(kind, size, teacher_model, student_model, way)
    method = _method_name(method)
    _check_levels(levels, teacher, student, size, published=teacher_weights is not None)
    said = _layered(levels)
    base = _base(method, said["method"].get("base", "auto"))
    low = _presets(kind, size, (teacher, student), method, base, said["method"])
    groups = _layered((low, *levels))
    of_teacher, teacher_train = _settings("teacher", teacher, size, groups["teacher"])
    of_student, student_train = _settings("student", student, size, groups["student"])
    _check_drawn(method, base, said["method"])
    return ImageConfig(
        dataset=dataset,
        split=split,
        teacher_model=teacher,
        student_model=student,
        method=method,
        base=base,
        base_given=said["method"].get("base", "auto") != "auto",
        data=data,
        teacher=of_teacher,
        teacher_train=teacher_train,
        student=of_student,
        student_train=student_train,
        options=_method(method, base, groups["method"], student_train),
        given=_given(said, published=teacher_weights is not None),
        published=None if teacher_weights is None else _published(teacher_weights),
        best_on_test=best_on_test,
        expected_size=size,
    )


def _layered(levels: Iterable[Groups]) -> dict[str, dict[str, Any]]:
    """`options.layered`, but what `train.X` says of a teacher that is asked does not reach its own training."""
    found = options.layered(levels)
    return found | {"teacher": {name: value for name, value in found["teacher"].items() if name not in OF_STUDENT}}


def _given(said: Groups, *, published: bool) -> frozenset[str]:
    names = {f"{group}.{name}" for group, values in said.items() for name in values}
    if published:  # what `train.X` says of a training does not reach it
        names = names - {f"teacher.{name}" for name in IDLE} | {"teacher_weights"}
    return frozenset(names)


def _published(said: str) -> Published:
    file = Path(said)
    return Published(file, weights.fingerprint(file))


def _pair(kind: str, size: int | None, teacher: object, student: object, way: str) -> tuple[str, str]:
    if teacher is not None and not isinstance(teacher, str) and hasattr(teacher, "values"):
        raise UserError("teacher_logits are of the nodes of a graph; on images give --teacher_weights, a checkpoint")
    first, second = presets.PAIRS[kind]
    return (
        networks.chosen("teacher model", first if teacher is None else teacher, size, way=way),
        networks.chosen("student model", second if student is None else student, size, way=way),
    )


def _settings(
    group: str, network: str, size: int | None, values: Mapping[str, Any]
) -> tuple[dict[str, Any], ImageTrainSettings]:
    """Options of a network and of its training; ranges are checked where they are used."""
    of_network, of_training = networks.options_of(network, size), options.of(ImageTrainSettings)
    found = options.checked(group, values, of_network | of_training)
    mine = {name: found[name] for name in of_network}
    try:
        networks.tried(network, size, mine)
        return mine, ImageTrainSettings(**{name: found[name] for name in of_training})
    except UserError as mistake:
        raise UserError(f"{group}: {mistake}") from None


def _check_levels(levels: Iterable[Groups], teacher: str, student: str, size: int | None, *, published: bool) -> None:
    """Name mistakes in the group `train` as such, and options of a training that a published teacher does not have."""
    of_teacher = networks.options_of(teacher, size)
    common = {name: o for name, o in networks.options_of(student, size).items() if name in of_teacher}
    of_training = options.of(ImageTrainSettings)
    for level in levels:
        options.checked("train", level.get("train", {}), common | of_training)
        for name in OF_STUDENT & level.get("teacher", {}).keys():
            raise UserError(f"teacher.{name}: no teacher teaches the teacher; say student.{name}, or leave it out")
        idle = [name for name in level.get("teacher", {}) if name in IDLE]
        if published and idle:
            said = ", ".join(f"teacher.{name}" for name in idle)
            raise UserError(f"{said}: a published teacher is not trained (--teacher_weights); leave it out")


# -- the method ------------------------------------------------------------------------------------------------


def _method_name(said: str) -> str:
    there = distillers.image_methods()
    if str(said).lower().replace("-", "_") in distillers.methods().keys() - there.keys():
        raise UserError(f"method '{said}' teaches networks of graphs; on images there are {', '.join(sorted(there))}")
    return options.word("method", said, there)


def _base(method: str, said: Any) -> str | None:
    if not distillers.methods()[method].wraps:
        return None
    plain_ones = [name for name, kind in distillers.image_methods().items() if not kind.wraps]
    base = options.word("value of method.base", said, ["auto", *plain_ones])
    return distillers.default_base(student_needs_graph=True) if base == "auto" else base


def _options_of(method: str, base: str | None) -> dict[str, options.Option]:
    own = options.of(distillers.methods()[method])
    return own if base is None else options.of(distillers.methods()[base]) | own | {"base": options.Option(str, "auto")}


def _method(method: str, base: str | None, values: Mapping[str, Any], training: ImageTrainSettings) -> dict[str, Any]:
    """Options of the method and of its base, which is among them."""
    found = options.checked("method", values, _options_of(method, base))
    mine = {name: value for name, value in found.items() if name != "base"}
    _check_classes(distillers.build(method, base=base or "auto", student_needs_graph=True, **mine), training)
    return mine | ({"base": base} if base else {})


def _check_drawn(method: str, base: str | None, said: Mapping[str, Any]) -> None:
    """Refuse options of rows that are drawn from a whole graph."""
    found = [name for name in Gkdfd.drawn if name in said]
    if found and "gkdfd" in (method, base):
        raise UserError(
            f"method.{found[0]} is of nodes drawn from a whole graph; the classes of a batch of images are "
            "student.batch_size / student.per_class, with student.per_class images of each: say student.per_class"
        )


def _check_classes(distiller: Distiller, training: ImageTrainSettings) -> None:
    """Refuse batches of one class for a term that tells classes apart."""
    inner = getattr(distiller, "base", distiller)
    if not isinstance(inner, Gkdfd) or inner.settings.weights["dfd"].never or training.per_class is None:
        return
    if training.batch_size // training.per_class < 2:
        raise UserError(
            f"student.batch_size is {training.batch_size} and student.per_class {training.per_class}, so that a batch "
            "has one class, and method.dfd_weight tells classes apart; set a smaller student.per_class, "
            "student.per_class=null, a larger student.batch_size, or method.dfd_weight=0"
        )


def _presets(
    kind: str, size: int | None, pair: tuple[str, str], method: str, base: str | None, said: Mapping[str, Any]
) -> Groups:
    """Presets, as far as they are options of this run; `said` are the user's own options of the method."""
    of_training = options.of(ImageTrainSettings)
    found = {
        group: {
            name: value
            for name, value in presets.training(kind, network).items()
            if name in of_training | networks.options_of(network, size)
        }
        for group, network in zip(("teacher", "student"), pair, strict=True)
    }
    for name in (base, method):
        found["student"] |= presets.OF_METHODS.get(name or "", {})
    of_method = presets.of_method(kind, size, *pair, method, said)
    if base is not None:  # what the wrapper has itself is not the base's to set, under whichever name
        own = options.of(distillers.methods()[method])
        of_base = presets.of_method(kind, size, *pair, base, {**said, **dict.fromkeys(own)})
        of_method = {name: value for name, value in of_base.items() if name not in own} | of_method
    return found | {"method": of_method}
