from __future__ import annotations

import csv
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from problems import formula_objective
from problems import latency
from problems import surface
from problems import table

from optuna_shape import DesignSpace
from optuna_shape import FunctionMeter
from optuna_shape import Meter
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape import TableMeter
from optuna_shape.families import mlp
from optuna_shape.records import StudyRecords
from optuna_shape.report import write_report
from optuna_shape.report.comparison import KnownAccuracy
from optuna_shape.report.comparison import base_width
from optuna_shape.report.comparison import depth_scaled
from optuna_shape.report.comparison import largest
from optuna_shape.report.comparison import training_cost
from optuna_shape.report.sections import Facts

MakeProblem = Callable[..., ShapeProblem]

HEADINGS = [
    "The question",
    "The device",
    "The shapes that remained",
    "The trained shapes",
    "The answer beside other shapes",
    "What it cost to train",
    "Why it stopped, and how far to trust it",
    "How to build the answer again",
]


class Page(HTMLParser):
    """A report as a browser sees it: texts, headings, rows of tables, and every tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self._open  # Whatever was opened was closed.
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "h2":
            self.headings.append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.scripts[-1] += data
        elif "style" not in self._open:
            self.texts.append(data)
            if "h2" in self._open:
                self.headings[-1] += data
            if "tr" in self._open and self.rows[-1]:
                self.rows[-1][-1] += f" {data}" if self.rows[-1][-1] else data

    def row(self, first: str) -> list[str]:
        (row,) = (row for row in self.rows if row and row[0] == first)
        return row


def searched(problem: ShapeProblem, trials: int | None, name: str = "study") -> optuna.Study:
    study = optuna.create_study(
        study_name=name, direction=problem.direction, sampler=ShapeSampler(problem, seed=0)
    )
    objective = formula_objective(problem, epochs=problem.epochs or 0)
    study.optimize(objective, n_trials=trials, callbacks=[ShapeTerminator(problem)])
    return study


def written(problem: ShapeProblem, study: optuna.Study, folder: Path) -> Page:
    path, _ = write_report(problem, study, folder)
    return Page(path)


def test_the_report_tells_the_search_from_the_question_to_the_answer(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms", "size <= 500 kB"), epochs=3)
    study = searched(problem, None)
    study.set_user_attr("images", "digits: 997 for training")
    page = written(problem, study, tmp_path)
    assert page.headings == HEADINGS
    best, stop = problem.best(study), StudyRecords(study).stop()
    assert best is not None
    assert stop is not None
    assert page.row("limits")[1] == "latency ≤ 1 ms size ≤ 500 kB"
    assert page.row("images")[1] == "digits: 997 for training"
    assert problem.fingerprint in page.text
    removed = len(problem.space) - len(problem.feasible(study))
    limits = ("latency ≤ 1 ms", "size ≤ 500 kB")
    assert sum(int(row[1]) for row in page.rows if row[0] in limits) == removed
    assert f"depth {best.shape.depth}, width {best.shape.width}" in page.text
    assert " ".join(f"Stopped: {stop['reason']}".split()) in page.text
    assert "Leave-one-out" in page.text
    for trial in study.trials:
        shape = Shape(trial.params["depth"], trial.params["width"])
        row = page.row(f"{shape}{' the answer' * (shape == best.shape)}")
        assert row[1] == "3"
        assert float(row[2].split()[0]) == pytest.approx(100 * trial.values[0], abs=0.06)
        assert row[-2] == str(trial.number)


def test_the_file_needs_no_network(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms",), epochs=3)
    page = written(problem, searched(problem, 7), tmp_path)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object")
        assert not {"src", "href"} & set(attributes)
    libraries = [script for script in page.scripts if len(script) > 1_000_000]
    assert len(libraries) == 1
    figures = [script for script in page.scripts if "Plotly.newPlot" in script[:500]]
    assert len(figures) == 4
    assert "Accuracy against latency" in page.text, "titles are texts, which a phone can wrap"
    assert not any("Accuracy against latency" in script for script in figures)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.csv", "report.html"]


def test_nothing_that_a_study_holds_becomes_markup(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&"

    def own(shape: Shape) -> bool:
        return shape != Shape(1, 4)

    own.__name__ = f"{evil}filter"
    meter = table(DesignSpace(range(1, 7), (4, 8, 12, 16, 24)))
    meter.fingerprint = f"{evil}device"
    problem = make_problem("accuracy", ("latency <= 1 ms",), filters=[own], meter=meter, epochs=3)
    problem.space.name = f"{evil}space"
    study = searched(problem, 5, name=f"{evil}study")
    study.set_user_attr(f"{evil}key", f"{evil}value")
    StudyRecords(study).write_stop(
        {"kind": "certain", "reason": f"{evil}reason", "delta": 0.05, "probability": 0.5}
    )
    StudyRecords(study).write_certainty(4, 0.5)
    StudyRecords(study).clear_stop()
    trial = study.ask()
    problem.suggest(trial)
    trial.report(0.5, 1)
    StudyRecords(study).write_failure(trial._trial_id, f"{evil}failure")
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    StudyRecords(study).write_stop({"kind": "certain", "reason": f"{evil}reason"})
    page = written(problem, study, tmp_path)
    assert page.headings == HEADINGS
    plain = make_problem("accuracy", ("latency <= 1 ms",), epochs=3)
    named_plainly = searched(plain, 5)
    StudyRecords(named_plainly).write_certainty(4, 0.5)
    harmless = written(plain, named_plainly, tmp_path / "harmless")
    scripts = [tag for tag, _ in page.tags if tag == "script"]
    assert len(scripts) == len([tag for tag, _ in harmless.tags if tag == "script"])
    assert not any(tag == "img" for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, given in page.tags for name in given)
    for script in page.scripts:
        if "Plotly.newPlot" in script[:500]:
            assert "alert(1)</script" not in script
            assert "<img" not in script
    for what in ("study", "space", "device", "filter", "key", "value", "failure", "reason"):
        assert f"{evil}{what}" in page.text, what


def test_a_study_that_has_not_been_measured_says_so(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms",))
    study = optuna.create_study(direction="maximize")
    path, shapes = write_report(problem, study, tmp_path / "new.html")
    assert shapes is None
    page = Page(path)
    assert "no shape is known to be within the limits" in page.text
    assert page.headings == ["The question"]
    assert not StudyRecords(study).is_screened()


def test_a_study_without_any_training_says_so(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms",))
    study = searched(problem, 0)
    problem.screen(study)
    page = written(problem, study, tmp_path)
    assert page.headings == HEADINGS[:-1]
    assert "No answer yet: no shape has been trained to the end" in page.text
    assert "0 of" in page.text
    assert "The search has not stopped" in page.text
    with (tmp_path / "report.csv").open(newline="") as file:
        assert {row["predicted_accuracy"] for row in csv.DictReader(file)} == {""}
    drawn = [given["id"] for tag, given in page.tags if tag == "div" and "id" in given]
    assert drawn == ["shape-map"], "there is nothing in the others"


def test_trainings_that_failed_are_told(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms",), epochs=3)
    study = optuna.create_study(direction="maximize", sampler=ShapeSampler(problem, seed=0))

    def objective(trial: optuna.Trial) -> float:
        problem.suggest(trial)
        trial.report(0.25, 1)
        return problem.record(trial, float("nan"))

    study.optimize(objective, n_trials=2)
    study.enqueue_trial({"depth": 6, "width": 24})
    study.optimize(objective, n_trials=1)
    page = written(problem, study, tmp_path)
    assert page.row("0")[2:5] == ["failed", "1", "25 %"]
    assert "diverged" in page.row("0")[5]
    assert "Trials that ended before any training: 1" in page.text
    assert "No answer yet: no shape" in page.text


def test_an_accuracy_that_nobody_reaches_leaves_no_answer(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem("size", ("accuracy >= 99 %",))
    study = searched(problem, 8)
    page = written(problem, study, tmp_path)
    count = len(StudyRecords(study).history().accuracies)
    assert f"No answer: none of the {count} trained shapes meets every constraint" in page.text
    assert "There is no answer yet that others could be compared with" in page.text


def test_the_answer_leads_the_trained_shapes_and_those_that_miss_come_last(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem("size", ("accuracy >= 80 %",))
    study = searched(problem, None)
    page = written(problem, study, tmp_path)
    screening, best = problem.screen(study), problem.best(study)
    assert best is not None
    trained = StudyRecords(study).history().accuracies

    def told(cell: str) -> tuple[str, str]:
        shape, end, standing = cell.partition(")")
        return shape + end, standing.strip()

    def rank(shape: Shape) -> tuple[bool, float]:
        return surface(shape) < 0.8, screening.value("size", shape) or 0.0

    ranked = sorted(trained, key=rank)
    start = next(i for i, row in enumerate(page.rows) if row[:2] == ["(depth, width)", "epochs"])
    shapes, standings = zip(*(told(row[0]) for row in page.rows[start + 1 :][: len(trained)]))
    assert shapes == tuple(map(str, ranked))
    assert ranked[0] == best.shape
    misses = sum(surface(shape) < 0.8 for shape in trained)
    cheapest = min(trained, key=lambda shape: rank(shape)[1])
    assert ranked.index(cheapest) >= len(trained) - misses, "what misses may cost less"
    assert misses > 1
    others = [""] * (len(trained) - 1 - misses)
    assert standings == ("the answer", *others, *["misses the accuracy"] * misses)
    assert "The answer reaches the accuracy" in page.text


def test_only_what_is_known_of_a_meter_is_said(make_problem: MakeProblem, tmp_path: Path) -> None:
    def ask_phone(shape: Shape) -> dict[str, float]:
        return {"latency": latency(shape)}

    def told(meter: Meter, folder: str) -> str:
        problem = make_problem("accuracy", ("latency <= 1 ms",), meter=meter)
        return written(problem, searched(problem, 1), tmp_path / folder).text

    space = DesignSpace(range(1, 7), (4, 8, 12, 16, 24))
    for i, meter in enumerate((FunctionMeter(ask_phone), table(space))):
        text = told(meter, str(i))
        assert f"The costs come from: {meter.fingerprint}." in text
        assert "batch" not in text
    phone = FunctionMeter(ask_phone, fingerprint="my phone, batch 4, flight mode")
    assert "those of one call, on a batch of 4" in told(phone, "phone")


def test_what_an_end_guarantees_is_said_of_that_end(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    def trust(problem: ShapeProblem, trials: int | None, folder: str) -> str:
        study = searched(problem, trials)
        text = written(problem, study, tmp_path / folder).text
        return text.partition("Why it stopped, and how far to trust it")[2]

    certain = trust(make_problem("size", ("accuracy >= 80 %",)), None, "certain")
    assert "Stopped: the probability that some untrained" in certain
    assert "Gaussian process" in certain
    hopeless = trust(make_problem("size", ("accuracy >= 99.9 %",)), None, "hopeless")
    assert "unlikely, not impossible" in hopeless
    exhausted = trust(make_problem(depth=[1, 2], width=[4, 8]), None, "exhausted")
    assert "Stopped: all 4 feasible shapes have been trained." in exhausted
    assert "rests on no model and no probability" in exhausted
    assert "Gaussian process" not in exhausted
    assert "Leave-one-out" not in exhausted
    early = trust(make_problem(), 2, "early")
    assert "nothing is guaranteed" in early
    assert "too few shapes were trained" in early
    assert "Leave-one-out" not in early
    assert "A training that is repeated with another seed" in early
    assert "Gaussian process" not in early
    ended = trust(make_problem("accuracy", width=range(4, 40, 4)), 6, "ended")
    assert "nothing is guaranteed" in ended
    assert "After trial 5, the probability of a better shape was" in ended
    assert "Gaussian process" in ended
    assert "Leave-one-out" in ended


def test_the_answer_stands_beside_others_with_ratios(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms", "size <= 500 kB"), epochs=3)
    study = searched(problem, 8)
    page = written(problem, study, tmp_path)
    best, screening = problem.best(study), problem.screen(study)
    assert best is not None
    assert best.latency is not None
    other = largest(screening)
    latency = screening.value("latency", other)
    assert latency is not None
    row = page.row(
        "the largest within the limits" + (" the answer itself" * (other == best.shape))
    )
    assert row[1] == str(other)
    assert ("measured" in row[2]) == (other in StudyRecords(study).history().accuracies)
    assert ("predicted" in row[2]) != ("measured" in row[2])
    if other != best.shape:
        assert f"{latency / best.latency:.3g} times" in row[3]
    row = page.row("scaled in depth alone")
    assert row[1].endswith(", 12)")
    assert row[1] == str(max(s for s in problem.feasible(study) if s.width == 12))
    assert "Its width is kept at 12, the middle one of the space" in page.text


def known(**accuracies: float) -> dict[Shape, KnownAccuracy]:
    shapes = {Shape(*map(int, name[1:].split("x"))): value for name, value in accuracies.items()}
    return {shape: KnownAccuracy(value, value, value, 1) for shape, value in shapes.items()}


def test_a_cost_goal_scales_depth_until_the_accuracy_is_reached(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem("size", ("accuracy >= 82 %",))
    study = searched(problem, None)
    known = Facts(problem, study).known
    depth = min(d for d in problem.space.depths if known[Shape(d, 12)].value >= 0.82)
    page = written(problem, study, tmp_path)
    scaled = "scaled in depth alone"
    (row,) = (row for row in page.rows if row and row[0].startswith(scaled))
    assert row[1] == str(Shape(depth, 12))
    assert depth < 6
    assert "the shallowest shape that reaches 82 %, measured or else predicted." in page.text


def test_the_base_width_is_the_middle_one() -> None:
    assert base_width(DesignSpace([1], (64, 8, 16))) == 16
    assert base_width(DesignSpace([1], (4, 8, 16, 32))) == 8


def test_depth_is_scaled_until_the_accuracy_is_reached_or_a_limit_binds() -> None:
    accuracies = known(s1x4=0.6, s2x4=0.8, s3x4=0.7, s4x4=0.85, s1x8=0.9)
    assert depth_scaled(accuracies, 4, 0.75) == Shape(2, 4)
    assert depth_scaled(accuracies, 4, 0.84) == Shape(4, 4)
    assert depth_scaled(accuracies, 4, 0.95) == Shape(4, 4)
    assert depth_scaled(accuracies, 4) == Shape(4, 4)
    assert depth_scaled(accuracies, 8) == Shape(1, 8)
    assert depth_scaled(accuracies, 16, 0.5) is None


def test_the_cost_counts_every_epoch_that_was_run(make_problem: MakeProblem) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms",), epochs=4)
    study = searched(problem, 3)
    study.enqueue_trial({"depth": 1, "width": 16})

    def cut(trial: optuna.Trial) -> float:
        problem.suggest(trial)
        for epoch in (1, 2, 3):
            trial.report(0.5, epoch)
        raise optuna.TrialPruned

    study.optimize(cut, n_trials=1)
    screening = problem.screen(study)
    cost = training_cost(problem, screening, study.trials)
    unit = {s: s.depth * s.width**2 for s in problem.space.shapes}
    trained = [Shape(t.params["depth"], t.params["width"]) for t in study.trials[:3]]
    spent = 4 * sum(unit[s] for s in trained) + 3 * unit[Shape(1, 16)]
    assert cost.epochs == 15
    assert cost.share == pytest.approx(spent / (4 * sum(unit[s] for s in screening.feasible)))
    assert cost.uncounted == 0


def test_without_reports_a_training_counts_as_one(make_problem: MakeProblem) -> None:
    problem = make_problem(training_cost=None)
    study = searched(problem, 6)
    cost = training_cost(problem, problem.screen(study), study.trials)
    assert (cost.epochs, cost.share) == (6, 6 / len(problem.space))


def test_the_csv_holds_every_shape_and_is_a_table(
    make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms",), epochs=3)
    study = searched(problem, 7)
    _, path = write_report(problem, study, tmp_path / "digits.html")
    assert path == tmp_path / "digits.csv"
    with path.open(newline="") as file:
        rows = {Shape(int(r["depth"]), int(r["width"])): r for r in csv.DictReader(file)}
    assert set(rows) == set(problem.space.shapes)
    accuracies, best = StudyRecords(study).history().accuracies, problem.best(study)
    assert best is not None
    for shape, row in rows.items():
        assert (row["accuracy"] != "") == (shape in accuracies)
        assert row["accuracy"] in ("", str(surface(shape)))
        untrained = shape in problem.feasible(study) and shape not in accuracies
        assert (row["predicted_accuracy"] != "") == untrained
        if untrained:
            ends = [float(row[f"predicted_{x}"]) for x in ("low", "accuracy", "high")]
            assert ends == sorted(ends)
        assert row["answer"] == str(int(shape == best.shape))
    again = TableMeter(path).measure(problem.space, [best.shape], "latency")[best.shape]
    assert again.value == best.latency


def test_a_study_alone_is_enough_to_write_it(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem("accuracy", ("latency <= 1 ms", "size <= 500 kB"), epochs=3)
    study = searched(problem, 7)
    read = ShapeProblem.from_study(study)
    page = written(read, study, tmp_path)
    assert page.headings == HEADINGS
    assert "space = ...  # your own" in "".join(page.texts)


def test_the_code_of_a_family_builds_the_answer(tmp_path: Path) -> None:
    space = mlp([1, 2], [4, 8], input_shape=(6,), classes=3)
    problem = ShapeProblem(space, "accuracy", ["size <= 1 MB"])
    study = searched(problem, 2)
    path, _ = write_report(problem, study, tmp_path, checkpoint=tmp_path / "answer")
    codes = [text for text in Page(path).texts if "import mlp" in text]
    names: dict[str, object] = {}
    exec(codes[0], names)
    best = problem.best(study)
    assert best is not None
    expected = [p.shape for p in space.build(best.shape).parameters()]
    assert [p.shape for p in names["model"].parameters()] == expected  # type: ignore[attr-defined]
    assert str(tmp_path / "answer") in Page(path).text
    assert "Nothing had to be measured on a device" in Page(path).text


def test_what_cannot_be_written_is_an_error(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem()
    study = searched(problem, 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_report(problem, study, tmp_path / "file" / "report.html")
