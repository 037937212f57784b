"""Networks of images that teach each other: many steps an epoch, each batch one for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import final

import torch
from torch import Tensor, nn

from gnnkd import processes
from gnnkd.distillers.base import Lesson
from gnnkd.errors import UserError
from gnnkd.train import minibatches
from gnnkd.train.course import Epoch
from gnnkd.train.images import PROBE, norms
from gnnkd.train.lessons import Cached, Live, Teacher, autocast, in_float32
from gnnkd.train.minibatches import Images
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.train.together.course import MakeOptimizer, Together
from gnnkd.train.together.meeting import introduce
from gnnkd.train.together.node import Node
from gnnkd.types import UNKNOWN, Batch, Output, Step


def sgd(params: Mapping[str, Tensor], settings: ImageTrainSettings) -> torch.optim.Optimizer:
    """The optimizer of every network of images here."""
    return torch.optim.SGD(
        params.values(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
        fused=True,
    )


@final
class TogetherMinibatches(Together[ImageTrainSettings]):
    """Several networks trained on the same batches, each by what it hears and at its own learning rate.

    Args:
        nodes: networks of images; their settings are `ImageTrainSettings`.
        images: what all learn on.
        seed: of the run, for what a method draws.
        make_optimizer: makes the optimizer of a node; its rate is that of the node's settings in each epoch.
        judge: scores a network instead of its accuracy on the images that validate; larger is better.
        views: number of views of an image, for `cache_teacher`, which keeps what a frozen node says; 0 where they
            cannot be counted.
        rows_each: rows that a batch has for each of its images: 2 where it has pairs of views.

    Raises:
        UserError: a graph of networks that cannot train, see `node.checked`, or a cache that keeps nothing.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        images: Images,
        *,
        seed: int = 0,
        make_optimizer: MakeOptimizer[ImageTrainSettings] = sgd,
        judge: Callable[[nn.Module], float] | None = None,
        views: int = 0,
        rows_each: int = 1,
    ) -> None:
        super().__init__(nodes, ImageTrainSettings, images.y.device)
        self.images, self.judge = images, judge
        self.rows, self.validates = rows_each * int(images.split.train.sum()), bool(images.split.val.any())
        for node, settings in zip(self.nodes, self.settings, strict=True):
            node.model.to(memory_format=settings.layout(self.device))  # type: ignore[call-overload]
        classes = self._introduce(seed)
        processes.same(self.model.state_dict().values())
        for one in self.incoming:
            processes.same(() if one.part is None else one.part.state_dict().values())
        self.optimize(make_optimizer)
        self.runs: list[Callable[..., Output]] = [
            torch.compile(node.model) if settings.compile else node.model
            for node, settings in zip(self.nodes, self.settings, strict=True)
        ]
        self._check_cache()
        self.standing = {i: self._teacher(i, views, classes) for i in sorted(self.sources) if self.nodes[i].frozen}

    @torch.no_grad()
    def _introduce(self, seed: int) -> int:
        """Prepare the methods of all edges; returns how many logits the networks have."""
        (batch,) = islice(self.images.scan(self.images.split.train, PROBE), 1)
        models = [node.model for node in self.nodes]
        shown: list[Output] = [model.eval()(batch.x, None) for model in models]
        y = torch.where(self.images.split.train, self.images.y, UNKNOWN)
        for i, settings in enumerate(self.settings):
            lesson = Lesson(
                student=shown[i],
                teacher=None,
                norms=(),
                y=y,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
                seed=seed,
            )
            introduce(self.incoming[i], lesson, shown, [norms(model) for model in models])
            if (part := self.incoming[i].part) is not None:
                part.to(self.device)
        return shown[0].logits.shape[1]

    def _check_cache(self) -> None:
        heard = any(self.nodes[i].frozen for i in self.sources)
        if any(settings.cache_teacher for settings in self.settings) and not heard:
            raise UserError("cache_teacher keeps what a frozen node says, and nobody hears one; leave it out")

    def _teacher(self, node: int, views: int, classes: int) -> Teacher:
        settings, maps = self.settings[node], self.shows[node]
        live = Live(self.nodes[node].model, settings, maps=maps)
        if not settings.cache_teacher:
            return live
        if maps:
            raise UserError(f"cache_teacher keeps logits, and of node {node} features are read too; leave it out")
        return Cached(live, self.images.y.numel(), views, classes, self.device)

    def epoch(self, step: Step) -> Epoch:
        """A step of every node for each batch, then their scores; scalars are means over the images."""
        rates = {i: self.settings[i].rate(step.epoch) for i in self.learners}
        for i, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rates[i]
        sums: dict[str, Tensor] = {}
        first, rows = self.settings[0], 0
        share = {"rank": processes.rank(), "world": processes.world()}
        for batch in self.images.epoch(step.epoch, first.batch_size, per_class=first.per_class, **share):
            n = batch.y.numel()
            for name, value in self._taken(batch, step).items():
                sums[name] = sums[name] + n * value if name in sums else n * value
            rows += n
            if self.heard is not None:
                self.heard(step.epoch, min(1.0, rows * processes.world() / self.rows))
        processes.same(self.model.buffers())
        sums = processes.total({**sums, "rows": torch.tensor(rows)})
        rows_of_all = sums.pop("rows")
        scalars: dict[str, Tensor | float] = {name: total / rows_of_all for name, total in sums.items()}
        scalars |= {_of(i, "lr"): rate for i, rate in rates.items()}
        score, others = self.judged(step)
        return Epoch(score, scalars | others)

    def _taken(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Loss terms, diagnostics and training accuracies of one batch, after every node's step."""
        outputs = {i: self._output(i, batch) for i in range(len(self.nodes)) if self._runs(i)}
        taken = self.step(batch, outputs, step)
        if self.judge is None:
            for i in self.learners:
                hits = outputs[i].logits.detach().argmax(1) == batch.y
                taken[_of(i, "train_acc")] = hits.double().mean()
        return taken

    def _runs(self, node: int) -> bool:
        return node in self.standing or not self.nodes[node].frozen

    def _output(self, node: int, batch: Batch) -> Output:
        assert isinstance(batch.x, Tensor)
        settings = self.settings[node]
        x = batch.x.contiguous(memory_format=settings.layout(self.device))
        if node in self.standing:
            return self.standing[node].teach(replace(batch, x=x))
        self.nodes[node].model.train()
        with autocast(self.device, settings), torch.set_grad_enabled(self.nodes[node].trained):
            output = self.runs[node](x, None)
        return in_float32(output, maps=self.shows[node])

    def score(self, node: int) -> float | None:
        """By `judge`, or the accuracy on the images that validate."""
        model = self.nodes[node].model
        if self.judge is not None:
            return self.judge(model.eval())
        if not self.validates:
            return None
        return minibatches.accuracy(self.runs[node], model, self.images, self.images.split.val, self.settings[node])


def _of(node: int, name: str) -> str:
    """The name of a scalar: plain for node 0, under the node for others."""
    return name if node == 0 else f"node{node}/{name}"
