"""Published checkpoints: what is read is what was saved, what does not fit is said, and nothing in a file runs."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.images import weights
from gnnkd.images.weights import fingerprint, fit, read
from gnnkd.nn.images import SMALL
from gnnkd.train import checkpoint

FORMATS = [
    pytest.param({}, id="zip"),
    pytest.param({"pickle_protocol": 4}, id="zip-4"),
    pytest.param({"_use_new_zipfile_serialization": False}, id="legacy"),
    pytest.param({"_use_new_zipfile_serialization": False, "pickle_protocol": 4}, id="legacy-4"),
]
"""How torch writes and wrote files; KTG asks for protocol 4."""
formats = pytest.mark.parametrize("form", FORMATS)


def network(name: str = "resnet8", n_classes: int = 7, seed: int = 0, channels: int = 3, **options: Any) -> nn.Module:
    """A network whose batch norms have seen something."""
    torch.manual_seed(seed)
    made = SMALL[name](channels, n_classes, **options)
    with torch.no_grad():
        made(torch.rand(4, channels, 8, 8))
    return made.eval()


def saved(path: Path, content: Any, form: dict[str, Any] | None = None) -> Path:
    torch.save(content, path, **(form or {}))
    return path


def same(found: dict[str, Tensor], want: dict[str, Tensor]) -> bool:
    return found.keys() == want.keys() and all(
        found[name].dtype == want[name].dtype and torch.equal(found[name], want[name]) for name in want
    )


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- what is read ------------------------------------------------------------------------------------------------


def _optimizer() -> dict[str, Any]:
    return {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "nesterov": None}]}


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": dict,
    "mdistiller": lambda sd: {"epoch": 240, "model": sd, "optimizer": _optimizer(), "best_acc": torch.tensor(72.3)},
    "state_dict": lambda sd: {"state_dict": sd, "arch": "resnet", "best_acc1": 1.5},
    "ktg": lambda sd: {"epoch": 200, "arch": "CifarResNet", "model_pram": sd},
    "parallel": lambda sd: {"state_dict": {f"module.{name}": t for name, t in sd.items()}},
    "training": lambda sd: {"model": {f"module.student.{name}": t for name, t in sd.items()}},
    "pair": lambda sd: {
        "model": {f"module.{part}.{name}": t + (part != "student") for part in ("teacher", "student", "connector")
                  for name, t in sd.items()}
    },
    "student": lambda sd: {f"student.{name}": t for name, t in sd.items()},
    "student of parallels": lambda sd: {f"student.module.{name}": t for name, t in sd.items()},
    "parameters": lambda sd: OrderedDict((n, nn.Parameter(t) if t.is_floating_point() else t) for n, t in sd.items()),
}  # fmt: skip


@formats
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_the_state_dict_is_read_from_any_wrapper(tmp_path: Path, wrapped: str, form: dict[str, Any]) -> None:
    state = network().state_dict()
    file = saved(tmp_path / "file.pth", WRAPPED[wrapped](state), form)
    assert same(read(file), state)
    other = network(seed=1)
    other.load_state_dict(fit(read(file), other, file), strict=True)
    assert same(other.state_dict(), state)


@formats
def test_any_tensor_is_read_as_torch_reads_it(tmp_path: Path, form: dict[str, Any]) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    kinds = ("bfloat16", "bool", "uint8", "int8", "float64", "float16", "int32", "int64", "int16")
    tensors = {kind: torch.tensor([0, 1, 5]).to(getattr(torch, kind)) for kind in kinds} | {
        "whole": whole,
        "part": whole[1:3, 2:],
        "turned": whole.t(),
        "repeated": torch.ones(1).expand(5),
        "number": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
    }
    file = saved(tmp_path / "file.pt", tensors, form)
    assert same(read(file), tensors)
    if form.get("pickle_protocol") != 4:
        assert same(read(file), torch.load(file, weights_only=True))


def test_safetensors_are_read_by_suffix_and_by_content(tmp_path: Path) -> None:
    state = network().state_dict()
    for name in ("file.safetensors", "file.bin"):
        checkpoint.save(tmp_path / name, {f"module.{key}": t for key, t in state.items()})
        assert same(read(tmp_path / name), state)


def test_missing_counters_are_the_networks_own(tmp_path: Path) -> None:
    state = network().state_dict()
    old = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    other = network(seed=1)
    fitted = fit(read(saved(tmp_path / "old.pth", old)), other, "old.pth")
    assert fitted.keys() == state.keys()
    assert same({name: fitted[name] for name in old}, old)
    other.load_state_dict(fitted, strict=True)


@formats
def test_the_flags_of_a_training_are_passed_over(tmp_path: Path, form: dict[str, Any]) -> None:
    """RepDistiller's `*_last.pth`."""
    state = network().state_dict()
    flags = argparse.Namespace(
        lr=0.05, lr_decay_epochs=[150, 180, 210], trial="0", cosine=False, inner=argparse.Namespace()
    )
    file = saved(tmp_path / "resnet8_last.pth", {"opt": flags, "model": state, "optimizer": _optimizer()}, form)
    assert same(read(file), state)


@formats
def test_a_file_of_ktg_makes_the_same_logits(tmp_path: Path, form: dict[str, Any]) -> None:
    first, second = (network("resnet20", seed=seed, shortcut="a") for seed in (0, 1))
    renamed = {}
    for name, tensor in first.state_dict().items():
        for ktg, ours in weights.KTG.items():
            if name.startswith("layer"):
                name = name.replace(f".{ours}.", f".{ktg}.")
        renamed[name] = tensor
    assert "layer1.0.conv_a.weight" in renamed
    assert "layer3.2.bn_b.running_var" in renamed
    assert "conv1.weight" in renamed
    file = saved(tmp_path / "best_checkpoint.pkl", {"epoch": 3, "arch": "CifarResNet", "model_pram": renamed}, form)
    x = torch.rand(2, 3, 32, 32)
    assert not torch.equal(first(x).logits, second(x).logits)
    second.load_state_dict(fit(read(file), second, file), strict=True)
    assert torch.equal(first(x).logits, second(x).logits)


def test_half_precision_becomes_the_networks_own(tmp_path: Path) -> None:
    own = network()
    state = {name: t.half() if t.is_floating_point() else t for name, t in own.state_dict().items()}
    fitted = fit(read(saved(tmp_path / "half.pth", state)), own, "half.pth")
    assert {t.dtype for t in fitted.values()} == {torch.float32, torch.int64}
    assert torch.equal(fitted["fc.weight"], state["fc.weight"].float())


def test_what_is_fitted_shares_no_memory() -> None:
    own = network()
    state = {name: t.clone() for name, t in own.state_dict().items()}
    fitted = fit(state, own, "file")
    for tensor in fitted.values():
        tensor.zero_()
    assert all(float(t["fc.weight"].abs().sum()) > 0 for t in (state, own.state_dict()))


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    """The numbers of an optimizer may even be broken."""
    training = {"model": {"weight": torch.ones(2)}, "optimizer": {"buffer": torch.full((9,), 7.0)}}
    file = saved(tmp_path / "file.pth", training)
    content = file.read_bytes()
    numbers = torch.full((9,), 7.0).numpy().tobytes()
    assert content.count(numbers) == 1
    file.write_bytes(content.replace(numbers, bytes(len(numbers))))
    assert same(read(file), {"weight": torch.ones(2)})


# -- nothing runs ------------------------------------------------------------------------------------------------


class Trap:
    """An object whose unpickling calls something."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


TRAPS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "system": (lambda file: Trap(os.system, f"touch {file}"), f"{os.system.__module__}.system"),
    "open": (lambda file: Trap(open, str(file), "w"), "io.open|_io.open|builtins.open|__builtin__.open"),
    "eval": (lambda file: Trap(eval, f"open({str(file)!r}, 'w')"), "builtins.eval|__builtin__.eval"),
    "method": (lambda file: Trap(Path.touch, file), "pathlib|builtins.getattr|__builtin__.getattr"),
    "getattr": (lambda _: Trap(getattr, OrderedDict, "fromkeys"), "builtins.getattr|__builtin__.getattr"),
}
"""What is put into a file, and what the error names, or one of these."""
PLACES: dict[str, Callable[[Any, dict[str, Tensor]], Any]] = {
    "alone": lambda trap, _: trap,
    "beside": lambda trap, sd: {"model": sd, "opt": trap},
    "inside": lambda trap, sd: {"model": sd | {"fc.weight": trap}},
    "as key": lambda trap, sd: {"model": sd, "others": [(1, {"a": trap})]},
    "in flags": lambda trap, sd: {"model": sd, "opt": argparse.Namespace(trap=trap)},
}


@formats
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("trap", TRAPS)
def test_no_code_in_a_file_runs(tmp_path: Path, trap: str, place: str, form: dict[str, Any]) -> None:
    made, names = TRAPS[trap]
    witness = tmp_path / "witness"
    file = saved(tmp_path / "evil.pth", PLACES[place](made(witness), {"fc.weight": torch.ones(2)}), form)
    message = refused(lambda: read(file))
    assert any(name in message for name in names.split("|")), message
    assert "executed" in message
    assert not witness.exists()


def test_the_traps_are_live(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    file = saved(tmp_path / "evil.pth", TRAPS["eval"][0](witness))
    # Run on purpose: a trap that does nothing would prove nothing above. It opens a file in the test's own folder.
    torch.load(file, weights_only=False).close()
    assert witness.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_no_code_in_a_plain_pickle_runs(tmp_path: Path, protocol: int) -> None:
    witness, file = tmp_path / "witness", tmp_path / "evil.pth"
    file.write_bytes(pickle.dumps(Trap(os.system, f"touch {witness}"), protocol=protocol))
    refused(lambda: read(file))
    assert not witness.exists()


def test_a_name_that_is_asked_for_is_said_on_one_line(tmp_path: Path) -> None:
    name = b"\x1b[31mred\nsecond line"
    file = tmp_path / "evil.pth"
    file.write_bytes(b"\x80\x04\x8c\x05posix\x8c" + bytes([len(name)]) + name + b"\x93.")
    message = refused(lambda: read(file))
    assert "posix. [31mred second line" in message


@formats
def test_a_whole_module_is_refused_by_name(tmp_path: Path, form: dict[str, Any]) -> None:
    message = refused(lambda: read(saved(tmp_path / "whole.pth", nn.Linear(2, 2), form)))
    assert "torch.nn.modules.linear.Linear" in message
    assert "save the state dict alone" in message


def test_what_a_file_is_given_cannot_be_changed_by_it(tmp_path: Path) -> None:
    """A pickle may put attributes on any object that it holds; the next reading gets new ones."""
    given = (
        "argparse\nNamespace",
        "collections\nOrderedDict",
        "torch._utils\n_rebuild_tensor_v2",
        "torch\nFloatStorage",
    )
    for name in given:
        # The name, None, {"marked": 1}; the last two as its new attributes.
        program = b"\x80\x02c" + name.encode() + b"\nN}X\x06\x00\x00\x00markedK\x01s\x86b."
        file = tmp_path / "evil.pth"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", program)
        refused(lambda: read(file))  # noqa: B023
    assert not any(hasattr(kind, "marked") for kind in (argparse.Namespace, OrderedDict, torch.float32))
    assert not hasattr(torch._utils._rebuild_tensor_v2, "marked")


# -- what is refused ---------------------------------------------------------------------------------------------


@formats
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_short(tmp_path: Path, share: float, form: dict[str, Any]) -> None:
    file = saved(tmp_path / "cut.pth", {"model": network().state_dict()}, form)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    assert "damaged or cut short" in refused(lambda: read(file))


def test_a_changed_byte_of_an_archive_is_noticed(tmp_path: Path) -> None:
    file = saved(tmp_path / "bent.pth", {"weight": torch.full((9,), 7.0)})
    file.write_bytes(file.read_bytes().replace(torch.full((9,), 7.0).numpy().tobytes(), bytes(36)))
    assert "damaged" in refused(lambda: read(file))


def test_damage_anywhere_is_an_error_of_one_line_or_harmless(tmp_path: Path) -> None:
    state = {"weight": torch.arange(6.0), "bias": torch.ones(2)}
    rng, file = np.random.default_rng(0), tmp_path / "bent.pth"
    for form in ({}, {"_use_new_zipfile_serialization": False}):
        content = saved(file, state, form).read_bytes()
        for _ in range(100):
            bent = bytearray(content)
            bent[rng.integers(len(bent))] = rng.integers(256)
            file.write_bytes(bent)
            try:
                read(file)
            except UserError as mistake:
                assert "\n" not in str(mistake)  # noqa: PT017


def test_other_files_are_refused(tmp_path: Path) -> None:
    cases: dict[str, tuple[bytes, str]] = {
        "text.pth": (b"epoch,acc\n1,20.5\n", "not a checkpoint"),
        "empty.pth": (b"", "is empty"),
        "page.pth": (b"<!DOCTYPE html><html>Not found</html>", "not a checkpoint"),
        "text.safetensors": (b"not a file of tensors", "not a readable safetensors file"),
        "plain.pth": (pickle.dumps({"weight": 1}, protocol=2), "no checkpoint"),
        "numbers.pth": (pickle.dumps([1, 2]) + pickle.dumps(3), "no checkpoint"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        message = refused(lambda: read(tmp_path / name))  # noqa: B023
        assert said in message
        assert name in message
    np.savez(tmp_path / "arrays.npz", weight=np.ones(3))
    assert "no checkpoint" in refused(lambda: read(tmp_path / "arrays.npz"))
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        buffer = io.BytesIO()
        torch.save({"weight": torch.zeros(9)}, buffer)
        with zipfile.ZipFile(buffer) as archive:
            for name in archive.namelist():
                packed.writestr(name, archive.read(name))
    assert "compressed" in refused(lambda: read(tmp_path / "packed.pth"))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for call in (read, fingerprint):
        assert "does not exist" in refused(lambda: call(tmp_path / "none.pth"))  # noqa: B023
        assert "is a folder" in refused(lambda: call(tmp_path))  # noqa: B023


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.ones(3), "no state dict, but a tensor"),
        ([torch.ones(3)], "no state dict, but a list"),
        ({"net": {"weight": torch.ones(3)}, "epoch": 3}, "(net, epoch)"),
        ({"model": {}}, "no tensor"),
        ({}, "no tensor"),
        ({"model": {"weight": torch.ones(3), "depth": 20}}, "more than tensors (depth)"),
        ({"model": {1: torch.ones(3)}}, "more than tensors (1)"),
        ({"model": {"a\nb": 1}}, "(a b)"),
    ],
)
def test_a_file_without_state_dict(tmp_path: Path, content: Any, said: str) -> None:
    assert said in refused(lambda: read(saved(tmp_path / "odd.pth", content)))


def test_a_forged_view_reads_nothing_outside_its_storage(tmp_path: Path) -> None:
    buffer, file = io.BytesIO(), tmp_path / "forged.pth"
    torch.save({"weight": torch.arange(200.0)[100:150]}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    program = parts["archive/data.pkl"]
    true = b"K\x64K\x32\x85"
    assert program.count(true) == 1, "offset 100 and size (50,)"
    for forged, good in ((true, 1), (b"K\x96K\x32\x85", 1), (b"K\x97K\x32\x85", 0), (b"K\x00K\xc9\x85", 0)):
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content if name != "archive/data.pkl" else program.replace(true, forged))
        if good:
            assert read(file)["weight"][0] == forged[1]
        else:
            assert "damaged" in refused(lambda: read(file))


# -- what does not fit -------------------------------------------------------------------------------------------


def test_another_architecture_says_how_it_differs(tmp_path: Path) -> None:
    own = network("resnet20")
    file = saved(tmp_path / "wrn.pth", {"model": network("wrn_16_1").state_dict()})
    message = refused(lambda: fit(read(file), own, file))
    theirs, ours = read(file), own.state_dict()
    missing = [n for n in ours if n not in theirs and not n.endswith("num_batches_tracked")]
    unknown = [n for n in theirs if n not in ours]
    assert f"{len(missing)} weights missing ({', '.join(missing[:3])}, ...)" in message
    assert f"{len(unknown)} unknown ({', '.join(unknown[:3])}, ...)" in message
    assert "bn1.weight [64] for [16]" in message
    assert "wrn.pth" in message


def test_another_depth_and_another_width(tmp_path: Path) -> None:
    own = network("resnet8")
    deep = refused(lambda: fit(network("resnet14").state_dict(), own, "deep.pth"))
    assert "36 unknown (layer1.1.conv1.weight, layer1.1.bn1.weight, layer1.1.bn1.bias, ...)" in deep
    assert "missing" not in deep
    wide = refused(lambda: fit(network("wrn_16_2").state_dict(), network("wrn_16_1"), "wide.pth"))
    assert "1 unknown (block1.layer.0.convShortcut.weight)" in wide
    assert "block1.layer.0.conv1.weight [32, 16, 3, 3] for [16, 16, 3, 3]" in wide
    assert "of another shape" in refused(lambda: fit(own.state_dict(), network("resnet8", channels=1), "colour.pth"))


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"resnet110", "resnet50", "vgg19", "resnet32x4"}))
def test_another_number_of_classes_is_named(name: str) -> None:
    with torch.device("meta"):
        own, published = SMALL[name](3, 10), SMALL[name](3, 100)
    message = refused(lambda: fit(published.state_dict(), own, "file.pth"))
    assert "the file has a head of 100 classes, the data has 10" in message


def test_values_that_are_no_weights() -> None:
    own = network()
    state = dict(own.state_dict())
    broken = state | {"layer1.0.conv1.weight": torch.full_like(state["layer1.0.conv1.weight"], float("nan"))}
    assert "layer1.0.conv1.weight is not finite" in refused(lambda: fit(broken, own, "file"))
    whole = state | {"fc.bias": torch.ones(7, dtype=torch.int8)}
    assert "fc.bias is of type torch.int8" in refused(lambda: fit(whole, own, "file"))


def test_the_fingerprint_is_that_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    content = bytes(range(256)) * 9000
    file.write_bytes(content)
    assert fingerprint(file) == hashlib.sha256(content).hexdigest()
