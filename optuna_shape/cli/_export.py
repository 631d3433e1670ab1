"""``optuna-shape export``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from optuna_shape.cli._checkpoints import SUFFIXES
from optuna_shape.cli._checkpoints import LoadedNetwork
from optuna_shape.cli._checkpoints import find_checkpoint
from optuna_shape.cli._checkpoints import load_network
from optuna_shape.cli._checkpoints import own_family
from optuna_shape.cli._common import EXIT_NOT_VERIFIED
from optuna_shape.cli._common import make_console
from optuna_shape.cli._common import make_room
from optuna_shape.cli._common import say
from optuna_shape.cli._common import say_json
from optuna_shape.cli._common import sizes
from optuna_shape.cli._common import writing
from optuna_shape.cli._declared import AsJson
from optuna_shape.cli._declared import Checkpoint
from optuna_shape.cli._declared import Classes
from optuna_shape.cli._declared import FamilyOption
from optuna_shape.cli._declared import Folder
from optuna_shape.cli._declared import InputShape
from optuna_shape.cli._declared import OwnFunction
from optuna_shape.cli._declared import Threads
from optuna_shape.cli._studies import OUTPUT
from optuna_shape.constraints import format_quantity
from optuna_shape.errors import InvalidProblem
from optuna_shape.measure import DeviceMeter
from optuna_shape.train.agreement import TOLERANCE
from optuna_shape.train.agreement import LatencyRatio
from optuna_shape.train.agreement import differences
from optuna_shape.train.agreement import latency_ratio
from optuna_shape.train.checkpoint import write_whole
from optuna_shape.train.export import SUFFIX
from optuna_shape.train.export import export_program
from optuna_shape.train.export import read_program

_DYNAMIC = "dynamic"
# Of one input, which libraries like to treat otherwise, of a batch that is usual, and others.
_BATCHES = (1, 2, 7, 32)
_TIMED = (1, 32)
_MUCH = 0.05  # A latency that is this share longer is explained.
_SLOWER = (
    "Python runs a program one operation at a time, which takes a small network longer; "
    "torch.compile(network) helps."
)


def export(
    checkpoint: Checkpoint = Path(OUTPUT),
    output: Folder = None,
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="INTEGER|dynamic", help="Inputs per call of the program; dynamic: any number."
        ),
    ] = _DYNAMIC,
    device: Annotated[
        str,
        typer.Option(
            help="Where the program will run, and stays bound to: auto, cpu, cuda or cuda:1."
        ),
    ] = "auto",
    threads: Threads = 1,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Load what was written, and compare outputs and latency with the network's.",
        ),
    ] = False,
    family: OwnFunction = None,
    family_option: FamilyOption = None,
    input_shape: InputShape = "1x12x12",
    classes: Classes = 10,
    as_json: AsJson = False,
) -> None:
    """Export a trained network: its weights, and a program that needs PyTorch alone.

    Writes NAME.pt2, a program of torch.export, beside NAME.safetensors and NAME.json, from which
    this package rebuilds the network. --verify ends with exit code 4 where they disagree.
    """
    console = make_console(quiet=as_json)
    number = _batch_size(batch_size)
    where = DeviceMeter(device=device).setting.device
    torch.set_num_threads(threads)
    source = find_checkpoint(checkpoint)
    own = own_family(family, family_option or (), sizes(input_shape), classes)
    target = (output or source.parent) / source.name
    files = [_with(target, suffix) for suffix in (SUFFIX, *SUFFIXES)]
    network = load_network(source, own, where)
    make_room(*files)  # Before seconds of exporting, not after.
    with console.status("Exporting the network ..."), _torch_in_silence():
        content = export_program(
            network.model, network.input_shape, batch_size=number, device=where
        )
    with writing(target.parent):
        if target.parent.resolve() != source.parent.resolve():
            for suffix in SUFFIXES:  # As they are: they say how it was trained, and by what.
                write_whole(_with(target, suffix), _with(source, suffix).read_bytes())
        write_whole(files[0], content)
    _show(console, network, files, number, where)
    found = None
    if verify:
        with console.status("Verifying what was written ..."):
            digest = hashlib.sha256(content).hexdigest()
            program = read_program(files[0], digest)
            again = load_network(target, own, where).model
            found = _compare(network, again, program, number, where)
        say(console, *_lines(found))
    if as_json:
        say_json(_as_json(network, files, where, found))
    if found is not None and not found.agree:
        raise typer.Exit(EXIT_NOT_VERIFIED)


def _batch_size(text: str) -> int | None:
    """Read ``--batch-size``; None stands for any number.

    Raises:
        InvalidProblem: It is something else.
    """
    if text == _DYNAMIC:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InvalidProblem(
            f"--batch-size {text!r} is no number of inputs; give 1 or more, or {_DYNAMIC}."
        )
    return int(text)


@contextlib.contextmanager
def _torch_in_silence() -> Iterator[None]:
    """Keep back what torch.export prints and logs where it fails, which its error sums up."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _show(
    console: Console,
    network: LoadedNetwork,
    files: Sequence[Path],
    number: int | None,
    device: torch.device,
) -> None:
    """Show what was written, and how to load it."""
    table = Table(box=box.SIMPLE, show_header=False)
    one = "x".join(map(str, network.input_shape))
    batch = "any number" if number is None else str(number)
    table.add_row("network", str(network))
    table.add_row("parameters", format_quantity("parameters", network.parameters))
    table.add_row("inputs", f"{batch} of {one}, float32, on {device}")
    for path in files:
        table.add_row(path.name, format_quantity("size", path.stat().st_size))
    console.print(table, highlight=False, markup=False)
    example = ", ".join(map(str, (number or 1, *network.input_shape)))
    place = "" if device.type == "cpu" else f', device="{device}"'
    say(
        console,
        f"Written to {files[0].parent}. To run the program, in Python with torch alone:",
        "",
        "  import torch",
        f"  network = torch.export.load({str(files[0])!r}).module()",
        f"  scores = network(torch.zeros({example}{place}))",
        "",
        "A .pt2 file from someone else can run any code when it is loaded; a .safetensors cannot.",
    )


@dataclass(frozen=True)
class _Verification:
    """What comparing outputs and latencies has found.

    Attributes:
        batches: Sizes of the batches that were compared.
        differences: By what was compared with the network, at which size of a batch its outputs
            differ most, and by which share of the largest output.
        latencies: Of the program against the network, by size of the batch.
    """

    batches: tuple[int, ...]
    differences: Mapping[str, tuple[int, float]]
    latencies: Mapping[int, LatencyRatio]

    @property
    def agree(self) -> bool:
        return all(share <= TOLERANCE for _, share in self.differences.values())


def _compare(
    network: LoadedNetwork,
    again: nn.Module,
    program: nn.Module,
    number: int | None,
    device: torch.device,
) -> _Verification:
    """Compare until something differs."""
    generator = torch.Generator().manual_seed(0)
    batches = {
        size: torch.randn(size, *network.input_shape, generator=generator).to(device)
        for size in (_BATCHES if number is None else (number,))
    }
    found: dict[str, tuple[int, float]] = {}
    for name, other in (
        ("the network itself, called again,", network.model),
        ("the network rebuilt from .safetensors and .json", again),
        ("the exported program", program),
    ):
        by_size = differences(network.model, other, list(batches.values()))
        found[name] = max(by_size.items(), key=lambda x: x[1])
        if found[name][1] > TOLERANCE:
            return _Verification(tuple(batches), found, {})
    ratios = {
        size: latency_ratio(network.model, program, batch)
        for size, batch in batches.items()
        if number is not None or size in _TIMED
    }
    return _Verification(tuple(batches), found, ratios)


def _lines(found: _Verification) -> list[str]:
    *_, (name, (size, share)) = found.differences.items()
    if not found.agree:
        return [
            f"NOT verified: the outputs of {name} differ from those of the network by "
            f"{share:.2g} of the largest output, at a batch of {size}; {TOLERANCE:g} may be "
            "rounding."
        ]
    lines = [
        f"Verified on random inputs, batches of {', '.join(map(str, found.batches))}. Largest "
        "difference of outputs, relative to the largest output:"
    ]
    lines += [f"  {name}: {share:.2g}" for name, (_, share) in found.differences.items()][1:]
    lines += [_latency_line(size, ratio) for size, ratio in found.latencies.items()]
    if any(ratio.low > 1 + _MUCH for ratio in found.latencies.values()):
        lines.append(_SLOWER)
    return lines


def _as_json(
    network: LoadedNetwork,
    files: Sequence[Path],
    device: torch.device,
    found: _Verification | None,
) -> dict[str, object]:
    return {
        **network.as_json(),
        "device": str(device),
        "verified": None if found is None else found.agree,
        "difference": found and max(share for _, share in found.differences.values()),
        "latency_ratios": found and {size: x.value for size, x in found.latencies.items()},
        "written": [str(path) for path in files],
    }


def _latency_line(size: int, ratio: LatencyRatio) -> str:
    eager, program = (
        format_quantity("latency", seconds) for seconds in (ratio.network, ratio.other)
    )
    return (
        f"  latency of the program, batch {size}: {ratio.value:.2f} of the network's, interval "
        f"{ratio.low:.2f}-{ratio.high:.2f} ({program}, {eager})"
    )


def _with(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)  # with_suffix would cut names that hold a dot.
