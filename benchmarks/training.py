"""What bounds a training: arithmetic, data, or Python?

    python benchmarks/training.py --data-root DIR    # about a minute on one core
    python benchmarks/training.py --device cuda --data cifar10 --shapes 3x16 --batch-size 512

Trains each shape under PyTorch's profiler, and sorts the time of one epoch by what it went into:

* ``convolution``, ``linear``, ``normalization`` and ``other operations``: forward and backward;
* ``optimizer``: its step, Python included;
* ``data``: picking the images of a batch, and varying them;
* ``python``: all that lies between operations; the profiler's own work makes it larger.

On a GPU operations only queue kernels, so one more row says for how much of the time the device
was busy: where that is well below all of it, Python and launches bound the training, and larger
batches help.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tables
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.profiler import profile
from torch.profiler import record_function

from optuna_shape import Shape
from optuna_shape.families import FAMILIES
from optuna_shape.train.data import Data
from optuna_shape.train.data import load
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import train

RESULTS = Path(__file__).parent / "results"
_COLUMNS = ("data", "family", "shape", "device", "batch_size", "part", "seconds", "share")
# The first that is part of an operation's name, in small letters. Indexing picks a batch.
_KINDS = {
    "data": "data",
    "optimizer.step": "optimizer",
    "aten::index": "data",
    "conv": "convolution",
    "norm": "normalization",
    "linear": "linear",
    "aten::mm": "linear",
    "aten::addmm": "linear",
}


def sort_time(roots: list[Any]) -> dict[str, float]:
    """Return seconds by part, of profiled events that have ``name``, times and children."""
    result: dict[str, float] = defaultdict(float)

    def visit(event: Any) -> None:
        kind = next((kind for key, kind in _KINDS.items() if key in event.name.lower()), None)
        # A backward node and the function around it are named after what they differentiate.
        if kind is not None and not event.name.startswith("autograd::engine"):
            result[kind] += event.cpu_time_total / 1e6
            return
        own = event.name.startswith(("aten::", "autograd::")) or "Backward" in event.name
        result["other operations" if own else "python"] += event.self_cpu_time_total / 1e6
        for child in event.cpu_children:
            visit(child)

    for root in roots:
        visit(root)
    return dict(result)


def profile_training(
    family: str, shape: Shape, data: Data, device: str, recipe: Recipe
) -> Iterator[tuple[str, float]]:
    """Yield the parts of one epoch and their seconds, after an epoch that is not looked at."""
    classes, size = data.classes, tuple(data.train_x.shape[1:])
    space = FAMILIES[family]([shape.depth], [shape.width], input_shape=size, classes=classes)
    torch.manual_seed(0)
    model = space.build(shape)
    augment = data.augment
    if augment is not None:

        def varied(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            with record_function("data"):
                return augment(images, generator)

        data = dataclasses.replace(data, augment=varied)
    train(model, data, epochs=1, seed=0, device=device, recipe=recipe)
    on_cuda = torch.device(device).type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_cuda
    with profile(activities=activities) as profiler, record_function("training"):
        train(model, data, epochs=1, seed=0, device=device, recipe=recipe)
        if on_cuda:
            torch.cuda.synchronize()
    # On a GPU, backward runs in a thread of its own while this one waits, and has its own roots.
    on_cpu = [e for e in profiler.events() if e.device_type == DeviceType.CPU]
    (root,) = (event for event in on_cpu if event.name == "training")
    others = [e for e in on_cpu if e.cpu_parent is None and e is not root]
    parts = sort_time([root, *others])
    parts["python"] -= sum(event.cpu_time_total for event in others) / 1e6
    yield from parts.items()
    if on_cuda:
        kernels = [e for e in profiler.events() if e.device_type == DeviceType.CUDA]
        busy = sum(e.self_device_time_total for e in kernels if not e.is_user_annotation)
        yield "device busy", busy / 1e6
    begin = time.perf_counter()
    train(model, data, epochs=1, seed=0, device=device, recipe=recipe)
    yield "without profiler", time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="digits,fashion-mnist", help="comma-separated")
    parser.add_argument("--data-root", type=Path, help="folder of torchvision's data sets")
    parser.add_argument("--family", default="resnet", choices=sorted(FAMILIES))
    parser.add_argument("--shapes", default="1x8,2x8,2x24,6x16", help="comma-separated")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "training.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = Recipe(batch_size=arguments.batch_size)
    rows: list[dict[str, object]] = []
    for name in arguments.data.split(","):
        data = load(name, root=arguments.data_root)
        for text in arguments.shapes.split(","):
            depth, width = text.split("x")
            shape = Shape(int(depth), int(width))
            parts = dict(profile_training(arguments.family, shape, data, arguments.device, recipe))
            aside = {
                key: parts.pop(key) for key in ("device busy", "without profiler") if key in parts
            }
            total = sum(parts.values())
            ordered = dict(sorted(parts.items(), key=lambda part: -part[1]))
            print(f"{name} {arguments.family} {text}: {total:.2f} s")
            for part, seconds in {**ordered, **aside}.items():
                print(f"  {part:18} {seconds:7.3f} s  {seconds / total:6.1%}", flush=True)
                common = (name, arguments.family, text, arguments.device, recipe.batch_size)
                values = (*common, part, f"{seconds:.4g}", f"{seconds / total:.4f}")
                rows.append(dict(zip(_COLUMNS, values)))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    tables.write_provenance(arguments.out, tables.provenance(threads=arguments.threads))


if __name__ == "__main__":
    main()
