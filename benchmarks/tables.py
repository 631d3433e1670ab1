"""Recorded tables: every shape of a space really trained, with curves, seeds and provenance.

A table is a CSV of trainings beside a JSON of provenance, both of the same stem. The CSV has a row
per shape and seed: depth, width, seed, seconds, flops, latency, size, the validation accuracy
after every epoch, separated by blanks, and energy, where the device has a counter.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import DeviceMeter
from optuna_shape import Shape
from optuna_shape.errors import EnergyUnavailable
from optuna_shape.measure import count
from optuna_shape.train.data import Data
from optuna_shape.train.trainer import train


@dataclass(frozen=True)
class Training:
    """One recorded training.

    Attributes:
        depth: Of its shape.
        width: Of its shape.
        seed: Of its initial weights and batches.
        seconds: Wall time of the training, on a shared machine.
        flops: Floating point operations of one forward pass of one input.
        latency: Seconds per call on one batch; NaN if it was not measured.
        size: Bytes of parameters and buffers.
        curve: Validation accuracy after each epoch.
        energy: Joules per call on one batch; NaN if it was not measured.
    """

    depth: int
    width: int
    seed: int
    seconds: float
    flops: float
    latency: float
    size: float
    curve: tuple[float, ...]
    energy: float = math.nan

    @property
    def shape(self) -> Shape:
        return Shape(self.depth, self.width)


_COLUMNS = [field.name for field in fields(Training)]


def read(path: Path) -> list[Training]:
    """Read a table; an absent one is empty, so that recording can resume."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Training(
                int(row["depth"]),
                int(row["width"]),
                int(row["seed"]),
                *(float(row[n] or math.nan) for n in ("seconds", "flops", "latency", "size")),
                tuple(float(value) for value in row["curve"].split()),
                float(row.get("energy") or math.nan),
            )
            for row in csv.DictReader(file)
        ]


def append(path: Path, training: Training) -> None:
    """Add one training, so that an interruption loses at most the one at hand."""
    columns = _COLUMNS
    if path.exists():  # One begun before energy was recorded goes on without.
        with path.open(newline="") as file:
            columns = next(csv.reader(file))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        writer.writerow({name: _text(getattr(training, name)) for name in _COLUMNS})


def train_anew(
    space: DesignSpace,
    data: Data,
    shape: Shape,
    seed: int,
    *,
    epochs: int,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, tuple[float, ...]]:
    """Train a network from scratch, by the usual recipe.

    Returns:
        The network, and its curve as a table gives it back, so that who goes on with a recording
        sees the same. It is shorter than the epochs if the training diverged.
    """
    curve: list[float] = []
    torch.manual_seed(seed)
    network = space.build(shape)
    train(
        network,
        data,
        epochs=epochs,
        seed=seed,
        device=device,
        report=lambda epoch, accuracy: curve.append(float(f"{accuracy:.5g}")),
    )
    return network, tuple(curve)


def _text(value: float | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{part:.5g}" for part in value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def measured(path: Path, space: DesignSpace, meter: DeviceMeter) -> dict[str, dict[Shape, float]]:
    """FLOPs, latency, size, and energy where there is a counter, of every shape, from a file.

    It is made if it is not there: all shapes are measured in one session, so that they compare.

    Raises:
        SystemExit: The file is of other shapes.
    """
    names = ("flops", "latency", "size", "energy")
    if not path.exists():
        values = {"latency": meter.measure(space, space.shapes, "latency")}
        with contextlib.suppress(EnergyUnavailable):
            values["energy"] = meter.measure(space, space.shapes, "energy")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["depth", "width", *names])
            for shape in space.shapes:
                counts = count(space, shape)
                latency = _text(values["latency"][shape].value)
                energy = _text(values["energy"][shape].value) if "energy" in values else ""
                row = [*shape, counts.flops, latency, counts.size_bytes, energy]
                writer.writerow(row)
        write_provenance(path, provenance(meter=meter.fingerprint, max_noise=meter.protocol.noise))
    with path.open(newline="") as file:
        rows = {Shape(int(r["depth"]), int(r["width"])): r for r in csv.DictReader(file)}
    if tuple(rows) != space.shapes:
        raise SystemExit(f"{path} was measured for other shapes. Give another output file.")
    known = [name for name in names if all(row.get(name) for row in rows.values())]
    return {name: {shape: float(row[name]) for shape, row in rows.items()} for name in known}


def provenance(**what: Any) -> dict[str, Any]:
    """Command, code, device, versions and date, beside whatever the caller states."""
    cuda = torch.cuda.is_available()
    return {
        "command": command(sys.argv),
        **what,
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def command(words: Sequence[str]) -> str:
    """How a script was called, but for where its machine keeps the data."""
    shown = ["python", *words]
    for i, word in enumerate(shown):
        if word == "--data-root" and i + 1 < len(shown):
            shown[i + 1] = "DIR"
        elif word.startswith("--data-root="):
            shown[i] = "--data-root=DIR"
    return shlex.join(shown)


def write_provenance(path: Path, content: Mapping[str, Any]) -> None:
    path.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")


def add_provenance(path: Path, content: Mapping[str, Any]) -> None:
    """Write that of a recording which goes on: what differed in earlier sessions is kept."""
    file = path.with_suffix(".json")
    before = json.loads(file.read_text()) if file.exists() else {}
    earlier = before.pop("earlier", [])
    differs = {k: v for k, v in before.items() if k in content and v != content[k]}
    if differs:
        earlier.append(differs)
    write_provenance(path, {**content, "earlier": earlier} if earlier else content)


def check_same(path: Path, settings: Mapping[str, object]) -> None:
    """Refuse to go on with a recording of other settings.

    Raises:
        SystemExit: They differ from what its JSON states.
    """
    file = path.with_suffix(".json")
    stored = json.loads(file.read_text()) if file.exists() else {}
    # As JSON has them: a tuple comes back as a list.
    for name, value in json.loads(json.dumps(settings)).items():
        if name in stored and stored[name] != value:
            raise SystemExit(
                f"{file} has {name} {stored[name]!r}, and here it is {value!r}. Write to another "
                "file, or remove what is there."
            )


def _commit() -> str | None:
    """Of the code, with ``+`` where it was changed since; None outside a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True)
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", "../optuna_shape", "*.py"], capture_output=True
        )
    except OSError:
        return None
    if commit.returncode:
        return None
    return commit.stdout.decode().strip() + ("+" if status.stdout else "")


def _versions() -> dict[str, str]:
    """Of the packages that figures may depend on, as far as they are installed."""
    names = ("torch", "optuna", "botorch", "gpytorch", "optuna-integration", "ax-platform")
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo")
    if lines.exists():
        for line in lines.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
