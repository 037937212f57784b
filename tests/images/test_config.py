"""The command line on images: which half is meant, defaults, presets, options, and one clear line for every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnkd import distillers, options
from gnnkd.config import parse
from gnnkd.data import images as data
from gnnkd.errors import UserError
from gnnkd.graph_config import Config
from gnnkd.images import networks, presets
from gnnkd.images.config import ImageConfig
from gnnkd.images.resolve import resolve
from gnnkd.nn import MODELS
from gnnkd.nn.images import LARGE, NAMES, SMALL, TINY


def _config(*argv: str) -> ImageConfig:
    config = parse(argv).config
    assert isinstance(config, ImageConfig)
    return config


# -- which half --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ["--dataset", "digits-images"],
        ["--dataset", "Digits_Images", "--method", "supervised"],
        ["--dataset", "cifar100"],
        ["--dataset", "Tiny_ImageNet"],
        ["--teacher", "cnn"],
        ["--dataset", "digits", "--teacher", "resnet20", "--student", "cnn_small"],
        ["--dataset", "digits", "--student", "cnn_small"],
    ],
)
def test_these_are_of_images(argv: list[str]) -> None:
    assert isinstance(parse(argv).config, ImageConfig)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--dataset", "digits"],
        ["--dataset", "digits-graph"],
        ["--teacher", "mlp"],
        ["--dataset", "cora"],
        ["--dataset", "somewhere/graph.npz"],
    ],
)
def test_these_are_of_graphs(argv: list[str]) -> None:
    assert isinstance(parse(argv).config, Config)


def test_a_graph_known_by_name_is_no_folder_that_happens_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cora").mkdir()
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(parse(["--dataset", "cora"]).config, Config)
    assert isinstance(parse(["--dataset", "photos"]).config, ImageConfig)


# -- names and defaults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "teacher", "student"),
    [
        ("digits-images", "cnn", "cnn_small"),
        ("cifar10", "resnet32x4", "resnet8x4"),
        ("cifar100", "resnet32x4", "resnet8x4"),
        ("tiny-imagenet", "resnet18", "mobilenetv2"),
        (".", "resnet34", "resnet18"),
    ],
)
def test_defaults_by_dataset(dataset: str, teacher: str, student: str) -> None:
    config = _config("--dataset", dataset)
    assert (config.teacher_model, config.student_model, config.method) == (teacher, student, "kd")
    assert (config.split, config.setting, config.base, config.best_on_test) == (None, "tran", None, False)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("resnet8x4", "resnet8x4"),
        ("ResNet8x4", "resnet8x4"),
        ("wrn-40-2", "wrn_40_2"),
        ("WRN_40_2", "wrn_40_2"),
        ("MobileNetV2", "mobilenetv2"),
        ("mobile_v2", "mobilenetv2"),
        ("shuffle_v1", "shufflev1"),
        ("ShuffleNetV2", "shufflev2"),
        ("ResNet50", "resnet50"),
        ("wideresnet28_2", "wrn_28_2"),
    ],
)
def test_names_in_any_spelling(said: str, name: str) -> None:
    assert _config("--dataset", "cifar100", "--student", said).student_model == name


def test_no_two_networks_have_the_same_word_and_none_has_a_graph_networks() -> None:
    assert len({networks._word(name) for name in NAMES}) == len(NAMES)
    assert not {networks._word(name) for name in NAMES} & {networks._word(name) for name in networks.ALIASES}
    assert not {networks._word(name) for name in NAMES} & {networks._word(name) for name in MODELS}


# -- presets -----------------------------------------------------------------------------------------------------


def test_cifar_trains_as_published() -> None:
    config = _config("--dataset", "cifar100", "--teacher", "vgg13", "--student", "mobilenetv2")
    t, s = config.teacher_train, config.student_train
    assert (t.lr, s.lr) == (0.05, 0.01)
    for one in (t, s):
        assert (one.momentum, one.weight_decay, one.batch_size, one.epochs, one.nesterov) == (0.9, 5e-4, 64, 240, False)
        rates = [one.rate(epoch) / one.lr for epoch in (0, 149, 150, 179, 180, 209, 210, 239)]
        assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_imagenet_trains_as_published(tmp_path: Path) -> None:
    config = _config("--dataset", str(tmp_path))
    one = config.student_train
    assert (one.lr, one.batch_size, one.epochs, one.weight_decay) == (0.1, 256, 100, 1e-4)
    assert [one.rate(epoch) for epoch in (29, 30, 60, 90)] == pytest.approx([0.1, 0.01, 0.001, 1e-4])
    assert (config.options["alpha"], config.options["temperature"]) == (0.5, 1.0)


def _images(root: Path, side: int, *parts: str, height: int | None = None) -> str:
    from PIL import Image

    for place in [root / part / label for part in parts or ("",) for label in "ba"]:
        place.mkdir(parents=True)
        (place / ".hidden.png").touch()
        (place / "0.txt").touch()
        Image.new("L", (side, height or side)).save(place / "1.PNG")
    return str(root)


@pytest.mark.parametrize("parts", [(), ("train", "val"), ("train", "test")])
@pytest.mark.parametrize(("side", "kind"), [(8, "cifar"), (16, "cifar"), (32, "cifar"), (33, "tiny"), (64, "tiny")])
def test_a_folder_of_small_images_trains_as_the_set_of_its_size(
    tmp_path: Path, side: int, kind: str, parts: tuple[str, ...]
) -> None:
    found = _config("--dataset", _images(tmp_path, side, *parts))
    known = _config("--dataset", {"cifar": "cifar100", "tiny": "tiny-imagenet"}[kind])
    for name in ("teacher_model", "student_model", "teacher_train", "student_train", "options"):
        assert getattr(found, name) == getattr(known, name), name
    assert (found.expected_size, found.data.size) == (side, None)


@pytest.mark.parametrize(("side", "height"), [(65, None), (16, 17), (7, None), (500, 300)])
def test_a_folder_of_other_images_trains_as_imagenet_does(tmp_path: Path, side: int, height: int | None) -> None:
    found = _config("--dataset", _images(tmp_path, side, height=height))
    assert (found.teacher_model, found.student_train.lr, found.expected_size) == ("resnet34", 0.1, 224)
    assert _config("--dataset", str(tmp_path), "--set", "data.size=32").teacher_model == "resnet32x4"


@pytest.mark.parametrize(("side", "weight"), [(8, 62.5), (16, 250.0), (24, 562.5), (32, 1000), (64, 1000), (96, 1000)])
def test_attention_weighs_as_published_and_less_on_fewer_pixels(tmp_path: Path, side: int, weight: float) -> None:
    assert _config("--dataset", _images(tmp_path, side), "--method", "at").options["weight"] == weight
    argv = ["--dataset", str(tmp_path), "--method", "at", "--set", f"data.size={side}"]
    assert _config(*argv).options["weight"] == weight
    assert _config(*argv, "method.weight=3").options["weight"] == 3.0


def test_attention_weighs_as_published_on_sets_known_by_name() -> None:
    for name, weight in (("digits-images", 62.5), ("cifar100", 1000.0), ("tiny-imagenet", 1000.0)):
        assert _config("--dataset", name, "--method", "at").options["weight"] == weight


@pytest.mark.parametrize(
    ("pair", "method", "option", "value"),
    [
        (("resnet56", "resnet20"), "dkd", "beta", 2.0),
        (("resnet32x4", "resnet8x4"), "dkd", "beta", 8.0),
        (("vgg13", "vgg8"), "dkd", "beta", 6.0),
        (("vgg13", "vgg8"), "gkd", "beta", None),
        (("resnet32x4", "shufflev2"), "reviewkd", "weight", 8.0),
        (("resnet56", "resnet20"), "dot", "delta", 0.075),
    ],
)
def test_methods_follow_the_pair(pair: tuple[str, str], method: str, option: str, value: float | None) -> None:
    config = _config("--dataset", "cifar100", "--teacher", pair[0], "--student", pair[1], "--method", method)
    assert config.options[option] == value


def test_a_base_has_the_presets_of_its_pair_too() -> None:
    argv = ["--dataset", "cifar100", "--teacher", "vgg13", "--student", "vgg8", "--method", "dot"]
    assert _config(*argv, "--set", "method.base=dkd").options["beta"] == 6.0
    assert _config(*argv, "--set", "method.base=dkd", "method.beta=3").options["beta"] == 3.0


@pytest.mark.parametrize("word", ["dot(gkd)", "DOT(GKD)", "dot ( gkd )"])
def test_a_method_may_name_its_base(word: str) -> None:
    config = _config("--dataset", "cifar100", "--method", word)
    assert (config.method, config.base, config.base_given) == ("dot", "gkd", True)
    assert config == _config("--dataset", "cifar100", "--method", "dot", "--set", "method.base=gkd")
    assert config == _config("--dataset", "cifar100", "--method", word, "--set", "method.base=GKD")


def test_a_flag_beats_a_base_that_a_files_method_names(tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text("dataset: cifar100\nmethod: logitstd(dkd)\n")
    assert _config("--config", str(file)).base == "dkd"
    assert _config("--config", str(file), "--method", "dkd").base is None


def test_a_cache_of_the_teacher_is_the_students() -> None:
    config = _config("--dataset", "cifar100", "--set", "train.cache_teacher=true", "train.lr=0.3")
    assert (config.teacher_train.cache_teacher, config.student_train.cache_teacher) == (False, True)
    assert config.teacher_arguments() == ["--set", "teacher.lr=0.3"]


def test_gkd_on_dkd_has_dkds_presets_and_a_recipe_of_kd_its_own() -> None:
    argv = ["--dataset", "cifar100", "--teacher", "vgg13", "--student", "vgg8", "--method", "gkd"]
    assert _config(*argv, "--set", "method.loss=dkd").options["beta"] == 6.0
    control = _config("--dataset", ".", "--method", "kd", "--set", "method.recipe=kd_ce1_kd1_warmup20")
    assert control.options["alpha"] is None


def test_every_preset_is_an_option_of_what_it_is_for() -> None:
    for (_, teacher, student, method), values in presets.METHODS.items():
        assert set(values) <= set(options.of(distillers.methods()[method])), (method, values)
        assert {teacher, student} - {"*"} <= NAMES
    for method, of_pixels in presets.BY_PIXELS.items():
        known = options.of(distillers.methods()[method])
        assert of_pixels == {name: known[name].default for name in of_pixels}, "as published"
    of_training = set(options.of(type(_config("--dataset", "cifar10").teacher_train)))
    for (_, network), values in presets.TRAINING.items():
        assert network in {"*", *NAMES}
        assert set(values) <= of_training, (network, values)
    for method, values in presets.OF_METHODS.items():
        assert method in distillers.image_methods()
        assert set(values) <= of_training, (method, values)


@pytest.mark.parametrize("word", ["kd", "dot(kd)"])
def test_a_methods_own_training_is_its_students_and_a_preset(
    word: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a stand-in for the method that has one."""
    argv = ["--dataset", "cifar100", "--method", word]
    assert _config(*argv).student_train.per_class is None
    monkeypatch.setitem(presets.OF_METHODS, "kd", {"per_class": 8})
    config = _config(*argv)
    assert (config.teacher_train.per_class, config.student_train.per_class) == (None, 8)
    assert "student.per_class" not in config.given
    assert _config(*argv, "--set", "student.per_class=4").student_train.per_class == 4
    assert _config(*argv, "--set", "train.per_class=null").student_train.per_class is None
    file = tmp_path / "run.yml"
    file.write_text("dataset: cifar100\ntrain: {per_class: 16}\n")
    both = _config("--config", str(file), "--method", word)
    assert (both.teacher_train.per_class, both.student_train.per_class) == (16, 16)
    with pytest.raises(UserError, match=r"student: batch_size is 100 and per_class 8; .* or per_class=null"):
        _config(*argv, "--set", "train.batch_size=100")


def test_gkdfd_has_balanced_batches_unless_it_is_told_otherwise() -> None:
    assert presets.OF_METHODS == {"gkdfd": {"per_class": 8}}
    for word in ("gkdfd", "dot(gkdfd)"):
        config = _config("--dataset", "digits-images", "--method", word)
        assert (config.teacher_train.per_class, config.student_train.per_class) == (None, 8)


@pytest.mark.parametrize("method", ["gkdfd", "dot(gkdfd)"])
def test_gkdfd_on_batches_that_leave_nothing_to_discriminate(method: str) -> None:
    argv = ("--dataset", "digits-images", "--method", method, "--set")
    with pytest.raises(UserError, match=r"batch_size is 8 and student\.per_class 8.* one class.*method\.dfd_weight=0"):
        _config(*argv, "student.batch_size=8")
    with pytest.raises(UserError, match="a batch has one class"):
        _config(*argv, "train.per_class=64", "train.batch_size=64")
    for way in ("student.per_class=4", "student.per_class=null", "student.batch_size=16", "method.dfd_weight=0"):
        _config(*argv, "student.batch_size=8", way)
    for name in ("classes", "samples"):
        with pytest.raises(UserError, match=rf"method\.{name} is of nodes .*say student\.per_class"):
            _config(*argv, f"method.{name}=4")


@pytest.mark.parametrize("method", ["kd", "supervised"])
def test_any_method_may_have_balanced_batches(method: str) -> None:
    config = _config("--dataset", "digits-images", "--method", method, "--set", "student.per_class=16")
    assert (config.teacher_train.per_class, config.student_train.per_class) == (None, 16)


@pytest.mark.parametrize(("dataset", "family"), [("cifar10", SMALL), ("tiny-imagenet", TINY), (".", LARGE)])
def test_every_network_of_a_family_can_be_teacher_and_student(dataset: str, family: dict[str, Any]) -> None:
    for name in family:
        config = _config("--dataset", dataset, "--teacher", name, "--student", name)
        assert set(config.teacher) == set(config.student) == set(options.of(family[name]))


@pytest.mark.parametrize("method", sorted(distillers.image_methods()))
def test_every_method_resolves(method: str) -> None:
    config = _config("--dataset", "cifar100", "--method", method)
    wraps = distillers.methods()[method].wraps
    assert config.base == ("kd" if wraps else None)
    assert set(options.of(distillers.methods()[method])) <= set(config.options)


# -- options -----------------------------------------------------------------------------------------------------


def test_flags_beat_set_beats_file_beats_presets(tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text(
        "dataset: cifar100\nteacher: resnet56\nstudent: {name: resnet20, lr: 0.2}\nmethod: {name: dkd, beta: 5}\n"
        "val_fraction: 0.2\ntrain: {epochs: 7}\nbest_on_test: true\n"
    )
    config = _config("--config", str(file))
    assert (config.teacher_model, config.student_model, config.options["beta"]) == ("resnet56", "resnet20", 5.0)
    assert (config.student_train.lr, config.teacher_train.lr, config.teacher_train.epochs) == (0.2, 0.05, 7)
    assert (config.data.val_fraction, config.best_on_test) == (0.2, True)
    config = _config("--config", str(file), "--set", "method.beta=4", "val_fraction=0.3", "--val-fraction", "0")
    assert (config.options["beta"], config.data.val_fraction) == (4.0, 0.0)


def test_the_library_resolves_as_the_command_line_does() -> None:
    argv = ["--dataset", "cifar100", "--student", "vgg8", "--method", "dot", "--set", "method.base=dkd", "train.lr=.1"]
    levels = ({"method": {"base": "dkd"}, "train": {"lr": 0.1}},)
    assert resolve("cifar100", student_model="vgg8", method="dot", levels=levels) == parse(argv).config


@pytest.fixture
def weights(tmp_path: Path) -> str:
    file = tmp_path / "teacher.pth"
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, file)
    return str(file)


def test_a_published_teacher_is_known_by_its_content(weights: str) -> None:
    config = _config("--dataset", "cifar100", "--teacher_weights", weights)
    assert config.published is not None
    assert len(config.published.sha256) == 64
    assert "teacher_weights" in config.given
    assert config.teacher_arguments() == ["--teacher_weights", weights]


def test_a_published_teacher_beats_a_files_training_of_one(weights: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text("dataset: cifar100\nteacher: {name: resnet20, shortcut: a, lr: 0.3}\n")
    config = _config("--config", str(file), "--teacher_weights", weights)
    assert config.published is not None
    assert config.teacher["shortcut"] == "a"
    with pytest.raises(UserError, match=r"teacher\.lr: a published teacher is not trained"):
        parse(["--config", str(file), "--teacher_weights", weights, "--set", "teacher.lr=0.2"])


ON = ["--dataset", "cifar100"]
MISTAKES = [
    (["--dataset", "cifar1000"], "did you mean 'cifar100'"),
    (["--dataset", "coraa"], "did you mean 'cora'"),
    (["--dataset", "cora", "--teacher", "resnet20"], "'resnet20' is a network of images"),
    (["--student", "resnet20", "--teacher", "gcn"], "'resnet20' is a network of images"),
    ([*ON, "--teacher", "gcn"], "teacher model 'gcn' reads graphs"),
    ([*ON, "--student", "mlp"], "student model 'mlp' reads graphs"),
    ([*ON, "--student", "resnet8x44"], "did you mean 'resnet8x4'"),
    ([*ON, "--student", "resnet34"], "more than 64 pixels, and these have 32"),
    ([*ON, "--method", "dgd"], "method 'dgd' teaches networks of graphs"),
    ([*ON, "--method", "glnn"], "method 'glnn' teaches networks of graphs"),
    ([*ON, "--method", "dkdd"], "did you mean 'dkd'"),
    ([*ON, "--method", "dot(gkd)", "--set", "method.base=kd"], "'dot(gkd)' and method.base 'kd' contradict each other"),
    ([*ON, "--method", "kd(gkd)"], "kd wraps no other; those that do are dgd, dot, logitstd"),
    ([*ON, "--method", "dot(gk)"], "unknown value of method.base 'gk'"),
    ([*ON, "--best_on_test=yes"], "--best_on_test is a switch and takes no value ('yes')"),
    ([*ON, "--set", "data.size=0"], "data.size is 0; it must be at least 8"),
    ([*ON, "--set", "data.size=7"], "data.size is 7; it must be at least 8"),
    ([*ON, "--set", "teacher.cache_teacher=true"], "teacher.cache_teacher: no teacher teaches the teacher"),
    (["--dataset", "cora", "--method", "dkd"], "method 'dkd' teaches networks of images"),
    (["--method", "gkd"], "--dataset digits-images"),
    ([*ON, "--setting", "ind"], "setting 'ind' hides nodes"),
    ([*ON, "--split", "cpf"], "unknown split 'cpf'; allowed: given, public, random"),
    ([*ON, "--val_fraction", "0.6"], "val_fraction is 0.6; it must lie in [0, 0.5]"),
    ([*ON, "--val_fraction", "-0.1"], "val_fraction is -0.1"),
    ([*ON, "--val_fraction", "a"], "data.val_fraction is 'a'; it must be a finite number"),
    ([*ON, "--val_fraction", ""], "val_fraction is None"),
    (["--val_fraction", "0.1"], "val_fraction is of images"),
    (["--dataset", "cora", "--best_on_test"], "--best_on_test is of networks of images"),
    (["--teacher_weights", "x.pth"], "--teacher_weights is of networks of images"),
    ([*ON, "--teacher_weights", "nowhere.pth"], "nowhere.pth"),
    ([*ON, "--set", "data.augment=flip"], "unknown value of data.augment 'flip'"),
    ([*ON, "--set", "data.k=3"], "unknown option 'data.k'"),
    ([*ON, "--set", "data.workers=-1"], "data.workers is -1"),
    ([*ON, "--set", "train.lr=0"], "lr is 0"),
    ([*ON, "--set", "train.milestones=[.5, .2]"], "milestones is [0.5, 0.2]"),
    ([*ON, "--set", "train.schedule=linear"], "unknown value of train.schedule 'linear'"),
    ([*ON, "--set", "train.width=3"], "unknown option 'train.width'"),
    ([*ON, "--set", "student.batch_size=1"], "student: batch_size is 1"),
    ([*ON, "--method", "dot", "--set", "method.base=dot"], "unknown value of method.base 'dot'"),
    ([*ON, "--method", "dot", "--set", "method.base=glnn"], "unknown value of method.base 'glnn'"),
    ([*ON, "--method", "dkd", "--set", "method.temperature=0"], "method.temperature is 0"),
    ([*ON, "--method", "dkd", "--set", "method.gama=0"], "unknown option 'method.gama'"),
]


@pytest.mark.parametrize(
    ("argv", "said"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_mistake_is_named(argv: list[str], said: str) -> None:
    with pytest.raises(UserError) as mistake:
        parse(argv)
    assert said in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_a_network_that_is_too_small_for_a_folders_images_is_answered_with_their_size(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"these have 224; .*, or bring the images to such a size with --set data.size"):
        parse(["--dataset", _images(tmp_path, 300), "--student", "resnet8"])
    assert _config("--dataset", str(tmp_path), "--student", "resnet8", "--set", "data.size=32").expected_size == 32


def test_ready_logits_are_of_graphs(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(UserError, match="--teacher_weights"):
        parse([*ON, "--teacher_logits", str(tmp_path / "logits.npy")])


def test_the_help_names_every_dataset_and_method_of_images() -> None:
    from gnnkd.flags import VALUES

    for name in distillers.image_methods():
        assert f" {name}" in VALUES["method"][1]
    for name in data.NAMES:
        assert name in VALUES["dataset"][1]
