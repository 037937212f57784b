"""The command line's contract: names, precedence, types, and one clear line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gnnkd import distillers, nn, options, presets
from gnnkd.config import parse
from gnnkd.errors import Unfit, UserError
from gnnkd.graph.structure import Graph
from gnnkd.run import resolve


def _file(folder: Path, text: str) -> str:
    path = folder / "run.yml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_defaults_are_those_of_the_contract() -> None:
    request = parse([])
    config = request.config
    names = (config.dataset, config.teacher_model, config.student_model, config.method, request.mode)
    assert names == ("digits", "gcn", "mlp", "dgd", "tea/stu")
    assert (str(request.out), request.seeds, request.tag, request.device) == ("runs", (0,), None, "auto")
    assert (config.base, config.base_given, config.setting, config.split) == ("glnn", False, "tran", None)
    assert (config.teacher["layers"], config.teacher["width"], config.teacher["dropout"]) == (3, 256, 0.5)


@pytest.mark.parametrize(
    "argv",
    [
        ["--teacher_model", "sage", "--student_model", "gcn", "--data_root", "d"],
        ["--teacher-model", "SAGE", "--student-model", "Gcn", "--data-root", "d"],
        ["--teacher=sage", "--STUDENT=GCN", "--Data-Root=d"],
        ["--set", "teacher=sage", "student.name=gcn", "data_root=d"],
    ],
)
def test_dashes_case_and_short_forms_say_the_same(argv: list[str]) -> None:
    request = parse(argv)
    assert (request.config.teacher_model, request.config.student_model, request.data_root) == ("sage", "gcn", "d")


@pytest.mark.parametrize(
    ("argv", "seeds"),
    [
        (["--seed", "3"], (3,)),
        (["--seeds", "3"], (0, 1, 2)),
        (["--seeds", "10-12"], (10, 11, 12)),
        (["--seeds", "7,3"], (7, 3)),
        (["--set", "seeds=[4, 2]"], (4, 2)),
        (["--set", "seeds=5", "--seed", "1"], (1,)),
    ],
)
def test_seeds(argv: list[str], seeds: tuple[int, ...]) -> None:
    assert parse(argv).seeds == seeds


def test_flags_beat_set_beats_file_beats_presets(tmp_path: Path) -> None:
    file = _file(tmp_path, "dataset: cora\nmethod: kd\nstudent: {width: 8, layers: 4}\ntrain: {epochs: 5}\n")
    config = parse(["--config", file]).config
    assert (config.dataset, config.method, config.student["width"], config.student["layers"]) == ("cora", "kd", 8, 4)
    assert config.student["dropout"] == 0.6, "the preset of cora's MLP stays where nobody says otherwise"
    config = parse(["--config", file, "--set", "method=glnn", "student.width=9", "--dataset", "digits"]).config
    assert (config.dataset, config.method, config.student["width"]) == ("digits", "glnn", 9)
    assert parse(["--config", file, "--set", "method=glnn", "--method", "dgd"]).config.method == "dgd"


def test_train_sets_both_stages_and_a_stage_of_the_same_level_wins() -> None:
    config = parse(["--set", "train.lr=0.3", "student.lr=0.4"]).config
    assert (config.teacher_train.lr, config.student_train.lr) == (0.3, 0.4)


def test_train_in_a_stronger_level_beats_a_stage_in_a_weaker_one(tmp_path: Path) -> None:
    file = _file(tmp_path, "student: {lr: 0.4}\nteacher: {lr: 0.5}\n")
    config = parse(["--config", file, "--set", "train.lr=0.3"]).config
    assert (config.teacher_train.lr, config.student_train.lr) == (0.3, 0.3)
    assert parse(["--dataset", "cora", "--split", "cpf", "--set", "train.weight_decay=0"]).config.student_train == (
        parse(["--dataset", "cora", "--split", "cpf", "--set", "student.weight_decay=0.0"]).config.student_train
    )


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", ".001", "1E-03"])
def test_numbers_in_any_notation(text: str) -> None:
    assert parse(["--set", f"train.lr={text}"]).config.student_train.lr == 0.001


def test_options_reach_the_base_and_the_generators() -> None:
    argv = ["--method", "dgd", "--set", "method.base=KD", "method.temperature=2", "method.preset=paper"]
    config = parse(argv).config
    assert (config.base, config.base_given, config.options["temperature"]) == ("kd", True, 2.0)
    assert config.options["preset"] == "paper"
    assert config.generators is not None
    assert config.generators.preset == "paper"
    assert parse(["--set", "method.generators=false"]).config.generators is None


def test_a_method_may_name_its_base() -> None:
    config = parse(["--method", "DGD(kd)"]).config
    assert (config.method, config.base, config.base_given) == ("dgd", "kd", True)
    assert config == parse(["--method", "dgd", "--set", "method.base=kd"]).config


def test_the_default_base_follows_the_student() -> None:
    assert parse(["--student", "mlp"]).config.base == "glnn"
    assert parse(["--student", "gcn"]).config.base == "kd"


def test_the_library_resolves_as_the_command_line_does() -> None:
    argv = ["--student", "sage", "--method", "kd", "--set", "method.alpha=0.5", "train.epochs=7"]
    levels = ({"method": {"alpha": 0.5}, "train": {"epochs": 7}},)
    assert resolve(student_model="sage", method="kd", levels=levels) == parse(argv).config


@pytest.mark.parametrize("dataset", ["cora", "citeseer", "amazon-photo", "digits"])
@pytest.mark.parametrize("model", sorted(nn.MODELS))
def test_presets_fit_every_network(dataset: str, model: str) -> None:
    """A preset for a dataset says nothing to a network that does not have the option."""
    config = resolve(dataset, teacher_model=model, student_model=model)
    assert set(config.teacher) == set(config.student) == set(options.of(nn.MODELS[model]))


def test_published_settings_of_nosmog_follow_the_setting() -> None:
    found = {s: presets.of_method("citeseer", s, "nosmog") for s in ("tran", "ind")}
    assert (found["tran"]["iterations"], found["tran"]["dim"]) == (5, 16)
    assert (found["ind"]["iterations"], found["ind"]["dim"]) == (3, 64)
    assert found["ind"].keys() <= options.of(distillers.graph_methods()["nosmog"]).keys()


MISTAKES = [
    (["--mtehod", "kd"], "did you mean 'method'"),
    (["--data", "x"], "unknown flag 'data'"),
    (["cora"], "unexpected argument 'cora'"),
    (["--dataset"], "expected one argument"),
    (["--teacher", "gccn"], "did you mean 'gcn'"),
    (["--student", "mpl"], "did you mean 'mlp'"),
    (["--method", "gln"], "did you mean 'glnn'"),
    (["--mode", "teastu"], "did you mean 'tea/stu'"),
    (["--setting", "induct"], "unknown setting 'induct'; allowed: ind, tran"),
    (["--split", "publik"], "did you mean 'public'"),
    (["--device", "gpu"], "unknown device 'gpu'"),
    (["--tag", "a/b"], "tag 'a/b'"),
    (["--dataset", ""], "dataset is empty"),
    (["--seed", "-1"], "seed is -1"),
    (["--seed", "one"], "seed is 'one'"),
    (["--seed", "4294967296"], "seed is 4294967296"),
    (["--seeds", "0"], "seeds is '0'"),
    (["--seeds", "5-2"], "seeds is '5-2'"),
    (["--seed", "1", "--seeds", "2"], "contradict"),
    (["--set", "student.widht=3"], "did you mean 'student.width'"),
    (["--set", "studnet.width=3"], "did you mean 'student'"),
    (["--set", "method.bta=3"], "did you mean 'method.beta'"),
    (["--set", "student.width"], "group.option=value"),
    (["--set", "student.width.more=3"], "group.option=value"),
    (["--set", "train.lr=abc"], "train.lr is 'abc'; it must be a finite number"),
    (["--set", "teacher.lr=.inf"], "teacher.lr is inf; it must be a finite number"),
    (["--set", "train.lrr=1"], "did you mean 'train.lr'"),
    (["--set", "train.lr=0"], "lr is 0"),
    (["--set", "train.epochs=0"], "epochs is 0"),
    (["--set", "train.epochs=1.5"], "epochs is 1.5; it must be a whole number"),
    (["--set", "student.width=true"], "student.width is True; it must be a whole number"),
    (["--set", "student.width=0"], "width is 0"),
    (["--set", "student.dropout=1"], "dropout is 1"),
    (["--set", "student.norm=bacth"], "did you mean 'batch'"),
    (["--method", "dgd", "--set", "student.norm=layer"], "set student.norm=batch or none"),
    (["--set", "data.k=0"], "data.k is 0"),
    (["--set", "data.normalise=rows"], "unknown value of data.normalise 'rows'"),
    (["--set", "data.undirected=maybe"], "it must be true or false"),
    (["--set", "data.fractions=[.1, .2]"], "a list of 3"),
    (["--set", "method.base=dgd"], "unknown value of method.base 'dgd'"),
    (["--set", "method.preset=tund"], "did you mean 'tuned'"),
    (["--set", "method.beta=-1"], "method.beta is -1"),
    (["--set", "method.average=1"], "method.average is 1"),
    (["--method", "kd", "--set", "method.alpha=2"], "method.alpha is 2"),
    (["--method", "kd", "--set", "method.beta=1"], "unknown option 'method.beta'"),
    (["--set", "student.width={a"], "--set student.width={a"),
    (["--config", "nowhere.yml"], "nowhere.yml cannot be read (No such file or directory)"),
    (["--teacher_logits", "nowhere.npy"], "nowhere.npy cannot be read (No such file or directory)"),
    (["--quiet=yes"], "--quiet is a switch and takes no value ('yes'); say --quiet alone"),
    (["--method", "dgd(kd)", "--set", "method.base=glnn"], "'dgd(kd)' and method.base 'glnn' contradict"),
    (["--method", "glnn(kd)"], "glnn wraps no other; those that do are dgd"),
    (["--method", "dgd(gln)"], "did you mean 'glnn'"),
    (["--method", "dgg(kd)"], "did you mean 'dgd'"),
]


@pytest.mark.parametrize(
    ("argv", "said"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_mistake_is_named(argv: list[str], said: str) -> None:
    with pytest.raises(UserError) as mistake:
        parse(argv)
    assert said in str(mistake.value)


BROKEN_FILES = [
    ("a: !!python/object/apply:os.system ['touch PLANTED']\n", "line 1"),
    ("student:\n  width: !!python/name:os.system\n", "line 2"),
    ("- a\n- b\n", "is a list"),
    ("studnet: {width: 3}\n", "did you mean 'student'"),
    ("student: 3\n", "must be a mapping"),
    ("train: 3\n", "must be a mapping"),
    ("student: {width: 3}\nstudent: {width: 4}\n", "'student' twice"),
    ("student: {width: 3\n", "line 2"),
    ("config: other.yml\n", "unknown key"),
    ("resume: sure\n", "it must be true or false"),
    ("dataset: 3\n", "it must be a word"),
    ("method: {name: kd}\nmethod_: x\n", "unknown key"),
    ("teacher: gcn\nteacher_model: sage\n", "says teacher_model twice"),
    ("a: \x00\n", "not YAML"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN_FILES)
def test_a_broken_file_is_named_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = _file(tmp_path, text)
    with pytest.raises(UserError) as mistake:
        parse(["--config", file])
    assert said in str(mistake.value)
    assert file in str(mistake.value) or said.startswith("it must be")
    assert not (tmp_path / "PLANTED").exists()


def test_the_help_names_every_model_and_method() -> None:
    from gnnkd import distillers, nn
    from gnnkd.flags import VALUES

    said = VALUES["method"][1]
    assert said.split("graphs: ")[1].split(" (")[0].split(", ") == sorted(distillers.graph_methods())
    assert said.split("images: ")[1].split(" (")[0].split(", ") == sorted(distillers.image_methods())
    for name in nn.MODELS:
        assert name in VALUES["teacher_model"][1]
        assert name in VALUES["student_model"][1]


@pytest.mark.parametrize("name", list(nn.MODELS))
@pytest.mark.parametrize("layers", [1, 2])
def test_methods_of_hidden_rows_refuse_networks_that_multiply_their_inputs_alone(name: str, layers: int) -> None:
    given = {"layers": layers} if "layers" in options.of(nn.MODELS[name]) else {}
    network = nn.MODELS[name](3, 2, **given).eval()
    graph = Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3)
    operands = network(torch.rand(3, 3), graph).hidden.values()
    levels = ({"student": given},)
    if len({id(operand) for operand in operands}) > 1:
        assert resolve(student_model=name, method="sp", levels=levels).student_model == name
        return
    with pytest.raises(Unfit, match=f"sp compares hidden rows, and {name} with one layer of weights has none"):
        resolve(student_model=name, method="sp", levels=levels)
    assert resolve(student_model=name, method="kd", levels=levels).method == "kd"


# -- weights that change by epoch --------------------------------------------------------------------------------


def test_a_list_of_pairs_is_a_weight_by_epoch(tmp_path: Path) -> None:
    argv = ["--student", "gcn", "--method", "kd", "--set", "method.kd_weight=[[0,0.0],[20,1]]"]
    found = parse(argv).config.options
    assert found["kd_weight"] == ((0.0, 0.0), (20.0, 1.0))
    assert options.plain(found)["kd_weight"] == [[0, 0], [20, 1]]
    file = _file(tmp_path, "student: gcn\nmethod: {name: kd, kd_weight: [[0, 0.0], [20, 1]]}\n")
    assert parse(["--config", file]).config.options == found
    assert parse([*argv[:4], "--set", "method.kd_weight=0.5"]).config.options["kd_weight"] == 0.5


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ("[[0,1],[20]]", "is [[0, 1], [20]]; it must be a finite number or a list of pairs of finite numbers or null"),
        ("[0,1]", "is [0, 1]; it must be a finite number or a list of pairs of finite numbers or null"),
        ("[[0,.nan]]", "is [[0, nan]]; it must be a finite number or a list of pairs"),
        ("[[0,true]]", "is [[0, True]]; it must be a finite number or a list of pairs"),
        ("[[0,1],[0,2]]", "is [[0.0, 1.0], [0.0, 2.0]]; its epochs must ascend from 0 on"),
        ("[[0,-1]]", "is [[0.0, -1.0]]; its weights must be finite numbers of at least 0"),
        ("[]", "is []; it must be a number, or pairs [epoch, weight]"),
        ("-1", "is -1.0; it must be a finite number of at least 0"),
    ],
)
def test_what_is_no_weight_by_epoch_is_named(weight: str, said: str) -> None:
    with pytest.raises(UserError) as mistake:
        parse(["--method", "kd", "--set", f"method.kd_weight={weight}"])
    assert f"method.kd_weight {said}" in str(mistake.value)


def test_a_recipe_is_an_option_of_kd_on_images_and_on_graphs() -> None:
    found = parse(["--method", "kd", "--set", "method.recipe=kd-ce1-kd1-warmup20"]).config
    assert found.options["recipe"] == "kd_ce1_kd1_warmup20"
