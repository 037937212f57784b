"""Words become entries: methods, bases, options, and names of folders."""

from __future__ import annotations

import pickle

import pytest

from gnnkd.compare import asking
from gnnkd.compare.entries import LONGEST, Entry, entries, split, tag_of
from gnnkd.errors import UserError
from gnnkd.places import checked_tag


def _one(word: str, student: str = "mlp") -> Entry:
    (found,) = entries([word], student)
    return found


def test_a_method_is_its_key() -> None:
    assert _one("glnn") == Entry("glnn", "glnn")
    assert _one("GLNN").method == "glnn"
    assert _one("glnn").tag is None


def test_a_network_s_name_is_that_network_on_labels_alone() -> None:
    assert _one("mlp") == Entry("mlp", "supervised")
    assert _one("supervised").method == "supervised"
    assert entries(["mlp"], "gcn") == ()


@pytest.mark.parametrize("word", ["dgd(kd)", "dgd+kd", "DGD(KD)", "dgd:base=kd", "dgd(kd):base=kd"])
def test_a_base_is_said_in_several_ways(word: str) -> None:
    entry = _one(word)
    assert (entry.method, entry.base, entry.tag) == ("dgd", "kd", None)
    assert entry.groups["method"] == {"base": "kd"}


def test_options_become_values_and_a_tag() -> None:
    entry = _one("dgd(kd):beta=.5:preset=paper:k=2:student.lr=1e-3:student.norm=none")
    assert entry.options == {"beta": 0.5, "preset": "paper", "k": 2}
    assert entry.student == {"lr": 0.001, "norm": None}
    assert entry.groups == {"method": {**entry.options, "base": "kd"}, "student": entry.student}
    assert _one("krd:student.fanouts=[10]").student == {"fanouts": [10]}
    assert entry.tag == "beta-0.5+preset-paper+k-2+student.lr-0.001+student.norm-None"
    assert pickle.loads(pickle.dumps(entry)) == entry


def test_every_tag_names_a_folder_and_no_two_are_the_same() -> None:
    said = [["a-1"], ["a-/x"], ["a-/y"], ["x" * 80 + "1"], ["x" * 80 + "2"], ["a-1", "tuned5"]]
    tags = [tag_of(parts) for parts in said]
    assert len(set(tags)) == len(said)
    for tag in tags:
        assert tag is not None
        assert len(tag) <= LONGEST
        assert checked_tag(tag) == tag
    assert tag_of([]) is None


def test_words_that_come_to_the_same_are_one() -> None:
    found = entries(["mlp", "supervised", "dgd(kd)", "dgd+kd", "glnn", "glnn:label_weight=0"], "mlp")
    assert [entry.label for entry in found] == ["mlp", "dgd(kd)", "glnn", "glnn:label_weight=0"]


def test_commas_and_spaces_separate() -> None:
    assert split(["mlp,glnn", "kd dgd(kd)", "glnn"]) == ("mlp", "glnn", "kd", "dgd(kd)")
    assert split([" , "]) == ()


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("gln", "did you mean 'glnn'"),
        ("gkd", "'gkd': gkd teaches networks of images"),
        ("dgd(gln)", "unknown base 'gln'.*did you mean 'glnn'"),
        ("dgd(dgd)", "unknown base 'dgd'"),
        ("glnn(kd)", "glnn wraps no other method; those that do are dgd"),
        ("dgd(kd", "is no method"),
        ("kd:alpha", "'alpha' must be option=value"),
        ("kd:alpha=", "must be option=value"),
        ("kd:teacher.lr=1", "must be option=value"),
        ("dgd(kd):base=glnn", "names two bases, kd and glnn"),
    ],
)
def test_mistakes(word: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        entries([word], "mlp")


@pytest.mark.parametrize("word", ["dgd(krd)", "dgd+krd", "DGD(krd)", "dgd:base=krd"])
def test_the_reference_may_be_said_in_another_way(word: str) -> None:
    found = {"mlp": entries(["mlp", "dgd(krd)", "krd"], "mlp")}
    assert asking._against(word, found) == "dgd(krd)"
    assert asking._against("supervised", found) == "mlp"
    assert asking._against(None, found) == "mlp"
    assert asking._against("krd:tau=2", found) == "krd:tau=2"
