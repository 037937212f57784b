"""The bank: copies of the best generators, by the teacher's validation accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor

from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.graph.channels import Channels, channels
from gnnkd.graph.structure import CSR
from gnnkd.nn.agent import Generator
from gnnkd.types import Operand, Output


@dataclass(frozen=True)
class Layers:
    """The teacher's weight matrices in forward order, as the generators see them.

    `widths[l]` is the action width of layer l and `blocks[l]` the number of equal blocks that its outputs are the mean
    of (attention heads), 1 for most; `m` is the size of a state, `n_nodes` that of the graph.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    m: int
    n_nodes: int

    @staticmethod
    def of(output: Output, params: Mapping[str, Tensor], n_nodes: int, buckets: int) -> Layers:
        """From any output of the teacher: width `min(out, 64)`, and `out` for the weights of the last layer.

        `out` is that of one block where blocks are averaged.
        """
        if not output.hidden:
            raise ValueError("the teacher shows no weight matrices, so there are no gradients to imitate")
        last = list(output.hidden.values())[-1]
        blocks = tuple(output.averaged.get(name, 1) for name in output.hidden)
        outs = (params[name].shape[0] // b for name, b in zip(output.hidden, blocks, strict=True))
        widths = tuple(out if h is last else min(out, 64) for out, h in zip(outs, output.hidden.values(), strict=True))
        return Layers(tuple(output.hidden), widths, blocks, min(n_nodes, buckets), n_nodes)


@final
@dataclass(frozen=True)
class Copy:
    """Generator parameters of one epoch, by layer and name, with the validation accuracy reached by then."""

    score: float
    epoch: int
    tensors: dict[str, Tensor]


@final
class Bank:
    """Up to `settings.keep` copies, best first; among equal scores the later one, whose generator saw more.

    `probe` are the ids in the full data of the rows [P] that their states were made of, ascending; None for all rows.
    """

    def __init__(
        self,
        layers: Layers,
        settings: GeneratorSettings,
        copies: list[Copy] | None = None,
        probe: Int[Tensor, " P"] | None = None,
    ) -> None:
        self.layers, self.settings, self.probe = layers, settings, probe
        self.copies: list[Copy] = copies or []

    def offer(self, score: float, epoch: int, generators: list[Generator]) -> None:
        """Copy the generators if they are among the best so far."""
        if len(self.copies) == self.settings.keep and score < self.copies[-1].score:
            return
        tensors = {
            f"{layer}/{name}": p.detach().clone()
            for layer, generator in zip(self.layers.names, generators, strict=True)
            for name, p in generator.named_parameters()
        }
        self.copies.append(Copy(score, epoch, tensors))
        self.copies.sort(key=lambda c: (-c.score, -c.epoch))
        del self.copies[self.settings.keep :]

    def averaged(self, k: int) -> list[Generator]:
        """One generator a layer: the best `k` averaged with weights proportional to their scores, summing to one."""
        chosen = self.copies[:k]
        total = sum(c.score for c in chosen)
        shares = [c.score / total if total > 0 else 1 / len(chosen) for c in chosen]
        generators = self.untrained(seed=0)
        for layer, generator in zip(self.layers.names, generators, strict=True):
            for name, p in generator.named_parameters():
                key = f"{layer}/{name}"
                p.data = torch.stack([share * c.tensors[key] for share, c in zip(shares, chosen, strict=True)]).sum(
                    dim=0
                )
        return generators

    def untrained(self, seed: int) -> list[Generator]:
        """Freshly drawn generators of the same shapes, a control."""
        rng = torch.Generator().manual_seed(seed)
        bounded = bool(self.settings.bounded)
        return [Generator(self.layers.m, a, bounded=bounded, rng=rng) for a in self.layers.widths]

    def states(self, h: Operand, r: CSR | None) -> Channels:
        """States of an operand [N, D], as the generators were trained on them."""
        return channels(h, r, centre=bool(self.settings.centre))

    def tensors(self) -> dict[str, Tensor]:
        """All copies, flat: `rank/layer/name`; and `probe`, where there is one."""
        found = {f"{rank}/{key}": t for rank, c in enumerate(self.copies) for key, t in c.tensors.items()}
        return found if self.probe is None else found | {"probe": self.probe}

    def meta(self) -> dict[str, Any]:
        """What `tensors` does not say, as plain values."""
        return {
            "layers": dataclasses.asdict(self.layers),
            "settings": dataclasses.asdict(self.settings),
            "copies": [[c.score, c.epoch] for c in self.copies],
        }

    @staticmethod
    def restored(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Bank:
        """The bank that `tensors` and `meta` describe."""
        said = meta["layers"]
        blocks = said.get("blocks", [1] * len(said["names"]))  # left out by files of before attention heads
        layers = Layers(tuple(said["names"]), tuple(said["widths"]), tuple(blocks), said["m"], said["n_nodes"])
        copies = [
            Copy(score, epoch, {k.split("/", 1)[1]: t for k, t in tensors.items() if k.startswith(f"{rank}/")})
            for rank, (score, epoch) in enumerate(meta["copies"])
        ]
        return Bank(layers, GeneratorSettings(**meta["settings"]), copies, tensors.get("probe"))
