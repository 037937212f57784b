"""The pictures' numbers obey their laws, and each picture is a PNG of what its run has learnt."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gnnkd.errors import UserError
from gnnkd.figures import main
from gnnkd.images import finished
from gnnkd.images.drawings import correlation, draw_difference, draw_tsne, off_diagonal, tsne
from gnnkd.main import main as train

TEACHER, STUDENT = "digits/random-tran/cnn/teacher/seed0", "digits/random-tran/cnn/cnn_small/kd/seed0"
RNG = np.random.RandomState


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and a student on digits."""
    out = tmp_path_factory.mktemp("figures")
    words = ["--dataset", "digits", "--teacher", "cnn", "--out", str(out), "--quiet", "--device", "cpu"]
    assert train([*words, "--set", "teacher.width=8", "train.epochs=2", "train.batch_size=128"]) == 0
    return out


# -- numbers ---------------------------------------------------------------------------------------------------


def test_correlation_is_numpys() -> None:
    logits = RNG(0).randn(50, 7) * 3 + 100
    np.testing.assert_allclose(correlation(logits), np.corrcoef(logits.T), atol=1e-12)


def test_correlation_stays_when_classes_are_scaled_and_shifted() -> None:
    logits = RNG(0).randn(30, 4)
    np.testing.assert_allclose(correlation(logits * [1, 2, 30, 0.1] + [5, 0, -7, 1]), correlation(logits), atol=1e-12)
    flipped = correlation(logits * [-1, 1, 1, 1])
    np.testing.assert_allclose(flipped[0, 1:], -correlation(logits)[0, 1:], atol=1e-12)


def test_correlation_of_a_class_that_never_changes_is_zero() -> None:
    logits = RNG(0).randn(30, 3).astype(np.float32)
    logits[:, 1] = 0.1
    found = correlation(logits)
    assert found[1, 1] == 1
    assert np.abs(found[1, [0, 2]]).max() == 0
    assert np.isfinite(found).all()
    with pytest.raises(UserError, match="at least 2"):
        correlation(logits[:1])


def test_the_mean_leaves_the_diagonal_out() -> None:
    assert off_diagonal(np.array([[9.0, 1], [-3, 9]])) == 2


def test_tsne_keeps_clusters_and_repeats() -> None:
    rng = RNG(0)
    y = np.arange(60) % 3
    rows = (np.eye(3)[y] * 20 + rng.randn(60, 3)).astype(np.float32)
    first = tsne(rows, seed=0)
    assert first.shape == (60, 2)
    assert np.array_equal(first, tsne(rows, seed=0))
    gaps = np.linalg.norm(first[:, None] - first[None], axis=2) + 1e9 * np.eye(60)
    assert (y[gaps.argmin(1)] == y).all()


@pytest.mark.parametrize("n", [4, 5])
def test_tsne_of_a_few_rows(n: int) -> None:
    assert np.isfinite(tsne(RNG(0).randn(n, 60), seed=0)).all()
    with pytest.raises(UserError, match="at least 4"):
        tsne(np.zeros((3, 2)), seed=0)


# -- pictures --------------------------------------------------------------------------------------------------


def test_a_legend_where_classes_can_be_named() -> None:
    points = {"a run": RNG(0).randn(40, 2)}
    few = draw_tsne(points, np.arange(40) % 3, ("low", "middle", "high"), "title")
    (legend,) = few.legends
    assert [text.get_text() for text in legend.get_texts()] == ["low", "middle", "high"]
    assert draw_tsne(points, np.arange(40), range(40), "title").legends == []


def test_colours_are_symmetric_about_no_difference() -> None:
    difference = np.array([[0, -0.3], [-0.3, 0]])
    for limit, ends in ((None, 0.3), (0.5, 0.5)):
        figure = draw_difference(difference, ("a", "b"), "title", limit)
        (image,) = figure.axes[0].images
        assert image.get_clim() == pytest.approx((-ends, ends))
        assert "mean |difference| 0.3000" in figure.axes[0].get_title()
    (image,) = draw_difference(np.zeros((2, 2)), ("a", "b"), "title").axes[0].images
    assert image.get_clim()[1] > 0, "no difference at all has colours, too"


def picture(file: Path) -> tuple[int, int]:
    """Width and height of a PNG file that is not of one colour."""
    from PIL import Image

    with Image.open(file) as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L").resize((40, 40))))) > 3
        return image.size


def test_the_command_draws_runs(runs, capsys, tmp_path) -> None:
    assert main(["tsne", str(runs / STUDENT), "--device", "cpu", "--images", "60"]) == 0
    file = runs / STUDENT / "tsne.png"
    assert capsys.readouterr().out == f"{file}\n"
    one = picture(file)
    both = ["tsne", str(runs / TEACHER), str(runs / STUDENT), "--images", "60", "--out", str(tmp_path / "two.png")]
    assert main([*both, "--device", "cpu"]) == 0
    assert picture(tmp_path / "two.png")[0] > 1.5 * one[0]
    before = (tmp_path / "two.png").read_bytes()
    assert main([*both, "--device", "cpu"]) == 0
    assert (tmp_path / "two.png").read_bytes() == before
    assert "matplotlib.pyplot" not in sys.modules


def test_correlation_finds_the_students_teacher(runs, tmp_path) -> None:
    files = [tmp_path / "found.png", tmp_path / "said.png"]
    words = ["correlation", str(runs / STUDENT), "--device", "cpu", "--limit", "0.5", "--out"]
    assert main([*words, str(files[0])]) == 0
    assert main([words[0], words[1], str(runs / TEACHER), *words[2:], str(files[1])]) == 0
    picture(files[0])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_tagged_teacher_comes_first_if_it_is_the_one(runs, tmp_path) -> None:
    """Folders are compared by what they hold, so a teacher of another configuration is passed over."""
    shutil.copytree(runs / "digits", tmp_path / "digits")
    teacher, student = (tmp_path / place for place in (TEACHER, STUDENT))
    tagged = student.parents[1] / "kd@x" / "seed0"
    shutil.copytree(student, tagged)
    assert finished.teacher_of(finished.read(tagged)).folder == teacher.resolve()
    own = teacher.parents[1] / "teacher@x" / "seed0"
    shutil.copytree(teacher, own)
    assert finished.teacher_of(finished.read(tagged)).folder == own.resolve()
    config = (own / "config.json").read_text()
    (own / "config.json").write_text(config.replace('"lr": 0.05', '"lr": 0.06'))
    assert finished.teacher_of(finished.read(tagged)).folder == teacher.resolve()


@pytest.fixture(scope="module")
def by_gkdfd(runs: Path) -> Path:
    """A student of the same teacher by GK-DFD."""
    words = ["--dataset", "digits", "--teacher", "cnn", "--out", str(runs), "--quiet", "--device", "cpu"]
    settings = ["--set", "teacher.width=8", "train.epochs=2", "train.batch_size=128", "method.graph=own"]
    assert train([*words, "--method", "gkdfd", *settings]) == 0
    return runs / STUDENT.replace("kd/", "gkdfd/")


@pytest.mark.parametrize("kind", ["graph", "discriminative"])
def test_the_command_draws_what_gkdfd_sees(by_gkdfd, runs, capsys, tmp_path, kind) -> None:
    assert main([kind, str(by_gkdfd), "--device", "cpu"]) == 0
    assert capsys.readouterr().out == f"{by_gkdfd / kind}.png\n"
    width, height = picture(by_gkdfd / f"{kind}.png")
    assert (width > 1.5 * height) == (kind == "graph"), "two graphs side by side"
    said = [kind, str(by_gkdfd), str(runs / TEACHER), "--device", "cpu", "--out", str(tmp_path / "again.png")]
    assert main(said) == 0
    assert (tmp_path / "again.png").read_bytes() == (by_gkdfd / f"{kind}.png").read_bytes()
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("kind", ["graph", "discriminative"])
def test_other_methods_have_no_such_picture(runs, capsys, kind) -> None:
    assert "is of kd; this picture is of a student that gkdfd has taught" in refused(capsys, kind, str(runs / STUDENT))
    assert "is no student's run" in refused(capsys, kind, str(runs / TEACHER))
    assert f"{kind} has no use for it" in refused(capsys, kind, str(runs / STUDENT), "--images", "5")


@pytest.mark.parametrize("kind", ["graph", "discriminative"])
def test_no_such_picture_with_another_teacher(by_gkdfd, runs, capsys, tmp_path, kind) -> None:
    wrong = refused(capsys, kind, str(by_gkdfd), str(by_gkdfd), "--device", "cpu")
    assert f"{by_gkdfd} is not the teacher of {by_gkdfd}" in wrong
    for what, there, words in (
        ("lr", ('"lr": 0.05', '"lr": 0.06'), "is not the teacher of .*teacher.lr is 0.06 there and 0.05 here"),
        ("split", ('"fingerprint": "', '"fingerprint": "0'), "is of another split than"),
    ):
        other = tmp_path / what
        shutil.copytree(runs / TEACHER, other)
        config = (other / "config.json").read_text()
        assert there[0] in config
        (other / "config.json").write_text(config.replace(*there))
        assert re.search(words, refused(capsys, kind, str(by_gkdfd), str(other), "--device", "cpu"))
    (other / "config.json").unlink()
    assert "holds no config.json" in refused(capsys, kind, str(by_gkdfd), str(other), "--device", "cpu")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_mistakes_are_said_in_one_line(runs, capsys, tmp_path) -> None:
    student = str(runs / STUDENT)
    assert "did you mean 'tsne'" in refused(capsys, "tsme", student)
    assert "did you mean 'images'" in refused(capsys, "tsne", student, "--image", "3")
    assert "ends with .png" in refused(capsys, "tsne", student, "--out", "x.pdf")
    assert "limit is 3.0" in refused(capsys, "correlation", student, "--limit", "3")
    assert "--limit is of correlation, and tsne has no use for it" in refused(capsys, "tsne", student, "--limit", "1")
    assert "is no student's run" in refused(capsys, "correlation", str(runs / TEACHER))
    assert "give one folder, or two" in refused(capsys, "correlation", student, student, student)
    assert "give the folder of a finished run" in refused(capsys, "tsne", str(tmp_path))
    assert "RUN" in refused(capsys, "tsne")
    shutil.copytree(runs / STUDENT, tmp_path / "a" / "b" / "c" / "seed0")
    assert "give its folder as the second one" in refused(capsys, "correlation", str(tmp_path / "a/b/c/seed0"))
    other = tmp_path / "other"
    shutil.copytree(runs / STUDENT, other)
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"seed": 0', '"seed": 1'))
    assert "not what" in refused(capsys, "tsne", str(other))
    (other / "config.json").unlink()
    assert "holds no config.json" in refused(capsys, "tsne", str(other))


def test_help_comes_without_torch_and_matplotlib() -> None:
    code = (
        "import sys; from gnnkd.figures import main; main(['--help']);"
        "assert not {'torch', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "correlation" in done.stdout
