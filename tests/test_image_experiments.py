"""The image files of experiments/: each is the method and the pair that its path says, in the published settings."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from gnnkd.config import Request, parse
from gnnkd.distillers import image_methods
from gnnkd.images.config import ImageConfig
from gnnkd.images.presets import METHODS
from gnnkd.nn.images import LARGE, SMALL

ROOT = Path(__file__).parents[1]
KINDS = ("cifar100", "imagenet")
PAIRS = {
    "cifar100": {
        "resnet110-resnet20", "resnet110-resnet32", "resnet32x4-resnet8x4", "resnet32x4-shufflev1",
        "resnet32x4-shufflev2", "resnet50-mobilenetv2", "resnet50-vgg8", "resnet56-resnet20", "vgg13-mobilenetv2",
        "vgg13-vgg8", "wrn_40_2-shufflev1", "wrn_40_2-wrn_16_2", "wrn_40_2-wrn_40_1",
    },
    "imagenet": {"resnet34-resnet18", "resnet50-mobilenetv1"},
}  # fmt: skip
UNNAMED = "resnet32x4-mobilenetv2"
"""The pair that two READMEs name above the numbers of another one."""
VARIANTS = {
    "kd_ce1_kd1_warmup20": ("kd", {"recipe": "kd_ce1_kd1_warmup20"}),
    "dkd_gkd": ("gkd", {"loss": "dkd"}),
    "edkd_code": ("edkd", {"variant": "code"}),
    "dot_kd": ("dot", {"base": "kd"}),
    "dot_gkd": ("dot", {"base": "gkd"}),
    "logitstd_kd": ("logitstd", {"base": "kd"}),
    "logitstd_dkd": ("logitstd", {"base": "dkd"}),
}
"""Folders that are not called as a method is: the method, and the options that make the difference."""
OWN_STUDENT = {"reviewkd": {"lr", "batch_size"}, "gkdfd": {"per_class"}}
"""Methods whose authors trained the student with other settings than their baselines had."""
TOLD = {"reviewkd": "those of ReviewKD's authors"}
"""What the head says where settings differ that published numbers depend on."""


@cache
def read(file: Path) -> Request:
    return parse(["--config", str(file)])


def config(file: Path) -> ImageConfig:
    found = read(file).config
    assert isinstance(found, ImageConfig)
    return found


def files(kind: str, method: str = "*", pair: str = "*") -> list[Path]:
    return sorted((ROOT / "experiments" / kind).glob(f"{method}/{pair}.yaml"))


FOLDERS = [folder for kind in KINDS for folder in sorted((ROOT / "experiments" / kind).iterdir())]


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_has_a_file_for_each_pair(kind: str) -> None:
    folders = [folder for folder in FOLDERS if folder.parent.name == kind]
    found = {folder.name: {file.stem for file in folder.glob("*.yaml")} for folder in folders}
    plain = {name for name, method in image_methods().items() if not method.wraps}
    assert set(found) == plain | set(VARIANTS)
    assert {method for method, _ in VARIANTS.values()} >= image_methods().keys() - plain, "each wrapping method, too"
    for method, pairs in found.items():
        more = {UNNAMED} if kind == "cifar100" and method in ("kd", "gkd") else set()
        assert pairs == PAIRS[kind] | more, method


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_a_file_is_what_its_path_says_and_its_head_tells_how_to_run_it(folder: Path) -> None:
    method, extra = VARIANTS.get(folder.name, (folder.name, {}))
    for file in folder.glob("*.yaml"):
        lines = file.read_text(encoding="utf-8").splitlines()
        assert lines[0] == f"# python -m gnnkd.main --config {file.relative_to(ROOT)} --seeds 3"
        head = " ".join(line[2:] for line in lines if line.startswith("# "))
        for word in ("Expected: not run here; published: ", "Seeds: 0-2.", "Runtime: not measured"):
            assert word in head, file
        asked = config(file)
        assert f"{asked.teacher_model}-{asked.student_model}" == file.stem
        assert (asked.method, Path(asked.dataset).name) == (method, folder.parent.name)
        assert {name: asked.options[name] for name in extra} == extra, file
        request = read(file)
        assert request.out == Path("runs/published"), "no experiment stands in the way of other runs"
        # One place for each: options that are no base make no folder of their own.
        assert (request.tag is None) == (not extra or "base" in extra), file


@pytest.mark.parametrize("kind", KINDS)
def test_methods_of_a_pair_share_teacher_and_student_settings(kind: str) -> None:
    for pair in PAIRS[kind] | ({UNNAMED} if kind == "cifar100" else set()):
        plain = config(ROOT / "experiments" / kind / "kd" / f"{pair}.yaml")
        for file in files(kind, pair=pair):
            other = config(file)
            for part in ("data", "teacher", "teacher_train", "student", "split", "best_on_test"):
                assert getattr(plain, part) == getattr(other, part), (part, file)
            ours, theirs = vars(plain.student_train), vars(other.student_train)
            differ = {name for name in ours if ours[name] != theirs[name]}
            assert differ <= OWN_STUDENT.get(file.parent.name, set()), file
            if differ:
                assert TOLD.get(file.parent.name, "") in file.read_text(encoding="utf-8")
            if file.parent.name == "gkdfd":
                assert (theirs["per_class"], ours["per_class"]) == (8, None), file


def test_the_published_settings() -> None:
    """All training images, the last epoch, and the best on the test images beside it, as the literature has it."""
    for kind, epochs in (("cifar100", 240), ("imagenet", 100)):
        for file in files(kind, "kd"):
            asked = config(file)
            assert asked.data.val_fraction == 0
            assert asked.best_on_test
            assert (asked.teacher_train.epochs, asked.student_train.epochs) == (epochs, epochs)
            small = asked.student_model in ("mobilenetv2", "shufflev1", "shufflev2")
            assert asked.student_train.lr == (0.1 if kind == "imagenet" else 0.01 if small else 0.05)
            known = LARGE if kind == "imagenet" else SMALL
            assert {asked.teacher_model, asked.student_model} <= known.keys()


def test_a_head_says_where_the_weight_is_not_a_published_one() -> None:
    for file in files("cifar100", "reviewkd"):
        pair = tuple(file.stem.split("-"))
        ours = "it is ours: 1." in file.read_text(encoding="utf-8")
        assert ours is (("cifar", *pair, "reviewkd") not in METHODS), file
        assert ours is ("published settings but for its weight" in file.read_text(encoding="utf-8")), file
        assert not ours or config(file).options["weight"] == 1


def test_numbers_are_percentages_with_a_source() -> None:
    for file in (file for kind in KINDS for file in files(kind)):
        head = " ".join(line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
        (said,) = re.findall(r"published: (.*?) Seeds:", head)
        assert said.startswith("no number") or re.search(r"^\d\d\.\d\d %.* \((recalled|.*README|.*table)", said), file
        assert len(re.findall(r"\d\d\.\d\d %", said)) >= 2, "and the teacher's and the student's"


def test_the_pair_that_readmes_mislabel_is_there_beside_the_one_that_they_mean() -> None:
    for method in ("kd", "gkd"):
        (said,) = [file.read_text(encoding="utf-8") for file in files("cifar100", method, UNNAMED)]
        assert "no number that is surely of this pair" in said
        assert "ResNet32x4 -> ShuffleNetV2" in said
    (meant,) = files("cifar100", "kd", "resnet32x4-shufflev2")
    assert "published: 74.45 %" in meant.read_text(encoding="utf-8")
