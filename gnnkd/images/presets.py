"""Published settings of image networks and methods; flags, `--set` and a file beat them.

Settings of training belong to the data and the network: a method and its baselines share them. Those of CIFAR are the
literature's (240 epochs, batches of 64, the rate divided by 10 at 150, 180 and 210): the defaults of
`ImageTrainSettings`. ImageNet's are the common 100 epochs at 30, 60 and 90 with a rate of .1 for batches of 256 (a rate
of .2 for 512 is the same per image). For Tiny-ImageNet publications differ; here it is CIFAR's rate and batch, 200
epochs, milestones at 60, 120 and 160.

One setting is a method's own: GK-DFD compares the images of a batch class by class, so its students train on batches
of eight images of each of their classes, as published (`per_class`). Its baselines do not, unless they are asked to.

Options of methods follow the pair of networks, where their authors' do. Of ReviewKD only the weights are taken over:
its authors trained with batches of 128 and a rate of .1, which its baselines did not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnkd.nn.images import family
from gnnkd.presets import ANY, Settings, matching

KINDS = {
    "digits": "digits",
    "digits-images": "digits",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "tiny-imagenet": "tiny",
}
"""Kind of each dataset known by name; folders go by the size of their images."""
SIZES = {"digits": 8, "cifar": 32, "tiny": 64}
"""Height and width of the images of a kind, where they have one."""
PUBLISHED = 32
"""Height and width of the images that most methods were published for."""

PAIRS = {
    "digits": ("cnn", "cnn_small"),
    "cifar": ("resnet32x4", "resnet8x4"),
    "tiny": ("resnet18", "mobilenetv2"),
    "imagenet": ("resnet34", "resnet18"),
}
"""Teacher and student by kind, where nobody names them."""

_SLOW = {"lr": 0.01}
"""Networks of depthwise convolutions diverge or stay behind at the rate of the others."""

TRAINING: dict[tuple[str, str], Settings] = {
    ("digits", ANY): {"epochs": 40},
    ("cifar", "mobilenetv2"): _SLOW,
    ("cifar", "shufflev1"): _SLOW,
    ("cifar", "shufflev2"): _SLOW,
    ("tiny", ANY): {"epochs": 200, "milestones": (0.3, 0.6, 0.8)},
    ("tiny", "mobilenetv2"): _SLOW,
    ("tiny", "shufflev1"): _SLOW,
    ("tiny", "shufflev2"): _SLOW,
    ("imagenet", ANY): {
        "lr": 0.1, "batch_size": 256, "epochs": 100, "milestones": (0.3, 0.6, 0.9), "weight_decay": 1e-4,
    },
}  # fmt: skip
"""By kind of data and network, for either stage; a later entry that matches beats an earlier one, option by option."""

OF_METHODS: dict[str, Settings] = {"gkdfd": {"per_class": 8}}
"""Settings of a student's training by the method that teaches it, or by that method's base."""

METHODS: dict[tuple[str, str, str, str], Settings] = {
    # No beta of DKD is published for resnet110 -> resnet20 and resnet50 -> vgg8: they have the default, 8.
    ("cifar", "resnet56", "resnet20", "dkd"): {"beta": 2.0},
    ("cifar", "resnet110", "resnet32", "dkd"): {"beta": 2.0},
    ("cifar", "vgg13", "vgg8", "dkd"): {"beta": 6.0},
    ("cifar", "vgg13", "mobilenetv2", "dkd"): {"beta": 6.0},
    ("cifar", "wrn_40_2", "wrn_16_2", "dkd"): {"beta": 6.0},
    ("cifar", "wrn_40_2", "wrn_40_1", "dkd"): {"beta": 6.0},
    ("cifar", "wrn_40_2", "wrn_16_2", "reviewkd"): {"weight": 5.0},
    ("cifar", "wrn_40_2", "wrn_40_1", "reviewkd"): {"weight": 5.0},
    ("cifar", "wrn_40_2", "shufflev1", "reviewkd"): {"weight": 5.0},
    ("cifar", "resnet32x4", "resnet8x4", "reviewkd"): {"weight": 5.0},
    ("cifar", "resnet32x4", "shufflev1", "reviewkd"): {"weight": 5.0},
    ("cifar", "resnet32x4", "shufflev2", "reviewkd"): {"weight": 8.0},
    ("cifar", "resnet56", "resnet20", "reviewkd"): {"weight": 0.6},
    ("cifar", "resnet110", "resnet32", "reviewkd"): {"weight": 1.0},
    ("cifar", "resnet50", "mobilenetv2", "reviewkd"): {"weight": 30.0},
    ("imagenet", ANY, ANY, "kd"): {"alpha": 0.5, "temperature": 1.0},
    ("imagenet", ANY, ANY, "dkd"): {"temperature": 1.0, "warmup": 1},
    ("imagenet", "resnet34", "resnet18", "dkd"): {"beta": 0.5},
    ("imagenet", "resnet50", "mobilenetv1", "dkd"): {"beta": 2.0},
    ("imagenet", ANY, ANY, "dot"): {"delta": 0.09},
    ("imagenet", "resnet34", "resnet18", "reviewkd"): {"weight": 1.0},
    ("imagenet", "resnet50", "mobilenetv1", "reviewkd"): {"weight": 8.0},
    ("imagenet", ANY, "mobilenetv1", "ofd"): {"weight": 1e-4},
}
"""By kind of data, teacher, student and method; as `TRAINING`."""

BY_PIXELS: dict[str, dict[str, float]] = {"at": {"weight": 1000.0}}
"""Options of methods as published for images of 32 x 32 pixels and more; smaller ones get their share of the pixels.

A mean over pixels of unit vectors grows as pixels get fewer.
"""

YIELDING = {"alpha": ("recipe", "ce_weight", "kd_weight")}
"""Options of a method that are not preset where the user has said one of these instead."""


def kind(dataset: str, size: int | None) -> str:
    """What a dataset's settings go by; of a folder it is the kind with networks of its size, ImageNet's by default."""
    name = dataset.lower().replace("_", "-")
    if name in KINDS:
        return KINDS[name]
    return next((kind for kind in ("cifar", "tiny") if size and family(size) is family(SIZES[kind])), "imagenet")


def training(kind: str, network: str) -> Settings:
    """Settings of a network's training."""
    return matching(TRAINING, (kind, network))


def of_method(
    kind: str, size: int | None, teacher: str, student: str, method: str, said: Mapping[str, Any]
) -> Settings:
    """Options of a method for a pair of networks and a size of images, where the user has `said` others himself."""
    table = "dkd" if (method, said.get("loss")) == ("gkd", "dkd") else method
    share = (min(size or PUBLISHED, PUBLISHED) / PUBLISHED) ** 2
    found = {name: share * value for name, value in BY_PIXELS.get(method, {}).items()}
    found |= matching(METHODS, (kind, teacher, student, table))
    return {name: value for name, value in found.items() if not any(other in said for other in YIELDING.get(name, ()))}
