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
from dataclasses import dataclass
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from optuna_shape import DesignSpace
from optuna_shape import DeviceMeter
from optuna_shape import Shape
from optuna_shape.errors import EnergyUnavailable
from optuna_shape.measure import count


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
    """Device, versions and date, beside whatever the caller states."""
    import botorch
    import optuna

    cuda = torch.cuda.is_available()
    return {
        **what,
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "optuna": optuna.__version__,
            "botorch": botorch.__version__,
        },
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write_provenance(path: Path, content: dict[str, Any]) -> None:
    path.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo")
    if lines.exists():
        for line in lines.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
