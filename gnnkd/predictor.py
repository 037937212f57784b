"""A trained network with what it needs to be used again: classes, feature preparation, constructor options."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd import nn
from gnnkd.data.edges import checked, merged
from gnnkd.data.features import row_normalised
from gnnkd.errors import UserError
from gnnkd.graph.build import Neighbourhood
from gnnkd.graph.structure import CSR, Graph
from gnnkd.images import predictor as images
from gnnkd.images.predictor import ImagePredictor
from gnnkd.nn.around import Around, ask, kind_of, kinds
from gnnkd.nn.own import Own, copied
from gnnkd.train import checkpoint

FORMAT = 1


@final
@dataclass(frozen=True)
class Predictor:
    """Predicts classes from features, and from a graph where the network passes messages.

    Args:
        network: in eval mode.
        name: of the network, a key of `nn.MODELS`, or the class of a module of the user's.
        options: of its constructor.
        classes: original label of each class id.
        features: "row" if features are divided by their row sum, "raw" if not.
        n_features: width of a row.
        undirected: whether an edge list is mirrored, as the training data was.
        made: the rule by which the training data's edges were made of its features, None where they were given.
    """

    network: torch.nn.Module
    name: str
    options: Mapping[str, Any]
    classes: tuple[int, ...]
    features: str
    n_features: int
    undirected: bool = True
    made: Neighbourhood | None = None

    @property
    def needs_graph(self) -> bool:
        """Whether the network passes messages along edges, or what is around it does."""
        if isinstance(self.network, Around) and self.network.needs_graph:
            return True
        return self.network.graph if isinstance(self.network, Own) else nn.needs_graph(self.name)

    @property
    def _reads_weights(self) -> bool:
        return not isinstance(self.network, Own) and nn.reads_weights(self.name)

    def logits(
        self,
        x: Tensor | np.ndarray | CSR,
        graph: Graph | Tensor | np.ndarray | None = None,
        *,
        index: Tensor | np.ndarray | None = None,
    ) -> Float[Tensor, "N C"]:
        """Logits of rows `x` [N, D]; a graph for networks that pass messages.

        An edge list [2, E] is merged and mirrored as the training data was; a `Graph` is taken as it is. Without
        either, a network whose training edges were made of features gets those of `x`, made by the same rule.

        A student that knows nodes of its training (by their positions or labels) is told by `index` [N] which nodes of
        the full data the rows are, -1 for new ones; without it all rows are new to it. If they are as many as it knows,
        they are rather those of the training, and a UserWarning says that they are taken as new. It may look at edges
        of new rows alone; those made by a rule are made if there is one.

        Raises:
            UserError: rows of another width or not finite, too few for the rule, a missing graph, edges out of range,
                an edge list for a network that learnt on weighted edges, or ids that are not one for each row.
        """
        rows = x if isinstance(x, (Tensor, CSR)) else torch.as_tensor(np.asarray(x))
        if len(rows.shape) != 2 or rows.shape[1] != self.n_features:
            raise UserError(f"x has shape {tuple(rows.shape)}; this network reads rows of {self.n_features} features")
        device = next(self.network.parameters()).device
        rows = rows.to(device) if isinstance(rows, CSR) else rows.to(device, torch.float32)
        if not bool((rows.values() if isinstance(rows, CSR) else rows).isfinite().all()):
            raise UserError("x holds values that are not finite; fill them in before predicting")
        ids = self._ids(index, rows.shape[0])
        found = self._made(rows, ids) if graph is None else self._given(graph, rows.shape[0]).to(device)
        if self.features == "row":
            rows = row_normalised(rows, "x")
        self.network.eval()
        with torch.no_grad():
            return ask(self.network, rows, found, ids).logits

    def _ids(self, index: Tensor | np.ndarray | None, n_rows: int) -> Tensor | None:
        if index is None:
            known = self.network.n_known if isinstance(self.network, Around) else 0
            if known and known == n_rows:
                warnings.warn(
                    f"all {n_rows} rows are taken as new, and the network knows as many nodes; if they are these, say "
                    "which by index=, their ids in the full data",
                    stacklevel=2,
                )
            return None
        found = torch.as_tensor(np.asarray(torch.as_tensor(index).cpu()))
        if found.shape != (n_rows,) or found.is_floating_point() or found.dtype == torch.bool:
            raise UserError(f"index is {found.dtype} of shape {list(found.shape)}; it must be {n_rows} whole numbers")
        return found.long().to(next(self.network.parameters()).device)

    def _made(self, rows: Tensor | CSR, ids: Tensor | None) -> Graph | None:
        """The graph of features, for a network that looks at edges when it is asked about these rows."""
        around = self.network if isinstance(self.network, Around) else None
        if not self.needs_graph and (self.made is None or around is None or not around.reads_edges(ids)):
            return None
        if self.made is None:
            inside = f" inside {kind_of(around).replace('_', ' ')}" if around is not None else ""
            raise UserError(
                f"a {self.name} network{inside} predicts along edges: give edge_index [2, E] as the second argument"
            )
        if rows.shape[0] <= self.made.k:
            raise UserError(
                f"x has {rows.shape[0]} rows, and the edges are made of the {self.made.k} nearest others of each; give "
                "more rows at once, or edges as the second argument"
            )
        return self.made.graph(rows)

    def _given(self, graph: Graph | Tensor | np.ndarray, n_nodes: int) -> Graph:
        if isinstance(graph, Graph):
            return graph
        edges = np.asarray(torch.as_tensor(graph).cpu())
        # Nodes without any edge are no dataset, but they can be asked about.
        edges = edges.astype(np.int64) if edges.shape == (2, 0) else checked(edges, n_nodes, "edge_index")
        if self.made is not None and self.made.kind == "uem" and self._reads_weights and edges.size:
            raise UserError(
                f"this {self.name} learnt on edges with weights, made of features, and an edge list has none; leave it "
                "out, and the edges of x are made in the same way, or give a gnnkd.graph.structure.Graph"
            )
        found, _ = merged(edges, n_nodes, undirected=self.undirected)
        return Graph.from_edge_index(torch.from_numpy(found), n_nodes)

    def predict_proba(
        self,
        x: Tensor | np.ndarray | CSR,
        graph: Graph | Tensor | np.ndarray | None = None,
        *,
        index: Tensor | np.ndarray | None = None,
    ) -> Float[Tensor, "N C"]:
        """Probability of each class, columns in the order of `classes`."""
        return self.logits(x, graph, index=index).softmax(dim=1)

    def predict(
        self,
        x: Tensor | np.ndarray | CSR,
        graph: Graph | Tensor | np.ndarray | None = None,
        *,
        index: Tensor | np.ndarray | None = None,
    ) -> Int[Tensor, " N"]:
        """Most probable class of each row, as a label of the training data."""
        found = self.logits(x, graph, index=index).argmax(dim=1)
        return torch.tensor(self.classes, device=found.device)[found]

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def n_stored(self) -> int:
        """Numbers beside them that what is around a network keeps for its predictions; 0 where nothing is."""
        return self.network.n_stored if isinstance(self.network, Around) else 0

    def save(self, folder: Path | str, name: str = "model.safetensors") -> None:
        """Write the network into `folder`; `load` needs nothing else, but the module if it is the user's."""
        meta = {
            "format": FORMAT,
            "model": self.name,
            "options": dict(self.options),
            "classes": list(self.classes),
            "features": self.features,
            "n_features": self.n_features,
            "undirected": self.undirected,
        }
        if self.made is not None:
            meta["made"] = dataclasses.asdict(self.made)
        if isinstance(self.network, Around):
            meta["around"] = {"kind": kind_of(self.network), "options": self.network.options}
        if isinstance(self.network, Own):
            meta["own"] = {"graph": self.network.graph}
        checkpoint.save(Path(folder) / name, self.network.state_dict(), meta)


def load(folder: Path | str, *, network: torch.nn.Module | None = None) -> Predictor | ImagePredictor:
    """The network saved in `folder` (or the file itself), of a graph or of images; executes no code.

    Args:
        folder: where it is; of a run of several networks, node 0's is read.
        network: for a module of yours, one made as the saved one was; it is copied, and given the saved weights.

    Raises:
        UserError: no such file, one that gnnkd did not write, or a module that is missing or of other weights.
    """
    _check_made(network)
    file = network_in(Path(folder))
    if not file.exists():
        raise UserError(
            f"{file} does not exist; give the folder of a finished run, the seed<k> in --out that its last line names, "
            "or one that Distilled.save wrote"
        )
    tensors, meta = checkpoint.load(file)
    if meta.get("kind") == images.KIND:
        if network is not None:
            raise UserError(f"{file} holds a network of images, gnnkd's own {meta.get('model')}: leave network= out")
        return images.restored(tensors, meta, file)
    if meta.get("format") != FORMAT:
        raise images.no_network(file, meta)
    if ("own" in meta) != (network is not None):
        model = meta.get("model")
        raise UserError(
            f"{file} holds a {model}, which is no network of gnnkd's: give gnnkd.load(folder, network={model}(...))"
            if "own" in meta
            else f"{file} holds gnnkd's own {model}: leave network= out"
        )
    try:
        found = _made(meta) if network is None else _own(network, meta)
        found.load_state_dict(tensors)
        found.eval()
        named = {key: meta[key] for key in ("options", "features", "n_features", "undirected")}
        made = Neighbourhood(**meta["made"]) if "made" in meta else None
        return Predictor(found, meta["model"], classes=tuple(meta["classes"]), **named, made=made)
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise UserError(
            f"{file} holds other tensors than its description says; train it again"
            if network is None
            else f"{file} holds other weights than network= has; make the module as the saved {meta['model']} was"
        ) from None


def network_in(path: Path) -> Path:
    """The file of a run's network in its folder, in that of a graph of networks node 0's; a file is itself."""
    if not path.is_dir():
        return path
    file, first = path / "model.safetensors", path / "node0.safetensors"
    return first if first.is_file() and not file.is_file() else file


def _check_made(network: object) -> None:
    if network is not None and not isinstance(network, torch.nn.Module):
        said = f"the class {network.__name__}" if isinstance(network, type) else repr(network)
        raise UserError(f"network is {said}; it must be an instance of a torch.nn.Module, made as the saved one was")


def _made(meta: Mapping[str, Any]) -> torch.nn.Module:
    def make(inputs: int) -> torch.nn.Module:
        return nn.MODELS[meta["model"]](inputs, len(meta["classes"]), **meta["options"])

    around = meta.get("around")
    if around is None:
        return make(meta["n_features"])
    kind = kinds()[around["kind"]]
    return kind.restored(make, meta["n_features"], len(meta["classes"]), around["options"])


def _own(network: torch.nn.Module, meta: Mapping[str, Any]) -> Own:
    module = network.module if isinstance(network, Own) else network
    return copied(Own(module, graph=meta["own"]["graph"]))
