"""Settings of trainings without labels by kind of data; the defaults are KTG's for CIFAR.

On CIFAR they are KTG's: LARS at a rate of 1 for batches of 512, ten epochs of warm-up, then a cosine, 400 epochs. The
1797 digits of 8 x 8 pixels have crops that leave the digit whole, smaller batches, so that there are some steps in an
epoch, and momentum encoders, queues and prototypes for so few images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Groups = Mapping[str, Mapping[str, Any]]
GROUPS = ("data", "views", "model", "method", "edges", "train")
"""Groups of options: `model` is of all networks that have the option, `edges` of what networks say to each other."""

DEFAULT: Groups = {
    "train": {
        "lr": 1.0,
        "weight_decay": 1e-6,
        "epochs": 400,
        "batch_size": 512,
        "schedule": "cosine",
        "warmup_epochs": 10,
    }
}
OF_KINDS: dict[str, Groups] = {
    "digits": {"train": {"epochs": 100, "batch_size": 128}, "views": {"least_area": 0.5, "ratio": 1.2}},
}
"""By kind of data."""
OF_OBJECTIVES: dict[tuple[str, str], Groups] = {
    ("digits", "byol"): {"method": {"momentum": 0.9}},
    # Faster, it forgets again what it has learnt.
    ("digits", "dino"): {"method": {"momentum": 0.99, "prototypes": 128}, "train": {"lr": 0.3}},
    ("digits", "moco"): {"method": {"momentum": 0.9, "queue": 512}},
    ("digits", "swav"): {"method": {"prototypes": 60}},
}
"""Options by kind of data and objective."""
NETWORKS = {"digits": "cnn", "cifar": "resnet32", "tiny": "resnet18", "imagenet": "resnet18"}
"""By kind of data, where nobody names one."""


def levels(kind: str, objective: str) -> tuple[Groups, ...]:
    """What holds where nobody says otherwise, weakest first."""
    return DEFAULT, OF_KINDS.get(kind, {}), OF_OBJECTIVES.get((kind, objective), {})
