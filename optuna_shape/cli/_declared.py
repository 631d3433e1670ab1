"""Options that mean the same in several commands, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optuna_shape.cli._common import cores
from optuna_shape.cli._common import warn
from optuna_shape.families import FAMILIES
from optuna_shape.train.data import DATASETS

# Headings of the help, under which options stand.
NETWORKS, QUESTION, TRAINING = "Networks", "Question", "Training"
DEVICE, WORKERS, KEPT, SAID = "Device", "Workers and length", "What is kept", "What is said"


def _warn_of_threads(threads: int) -> int:
    if threads > cores():
        warn(
            f"--threads {threads} on {cores()} CPU cores: threads wait for each other, and what "
            f"is measured means little. Give {cores()} or fewer."
        )
    return threads


Family = Annotated[
    str,
    typer.Option(
        help=f"Networks to choose from: {', '.join(FAMILIES)}, or a function of your own as "
        "module:function. `optuna-shape families` says more.",
        rich_help_panel=NETWORKS,
    ),
]
FamilyOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="An option of the family, may be repeated: variant=bottleneck.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]
OwnFunction = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="Of a network of your own: the function that the search was given.",
        show_default=False,
    ),
]
Depth = Annotated[
    str | None,
    typer.Option(
        help="Depths, such as 1-6 or 1,2,4; by default those of the family.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]
Width = Annotated[
    str | None,
    typer.Option(
        help="Widths, such as 8-12 or 8,16; by default those of the family.",
        show_default=False,
        rich_help_panel=NETWORKS,
    ),
]
Device = Annotated[
    str,
    typer.Option(help="Measure and train on: auto, cpu, cuda or cuda:1.", rich_help_panel=DEVICE),
]
BatchSize = Annotated[
    int,
    typer.Option(
        min=1,
        help="Inputs per call whose latency and energy are measured.",
        rich_help_panel=DEVICE,
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        min=1,
        help="CPU threads, of measuring and of training.",
        callback=_warn_of_threads,
        rich_help_panel=DEVICE,
    ),
]
MaxNoise = Annotated[
    float,
    typer.Option(
        help="How much this machine's pace may vary, as a share, to be measured on.",
        rich_help_panel=DEVICE,
    ),
]
Guard = Annotated[
    float | None,
    typer.Option(
        help="Difference between sessions to allow for, as a share; measure --repeat suggests "
        "one. By default 0.05 on a CPU and 0.02 on CUDA.",
        show_default=False,
        rich_help_panel=DEVICE,
    ),
]
Watts = Annotated[
    float | None,
    typer.Option(
        max=1e9,
        help="Power of the device under load. Energy is then no measurement, but an estimate of "
        "watts x latency.",
        show_default=False,
        rich_help_panel=DEVICE,
    ),
]
LIMITS = (
    "A limit, may be repeated: 'latency <= 2 ms', 'size <= 500 kB', 'energy <= 40 mJ', "
    "'latency <= 60 % of (9, 16)'"
)
IMAGES = (
    f"{', '.join(DATASETS)}, a folder with a folder of images for each class, or a .npz file with "
    "images x and classes y"
)
DataRoot = Annotated[
    Path | None,
    typer.Option(
        envvar="OPTUNA_SHAPE_DATA",
        help="Folder where torchvision's data sets lie, or are downloaded to; by default "
        "~/.cache/optuna_shape.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**32 - 1,
        help="Seed of all that is drawn by chance: decisions, weights, orders.",
        rich_help_panel=TRAINING,
    ),
]
InputShape = Annotated[
    str,
    typer.Option(help="Shape of one input, such as 3x32x32.", rich_help_panel=NETWORKS),
]
Classes = Annotated[int, typer.Option(help="Outputs of the network.", rich_help_panel=NETWORKS)]
Checkpoint = Annotated[
    Path,
    typer.Argument(
        help="What a search saved, with or without suffix, or the --output of a search that "
        "holds one answer."
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the files; by default that of the checkpoint.", show_default=False
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Print what was found only.", rich_help_panel=SAID),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object at the end, in SI units: what was found, or the error.",
        rich_help_panel=SAID,
    ),
]
