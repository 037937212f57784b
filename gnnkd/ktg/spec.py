"""A graph of networks as people write it: nodes, a matrix of gates, methods of single edges.

    dataset: digits
    nodes:
      - {model: cnn_small, train: {epochs: 40}}
      - {model: cnn, weights: "runs/.../seed{seed}/model.safetensors"}
      - model: cnn_small
    gates:
      - [through, positive, through]
      - [cutoff, cutoff, cutoff]
      - [negative, through, through]
    edges: {"0<-1": {method: gkd, temperature: 2}}

Row i of the gates is what reaches node i, column j what comes from node j; on the diagonal are a node's own labels.
Node 0 is the one that counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from gnnkd import options
from gnnkd.errors import UserError
from gnnkd.ktg import written
from gnnkd.ktg.written import KL

CUTOFF, POSITIVE = "cutoff", "positive"
_EDGE = re.compile(r"\s*(\d+)\s*<-\s*(\d+)\s*")


@final
@dataclass(frozen=True)
class NodeSpec:
    """A network of a graph.

    Args:
        model: its name.
        options: of its constructor; others are the dataset's presets.
        train: settings of its training, likewise.
        weights: file that it starts from; `{seed}` in it stands for the seed.
        frozen: it stays as it is; so does every node whose gates are all cut.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    frozen: bool = False

    @staticmethod
    def of(said: Any, where: str) -> NodeSpec:
        """A node from plain values: a mapping, or the model's name alone.

        Raises:
            UserError: an unknown key, or a value of another kind.
        """
        tree = {"model": said} if isinstance(said, str) else written.mapping(said, where)
        written.check_keys(tree, ("model", "options", "train", "weights", "frozen"), where)
        if not isinstance(tree.get("model"), str):
            raise UserError(f"{where}: model is {tree.get('model')!r}; it must be the name of a network")
        weights, frozen = tree.get("weights"), tree.get("frozen", False)
        if weights is not None and not isinstance(weights, str):
            raise UserError(f"{where}: weights is {weights!r}; it must be the name of a file")
        if not isinstance(frozen, bool):
            raise UserError(f"{where}: frozen is {frozen!r}; it must be true or false")
        groups = {
            name: written.words(written.mapping(tree.get(name) or {}, f"{where}: {name}"))
            for name in ("options", "train")
        }
        return NodeSpec(tree["model"], weights=weights, frozen=frozen, **groups)

    def plain(self) -> dict[str, Any]:
        """As `of` reads it; what is empty is left out."""
        said = {"options": options.plain(self.options), "train": options.plain(self.train), "weights": self.weights}
        found = {"model": self.model, **{name: value for name, value in said.items() if value}}
        return found | ({"frozen": True} if self.frozen else {})


@final
@dataclass(frozen=True)
class EdgeSpec:
    """What passes along an edge that says so itself.

    Args:
        method: a method's name or `kl`; None is the graph's loss, and a self edge has none.
        factor: of its loss, above 0.
        options: of the method.
    """

    method: str | None = None
    factor: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(said: Any, where: str, *, own: bool) -> EdgeSpec:
        """An edge from plain values; `own` tells a self edge.

        Raises:
            UserError: a method for a self edge or one with gradients of its own, or a factor that is none.
        """
        tree = written.words(written.mapping(said, where))
        method, factor = tree.pop("method", None), tree.pop("factor", 1.0)
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not number or not 0 < factor < math.inf:
            raise UserError(f"{where}: factor is {factor!r}; it must be a number above 0, or the gate cutoff")
        if own and (method is not None or tree):
            word = "method" if method is not None else next(iter(tree))
            raise UserError(
                f"{where}: {word}: a self edge is the cross-entropy of the node's labels; it has a factor alone"
            )
        return EdgeSpec(None if method is None else written.method(method, where), float(factor), tree)

    def plain(self) -> dict[str, Any]:
        """As `of` reads it."""
        method: dict[str, Any] = {} if self.method is None else {"method": self.method}
        factor: dict[str, Any] = {} if self.factor == 1 else {"factor": self.factor}
        return {**method, **factor, **options.plain(self.options)}


@final
@dataclass(frozen=True)
class Spec:
    """A graph of networks; a node is known by its place in `nodes`.

    Args:
        nodes: the first one counts.
        gates: row i is what reaches node i, column j what comes from node j, the diagonal its own labels.
        edges: what single edges say themselves, by (node, source).
        loss: of all other edges between nodes: `kl`, or a method's name.
        temperature: T of the edges that are `kl`, > 0, in units of logits.
        dataset: name or path.
        split: protocol; None is the data's own.
        setting: "tran", or on graphs "ind".
        data: options of reading the data.
        train: settings of training of all nodes, weaker than their own.
    """

    nodes: tuple[NodeSpec, ...]
    gates: tuple[tuple[str, ...], ...]
    edges: Mapping[tuple[int, int], EdgeSpec] = field(default_factory=dict)
    loss: str = KL
    temperature: float = 1.0
    dataset: str = "digits"
    split: str | None = None
    setting: str = "tran"
    data: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(tree: Mapping[str, Any]) -> Spec:
        """A graph from plain values, checked but for what the data decides (names of networks, options, weights).

        Raises:
            UserError: an unknown key, gate or method, a matrix of another size, or a node 0 that can learn nothing.
        """
        tree = {str(key).lower().replace("-", "_"): value for key, value in tree.items()}
        written.check_keys(tree, tuple(Spec.__dataclass_fields__), "the graph")
        said = tree.get("nodes")
        if not isinstance(said, Sequence) or isinstance(said, str) or not said:
            raise UserError(
                "the graph: nodes must be a list of networks, as in nodes: [{model: cnn}, {model: cnn_small}]"
            )
        nodes = tuple(NodeSpec.of(one, f"node {i}") for i, one in enumerate(said))
        for name in ("dataset", "split", "setting"):
            value = tree.get(name)
            if value is not None and (not isinstance(value, str) or not value):
                raise UserError(f"the graph: {name} is {value!r}; it must be a word")
        found = Spec(
            nodes,
            written.gates(tree.get("gates"), len(nodes)),
            _edges(tree, len(nodes)),
            written.method(tree.get("loss", KL), "the graph: loss"),
            written.above_zero(tree.get("temperature", 1.0), "the graph: temperature"),
            tree.get("dataset") or "digits",
            tree.get("split"),
            tree.get("setting") or "tran",
            written.words(written.mapping(tree.get("data") or {}, "the graph: data")),
            written.words(written.mapping(tree.get("train") or {}, "the graph: train")),
        )
        found.check()
        return found

    def plain(self) -> dict[str, Any]:
        """As `of` reads it, in values that YAML and JSON know; what is not said is left out."""
        found: dict[str, Any] = {"dataset": self.dataset}
        found |= {} if self.split is None else {"split": self.split}
        found |= {} if self.setting == "tran" else {"setting": self.setting}
        found |= {"nodes": [node.plain() for node in self.nodes], "gates": [list(row) for row in self.gates]}
        found |= {} if self.loss == KL else {"loss": self.loss}
        found |= {} if self.temperature == 1 else {"temperature": self.temperature}
        edges = {f"{i}<-{j}": edge.plain() for (i, j), edge in self.edges.items()}
        groups = {"edges": edges, "data": options.plain(self.data), "train": options.plain(self.train)}
        return found | {name: value for name, value in groups.items() if value}

    def open(self, node: int) -> list[int]:
        """The sources of a node whose gates are not cut, itself among them where its labels are heard."""
        return [j for j, name in enumerate(self.gates[node]) if name != CUTOFF]

    def frozen(self, node: int) -> bool:
        """Whether a node stays as it is."""
        return node > 0 and not self.open(node)

    def alone(self) -> list[int]:
        """The nodes that are trained alone before the others: frozen, and without weights."""
        return [i for i, node in enumerate(self.nodes) if self.frozen(i) and node.weights is None]

    def links(self) -> Iterator[tuple[int, int, str]]:
        """Node, source and gate of each edge that is not cut."""
        for i in range(len(self.nodes)):
            yield from ((i, j, self.gates[i][j]) for j in self.open(i))

    def lack(self, *, once: bool = False) -> str | None:
        """Why node 0 can learn nothing, in words; None if it can.

        Args:
            once: in a training of one epoch, in which a gate that opens line by line stays shut.
        """
        start = f"node 0 ({self.nodes[0].model}) is the one that counts, and it can learn nothing"
        if self.nodes[0].frozen:
            return f"{start}: it is frozen; freeze other nodes only"
        if not self.open(0):
            return f"{start}: row 0 of the gates is all cutoff; open one of them"
        if not self._passing(0, once):
            return f"{start}: row 0 of the gates has none that opens in a training of one epoch; train longer"
        if not self._informed(once):
            return (
                f"{start}: no label and no pre-trained network reaches it through the gates; open one of the diagonal"
            )
        return None

    def _passing(self, node: int, once: bool) -> list[int]:
        """The sources that a node hears at some epoch."""
        return [j for j in self.open(node) if not once or self.gates[node][j] != POSITIVE]

    def _informed(self, once: bool) -> bool:
        """Whether something that knows labels is heard by node 0, directly or through others."""
        seen, ahead = {0}, [0]
        while ahead:
            i = ahead.pop()
            heard = self._passing(i, once)
            if self.frozen(i) or i in heard or self.nodes[i].weights is not None:
                return True
            new = [j for j in heard if j not in seen]
            seen.update(new)
            ahead += new
        return False

    def check(self) -> None:
        """Refuse a graph that cannot be.

        Raises:
            UserError: node 0 can learn nothing, a frozen node that is taught, a temperature that nothing has.
        """
        if lack := self.lack():
            raise UserError(lack)
        for i, node in enumerate(self.nodes):
            if node.frozen and self.open(i):
                raise UserError(
                    f"node {i} ({node.model}) is frozen, and row {i} of the gates is not; make it all cutoff"
                )
        between = [(i, j) for i, j, _ in self.links() if i != j]
        kl = [pair for pair in between if (self.edges.get(pair, EdgeSpec()).method or self.loss) == KL]
        if self.temperature != 1 and between and not kl:
            raise UserError(f"temperature is {self.temperature} and no edge is kl; give it to an edge that has one")


def _edges(tree: Mapping[str, Any], n: int) -> dict[tuple[int, int], EdgeSpec]:
    found: dict[tuple[int, int], EdgeSpec] = {}
    for key, said in written.mapping(tree.get("edges") or {}, "the graph: edges").items():
        match = _EDGE.fullmatch(str(key))
        if match is None:
            raise UserError(f"the graph: edges: '{key}' is no edge; write node and source, as in \"0<-1\"")
        i, j = int(match[1]), int(match[2])
        if max(i, j) >= n:
            raise UserError(f"edge {i}<-{j}: there is no node {max(i, j)}; the nodes are 0 to {n - 1}")
        if (i, j) in found:
            raise UserError(f"edge {i}<-{j} is there twice; leave one of them out")
        found[i, j] = EdgeSpec.of(said, f"edge {i}<-{j}", own=i == j)
    return found
