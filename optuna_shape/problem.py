"""What is asked of a search, and how an Optuna trial is made of it."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal
from weakref import WeakKeyDictionary

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.study import StudyDirection
from optuna.trial import BaseTrial
from optuna.trial import FrozenTrial
from optuna.trial import Trial
from optuna.trial import TrialState

from optuna_shape import families
from optuna_shape.constraints import GOALS
from optuna_shape.constraints import Constraint
from optuna_shape.constraints import format_quantity
from optuna_shape.errors import InvalidAccuracy
from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import InvalidSpace
from optuna_shape.errors import NoFeasibleShape
from optuna_shape.errors import StudyMismatch
from optuna_shape.filters import COUNTED_FINGERPRINT
from optuna_shape.filters import Measurer
from optuna_shape.filters import RecordedMeter
from optuna_shape.filters import Screening
from optuna_shape.filters import ShapeFilter
from optuna_shape.filters import ask_filters
from optuna_shape.filters import judge
from optuna_shape.filters import require_feasible
from optuna_shape.measure.counting import COUNTED
from optuna_shape.measure.measurement import Meter
from optuna_shape.records import ACCURACY
from optuna_shape.records import DIVERGED
from optuna_shape.records import INTERRUPTED
from optuna_shape.records import NEWER
from optuna_shape.records import StudyRecords
from optuna_shape.records import claimed_shape
from optuna_shape.records import is_storage_failure
from optuna_shape.records import reading
from optuna_shape.records import shape_of
from optuna_shape.records import stop_loop
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

if TYPE_CHECKING:
    from torch import nn

_logger = logging.getLogger(f"optuna.{__name__}")

#: A user's training loop, which takes a fresh network and the trial, and returns accuracy in
#: [0, 1].
TrainingLoop = Callable[["nn.Module", Trial], float]

_OF_THIS_PROCESS = ("_lock", "_screenings", "_costs")

# What the description of a problem holds, and that of its space.
_DESCRIBED = ("space", "goal", "constraints", "epochs", "filter_mode")
_OF_SPACE = ("depths", "widths", "input_shape", "family", "name")

#: Name of the constraint that an enqueued shape outside the design space violates.
OUTSIDE = "design space"


@dataclass(frozen=True)
class Answer:
    """The best trained shape within every constraint, with its measured properties.

    Attributes:
        shape: Depth and width.
        accuracy: Fraction in [0, 1]; the mean over its trainings if there are several.
        latency: Seconds per call on one batch, or None if it was not measured.
        energy: Joules per call on one batch, or None if it was not measured.
        size: Bytes of parameters and buffers, or None if it is unknown.
        trial: The trial that trained it.
        note: What a reader should know besides; empty if nothing.

    ``print`` shows it with units.
    """

    shape: Shape
    accuracy: float
    latency: float | None
    energy: float | None
    size: float | None
    trial: FrozenTrial
    note: str = ""

    @property
    def properties(self) -> dict[str, float]:
        """What is known of it, in SI units."""
        values = {name: getattr(self, name) for name in GOALS}
        return {name: value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        text = ", ".join(
            f"{n} {format_quantity(n, value)}" for n, value in self.properties.items()
        )
        note = f" ({self.note})" if self.note else ""
        return f"shape {self.shape}: {text}{note}"


class ShapeProblem:
    """A design space, a goal, and the constraints that its answer has to meet.

    Args:
        space: The shapes to choose from.
        goal: ``"accuracy"``, ``"latency"``, ``"energy"`` or ``"size"``. Accuracy is maximised, the
            others are minimised and need an accuracy constraint.
        constraints: Texts such as ``"latency <= 2 ms"``, or :class:`Constraint` objects.
        meter: Measures latency, energy and memory, and whatever cannot be counted.
        epochs: Number of values that a full training reports by ``trial.report``; :obj:`None` if
            it reports none, and then no training is cut short by prediction.
        filters: The user's own hard filters, ``(Shape) -> bool`` or ``(Shape) -> Verdict``.
        filter_mode: ``"boundary"`` measures no shape that is far over a constraint,
            ``"exhaustive"`` measures every shape.
        training_cost: ``(Shape) -> float``, cost of one epoch in any unit. By default FLOPs where
            they can be counted, else all shapes cost the same.

    Raises:
        InvalidProblem: The goal is unknown or lacks its accuracy constraint, a property is bounded
            twice, or there is no way to measure what is asked.
        InvalidConstraint: A constraint cannot be read.

    Example:
        Latencies come from a formula here, and so do the accuracies of a training. (Use a
        :class:`DeviceMeter` and :meth:`objective` instead.)

        >>> import optuna
        >>> from optuna_shape import FunctionMeter, ShapeSampler
        >>> def measure(shape):
        ...     return {"latency": 1e-5 * shape.depth * shape.width}
        >>> problem = ShapeProblem(
        ...     DesignSpace(depth=[1, 2, 4], width=[8, 16]),
        ...     goal="accuracy",
        ...     constraints=["latency <= 0.5 ms"],
        ...     meter=FunctionMeter(measure),
        ... )
        >>> def objective(trial):
        ...     shape = problem.suggest(trial)
        ...     accuracy = 1 - 0.2 / shape.depth - 0.8 / shape.width
        ...     return problem.record(trial, accuracy)
        >>> study = optuna.create_study(
        ...     direction=problem.direction, sampler=ShapeSampler(problem, seed=0)
        ... )
        >>> study.optimize(objective)  # Ends by itself once nothing is left to train.
        >>> len(study.trials)
        5
        >>> print(problem.best(study))
        shape (2, 16): accuracy 85 %, latency 320 us
        >>> problem.screen(study).verdicts[Shape(4, 16)].reason
        'latency 640 us > 500 us'
    """

    def __getstate__(self) -> dict[str, Any]:
        # What is known of studies is read again where the copy works.
        return {k: v for k, v in vars(self).items() if k not in _OF_THIS_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._screenings: WeakKeyDictionary[BaseStorage, dict[int, Screening]]
        self._screenings = WeakKeyDictionary()
        self._costs: tuple[Screening, dict[Shape, float]] | None = None

    def __init__(
        self,
        space: DesignSpace,
        goal: str,
        constraints: Sequence[str | Constraint] = (),
        *,
        meter: Meter | None = None,
        epochs: int | None = None,
        filters: Sequence[ShapeFilter] = (),
        filter_mode: Literal["boundary", "exhaustive"] = "boundary",
        training_cost: Callable[[Shape], float] | None = None,
    ) -> None:
        if isinstance(constraints, (str, Constraint)):
            constraints = [constraints]
        self.space = space
        self.goal = goal
        self.constraints = tuple(
            Constraint.parse(c) if isinstance(c, str) else c for c in constraints
        )
        self.meter = meter
        self.epochs = epochs
        self.filters = tuple(filters)
        self.filter_mode = filter_mode
        self.training_cost = training_cost
        self._forget()
        self._check()

    def _check(self) -> None:
        if self.goal not in GOALS:
            raise InvalidProblem(f"Unknown goal {self.goal!r}. Goals are {', '.join(GOALS)}.")
        properties = [constraint.property for constraint in self.constraints]
        for name in properties:
            if properties.count(name) > 1:
                raise InvalidProblem(
                    f"{name} is constrained more than once; keep the tighter constraint."
                )
        if self.goal != ACCURACY and ACCURACY not in properties:
            raise InvalidProblem(
                f"The goal {self.goal} needs an accuracy constraint: without one the smallest "
                "network wins untrained. Add, for example, 'accuracy >= 90 %'."
            )
        if self.filter_mode not in ("boundary", "exhaustive"):
            raise InvalidProblem(
                f"Unknown filter_mode {self.filter_mode!r}; it is 'boundary' or 'exhaustive'."
            )
        if self.epochs is not None and (isinstance(self.epochs, bool) or self.epochs < 1):
            raise InvalidProblem(
                f"epochs is {self.epochs!r}; give the number of reports of a full training, "
                "or None if trial.report is not used."
            )
        for name in {*properties, self.goal} - {ACCURACY}:
            counted = name in COUNTED and self.space.builder is not None
            if self.meter is None and not counted:
                raise InvalidProblem(
                    f"Nothing here can measure {name}. Pass meter=DeviceMeter(), "
                    "or a TableMeter or FunctionMeter that holds it."
                )

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """``"maximize"`` for accuracy, ``"minimize"`` for the other goals."""
        return "maximize" if self.goal == ACCURACY else "minimize"

    @property
    def accuracy_bound(self) -> float | None:
        """The accuracy that the answer has to reach, a fraction, or None."""
        bounds = [c.bound for c in self.constraints if c.property == ACCURACY]
        return bounds[0] if bounds else None

    @property
    def hard_constraints(self) -> tuple[Constraint, ...]:
        """The constraints that are decided before training."""
        return tuple(c for c in self.constraints if c.property != ACCURACY)

    @property
    def fingerprint(self) -> str:
        """Of the meter; problems without one count and look nothing up."""
        return COUNTED_FINGERPRINT if self.meter is None else self.meter.fingerprint

    def describe(self) -> dict[str, Any]:
        """The problem as JSON: everything but callables and the meter."""
        return {
            "space": {
                "depths": list(self.space.depths),
                "widths": list(self.space.widths),
                "input_shape": self.space.input_shape and list(self.space.input_shape),
                "name": self.space.name,
                "family": families.describe(self.space),
            },
            "goal": self.goal,
            "constraints": [str(constraint) for constraint in self.constraints],
            "epochs": self.epochs,
            "filter_mode": self.filter_mode,
        }

    @classmethod
    def from_study(cls, study: Study) -> ShapeProblem:
        """Read a problem back from a study.

        A built-in family is rebuilt; a user's own ``build``, filters and meter are not in the
        study, but their verdicts and measurements are.

        Raises:
            StudyMismatch: The study holds no problem, or one that this version cannot read.

        Example:
            >>> problem = ShapeProblem(DesignSpace([1, 2], [8]), "accuracy")
            >>> study = optuna.create_study(direction=problem.direction)
            >>> problem.feasible(study)
            (Shape(depth=1, width=8), Shape(depth=2, width=8))
            >>> ShapeProblem.from_study(study).space
            <DesignSpace depth [1, 2] x width [8]>
        """
        records = StudyRecords(study)
        stored = records.problem()
        if stored is None:
            raise StudyMismatch(
                f"The study {study.study_name!r} holds no shape problem. "
                "Run a search in it with ShapeSampler or problem.suggest first."
            )
        _check_description(stored)
        screening = records.screening()
        with reading("problem"):
            fingerprint = str(screening["fingerprint"]) if screening else "unknown"
            return cls._from_description(stored, RecordedMeter(fingerprint))

    @classmethod
    def _from_description(cls, stored: Mapping[str, Any], meter: Meter) -> ShapeProblem:
        space = stored["space"]
        if space["family"] is not None:
            design = families.rebuild(
                space["family"], space["depths"], space["widths"], name=space["name"]
            )
        else:
            design = DesignSpace(
                space["depths"],
                space["widths"],
                input_shape=space["input_shape"],
                name=space["name"],
            )
        return cls(
            design,
            stored["goal"],
            stored["constraints"],
            meter=meter,
            epochs=stored["epochs"],
            filter_mode=stored["filter_mode"],
        )

    # Before training.

    def screen(self, study: Study) -> Screening:
        """Measure what has to be measured before any training, once per study.

        Called by :meth:`suggest` where it was not called before. Other workers of the study wait
        while one measures. One on another device measures nothing as long as the search goes on,
        it only trains; once the search has stopped, it asks the question anew for its own device.

        Returns:
            A verdict on every shape, and what was measured of it.

        Raises:
            StudyMismatch: The study is about another problem.
            NoFeasibleShape: No shape is within every hard constraint.
            MeasurementUnavailable: A quantity cannot be measured here.
        """
        records = StudyRecords(study)
        with self._lock:
            known = self._screenings.setdefault(study._storage, {})
            screening = known.get(study._study_id)
            if screening is None:
                self._attach(study, records)
                screening = self._stored_screening(records) or self._measure(records)
                known[study._study_id] = screening
        return screening

    def _attach(self, study: Study, records: StudyRecords) -> None:
        """Make the study this problem's, or find that it is."""
        wanted = StudyDirection[self.direction.upper()]
        if list(study.directions) != [wanted]:
            directions = [direction.name.lower() for direction in study.directions]
            raise StudyMismatch(
                f"The goal {self.goal} is to {self.direction}, but the study's direction is "
                f"{', '.join(directions)}. Create it with direction=problem.direction."
            )
        own = self.describe()
        stored = records.problem()
        if stored is None:
            strangers = [
                trial.number
                for trial in records.trials()
                if trial.state == TrialState.COMPLETE
                and (ACCURACY not in trial.user_attrs or shape_of(trial) is None)
            ]
            if strangers:
                raise StudyMismatch(
                    f"The study {study.study_name!r} already holds trials that are not of a shape "
                    f"problem, such as number {strangers[0]}. Use another study_name."
                )
            records.write_problem(own)
            stored = records.problem()
        assert stored is not None
        _check_description(stored)
        differences = _differences(stored, own)
        if differences:
            raise StudyMismatch(
                f"The study {study.study_name!r} is about another problem: "
                f"{'; '.join(differences)}. Use another study_name, or ShapeProblem.from_study."
            )
        records.release_dead_claims(self.goal)

    def _stored_screening(self, records: StudyRecords) -> Screening | None:
        stored = records.screening()
        if stored is None:
            return None
        with reading("screening"):
            fingerprint = str(stored["fingerprint"])
        if fingerprint != self.fingerprint:
            if records.stop() is not None and not records.history().running:
                return None
            _logger.warning(
                "This worker's device is not the one that the study's verdicts were measured on "
                f"({fingerprint}), so it only trains. To ask for this device, use another "
                "study_name, or come back when the search has stopped."
            )
        return self._read_screening(records, stored)

    def _read_screening(self, records: StudyRecords, stored: Mapping[str, Any]) -> Screening:
        with reading("screening"):
            measurements = records.measurements(str(stored["fingerprint"]))
            measurements.update(records.measurements(COUNTED_FINGERPRINT))
            screening = Screening.from_json(stored, measurements)
            self._check_screening(screening)
        # Filters are not stored, and ask no device: one that is new has its say too.
        excluded = ask_filters(self.filters, screening.feasible)
        return replace(screening, verdicts={**screening.verdicts, **excluded})

    def _check_screening(self, screening: Screening) -> None:
        """Check that it is one of this problem.

        Raises:
            ValueError: It is not.
        """
        if set(screening.verdicts) != set(self.space.shapes):
            raise ValueError("its shapes are not those of the space")
        if set(screening.bounds) != {str(constraint) for constraint in self.hard_constraints}:
            raise ValueError("its constraints are not those of the problem")
        goals = [] if self.goal == ACCURACY else [self.goal]
        for quantity in (*goals, *(c.property for c in self.hard_constraints)):
            for shape in screening.feasible:
                value = screening.value(quantity, shape)
                if value is None or not math.isfinite(value):
                    raise ValueError(f"there is no {quantity} of {shape}")

    def known_screening(self, study: Study) -> Screening:
        """The verdicts as they stand, whatever the device; measured only if there are none."""
        known = self._screenings.get(study._storage, {}).get(study._study_id)
        if known is not None:
            return known
        records = StudyRecords(study)
        stored = records.screening()
        return self.screen(study) if stored is None else self._read_screening(records, stored)

    def _measure(self, records: StudyRecords) -> Screening:
        unfit = records.unfit()
        if unfit is not None and isinstance(self.meter, RecordedMeter):
            raise NoFeasibleShape(unfit)  # Who can measure asks anew: filters may be others.
        if not records.take_lease(lambda: self._stored_screening(records) is not None):
            screening = self._stored_screening(records)
            assert screening is not None
            return screening
        with records.lease_kept():
            known = records.measurements(COUNTED_FINGERPRINT)
            known.update(records.measurements(self.fingerprint))
            goals = () if self.goal == ACCURACY else (self.goal,)
            records.write_unfit(None)
            screening = judge(
                self.space,
                self.hard_constraints,
                Measurer(self.space, self.meter, known, records.write_measurements),
                fingerprint=self.fingerprint,
                precise=next(iter(goals), None),
                needed=goals,
                extra=self._counted_besides(),
                filters=self.filters,
                mode=self.filter_mode,
            )
            try:
                require_feasible(screening)
            except NoFeasibleShape as error:
                # Not as a screening, which lets trainings begin: others wait for one.
                records.write_unfit(str(error))
                raise
            if records.is_screened():
                records.clear_stop()  # It rested on the verdicts of another device.
            records.write_screening(screening.to_json())
        _logger.info(
            f"{len(screening.feasible)} of {len(self.space)} shapes are within every constraint "
            "that is measured before training."
        )
        return screening

    def _counted_besides(self) -> tuple[str, ...]:
        """What costs nothing to know: the size to show, FLOPs to weigh training costs."""
        if self.space.builder is None:
            return ()
        if self.space.input_shape is None or self.training_cost is not None:
            return ("size",)
        return ("size", "flops")

    def costs(self, screening: Screening) -> dict[Shape, float]:
        """Relative cost of training each feasible shape for one epoch, in any unit.

        Raises:
            InvalidProblem: ``training_cost`` returned something that is no number above 0.
        """
        # Every decision asks, and a user's own function may be slow.
        known = self._costs
        if known is None or known[0] is not screening:
            known = self._costs = (screening, self._training_costs(screening))
        return known[1]

    def _training_costs(self, screening: Screening) -> dict[Shape, float]:
        shapes = screening.feasible
        if self.training_cost is None:
            flops = {shape: screening.value("flops", shape) or math.inf for shape in shapes}
            known = all(map(math.isfinite, flops.values()))
            return flops if known else dict.fromkeys(shapes, 1.0)
        costs = {shape: float(self.training_cost(shape)) for shape in shapes}
        for shape, cost in costs.items():
            if not (math.isfinite(cost) and cost > 0):
                raise InvalidProblem(
                    f"training_cost({shape}) returned {cost}; it must be a number above 0."
                )
        return costs

    # Trials.

    def suggest(self, trial: BaseTrial) -> Shape:
        """Suggest the shape of a trial, and make sure that it may be trained.

        Whatever sampler the study has, and also for enqueued trials: the shape is in the space,
        within every constraint, and neither trained nor in training.

        Raises:
            optuna.TrialPruned: The shape is not to be trained, or the search has stopped. The
                reason is the trial's user attribute ``reason``; its constraints are set.
            InvalidSpace: An :class:`optuna.trial.FixedTrial` holds a shape outside the space.
        """
        if not isinstance(trial, Trial):  # optuna.trial.FixedTrial: nobody else is about.
            shape = self._suggest_integers(trial)
            if shape not in self.space:
                raise InvalidSpace(f"{shape} is not in the design space {self.space!r}.")
            return shape
        records = StudyRecords(trial.study)
        screening = self.screen(trial.study)
        stop = records.stop()
        if stop is not None:
            self._reject(trial, f"the search has stopped: {stop['reason']}")
        records.release_dead_claims(self.goal, trial._trial_id)
        shape = self._suggest_integers(trial)
        if shape not in self.space:
            trial.set_constraint(OUTSIDE, 1.0)
            self._reject(trial, f"{shape} is not in the design space {self.space!r}")
        for name, excess in screening.violations(shape, self.hard_constraints).items():
            trial.set_constraint(name, excess)
        records.write_properties(trial._trial_id, screening.properties(shape))
        verdict = screening.verdicts[shape]
        if verdict.status != "within":
            self._reject(trial, f"{shape} is {verdict.status}: {verdict.reason}")
        frozen = trial.study._storage.get_trial(trial._trial_id)
        if claimed_shape(frozen) != shape:
            objection = records.claim_patiently(trial._trial_id, shape)
            if objection is not None:
                history = records.history()
                if not history.left(screening.feasible):
                    stop_loop(trial.study)  # Nothing but this can come next.
                self._reject(trial, objection.reason)
        return shape

    def _suggest_integers(self, trial: BaseTrial) -> Shape:
        depths, widths = self.space.depths, self.space.widths
        return Shape(
            trial.suggest_int("depth", depths[0], depths[-1]),
            trial.suggest_int("width", widths[0], widths[-1]),
        )

    def _reject(self, trial: Trial, reason: str) -> None:
        StudyRecords(trial.study).write_reason(trial._trial_id, reason)
        raise optuna.TrialPruned(reason)

    def record(self, trial: BaseTrial, accuracy: float) -> float:
        """Store the accuracy of a full training, and return the goal's value for Optuna.

        Args:
            trial: The trial whose shape came from :meth:`suggest`.
            accuracy: Fraction in [0, 1]. NaN, from a training that diverged, fails the trial and
                lets the search go on.

        Returns:
            The accuracy, or the measured seconds, joules or bytes of the shape, as the goal is.

        Raises:
            InvalidAccuracy: The accuracy is no fraction. It is kept in the trial's ``reason``.
        """
        value = _as_float(accuracy)
        if not isinstance(trial, Trial):
            self._check_accuracy(value, accuracy)
            if self.goal == ACCURACY:
                return value
            shape = self._suggest_integers(trial)
            measurer = Measurer(self.space, self.meter, {}, lambda quantity, measurements: None)
            return measurer.measure(self.goal, [shape], None)[shape].value
        records = StudyRecords(trial.study)
        if math.isnan(value):
            records.write_failure(trial._trial_id, DIVERGED)
            return value
        try:
            self._check_accuracy(value, accuracy)
        except InvalidAccuracy as error:
            records.write_failure(trial._trial_id, str(error))
            raise
        if self.accuracy_bound is not None:
            constraint = next(c for c in self.constraints if c.property == ACCURACY)
            trial.set_constraint(str(constraint), self.accuracy_bound - value)
        # Last: whoever finds it takes the training for finished, should this worker die here.
        trial.set_user_attr(ACCURACY, value)
        if self.goal == ACCURACY:
            return value
        shape = Shape(trial.params["depth"], trial.params["width"])
        goal_value = self.screen(trial.study).value(self.goal, shape)
        assert goal_value is not None  # Every feasible shape has been measured.
        return goal_value

    @staticmethod
    def _check_accuracy(value: float, reported: object) -> None:
        if not 0 <= value <= 1:
            hint = f" Did you mean {value / 100:g}?" if 1 < value <= 100 else ""
            raise InvalidAccuracy(
                f"An accuracy of {reported!r} was reported; it is a fraction in [0, 1].{hint}"
            )

    def objective(self, train: TrainingLoop) -> Callable[[Trial], float]:
        """Make an objective for :meth:`optuna.study.Study.optimize` of a training loop.

        Args:
            train: ``train(model, trial) -> accuracy``. May call ``trial.report(accuracy, epoch)``
                and raise :exc:`optuna.TrialPruned` where ``trial.should_prune()``.

        Example:
            >>> from optuna_shape.families import mlp
            >>> space = mlp(depth=[1, 2], width=[8], input_shape=(64,))
            >>> problem = ShapeProblem(space, "size", ["accuracy >= 80 %"])
            >>> def train(model, trial):  # A real one would train the model.
            ...     return 0.7 + 0.05 * len(list(model.parameters())) / 2
            >>> study = optuna.create_study(direction=problem.direction)
            >>> study.enqueue_trial({"depth": 2, "width": 8})
            >>> study.optimize(problem.objective(train), n_trials=1)
            >>> print(problem.best(study))
            shape (2, 8): accuracy 85 %, size 2.73 kB
        """

        def objective(trial: Trial) -> float:
            shape = self.suggest(trial)
            try:
                accuracy = train(self.space.build(shape), trial)
            except optuna.TrialPruned:
                raise
            except BaseException as error:
                records = StudyRecords(trial.study)
                interrupted = not isinstance(error, Exception) or is_storage_failure(error)
                failure = INTERRUPTED if interrupted else f"{type(error).__name__}: {error}"
                # Another process may have ended the trial: that is not to hide what happened here.
                with contextlib.suppress(UpdateFinishedTrialError):
                    records.write_failure(trial._trial_id, failure)
                raise
            return self.record(trial, accuracy)

        return objective

    # Results.

    def feasible(self, study: Study) -> tuple[Shape, ...]:
        """The shapes within every constraint that is measured before training."""
        return self.screen(study).feasible

    def best(self, study: Study) -> Answer | None:
        """The best trained shape within every constraint, or None if there is none yet.

        Its trial is ``study.best_trial``. Only where a shape was trained more than once the mean
        over its trainings counts, and ``note`` says what differs.

        Example:
            >>> space = DesignSpace(depth=[1, 2], width=[8])
            >>> problem = ShapeProblem(space, "accuracy", ["accuracy >= 90 %"])
            >>> def objective(trial):
            ...     shape = problem.suggest(trial)  # In place of a training:
            ...     return problem.record(trial, 0.84 + 0.04 * shape.depth)
            >>> study = optuna.create_study(direction=problem.direction)
            >>> study.enqueue_trial({"depth": 1, "width": 8})
            >>> study.optimize(objective, n_trials=1)
            >>> print(problem.best(study))  # It does not reach 90 %.
            None
            >>> study.enqueue_trial({"depth": 2, "width": 8})
            >>> study.optimize(objective, n_trials=1)
            >>> problem.best(study).shape
            Shape(depth=2, width=8)
        """
        history = StudyRecords(study).history()
        accuracies = history.accuracies
        if not accuracies:
            return None
        screening = self.known_screening(study)
        shapes = self._ranked(accuracies, screening)
        if not shapes:
            return None
        repeated = any(len(values) > 1 for values in accuracies.values())
        best_trial, note = self._feasible_best(study), ""
        shape = None if best_trial is None else shape_of(best_trial)
        if best_trial is None or shape not in shapes or (repeated and shape != shapes[0]):
            if shape is not None:
                if shape in shapes:
                    why = f"over all its trainings {shapes[0]} is better"
                elif shape in accuracies and shape in screening.feasible:
                    why = "over all its trainings it does not reach the accuracy"
                else:
                    why = "it is not within the constraints as they are measured now"
                note = f"study.best_trial is shape {shape}, but {why}"
            shape = shapes[0]
        numbers = [n for n in sorted(history.trained) if history.shapes[n] == shape]
        if best_trial is None or best_trial.number not in numbers:
            best_trial = next(t for t in study.trials if t.number == numbers[0])
        if len(numbers) > 1:
            count = f"accuracy is the mean of {len(numbers)} trainings"
            note = f"{note}; {count}" if note else count
        assert shape is not None
        stop = StudyRecords(study).stop() or {}
        if stop.get("answer", list(shape)) != list(shape):
            model = f"the stop was decided for {Shape(*stop['answer'])}, the best by the model"
            note = f"{note}; {model}" if note else model
        energy = screening.measurements.get("energy", {}).get(shape)
        if energy is not None and energy.is_estimate:
            note = f"{note}; energy is an {energy.note}" if note else f"energy is an {energy.note}"
        mean = sum(accuracies[shape]) / len(accuracies[shape])
        return Answer(
            shape,
            mean,
            screening.value("latency", shape),
            screening.value("energy", shape),
            screening.value("size", shape),
            best_trial,
            note,
        )

    @staticmethod
    def _feasible_best(study: Study) -> FrozenTrial | None:
        try:
            return study.best_trial
        except ValueError:  # No trial is feasible.
            return None

    def _ranked(
        self, accuracies: Mapping[Shape, Sequence[float]], screening: Screening
    ) -> list[Shape]:
        """Trained feasible shapes that meet the accuracy constraint on average, best first."""
        within = set(screening.feasible)
        means = {s: sum(values) / len(values) for s, values in accuracies.items() if s in within}
        bound = self.accuracy_bound or 0.0
        reaching = [shape for shape in sorted(means) if means[shape] >= bound]
        if self.goal == ACCURACY:
            return sorted(reaching, key=lambda shape: -means[shape])
        return sorted(
            reaching, key=lambda shape: (screening.value(self.goal, shape), -means[shape])
        )


def _check_description(stored: Mapping[str, Any]) -> None:
    """Refuse the description of a problem that asks what this version does not know.

    Raises:
        StudyMismatch: It holds more, or less, or something else.
    """
    with reading("problem"):
        missing = {*_DESCRIBED} - set(stored) | {*_OF_SPACE} - set(stored["space"])
        if missing:
            raise KeyError(*sorted(missing))
        unknown = set(stored) - {*_DESCRIBED} | set(stored["space"]) - {*_OF_SPACE}
        if unknown:
            raise StudyMismatch(
                f"The study's problem holds {', '.join(map(repr, sorted(unknown)))}, which this "
                f"version of optuna_shape does not know. {NEWER}"
            )


def _differences(stored: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """What differs between two descriptions of a problem; the name of the space may."""
    result = []
    for key in [key for key in _DESCRIBED if key != "space"]:
        if stored[key] != own[key]:
            result.append(f"{key} {stored[key]!r} in the study, {own[key]!r} here")
    for key in [key for key in _OF_SPACE if key != "name"]:
        theirs, ours = stored["space"][key], own["space"][key]
        if theirs != ours and not (key == "family" and None in (theirs, ours)):
            result.append(f"{key} {theirs!r} in the study, {ours!r} here")
    return result


def _as_float(accuracy: object) -> float:
    try:
        return float(accuracy)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidAccuracy(
            f"The training returned {accuracy!r}; it must return the accuracy, "
            "a fraction in [0, 1]."
        ) from None
