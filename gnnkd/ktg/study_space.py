"""The graphs among which a search chooses: networks for all nodes but the first, and a gate for every pair of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from gnnkd import options
from gnnkd.errors import UserError, unknown
from gnnkd.ktg import presets
from gnnkd.ktg.spec import CUTOFF, NodeSpec, Spec
from gnnkd.train.together.gates import GATES

FROM_SOURCE = "correct"
"""The gate that asks a source, so that labels have none."""
Choice = Mapping[str, str]
"""What is chosen, by parameter: `i_model` and `i_j_gate`."""


@final
@dataclass(frozen=True)
class Space:
    """Graphs of a number of nodes.

    Args:
        base: a graph that says all that is not searched, with node 0 in each place.
        models: that nodes 1, 2, ... choose from; the first one is node 0's.
        gates: that every ordered pair of nodes chooses from, and each node for its own labels.
    """

    base: Spec
    models: tuple[str, ...]
    gates: tuple[str, ...]

    @staticmethod
    def of(said: Mapping[str, Any], nodes: int, models: Sequence[str], gates: Sequence[str]) -> Space:
        """Graphs of `nodes` nodes on what `said` says of data, training and losses, in values that `Spec.of` reads.

        Raises:
            UserError: no name of a network, an unknown gate, or gates with which node 0 learns nothing.
        """
        if nodes < 1:
            raise UserError(f"nodes is {nodes}; a graph has one node or more")
        if not models:
            raise UserError("models is empty; name networks, as in --models cnn_small,cnn, the first one for node 0")
        for name in gates:
            if name not in GATES:
                raise unknown("gate", name, GATES)
        if not [name for name in gates if name not in (CUTOFF, FROM_SOURCE)]:
            shown = ", ".join(gates) or "none"
            raise UserError(f"gates is {shown}, and no label passes through them; add through, positive or negative")
        through = [[presets.THROUGH] * nodes for _ in range(nodes)]
        base = Spec.of({**said, "nodes": [models[0]] * nodes, "gates": through})
        return Space(base, tuple(dict.fromkeys(models)), tuple(dict.fromkeys(gates)))

    @property
    def nodes(self) -> int:
        """Of each graph."""
        return len(self.base.nodes)

    def choices(self) -> dict[str, list[str]]:
        """What each parameter may be."""
        found = {f"{i}_model": list(self.models) for i in range(1, self.nodes)}
        own = [name for name in self.gates if name != FROM_SOURCE]
        for i in range(self.nodes):
            for j in range(self.nodes):
                found[f"{i}_{j}_gate"] = own if i == j else list(self.gates)
        return found

    def graph(self, chosen: Choice) -> Spec:
        """The graph of a choice; whether node 0 learns something in it is for `Spec.lack` to say."""
        named = [self.models[0], *(chosen[f"{i}_model"] for i in range(1, self.nodes))]
        gates = tuple(tuple(chosen[f"{i}_{j}_gate"] for j in range(self.nodes)) for i in range(self.nodes))
        return replace(self.base, nodes=tuple(NodeSpec(name) for name in named), gates=gates)

    def everyone(self) -> Spec:
        """A graph with all models in it that hear each other, to see before a search whether they can."""
        names = [*self.models, self.models[-1]] if len(self.models) == 1 < self.nodes else list(self.models)
        return self.like(presets.dml(names) if self.nodes > 1 else presets.single(names[:1]))

    def single(self) -> Spec:
        """Node 0's network alone."""
        return self.like(presets.single(self.models[:1]))

    def mutual(self, graph: Spec) -> Spec:
        """Deep mutual learning of the networks of a graph."""
        return self.like(presets.dml([node.model for node in graph.nodes]))

    def like(self, preset: Mapping[str, Any]) -> Spec:
        """A graph with a name on the same data, with the same training."""
        base = self.base
        said = {name: getattr(base, name) for name in ("dataset", "split", "setting", "data", "train")}
        if len(preset["nodes"]) > 1:
            said |= {"loss": base.loss, "temperature": base.temperature}
        return Spec.of({**said, **preset})

    def described(self) -> dict[str, Any]:
        """All that the user chose, as plain values."""
        said = {name: value for name, value in self.base.plain().items() if name not in ("nodes", "gates")}
        found = {"nodes": self.nodes, "models": list(self.models), "gates": list(self.gates)}
        plain: dict[str, Any] = options.plain({**said, **found})
        return plain
