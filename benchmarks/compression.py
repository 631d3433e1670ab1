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
* ``network``: a residual network, trained, and for several shares of its weights pruned, shared
  and packed: accuracies, the bytes of the whole file, and the seconds of each training.
  ``snapshot`` begins where ``pruned`` does and adjusts only what is no weight; ``rounded`` also
  has all numbers that are no weights in bfloat16. Validation chooses; ``test`` is said beside it.
"""

from __future__ import annotations

import argparse
import csv
import functools
import lzma
import os
import shlex
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tables
import torch
import zstandard
from torch import nn

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
from optuna_shape.train.data import load
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate
from optuna_shape.train.trainer import train

RESULTS = Path(__file__).parent / "results"
SPARSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
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


def coding(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
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


def product(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
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


def network(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield a row for each share and step."""
    data = load(arguments.data, root=arguments.data_root)
    shape = Shape(*sizes(arguments.shape))
    input_shape = tuple(data.train_x.shape[1:])
    space = resnet([shape.depth], [shape.width], input_shape=input_shape, classes=data.classes)
    torch.manual_seed(0)
    model = space.build(shape)
    few = -(-arguments.epochs // 2)
    slow = Recipe(learning_rate=1e-3, weight_decay=0.0, warmup=0.1)

    def row(step: str, share: float, begin: float) -> dict[str, object]:
        seconds = time.perf_counter() - begin
        accuracy = evaluate(model, data.validation_x, data.validation_y)
        whole = total(measure(model).values())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a"
            save_packed(path, model, space, shape, {"accuracy": accuracy})
            size = path.stat().st_size
        return {
            "data": data.name,
            "shape": arguments.shape,
            "share": share,
            "k": arguments.k[0],
            "step": step,
            "accuracy": f"{accuracy:.4f}",
            "test": f"{evaluate(model, data.test_x, data.test_y):.4f}",
            "seconds": f"{seconds:.1f}",
            "plain_bytes": whole.plain_bytes,
            "file_bytes": size,
            "ratio": f"{whole.plain_bytes / size:.2f}",
            "representation_bits": f"{whole.representation_bits:.0f}",
            "entropy_bits": f"{whole.entropy_bits:.0f}",
        }

    begin = time.perf_counter()
    train(model, data, epochs=arguments.epochs, seed=0)
    yield row("trained", 0.0, begin)
    trained = copied(model.state_dict())
    for share in (0.8, 0.9, 0.95):
        for step, retrain in (("snapshot", adjust_snapshot), ("pruned", retrain_pruned)):
            model.load_state_dict(trained)
            prune(model, share, scope="global")
            begin = time.perf_counter()
            retrain(model, data, epochs=few, seed=1)
            yield row(step, share, begin)
        begin = time.perf_counter()
        share_weights(model, arguments.k[0])
        yield row("shared", share, begin)
        begin = time.perf_counter()
        retrain_shared(model, data, epochs=few, seed=2, recipe=slow)
        yield row("tuned", share, begin)
        begin = time.perf_counter()
        round_others(model)
        yield row("rounded", share, begin)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, object]]]] = {
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
    parser.add_argument("--shape", default="2x16", help="depth x width of the network")
    parser.add_argument("--epochs", type=int, default=20, help="half as many to retrain")
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
        rows = []
        for row in PARTS[part](arguments):
            rows.append(row)
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        command = shlex.join(["python", *sys.argv]).replace(str(arguments.data_root), "DIR")
        tables.write_provenance(table, tables.provenance(command=command, part=part))


if __name__ == "__main__":
    main()
