"""Whatever is read, of a user, a file or a study: an error of ours or something valid."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from optuna_shape import Constraint
from optuna_shape import DesignSpace
from optuna_shape import InvalidCheckpoint
from optuna_shape import InvalidConstraint
from optuna_shape import InvalidSpace
from optuna_shape import MeasurementUnavailable
from optuna_shape import Shape
from optuna_shape import ShapeError
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape import TableMeter
from optuna_shape.cli._common import integers
from optuna_shape.cli._common import sizes
from optuna_shape.cli._job import _check_training
from optuna_shape.cli._options import options_of
from optuna_shape.cli._options import read_options
from optuna_shape.constraints import UNITS
from optuna_shape.families import mlp
from optuna_shape.filters import Verdict
from optuna_shape.records import StudyRecords
from optuna_shape.report.notes import study_note
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.checkpoint import save_checkpoint
from optuna_shape.train.recipe import Recipe

many = settings(max_examples=300, deadline=None, derandomize=True)
few = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NUMBERS = st.one_of(
    st.integers(-5, 10**4).map(str),
    st.floats().map(repr),
    st.sampled_from(["1e308", "1e-320", "9" * 400, "9" * 5000, "nan", "inf", "-0", "1_0", "٣"]),
)
#: Of what anybody may put into a file or an attribute; small, for large networks only take long.
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 300),
        st.sampled_from([-(10**400), 1e308]),
        st.floats(),
        st.text(max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Something in JSON, changed in one place."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
        result = copy.copy(value)
        key = draw(
            st.sampled_from(sorted(value) if isinstance(value, dict) else [*range(len(value))])
        )
        if draw(st.integers(0, 5)):
            result[key] = draw(changed(value[key]))
        else:
            del result[key]
        return result
    return draw(JSON)


# What a user writes.


@many
@given(
    text=st.one_of(
        st.text(max_size=40),
        st.builds(
            "{}{}{} {}{}".format,
            st.sampled_from([*UNITS, "speed", "\u017fize"]),
            st.sampled_from(["<=", ">=", " ≤ ", "<", "=="]),
            NUMBERS,
            st.sampled_from(["", "%", *(unit for units in UNITS.values() for unit in units)]),
            st.one_of(st.just(""), st.builds(" of ({}, {})".format, NUMBERS, NUMBERS)),
        ),
    )
)
@example("latency <= 1e-320 ns")
@example("size <= 1e308 GiB")
@example(f"latency <= 60 % of ({'9' * 5000}, 1)")
@example("latency <= 1e-323 % of (1, 1)")
def test_a_constraint_is_read_or_refused(text: str) -> None:
    try:
        constraint = Constraint.parse(text)
    except InvalidConstraint:
        return
    assert 0 < constraint.bound < math.inf
    again = Constraint.parse(str(constraint))
    assert again.property == constraint.property
    assert again.reference == constraint.reference
    assert math.isclose(again.bound, constraint.bound, rel_tol=1e-9)


@many
@given(text=st.one_of(st.text(max_size=20), st.text("0123456789-, ", max_size=20)))
@example("1-99999999999")
@example("9" * 5000)
def test_lists_of_integers_are_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidSpace):
        numbers = integers(text, "--depth")
        assert numbers is not None
        assert all(isinstance(number, int) for number in numbers)
    with contextlib.suppress(InvalidSpace):
        assert all(isinstance(number, int) for number in sizes(text))


def _anything(
    a: int = 1, b: float = 0.5, c: bool | None = None, d: str = "x", e: tuple[int, ...] = ()
) -> None:
    pass


@many
@given(
    name=st.one_of(st.sampled_from("abcde"), st.text(max_size=3)),
    text=st.one_of(st.text(max_size=10), NUMBERS),
)
def test_options_are_read_or_refused(name: str, text: str) -> None:
    for function in (_anything, Recipe):
        for written in (text, f"{name}={text}", f"learning_rate={text}", f"head={text}"):
            # The command line tells of a ValueError in a line.
            with contextlib.suppress(ValueError):
                values = read_options("--recipe", "A recipe", [written], options_of(function))
                assert len(values) == 1
                if function is Recipe:
                    with contextlib.suppress(ShapeError):
                        Recipe.usual("sgd", **values)


# Files.

CELLS = st.one_of(NUMBERS, st.text(max_size=5), st.sampled_from(["", "=1+1", '"', "\x00", "\n"]))
COLUMNS = ["depth", "width", "latency", "latency_low", "latency_high", "size", "latency_note"]


@few
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(st.lists(CELLS, max_size=8), max_size=4).map(
            lambda rows: "\n".join(",".join(row) for row in [COLUMNS, *rows]).encode(
                errors="surrogatepass"
            )
        ),
    )
)
@example(content=f"depth,width,latency\n{'9' * 400},1,1\n".encode())
@example(content=f"depth,width,latency\n1,1,{'9' * 400}\n".encode())
@example(content=b"depth,width,latency\n1,1,1" + b"0" * 200_000)
def test_a_table_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    try:
        meter = TableMeter(path)
    except MeasurementUnavailable:
        return
    space = DesignSpace([1], [1])
    for quantity in ("latency", "size"):
        with contextlib.suppress(MeasurementUnavailable):
            measurement = meter.measure(space, space.shapes, quantity)[Shape(1, 1)]
            assert measurement.low <= measurement.value <= measurement.high


SPACE = mlp(depth=[1], width=[4], input_shape=(3,), classes=2)


def _saved(folder: Path) -> tuple[Path, dict[str, Any], bytes]:
    path = folder / "net"
    save_checkpoint(path, SPACE.build(Shape(1, 4)), SPACE, (1, 4), {"accuracy": 0.5})
    info = json.loads(path.with_suffix(".json").read_text())
    return path, info, path.with_suffix(".safetensors").read_bytes()


@few
@given(data=st.data())
def test_a_description_of_a_network_is_read_or_refused(
    data: st.DataObject, tmp_path: Path
) -> None:
    path, info, _ = _saved(tmp_path)
    texts = st.one_of(changed(info).map(json.dumps), st.text(max_size=20))
    path.with_suffix(".json").write_text(
        data.draw(texts), encoding="utf-8", errors="surrogatepass"
    )
    for space in (None, SPACE):
        with contextlib.suppress(InvalidCheckpoint):
            model, _ = load_checkpoint(path, space)
            assert isinstance(model, torch.nn.Module)


@pytest.mark.parametrize("depth", [2**31, 10**400])
def test_a_network_that_no_file_could_hold_is_not_built(depth: int, tmp_path: Path) -> None:
    path, info, _ = _saved(tmp_path)
    path.with_suffix(".json").write_text(json.dumps({**info, "shape": [depth, 4]}))
    with pytest.raises(InvalidCheckpoint, match="bytes"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format":' * 50_000, "\ud800", "1" * 5000])
def test_a_description_that_no_parser_likes_is_refused(text: str, tmp_path: Path) -> None:
    path, _, _ = _saved(tmp_path)
    path.with_suffix(".json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(InvalidCheckpoint):
        load_checkpoint(path)


@few
@given(data=st.data())
def test_weights_are_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    path, info, weights = _saved(tmp_path)
    size = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + size])
    kind = data.draw(st.sampled_from(["bytes", "header", "tensors", "cut"]))
    if kind == "bytes":
        content = data.draw(st.binary(max_size=100))
    elif kind == "header":
        text = json.dumps(data.draw(changed(header))).encode()
        content = len(text).to_bytes(8, "little") + text + weights[8 + size :]
    elif kind == "tensors":
        types = [torch.float64, torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn]
        values = torch.ones(data.draw(st.integers(0, 4)), 3).to(data.draw(st.sampled_from(types)))
        content = safetensors.torch.save({data.draw(st.sampled_from(["1.weight", "x"])): values})
    else:
        content = weights[: data.draw(st.integers(0, len(weights)))]
    path.with_suffix(".safetensors").write_bytes(content)
    info["weights_sha256"] = hashlib.sha256(content).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(info))
    with contextlib.suppress(InvalidCheckpoint):
        load_checkpoint(path)


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickled_weights_are_refused_and_run_nothing(tmp_path: Path) -> None:
    path, info, _ = _saved(tmp_path)
    mark = tmp_path / "exploded"
    torch.save(_Bomb(mark), tmp_path / "zipped")
    for content in (pickle.dumps(_Bomb(mark)), (tmp_path / "zipped").read_bytes()):
        path.with_suffix(".safetensors").write_bytes(content)
        info["weights_sha256"] = hashlib.sha256(content).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(info))
        with pytest.raises(InvalidCheckpoint):
            load_checkpoint(path)
        assert not mark.exists()
        pickle.loads(pickle.dumps(_Bomb(mark)))  # It would.
        assert mark.exists()
        mark.unlink()


# Studies.


def _problem() -> ShapeProblem:
    space = DesignSpace([1, 2, 3], [4, 8])
    meter = TableMeter({s: {"latency": 0.001 * s.depth, "size": 100.0} for s in space.shapes})
    constraints = ["latency <= 2 ms", "accuracy >= 10 %"]
    return ShapeProblem(space, "size", constraints, meter=meter, epochs=2)


def _study() -> optuna.Study:
    """A search that has two trainings behind it, one at hand, and a decision to stop."""
    problem = _problem()
    study = optuna.create_study(direction=problem.direction, sampler=ShapeSampler(problem, seed=0))
    for accuracy in (0.5, 0.6):
        trial = study.ask()
        problem.suggest(trial)
        trial.report(accuracy, 1)
        study.tell(trial, problem.record(trial, accuracy))
    problem.suggest(study.ask())
    for key, value in {
        "shape:stop": {"kind": "certain", "reason": "so it is", "answer": [1, 4]},
        "shape:certainty:1": 0.5,
        "shape:lease:other": {"beat": 1, "worker": "x", "host": "y", "pid": 1, "started": None},
        "shape:training": {"recipe": {"optimizer": "sgd"}, "data": "digits"},
    }.items():
        study._storage.set_study_system_attr(study._study_id, key, value)
    return study


def _look(study: optuna.Study) -> Iterator[object]:
    """All that reads a study, as a process that opens it does."""
    problem, own = _problem(), StudyRecords(study)
    study.sampler = ShapeSampler(problem, seed=0)
    yield own.other_leases
    yield own.certainties
    yield lambda: _check_training(study, {"recipe": {"optimizer": "sgd"}, "data": "digits"})
    yield lambda: ShapeProblem.from_study(study).best(study)
    yield lambda: problem.screen(study)
    yield lambda: problem.best(study)
    yield lambda: problem.feasible(study)
    yield lambda: study_note(problem, study)
    yield lambda: ShapeTerminator(problem)(study, study.trials[0])
    yield lambda: problem.suggest(study.ask())


@few
@given(data=st.data())
def test_attributes_of_a_study_are_read_or_refused(data: st.DataObject) -> None:
    def is_something(value: object) -> bool:
        return value is not None  # Without verdicts, a worker waits for its turn to measure.

    study = _study()
    storage, number = study._storage, study._study_id
    attributes = storage.get_study_system_attrs(number)
    names = sorted(name for name in attributes if name.startswith("shape:"))
    what = data.draw(st.sampled_from([*names, "problem", "screening", "claim", "accuracy"]))
    if what in ("problem", "screening"):
        own = StudyRecords(study)
        value = data.draw(changed(own._read_json(f"shape:{what}")).filter(is_something))
        text = json.dumps(value)
        header = {"digest": "new", "pieces": 1}
        storage.set_study_system_attr(number, f"shape:{what}:new:0", text)
        storage.set_study_system_attr(number, f"shape:{what}", header)
    elif what == "claim":
        trial = study.trials[data.draw(st.integers(0, 2))]
        value = data.draw(changed(trial.system_attrs["shape:claim"]))
        storage._get_trial(trial._trial_id).system_attrs["shape:claim"] = value
    elif what == "accuracy":
        trial = study.trials[0]
        storage._get_trial(trial._trial_id).user_attrs["accuracy"] = data.draw(JSON)
    else:
        value = data.draw(changed(attributes[what]).filter(is_something))
        storage.set_study_system_attr(number, what, value)
    for look in _look(study):
        # A trial that is not to be trained is pruned, and a stop ends it.
        with contextlib.suppress(ShapeError, optuna.TrialPruned):
            look()  # type: ignore[operator]


HTML = '<img src=x onerror="alert(1)">'


@few
@given(
    text=st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            [HTML, "[x](javascript:alert(1))", "![x](http://x)", "`", "</td><script>", "\\<b>"]
        ),
    )
)
def test_notes_show_what_they_are_told_and_no_more(text: str) -> None:
    def excluded(shape: Shape) -> Verdict:
        return Verdict("over" if shape.depth == 2 else "within", text, text)

    space = DesignSpace([1, 2], [4], name=text)
    meter = TableMeter({shape: {"latency": 0.001} for shape in space.shapes})
    meter.fingerprint = text
    problem = ShapeProblem(space, "latency", ["accuracy >= 1 %"], meter=meter, filters=[excluded])
    study = optuna.create_study(direction="minimize", study_name=f"{text}1")
    problem.screen(study)
    stop = {"kind": "certain", "reason": text}
    study._storage.set_study_system_attr(study._study_id, "shape:stop", stop)
    note = study_note(problem, study)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(note)
    kinds = {t.type for token in tokens for t in (token, *(token.children or ()))}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline"}
    assert np.isin("table_open", list(kinds))
