"""APPNP (Gasteiger, Bojchevski, Guennemann, ICLR 2019): predict each node alone, then let predictions propagate.

H = MLP(X);  Z_0 = H,  Z_{t+1} = (1 - alpha) A Z_t + alpha H;  logits = Z_k, with A = D^-1/2 (A + I) D^-1/2.
"""

from __future__ import annotations

from typing import cast, final

from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.graph import normalise
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.dropout import check, drop
from gnnkd.nn.mlp import mlp
from gnnkd.nn.network import Network
from gnnkd.nn.propagation import check_restart, check_steps, restart
from gnnkd.types import Output


def personalised_pagerank(
    a: CSR,
    h: Float[Tensor, "N F"],
    *,
    k: int = 10,
    alpha: float = 0.1,
    edge_dropout: float = 0.0,
    training: bool = False,
) -> Float[Tensor, "N F"]:
    """k steps of Z <- (1 - alpha) a Z + alpha h from Z = h.

    Args:
        a: weights [N, N].
        h: start, and what each step returns to.
        k: number of steps, >= 0.
        alpha: share of the return, in [0, 1].
        edge_dropout: share of the entries of `a` dropped in training, in [0, 1). Each step draws from all entries anew,
            as in the paper; PyG's layer draws from those that the step before has left.
        training: whether to drop at all.

    Raises:
        UserError: edge_dropout outside its range.
    """
    z = h
    for _ in range(k):
        z = restart(cast("CSR", drop(a, edge_dropout, training)), z, h, alpha)
    return z


@final
class APPNP(nn.Module):
    """A network of rows whose outputs propagate.

    Args:
        network: of rows; its weight matrices are those of the whole.
        k: number of steps, >= 0.
        alpha: share of the return to the network's own output, in [0, 1].
        edge_dropout: in [0, 1).

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, network: Network, *, k: int = 10, alpha: float = 0.1, edge_dropout: float = 0.0) -> None:
        super().__init__()
        check_steps(k)
        check_restart(alpha)
        check(edge_dropout, "edge_dropout")
        self.mlp = network
        self.k = k
        self.alpha = alpha
        self.edge_dropout = edge_dropout

    def forward(self, x: Float[Tensor, "N D"] | CSR, graph: Graph | Int[Tensor, "2 E"] | None = None) -> Output:
        """Logits, and the operands of the network of rows.

        Args:
            x: features, dense or sparse.
            graph: a `Graph`, normalised once, or an edge list, normalised in this call.

        Raises:
            ValueError: no graph.
        """
        a = Graph.of(graph, x.shape[0]).derived(normalise.gcn)
        alone: Output = self.mlp(x)
        logits = personalised_pagerank(
            a, alone.logits, k=self.k, alpha=self.alpha, edge_dropout=self.edge_dropout, training=self.training
        )
        hidden = {f"mlp.{name}": operand for name, operand in alone.hidden.items()}
        return Output(logits, hidden, {f"mlp.{name}": out for name, out in alone.raw.items()})


def appnp(
    in_channels: int,
    out_channels: int,
    *,
    layers: int = 2,
    width: int = 64,
    dropout: float = 0.5,
    input_dropout: float = 0.0,
    norm: str = "none",
    k: int = 10,
    alpha: float = 0.1,
    edge_dropout: float = 0.0,
) -> APPNP:
    """A multilayer perceptron whose predictions propagate.

    Args:
        in_channels: features of a node, >= 1.
        out_channels: classes, >= 1.
        layers: number of weight matrices, >= 1.
        width: hidden units of a layer, >= 1.
        dropout: in [0, 1).
        input_dropout: in [0, 1).
        norm: `none`, `batch` or `layer`.
        k: number of steps, >= 0.
        alpha: share of each step that returns to the perceptron's prediction, in [0, 1].
        edge_dropout: share of edges that a step of training leaves out, in [0, 1).

    Raises:
        UserError: an option outside its range.
    """
    network = mlp(
        in_channels, out_channels, layers=layers, width=width, dropout=dropout, input_dropout=input_dropout, norm=norm
    )
    return APPNP(network, k=k, alpha=alpha, edge_dropout=edge_dropout)
