"""Settings of networks by dataset, protocol and model; flags, `--set` and a file beat them.

Those of networks belong to the data and the network, never to the method: a method and its baselines share them.
Those of methods are what its authors publish for a dataset; a comparison with the same budget for all tunes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ANY = "*"
Settings = dict[str, Any]

# Few enough neighbours and epochs for a training of about an hour on two cores.
_SAMPLED: Settings = {
    "batch_size": 1024, "fanouts": (10, 5, 5), "epochs": 10, "validate_every": 5, "checkpoint_every": 1,
}  # fmt: skip
_PRODUCTS_SAGE: Settings = {"norm": "batch", "layers": 3, "width": 256, "dropout": 0.5, **_SAMPLED}
_PRODUCTS_MLP: Settings = {
    "norm": "batch", "layers": 3, "width": 256, "dropout": 0.2, "weight_decay": 0.0, "lr": 0.003,
    "batch_size": 4096, "epochs": 10, "checkpoint_every": 1,
}  # fmt: skip

TEACHERS: dict[tuple[str, str, str], Settings] = {
    (ANY, ANY, "gcn"): {"layers": 3, "width": 256, "dropout": 0.5},
    (ANY, ANY, "sage"): {"layers": 2, "width": 128, "dropout": 0.5, "aggregator": "gcn"},
    # Bag-of-words features: dropping words is what keeps a wide network from knowing 140 papers by heart.
    ("cora", ANY, ANY): {"input_dropout": 0.5},
    ("cora", ANY, "gat"): {"input_dropout": 0.6},
    ("cora", "cpf", "gat"): {"weight_decay": 0.005},
    ("cora", "cpf", "sage"): {"weight_decay": 0.005},
    ("cora", "cpf", "appnp"): {"weight_decay": 0.005},
    ("cora", "cpf", "gcnii"): {"weight_decay": 0.005, "dropout": 0.6, "input_dropout": 0.6},
    ("citeseer", ANY, ANY): {"input_dropout": 0.5, "weight_decay": 0.005},
    ("citeseer", ANY, "gcn"): {"layers": 2},
    ("citeseer", "public", ANY): {"weight_decay": 5e-4},
    ("amazon-photo", ANY, ANY): {"epochs": 200},
    ("amazon-photo", ANY, "gat"): {"dropout": 0.5, "input_dropout": 0.3, "attention_dropout": 0.0, "epochs": 120},
    ("amazon-photo", ANY, "sage"): {"aggregator": "mean", "input_dropout": 0.3},
    ("amazon-photo", ANY, "appnp"): {"width": 128, "input_dropout": 0.3, "epochs": 120},
    ("amazon-photo", ANY, "gcnii"): {"layers": 4, "input_dropout": 0.3, "epochs": 120},
    ("amazon-computers", ANY, ANY): {"epochs": 150},
    # Thousands of words and a hundred labels: what is learnt slowly, and for a short time, generalises.
    ("coauthor-cs", ANY, ANY): {"lr": 0.002, "epochs": 60, "input_dropout": 0.5, "weight_decay": 0.01},
    ("coauthor-physics", ANY, ANY): {"lr": 0.002, "epochs": 30, "input_dropout": 0.5, "weight_decay": 0.01},
    ("ogbn-arxiv", ANY, ANY): {"weight_decay": 0.0},
    ("ogbn-arxiv", ANY, "gcn"): {"norm": "batch", "dropout": 0.3},
    ("ogbn-arxiv", ANY, "sage"): {"norm": "batch", "layers": 3, "width": 256, "dropout": 0.2},
    ("ogbn-products", ANY, ANY): {"weight_decay": 0.0, "lr": 0.003},
    ("ogbn-products", ANY, "gcn"): {"norm": "batch"},
    ("ogbn-products", ANY, "sage"): _PRODUCTS_SAGE,
    ("synth-arxiv", ANY, ANY): {"weight_decay": 0.0, "epochs": 100},
    ("synth-arxiv", ANY, "gcn"): {"norm": "batch", "dropout": 0.3},
    ("synth-arxiv", ANY, "sage"): {"norm": "batch", "layers": 3, "width": 256, "dropout": 0.2},
    ("synth-products", ANY, ANY): {"weight_decay": 0.0, "lr": 0.003},
    ("synth-products", ANY, "gcn"): {"norm": "batch"},
    ("synth-products", ANY, "sage"): _PRODUCTS_SAGE,
}
"""By dataset, protocol and model; a later entry that matches beats an earlier one, option by option."""

STUDENTS: dict[tuple[str, str, str], Settings] = {
    (ANY, ANY, "mlp"): {"layers": 2, "width": 64},
    (ANY, ANY, "gcn"): {"layers": 2, "width": 64},
    (ANY, ANY, "sage"): {"layers": 2, "width": 64},
    ("cora", ANY, ANY): {"input_dropout": 0.5},
    ("citeseer", ANY, ANY): {"input_dropout": 0.5, "epochs": 200},
    ("amazon-photo", ANY, ANY): {"epochs": 200},
    ("cora", ANY, "mlp"): {"dropout": 0.6, "input_dropout": 0.3},
    ("citeseer", ANY, "mlp"): {"dropout": 0.5, "weight_decay": 0.002},
    ("amazon-photo", ANY, "mlp"): {"dropout": 0.3, "input_dropout": 0.3},
    ("amazon-computers", ANY, "mlp"): {
        "dropout": 0.3, "input_dropout": 0.3, "lr": 0.003, "weight_decay": 0.002, "epochs": 150,
    },
    ("coauthor-cs", ANY, "mlp"): {"dropout": 0.5, "input_dropout": 0.3, "lr": 0.002, "epochs": 60},
    ("coauthor-physics", ANY, "mlp"): {"dropout": 0.5, "input_dropout": 0.3, "lr": 0.002, "epochs": 60},
    ("ogbn-arxiv", ANY, "mlp"): {"norm": "batch", "layers": 3, "width": 256, "dropout": 0.1, "weight_decay": 0.0},
    ("ogbn-products", ANY, "mlp"): _PRODUCTS_MLP,
    ("synth-arxiv", ANY, "mlp"): {
        "norm": "batch", "layers": 3, "width": 256, "dropout": 0.1, "weight_decay": 0.0, "epochs": 150,
    },
    ("synth-products", ANY, "mlp"): _PRODUCTS_MLP,
    # Row-normalised features are some thirty times smaller; the same decay would hold the first layer at zero.
    ("cora", "public", "mlp"): {"input_dropout": 0.6, "weight_decay": 5e-5},
    ("citeseer", "public", "mlp"): {"weight_decay": 5e-5},
    ("pubmed", ANY, "mlp"): {"weight_decay": 5e-5},
}  # fmt: skip
"""As `TEACHERS`."""


METHODS: dict[tuple[str, str, str], Settings] = {
    ("cora", ANY, "ffg2m"): {"label_weight": 0.4, "tau": 1.5},
    ("citeseer", ANY, "ffg2m"): {"label_weight": 0.1, "tau": 1.5},
    ("pubmed", ANY, "ffg2m"): {"label_weight": 0.0, "tau": 1.5},
    ("amazon-photo", ANY, "ffg2m"): {"label_weight": 0.1, "tau": 1.3},
    ("coauthor-physics", ANY, "ffg2m"): {"label_weight": 0.2, "tau": 1.2},
    ("cora", ANY, "krd"): {"label_weight": 0.5, "tau": 0.8},
    ("citeseer", ANY, "krd"): {"label_weight": 0.0, "tau": 0.9},
    ("pubmed", ANY, "krd"): {"label_weight": 0.0, "tau": 1.0},
    ("amazon-photo", ANY, "krd"): {"label_weight": 0.4, "tau": 0.8},
    ("coauthor-physics", ANY, "krd"): {"label_weight": 0.1, "tau": 1.2},
    ("ogbn-arxiv", ANY, "krd"): {"label_weight": 0.1, "tau": 1.1, "momentum": 0.9, "redraw_every": 10},
    ("cora", "tran", "nosmog"): {"eps": 0.04, "similarity_weight": 0.1, "walks": 5, "iterations": 1, "dim": 64},
    ("citeseer", "tran", "nosmog"): {"eps": 0.045, "similarity_weight": 0.1, "walks": 3, "iterations": 5, "dim": 16},
    ("pubmed", "tran", "nosmog"): {"eps": 0.005, "similarity_weight": 0.9, "walks": 1, "iterations": 3, "dim": 16},
    ("amazon-computers", "tran", "nosmog"): {
        "eps": 0.07, "similarity_weight": 1e-9, "walk_length": 70, "walks": 1, "iterations": 1, "dim": 64,
    },
    ("amazon-photo", "tran", "nosmog"): {
        "eps": 0.1, "similarity_weight": 1e-9, "walk_length": 30, "walks": 1, "iterations": 1, "dim": 64,
    },
    ("cora", "ind", "nosmog"): {
        "eps": 0.05, "similarity_weight": 0.1, "walks": 1, "window": 3, "iterations": 3, "dim": 64,
    },
    ("citeseer", "ind", "nosmog"): {"eps": 0.05, "similarity_weight": 0.3, "walks": 3, "iterations": 3, "dim": 64},
    ("pubmed", "ind", "nosmog"): {"eps": 0.001, "similarity_weight": 0.9, "walks": 3, "iterations": 1, "dim": 16},
    ("amazon-computers", "ind", "nosmog"): {
        "eps": 0.06, "similarity_weight": 1e-9, "walk_length": 70, "walks": 5, "iterations": 3, "dim": 64,
    },
    ("amazon-photo", "ind", "nosmog"): {
        "eps": 0.1, "similarity_weight": 1e-8, "walks": 1, "window": 3, "iterations": 1, "dim": 32,
    },
    ("ogbn-arxiv", "tran", "nosmog"): {"eps": 0.02, "similarity_weight": 1e-6, "dim": 128},
    ("ogbn-arxiv", "ind", "nosmog"): {"eps": 0.045, "similarity_weight": 1e-6, "dim": 128},
    ("ogbn-products", ANY, "nosmog"): {"eps": 0.005, "similarity_weight": 1e-7, "dim": 64},
}  # fmt: skip
"""By dataset, setting and method: what the methods' authors publish for a dataset, teacher GCN or SAGE.

Cells published for one teacher or setting stand in for the others: those of KRD and FF-G2M are of a GCN teacher under
`tran`, those of NOSMOG of a SAGE teacher, and its similarity_weight for amazon-computers under `ind` is that of `tran`.
"""


def preset(dataset: str, protocol: str, teacher: str, student: str) -> dict[str, Settings]:
    """The groups `teacher` and `student` of a run; `dataset` may be any name or path."""
    name = dataset.lower().replace("_", "-")
    return {
        "teacher": matching(TEACHERS, (name, protocol, teacher)),
        "student": matching(STUDENTS, (name, protocol, student)),
    }


def of_method(dataset: str, setting: str, method: str) -> Settings:
    """The group `method` of a run."""
    return matching(METHODS, (dataset.lower().replace("_", "-"), setting, method))


def matching(table: Mapping[Any, Settings], key: tuple[str, ...]) -> Settings:
    """The settings of all entries that match, later ones over earlier ones; `ANY` matches every word."""
    found: Settings = {}
    for pattern, settings in table.items():
        if all(want in (ANY, have) for want, have in zip(pattern, key, strict=True)):
            found |= settings
    return found
