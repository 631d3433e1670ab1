"""How much faster than a depth-scaled network is the fastest shape of its accuracy?

    python benchmarks/speed.py --data-root DIR        # hours on one core
    python benchmarks/speed.py --data-root DIR --known benchmarks/tables/fashion-mnist-resnet.csv
    python benchmarks/speed.py --data cifar10 --layers 20,32,44,56,110 --device cuda

The series are the residual networks of 20, 32, 44, ... layers: all of the base width, scaled by
depth alone. For each seed they are really trained. Then, for each of them, a search of the same
recipe, epochs and seed asks for the shape of the lowest latency, at the largest of
``--batch-sizes``, whose validation accuracy is at least that of the deep network, which it is told
first, as that has been trained. Where it finds none, the deep network stays, and the ratio is 1.

Latencies of the series and of the answers of a seed are measured together at its end, their blocks
in random turn. The ratio is the deep network's latency over the answer's. Its interval is made of
the two intervals of the meter: lowest over highest, and highest over lowest. Those are of this
session, widened by the guard of :class:`~optuna_shape.DeviceMeter` for what differs between
processes. On a machine that others use (``--max-noise``) another session may still lie outside.
Nor do they hold the noise of training, which moves the ratio most: another seed has another
threshold and another answer. Energy is measured, and its ratio made, in the same way where the
device has a counter.

The series is not monotone: with the same seed a shallower network of it is sometimes as accurate,
and faster. What that alone gives is stated as ``series``, and the rest, which the search adds, as
``beyond_series``.

What to keep in mind:

* The threshold is the accuracy of one noisy training, so that a deep network of an unlucky one
  leads to a large ratio.
* The answer is the fastest shape that was seen to reach it, so that networks of lucky trainings
  are preferred. Hence the test accuracies of both, which no search has seen: they are looked at
  for the series and the answers only, and the summary has the mean difference with its standard
  error.
* A shape that a search trains again, with another seed, counts with the mean of its trainings, in
  the test, too. The deep network counts with the one training that it was asked about.
* Only the largest batch size is searched for; the ratios at others are of the same answers.
* The questions of one seed share trainings, and often answers: they are not independent.

On a CPU the same training gives the same network, so what an earlier search, or a table of
``--known``, has trained is looked up. Every search still pays for it in its own ``cost``: the
FLOPs of its trainings over those of one training of the deep network. What a table tells of a
network that is tested is checked by training it again.

The latencies that searches go by are measured once, before the first, and kept in
``speed-latencies.csv``. Trainings are kept in ``speed-trainings.csv``, and rows of ``speed.csv``
once their seed is done. Run again, it goes on.
"""

from __future__ import annotations

import argparse
import csv
import math
import shutil
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
import tables
import torch
from plotly.colors import qualitative
from plotly.subplots import make_subplots
from replay import write_plot
from torch import nn
from transfer import write_shape

from optuna_shape import DesignSpace
from optuna_shape import DeviceMeter
from optuna_shape import Measurement
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape import TableMeter
from optuna_shape.errors import EnergyUnavailable
from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.families import resnet
from optuna_shape.measure import count
from optuna_shape.records import StudyRecords
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.checkpoint import save_checkpoint
from optuna_shape.train.data import Data
from optuna_shape.train.data import load
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import evaluate

RESULTS = Path(__file__).parent / "results"
#: Between a training and the next one of the same shape in the same search.
ANOTHER_SEED = 1000


@dataclass(frozen=True)
class Row:
    """A network of the series and the answer to it, at one batch size.

    Attributes:
        seed: Of trainings and decisions.
        layers: Of the deep network.
        batch_size: Inputs per measured call.
        deep: Its shape, ``depth x width``.
        deep_validation: Its validation accuracy, the threshold of the search.
        deep_test: Its test accuracy.
        answer: The fastest shape found; the deep one where none was.
        answer_validation: The mean over its trainings, as is the next; that of the deep network
            where that is the answer.
        answer_test: Its test accuracy.
        trainings: Of the search, besides that of the deep network.
        cost: Of these, in trainings of the deep network, by FLOPs.
        stop: Why the search ended: ``certain``, ``hopeless`` or ``exhausted``.
        deep_latency: Seconds per call, and the interval.
        deep_latency_low: Its lower end.
        deep_latency_high: Its upper end.
        answer_latency: As above, of the answer.
        answer_latency_low: Its lower end.
        answer_latency_high: Its upper end.
        ratio: Latency of the deep network over that of the answer.
        ratio_low: Lower end of its interval.
        ratio_high: Upper end.
        deep_energy: Joules per call; NaN without a counter, as are the next four.
        answer_energy: Joules per call.
        energy_ratio: Of these two.
        energy_ratio_low: Lower end of its interval.
        energy_ratio_high: Upper end.
    """

    seed: int
    layers: int
    batch_size: int
    deep: str
    deep_validation: float
    deep_test: float
    answer: str
    answer_validation: float
    answer_test: float
    trainings: int
    cost: float
    stop: str
    deep_latency: float
    deep_latency_low: float
    deep_latency_high: float
    answer_latency: float
    answer_latency_low: float
    answer_latency_high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    deep_energy: float = math.nan
    answer_energy: float = math.nan
    energy_ratio: float = math.nan
    energy_ratio_low: float = math.nan
    energy_ratio_high: float = math.nan

    @property
    def key(self) -> tuple[int, int, int]:
        """Which question this answers."""
        return self.seed, self.layers, self.batch_size

    def accuracies(self, part: str) -> tuple[float, float]:
        """Of the deep network and the answer, in ``validation`` or ``test``.

        The deep network is as accurate as itself, however its repeated trainings ended.
        """
        deep = getattr(self, f"deep_{part}")
        return deep, deep if self.answer == self.deep else getattr(self, f"answer_{part}")


@dataclass(frozen=True)
class Found:
    """What a search made of one network of the series; the first fields are those of the row."""

    deep: Shape
    deep_validation: float
    deep_test: float
    answer: Shape
    answer_validation: float
    answer_test: float
    trainings: int
    cost: float
    stop: str


def shape_of_layers(layers: int, width: int) -> Shape:
    """The residual network of so many layers: two in each block of three stages, and two more.

    Raises:
        ValueError: There is none.
    """
    depth, rest = divmod(layers - 2, 6)
    if rest or depth < 1:
        raise ValueError(f"no residual network has {layers} layers; 8, 14, 20, ... are possible")
    return Shape(depth, width)


def ratio_of(deep: Measurement, answer: Measurement) -> tuple[float, float, float]:
    """How many times the answer takes less, and the lowest and highest that the two allow."""
    return deep.value / answer.value, deep.low / answer.high, deep.high / answer.low


class Trainings:
    """Trains each shape with each seed once, and looks it up from then on.

    Args:
        path: Table of trainings, which grows.
        known: Further trainings by the same data, epochs and recipe.
        space: Builds the networks.
        data: What they learn.
        epochs: Of each training.
        device: Where to train.
    """

    def __init__(
        self,
        path: Path,
        known: Sequence[tables.Training],
        space: DesignSpace,
        data: Data,
        epochs: int,
        device: torch.device,
    ) -> None:
        self.space, self.data, self.epochs, self.device = space, data, epochs, device
        self.weights = path.with_name(f"{path.stem}-weights")
        self._path = path
        self._curves = {(t.shape, t.seed): t.curve for t in (*known, *tables.read(path))}

    def accuracies(self, shape: Shape, seed: int) -> tuple[float, ...]:
        """Validation accuracy after each epoch, from the table or from a training."""
        if (shape, seed) not in self._curves:
            begin = time.perf_counter()
            curve = self._train(shape, seed)
            seconds = time.perf_counter() - begin
            counts = count(self.space, shape)
            flops, size = float(counts.flops or math.nan), float(counts.size_bytes)
            row = tables.Training(*shape, seed, seconds, flops, math.nan, size, curve)
            tables.append(self._path, row)
            self._curves[shape, seed] = curve
            print(
                f"  trained {write_shape(shape)} with seed {seed} in {seconds:.1f} s", flush=True
            )
        return self._curves[shape, seed]

    def validation(self, shape: Shape, seed: int) -> float:
        """Validation accuracy at the end, NaN if the training diverged."""
        curve = self.accuracies(shape, seed)
        return curve[-1] if len(curve) == self.epochs else math.nan

    def test(self, shape: Shape, seed: int) -> float:
        """Test accuracy of the network that the table tells of.

        Raises:
            SystemExit: Its weights are not there, and training it again gives another network.
        """
        curve = self.accuracies(shape, seed)
        try:
            network, _ = load_checkpoint(self._checkpoint(shape, seed), self.space)
        except InvalidCheckpoint:
            print(
                f"  training {write_shape(shape)} with seed {seed} again, to test it", flush=True
            )
            again = self._train(shape, seed)
            if again != curve:
                raise SystemExit(
                    f"{write_shape(shape)} with seed {seed} was recorded with a validation "
                    f"accuracy of {curve[-1]}, and reaches {again[-1]} here. Leave out --known, "
                    f"and remove {self._path}, to train everything on this machine."
                ) from None
            network, _ = load_checkpoint(self._checkpoint(shape, seed), self.space)
        data = self.data
        return evaluate(network.to(self.device), data.test_x, data.test_y.to(self.device))

    def flops(self, shape: Shape) -> float:
        """Of one input, which a training pays for as often for every shape."""
        return float(count(self.space, shape).flops or math.nan)

    def _train(self, shape: Shape, seed: int) -> tuple[float, ...]:
        network, curve = tables.train_anew(
            self.space, self.data, shape, seed, epochs=self.epochs, device=self.device
        )
        self._save(network, shape, seed)
        return curve

    def _save(self, network: nn.Module, shape: Shape, seed: int) -> None:
        save_checkpoint(self._checkpoint(shape, seed), network, self.space, shape, {})

    def _checkpoint(self, shape: Shape, seed: int) -> Path:
        return self.weights / f"{write_shape(shape)}-{seed}"


def search(trainings: Trainings, meter: TableMeter, deep: Shape, seed: int) -> Found | None:
    """Ask for the fastest shape as accurate as a deep network; None if its training diverged."""
    threshold, deep_test = trainings.validation(deep, seed), trainings.test(deep, seed)
    if math.isnan(threshold):
        return None
    problem = ShapeProblem(
        trainings.space,
        "latency",
        [f"accuracy >= {threshold!r}"],
        meter=meter,
        epochs=trainings.epochs,
    )
    study = optuna.create_study(
        direction=problem.direction,
        sampler=ShapeSampler(problem, seed=seed),
        pruner=optuna.pruners.NopPruner(),  # As the command line does by default.
    )
    trained: Counter[Shape] = Counter()
    known = deep in problem.space.shapes
    if known:  # What is asked about has been trained, so the search is told of it.
        study.enqueue_trial(deep._asdict())

    def objective(trial: optuna.Trial) -> float:
        shape = problem.suggest(trial)
        own = seed + ANOTHER_SEED * trained[shape]
        trained[shape] += 1
        for epoch, accuracy in enumerate(trainings.accuracies(shape, own), start=1):
            trial.report(accuracy, epoch)
        accuracy = trainings.validation(shape, own)
        print(f"  {trial.number}: {write_shape(shape)} has {accuracy:.4f}", flush=True)
        return problem.record(trial, accuracy)

    study.optimize(objective, callbacks=[ShapeTerminator(problem)])
    best = problem.best(study)
    answer, validation, tests = deep, threshold, [deep_test]
    if best is not None and best.shape != deep:
        answer, validation = best.shape, best.accuracy
        seeds = [seed + ANOTHER_SEED * index for index in range(trained[answer])]
        whole = [own for own in seeds if not math.isnan(trainings.validation(answer, own))]
        tests = [trainings.test(answer, own) for own in whole]
    trained[deep] -= known
    paid = sum(times * trainings.flops(shape) for shape, times in trained.items())
    return Found(
        deep,
        threshold,
        deep_test,
        answer,
        validation,
        statistics.fmean(tests),
        trained.total(),
        paid / trainings.flops(deep),
        (StudyRecords(study).stop() or {"kind": "exhausted"})["kind"],
    )


def make_row(
    seed: int,
    layers: int,
    batch_size: int,
    found: Found,
    latencies: Mapping[Shape, Measurement],
    energies: Mapping[Shape, Measurement],
) -> Row:
    """Put together what was found and what was measured; without a counter ``energies`` is empty.

    A network has the speed of itself, whatever the doubt about it.
    """
    deep, answer = latencies[found.deep], latencies[found.answer]
    same = found.deep == found.answer
    energy = {}
    if energies:
        joules = energies[found.deep], energies[found.answer]
        ratios = (1.0, 1.0, 1.0) if same else ratio_of(*joules)
        energy = {
            "deep_energy": joules[0].value,
            "answer_energy": joules[1].value,
            **dict(zip(("energy_ratio", "energy_ratio_low", "energy_ratio_high"), ratios)),
        }
    return Row(
        seed,
        layers,
        batch_size,
        **{
            **{f.name: getattr(found, f.name) for f in fields(Found)},
            "deep": write_shape(found.deep),
            "answer": write_shape(found.answer),
        },
        deep_latency=deep.value,
        deep_latency_low=deep.low,
        deep_latency_high=deep.high,
        answer_latency=answer.value,
        answer_latency_low=answer.low,
        answer_latency_high=answer.high,
        **dict(
            zip(
                ("ratio", "ratio_low", "ratio_high"),
                (1.0, 1.0, 1.0) if same else ratio_of(deep, answer),
            )
        ),
        **energy,
    )


def series_ratio(row: Row, rows: Iterable[Row]) -> float:
    """How many times less the fastest network of the series takes that is as accurate.

    It is one of the same seed, whose validation accuracy is at least that of the deep network. The
    deep network is one itself, so 1 means that the series has no faster one.
    """
    fastest = min(
        other.deep_latency
        for other in rows
        if (other.seed, other.batch_size) == (row.seed, row.batch_size)
        and other.deep_validation >= row.deep_validation
    )
    return row.deep_latency / fastest


def summarize(rows: Sequence[Row]) -> list[dict[str, object]]:
    """For each network of the series and batch size: ratios over seeds, and what they cost.

    A ratio is the median over seeds, and its ``_lowest`` and ``_highest`` their range.
    ``ratio_low`` and ``ratio_high`` are the outermost ends of the meter's intervals of all seeds.
    ``series`` is by :func:`series_ratio`, and ``beyond_series`` the ratio over that.

    Differences of accuracy are the answer's less the deep network's, means over seeds with the
    standard error by their spread, and 0 where the answer is the deep network. That of validation
    is at least 0 by the question; that of the test tells what of it was luck.
    """
    result: list[dict[str, object]] = []
    for layers, batch_size in sorted({(row.layers, row.batch_size) for row in rows}):
        own = [row for row in rows if (row.layers, row.batch_size) == (layers, batch_size)]
        series = [series_ratio(row, rows) for row in own]
        gained, tests = (
            [answer - deep for deep, answer in (row.accuracies(part) for row in own)]
            for part in ("validation", "test")
        )
        error = statistics.stdev(tests) / math.sqrt(len(own)) if len(own) > 1 else math.nan
        result.append(
            {
                "layers": layers,
                "batch_size": batch_size,
                "seeds": len(own),
                **_spread("ratio", [row.ratio for row in own]),
                "ratio_low": _digits(min(row.ratio_low for row in own)),
                "ratio_high": _digits(max(row.ratio_high for row in own)),
                **_spread("series", series),
                **_spread("beyond_series", [row.ratio / by for row, by in zip(own, series)]),
                **_spread("energy_ratio", [row.energy_ratio for row in own]),
                "validation_difference": _digits(statistics.fmean(gained)),
                "test_difference": _digits(statistics.fmean(tests)),
                "test_difference_error": _digits(error),
                "trainings": _digits(statistics.median(row.trainings for row in own)),
                "cost": _digits(statistics.median(row.cost for row in own)),
            }
        )
    return result


def draw(rows: Sequence[Row]) -> go.Figure:
    """Accuracy against latency of the series and of the answers, for each seed."""
    figure = make_subplots(
        1,
        2,
        subplot_titles=("validation: what was asked for", "test: what was not seen before"),
        shared_yaxes=True,
        horizontal_spacing=0.03,
    )
    colours = dict(zip(sorted({row.layers for row in rows}), qualitative.D3))

    def add(column: int, points: Iterable[tuple[float, float]], **style: Any) -> None:
        x, y = zip(*points)
        figure.add_scatter(x=x, y=y, row=1, col=column, **style)

    for column, part in enumerate(("validation", "test"), start=1):
        shown = {"showlegend": column == 1}
        answers, means = [], []
        for layers, colour in colours.items():
            series = []
            for row in (row for row in rows if row.layers == layers):
                deep, answer = zip(
                    (1000 * row.deep_latency, 1000 * row.answer_latency), row.accuracies(part)
                )
                series.append(deep)
                answers.append(answer)
                dots = {"color": colour, "width": 1.5, "dash": "dot"}
                add(column, (deep, answer), mode="lines", line=dots, showlegend=False)
            means.append(tuple(map(statistics.fmean, zip(*series))))
            marker: dict[str, object] = {"color": colour, "size": 10}
            add(column, series, mode="markers", name=f"{layers} layers", marker=marker, **shown)
        marker = {"symbol": "diamond-open", "color": "black", "size": 14, "line": {"width": 1.5}}
        add(column, answers, mode="markers", name="answers", marker=marker, **shown)
        line = {"color": "#bbb", "width": 2}
        add(column, means, mode="lines", name="series, mean of seeds", line=line, **shown)
    title = f"latency at batch {rows[0].batch_size}, ms"
    ticks = [digit * 10.0**power for power in range(-2, 5) for digit in (1, 1.5, 2, 3, 5, 7)]
    names = [f"{tick:g}" for tick in ticks]
    figure.update_xaxes(type="log", title=title, tickvals=ticks, ticktext=names)
    figure.update_yaxes(title="accuracy", tickformat=".1%", col=1)
    figure.update_layout(
        template="plotly_white",
        width=1000,
        height=520,
        font={"size": 14},
        margin={"t": 40, "r": 20},
        legend={"orientation": "h", "y": -0.2, "x": 0.5, "xanchor": "center"},
    )
    return figure


def read(path: Path) -> list[Row]:
    """Rows of a CSV; none if it is not there yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Row(**{f.name: _value(str(f.type), line[f.name]) for f in fields(Row)})
            for line in csv.DictReader(file)
        ]


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write all rows; NaN is an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _digits(value) for name, value in row.items()})


def _value(kind: str, text: str) -> Any:
    if kind == "float":
        return float(text or "nan")
    return int(text) if kind == "int" else text


def _spread(name: str, values: Iterable[float]) -> dict[str, object]:
    """Median and range of what is known; empty cells if nothing is."""
    known = [value for value in values if not math.isnan(value)] or [math.nan]
    found = {"": statistics.median(known), "_lowest": min(known), "_highest": max(known)}
    return {f"{name}{end}": _digits(value) for end, value in found.items()}


def _digits(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--data-root", type=Path, help="folder of torchvision's data sets")
    parser.add_argument("--layers", default="20,32,44,56", help="of the series, comma-separated")
    parser.add_argument("--base-width", type=int, default=16, help="of the series")
    parser.add_argument("--depth", default="1,2,3,4,5,6,7,8,9", help="of the searches")
    parser.add_argument("--width", default="4,6,8,10,12,16,20,24,28,32", help="of the searches")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--batch-sizes", default="1,128", help="the largest is searched for")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-noise", type=float, default=0.1, help="as of DeviceMeter")
    parser.add_argument("--known", type=Path, help="table of the same trainings, to look up")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed.csv")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    torch.set_num_threads(arguments.threads)

    seeds = [int(n) for n in arguments.seeds.split(",")]
    batch_sizes = sorted(int(n) for n in arguments.batch_sizes.split(","))
    depths = [int(n) for n in arguments.depth.split(",")]
    widths = [int(n) for n in arguments.width.split(",")]
    try:
        series = {
            n: shape_of_layers(n, arguments.base_width)
            for n in sorted(int(text) for text in arguments.layers.split(","))
        }
    except ValueError as error:
        parser.error(f"--layers: {error}.")
    meters = {
        size: DeviceMeter(
            device=arguments.device,
            batch_size=size,
            threads=arguments.threads,
            max_noise=arguments.max_noise,
        )
        for size in batch_sizes
    }
    data = load(arguments.data, root=arguments.data_root)
    space = resnet(depths, widths, input_shape=tuple(data.train_x.shape[1:]), classes=data.classes)
    settings = {
        "data": data.name,
        "images": data.digest,
        "epochs": arguments.epochs,
        "recipe": asdict(Recipe()),
        "base_width": arguments.base_width,
        "depths": depths,
        "widths": widths,
        "fingerprint": meters[batch_sizes[-1]].fingerprint,
    }
    out: Path = arguments.out
    path = out.with_name(f"{out.stem}-trainings.csv")
    tables.check_same(path, settings)
    known = []
    if arguments.known:
        own = ("data", "images", "epochs", "recipe")
        tables.check_same(arguments.known, {name: settings[name] for name in own})
        known = tables.read(arguments.known)
    source = tables.provenance(**settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    tables.add_provenance(path, source)
    device = meters[batch_sizes[-1]].setting.device
    trainings = Trainings(path, known, space, data, arguments.epochs, device)
    # All searches see the same figures, also those that begin again after an interruption.
    measured = out.with_name(f"{out.stem}-latencies.csv")
    tables.measured(measured, space, meters[batch_sizes[-1]])
    table = TableMeter(measured)

    rows = read(out)
    for seed in seeds:
        done = {row.key for row in rows}
        found: dict[int, Found] = {}
        for layers, deep in series.items():
            if all((seed, layers, size) in done for size in batch_sizes):
                continue
            print(f"seed {seed}, {layers} layers ({write_shape(deep)}):", flush=True)
            answer = search(trainings, table, deep, seed)
            if answer is None:
                print("  the training diverged, so that there is nothing to ask for", flush=True)
                continue
            found[layers] = answer
            print(
                f"  {write_shape(answer.answer)} has {answer.answer_validation:.4f}, wanted was "
                f"{answer.deep_validation:.4f}: {answer.trainings} trainings, {answer.stop}",
                flush=True,
            )
        if not found:
            continue
        shapes = sorted({shape for f in found.values() for shape in (f.deep, f.answer)})
        source["energy"] = "measured"
        for size, meter in meters.items():
            latencies = meter.measure(space, shapes, "latency")
            energies: Mapping[Shape, Measurement] = {}
            try:
                energies = meter.measure(space, shapes, "energy")
            except EnergyUnavailable as error:
                source["energy"] = str(error)
            rows += [
                make_row(seed, layers, size, f, latencies, energies)
                for layers, f in found.items()
                if (seed, layers, size) not in done
            ]
        write(out, [asdict(row) for row in rows])
        rows = read(out)  # As whoever goes on will see them.
        write(out.with_name(f"{out.stem}-summary.csv"), summarize(rows))
        tables.add_provenance(out, source)
    if not rows:
        raise SystemExit("Every training of the series diverged; there is nothing to compare.")
    shutil.rmtree(trainings.weights, ignore_errors=True)
    searched = [row for row in rows if row.batch_size == batch_sizes[-1]]
    write_plot(out.with_suffix(".png"), draw(searched))
    for line in summarize(rows):
        print("  ".join(f"{name} {value}" for name, value in line.items() if value != ""))


if __name__ == "__main__":
    main()
