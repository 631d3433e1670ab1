"""How small do networks get, and what does it cost?

    python benchmarks/compression.py                        # about 5 minutes on one core
    python benchmarks/compression.py --parts product

The parts are

* ``coding``: bytes of a pruned and shared Gaussian matrix in each lossless format, against its
  zero-order entropy, the corrected bounds of HAM and sHAM, and zstandard and lzma on the same
  bytes; and how fast each encodes and decodes, in MB of the plain matrix per second, the fastest
  of some repeats. ``huffman`` is the smaller of ``ham`` and ``gaps``.
* ``product``: a vector, or a batch of them, times a matrix in HAM and sHAM, beside numpy's product
  with the plain matrix, the medians of repeats that take turns; and the most memory that a product
  takes besides the packed matrix.
* ``network``: a residual network, and one like VGG19 of which only the dense layers are pruned,
  since its authors' 165x is of these alone. Each is trained, and for several shares of its weights
  pruned, shared, tuned and packed: accuracies, the bytes of the whole file, and the seconds and
  epochs of each step. ``snapshot`` begins where ``pruned`` does, at the same share and for as many
  epochs, and adjusts only what is no weight; ``rounded`` also has all numbers that are no weights
  in bfloat16.

  A network that was trained too little would gain by every epoch of retraining, and hide what is
  lost by pruning. So ``longer`` is the same network trained for as many epochs as training,
  retraining and tuning together, on one schedule; what is compressed is measured against the
  better one of the two. Validation chooses; ``test`` is said beside it. Rows are written when a
  network is done, and a second run skips them. ``compression-summary.csv`` says what came of it
  over all seeds.
"""

from __future__ import annotations

import argparse
import csv
import functools
import lzma
import os
import re
import statistics
import tempfile
import time
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import tables
import torch
import zstandard
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import Shape
from optuna_shape.compress.bits import Reader
from optuna_shape.compress.coding import decode
from optuna_shape.compress.coding import encode
from optuna_shape.compress.matrices import HAM
from optuna_shape.compress.matrices import SHAM
from optuna_shape.compress.matrices import bound
from optuna_shape.compress.measures import measure
from optuna_shape.compress.measures import measure_tensor
from optuna_shape.compress.measures import total
from optuna_shape.compress.packed import PackedTensor
from optuna_shape.compress.packed import save_packed
from optuna_shape.compress.pruning import prune
from optuna_shape.compress.retraining import adjust_snapshot
from optuna_shape.compress.retraining import retrain_pruned
from optuna_shape.compress.retraining import retrain_shared
from optuna_shape.compress.search import round_others
from optuna_shape.compress.sharing import share_weights
from optuna_shape.families import resnet
from optuna_shape.train.checkpoint import copied
from optuna_shape.train.data import Data
from optuna_shape.train.data import load
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate
from optuna_shape.train.trainer import train

Row: TypeAlias = dict[str, Any]

RESULTS = Path(__file__).parent / "results"
SPARSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
# Of the weights of the residual network, and of those of the other one's dense layers.
SHARES = (0.8, 0.85, 0.9, 0.95)
DENSE_SHARES = (0.9, 0.95, 0.99)
_FORMATS: dict[str, tuple[str, ...]] = {
    "ham": ("ham",),
    "sham": ("sham",),
    "gaps": ("gaps",),
    "huffman": ("ham", "gaps"),
    "ans": ("ans",),
    "smallest": ("ham", "sham", "gaps", "ans"),
}
_PACKED = {"ham": HAM, "sham": SHAM}


def matrix(rows: int, columns: int, sparsity: float, k: int) -> torch.Tensor:
    """Return the weight of a layer: Gaussian, pruned by magnitude, shared by k-means."""
    torch.manual_seed(0)
    layer = nn.Linear(rows, columns, bias=False)
    nn.init.normal_(layer.weight)
    prune(layer, sparsity)
    share_weights(layer, k)
    return layer.weight.detach()


def fastest(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the least seconds of some calls, and what the last one returned."""
    least, result = float("inf"), None
    for _ in range(repeats):
        begin = time.perf_counter()
        result = call()
        least = min(least, time.perf_counter() - begin)
    return least, result


def coding(arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for each sparsity and format."""
    rows, columns = sizes(arguments.coding_size)
    for k in arguments.k:
        for sparsity in SPARSITIES:
            weight = matrix(rows, columns, sparsity, k)
            common = {"rows": rows, "columns": columns, "k": k, "sparsity": sparsity}
            entropy = 0.0
            for name, content, times in encodings(weight, arguments.repeats):
                packed = PackedTensor("weight", name, content)
                entropy = measure_tensor(weight, packed).entropy_bits
                zero = name == "ham" and sparsity > 0
                kind = _PACKED.get(name)
                q = int(weight.count_nonzero())
                distinct = len(weight.unique()) - (sparsity > 0) + zero
                limit = bound(kind, (rows, columns), q, distinct) if kind else None
                yield common | {
                    "format": name,
                    "bytes": len(content),
                    "share": f"{len(content) / weight.nbytes:.5f}",
                    "over_entropy": f"{8 * len(content) / entropy:.4f}",
                    "bound": "" if limit is None else f"{limit:.5f}",
                    "encode": f"{weight.nbytes / 1e6 / times[0]:.1f}",
                    "decode": f"{weight.nbytes / 1e6 / times[1]:.1f}",
                }


def encodings(
    weight: torch.Tensor, repeats: int
) -> Iterator[tuple[str, bytes, tuple[float, float]]]:
    """Yield format, bytes, and seconds of encoding and decoding, each verified."""
    plain = weight.numpy().tobytes()
    shape = tuple(weight.shape)
    for name, formats in _FORMATS.items():
        encoding, (used, content) = fastest(functools.partial(encode, weight, formats), repeats)

        def read(used: str = used, content: bytes = content) -> torch.Tensor:
            return decode(used, Reader(content), shape, torch.float32)

        decoding, result = fastest(read, repeats)
        check(result.numpy().tobytes() == plain, name)
        yield name, content, (encoding, decoding)
    general: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
        f"zstd-{level}": (
            zstandard.ZstdCompressor(level).compress,
            zstandard.ZstdDecompressor().decompress,
        )
        for level in (3, 19)
    }
    general["lzma"] = lzma.compress, lzma.decompress
    for name, (press, release) in general.items():
        encoding, content = fastest(functools.partial(press, plain), 1)
        decoding, result = fastest(functools.partial(release, content), repeats)
        check(result == plain, name)
        yield name, content, (encoding, decoding)


def check(same: bool, name: str) -> None:
    if not same:
        raise SystemExit(f"{name} did not return what it was given.")


def product(arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for each matrix, batch and format."""
    for size in arguments.product_sizes.split(","):
        rows, columns = sizes(size)
        for sparsity in (0.5, 0.9, 0.95, 0.99):
            weight = matrix(rows, columns, sparsity, 32)
            dense = np.ascontiguousarray(weight.numpy().T)
            for batch in (1, 16):
                x = np.random.default_rng(0).standard_normal((batch, rows)).astype(np.float32)
                x = x[0] if batch == 1 else x
                packed = {name: kind.encode(dense) for name, kind in _PACKED.items()}
                times = in_turns(
                    {"dense": functools.partial(np.matmul, x, dense)}
                    | {name: functools.partial(p.dot, x) for name, p in packed.items()},
                    arguments.repeats,
                )
                for name, what in packed.items():
                    check(np.allclose(what.dot(x), x @ dense, rtol=1e-3, atol=1e-2), name)
                    yield {
                        "rows": rows,
                        "columns": columns,
                        "sparsity": sparsity,
                        "batch": batch,
                        "format": name,
                        "seconds": f"{times[name]:.3g}",
                        "dense_seconds": f"{times['dense']:.3g}",
                        "ratio": f"{times[name] / times['dense']:.2f}",
                        "peak_bytes": peak(functools.partial(what.dot, x)),
                        "dense_bytes": dense.nbytes,
                    }


def in_turns(calls: dict[str, Callable[[], npt.NDArray[Any]]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each call, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(5 * repeats + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def peak(call: Callable[[], object]) -> int:
    """Return the most bytes that Python and numpy hold at once during a call."""
    tracemalloc.start()
    call()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@dataclass(frozen=True)
class Subject:
    """A network to compress.

    Attributes:
        name: What rows call it.
        space: Builds it.
        shape: Its shape.
        pruned: Returns the part of it that is pruned.
        shares: Of the weights of that part.
    """

    name: str
    space: DesignSpace
    shape: Shape
    pruned: Callable[[nn.Module], nn.Module]
    shares: Sequence[float]


def subjects(arguments: argparse.Namespace, data: Data) -> list[Subject]:
    """Return the networks that the arguments name."""
    size = tuple(data.train_x.shape[1:])
    shape = Shape(*sizes(arguments.shape))
    space = resnet([shape.depth], [shape.width], input_shape=size, classes=data.classes)
    known = [Subject("resnet", space, shape, lambda model: model, arguments.shares)]
    shape = Shape(*sizes(arguments.vgg_shape))
    build = functools.partial(vgg, input_shape=size, classes=data.classes)
    space = DesignSpace([shape.depth], [shape.width], build, input_shape=size, name="vgg")
    known.append(Subject("vgg", space, shape, _dense, arguments.dense_shares))
    return [subject for subject in known if subject.name in arguments.networks.split(",")]


def vgg(shape: Shape, input_shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """Return convolutions and three dense layers, the first two wide, as VGG19 has them.

    Args:
        shape: Depth is convolutions per stage, width the channels of the first of two stages.
            Dense layers are 64 times as wide: 4,096 where VGG19 begins with 64 channels.
        input_shape: Channels, height and width.
        classes: Number of outputs.
    """
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for stage in range(2):
        for _ in range(shape.depth):
            layers.append(nn.Conv2d(channels, shape.width << stage, 3, padding=1, bias=False))
            channels = shape.width << stage
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    wide = 64 * shape.width
    dense = [
        nn.Flatten(),
        nn.Linear(channels * (height // 4) * (width // 4), wide),
        nn.ReLU(),
        nn.Linear(wide, wide),
        nn.ReLU(),
        nn.Linear(wide, classes),
    ]
    parts = {"convolutions": nn.Sequential(*layers), "dense": nn.Sequential(*dense)}
    return nn.Sequential(OrderedDict(parts))


def _dense(model: nn.Module) -> nn.Module:
    return model.get_submodule("dense")


@dataclass(frozen=True)
class Budget:
    """Epochs: to train, to retrain what is pruned, to tune shared values."""

    train: int
    retrain: int
    tune: int

    @classmethod
    def parse(cls, text: str) -> Budget:
        return cls(*(int(epochs) for epochs in text.split("+")))

    def __str__(self) -> str:
        return f"{self.train}+{self.retrain}+{self.tune}"


class Run:
    """A network of one seed, and what becomes of it.

    Methods return the rows of their steps.
    """

    def __init__(self, subject: Subject, data: Data, budget: Budget, seed: int) -> None:
        self._subject = subject
        self._data = data
        self._budget = budget
        self._seed = seed
        self._model = subject.space.build(subject.shape)
        self._pruned: dict[float, tuple[dict[str, torch.Tensor], Row]] = {}
        self.setting: Row = {
            "data": data.name,
            "network": subject.name,
            "shape": f"{subject.shape.depth}x{subject.shape.width}",
            "budget": str(budget),
            "k": "",
            "seed": seed,
        }

    def trained(self) -> list[Row]:
        """Where all others begin."""
        weights, seconds = self._start
        self._model.load_state_dict(weights)
        return [self._row("trained", 0.0, self._budget.train, seconds)]

    def longer(self) -> list[Row]:
        """Trained from the same initial weights for as many epochs as all trainings together."""
        epochs = self._budget.train + self._budget.retrain + self._budget.tune
        return [self._row("longer", 0.0, epochs, self._train(epochs))]

    def snapshot(self, share: float) -> list[Row]:
        """Pruned; only what is no weight is adjusted."""
        return [self._retrained("snapshot", share, adjust_snapshot)]

    def pruned(self, share: float) -> list[Row]:
        """Pruned; all weights that are left are trained on."""
        if share not in self._pruned:
            row = self._retrained("pruned", share, retrain_pruned)
            self._pruned[share] = copied(self._model.state_dict()), row
        return [self._pruned[share][1]]

    def shared(self, share: float, k: int) -> list[Row]:
        """Shared, tuned and rounded after that, one after the other."""
        self.pruned(share)
        self._model.load_state_dict(self._pruned[share][0])
        begin = time.perf_counter()
        share_weights(self._model, k)
        rows = [self._row("shared", share, 0, time.perf_counter() - begin)]
        begin = time.perf_counter()
        epochs = self._budget.tune
        retrain_shared(self._model, self._data, epochs=epochs, seed=self._seed, recipe=_SLOW)
        rows.append(self._row("tuned", share, epochs, time.perf_counter() - begin))
        begin = time.perf_counter()
        round_others(self._model)
        rows.append(self._row("rounded", share, 0, time.perf_counter() - begin))
        return [row | {"k": k} for row in rows]

    @functools.cached_property
    def _start(self) -> tuple[dict[str, torch.Tensor], float]:
        """Weights after the first training, and its seconds."""
        seconds = self._train(self._budget.train)
        return copied(self._model.state_dict()), seconds

    def _train(self, epochs: int) -> float:
        """Train from the seed's initial weights; return the seconds."""
        torch.manual_seed(self._seed)
        self._model = self._subject.space.build(self._subject.shape)
        begin = time.perf_counter()
        train(self._model, self._data, epochs=epochs, seed=self._seed)
        return time.perf_counter() - begin

    def _retrained(self, step: str, share: float, retrain: Callable[..., float]) -> Row:
        weights, _ = self._start
        self._model.load_state_dict(weights)
        begin = time.perf_counter()
        prune(self._subject.pruned(self._model), share, scope="global")
        retrain(self._model, self._data, epochs=self._budget.retrain, seed=self._seed)
        return self._row(step, share, self._budget.retrain, time.perf_counter() - begin)

    def _row(self, step: str, share: float, epochs: int, seconds: float) -> Row:
        """Return a row of the network as it is."""
        data = self._data
        accuracy = evaluate(self._model, data.validation_x, data.validation_y)
        parts = measure(self._model)
        whole = total(parts.values())
        matrices = [parts[name] for name in parts if _MATRIX.fullmatch(name)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a"
            what = {"accuracy": accuracy}
            save_packed(path, self._model, self._subject.space, self._subject.shape, what)
            size = path.stat().st_size
        return self.setting | {
            "share": share,
            "step": step,
            "epochs": epochs,
            "seconds": f"{seconds:.1f}",
            "accuracy": f"{accuracy:.4f}",
            "test": f"{evaluate(self._model, data.test_x, data.test_y):.4f}",
            "plain_bytes": whole.plain_bytes,
            "file_bytes": size,
            "ratio": f"{whole.plain_bytes / size:.2f}",
            "dense_ratio": f"{total(matrices).ratio:.2f}" if matrices else "",
            "representation_bits": f"{whole.representation_bits:.0f}",
            "entropy_bits": f"{whole.entropy_bits:.0f}",
        }


# The authors' figures are of the matrices of dense layers; biases are in the whole network's.
_MATRIX = re.compile(r"dense\..*weight")
# Shared values learn slower than weights: each follows the gradients of many.
_SLOW = Recipe(learning_rate=1e-3, weight_decay=0.0, warmup=0.1)
_SETTING = ("data", "network", "shape", "budget")


def network(arguments: argparse.Namespace, known: Iterable[Row] = ()) -> Iterator[Row]:
    """Yield the rows that are not known yet: those of a training, and what follows, together."""
    done = {_key(row, row["share"], row["step"], row["k"]) for row in known}
    data = load(arguments.data, root=arguments.data_root)
    budget = Budget.parse(arguments.budget)
    for seed in arguments.seeds:
        for subject in subjects(arguments, data):
            run = Run(subject, data, budget, seed)
            # The last step of each, and what makes it.
            branches: list[tuple[float, str, int | str, Callable[[], list[Row]]]] = [
                (0.0, "trained", "", run.trained),
                (0.0, "longer", "", run.longer),
            ]
            for share in subject.shares:
                part = functools.partial
                branches.append((share, "snapshot", "", part(run.snapshot, share)))
                branches.append((share, "pruned", "", part(run.pruned, share)))
                branches += [
                    (share, "rounded", k, part(run.shared, share, k)) for k in arguments.k
                ]
            for share, step, k, branch in branches:
                if _key(run.setting, share, step, k) not in done:
                    yield from branch()


def _key(row: Row, share: object, step: str, k: object) -> tuple[str, ...]:
    values = str(k) if step in ("shared", "tuned", "rounded") else ""
    return *(str(row[name]) for name in (*_SETTING, "seed")), str(share), step, values


def summarize(rows: Iterable[Row]) -> list[Row]:
    """Return what is seen in the rows of networks, over seeds: median, least and most.

    * ``ratio, no loss``: the largest ratio of plain numbers to a file, among all steps whose
      validation accuracy is at least the baseline's; and ``dense ratio``, that of the matrices of
      dense layers alone. The baseline is the better of ``trained`` and ``longer``; where all other
      steps are below it, its own ratio is the largest.
    * ``ratio, 0.5 points``: the same where half a percentage point may be lost. Of 2,000
      validation images, the accuracy has a standard error of more than that.
    * ``ratio, no loss from the start``: the same against ``trained`` alone, the network that was
      compressed, whatever longer training would have made of it.
    * ``test accuracy``: of the step with that largest ratio, less that of what it is against.
    * ``ratio at``, ``accuracy at`` and ``test at`` a share: of ``rounded``, whatever is lost; both
      accuracies less the baseline's.
    * ``snapshot``: at equal share, its accuracy less that of ``pruned``, and its seconds as a
      share of those.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[name]) for name in (*_SETTING, "seed")), []).append(row)
    found: dict[tuple[str, ...], list[float]] = {}
    for (*setting, _), group in groups.items():
        if {"trained", "longer"} <= {row["step"] for row in group}:  # Else interrupted.
            for what, value in _seen(group):
                found.setdefault((*setting, what), []).append(value)
    summary: list[Row] = []
    for (*setting, what), values in found.items():
        target = TARGETS.get((setting[_SETTING.index("network")], what))
        middle = statistics.median(values)
        summary.append(
            dict(zip(_SETTING, setting))
            | {
                "what": what,
                "seeds": len(values),
                "median": f"{middle:.4g}",
                "least": f"{min(values):.4g}",
                "most": f"{max(values):.4g}",
                "target": target or "",
                "met": {True: "yes", False: "no"}[middle >= target] if target else "",
            }
        )
    return summary


#: What networks are to reach: the authors' figures, of which the second one is of VGG19's dense
#: layers on CIFAR-10, 99 % of them pruned and the others sharing 32, 32 and 2 values.
TARGETS = {
    (network, f"{what}, {than}"): target
    for network, what, target in (("resnet", "ratio", 18.0), ("vgg", "dense ratio", 165.0))
    for than in ("no loss", "no loss from the start")
}


def _seen(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    """Yield the figures of one seed."""

    def number(row: Row, name: str) -> float:
        return float(str(row[name]))

    first = [row for row in rows if row["step"] in ("trained", "longer")]
    baseline = max(first, key=lambda row: number(row, "accuracy"))
    yield "baseline accuracy", number(baseline, "accuracy")
    (start,) = (row for row in first if row["step"] == "trained")
    for label, reference, drop in (
        ("no loss", baseline, 0.0),
        ("0.5 points", baseline, 0.005),
        ("no loss from the start", start, 0.0),
    ):
        least = number(reference, "accuracy") - drop - 1e-9
        good = [row for row in rows if number(row, "accuracy") >= least]
        best = max(good, key=lambda row: number(row, "ratio"))
        yield f"ratio, {label}", number(best, "ratio")
        if best["dense_ratio"]:
            densest = max(good, key=lambda row: number(row, "dense_ratio"))
            yield f"dense ratio, {label}", number(densest, "dense_ratio")
        yield f"test accuracy, {label}", number(best, "test") - number(reference, "test")
    for row in rows:
        if row["step"] == "rounded":
            where = f"at {row['share']}, k={row['k']}"
            yield f"ratio {where}", number(row, "ratio")
            for name in ("accuracy", "test"):
                yield f"{name} {where}", number(row, name) - number(baseline, name)
    pruned = {str(row["share"]): row for row in rows if row["step"] == "pruned"}
    for row in rows:
        share = str(row["share"])
        if row["step"] == "snapshot" and share in pruned:
            gain = number(row, "accuracy") - number(pruned[share], "accuracy")
            yield f"snapshot, accuracy at {share}", gain
            ratio = number(row, "seconds") / number(pruned[share], "seconds")
            yield f"snapshot, seconds at {share}", ratio


PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "coding": coding,
    "product": product,
    "network": network,
}


def sizes(text: str) -> tuple[int, int]:
    rows, columns = text.split("x")
    return int(rows), int(columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--coding-size", default="4096x512", help="of the matrix that is coded")
    parser.add_argument("--k", type=int, nargs="+", default=[32], help="values of its weights")
    parser.add_argument("--product-sizes", default="4096x512,4096x4096", help="comma-separated")
    parser.add_argument("--data", default="digits", help="that the network is trained on")
    parser.add_argument("--data-root", type=Path, help="folder of torchvision's data sets")
    parser.add_argument("--networks", default="resnet,vgg", help="comma-separated")
    parser.add_argument("--shape", default="2x16", help="depth x width of the residual network")
    parser.add_argument("--vgg-shape", default="2x8", help="of the other, see vgg")
    shares = (("--shares", SHARES, "weights"), ("--dense-shares", DENSE_SHARES, "dense layers"))
    for name, default, what in shares:
        parser.add_argument(name, type=float, nargs="+", default=default, help=f"of {what} pruned")
    parser.add_argument("--budget", default="16+6+4", help="epochs to train, retrain and tune")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the networks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="said in the provenance; see below")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the tables")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != str(arguments.threads):
        raise SystemExit(
            f"numpy counts its threads at the start: OMP_NUM_THREADS={arguments.threads}."
        )
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts.split(","):
        table = arguments.out / f"compression-{part}.csv"
        tables.write_provenance(table, tables.provenance(part=part))
        if part == "network":
            write(table, network(arguments, read(table)))
            summary = table.with_name("compression-summary.csv")
            summary.unlink(missing_ok=True)
            write(summary, summarize(read(table)))
        else:  # Times are to be of one run.
            table.unlink(missing_ok=True)
            write(table, PARTS[part](arguments))


def read(path: Path) -> list[Row]:
    """Read a table; an absent one is empty."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Iterable[Row]) -> None:
    """Add rows to a table, each as it comes: an interruption loses nothing that is there."""
    for row in rows:
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
