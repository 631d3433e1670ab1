from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing import pytest_samplers
from optuna.trial import TrialState
from problems import formula_objective
from problems import surface
from problems import table

from optuna_shape import DesignSpace
from optuna_shape import InvalidProblem
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape.records import StudyRecords

MakeProblem = Callable[..., ShapeProblem]


# Optuna's own contract. What does not apply:
# - RelativeSamplerTestCase.test_sample_relative_{numerical,categorical,mixed} hand search spaces
#   of foreign parameters to sample_relative. This sampler's relative space is always depth and
#   width; everything else goes to the independent sampler.
# - MultiObjectiveSamplerTestCase: a ShapeProblem has one goal, and the others are constraints.


class TestContract(
    pytest_samplers.BasicSamplerTestCase, pytest_samplers.SingleOnlySamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        def make() -> BaseSampler:
            space = DesignSpace(range(1, 9), range(4, 12))
            problem = ShapeProblem(space, "size", ["accuracy >= 80 %"], meter=table(space))
            return ShapeSampler(problem, seed=0)

        return make


class TestRelativeContract(TestContract):
    test_trial_relative_params = pytest_samplers.RelativeSamplerTestCase.test_trial_relative_params


def make_study(problem: ShapeProblem, seed: int | None = 0, **options: object) -> optuna.Study:
    sampler = ShapeSampler(problem, seed=seed)
    return optuna.create_study(direction=problem.direction, sampler=sampler, **options)  # type: ignore[arg-type]


def shapes_of(study: optuna.Study) -> list[Shape]:
    return [
        Shape(trial.params["depth"], trial.params["width"])
        for trial in study.trials
        if trial.state == TrialState.COMPLETE
    ]


@pytest.mark.parametrize(
    ("depth", "width"), [(range(1, 4), (4, 8)), ([3], (4, 8, 12)), ([1, 2], [16]), ([2], [8])]
)
def test_trains_every_shape_once_and_ends(
    make_problem: MakeProblem, depth: object, width: object
) -> None:
    problem = make_problem(depth=depth, width=width)
    study = make_study(problem)
    study.optimize(formula_objective(problem))
    assert sorted(shapes_of(study)) == sorted(problem.space.shapes)
    assert len(study.trials) == len(problem.space), "no empty trial at the end"


def test_a_finished_search_stays_finished(make_problem: MakeProblem) -> None:
    problem = make_problem(depth=[1], width=[4, 8])
    study = make_study(problem)
    study.optimize(formula_objective(problem))
    study.optimize(formula_objective(problem))
    assert len(shapes_of(study)) == 2
    assert "search has stopped" in study.trials[-1].user_attrs["reason"]


def test_ask_and_tell_ends_with_trial_pruned(make_problem: MakeProblem) -> None:
    problem = make_problem(depth=[1], width=[4, 8])
    study = make_study(problem)
    for _ in range(2):
        trial = study.ask()
        shape = problem.suggest(trial)
        study.tell(trial, problem.record(trial, surface(shape)))
    with pytest.raises(optuna.TrialPruned, match="all 2 feasible shapes have been trained"):
        problem.suggest(study.ask())


def test_starts_with_the_cheapest_shape_and_finds_the_best_early(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem(depth=range(1, 10), width=range(4, 33, 4))
    study = make_study(problem)
    study.optimize(formula_objective(problem), n_trials=14)
    shapes = shapes_of(study)
    assert shapes[0] == Shape(1, 4)
    best = max(problem.space.shapes, key=surface)
    regret = surface(best) - max(surface(shape) for shape in shapes)
    assert regret < 0.003


def test_same_seed_same_search_whatever_else_was_drawn(make_problem: MakeProblem) -> None:
    histories = []
    for noise in range(2):
        problem = make_problem("latency", ("accuracy >= 85 %",))
        study = make_study(problem, seed=3)
        if noise:
            study.sampler.reseed_rng()
        study.optimize(formula_objective(problem), n_trials=12)
        histories.append(shapes_of(study))
    assert histories[0] == histories[1]


def test_a_search_resumed_in_a_new_process_goes_on_as_if_never_stopped(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    whole = make_problem()
    study = make_study(whole)
    study.optimize(formula_objective(whole), n_trials=12)
    storage = f"sqlite:///{tmp_path / 'shapes.db'}"
    for seed in (0, 1, 2):  # Only the first worker's seed counts.
        problem = make_problem()
        part = make_study(problem, seed, study_name="s", storage=storage, load_if_exists=True)
        part.optimize(formula_objective(problem), n_trials=4)
    assert shapes_of(part) == shapes_of(study)


def test_depth_suggested_from_another_range_is_told(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_int("depth", 1, 3)
        return problem.record(trial, float(trial.suggest_int("width", 13, 15)))

    with pytest.raises(ValueError, match=r"Use problem.suggest\(trial\)"):
        study.optimize(objective, n_trials=10)


def test_other_parameters_go_to_the_independent_sampler(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem)

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        shape = problem.suggest(trial)
        assert 1e-4 <= rate <= 1e-1
        return problem.record(trial, surface(shape))

    study.optimize(objective, n_trials=6)
    assert len(set(shapes_of(study))) == 6


@pytest.mark.filterwarnings("ignore")
def test_hyperband_around_it_sees_a_stand_in_of_the_study(make_problem: MakeProblem) -> None:
    problem = make_problem(epochs=9)
    study = make_study(
        problem, pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9)
    )
    study.optimize(formula_objective(problem, epochs=9), n_trials=12)
    assert len(set(shapes_of(study))) == len(shapes_of(study)) > 0


@pytest.mark.filterwarnings("ignore")
def test_fixing_one_of_the_two_from_outside_is_told(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem)
    study.sampler = optuna.samplers.PartialFixedSampler({"depth": 2}, study.sampler)
    with pytest.raises(ValueError, match="give the design space a single value"):
        study.optimize(formula_objective(problem), n_trials=1)


def test_threads_train_no_shape_twice(make_problem: MakeProblem) -> None:
    problem = make_problem(depth=range(1, 5), width=(4, 8, 12))
    study = make_study(problem)
    study.optimize(formula_objective(problem), n_trials=40, n_jobs=4)
    assert Counter(shapes_of(study)) == Counter(problem.space.shapes)


def test_an_objective_that_forgets_to_record_is_told_at_once(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem)
    with pytest.raises(InvalidProblem, match=r"Return problem.record\(trial, accuracy\)"):
        study.optimize(lambda trial: surface(problem.suggest(trial)), n_trials=5)
    assert len(study.trials) == 1


def own_rule(problem: ShapeProblem) -> Callable[[optuna.Trial], float]:
    def objective(trial: optuna.Trial) -> float:
        shape = problem.suggest(trial)
        if shape.width >= 16:
            raise optuna.TrialPruned
        return problem.record(trial, surface(shape))

    return objective


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pruner", ["median", "hyperband", "own"])
def test_pruning_by_others_does_not_trap_the_search(
    make_problem: MakeProblem, pruner: str
) -> None:
    problem = make_problem(epochs=9)
    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=2),
        "hyperband": optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9),
        "own": optuna.pruners.NopPruner(),
    }
    study = make_study(problem, pruner=pruners[pruner])
    objective = own_rule(problem) if pruner == "own" else formula_objective(problem, epochs=9)
    study.optimize(objective, n_trials=100)
    tried = Counter((t.params["depth"], t.params["width"]) for t in study.trials if t.params)
    assert set(tried) == set(problem.space.shapes)
    assert max(tried.values()) <= 2
    assert StudyRecords(study).stop() is not None


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_one_shape_space_whose_training_fails_ends(make_problem: MakeProblem, jobs: int) -> None:
    problem = make_problem(depth=[2], width=[8])
    study = make_study(problem)
    nan = formula_objective(problem, lambda shape: float("nan"))
    study.optimize(nan, n_trials=30, n_jobs=jobs)
    assert len(study.trials) < 30


def test_with_threads_a_shape_that_failed_once_is_tried_again(make_problem: MakeProblem) -> None:
    problem = make_problem(depth=[1, 2], width=[4, 8])
    study = make_study(problem)
    failed: list[Shape] = []

    def objective(trial: optuna.Trial) -> float:
        shape = problem.suggest(trial)
        if shape == Shape(2, 8) and not failed:
            failed.append(shape)
            return problem.record(trial, float("nan"))
        return problem.record(trial, surface(shape))

    study.optimize(objective, n_trials=30, n_jobs=2)
    assert sorted(shapes_of(study)) == sorted(problem.space.shapes)
    assert StudyRecords(study).stop() is not None


def test_a_retried_trial_does_not_carry_a_claim_over(make_problem: MakeProblem) -> None:
    problem = make_problem()
    study = make_study(problem)
    study.optimize(formula_objective(problem), n_trials=1)
    done = study.trials[0]
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            system_attrs={**done.system_attrs, "fixed_params": done.params},
        )
    )
    study.optimize(formula_objective(problem), n_trials=1)
    assert study.trials[1].state == TrialState.PRUNED
    assert "has been trained by trial 0" in study.trials[1].user_attrs["reason"]


def test_problem_and_sampler_can_be_pickled(make_problem: MakeProblem) -> None:
    problem = make_problem(training_cost=None)
    study = make_study(problem)
    study.optimize(formula_objective(problem), n_trials=3)
    again = pickle.loads(pickle.dumps(study))
    again.optimize(formula_objective(make_problem(training_cost=None)), n_trials=3)
    assert len(set(shapes_of(again))) == 6


def test_the_training_cost_of_a_shape_is_asked_once(make_problem: MakeProblem) -> None:
    asked: list[Shape] = []

    def training_cost(shape: Shape) -> float:
        asked.append(shape)
        return shape.depth * shape.width**2

    problem = make_problem(training_cost=training_cost)
    study = make_study(problem)
    study.optimize(formula_objective(problem, epochs=4), n_trials=8)
    assert sorted(asked) == sorted(problem.space.shapes)


@pytest.mark.parametrize(
    ("pruner", "epochs", "warned"),
    [
        (None, 10, True),
        (optuna.pruners.HyperbandPruner(), 10, True),
        (None, None, False),
        (optuna.pruners.NopPruner(), 10, False),
    ],
)
def test_warns_once_of_pruners_that_compare_shapes_at_an_epoch(
    make_problem: MakeProblem,
    pruner: optuna.pruners.BasePruner | None,
    epochs: int | None,
    warned: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    problem = make_problem(epochs=epochs)
    study = optuna.create_study(
        direction="maximize", sampler=ShapeSampler(problem, seed=0), pruner=pruner
    )
    optuna.logging.enable_propagation()
    try:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study.optimize(formula_objective(problem), n_trials=2)
    finally:
        optuna.logging.disable_propagation()
    # A handler of pytest's may see the same record twice.
    found = {id(r) for r in caplog.records if "The study prunes by" in r.getMessage()}
    assert len(found) == warned
