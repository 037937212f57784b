"""The file that a node starts from: a network that a run left, or of images a published checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import nn

from gnnkd.data.image_task import ImageTask
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.images import predictor as images
from gnnkd.images import weights as published
from gnnkd.images.finished import is_own
from gnnkd.options import plain
from gnnkd.places import read_json
from gnnkd.predictor import network_in
from gnnkd.train import checkpoint

SEED = "{seed}"
"""What stands for the seed in the name of a file."""


@final
@dataclass(frozen=True)
class Weights:
    """A file of weights.

    Args:
        file: where it is.
        meta: what it says of itself; None of a published checkpoint.
        config: of the run that left it, None where it does not lie in its folder.
        where: the node, for errors.
        said: what the node calls it, with `{seed}` where one stands in it.
    """

    file: Path
    meta: Mapping[str, Any] | None
    config: Mapping[str, Any] | None
    where: str
    said: str

    @staticmethod
    def of(said: str, seed: int, node: int) -> Weights:
        """The file that a node names; the folder of a run stands for the network in it, of a graph for node 0's.

        Raises:
            UserError: it is not there, or holds no network.
        """
        where, path = f"node {node}", Path(said.replace(SEED, str(seed)))
        file = network_in(path)
        if not file.is_file():
            raise UserError(f"{where}: its weights {file} do not exist; train them, or leave weights out")
        if not is_own(file):
            return Weights(file, None, None, where, said)
        meta = checkpoint.load(file)[1]
        if "model" not in meta or "own" in meta:
            raise UserError(f"{where}: {file} holds no network of gnnkd's own; give the model.safetensors of a run")
        beside = file.parent / "config.json"
        return Weights(file, meta, read_json(beside) if beside.exists() else None, where, said)

    def options_for(self, model: str, said: Mapping[str, Any]) -> dict[str, Any]:
        """Options of the network in the file, which must be a `model` and may not contradict those that are `said`.

        Raises:
            UserError: it is another network.
        """
        if self.meta is None:
            return {}
        if self.meta["model"] != model:
            raise UserError(
                f"its weights {self.file} are of the network {self.meta['model']}, and the node is a {model}; "
                "give weights of the same network"
            )
        stored = dict(self.meta["options"])
        for name, value in plain(said).items():
            if stored.get(name, value) != value:
                raise UserError(
                    f"{name} is {value!r}, and {stored[name]!r} in its weights {self.file}; leave it out, or give "
                    "other weights"
                )
        return stored

    def fill(self, network: nn.Module, task: NodeTask | ImageTask) -> None:
        """Give `network` the weights, on the device that it is on.

        Raises:
            UserError: they are of another network, or of other data than the task's.
        """
        try:
            if self.meta is None:
                self._fill_published(network, task)
                return
            self._check_data(task)
            network.load_state_dict(checkpoint.load(self.file)[0])
        except RuntimeError:
            raise UserError(f"{self.where}: {self.file} holds other tensors than it says; train it again") from None

    def _fill_published(self, network: nn.Module, task: NodeTask | ImageTask) -> None:
        if isinstance(task, NodeTask):
            raise UserError(f"{self.where}: {self.file} was not written by gnnkd; give the model.safetensors of a run")
        try:
            network.load_state_dict(published.fit(published.read(self.file), network, self.file))
        except UserError as mistake:
            raise UserError(f"{self.where}: {mistake}") from None

    def _check_data(self, task: NodeTask | ImageTask) -> None:
        assert self.meta is not None
        for name, wanted in _about(task).items():
            if self.meta.get(name) != wanted:
                raise UserError(
                    f"{self.where}: {self.file} is of other data: its {name} is {_short(self.meta.get(name))}, and "
                    f"{_short(wanted)} here; give weights that were trained on this data"
                )

    def check_split(self, task: NodeTask | ImageTask) -> None:
        """Refuse weights of a run that may have seen what validates or tests here.

        Raises:
            UserError: they were trained on other data, or another split of it, or on its validation rows, too.
        """
        if self.config is None:
            return
        if self.config.get("retrain"):
            raise UserError(
                f"{self.where}: {self.file} was trained on validation rows, too, and they would choose its best epoch "
                "here; give weights of another run"
            )
        if (self.config.get("fingerprint"), self.config.get("content")) != (task.fingerprint, task.content):
            raise UserError(
                f"{self.where}: {self.file} was trained on other data or another split than that of seed {task.seed}; "
                f"give weights of this seed ('{SEED}' in the path stands for it), or a copy of the file alone"
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of a file that does not say what it was trained on."""
        return (f"{self.file} may have been trained on what validates or tests here",) if self.config is None else ()

    def described(self) -> dict[str, Any]:
        """What determines them: the run that left them, or their content."""
        if self.config is None:
            digest = published.fingerprint(self.file)
            # A file for each seed: seeds of one configuration differ in what is named seed, and in that alone.
            return {"file": self.said, "sha256": {"seed": digest}} if SEED in self.said else {"sha256": digest}
        return {"file": self.file.name, "run": dict(self.config)}


def _about(task: NodeTask | ImageTask) -> dict[str, Any]:
    """What a file says of its data, as it would say it of the task's."""
    found: dict[str, Any] = {"kind": None, "classes": list(task.classes)}
    if isinstance(task, NodeTask):
        return found | {"n_features": task.n_features, "features": task.features}
    return found | {"kind": images.KIND, "size": task.size, "in_channels": task.in_channels}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
