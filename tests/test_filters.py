from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

import optuna
import pytest

from optuna_shape import DesignSpace
from optuna_shape import Measurement
from optuna_shape import NoisyMachine
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape.filters import Measurer

SPACE = DesignSpace(range(1, 41), [8])


class FailingMeter:
    """Measures some shapes, and then no more: the machine turned noisy, or Ctrl-C was pressed."""

    fingerprint = "failing"

    def __init__(self, error: BaseException, after: int) -> None:
        self.error, self.after = error, after
        self.batches: list[int] = []

    def measure(
        self,
        space: DesignSpace,
        shapes: Sequence[Shape],
        quantity: str,
        bound: float | None = None,
    ) -> Mapping[Shape, Measurement]:
        if sum(self.batches) + len(shapes) > self.after:
            raise self.error
        self.batches.append(len(shapes))
        return {shape: Measurement.exact(float(shape.depth), self.fingerprint) for shape in shapes}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), NoisyMachine("varies by 40 %")])
@pytest.mark.parametrize(("quantity", "kept"), [("latency", 32), ("energy", 35)])
def test_what_was_measured_before_an_interruption_is_kept(
    error: BaseException, quantity: str, kept: int
) -> None:
    stored: dict[Shape, Measurement] = {}
    meter = FailingMeter(error, after=35)
    measurer = Measurer(SPACE, meter, {}, lambda _, new: stored.update(new))
    with pytest.raises(type(error)):
        measurer.measure(quantity, SPACE.shapes, None)
    assert list(stored) == list(SPACE.shapes[:kept])

    patient = FailingMeter(error, after=100)
    again = Measurer(SPACE, patient, {quantity: stored}, lambda _, new: stored.update(new))
    assert list(again.measure(quantity, SPACE.shapes, None)) == list(SPACE.shapes)
    assert sum(patient.batches) == len(SPACE) - kept


def test_an_estimate_is_called_one_wherever_it_is_shown() -> None:
    class Estimating(FailingMeter):
        def measure(self, *args: object, **options: object) -> Mapping[Shape, Measurement]:
            measured = super().measure(*args, **options)  # type: ignore[arg-type]
            return {s: replace(m, note="estimate: 45 W x latency") for s, m in measured.items()}

    problem = ShapeProblem(
        SPACE, "accuracy", ["energy <= 20 J"], meter=Estimating(ValueError(), after=100)
    )
    study = optuna.create_study(direction="maximize", sampler=ShapeSampler(problem, seed=0))
    screening = problem.screen(study)
    assert screening.label("energy") == "energy (estimate)"
    over = screening.verdicts[Shape(21, 8)]
    assert over.reason == "energy 21 J (estimate: 45 W x latency) > 20 J"
    study.optimize(lambda t: problem.record(t, 1 - 0.5 / problem.suggest(t).depth), n_trials=2)
    answer = problem.best(study)
    assert answer is not None
    assert "energy is an estimate: 45 W x latency" in str(answer)
