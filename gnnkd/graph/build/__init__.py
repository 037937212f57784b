"""Graphs made from numbers: nearest neighbours of features, and weighted graphs between the rows of a batch."""

from gnnkd.graph.build.edges import class_aware, complete, sparse, strongest, uem
from gnnkd.graph.build.features import Neighbourhood
from gnnkd.graph.build.nearest import attached, knn

__all__ = ["Neighbourhood", "attached", "class_aware", "complete", "knn", "sparse", "strongest", "uem"]
