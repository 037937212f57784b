"""Adversarial imitation of gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.gail import Imitation
from gnnkd.distillers.dgd.measure import shuffled
from gnnkd.distillers.dgd.settings import PRESETS, GeneratorSettings
from gnnkd.nn.agent import Discriminator, Generator
from gnnkd.types import Batch, Output, Step

N, D, A = 30, 40, 6
LAYERS = Layers(("w",), (A,), (1,), N, N)


def planted(sign: float = 1.0) -> tuple[Batch, Output, torch.Tensor]:
    """Operand H and a gradient `H^T E`: row c is a linear function of channel c, as in any linear layer."""
    rng = torch.Generator().manual_seed(0)
    h = torch.randn(N, D, generator=rng)
    error = torch.randn(N, A, generator=rng)
    y = torch.zeros(N, dtype=torch.long)
    batch = Batch.of(h, y, None, torch.ones(N, dtype=torch.bool))
    return batch, Output(torch.zeros(N, A), {"w": h}), sign * (h.t() @ error).t()


def learned(settings: GeneratorSettings, epochs: int) -> dict[str, float]:
    batch, output, gradient = planted()
    watcher = Imitation(LAYERS, settings, seed=0)
    log: dict[str, torch.Tensor] = {}
    for epoch in range(epochs):
        log = watcher.watch(batch, lambda _: (output, {"w": gradient}), Step(epoch, epochs))
        watcher.validated(0.5)
    return {k: float(v) for k, v in log.items()}


def test_a_gradient_that_is_linear_in_the_state_is_learned_without_being_shown() -> None:
    """No cloning: all that the generator hears is the discriminator's verdict."""
    log = learned(GeneratorSettings(clone_weight=0.0), 120)
    assert log["imitation/w/generator"] > 0.75
    assert abs(log["imitation/w/shuffled"]) < 0.4
    assert log["imitation/w/persistence"] > 0.999


def test_cloning_learns_it_faster() -> None:
    slow, fast = (learned(GeneratorSettings(clone_weight=c), 30)["imitation/w/generator"] for c in (0.0, 1.0))
    assert fast > slow


def test_the_score_function_learns_too() -> None:
    log = learned(GeneratorSettings(clone_weight=0.0, estimator="score"), 200)
    assert log["imitation/w/generator"] > 0.3


def test_what_is_measured_was_not_seen() -> None:
    """A guess is judged before its epoch is learned from: an untrained generator is no better than chance."""
    batch, output, gradient = planted()
    watcher = Imitation(LAYERS, GeneratorSettings(), seed=0)
    look = lambda _: (output, {"w": gradient})  # noqa: E731
    assert watcher.watch(batch, look, Step(0, 9)) == {}
    assert abs(float(watcher.watch(batch, look, Step(1, 9))["imitation/w/generator"])) < 0.25


@pytest.mark.parametrize("form", ["projection", "concat"])
def test_the_closed_form_slope_is_the_gradient(form: str) -> None:
    judge = Discriminator(N, A, form=form, rng=torch.Generator().manual_seed(0))
    h = torch.randn(D, N)
    embedded = judge.embed(lambda w: h @ w)
    g = torch.randn(D, A, requires_grad=True)
    (slope,) = torch.autograd.grad(judge.logit(embedded, g).sum(), g)
    torch.testing.assert_close(judge.slope(embedded, g), slope)


def test_bounded_generators_stay_within_one() -> None:
    g = Generator(N, A, bounded=True, rng=torch.Generator().manual_seed(0))
    assert g(lambda w: 100 * torch.randn(D, N) @ w).abs().max() <= 1


def test_the_bank_keeps_copies_of_the_best() -> None:
    bank = Bank(LAYERS, GeneratorSettings(keep=3).resolved())
    generators = bank.untrained(seed=0)
    for epoch, score in enumerate([0.1, 0.9, 0.5, 0.9, 0.3]):
        for p in generators[0].parameters():
            p.data.fill_(float(epoch))
        bank.offer(score, epoch, generators)
    assert [(c.score, c.epoch) for c in bank.copies] == [(0.9, 3), (0.9, 1), (0.5, 2)]
    for p in generators[0].parameters():
        p.data.fill_(100.0)
    averaged = bank.averaged(3)[0]
    expected = (0.9 * 3 + 0.9 * 1 + 0.5 * 2) / 2.3
    for p in averaged.parameters():
        torch.testing.assert_close(p.data, torch.full_like(p, expected))


def test_equal_copies_average_to_themselves() -> None:
    bank = Bank(LAYERS, GeneratorSettings().resolved())
    generators = bank.untrained(seed=3)
    for epoch in range(4):
        bank.offer(0.7, epoch, generators)
    for a, b in zip(bank.averaged(4)[0].parameters(), generators[0].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_bank_survives_its_file() -> None:
    bank = Bank(LAYERS, GeneratorSettings().resolved())
    bank.offer(0.7, 4, bank.untrained(seed=3))
    again = Bank.restored(bank.tensors(), bank.meta())
    assert again.layers == bank.layers
    assert again.settings == bank.settings
    assert torch.equal(again.averaged(1)[0].weight, bank.averaged(1)[0].weight)
    assert again.probe is None
    assert not any("probe" in name for name in bank.tensors())
    bank.probe = torch.tensor([2, 5, 11])
    again = Bank.restored(bank.tensors(), bank.meta())
    assert again.probe is not None
    assert torch.equal(again.probe, bank.probe)
    assert [c.tensors.keys() for c in again.copies] == [c.tensors.keys() for c in bank.copies]


def test_presets_fill_what_is_left_open() -> None:
    full = GeneratorSettings(preset="paper", space=False).resolved()
    assert full.space is False
    assert full.bounded is True
    assert None not in dataclasses.asdict(full).values()
    assert all(PRESETS["tuned"].keys() == preset.keys() for preset in PRESETS.values())


@pytest.mark.parametrize(("name", "value"), [
    ("average", 1.0), ("average", -0.1), ("steps", 0), ("keep", 0), ("smoothing", 0.5), ("penalty", -1.0),
    ("generator_lr", 0.0), ("buckets", 0), ("beta1", 1.0), ("clone_weight", float("nan")),
])  # fmt: skip
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"method.{name} is"):
        GeneratorSettings(**{name: value}).resolved()


def test_space_pairs_need_channels_that_correspond() -> None:
    """The second layer's input channels are the first one's output channels: both kinds of pair are judged."""
    rng = torch.Generator().manual_seed(0)
    x, h = torch.randn(N, 5, generator=rng), torch.randn(N, 7, generator=rng)
    batch = Batch.of(x, torch.zeros(N, dtype=torch.long), None, torch.ones(N, dtype=torch.bool))
    gradients = {"a": torch.randn(7, 5, generator=rng), "b": torch.randn(3, 7, generator=rng)}
    layers = Layers(("a", "b"), (7, 3), (1, 1), N, N)
    for raw, kinds in ((h, 2), (torch.randn(N, 4, generator=rng), 1)):
        watcher = Imitation(layers, GeneratorSettings(preset="paper"), seed=0)
        output = Output(torch.zeros(N, 3), {"a": x, "b": h}, {"b": raw})
        watcher.watch(batch, lambda _, output=output: (output, gradients), Step(0, 2))
        actions = watcher._pooled(gradients)
        pairs = watcher._pairs(actions, output, actions)
        assert [len(p) for p in pairs] == [1, kinds]


def test_dead_channels_count_for_nothing() -> None:
    """A channel that dies takes its stale average along; whether there are ten or none, the living learn the same."""
    batch, output, gradient = planted()
    found = []
    for dead in (0, 10):
        h = torch.cat([output.hidden["w"], torch.zeros(N, dead)], dim=1)  # type: ignore[list-item]
        g = torch.cat([gradient, torch.zeros(A, dead)], dim=1)
        watcher = Imitation(LAYERS, GeneratorSettings(centre=False), seed=0)
        for epoch in range(40):
            alive_then = g if epoch else torch.cat([gradient, torch.ones(A, dead)], dim=1)
            shown = Output(output.logits, {"w": h})
            log = watcher.watch(batch, lambda _, o=shown, g=alive_then: (o, {"w": g}), Step(epoch, 40))
        found.append(float(log["imitation/w/generator"]))
        assert not watcher._averages[0][D:].any()
    assert found[1] > 0.5
    assert abs(found[0] - found[1]) < 0.15


def test_the_features_states_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from gnnkd.distillers.dgd import gail

    batch, output, gradient = planted()
    seen: list[int] = []
    real = gail.channels
    monkeypatch.setattr(gail, "channels", lambda h, r, *, centre: seen.append(id(h)) or real(h, r, centre=centre))
    layers = Layers(("w", "v"), (A, A), (1, 1), N, N)
    watcher = Imitation(layers, GeneratorSettings(), seed=0)
    for epoch in range(4):
        shown = Output(output.logits, {"w": batch.x, "v": torch.randn(N, D)})
        watcher.watch(batch, lambda _, o=shown: (o, {"w": gradient, "v": gradient}), Step(epoch, 4))
    assert seen.count(id(batch.x)) == 1
    assert len(seen) == 5


def test_generators_that_have_learned_nothing_are_not_kept() -> None:
    batch, output, gradient = planted()
    watcher = Imitation(LAYERS, GeneratorSettings(), seed=0)
    for epoch in range(2):
        watcher.watch(batch, lambda _: (output, {"w": gradient}), Step(epoch, 2))
        watcher.validated(0.5)
        assert len(watcher.bank.copies) == epoch


def test_shuffling_keeps_the_living_among_themselves() -> None:
    living = torch.rand(200) < 0.5
    order = shuffled(living, torch.Generator().manual_seed(0))
    assert torch.equal(order.sort().values, torch.arange(200))
    assert torch.equal(living[order], living)
    assert (order[living] != torch.arange(200)[living]).float().mean() > 0.9
