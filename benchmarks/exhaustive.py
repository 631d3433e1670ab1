"""ShapeSampler against exhaustive search, really training both.

    python benchmarks/exhaustive.py                      # digits, three seeds, about 15 minutes
    python benchmarks/exhaustive.py --data fashion-mnist
    python benchmarks/exhaustive.py --record FILE.csv    # record every training of the grid

Both searches go through the same ``problem.suggest`` with the same measurements, constraints,
training code and seeds, so shapes over a constraint cost neither anything. The exhaustive search
is :class:`optuna.samplers.GridSampler`. Training cost is the sum over trainings of epochs times
the FLOPs of the shape. Regret is what the answer lacks to the best accuracy that the exhaustive
search of the same seed saw.

``--record`` trains every shape of the grid, whatever the constraints, for every seed, and appends
each training to a table that other benchmarks replay. It can be interrupted and run again, or be
told after how many ``--minutes`` to begin no further training. On a GPU, ``--device cuda
--processes 8`` keeps it busy. Latency and energy are measured before the first training begins,
and kept in ``FILE-shapes.csv``.
"""

from __future__ import annotations

import argparse
import csv
import functools
import math
import multiprocessing
import time
import warnings
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import Future
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import wait
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import optuna
import tables
import torch
from optuna.trial import TrialState

from optuna_shape import DesignSpace
from optuna_shape import DeviceMeter
from optuna_shape import Measurement
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape.cli._space import make_space
from optuna_shape.families import FAMILIES
from optuna_shape.train.data import DATASETS
from optuna_shape.train.data import Data
from optuna_shape.train.data import load
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.trainer import train

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "method",
    "seed",
    "feasible",
    "trained",
    "cut",
    "epochs",
    "cost_share",
    "seconds",
    "best_shape",
    "best_accuracy",
    "regret",
    "stop",
)


class Remembering:
    """A meter that measures every shape once, so that both searches see the same figures."""

    def __init__(self, meter: DeviceMeter) -> None:
        self._meter = meter
        self._known: dict[tuple[str, Shape], Measurement] = {}
        self.fingerprint = meter.fingerprint

    def measure(
        self,
        space: DesignSpace,
        shapes: Sequence[Shape],
        quantity: str,
        bound: float | None = None,
    ) -> Mapping[Shape, Measurement]:
        new = [shape for shape in shapes if (quantity, shape) not in self._known]
        for shape, measurement in self._meter.measure(space, new, quantity, bound).items():
            self._known[quantity, shape] = measurement
        return {shape: self._known[quantity, shape] for shape in shapes}


def search(
    problem: ShapeProblem,
    data: Data,
    seed: int,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
    callbacks: Sequence[Callable[[optuna.Study, optuna.trial.FrozenTrial], None]],
    device: str,
) -> tuple[optuna.Study, float]:
    """Run one search to its end; the study, and the seconds it took, without measuring."""
    study = optuna.create_study(direction=problem.direction, sampler=sampler, pruner=pruner)

    def train_one(model: torch.nn.Module, trial: optuna.Trial) -> float:
        def report(epoch: int, accuracy: float) -> None:
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        assert problem.epochs is not None
        return train(model, data, epochs=problem.epochs, seed=seed, device=device, report=report)

    inner = problem.objective(train_one)

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(seed)
        return inner(trial)

    problem.screen(study)
    begin = time.perf_counter()
    study.optimize(objective, callbacks=list(callbacks))
    return study, time.perf_counter() - begin


def training_cost(problem: ShapeProblem, study: optuna.Study) -> float:
    """Sum of epochs really run times the FLOPs of the shape."""
    costs = problem.costs(problem.screen(study))
    return sum(
        len(trial.intermediate_values) * costs[shape_of(trial)]
        for trial in study.trials
        if trial.intermediate_values
    )


def shape_of(trial: optuna.trial.FrozenTrial) -> Shape:
    return Shape(trial.params["depth"], trial.params["width"])


def compare(problem: ShapeProblem, data: Data, seed: int, device: str) -> list[dict[str, object]]:
    """One row for the exhaustive search and one for ours, with the same seed."""
    grid = {"depth": list(problem.space.depths), "width": list(problem.space.widths)}
    exhaustive, exhaustive_seconds = search(
        problem,
        data,
        seed,
        optuna.samplers.GridSampler(grid, seed=0),
        optuna.pruners.NopPruner(),
        [],
        device,
    )
    ours, our_seconds = search(
        problem,
        data,
        seed,
        ShapeSampler(problem, seed=seed),
        optuna.pruners.NopPruner(),  # As the command line does by default.
        [ShapeTerminator(problem)],
        device,
    )
    truth = {
        shape_of(t): t.user_attrs["accuracy"]
        for t in exhaustive.trials
        if t.state == TrialState.COMPLETE
    }
    total = training_cost(problem, exhaustive)
    rows = []
    for method, study, seconds in (
        ("GridSampler (exhaustive)", exhaustive, exhaustive_seconds),
        ("ShapeSampler", ours, our_seconds),
    ):
        best = problem.best(study)
        stop = study._storage.get_study_system_attrs(study._study_id).get("shape:stop", {})
        states = [trial.state for trial in study.trials if trial.intermediate_values]
        rows.append(
            {
                "method": method,
                "seed": seed,
                "feasible": len(problem.feasible(study)),
                "trained": states.count(TrialState.COMPLETE),
                "cut": states.count(TrialState.PRUNED),
                "epochs": sum(len(trial.intermediate_values) for trial in study.trials),
                "cost_share": round(training_cost(problem, study) / total, 4),
                "seconds": round(seconds, 1),
                "best_shape": "" if best is None else f"{best.shape.depth}x{best.shape.width}",
                "best_accuracy": "" if best is None else round(best.accuracy, 5),
                "regret": (
                    math.nan if best is None else round(max(truth.values()) - truth[best.shape], 5)
                ),
                "stop": stop.get("reason", "all trained"),
            }
        )
    return rows


@dataclass(frozen=True)
class Setting:
    """What all trainings have in common, so that another process can do some of them."""

    data: str
    data_root: Path | None
    family: str
    options: tuple[str, ...]
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    epochs: int
    device: str
    threads: int

    def load(self) -> Data:
        return load(self.data, root=self.data_root)

    def space(self, data: Data) -> DesignSpace:
        return make_space(
            self.family,
            self.options,
            depth=self.depths,
            width=self.widths,
            input_shape=tuple(data.train_x.shape[1:]),
            classes=data.classes,
        )

    def train(self, shape: Shape, seed: int) -> tuple[float, tuple[float, ...]]:
        """Seconds of a training, and its curve."""
        data, space = _prepared(self)
        begin = time.perf_counter()
        _, curve = tables.train_anew(
            space, data, shape, seed, epochs=self.epochs, device=self.device
        )
        return time.perf_counter() - begin, curve


@functools.cache
def _prepared(setting: Setting) -> tuple[Data, DesignSpace]:
    """Data and space, once in each process."""
    torch.set_num_threads(setting.threads)
    data = setting.load()
    return data, setting.space(data)


def record(
    path: Path,
    setting: Setting,
    meter: DeviceMeter,
    seeds: Sequence[int],
    *,
    processes: int,
    minutes: float,
) -> None:
    """Train every shape for every seed that the table does not hold yet, while there is time.

    Shapes are measured first, before any training disturbs them, and kept in a file beside.
    """
    deadline = time.monotonic() + 60 * minutes
    _, space = _prepared(setting)
    known = tables.read(path)
    done = {(training.shape, training.seed) for training in known}
    costs = tables.measured(path.with_name(f"{path.stem}-shapes.csv"), space, meter)
    energies = costs.get("energy", {})
    # Seed by seed: an interrupted table is complete for the seeds it has.
    left = [(shape, seed) for seed in seeds for shape in space.shapes if (shape, seed) not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running: dict[Future[tuple[float, tuple[float, ...]]], tuple[Shape, int]] = {}
        while running or (left and time.monotonic() < deadline):
            while left and len(running) < processes and time.monotonic() < deadline:
                job = left.pop(0)
                running[pool.submit(setting.train, *job)] = job
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                (seconds, curve), (shape, seed) = future.result(), running.pop(future)
                training = tables.Training(
                    *shape,
                    seed,
                    seconds,
                    *(costs[name][shape] for name in ("flops", "latency", "size")),
                    curve,
                    energies.get(shape, math.nan),
                )
                tables.append(path, training)
                print(f"seed {seed} shape {shape}: {curve[-1]:.4f} in {seconds:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="digits", choices=sorted(DATASETS))
    parser.add_argument("--data-root", type=Path, help="folder of torchvision's data sets")
    parser.add_argument("--family", default="resnet", choices=sorted(FAMILIES))
    parser.add_argument("--family-option", action="append", default=[], help="name=value")
    parser.add_argument("--depth", default="1,2,3,4,5,6", help="comma-separated")
    parser.add_argument("--width", default="4,6,8,12,16,24", help="comma-separated")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--batch-size", type=int, default=32, help="of the measured calls")
    parser.add_argument("--constraint", action="append", help="may be repeated")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--max-noise", type=float, default=0.1, help="of a machine to measure on")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--record", type=Path, help="table to make or to go on with")
    parser.add_argument("--processes", type=int, default=1, help="that record at once")
    parser.add_argument("--minutes", type=float, default=math.inf, help="to begin trainings in")
    parser.add_argument("--out", type=Path, help="CSV of the comparison")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    torch.set_num_threads(arguments.threads)

    seeds = [int(n) for n in arguments.seeds.split(",")]
    setting = Setting(
        arguments.data,
        arguments.data_root,
        arguments.family,
        tuple(arguments.family_option),
        tuple(int(n) for n in arguments.depth.split(",")),
        tuple(int(n) for n in arguments.width.split(",")),
        arguments.epochs,
        arguments.device,
        arguments.threads,
    )
    data, space = _prepared(setting)
    constraints = arguments.constraint or [f"latency <= 50 % of {space.shapes[-1]}"]
    meter = DeviceMeter(
        device=arguments.device,
        batch_size=arguments.batch_size,
        threads=arguments.threads,
        max_noise=arguments.max_noise,
    )
    problem = ShapeProblem(
        space,
        "accuracy",
        constraints,
        meter=Remembering(meter),
        epochs=arguments.epochs,
    )
    settings = {
        "data": data.name,
        "images": data.digest,
        "training_images": len(data.train_x),
        "validation_images": len(data.validation_x),
        "epochs": arguments.epochs,
        "recipe": asdict(Recipe()),
        "family": arguments.family,
        "family_options": arguments.family_option,
        "latency_batch_size": arguments.batch_size,
    }
    source = tables.provenance(**settings)
    if arguments.record:
        tables.check_same(arguments.record, settings)
        tables.add_provenance(arguments.record, source)
        record(
            arguments.record,
            setting,
            meter,
            seeds,
            processes=arguments.processes,
            minutes=arguments.minutes,
        )
        return
    out = arguments.out or RESULTS / f"exhaustive-{data.name}.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for seed in seeds:
        rows += compare(problem, data, seed, arguments.device)
        for row in rows[-2:]:
            print("  ".join(f"{name} {row[name]}" for name in COLUMNS), flush=True)
        with out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    tables.write_provenance(out, {**source, "constraints": constraints})
    ours = [row for row in rows if row["method"] == "ShapeSampler"]
    shares = sorted(float(str(row["cost_share"])) for row in ours)
    regrets = sorted(float(str(row["regret"])) for row in ours)
    print(
        f"ShapeSampler spent {shares[len(shares) // 2]:.3f} of the exhaustive training cost "
        f"(median of {len(shares)} seeds, {shares[0]:.3f} to {shares[-1]:.3f}): "
        f"{1 / shares[len(shares) // 2]:.1f} times less; regret median "
        f"{regrets[len(regrets) // 2]:.4f}, largest {regrets[-1]:.4f}. Written to {out}."
    )


if __name__ == "__main__":
    main()
