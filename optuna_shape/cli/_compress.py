"""``optuna-shape compress``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from optuna_shape.cli._checkpoints import LoadedNetwork
from optuna_shape.cli._checkpoints import find_checkpoint
from optuna_shape.cli._checkpoints import load_network
from optuna_shape.cli._checkpoints import own_family
from optuna_shape.cli._common import EXIT_NOT_VERIFIED
from optuna_shape.cli._common import make_console
from optuna_shape.cli._common import make_room
from optuna_shape.cli._common import say
from optuna_shape.cli._common import say_json
from optuna_shape.cli._common import writing
from optuna_shape.cli._declared import IMAGES
from optuna_shape.cli._declared import AsJson
from optuna_shape.cli._declared import Checkpoint
from optuna_shape.cli._declared import DataRoot
from optuna_shape.cli._declared import Device
from optuna_shape.cli._declared import FamilyOption
from optuna_shape.cli._declared import Folder
from optuna_shape.cli._declared import OwnFunction
from optuna_shape.cli._declared import Quiet
from optuna_shape.cli._declared import Seed
from optuna_shape.cli._declared import Threads
from optuna_shape.cli._studies import OUTPUT
from optuna_shape.compress.coding import as_columns
from optuna_shape.compress.measures import Bits
from optuna_shape.compress.measures import measure_tensor
from optuna_shape.compress.measures import total
from optuna_shape.compress.packed import SUFFIX
from optuna_shape.compress.packed import load_packed
from optuna_shape.compress.packed import save_packed
from optuna_shape.compress.search import Compression
from optuna_shape.compress.search import Point
from optuna_shape.compress.search import compress as search
from optuna_shape.compress.search import curve
from optuna_shape.compress.weights import weights_of
from optuna_shape.constraints import format_quantity
from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import InvalidProblem
from optuna_shape.measure import DeviceMeter
from optuna_shape.report.compression import Layer
from optuna_shape.report.compression import record
from optuna_shape.report.compression import write_curve
from optuna_shape.report.compression import write_layers
from optuna_shape.train.data import Data
from optuna_shape.train.data import load
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate

_CURVE = "-curve"
_LAYERS = "-layers"
_CAPTION = (
    "kept: numbers that are not zero; bits: packed bits per number; bound: their zero-order "
    "entropy; over: bits by bound; repr: representation bits per number"
)
# Accuracies of one network that differ by no more may come of rounding, or of repeats.
_NEAR = 0.02


def compress(
    checkpoint: Checkpoint = Path(OUTPUT),
    accuracy_drop: Annotated[
        str,
        typer.Option(
            metavar="PERCENT", help="Drop of validation accuracy that is allowed, in points."
        ),
    ] = "0.2%",
    data: Annotated[
        str | None,
        typer.Option(
            help="The images that the network was trained on, as the search was told: "
            f"{IMAGES}. No checkpoint tells them.",
            show_default=False,
        ),
    ] = None,
    data_root: DataRoot = None,
    trials: Annotated[int, typer.Option(min=1, help="How many settings to try.")] = 20,
    epochs: Annotated[
        int,
        typer.Option(min=1, help="Epochs to retrain for after pruning, and again after sharing."),
    ] = 5,
    device: Device = "auto",
    threads: Threads = 1,
    seed: Seed = 0,
    family: OwnFunction = None,
    family_option: FamilyOption = None,
    output: Folder = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compress a trained network: the fewest bits within a drop of validation accuracy.

    Tries how far weights can be pruned and how few values they can share, retraining each time.
    The file becomes smaller, and nothing else: latency and energy stay as they are. Pruning layer
    by layer, values that layers have in common, and adjusting a snapshot are for your own code
    (optuna_shape.compress).
    Writes NAME.packed, what each tensor takes as NAME-layers.csv, and all that was tried as
    NAME-curve.csv and NAME-curve.html.
    """
    console, last = make_console(quiet=quiet or as_json), make_console(quiet=as_json)
    drop = _fraction(accuracy_drop)
    where = DeviceMeter(device=device).setting.device
    torch.set_num_threads(threads)
    source = find_checkpoint(checkpoint)
    if data is None:
        raise InvalidProblem(
            "No checkpoint tells which images its network was trained on. Name them by "
            "--data, as the search was told: digits, say, which is its default."
        )
    target = (output or source.parent) / source.name
    with console.status("Loading the data ..."):
        images = load(data, root=data_root)
    shape = tuple(images.train_x.shape[1:])
    own = own_family(family, family_option or (), shape, images.classes)
    network = load_network(source, own, where)
    _check_fits(network, images)
    recipe = _recipe(network, source)
    make_room(*_files(target))  # Before minutes of training, not after.

    def report(point: Point) -> None:
        say(console, _told(point), *_doubts(point, network, images))

    torch.manual_seed(seed)  # Some layers draw from it.
    with console.status("Compressing the network ..."):
        found = search(
            network.model,
            images,
            drop=drop,
            trials=trials,
            epochs=epochs,
            seed=seed,
            device=where,
            recipe=recipe,
            report=report,
        )
    test = evaluate(network.model, images.test_x, images.test_y.to(where))
    layers = _write(target, network, found, test, recipe, drop)
    _show(console, last, target, network, found, layers, test)
    same = _same(target, network)
    if as_json:
        say_json(_as_json(target, network, found, layers, test, same))
    if not same:
        wrong = f"NOT verified: {target}{SUFFIX} does not hold the network to the bit."
        say(make_console(stderr=True), wrong)
        raise typer.Exit(EXIT_NOT_VERIFIED)
    say(console, f"Loaded {target}{SUFFIX} again: the same network, to the bit.")


def _fraction(text: str) -> float:
    """Read ``--accuracy-drop``.

    Raises:
        InvalidProblem: It is no share in per cent.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*%\s*", text)
    if match is None or float(match[1]) >= 100:
        raise InvalidProblem(
            f"--accuracy-drop {text!r} is no drop of accuracy. Write it like 0.2%: from 97 % down "
            "to 96.8 % then."
        )
    return float(match[1]) / 100


def _files(target: Path) -> tuple[Path, ...]:
    # with_suffix would cut names that hold a dot.
    suffixes = (SUFFIX, f"{_LAYERS}.csv", f"{_CURVE}.csv", f"{_CURVE}.html")
    return tuple(target.with_name(target.name + suffix) for suffix in suffixes)


def _check_fits(network: LoadedNetwork, images: Data) -> None:
    """Refuse images that the network was not made for.

    Raises:
        InvalidProblem: Their shape, or their number of classes, is another.
    """
    given, taken = tuple(images.train_x.shape[1:]), network.input_shape
    if given != taken:
        raise InvalidProblem(
            f"The images of {images.name!r} are {_sizes(given)}, and the network takes "
            f"{_sizes(taken)}. Give the --data that it was trained on."
        )
    with torch.inference_mode():
        like = next(network.model.parameters())
        outputs = network.model(torch.zeros(1, *taken, device=like.device)).shape[1]
    if outputs != images.classes:
        raise InvalidProblem(
            f"{images.name!r} has {images.classes} classes, and the network tells {outputs} "
            "apart. Give the --data that it was trained on."
        )


def _doubts(point: Point, network: LoadedNetwork, images: Data) -> list[str]:
    """Say where the trained network is not as accurate as its checkpoint says."""
    said = network.properties.get("accuracy")
    # Of an answer that was trained again and again, it says the mean.
    if point.setting is not None or said is None:
        return []
    if abs(said - point.accuracy) <= _NEAR:
        return []
    return [
        f"Its checkpoint says {100 * said:.2f} %. If {images.name!r} is not what it was trained "
        "on, it may have seen the validation and test images, and accuracies mean little."
    ]


def _recipe(network: LoadedNetwork, source: Path) -> Recipe:
    """Return how the network was trained; the default if its checkpoint does not tell.

    Raises:
        InvalidCheckpoint: What it tells is no recipe.
    """
    try:
        return Recipe(**(network.recipe or {}))
    except (TypeError, InvalidProblem) as error:
        raise InvalidCheckpoint(
            f"{source} was trained by {network.recipe!r}, which is no recipe: {error}. Save the "
            "checkpoint again."
        ) from error


def _write(
    target: Path,
    network: LoadedNetwork,
    found: Compression,
    test: float,
    recipe: Recipe,
    drop: float,
) -> dict[str, Layer]:
    """Write all files; return how each tensor was packed."""
    packed, sizes, table, _ = _files(target)
    known = {name: value for name, value in network.properties.items() if name != "size"}
    known |= {"accuracy": found.best.accuracy, "test_accuracy": test}
    with writing(target.parent):
        tensors = save_packed(
            packed,
            network.model,
            network.space,
            network.shape,
            known,
            recipe=None if network.recipe is None else recipe,
        )
        state = network.model.state_dict()
        layers = {t.name: Layer(t.format, measure_tensor(state[t.name], t)) for t in tensors}
        write_layers(sizes, layers)
        write_curve(table.with_suffix(""), found, str(network), drop)
    return layers


def _same(target: Path, network: LoadedNetwork) -> bool:
    """Load the packed file, and compare all its tensors with the network's, bit by bit."""
    again, _ = load_packed(_files(target)[0], network.space)
    ours, theirs = network.model.state_dict(), again.state_dict()
    return ours.keys() == theirs.keys() and all(
        tensor.dtype == theirs[name].dtype
        and np.array_equal(as_columns(tensor), as_columns(theirs[name]))
        for name, tensor in ours.items()
    )


def _as_json(
    target: Path,
    network: LoadedNetwork,
    found: Compression,
    layers: Mapping[str, Layer],
    test: float,
    same: bool,
) -> dict[str, object]:
    best = found.best
    return {
        **network.as_json(),
        "setting": None if best.setting is None else asdict(best.setting),
        "size": _files(target)[0].stat().st_size,
        "plain_size": _plain_size(network),
        "accuracy_before": found.trained.accuracy,
        "accuracy": best.accuracy,
        "test_accuracy": test,
        "verified": same,
        "layers": {name: layer.record for name, layer in layers.items()},
        "total": record(total(layer.bits for layer in layers.values())),
        "written": [str(path) for path in _files(target)],
    }


def _plain_size(network: LoadedNetwork) -> int:
    """Bytes of all tensors as they were trained."""
    return sum(tensor.nbytes for tensor in network.model.state_dict().values())


def _show(
    console: Console,
    last: Console,
    target: Path,
    network: LoadedNetwork,
    found: Compression,
    layers: Mapping[str, Layer],
    test: float,
) -> None:
    """Show what each layer takes, what the whole takes, and what it costs in accuracy."""
    weights = weights_of(network.model)
    table = Table(
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=_CAPTION,
        caption_justify="left",
    )
    table.add_column("layer", overflow="fold")
    for title in ("numbers", "kept", "packed", "ratio", "bits", "bound", "over", "repr", "format"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in weights:
        layer = layers[name]
        table.add_row(name.removesuffix(".weight"), *_cells(layer.bits), layer.format)
    others = total(layer.bits for name, layer in layers.items() if name not in weights)
    whole = total(layer.bits for layer in layers.values())
    if others.numbers:
        table.add_row("all else", *_cells(others), "")
    table.add_section()
    table.add_row("network", *_cells(whole), "")
    console.print(table, highlight=False, markup=False)
    size = _files(target)[0].stat().st_size
    before, after = found.trained.accuracy, found.best.accuracy
    say(
        last,
        f"Chosen: {_told(found.best)}",
        f"{network}: {whole.plain_bytes / size:.2f} times smaller, "
        f"{format_quantity('size', whole.plain_bytes)} of weights in a file of "
        f"{format_quantity('size', size)}; {whole.representation_bits:.0f} representation bits. "
        f"Packed tensors take {whole.overhead:.2f} times their zero-order entropy.",
        f"Validation accuracy: {100 * before:.2f} % before, {100 * after:.2f} % after. "
        f"Test accuracy: {100 * test:.2f} %.",
        f"Written to {target.parent}: {', '.join(path.name for path in _files(target))}. "
        f"{len(curve(found.points))} of {len(found.points)} networks are on the curve.",
    )
    if found.best.setting is None:
        say(
            last,
            "No smaller network is within the drop. Retrain for more --epochs, try more --trials, "
            "or allow a larger --accuracy-drop.",
        )
    if "ans" in {layer.format for layer in layers.values()}:
        say(last, "Where the packed file is read: pip install 'optuna_shape[ans]'.")


def _cells(bits: Bits) -> list[str]:
    each = max(1, bits.numbers)
    return [
        str(bits.numbers),
        f"{bits.nonzero / each:.1%}",
        format_quantity("size", bits.packed_bytes),
        f"{bits.ratio:.2f}",
        f"{8 * bits.packed_bytes / each:.2f}",
        f"{bits.entropy_bits / each:.2f}",
        f"{bits.overhead:.2f}",
        f"{bits.representation_bits / each:.2f}",
    ]


def _told(point: Point) -> str:
    size = f"{format_quantity('size', point.bits / 8)}, validation {100 * point.accuracy:.2f} %"
    setting = point.setting
    if setting is None:
        return f"as it was trained: {size}"
    rounded = ", others in bfloat16" if setting.rounded else ""
    return (
        f"{setting.percentile:g} % pruned, {setting.k} values by {setting.method}{rounded}: {size}"
    )


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
