from __future__ import annotations

from collections.abc import Callable

import optuna
from problems import formula_objective

from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape.report.notes import keep_remarks
from optuna_shape.report.notes import nearest_removed
from optuna_shape.report.notes import removed_by
from optuna_shape.report.notes import study_note
from optuna_shape.report.notes import trial_note

MakeProblem = Callable[..., ShapeProblem]


def test_the_note_tells_question_filter_answer_and_stop(make_problem: MakeProblem) -> None:
    problem = make_problem("size", ("accuracy >= 60 %", "latency <= 0.5 ms"), depth=[1, 2, 6])
    study = optuna.create_study(sampler=ShapeSampler(problem, seed=0))
    before = study_note(problem, study)
    assert "No trained shape meets every constraint yet." in before
    assert "The search goes on." in before
    study.optimize(formula_objective(problem))
    note = study_note(problem, study)
    best = problem.best(study)
    assert best is not None
    assert f"**shape {best.shape}: accuracy" in note
    assert "all " in note
    assert "Stopped" in note
    assert f"\u2003{sum(removed_by(problem.screen(study)).values())} |" in note
    (nearest,) = nearest_removed(problem.screen(study), 1)
    assert "latency" in nearest


def test_names_cannot_smuggle_markup_into_the_note(make_problem: MakeProblem) -> None:
    def evil(shape: object) -> bool:
        return str(shape) != "(1, 4)"

    evil.__name__ = "<script>|*x*"
    problem = make_problem(filters=[evil])
    note = study_note(problem, optuna.create_study(direction="maximize"))
    assert "<script>" not in note.replace("\\<", "")
    assert "\\|" in note


def test_no_mark_of_others_is_one_in_a_note(make_problem: MakeProblem) -> None:
    text = "a*b_c`d`[e](http://f.g) <h> $i$ ~j~ www.k.l &amp; \\"

    def evil(shape: object) -> bool:
        return str(shape) == "(1, 4)"

    evil.__name__ = text + "\n# heading"
    problem = make_problem(filters=[evil])
    study = optuna.create_study(direction="maximize", sampler=ShapeSampler(problem))
    study.enqueue_trial({"depth": 2, "width": 4})
    study.optimize(formula_objective(problem), n_trials=1)
    shown = (
        "a\\*b\\_c\\`d\\`\\[e\\](http\\://f.g) \\<h\\>"
        " \\$i\\$ \\~j\\~ www\\.k.l \\&amp; \\\\ \\# heading"
    )
    assert shown in study_note(problem, study)
    assert f"**Infeasible**: not within {shown}." in trial_note(problem, study, study.trials[0])


def test_remarks_are_kept_and_torn_notes_are_not() -> None:
    first = keep_remarks("## Best shape so far\n\none", "")
    second = keep_remarks("## Best shape so far\n\ntwo", first + "\n\nMine.")
    assert second == first.replace("one", "two") + "\n\nMine."
    assert keep_remarks("note", "before").endswith("kept.*\n\nbefore")
    assert keep_remarks("note", first[:30]).endswith("kept.*"), "a part of a note is no remark"
