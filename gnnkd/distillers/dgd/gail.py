"""GAIL-GM: while the teacher trains, generators learn by adversarial imitation how its gradients move.

State `s_t(l)_c`: channel c of layer l's operand at epoch t. Action: row c of that layer's gradient, without its scale,
pooled to at most 64 numbers. Time pair: `(s_t(l)_c, G_{t+1}(l)_c)`. Space pair, l >= 1: `(unit(R Z_t(l-1)[:, c]),
G_t(l)_c)` with Z the previous layer's output before norm and activation, whose channel c is layer l's input channel
c.

Sign convention: the discriminator's logit is high for "the teacher's". It minimises
`BCE(real, 1 - smoothing) + BCE(fake, 0)`; the generator minimises `mean -log D(s, g)`, so it is pulled towards what the
discriminator calls the teacher's.

The watcher draws from a `torch.Generator` of its own: the teacher's weights are the same with and without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.distillers.base import Gradients, Look, Watcher
from gnnkd.distillers.dgd.bank import Bank, Copy, Layers
from gnnkd.distillers.dgd.fusion import pooled, rms_normalised
from gnnkd.distillers.dgd.measure import agreements, alive, cosine, shuffled
from gnnkd.distillers.dgd.objectives import generator_loss, judge_loss
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.graph.channels import Channels, channels
from gnnkd.graph.sketch import sketch_matrix
from gnnkd.graph.structure import CSR
from gnnkd.nn.agent import Discriminator, Generator
from gnnkd.optimizers import assign, flat, unflatten
from gnnkd.tensors import listed, under
from gnnkd.types import Batch, Operand, Output, Step

Pairs = list[tuple[Channels, Tensor]]
CEILING_EVERY = 10
"""Epochs between two measurements of the noise ceiling, which costs two gradients."""


@final
class Imitation(Watcher):
    """Generator and discriminator of every layer, learning from one teacher.

    Args:
        layers: the teacher's weight matrices (`Layers.of`).
        settings: options; None values are taken from the preset.
        seed: of the watcher's own random numbers.
        device: where it computes.
        every: ids of all nodes, ascending, where batches hold some of them.
    """

    def __init__(
        self,
        layers: Layers,
        settings: GeneratorSettings,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        every: Int[Tensor, " N"] | None = None,
    ) -> None:
        s = self.settings = settings.resolved()
        self.layers = layers
        self.bank = Bank(self.layers, s)
        self.rng = torch.Generator(device).manual_seed(seed)
        m, widths, rng = self.layers.m, self.layers.widths, self.rng
        self.generators = nn.ModuleList([Generator(m, a, bounded=bool(s.bounded), rng=rng) for a in widths])
        self.judges = nn.ModuleList([Discriminator(m, a, form=str(s.form), rng=rng) for a in widths])
        betas = (float(s.beta1 or 0.0), 0.999)
        self._optimizers = [
            torch.optim.Adam(part.parameters(), lr=float(s.generator_lr or 0), betas=betas, fused=True)
            for part in (self.generators, self.judges)
        ]
        self._every = every
        self._rows: Tensor | None = None
        self._sketch: CSR | None = None
        self._constant: tuple[Operand, Channels] | None = None
        self._states: list[Channels] = []
        self._actions: list[Tensor] = []
        self._averages: list[Tensor] = []
        self._epoch = 0

    def watch(self, batch: Batch, look: Look, step: Step) -> dict[str, Tensor]:
        """Pair the last epoch's states with this epoch's gradients; measure the guesses first, then learn from them."""
        self._epoch = step.epoch
        output, gradients = look(not self.settings.clean)
        if self._rows is not batch.index:
            self._rows = batch.index
            self._sketch = sketch_matrix(batch.index, self.layers.n_nodes, self.layers.m, self._every)
        actions = self._pooled(gradients)
        targets, averages = self._targets(actions)
        log: dict[str, Tensor] = {}
        if self._states:
            log |= self._measure(targets, actions)
            if step.epoch % CEILING_EVERY == 0:
                log |= self._ceiling(look)
            log |= self._learn(self._pairs(targets, output, actions))
        self._states = [self._state(output.hidden[name], batch.x) for name in self.layers.names]
        self._actions, self._averages = actions, averages
        return log

    def validated(self, score: float) -> None:
        """Keep a copy if the teacher has rarely been better; the first epoch has taught the generators nothing yet."""
        if self._epoch > 0:
            self.bank.offer(score, self._epoch, [self._generator(i) for i in range(len(self.generators))])

    # -- states and actions ------------------------------------------------------------------------------------

    def _state(self, h: Operand, x: Operand) -> Channels:
        """States of an operand; those of the features themselves never change and are computed once."""
        if h is not x:
            return channels(h, self._sketch, centre=bool(self.settings.centre))
        if self._constant is None or self._constant[0] is not x:
            self._constant = (x, channels(x, self._sketch, centre=bool(self.settings.centre)))
        return self._constant[1]

    def _pooled(self, gradients: Gradients) -> list[Tensor]:
        rows = [rms_normalised(gradients[name].t().contiguous()) for name in self.layers.names]
        shapes = zip(rows, self.layers.widths, self.layers.blocks, strict=True)
        return [pooled(g, width, blocks) for g, width, blocks in shapes]

    def _targets(self, actions: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """What is to be imitated, and the moving averages behind it; rows of channels that are dead now are zero."""
        keep = float(self.settings.average or 0.0)
        if not keep:
            return actions, []
        before = self._averages or actions
        averages = [_moved(keep, old, new) for old, new in zip(before, actions, strict=True)]
        return [rms_normalised(g) for g in averages], averages

    def _pairs(self, targets: list[Tensor], output: Output, actions: list[Tensor]) -> list[Pairs]:
        pairs: list[Pairs] = [[(s, a)] for s, a in zip(self._states, targets, strict=True)]
        if self.settings.space:
            for layer, name in enumerate(self.layers.names):
                raw = output.raw.get(name)
                if raw is not None and raw.shape[1] == actions[layer].shape[0]:
                    across = channels(raw.detach(), self._sketch, centre=bool(self.settings.centre))
                    pairs[layer].append((across, actions[layer]))
        return pairs

    # -- learning ----------------------------------------------------------------------------------------------

    def _learn(self, pairs: list[Pairs]) -> dict[str, Tensor]:
        """Alternating steps; what a state contributes to the verdict changes with the judge only, so it is kept."""
        weight = float(self.settings.clone_weight or 0.0)
        # The first pair of a layer is the one in time, and the only one that is cloned.
        cases = [
            (i, state.project, real, 0.0 if kind else weight)
            for i, kinds in enumerate(pairs)
            for kind, (state, real) in enumerate(kinds)
        ]
        log: dict[str, Tensor] = {}
        learn_generator, learn_judge = self._optimizers
        embedded = [self._judge(i).embed(project) for i, project, *_ in cases]
        for _ in range(int(self.settings.steps or 1)):
            means = [self._generator(i)(project) for i, project, *_ in cases]
            both = list(zip(cases, embedded, means, strict=True))
            judged = [self._judged(i, e, real, mu.detach()) for (i, _, real, _), e, mu in both]
            log["imitation/discriminator_loss"] = _descend(learn_judge, judged)
            embedded = [self._judge(i).embed(project) for i, project, *_ in cases]
            both = list(zip(cases, embedded, means, strict=True))
            fooled = [self._fooled(i, e.detach(), real, mu, clone) for (i, _, real, clone), e, mu in both]
            log["imitation/generator_loss"] = _descend(learn_generator, fooled)
        return log

    def _generator(self, i: int) -> Generator:
        return cast("Generator", self.generators[i])

    def _judge(self, i: int) -> Discriminator:
        return cast("Discriminator", self.judges[i])

    def _judged(self, i: int, embedded: Tensor, real: Tensor, mu: Tensor) -> Tensor:
        s = self.settings
        fake = mu + self._generator(i).sigma().detach() * self._noise(mu)
        share = torch.rand(real.shape[0], 1, generator=self.rng, device=real.device) if s.penalty else None
        smoothing, penalty = float(s.smoothing or 0.0), float(s.penalty or 0.0)
        return judge_loss(self._judge(i), embedded, real, fake, share, smoothing=smoothing, penalty=penalty)

    def _fooled(self, i: int, embedded: Tensor, real: Tensor, mu: Tensor, clone: float) -> Tensor:
        sigma, noise = self._generator(i).sigma(), self._noise(mu)
        how = self.settings.estimator
        return generator_loss(self._judge(i), embedded, real, mu, sigma, noise, estimator=how, clone_weight=clone)

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.rng, device=like.device, dtype=like.dtype)

    # -- measuring ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _measure(self, targets: list[Tensor], actions: list[Tensor]) -> dict[str, Tensor]:
        """Cosines of this epoch's guesses, made before learning from this epoch, with what came."""
        log: dict[str, Tensor] = {}
        for i, name in enumerate(self.layers.names):
            mu = self._generator(i)(self._states[i].project)
            before = self._actions[i]
            seen = rms_normalised(self._averages[i]) if self._averages else before
            order = shuffled(alive(targets[i]), self.rng)
            found = agreements(mu, targets[i], actions[i], target_before=seen, action_before=before, order=order)
            log |= {f"imitation/{name}/{kind}": value for kind, value in found.items()}
        return log

    def _ceiling(self, look: Look) -> dict[str, Tensor]:
        """Square root of the cosine of two gradients under two dropout masks: what any guess could reach."""
        first, second = (self._pooled(look(True)[1]) for _ in range(2))
        return {
            f"imitation/{name}/ceiling": cosine(a, b).clamp(min=0).sqrt()
            for name, a, b in zip(self.layers.names, first, second, strict=True)
        }

    # -- continuing --------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Networks, optimizers, random state, last states and averages, and the bank."""
        found = {f"generators.{k}": v for k, v in self.generators.state_dict().items()}
        found |= {f"judges.{k}": v for k, v in self.judges.state_dict().items()}
        for which, optimizer in enumerate(self._optimizers):
            found |= {f"optimizer.{which}.{k}": v for k, v in flat(optimizer).items()}
        found["rng"] = self.rng.get_state()
        found |= {f"actions.{i}": a for i, a in enumerate(self._actions)}
        found |= {f"averages.{i}": a for i, a in enumerate(self._averages)}
        found |= {f"states.{i}.{k}": t for i, s in enumerate(self._states) for k, t in s.tensors().items()}
        for rank, copy in enumerate(self.bank.copies):
            found[f"bank.{rank}.score"] = torch.tensor([copy.score, copy.epoch], dtype=torch.float64)
            found |= {f"bank.{rank}.tensor.{k}": v for k, v in copy.tensors.items()}
        return found

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        self.generators.load_state_dict(under(tensors, "generators."))
        self.judges.load_state_dict(under(tensors, "judges."))
        for which, optimizer in enumerate(self._optimizers):
            unflatten(optimizer, under(tensors, f"optimizer.{which}."))
        self.rng.set_state(tensors["rng"].cpu())
        self._actions = listed(tensors, "actions.")
        self._averages = listed(tensors, "averages.")
        n_states = len(self._actions)
        self._states = [Channels.restored(under(tensors, f"states.{i}.")) for i in range(n_states)]
        scores = listed(tensors, "bank.", ".score")
        self.bank.copies = [
            Copy(float(score), int(epoch), under(tensors, f"bank.{rank}.tensor."))
            for rank, (score, epoch) in enumerate(s.tolist() for s in scores)
        ]


def _moved(keep: float, old: Tensor, new: Tensor) -> Tensor:
    """A step of the moving average; a channel that is dead now is zero, one that has come back starts anew."""
    known = torch.where(alive(old)[:, None], old, new)
    return torch.where(alive(new)[:, None], keep * known + (1 - keep) * new, 0.0)


def _descend(optimizer: torch.optim.Optimizer, losses: list[Tensor]) -> Float[Tensor, ""]:
    """One step down the mean of `losses` on the optimizer's own parameters; others that they depend on stay."""
    loss = torch.stack(losses).mean()
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for p, g in zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True):
        assign(p, g)
    optimizer.step()
    return loss.detach()
