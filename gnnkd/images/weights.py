"""Published checkpoints: the weights that mdistiller, RepDistiller, KTG or torchvision saved, for a network of ours.

A file of torch.save holds a state dict alone, or one called `model`, `state_dict` or `model_pram` among other things;
a .safetensors file holds one. Names may carry the prefix of a data-parallel wrapper (`module.`) or of a training
(`student.`; other networks beside it are left out). Blocks of KTG's residual networks have names of their own; such a
network is one of ours with the shortcut `a`. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.images import torch_file
from gnnkd.images.torch_file import Entry

WRAPPERS = ("model", "state_dict", "model_pram")
"""Under which a checkpoint may hold its state dict: mdistiller and RepDistiller, many, KTG."""
KTG = {"conv_a": "conv1", "bn_a": "bn1", "conv_b": "conv2", "bn_b": "bn2"}
"""Parts of a residual block by their names in KTG, with ours."""
COUNTER = "num_batches_tracked"
"""Steps that a batch norm has seen; files may lack it, and nothing here depends on it."""
_T = TypeVar("_T")


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a published checkpoint, under the names of our networks, on the CPU.

    Raises:
        UserError: no such file, another kind of file, damaged, without a state dict, or with anything to execute.
    """
    path = _file(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if not head:
            raise UserError(f"{path} is empty; fetch it again")
        # A length of eight bytes, then JSON.
        if path.suffix == ".safetensors" or head[8:] == b"{":
            return _published(_safetensors(path))
        return torch_file.load(path, lambda content: _published(_state_dict(content, path)))
    except OSError as problem:
        raise UserError(f"{path} cannot be read ({problem.strerror or problem})") from None


def fit(tensors: Mapping[str, Tensor], network: nn.Module, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict of `network` with the values of `tensors`, what `read` found in `path`.

    Counters of batch norms that the file lacks are the network's own.

    Raises:
        UserError: weights of another network, or for another number of classes; or one that is not finite.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in tensors and not name.endswith(COUNTER)]
    unknown = [name for name in tensors if name not in own]
    differ = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
    if differ and not missing and not unknown:
        _check_head([(tuple(tensors[name].shape), tuple(own[name].shape)) for name in differ], path)
    if missing or unknown or differ:
        shapes = [f"{name} {list(tensors[name].shape)} for {list(own[name].shape)}" for name in differ]
        said = {"weights missing": missing, "unknown": unknown, "of another shape": shapes}
        found = "; ".join(f"{len(names)} {what} ({_few(names)})" for what, names in said.items() if names)
        raise UserError(f"{path} is of another network: {found}; give the model and options that it was saved from")
    return {name: _value(name, tensors.get(name, mine), mine, path) for name, mine in own.items()}


def fingerprint(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        UserError: it cannot be read.
    """
    path, digest = _file(path), hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as problem:
        raise UserError(f"{path} cannot be read ({problem.strerror or problem})") from None
    return digest.hexdigest()


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the file of a checkpoint")
    if not path.exists():
        raise UserError(f"{path} does not exist; give the file of a checkpoint")
    return path


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            # Copied: in the file tensors start at any byte, and some products round by where their operands start.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as problem:
        raise UserError(f"{path} is not a readable safetensors file ({problem}); fetch it again") from None


def _state_dict(content: Any, path: Path) -> dict[str, Entry]:
    """The tensors by name in what a file holds."""
    if not isinstance(content, dict):
        kind = "tensor" if isinstance(content, Entry) else type(content).__name__
        raise UserError(f"{path} holds no state dict, but a {kind}; save the state dict alone")
    inside = next((content[word] for word in WRAPPERS if isinstance(content.get(word), dict)), content)
    odd = [name for name, value in inside.items() if not (isinstance(name, str) and isinstance(value, Entry))]
    if odd and inside is content:
        raise UserError(
            f"{path} holds no state dict under {', '.join(WRAPPERS)}, and more than tensors besides ({_few(odd)}); "
            "save the state dict alone"
        )
    if odd or not inside:
        what = f"more than tensors ({_few(odd)})" if odd else "no tensor"
        raise UserError(f"{path}: its state dict holds {what}; save the state dict of one network")
    return inside


def _published(state: Mapping[str, _T]) -> dict[str, _T]:
    """A state dict under our names: without prefixes, and of a training the student's part alone."""
    state = _without("module.", state)
    student = {name: value for name, value in state.items() if name.startswith("student.")}
    if student:
        state = _without("module.", _without("student.", student))
    return {".".join(KTG.get(part, part) for part in name.split(".")): value for name, value in state.items()}


def _without(prefix: str, state: Mapping[str, _T]) -> Mapping[str, _T]:
    if not all(name.startswith(prefix) for name in state):
        return state
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _check_head(shapes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], path: str | os.PathLike[str]) -> None:
    """Say so when only the classifier differs: its weight and its shift, in their first dimension."""
    classes = {(theirs[:1], ours[:1]) for theirs, ours in shapes}
    alike = all(theirs and ours and theirs[1:] == ours[1:] for theirs, ours in shapes)
    if len(shapes) <= 2 and len(classes) == 1 and alike:
        ((theirs, ours),) = classes
        raise UserError(
            f"{path}: the file has a head of {theirs[0]} classes, the data has {ours[0]}; "
            "give weights for these classes, or the data that they are for"
        )


def _value(name: str, value: Tensor, own: Tensor, path: str | os.PathLike[str]) -> Tensor:
    """A copy of a value from a file, of the type that the network has."""
    if value.is_floating_point() != own.is_floating_point():
        raise UserError(f"{path}: {name} is of type {value.dtype}; the network has {own.dtype}: give plain weights")
    value = value.detach().to(own.dtype, copy=True)
    if not bool(value.isfinite().all()):
        raise UserError(f"{path}: {name} is not finite; this checkpoint is of no use")
    return value


def _few(names: Sequence[object]) -> str:
    """The first three."""
    shown = [torch_file.printed(name) for name in names[:3]]
    return ", ".join([*shown, "..."] if len(names) > 3 else shown)
