"""How far measurements and verdicts can be trusted, and what they cost.

    python benchmarks/measuring.py                   # every part, on this machine's CPU
    python benchmarks/measuring.py --device cuda     # on a GPU
    python benchmarks/measuring.py --parts simulated,energy

Parts, each of which writes its figures into the table as it ends:

``simulated``  verdicts on a simulated clock with outliers, autocorrelation and drift
``energy``     energy from a simulated counter that looks at 25 of every 100 ms
``truth``      latencies of a grid of residual networks in several other processes, and what they
               say: spread between processes (A/A), affine in depth, monotone in width
``planted``    verdicts on bounds planted at known margins from the truth
``boundary``   boundary mode against measuring everything, with a bound that half the grid is over
``share``      measuring as a share of a whole search that trains
``board``      on a GPU: tick period of the energy counter, repeated energies, device time

The truth of a shape is the median over sessions in processes of their own; it is kept in a table
beside the figures, and an interrupted run goes on with the sessions that are missing.
"""

from __future__ import annotations

import argparse
import csv
import functools
import math
import random
import statistics
import time
import warnings
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import simulated
import tables
import torch

from optuna_shape import DesignSpace
from optuna_shape import DeviceMeter
from optuna_shape import HardFilter
from optuna_shape import Measurement
from optuna_shape import NoisyMachine
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapePruner
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape.constraints import Constraint
from optuna_shape.families import resnet
from optuna_shape.filters import Measurer
from optuna_shape.measure import elsewhere
from optuna_shape.measure.counters import NvmlCounter
from optuna_shape.measure.energy import energy_per_call
from optuna_shape.measure.energy import watch_idle
from optuna_shape.measure.latency import CPU
from optuna_shape.measure.latency import settle
from optuna_shape.measure.repeat import spread
from optuna_shape.train.data import DATASETS
from optuna_shape.train.trainer import train

RESULTS = Path(__file__).parent / "results"
DEPTHS, WIDTHS = range(1, 21), range(4, 65, 4)
SMALL_DEPTHS, SMALL_WIDTHS = (1, 2, 4), (4, 8)  # --small: to see that the script runs
MARGINS = (0.05, 0.10, 0.20)
TOLERATED = {0.05: 0.02, 0.10: 0.01, 0.20: 0.003}  # wrong verdicts


@dataclass(frozen=True)
class Figure:
    """One figure of the table.

    Attributes:
        part: Which part found it.
        name: What it is.
        value: The figure.
        target: What it should be, in words; empty where it is only stated.
        detail: Numbers behind it.
    """

    part: str
    name: str
    value: float
    target: str = ""
    detail: str = ""


# On a simulated clock: the truth is known exactly.


def _machines() -> dict[str, Callable[[int], simulated.SimulatedMachine]]:
    machine = simulated.SimulatedMachine

    def drifting(seed: int) -> simulated.SimulatedMachine:
        phase = random.Random(seed).random()
        return machine(
            seed, mood=lambda now: 1 + 0.03 * math.sin(2 * math.pi * (now / 1.5 + phase))
        )

    return {
        "noise of 3 %": lambda seed: machine(seed, memory=0.0, outliers=0.0),
        "outliers, 5 % of calls take twice as long": lambda seed: machine(seed, outliers=0.05),
        "autocorrelation of 0.9 from call to call": lambda seed: machine(seed, memory=0.9),
        "drift of 3 % either way": drifting,
    }


def simulated_clock(sessions: int) -> Iterable[Figure]:
    """Wrong verdicts of a session, and after the guard and the second process, by true margin."""
    shape = Shape(1, 1)
    for name, machine in _machines().items():
        truth = _median_block(machine(10_000))
        for margin in (0.0, 0.01, 0.02, *MARGINS):
            wrong = undecided = unguarded = total = 0
            for seed in range(sessions):
                for sign in (-1, 1):
                    bound = truth / (1 + sign * margin)
                    one, other = machine(2 * seed), machine(2 * seed + 1)
                    first = one.measure({shape: 1e-3}, bound)
                    second = functools.partial(other.measure, {shape: 1e-3}, bound)
                    settled = settle(first, CPU.guard, bound, lambda _, again=second: again())
                    total += 1
                    unguarded += _is_wrong(first[shape], bound, truth, sign)
                    wrong += _is_wrong(settled[shape], bound, truth, sign)
                    undecided += settled[shape].low <= bound < settled[shape].high
            target = "at most 2 %: both bounds of 1 %" if margin == 0 else "at most 1 %"
            yield Figure(
                "simulated",
                f"{name}: wrong verdicts of one session, true margin {margin:.0%}",
                unguarded / total,
                target if "drift" not in name else "",
                f"{unguarded} of {total}",
            )
            if margin:
                yield Figure(
                    "simulated",
                    f"{name}: wrong verdicts in the end, true margin {margin:.0%}",
                    wrong / total,
                    "at most 1 %",
                    f"{wrong} of {total}, {undecided} undecided",
                )


def _median_block(machine: simulated.SimulatedMachine) -> float:
    """What the sequential test is about: the median of blocks, which are medians of calls."""
    run = machine.network(1e-3)

    def block() -> float:
        times = []
        for _ in range(5):
            before = machine.now
            run()
            times.append(machine.now - before)
        return statistics.median(times)

    return statistics.median(block() for _ in range(20_000))


def _is_wrong(measurement: Measurement, bound: float, truth: float, sign: int) -> bool:
    """Return whether a verdict contradicts the truth; at a margin of 0, whether there is one."""
    within, over = measurement.high <= bound, measurement.low > bound
    if math.isclose(bound, truth):
        return within or over
    return within if sign > 0 else over


def simulated_energy(seeds: int) -> Iterable[Figure]:
    """Errors with a counter that adds, every 100 ms, the mean power of the last 25 of them."""
    for milliseconds, reading in product((0.3, 3, 20, 100), (0.0, 200e-6, 500e-6)):
        seconds = milliseconds / 1e3
        errors = []
        for seed in range(seeds):
            board = simulated.SimulatedBoard(seed, reading=reading)
            windows = energy_per_call(
                board.call(seconds), board, board.clock, board.sleep, random.Random(seed)
            )
            mean = statistics.fmean(window.joules for window in windows)
            errors.append(abs(mean / simulated.joules(seconds) - 1))
        cost = f", {1e6 * reading:g} us to read the counter" if reading else ""
        yield Figure(
            "energy",
            f"error at {milliseconds:g} ms per call{cost}, largest",
            max(errors),
            "at most 1 %",
            f"median {statistics.median(errors):.3%} of {seeds} boards",
        )


# On the real device.


def read_truth(path: Path) -> dict[int, dict[Shape, Measurement]]:
    """Sessions by number; those that were interrupted are absent."""
    sessions: dict[int, dict[Shape, Measurement]] = {}
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                numbers = (float(row[name]) for name in ("latency", "low", "high"))
                shape = Shape(int(row["depth"]), int(row["width"]))
                sessions.setdefault(int(row["session"]), {})[shape] = Measurement(
                    *numbers, int(row["samples"]), ""
                )
    return sessions


def write_truth(path: Path, sessions: Mapping[int, Mapping[Shape, Measurement]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["session", "depth", "width", "latency", "low", "high", "samples"])
        for number, session in sorted(sessions.items()):
            for shape, m in sorted(session.items()):
                figures = [f"{value:.6g}" for value in (m.value, m.low, m.high)]
                writer.writerow([number, *shape, *figures, m.samples])


def find_truth(
    path: Path, meter: DeviceMeter, space: DesignSpace, sessions: int
) -> dict[int, dict[Shape, Measurement]]:
    """Measure the whole grid once in each of several processes, one after the other."""
    known = read_truth(path)
    for number in range(sessions):
        if number not in known:
            begin = time.perf_counter()
            known[number] = dict(
                elsewhere.measure_elsewhere(Patient(meter), space, space.shapes, "latency")
            )
            write_truth(path, known)
            print(f"session {number}: {time.perf_counter() - begin:.0f} s", flush=True)
    return known


def medians(sessions: Mapping[int, Mapping[Shape, Measurement]]) -> dict[Shape, float]:
    return {
        shape: statistics.median(session[shape].value for session in sessions.values())
        for shape in sessions[0]
    }


def truth_figures(
    sessions: Mapping[int, Mapping[Shape, Measurement]], space: DesignSpace
) -> Iterable[Figure]:
    """What repeated sessions of the grid say."""
    truth = medians(sessions)
    values = {shape: [s[shape].value for s in sessions.values()] for shape in truth}
    found = spread(values)
    yield Figure("truth", "A/A: standard deviation of a session (robust)", found.sigma)
    yield Figure("truth", "A/A: deviation from the median of the sessions, median", found.median)
    yield Figure("truth", "A/A: 90th percentile", found.ninetieth)
    yield Figure("truth", "A/A: largest", found.largest)
    residuals = []
    for width in space.widths:
        depths = np.array(space.depths, dtype=float)
        column = np.array([truth[Shape(depth, width)] for depth in space.depths])
        # Relative residuals: each equation is divided by what it should give.
        design = np.stack([np.ones_like(depths), depths], axis=1) / column[:, None]
        solution, *_ = np.linalg.lstsq(design, np.ones_like(column), rcond=None)
        residuals += np.abs(design @ solution - 1).tolist()
    yield Figure("truth", "affine in depth: residual, median", statistics.median(residuals))
    yield Figure("truth", "affine in depth: residual, 90th percentile", _quantile(residuals, 0.9))
    for axis in ("depth", "width"):
        steps = [
            truth[second] / truth[first] - 1
            for first in truth
            for second in truth
            if _follows(first, second, axis, space)
        ]
        down = [step for step in steps if step < 0]
        yield Figure(
            "truth",
            f"steps in {axis} that make a network faster",
            len(down) / len(steps),
            "",
            f"{len(down)} of {len(steps)}, by {-min(down, default=0.0):.1%} at most",
        )


def _follows(first: Shape, second: Shape, axis: str, space: DesignSpace) -> bool:
    depths, widths = list(space.depths), list(space.widths)
    d = depths.index(second.depth) - depths.index(first.depth)
    w = widths.index(second.width) - widths.index(first.width)
    return (d, w) == ((1, 0) if axis == "depth" else (0, 1))


def planted(
    meter: DeviceMeter, space: DesignSpace, truth: Mapping[Shape, float], every: int
) -> Iterable[Figure]:
    """Verdicts on bounds at known margins from the truth, one shape at a time."""
    patient = Patient(meter)
    shapes = space.shapes[::every]
    for margin in MARGINS:
        wrong = {-1: 0, 1: 0}
        undecided = confirmed = total = 0
        begin = time.perf_counter()
        for shape in shapes:
            for sign in (-1, 1):
                bound = truth[shape] / (1 + sign * margin)
                (m,) = patient.measure(space, [shape], "latency", bound).values()
                total += 1
                wrong[sign] += _is_wrong(m, bound, truth[shape], sign)
                undecided += m.low <= bound < m.high
                confirmed += m.note == "measured in two processes"
        yield Figure(
            "planted",
            f"wrong verdicts at a true margin of {margin:.0%}",
            sum(wrong.values()) / total,
            f"at most {TOLERATED[margin]:.1%}",
            f"{wrong[1]} wrongly within, {wrong[-1]} wrongly over, of {total}; {undecided} "
            f"undecided, {confirmed} measured in two processes, "
            f"{time.perf_counter() - begin:.0f} s",
        )


def boundary(
    meter: DeviceMeter, space: DesignSpace, truth: Mapping[Shape, float], repeats: int
) -> Iterable[Figure]:
    """Boundary mode and exhaustive mode in turn, each in its own order of things."""
    bound = statistics.median(truth.values())
    constraint = Constraint.parse(f"latency <= {bound:.6g} s")
    times: dict[str, list[float]] = {"boundary": [], "exhaustive": []}
    measured: list[int] = []
    false_within: list[float] = []
    false_over: list[float] = []
    inside = {shape for shape, value in truth.items() if value <= bound}
    for _ in range(repeats):
        for mode in ("exhaustive", "boundary"):
            measurer = Measurer(space, Patient(meter), {}, lambda *_: None)
            begin = time.perf_counter()
            verdicts = HardFilter(constraint, bound, measurer, mode).screen(space.shapes)
            times[mode].append(time.perf_counter() - begin)
            if mode == "boundary":
                within = {shape for shape, v in verdicts.items() if v.status == "within"}
                measured.append(len(measurer.known["latency"]))
                false_within += [truth[shape] / bound - 1 for shape in within - inside]
                false_over += [1 - truth[shape] / bound for shape in inside - within]
    cells = repeats * len(truth)
    most = len(inside) + len(truth) / 5
    yield Figure(
        "boundary",
        "false within, as a share of the grid",
        len(false_within) / cells,
        "0",
        f"{len(false_within)} of {cells}, over the bound by {max(false_within, default=0):.1%} "
        "at most",
    )
    yield Figure(
        "boundary",
        "false over, as a share of the grid",
        len(false_over) / cells,
        "at most 2 %",
        f"{len(false_over)} of {cells}, below the bound by {max(false_over, default=0):.1%} "
        "at most",
    )
    yield Figure(
        "boundary",
        "shapes measured, most",
        max(measured),
        f"at most {most:.0f}: those within plus 20 % of the grid",
        f"{len(inside)} of {len(truth)} are within; {measured}",
    )
    ratio = statistics.median(b / e for b, e in zip(times["boundary"], times["exhaustive"]))
    yield Figure(
        "boundary",
        "time of boundary mode, as a share of measuring everything",
        ratio,
        "at most 50 %",
        "; ".join(f"{mode} {[round(t) for t in seconds]} s" for mode, seconds in times.items()),
    )
    yield Figure(
        "boundary",
        "seconds to measure the grid in boundary mode",
        statistics.median(times["boundary"]),
    )


class Patient:
    """A meter that waits until the machine can be measured: others use it too."""

    def __init__(self, meter: DeviceMeter) -> None:
        self._meter = meter
        self.fingerprint = meter.fingerprint

    def measure(
        self,
        space: DesignSpace,
        shapes: Sequence[Shape],
        quantity: str,
        bound: float | None = None,
    ) -> Mapping[Shape, Measurement]:
        result: dict[Shape, Measurement] = {}
        for start in range(0, len(shapes), 16):
            batch = shapes[start : start + 16]
            while batch:
                try:
                    result.update(self._meter.measure(space, batch, quantity, bound))
                    batch = []
                except NoisyMachine as error:
                    print(f"waiting: {str(error)[:90]} ...", flush=True)
                    time.sleep(20)
        return result


def share(
    meter: DeviceMeter, space: DesignSpace, truth: Mapping[Shape, float], epochs: int
) -> Iterable[Figure]:
    """A whole search on digits with the bound of the boundary part; seconds of measuring in it."""
    bound = statistics.median(truth.values())
    data = DATASETS["digits"](seed=0)
    problem = ShapeProblem(
        space,
        "accuracy",
        [f"latency <= {bound:.6g} s"],
        meter=Patient(meter),
        epochs=epochs,
    )
    study = optuna.create_study(
        direction="maximize", sampler=ShapeSampler(problem, seed=0), pruner=ShapePruner(problem)
    )

    def train_one(model: torch.nn.Module, trial: optuna.Trial) -> float:
        def report(epoch: int, accuracy: float) -> None:
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        return train(
            model, data, epochs=epochs, seed=0, device=meter.setting.device, report=report
        )

    begin = time.perf_counter()
    screening = problem.screen(study)
    measuring = time.perf_counter() - begin
    study.optimize(problem.objective(train_one), callbacks=[ShapeTerminator(problem)])
    total = time.perf_counter() - begin
    best = problem.best(study)
    yield Figure(
        "share",
        f"measuring, as a share of a search on digits ({epochs} epochs)",
        measuring / total,
        "",
        f"{measuring:.0f} of {total:.0f} s; {len(screening.feasible)} of {len(space)} feasible, "
        f"{len(study.trials)} trials, answer {best.shape if best else None}",
    )


def board(meter: DeviceMeter, space: DesignSpace) -> Iterable[Figure]:
    """What only a GPU can tell."""
    device = meter.setting.device
    counter = NvmlCounter(device)
    torch.cuda.synchronize(device)
    idle = watch_idle(counter, time.sleep)
    yield Figure("board", "seconds between two ticks of the energy counter", idle.period)
    yield Figure("board", "watts of the idle board, with a context", idle.power)
    corners = [
        Shape(space.depths[0], space.widths[0]),
        Shape(space.depths[len(space.depths) // 2], space.widths[len(space.widths) // 2]),
        Shape(space.depths[-1], space.widths[-1]),
    ]
    energies: dict[Shape, list[float]] = {shape: [] for shape in corners}
    for _ in range(4):
        for shape, m in meter.measure(space, corners, "energy").items():
            energies[shape].append(m.value)
            if m.note:
                print(f"{shape}: {m.note}", flush=True)
    for shape, values in energies.items():
        mean = statistics.fmean(values)
        yield Figure(
            "board",
            f"energy of {shape}: standard deviation of four measurements",
            statistics.stdev(values) / mean,
            "",
            f"mean {1e3 * mean:.4g} mJ per call",
        )
    by_device = DeviceMeter(device, batch_size=meter.setting.batch_size, timing="device").measure(
        space, corners, "latency"
    )
    by_host = meter.measure(space, corners, "latency")
    for shape in corners:
        yield Figure(
            "board",
            f"device time of {shape}, as a share of what the host sees",
            by_device[shape].value / by_host[shape].value,
            "",
            f"host {1e3 * by_host[shape].value:.4g} ms",
        )


def _quantile(values: Sequence[float], q: float) -> float:
    return float(np.quantile(np.asarray(values), q))


def read_figures(path: Path) -> list[Figure]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Figure(r["part"], r["name"], float(r["value"]), r["target"], r["detail"])
            for r in csv.DictReader(file)
        ]


def write_figures(path: Path, figures: Iterable[Figure]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["part", "name", "value", "target", "detail"])
        for f in figures:
            writer.writerow([f.part, f.name, f"{f.value:.5g}", f.target, f.detail])


def main() -> None:
    known = ("simulated", "energy", "truth", "planted", "boundary", "share", "board")
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--parts", help=f"comma-separated, of {', '.join(known)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, help="1 on a CPU, 128 on a GPU")
    parser.add_argument("--sessions", type=int, default=5, help="processes behind the truth")
    parser.add_argument("--every", type=int, default=2, help="planted: every n-th shape")
    parser.add_argument("--repeats", type=int, default=3, help="boundary: times in each mode")
    parser.add_argument("--epochs", type=int, default=10, help="share: of a full training")
    parser.add_argument("--seeds", type=int, default=200, help="simulated: sessions of each kind")
    parser.add_argument("--small", action="store_true", help="a grid of 6 shapes")
    parser.add_argument("--out", type=Path, help="table of the figures")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)

    cuda = arguments.device != "cpu"
    parts = arguments.parts.split(",") if arguments.parts else list(known if cuda else known[:-1])
    if set(parts) - set(known):
        parser.error(f"--parts takes some of {', '.join(known)}")
    depths, widths = (SMALL_DEPTHS, SMALL_WIDTHS) if arguments.small else (DEPTHS, WIDTHS)
    space = resnet(depths, widths, input_shape=(1, 12, 12), classes=10)
    batch_size = arguments.batch_size or (128 if cuda else 1)
    meter = DeviceMeter(arguments.device, batch_size=batch_size, threads=1)
    out = arguments.out or RESULTS / f"measuring-{'cuda' if cuda else 'cpu'}.csv"
    truth_path = out.with_name(f"{out.stem}-grid.csv")

    @functools.cache
    def sessions() -> dict[int, dict[Shape, Measurement]]:
        return find_truth(truth_path, meter, space, arguments.sessions)

    @functools.cache
    def truth() -> dict[Shape, float]:
        return medians(sessions())

    run: dict[str, Callable[[], Iterable[Figure]]] = {
        "simulated": lambda: simulated_clock(arguments.seeds),
        "energy": lambda: simulated_energy(20),
        "truth": lambda: truth_figures(sessions(), space),
        "planted": lambda: planted(meter, space, truth(), arguments.every),
        "boundary": lambda: boundary(meter, space, truth(), arguments.repeats),
        "share": lambda: share(meter, space, truth(), arguments.epochs),
        "board": lambda: board(meter, space),
    }
    figures = read_figures(out)
    for part in parts:
        figures = [figure for figure in figures if figure.part != part]
        for figure in run[part]():
            figures.append(figure)
            print(
                f"{figure.part:10} {figure.name}: {figure.value:.4g}"
                f"{f' (target: {figure.target})' if figure.target else ''}"
                f"{f' [{figure.detail}]' if figure.detail else ''}",
                flush=True,
            )
        figures.sort(key=lambda figure: known.index(figure.part))
        write_figures(out, figures)
        tables.write_provenance(
            out,
            tables.provenance(
                fingerprint=meter.fingerprint,
                grid=f"depth {list(depths)}, width {list(widths)}, input (1, 12, 12)",
                sessions=arguments.sessions,
            ),
        )


if __name__ == "__main__":
    main()
