"""All that a comparison was asked to be, checked, with what its data has shown of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gnnkd.compare.cells import Cell, cells, impossible
from gnnkd.compare.entries import Entry
from gnnkd.errors import Unfit, UserError, unknown

if TYPE_CHECKING:
    from gnnkd.distillers.dgd.settings import GeneratorSettings
    from gnnkd.halves import Groups


@final
@dataclass(frozen=True)
class Ground:
    """What a dataset has shown of itself.

    Args:
        name: as places call it.
        protocol: of its split.
        cannot: by setting, why there is no task.
        notes: what a user should know of it.
    """

    name: str
    protocol: str
    cannot: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Datasets x settings x teachers x students x entries x seeds.

    Args:
        datasets: as the user called them.
        settings: `tran`, `ind`.
        teachers: networks, or `cells.READY` alone.
        students: networks.
        entries: of each student.
        against: the label that the others are tested against.
        seeds: of all cells alike.
        split: the protocol asked for; None leaves it to the data.
        groups: options for all cells, weakest first; one of the group `method` concerns the methods that know it.
        ready: a file of ready logits, which then stand for the teacher.
        out: the folder of all results.
        report: the folder of tables and page.
        data_root: of the raw data.
        device: cpu or cuda.
        jobs: processes at work at once.
        tune: trials of a search for each configuration before it is trained; 0 for none.
        tune_seeds: how many of the seeds a trial is trained with.
        train: False makes the tables of what is finished.
        overwrite: train again what is finished.
        costs: whether to measure what predictions cost.
        quiet: say results alone.
        command: as it was typed.
        grounds: of each dataset, once it has been read.
        found: by a cell's configuration, the options that a search has found for it, by group.
    """

    datasets: tuple[str, ...]
    settings: tuple[str, ...]
    teachers: tuple[str, ...]
    students: tuple[str, ...]
    entries: Mapping[str, tuple[Entry, ...]]
    against: str
    seeds: tuple[int, ...]
    out: Path
    report: Path
    split: str | None = None
    groups: tuple[Groups, ...] = ()
    ready: Path | None = None
    data_root: str | None = None
    device: str = "cpu"
    jobs: int = 1
    tune: int = 0
    tune_seeds: int = 3
    train: bool = True
    overwrite: bool = False
    costs: bool = True
    quiet: bool = False
    command: str = ""
    grounds: Mapping[str, Ground] = field(default_factory=dict)
    found: Mapping[str, Groups] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Print what is no result."""
        if not self.quiet:
            print(text, flush=True)

    def every(self) -> Iterator[Entry]:
        """The entries of all students."""
        for student in self.students:
            yield from self.entries[student]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, those that cannot be run included.

        Raises:
            UserError: as `cells.cells`.
        """
        return tuple(cells(self))

    def cannot(self, cell: Cell) -> str | None:
        """Why a cell of this comparison cannot be run; None if it can."""
        ground = self.grounds.get(cell.dataset)
        return (ground.cannot.get(cell.setting) if ground else None) or self._impossible[cell.configuration]

    @cached_property
    def _impossible(self) -> Mapping[str, str | None]:
        """By configuration, for its seeds have the same options."""
        return {cell.configuration: impossible(cell) for cell in self.cells if cell.seed == self.seeds[0]}

    # -- options of a cell -------------------------------------------------------------------------------------

    def of_student(self, entry: Entry, student: str) -> tuple[Groups, ...]:
        """The options for all cells, those of methods as far as an entry knows them."""
        return self._with_method(known(entry, student))

    def of_teacher(self, where: Mapping[str, str]) -> tuple[bool, tuple[Groups, ...]]:
        """Whether generators learn beside a teacher, and its options.

        Raises:
            UserError: two entries want generators that differ.
        """
        wanted: dict[str, tuple[GeneratorSettings, dict[str, Any]]] = {}
        for student in self.students:
            for entry in self.entries[student]:
                shared: dict[str, Any] = {**where, "split": self.split, "seed": self.seeds[0]}
                groups = self.of_student(entry, student)
                cell = Cell(**shared, student_model=student, entry=entry, groups=groups)
                try:
                    plan = cell.config()
                except Unfit:
                    continue
                if plan.wants_generators:
                    plan.check_generators()
                    assert plan.generators is not None
                    wanted[entry.label] = (plan.generators, _of_generators(entry.options))
        labels, chosen = list(wanted), list(wanted.values())
        for label, (settings, _) in wanted.items():
            if settings != chosen[0][0]:
                raise UserError(
                    f"{labels[0]} and {label} want different generators beside one teacher; give those options with "
                    "--set method.X=..., the same for both, or compare them in two commands with another --out each"
                )
        mine = {**(chosen[0][1] if chosen else {}), "generators": bool(wanted)}
        return bool(wanted), (*_of_teacher(self._with_method(_generator_options())), {"method": mine})

    def _with_method(self, names: set[str]) -> tuple[Groups, ...]:
        found = []
        for level in self.groups:
            method = {name: value for name, value in level.get("method", {}).items() if name in names}
            found.append({**level, "method": method})
        return tuple(found)

    def with_found(self, cell: Cell) -> Cell:
        """A cell with the options that a search has found for it."""
        found = self.found.get(cell.configuration)
        return cell if found is None else replace(cell, tuned=self.tune, found=found)

    # -- mistakes ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse, before anything is read or trained, what is no word or no option.

        Raises:
            UserError: it is.
        """
        from gnnkd import halves

        for dataset in self.datasets:
            if halves.about_images(dataset, None if self.ready else self.teachers[0]):
                raise UserError(f"--dataset {dataset} is of images; python -m gnnkd.compare compares methods on graphs")
        self._check_methods()
        labels = [entry.label for entry in self.every()]
        if self.against not in labels:
            raise unknown("--against", self.against, dict.fromkeys(labels))
        for cell in self.cells:
            if cell.seed == self.seeds[0] and self.cannot(cell) is None:
                cell.plan()

    def _check_methods(self) -> None:
        every = {name for student in self.students for e in self.entries[student] for name in known(e, student)}
        for level in self.groups:
            for name in level.get("method", {}):
                if name == "base":
                    raise UserError("--set method.base: say the base in the method's word, as --methods 'dgd(krd)'")
                if name not in every:
                    raise unknown("option", f"method.{name}", [f"method.{one}" for one in every])


def known(entry: Entry, student: str) -> set[str]:
    """The options that an entry has for one student, those of generators included where it learns from them."""
    from gnnkd import distillers, nn

    names = set(distillers.options(entry.method, on_graphs=True))
    if distillers.graph_methods()[entry.method].wraps:
        base = entry.base or distillers.default_base(nn.needs_graph(student))
        names |= set(distillers.options(base, on_graphs=True)) | _generator_options()
    return names


def _generator_options() -> set[str]:
    from gnnkd import options
    from gnnkd.distillers.dgd.settings import GeneratorSettings

    return {*options.of(GeneratorSettings), "generators"}


def _of_generators(said: Mapping[str, Any]) -> dict[str, Any]:
    names = _generator_options()
    return {name: value for name, value in said.items() if name in names}


def _of_teacher(levels: tuple[Groups, ...]) -> Iterator[Groups]:
    """The options of both stages as the teacher's alone: those of networks may be none of a student's."""
    for level in levels:
        both = {**level.get("train", {}), **level.get("teacher", {})}
        yield {"data": level.get("data", {}), "method": level.get("method", {}), "teacher": both}
