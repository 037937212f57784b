"""Networks, objective and gates of a training without labels: all that determines its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, final

from gnnkd import options, processes
from gnnkd.data import images
from gnnkd.data.image_task import PROTOCOLS, ImageTask
from gnnkd.distillers.ranges import above_zero
from gnnkd.errors import UserError
from gnnkd.images import networks, sizes
from gnnkd.images.config import NOT_COMPARED, ImageDataSettings
from gnnkd.images.presets import KINDS
from gnnkd.images.presets import kind as data_kind
from gnnkd.nn.images import ImageNetwork
from gnnkd.selfsup import objectives, presets
from gnnkd.selfsup.nodes import Gates, all_of, check
from gnnkd.selfsup.objectives import Objective
from gnnkd.selfsup.views import Views
from gnnkd.train.settings import ImageTrainSettings

IDLE = ("per_class", "cache_teacher", "nesterov")
"""Settings of training that have no meaning here."""


@final
@dataclass(frozen=True, kw_only=True)
class LarsSettings:
    """What the optimizer has beside rate, momentum and decay.

    Args:
        trust: see `lars.Lars`, > 0.
        matrices: biases and batch norms take plain steps, without decay.

    Raises:
        UserError: an option outside its range.
    """

    trust: float = 0.001
    matrices: bool = False

    def __post_init__(self) -> None:
        if not self.trust > 0:
            raise UserError(f"trust is {self.trust}; it must be above 0")


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """One objective, one or more networks, one dataset, for any seed.

    `networks` are the options of each of `models`, `options` those of the objective. `flips` says whether the user
    chose that views are mirrored, or not; else it is as the data has it.
    """

    dataset: str
    split: str | None
    method: str
    models: tuple[str, ...]
    data: ImageDataSettings
    views: Views
    flips: bool
    networks: tuple[Mapping[str, Any], ...]
    options: Mapping[str, Any]
    gates: Gates
    temperature: float
    train: ImageTrainSettings
    lars: LarsSettings
    DIFFERING: ClassVar[tuple[str, str]] = ("another split or order of images", "other pixels or labels")

    def task(self, dataset: images.ImageDataset, seed: int) -> ImageTask:
        """The images, split by a seed.

        Raises:
            UserError: the dataset does not have the split, or a set would have no image.
        """
        return images.task(dataset, protocol=self.split, seed=seed, val_fraction=self.data.val_fraction)

    def views_of(self, task: ImageTask) -> Views:
        """What happens to the images of a task."""
        return self.views if self.flips else replace(self.views, flip=task.augment.flip)

    def objective(self) -> Objective:
        """A new one, for one network."""
        return objectives.build(self.method, **self.options)

    def backbones(self, task: ImageTask) -> list[ImageNetwork]:
        """New networks.

        Raises:
            UserError: there is no such network at the images' size.
        """
        shape = task.size, task.in_channels, task.n_classes
        return [networks.built(n, *shape, dict(o)) for n, o in zip(self.models, self.networks, strict=True)]

    def describe(self, task: ImageTask) -> dict[str, Any]:
        """All that determines the result, as plain values."""
        shared = {"processes": processes.world()} if processes.world() > 1 else {}
        several = {"gates": self.gates, "temperature": self.temperature} if len(self.models) > 1 else {}
        trained = {f.name: getattr(self.train, f.name) for f in fields(self.train) if f.name not in IDLE}
        found = {
            "dataset": task.name,
            "protocol": task.protocol,
            "setting": task.setting,
            "seed": task.seed,
            "fingerprint": task.fingerprint,
            "content": task.content,
            "data": {"val_fraction": self.data.val_fraction, "size": task.size},
            "method": self.method,
            "options": self.options,
            "models": [{"model": n, **o} for n, o in zip(self.models, self.networks, strict=True)],
            "views": self.views_of(task),
            "train": {n: v for n, v in trained.items() if n not in NOT_COMPARED},
            "lars": self.lars,
        }
        plain: dict[str, Any] = options.plain(found | several | shared)
        return plain


def resolve(
    dataset: str = "digits",
    *,
    split: str | None = None,
    method: str = "simclr",
    models: Sequence[str] = (),
    gates: str | Gates = "through",
    levels: Sequence[Mapping[str, Mapping[str, Any]]] = (),
) -> Plan:
    """Names and options become a checked plan.

    Args:
        models: names of networks, the first one counts; by default one that fits the data.
        gates: a word for all between two networks, or the whole matrix.
        levels: groups of options (`presets.GROUPS`), weakest first; presets and defaults stand below.

    Raises:
        UserError: an unknown name or option, or a value out of range.
    """
    for group in [group for level in levels for group in level]:
        options.word("group of options", group, presets.GROUPS)
    split = None if split is None else options.word("split", split, PROTOCOLS)
    method = options.word("objective", method, objectives.objectives())
    data = ImageDataSettings(**_checked("data", levels, options.of(ImageDataSettings, leave_out=["augment"])))
    if data.val_fraction == 0:
        raise UserError("val_fraction is 0; images that validate say which epoch is kept: give them a share above 0")
    size = sizes.of(dataset, data.size)
    kind = data_kind(dataset, size)
    names = tuple(networks.chosen("model", name, size) for name in models or [presets.NETWORKS[kind]])
    levels = [*presets.levels(kind, method), *levels]
    of_training = options.of(ImageTrainSettings, leave_out=IDLE)
    trained = _checked("train", levels, of_training | options.of(LarsSettings))
    chosen = _checked("method", levels, options.of(objectives.objectives()[method]))
    objectives.build(method, **chosen)
    matrix = all_of(gates, len(names)) if isinstance(gates, str) else gates
    check(matrix, len(names))
    return Plan(
        dataset=dataset,
        split=split,
        method=method,
        models=names,
        data=data,
        views=Views(**_checked("views", levels, options.of(Views))),
        flips=any("flip" in level.get("views", {}) for level in levels),
        networks=_networks(names, size, _merged("model", levels)),
        options=chosen,
        gates=matrix,
        temperature=_temperature(_checked("edges", levels, {"temperature": options.Option(float, 0.3)})),
        train=ImageTrainSettings(**{name: trained[name] for name in of_training}),
        lars=LarsSettings(**{name: trained[name] for name in options.of(LarsSettings)}),
    )


def _merged(group: str, levels: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for level in levels:
        found |= level.get(group, {})
    return found


def _checked(group: str, levels: Sequence[Mapping[str, Mapping[str, Any]]], known: options.Options) -> dict[str, Any]:
    return options.checked(group, _merged(group, levels), known)


def _networks(names: Sequence[str], size: int | None, said: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The options of each network: what is said of all of them, as far as it has them."""
    known = [networks.options_of(name, size) for name in names]
    options.checked("model", said, {name: option for one in known for name, option in one.items()})
    found = tuple(options.checked("model", {n: v for n, v in said.items() if n in one}, one) for one in known)
    for name, mine in zip(names, found, strict=True):
        networks.tried(name, size, mine)
    return found


def _temperature(values: Mapping[str, Any]) -> float:
    try:
        return above_zero("temperature", values["temperature"])
    except ValueError as mistake:
        raise UserError(str(mistake).replace("method.", "edges.")) from None


def inside(plan: Plan, folder: Path) -> None:
    """Refuse a folder for results that lies among a folder of images.

    Raises:
        UserError: it does.
    """
    named = plan.dataset.lower().replace("_", "-") in KINDS
    if not named and Path(plan.dataset).resolve() in folder.resolve().parents:
        raise UserError(f"results would go to {folder}, among the images; choose another folder with --out")
