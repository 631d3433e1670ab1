"""``optuna-shape export``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Iterator
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
from optuna_shape.cli._checkpoints import OwnFamily
from optuna_shape.cli._checkpoints import find_checkpoint
from optuna_shape.cli._checkpoints import load_network
from optuna_shape.cli._common import EXIT_NOT_VERIFIED
from optuna_shape.cli._common import FamilyOption
from optuna_shape.cli._common import OwnFunction
from optuna_shape.cli._common import Threads
from optuna_shape.cli._common import errors_in_a_line
from optuna_shape.cli._common import make_console
from optuna_shape.cli._common import say
from optuna_shape.cli._common import sizes
from optuna_shape.constraints import format_quantity
from optuna_shape.errors import InvalidProblem
from optuna_shape.measure import DeviceMeter
from optuna_shape.report.measured import check_writable
from optuna_shape.train.agreement import TOLERANCE
from optuna_shape.train.agreement import LatencyRatio
from optuna_shape.train.agreement import differences
from optuna_shape.train.agreement import latency_ratio
from optuna_shape.train.checkpoint import write_whole
from optuna_shape.train.export import SUFFIX
from optuna_shape.train.export import ExportFailed
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
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="What a search saved, with or without suffix, or the --output of a search that "
            "holds one answer."
        ),
    ] = Path("optuna-shape-output"),
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the files; by default that of the checkpoint.", show_default=False
        ),
    ] = None,
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
    input_shape: Annotated[
        str, typer.Option(help="With --family: shape of one input, such as 3x32x32.")
    ] = "1x12x12",
    classes: Annotated[int, typer.Option(help="With --family: outputs of the network.")] = 10,
) -> None:
    """Export a trained network: its weights, and a program that needs PyTorch alone.

    Writes NAME.pt2, a program of torch.export, beside NAME.safetensors and NAME.json, from which
    this package rebuilds the network. --verify ends with exit code 4 where they disagree.
    """
    console = make_console()
    with errors_in_a_line(console):
        number = _batch_size(batch_size)
        where = DeviceMeter(device=device).setting.device
        torch.set_num_threads(threads)
        source = find_checkpoint(checkpoint)
        own = None
        if family is not None:
            own = OwnFamily(family, tuple(family_option or ()), sizes(input_shape), classes)
        elif family_option:
            raise InvalidProblem(
                "--family-option is for --family module:function; a built-in family is told by "
                "the checkpoint."
            )
        target = (output or source.parent) / source.name
        _check_writable(target)  # Before seconds of exporting, not after.
        network = load_network(source, own, where)
        with console.status("Exporting the network ..."), _torch_in_silence():
            content = export_program(
                network.model, network.input_shape, batch_size=number, device=where
            )
        try:
            if target.parent.resolve() != source.parent.resolve():
                for suffix in SUFFIXES:  # As they are: they say how it was trained, and by what.
                    write_whole(_with(target, suffix), _with(source, suffix).read_bytes())
            write_whole(_with(target, SUFFIX), content)
        except OSError as error:
            raise _unwritable(target.parent, error) from error
        _show(console, network, target, number, where)
        if verify:
            with console.status("Verifying what was written ..."):
                digest = hashlib.sha256(content).hexdigest()
                program = read_program(_with(target, SUFFIX), digest)
                again = load_network(target, own, where).model
                lines, agree = _compare(network, again, program, number, where)
            say(console, *lines)
            if not agree:
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


def _check_writable(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (SUFFIX, *SUFFIXES):
            check_writable(_with(target, suffix))
    except OSError as error:
        raise _unwritable(target.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> ExportFailed:
    return ExportFailed(
        f"Cannot write to {folder}: {error.strerror}. Name a folder of your own by --output."
    )


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
    target: Path,
    number: int | None,
    device: torch.device,
) -> None:
    """Show what was written, and how to load it."""
    table = Table(box=box.SIMPLE, show_header=False)
    parameters = sum(weight.numel() for weight in network.model.parameters())
    one = "x".join(map(str, network.input_shape))
    batch = "any number" if number is None else str(number)
    shape = f"depth {network.shape.depth}, width {network.shape.width}"
    table.add_row("network", f"{network.space.name}, {shape}")
    table.add_row("parameters", format_quantity("parameters", parameters))
    table.add_row("inputs", f"{batch} of {one}, float32, on {device}")
    for suffix in (SUFFIX, *SUFFIXES):
        size = format_quantity("size", _with(target, suffix).stat().st_size)
        table.add_row(f"{target.name}{suffix}", size)
    console.print(table, highlight=False, markup=False)
    example = ", ".join(map(str, (number or 1, *network.input_shape)))
    place = "" if device.type == "cpu" else f', device="{device}"'
    say(
        console,
        f"Written to {target.parent}. To run the program, in Python with torch alone:",
        "",
        "  import torch",
        f"  network = torch.export.load({str(_with(target, SUFFIX))!r}).module()",
        f"  scores = network(torch.zeros({example}{place}))",
        "",
        "A .pt2 file from someone else can run any code when it is loaded; a .safetensors cannot.",
    )


def _compare(
    network: LoadedNetwork,
    again: nn.Module,
    program: nn.Module,
    number: int | None,
    device: torch.device,
) -> tuple[list[str], bool]:
    """Return what the verification found, in lines, and whether all agree."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(size, *network.input_shape, generator=generator).to(device)
        for size in (_BATCHES if number is None else (number,))
    ]
    found = {}
    for name, other in (
        ("the network itself, called again,", network.model),
        ("the network rebuilt from .safetensors and .json", again),
        ("the exported program", program),
    ):
        found[name] = max(differences(network.model, other, batches).items(), key=lambda x: x[1])
        size, share = found[name]
        if share > TOLERANCE:
            return [
                f"NOT verified: the outputs of {name} differ from those of the network by "
                f"{share:.2g} of the largest output, at a batch of {size}; {TOLERANCE:g} may be "
                "rounding."
            ], False
    listed = ", ".join(str(len(batch)) for batch in batches)
    lines = [
        f"Verified on random inputs, batches of {listed}. Largest difference of outputs, relative "
        "to the largest output:"
    ]
    lines += [f"  {name}: {share:.2g}" for name, (_, share) in found.items()][1:]
    ratios = {
        len(batch): latency_ratio(network.model, program, batch)
        for batch in batches
        if number is not None or len(batch) in _TIMED
    }
    lines += [_latency_line(size, ratio) for size, ratio in ratios.items()]
    if any(ratio.low > 1 + _MUCH for ratio in ratios.values()):
        lines.append(_SLOWER)
    return lines, True


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
