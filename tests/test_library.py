"""The examples of the README, with real networks, real data and a real device."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState
from sklearn.datasets import load_digits
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import DeviceMeter
from optuna_shape import EnergyUnavailable
from optuna_shape import Shape
from optuna_shape import ShapeDashboard
from optuna_shape import ShapeProblem
from optuna_shape import ShapePruner
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape.measure.counters import find_counter
from optuna_shape.records import StudyRecords

EPOCHS = 6


def build(shape: Shape) -> nn.Module:
    """A perceptron of the user's own: depth hidden layers of width units."""
    sizes = [64, *[shape.width] * shape.depth]
    hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(shape.width, 10))


def own_space() -> DesignSpace:
    return DesignSpace(range(1, 4), [2, 4, 8, 16], build, input_shape=(64,), name="perceptron")


def ask(goal: str = "accuracy", *constraints: str) -> ShapeProblem:
    # A shared machine may be busy while the tests run; that is not what is tested here.
    meter = DeviceMeter(device="cpu", batch_size=64, max_noise=100.0)
    return ShapeProblem(own_space(), goal, constraints, meter=meter, epochs=EPOCHS)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32) / 16
    y = torch.tensor(data.target)
    return x[:1200], y[:1200], x[1200:], y[1200:]


class Train:
    """A user's own training loop."""

    def __init__(self, digits: tuple[torch.Tensor, ...]) -> None:
        self.digits = digits
        self.interrupt_at: int | None = None
        self.calls = 0

    def __call__(self, model: nn.Module, trial: optuna.Trial) -> float:
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        train_x, train_y, x, y = self.digits
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        accuracy = 0.0
        for epoch in range(1, EPOCHS + 1):
            for batch in torch.randperm(len(train_x)).split(100):
                loss = nn.functional.cross_entropy(model(train_x[batch]), train_y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                accuracy = (model(x).argmax(1) == y).float().mean().item()
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy


def shapes_trained(study: optuna.Study) -> list[Shape]:
    return [
        Shape(trial.params["depth"], trial.params["width"])
        for trial in study.trials
        if trial.state == TrialState.COMPLETE
    ]


def test_the_example_runs_and_resumes(digits: tuple[torch.Tensor, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    train = Train(digits)
    train.interrupt_at = 4
    for run in range(2):
        problem = ask("accuracy", "latency <= 100 % of (3, 16)", "size <= 6 kB")
        study = optuna.create_study(
            study_name="digits",
            storage=f"sqlite:///{tmp_path / 'shapes.db'}",
            load_if_exists=True,
            direction=problem.direction,
            sampler=ShapeSampler(problem, seed=0),
            pruner=ShapePruner(problem),
        )
        callbacks = [ShapeTerminator(problem), ShapeDashboard(problem)]
        if run == 0:
            with pytest.raises(KeyboardInterrupt):
                study.optimize(problem.objective(train), callbacks=callbacks)
            assert len(shapes_trained(study)) == 3
        else:
            study.optimize(problem.objective(train), callbacks=callbacks)
    trained = shapes_trained(study)
    # A machine that is busy while it is measured may leave fewer.
    assert len(trained) == len(set(trained)) >= min(6, len(problem.feasible(study)))
    assert StudyRecords(study).stop() is not None
    best = problem.best(study)
    assert best is not None
    assert best.trial.number == study.best_trial.number
    assert best.accuracy > 0.6
    assert best.size is not None
    assert best.size <= 6_000
    assert best.latency is not None
    assert 0 < best.latency < 1
    assert best.energy is None


def test_the_define_by_run_example(digits: tuple[torch.Tensor, ...]) -> None:
    torch.manual_seed(0)
    problem = ask("size", "accuracy >= 60 %")
    train = Train(digits)
    study = optuna.create_study(direction=problem.direction, sampler=ShapeSampler(problem, seed=0))

    def objective(trial: optuna.Trial) -> float:
        shape = problem.suggest(trial)
        model = problem.space.build(shape)
        return problem.record(trial, train(model, trial))

    study.optimize(objective, callbacks=[ShapeTerminator(problem)])
    best = problem.best(study)
    assert best is not None
    assert best.accuracy >= 0.6
    assert (
        best.size == study.best_value == 4 * sum(p.numel() for p in build(best.shape).parameters())
    )


def test_energy_is_measured_or_refused_before_any_training() -> None:
    problem = ask("accuracy", "energy <= 40 mJ")
    study = optuna.create_study(direction="maximize", sampler=ShapeSampler(problem))
    try:
        find_counter(torch.device("cpu"))
    except EnergyUnavailable:
        with pytest.raises(EnergyUnavailable, match="powercap"):
            problem.screen(study)
        return
    screening = problem.screen(study)
    assert all(screening.value("energy", shape) for shape in screening.feasible)


def test_a_shape_that_does_not_fit_in_memory_is_over_and_the_search_goes_on() -> None:
    def greedy(shape: Shape) -> nn.Module:
        class Greedy(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(4, shape.width)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if shape.width == 8 and x.device.type != "meta":
                    torch.empty(2**60)
                return self.layer(x)

        return Greedy()

    space = DesignSpace([1], [4, 8, 16], greedy, input_shape=(4,))
    meter = DeviceMeter(device="cpu", max_noise=100.0)
    problem = ShapeProblem(space, "accuracy", ["latency <= 10 s"], meter=meter)
    study = optuna.create_study(direction="maximize", sampler=ShapeSampler(problem))
    assert problem.feasible(study) == (Shape(1, 4), Shape(1, 16))
    assert "memory" in problem.screen(study).verdicts[Shape(1, 8)].reason
