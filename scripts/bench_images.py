"""Time of what surrounds a network of images: ours beside a plain loop, which varies each image by itself.

    python scripts/bench_images.py --part data --data_root ../shared/data
    python scripts/bench_images.py --part crop
    python scripts/bench_images.py --part step --teacher resnet56 --student resnet20 --threads 2

`data` is an epoch of batches of CIFAR-100, ready to be trained on; the plain loop reads them by worker processes.
`crop` is one batch cropped and mirrored in several ways. `step` is a whole training step of distillation (KD), beside
that of a plain loop with its worker processes: how many times as fast ours is, round by round. Without a data root, or
where CIFAR-100 is not in it, the images are random ones. Ratios are of times within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from image_step import VARIANTS, steps
from printed import table
from timing import medians
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gnnkd.data import images
from gnnkd.data.augment import Augment, seen, view_pixels
from gnnkd.data.cifar import SETS
from gnnkd.data.image_dataset import ImageDataset
from gnnkd.data.image_task import ImageTask, task
from gnnkd.data.store import Pixels

Row = dict[str, object]
OURS = "gnnkd"
SIDE, PADDING, CLASSES = 32, 4, 100


def sample(args: argparse.Namespace) -> ImageTask:
    """CIFAR-100 when it is there, else random images of its kind; the first `--images` of them train, the rest test."""
    published = SETS["cifar100"]
    if args.data_root and (Path(args.data_root) / published.folder).is_dir():
        data = images.load("cifar100", root=args.data_root)
    else:
        data = _random(args.images, published.mean, published.std)
    made = task(data, seed=0, val_fraction=0)
    few = made.split.train & (made.split.train.cumsum(0) <= args.images)
    print(f"{int(few.sum())} images of {data.name}")
    return replace(made, split=replace(made.split, train=few)).to(args.device)


def _random(n: int, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageDataset:
    pixels = torch.randint(256, (n + 1, 3, SIDE, SIDE), dtype=torch.uint8)
    y = torch.randint(CLASSES, (n + 1,))
    names = tuple(range(CLASSES))
    test = torch.arange(n + 1) == n
    return ImageDataset("random pixels", Pixels(pixels), y, names, protocol="public", test=test, mean=mean, std=std)


class OneByOne(Dataset[tuple[Tensor, int, int]]):
    """Each image by itself: opened by Pillow, padded with black, cut, mirrored, turned into numbers, normalised."""

    def __init__(self, data: ImageTask) -> None:
        rows = data.split.train.cpu()
        self.pixels = data.store.data.cpu()[rows].permute(0, 2, 3, 1).contiguous().numpy()
        self.y = data.y.cpu()[rows].tolist()
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, row: int) -> tuple[Tensor, int, int]:
        from PIL import Image, ImageOps

        image = ImageOps.expand(Image.fromarray(self.pixels[row]), PADDING, 0)
        left, top = random.randint(0, 2 * PADDING), random.randint(0, 2 * PADDING)
        image = image.crop((left, top, left + SIDE, top + SIDE))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (x - self.mean) / self.std, self.y[row], row


def plain_loader(data: ImageTask, args: argparse.Namespace) -> DataLoader[Any]:
    """The images one by one, put together to batches by worker processes."""
    return DataLoader(OneByOne(data), batch_size=args.batch_size, shuffle=True, num_workers=args.workers)


def data_part(args: argparse.Namespace) -> Iterator[Row]:
    """Seconds of an epoch's batches on the device, without any training."""
    data, device = sample(args), torch.device(args.device)
    loader, epoch = plain_loader(data, args), iter(range(10**6))

    def ours() -> None:
        for batch in data.epoch(next(epoch), args.batch_size):
            del batch

    def plain() -> None:
        for x, y, index in loader:
            del index
            x.to(device), y.to(device)

    times = medians({OURS: ours, f"one by one, {args.workers} workers": plain}, repeats=args.repeats, device=device)
    for way, ms in times.items():
        n = int(data.split.train.sum())
        yield {"epoch": way, "seconds": ms / 1e3, "images_per_second": 1e3 * n / ms, "ratio": ms / times[OURS]}


def crop_part(args: argparse.Namespace) -> Iterator[Row]:
    """Milliseconds of one batch cropped and mirrored; all ways give the same pixels."""
    device = torch.device(args.device)
    pixels = torch.randint(256, (args.batch_size, 3, SIDE, SIDE), dtype=torch.uint8, device=device)
    augment = Augment("shift", PADDING, True)
    view = torch.randint(augment.views, (args.batch_size,), device=device)
    table_ = view_pixels(augment, SIDE).to(device)
    ways: dict[str, Callable[[], Tensor]] = {
        OURS: lambda: seen(pixels, view, table_),
        "unfold, index, where": lambda: _unfolded(pixels, view),
        "loop over 81 offsets": lambda: _by_offset(pixels, view),
        "loop over images": lambda: _by_image(pixels, view),
        "grid_sample": lambda: _sampled(pixels, view),
    }
    expected = ways[OURS]()
    for way, work in ways.items():
        assert torch.equal(work().to(torch.uint8), expected), way
    times = medians(ways, repeats=args.repeats, device=device)
    for way, ms in times.items():
        yield {"crop and flip": way, "ms": ms, "ratio": ms / times[OURS]}


def _moves(view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Offset down, offset right and whether mirrored."""
    offset, along = view // 2, 2 * PADDING + 1
    return offset // along, offset % along, (view % 2).bool()


def _mirrored(x: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip.view(-1, 1, 1, 1), x.flip(-1), x)


def _unfolded(pixels: Tensor, view: Tensor) -> Tensor:
    down, right, flip = _moves(view)
    windows = F.pad(pixels, (PADDING,) * 4).unfold(2, SIDE, 1).unfold(3, SIDE, 1)
    return _mirrored(windows[torch.arange(len(view), device=view.device), :, down, right], flip)


def _by_offset(pixels: Tensor, view: Tensor) -> Tensor:
    down, right, flip = _moves(view)
    padded, out = F.pad(pixels, (PADDING,) * 4), torch.empty_like(pixels)
    for i in range(2 * PADDING + 1):
        for j in range(2 * PADDING + 1):
            rows = (down == i) & (right == j)
            out[rows] = padded[rows, :, i : i + SIDE, j : j + SIDE]
    return _mirrored(out, flip)


def _by_image(pixels: Tensor, view: Tensor) -> Tensor:
    down, right, flip = (part.tolist() for part in _moves(view))
    padded, out = F.pad(pixels, (PADDING,) * 4), torch.empty_like(pixels)
    for row, (i, j, mirror) in enumerate(zip(down, right, flip, strict=True)):
        cut = padded[row, :, i : i + SIDE, j : j + SIDE]
        out[row] = cut.flip(-1) if mirror else cut
    return out


def _sampled(pixels: Tensor, view: Tensor) -> Tensor:
    down, right, flip = _moves(view)
    theta = torch.zeros(len(view), 2, 3, device=view.device)
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(flip, -1.0, 1.0), 1.0
    theta[:, 0, 2], theta[:, 1, 2] = (right - PADDING) * 2 / SIDE, (down - PADDING) * 2 / SIDE
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)


def step_part(args: argparse.Namespace) -> Iterator[Row]:
    """A training step: ours, with several options, and the plain loop's."""
    sample(args)
    return steps(args)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "data": data_part,
    "crop": crop_part,
    "step": step_part,
}
"""What is measured; each yields rows of one table."""


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="data", choices=PARTS, help="what to measure")
    parser.add_argument("--images", type=int, default=15000, help="of an epoch")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="of the plain loop")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--teacher", default="resnet56", help="of --part step")
    parser.add_argument("--student", default="resnet20", help="likewise")
    parser.add_argument("--steps", type=int, default=10, help="likewise: steps of a round")
    parser.add_argument("--variants", default="gnnkd", help=f"likewise: some of {','.join(VARIANTS)}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data_root", default="", help="folder of the real images")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {args.device}, {os.cpu_count()} cores, "
        f"{args.threads} threads, batches of {args.batch_size}, median of {args.repeats}"
    )
    rows = list(PARTS[args.part](args))
    cells = [[f"{v:.3g}" if isinstance(v, float) else v for v in row.values()] for row in rows]
    print("\n" + table(list(rows[0]), cells))
    if args.json:
        args.json.write_text(json.dumps({args.part: rows}, indent=1))


if __name__ == "__main__":
    main()
