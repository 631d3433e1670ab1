"""What optuna-dashboard tells of studies, mended: it does not know Optuna 5's constraints."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study

from optuna_shape.errors import ShapeError
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import ACCURACY
from optuna_shape.records import StudyRecords

View = Callable[..., Any]

# What Optuna's values are in, by goal.
_OBJECTIVES = {"latency": "latency, s", "energy": "energy, J", "size": "size, B"}


def mending(storage: BaseStorage) -> Callable[[View], View]:
    """Make a plugin of the dashboard's server that shows studies of shapes as what they are.

    Trials list their constraints where the pages look for them, the best one is that of the
    answer, and the objective has a name. What Optuna stores as the value of a pruned trial, its
    last accuracy, is left out where the goal is another. Figures come in the order of their
    names, without those of which a search has written but a part: the page would stay empty.

    It is done here and not in the study, since Optuna would count constraints that are stored
    both ways twice, which changes what its GPSampler does.

    Args:
        storage: What is served.
    """

    def plugin(view: View) -> View:
        @functools.wraps(view)
        def mended(*arguments: Any, **options: Any) -> Any:
            answer = view(*arguments, **options)
            if isinstance(answer, dict) and "best_trials" in answer:
                study_id = options["study_id"]
                study = Study(storage.get_study_name_from_id(study_id), storage)
                return {**answer, **_mended(answer, study)}
            return answer

        return mended

    return plugin


def _mended(told: Mapping[str, Any], study: Study) -> dict[str, Any]:
    """What is told otherwise of a study."""
    from optuna_dashboard._serializer import serialize_frozen_trial

    whole = [f for f in told["plotly_graph_objects"] if _is_whole(f["graph_object"])]
    figures = {"plotly_graph_objects": sorted(whole, key=lambda figure: figure["id"])}
    try:
        problem = ShapeProblem.from_study(study)
    except ShapeError:  # It is not of shapes, or one that is not understood here.
        return figures
    constraints = {t.number: list(t.constraints.values()) for t in StudyRecords(study).trials()}

    def mend(trial: dict[str, Any]) -> dict[str, Any]:
        mended = {**trial, "constraints": constraints[trial["number"]]}
        if trial["state"] == "Pruned" and problem.goal != ACCURACY:
            mended.pop("values", None)
        return mended

    best = problem.best(study)
    bests = [] if best is None else [best.trial]
    attributes = study._storage.get_study_system_attrs(study._study_id)
    return {
        "objective_names": told.get(
            "objective_names", [_OBJECTIVES.get(problem.goal, problem.goal)]
        ),
        "trials": [mend(trial) for trial in told["trials"]],
        "best_trials": [
            mend(serialize_frozen_trial(study._study_id, trial, attributes)) for trial in bests
        ],
        **figures,
    }


def _is_whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
