"""Whatever happens to a worker or to the storage, the search ends with the answer it would have.

Workers are real processes on real storages; they are killed from within, at a chosen line.
"""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
import warnings
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import TrialState
from problems import latency
from problems import surface
from servers import Server
from servers import open_storage
from servers import running
from servers import serve
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import FunctionMeter
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape import ShapeSampler
from optuna_shape import ShapeTerminator
from optuna_shape import StudyMismatch
from optuna_shape import records
from optuna_shape.cli import EXIT_FAILED
from optuna_shape.cli import app
from optuna_shape.records import DIVERGED
from optuna_shape.records import StudyRecords

# Imports once for all workers.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["test_faults", "optuna_shape.decide._gp"])
SPACE = DesignSpace(range(1, 6), (4, 8, 16, 32))
EPOCHS = 3


def question(goal: str = "accuracy") -> ShapeProblem:
    constraints = ["latency <= 0.7 ms", *(["accuracy >= 85 %"] if goal != "accuracy" else [])]
    meter = FunctionMeter(lambda shape: {"latency": latency(shape)}, fingerprint="a formula")
    return ShapeProblem(SPACE, goal, constraints, meter=meter, epochs=EPOCHS)


@dataclass(frozen=True)
class Work:
    """What a worker does; it appends each shape that it has trained to a file."""

    address: str
    trained: Path
    goal: str = "accuracy"
    fault: str = ""
    heartbeat: bool = False

    def __call__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")
        if self.fault:
            FAULTS[self.fault]()
        storage = open_storage(self.address)
        if self.heartbeat:
            storage = RDBStorage(self.address, heartbeat_interval=1, grace_period=2)
        problem = question(self.goal)
        study = optuna.load_study(
            study_name="s", storage=storage, sampler=ShapeSampler(problem, seed=0)
        )
        study.optimize(self.objective(problem), callbacks=[ShapeTerminator(problem)])

    def objective(self, problem: ShapeProblem) -> Callable[[optuna.Trial], float]:
        def objective(trial: optuna.Trial) -> float:
            shape = problem.suggest(trial)
            for epoch in range(1, EPOCHS + 1):
                trial.report(surface(shape) * epoch / EPOCHS, epoch)
            with self.trained.open("a") as file:
                file.write(f"{shape.depth} {shape.width}\n")
            return problem.record(trial, surface(shape))

        return objective

    def counts(self) -> Counter[Shape]:
        """How often each shape was trained to the end, by whichever worker."""
        lines = self.trained.read_text().splitlines() if self.trained.exists() else []
        return Counter(Shape(*map(int, line.split())) for line in lines)


def run(work: Callable[[], None]) -> int:
    process = _context.Process(target=work)
    process.start()
    process.join(240)
    assert process.exitcode is not None, "the worker hangs"
    return process.exitcode


def wrap(owners: list[type], name: str, at: int, *, after: bool = False, like: Any = None) -> None:
    """Kill this process before or after the n-th call of a method, of those with an argument."""
    calls = 0

    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += like is None or like in arguments
            if calls == at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for owner in owners:
        setattr(owner, name, wrapper(getattr(owner, name)))


def on_other_host() -> None:
    records._HOST = "another machine"


def gone_elsewhere() -> None:
    on_other_host()
    wrap([optuna.Trial], "report", 5, after=True)


def clock(hours: float) -> None:
    """Let all that looks at the clock here see another time, on another machine."""
    on_other_host()
    real = datetime.datetime

    class Shifted(real):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return real.now(tz) + datetime.timedelta(hours=hours)

    optuna.storages._rdb.storage.datetime = Shifted
    optuna.storages.journal._storage.datetime = Shifted
    shifted = types.SimpleNamespace(datetime=Shifted, timedelta=datetime.timedelta)
    records.datetime = shifted  # type: ignore[assignment]


STORAGES: list[type] = [_CachedStorage, JournalStorage]
FAULTS: dict[str, Callable[[], None]] = {
    "measuring": lambda: wrap([FunctionMeter], "_ask", 8),
    "claimed": lambda: wrap([StudyRecords], "claim", 3, after=True),
    "in training": lambda: wrap([optuna.Trial], "report", 8, after=True),
    "trained": lambda: wrap([ShapeProblem], "record", 3),
    "recorded": lambda: wrap([ShapeProblem], "record", 3, after=True),
    "told": lambda: wrap(
        STORAGES, "set_trial_state_values", 3, after=True, like=TrialState.COMPLETE
    ),
    "deciding": lambda: wrap([StudyRecords], "write_stop", 1),
    "decided": lambda: wrap([StudyRecords], "write_stop", 1, after=True),
    "locked": lambda: wrap([JournalFileSymlinkLock], "acquire", 60, after=True),
    "gone elsewhere": gone_elsewhere,
    "ahead": lambda: clock(20),
    "behind": lambda: clock(-20),
}


def new_study(address: str, goal: str = "accuracy") -> optuna.Study:
    direction = question(goal).direction
    return optuna.create_study(study_name="s", storage=open_storage(address), direction=direction)


@pytest.fixture(scope="module")
def expected() -> dict[str, Shape]:
    """The answer to each goal without any fault."""
    answers = {}
    for goal in ("accuracy", "latency"):
        problem = question(goal)
        study = optuna.create_study(
            direction=problem.direction, sampler=ShapeSampler(problem, seed=0)
        )
        work = Work("", Path(os.devnull), goal)
        study.optimize(work.objective(problem), callbacks=[ShapeTerminator(problem)])
        answer, stop = problem.best(study), StudyRecords(study).stop()
        assert stop is not None
        assert stop["kind"] == "certain", "a stop that nobody decides tests nothing"
        assert answer is not None
        answers[goal] = answer.shape
    return answers


def check_end(study: optuna.Study, answer: Shape, goal: str = "accuracy") -> None:
    """The search has ended as it should, and left nothing lying about."""
    problem, history = question(goal), StudyRecords(study).history()
    best = problem.best(study)
    assert best is not None
    assert best.shape == answer
    assert StudyRecords(study).stop() is not None
    once = [n for n in history.trained if not records.is_replicate(study.trials[n])]
    assert set(Counter(history.shapes[number] for number in once).values()) == {1}
    assert set(history.accuracies) <= set(problem.feasible(study))
    assert all(trial.state.is_finished() for trial in study.trials if "depth" in trial.params)
    assert history.retired == frozenset()


KILLS = [
    ("measuring", "accuracy"),
    ("claimed", "accuracy"),
    ("in training", "accuracy"),
    ("trained", "accuracy"),
    ("recorded", "accuracy"),
    ("recorded", "latency"),
    ("told", "accuracy"),
    ("deciding", "accuracy"),
    ("decided", "accuracy"),
]
# Every fault on the quicker storage, and on the other one those that may differ.
ON_SQLITE = ("claimed", "told")


@pytest.mark.parametrize(
    ("kind", "fault", "goal"),
    [
        *(("journal", *kill) for kill in KILLS),
        *(
            pytest.param("sqlite", *kill, marks=[pytest.mark.slow] * (kill[0] not in ON_SQLITE))
            for kill in KILLS
        ),
    ],
)
def test_a_killed_worker_costs_no_more_than_what_it_had_not_stored(
    kind: str, fault: str, goal: str, tmp_path: Path, expected: dict[str, Shape]
) -> None:
    with serve(kind, tmp_path) as address:
        study = new_study(address, goal)
        work = Work(address, tmp_path / "trained", goal)
        assert run(Work(address, work.trained, goal, fault)) == -signal.SIGKILL
        before = work.counts()
        assert run(work) == 0
        check_end(study, expected[goal], goal)
        # Only a training that ended without a word of it in the storage is repeated.
        on_purpose = {records.shape_of(t) for t in study.trials if records.is_replicate(t)}
        repeated = {shape for shape, n in work.counts().items() if n > 1} - on_purpose
        assert len(repeated) == (fault == "trained")
        if fault == "decided":
            assert work.counts() == before, "the stop is honoured"
        history = StudyRecords(study).history()
        assert history.failures == history.losses == {}, "which says nothing against a shape"


@pytest.mark.slow
def test_a_kill_that_holds_the_journal_s_lock_delays_the_others(
    tmp_path: Path, expected: dict[str, Shape]
) -> None:
    with serve("journal", tmp_path) as address:
        study = new_study(address)
        work = Work(address, tmp_path / "trained")
        assert run(Work(address, work.trained, fault="locked")) == -signal.SIGKILL
        assert (tmp_path / "study.log.lock").is_symlink()
        # Optuna takes a lock away that was not released for 30 seconds.
        assert run(work) == 0
        check_end(study, expected["accuracy"])
        assert set(work.counts().values()) == {1}


def test_a_heartbeat_frees_the_claim_of_a_worker_that_was_killed_elsewhere(
    tmp_path: Path, expected: dict[str, Shape]
) -> None:
    with serve("sqlite", tmp_path) as address:
        study = new_study(address)
        work = Work(address, tmp_path / "trained", heartbeat=True)
        lost = Work(address, work.trained, fault="gone elsewhere", heartbeat=True)
        assert run(lost) == -signal.SIGKILL
        (left,) = [trial for trial in study.trials if trial.state == TrialState.RUNNING]
        assert StudyRecords(study).history().running == (left.number,), "it cannot be asked"
        time.sleep(3)
        assert run(work) == 0
        check_end(study, expected["accuracy"])
        assert StudyRecords(study).history().losses == {records.shape_of(left): 1}
        assert work.counts()[records.shape_of(left)] == 1


@dataclass(frozen=True)
class Decide:
    """A worker that waits for another one before it stores its decision."""

    work: Work
    both: Barrier

    def __call__(self) -> None:
        write = StudyRecords.write_stop

        def wait(own: StudyRecords, decision: dict[str, Any]) -> None:
            self.both.wait(120)
            write(own, decision)

        StudyRecords.write_stop = wait
        self.work()


def test_two_workers_may_decide_to_stop_at_once(
    tmp_path: Path, expected: dict[str, Shape]
) -> None:
    with serve("sqlite", tmp_path) as address:
        study = new_study(address)
        work = Work(address, tmp_path / "trained")
        decide = Decide(work, _context.Barrier(2))
        workers = [_context.Process(target=decide) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0]
        check_end(study, expected["accuracy"])
        before = work.counts()
        assert set(before.values()) == {1}
        assert run(work) == 0
        assert work.counts() == before


@dataclass(frozen=True)
class Pause:
    """A worker that stays in its first training until it is told to go on."""

    work: Work
    claimed: Event
    go_on: Event

    def __call__(self) -> None:
        report = optuna.Trial.report

        def wait(trial: optuna.Trial, value: float, step: int) -> None:
            report(trial, value, step)
            self.claimed.set()
            assert self.go_on.wait(240)

        optuna.Trial.report = wait  # type: ignore[method-assign]
        self.work()


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("sqlite", "ahead"),
        ("journal", "behind"),
        pytest.param("sqlite", "behind", marks=pytest.mark.slow),
        pytest.param("journal", "ahead", marks=pytest.mark.slow),
    ],
)
def test_clocks_may_differ_by_hours(
    kind: str, fault: str, tmp_path: Path, expected: dict[str, Shape]
) -> None:
    with serve(kind, tmp_path) as address:
        study = new_study(address)
        work = Work(address, tmp_path / "trained")
        elsewhere = Work(address, work.trained, fault=fault)
        pause = Pause(elsewhere, _context.Event(), _context.Event())
        worker = _context.Process(target=pause)
        worker.start()
        assert pause.claimed.wait(120)
        (held,) = study.trials
        assert held.datetime_start is not None
        hours = (held.datetime_start - datetime.datetime.now()).total_seconds() / 3600
        assert abs(hours) > 19
        assert run(work) == 0
        assert records.shape_of(held) not in work.counts(), "the claim is respected"
        pause.go_on.set()
        worker.join()
        assert worker.exitcode == 0
        check_end(study, expected["accuracy"])
        assert set(work.counts().values()) == {1}


def test_a_killed_worker_is_dead_before_its_parent_looks() -> None:
    """Until then its number exists; in a container that may be for ever."""
    process = subprocess.Popen(["sleep", "600"])
    start = records._start_of(process.pid)
    identity = {"worker": "w", "host": records._HOST, "pid": process.pid, "started": start}
    assert records._worker_is_alive(identity) is True
    earlier = {**identity, "started": "1"}
    assert records._worker_is_alive(earlier) is False, "the number was another process's"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    os.kill(process.pid, 0)
    assert records._worker_is_alive(identity) is False
    process.wait()
    assert records._worker_is_alive(identity) is False


CONTAINED = """
import sys
import test_faults

test_faults.Work(f"sqlite:///{sys.argv[1]}/study.db", test_faults.Path(sys.argv[1]) / "trained")()
"""


@pytest.mark.slow
def test_a_container_of_the_same_name_respects_claims(
    tmp_path: Path, expected: dict[str, Shape]
) -> None:
    """The processes of a container have numbers of their own."""
    contain = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*contain, "true"]).returncode:
        pytest.skip("no namespaces here")
    with serve("sqlite", tmp_path) as address:
        study = new_study(address)
        work = Work(address, tmp_path / "trained")
        pause = Pause(work, _context.Event(), _context.Event())
        worker = _context.Process(target=pause)
        worker.start()
        assert pause.claimed.wait(120)
        (held,) = study.trials
        command = [*contain, sys.executable, "-c", CONTAINED, str(tmp_path)]
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
        assert records.shape_of(held) not in work.counts()
        pause.go_on.set()
        worker.join()
        assert worker.exitcode == 0
        check_end(study, expected["accuracy"])
        assert set(work.counts().values()) == {1}


# The storage.

QUESTION = ["search", "--depth", "1", "--width", "4,6", "--max-noise", "100"]
QUESTION += ["--constraint", "latency <= 1000 s", "--study-name", "s"]


@contextlib.contextmanager
def in_loop(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command line, again until it succeeds, as in a shell."""
    call = "import sys; from optuna_shape.cli import main; sys.argv[0] = 'optuna-shape'; main()"
    loop = 'until "$@"; do sleep 1; done'
    command = ["bash", "-c", loop, "bash", sys.executable, "-c", call, *arguments]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def interrupt(server: Server, seconds: float) -> None:
    server.stop()
    time.sleep(seconds)
    server.start()


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError("it did not come true within two minutes")


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        ("postgresql", 3),
        pytest.param("postgresql", 20, marks=pytest.mark.slow),
        pytest.param("mysql", 3, marks=pytest.mark.slow),
    ],
)
def test_the_command_line_goes_on_once_the_storage_is_back(
    kind: str, seconds: float, tmp_path: Path
) -> None:
    epochs, log = 8, tmp_path / "log"
    arguments = [*QUESTION, "--epochs", str(epochs), "--output", str(tmp_path / "output")]

    def in_training() -> bool:
        with contextlib.suppress(KeyError):
            study = optuna.load_study(study_name="s", storage=server.url)
            return any(2 <= len(t.intermediate_values) <= 5 for t in study.trials)
        return False

    with running(kind) as server:
        with in_loop([*arguments, "--storage", server.url], log) as process:
            wait_until(in_training)
            interrupt(server, seconds)
            assert process.wait(240) == 0, log.read_text()
        study = optuna.load_study(study_name="s", storage=server.url)
        trials, history = study.trials, StudyRecords(study).history()
        stop = StudyRecords(study).stop()
    text = log.read_text()
    assert "The storage fails" in text
    assert "go on by the same command" in text
    assert "Traceback" not in text
    assert "The answer" in text
    assert stop is not None
    assert Counter(history.shapes.values()) == dict.fromkeys(history.accuracies, 1)
    assert len(history.accuracies) == 2
    assert history.failures == history.losses == {}
    (broken,) = [trial for trial in trials if trial.state == TrialState.FAIL]
    again = next(t for t in trials[broken.number + 1 :] if t.params == broken.params)
    # Nothing that was reported is lost: the training has gone on.
    assert broken.intermediate_values.items() <= again.intermediate_values.items()


@pytest.mark.parametrize(
    ("kind", "jobs"),
    [
        ("postgresql", 1),
        pytest.param("postgresql", 2, marks=pytest.mark.slow),
        pytest.param("mysql", 1, marks=pytest.mark.slow),
        pytest.param("grpc", 1, marks=pytest.mark.slow),
    ],
)
def test_a_loop_of_one_s_own_goes_on_once_the_storage_is_back(
    kind: str, jobs: int, tmp_path: Path, expected: dict[str, Shape]
) -> None:
    """In the same process: the trial that the storage did not take is over all the same."""
    problem, work = question(), Work("", tmp_path / "trained")
    inner, outages = work.objective(problem), iter([True])

    def objective(trial: optuna.Trial) -> float:
        value = inner(trial)
        if trial.number >= 3 and next(outages, False):
            server.stop()  # Its accuracy is stored, and that it is complete cannot be.
        return value

    with running(kind) as server:
        study = optuna.create_study(
            study_name="s",
            storage=open_storage(server.url),
            direction="maximize",
            sampler=ShapeSampler(problem, seed=0),
        )

        def answers() -> bool:
            with contextlib.suppress(Exception):
                return bool(study.trials)
            return False  # A client of gRPC tries again only after a while.

        with contextlib.suppress(Exception):  # Optuna may trip over what the storage raised.
            study.optimize(objective, n_jobs=jobs, callbacks=[ShapeTerminator(problem)])
        server.start()
        wait_until(answers)
        study.optimize(objective, n_jobs=jobs, callbacks=[ShapeTerminator(problem)])
        assert next(outages, None) is None
        check_end(study, expected["accuracy"])
        history = StudyRecords(study).history()
        assert history.failures == history.losses == {}
        # With threads, the storage may be gone between the end of a training and its word of it.
        assert sum(work.counts().values()) - len(work.counts()) <= jobs - 1


def test_an_address_that_is_none_is_told_in_a_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    for address, code in (
        ("nonsense", 2),
        ("nonsense://user:secret@host/shapes", 2),
        ("sqlite:////no/such/folder/shapes.db", 2),
        ("postgresql+psycopg://user:secret@127.0.0.1:1/shapes", EXIT_FAILED),
    ):
        arguments = [*QUESTION, "--output", str(tmp_path), "--storage", address]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == code, address
        assert isinstance(result.exception, SystemExit)
        assert len(result.output.strip().splitlines()) == 1
        assert "secret" not in result.output


# Versions.


def _rewrite_problem(study: optuna.Study, **changes: Any) -> None:
    own = StudyRecords(study)
    own._write_json("shape:problem", {**own._read_json("shape:problem"), **changes})


def test_a_study_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with serve("sqlite", tmp_path) as address:
        study = new_study(address)
        question().screen(study)
        for changes, said in (
            ({"format": 2}, "format 2, and this version of optuna_shape reads up to 1"),
            ({"format": 1, "budget": 3}, "'budget'"),
            ({"budget": None, "space": {"depth_of_field": 1}}, "cannot be read"),
        ):
            _rewrite_problem(study, **changes)
            for read in (lambda: question().screen(study), lambda: ShapeProblem.from_study(study)):
                with pytest.raises(StudyMismatch, match="install") as error:
                    read()
                assert said in str(error.value)


def test_a_study_from_before_formats_is_read(tmp_path: Path) -> None:
    with serve("sqlite", tmp_path) as address:
        study = new_study(address)
        question().screen(study)
        stored = StudyRecords(study)._read_json("shape:problem")
        assert stored.pop("format") == 1
        StudyRecords(study)._write_json("shape:problem", stored)
        assert question().screen(study).feasible


# The disk.


def greedy(depth, width, input_shape, classes):  # type: ignore[no-untyped-def]
    """A family whose largest shape needs more memory to be trained than there is."""

    class Net(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and self[1].out_features == 6:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return super().forward(x)

    def build(shape: Shape) -> nn.Module:
        return Net(nn.Flatten(), nn.Linear(144, shape.width), nn.Linear(shape.width, classes))

    return DesignSpace(depth, width, build, input_shape=input_shape)


@dataclass(frozen=True)
class Command:
    """The command line in a process of its own, where no file may grow beyond a size."""

    arguments: tuple[str, ...]
    log: Path
    limit: int | None = None

    def __call__(self) -> None:
        with self.log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if self.limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))
        app(self.arguments)


@pytest.mark.parametrize("transfer", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_full_disk_costs_the_networks_but_no_accuracy(transfer: bool, tmp_path: Path) -> None:
    output, log = tmp_path / "output", tmp_path / "log"
    arguments = ["search", "--family", "mlp", "--depth", "1", "--width", "4,4096", "--epochs", "2"]
    arguments += ["--constraint", "latency <= 1000 s", "--max-noise", "100"]
    arguments += ["--study-name", "s", "--output", str(output), *["--transfer"] * transfer]
    # Weights take 2.4 MB; what the study holds is less.
    assert run(Command(tuple(arguments), log, limit=1_500_000)) == 0
    text = log.read_text()
    assert "its progress cannot be kept" in text
    assert "Its accuracy counts all the same" in text
    assert "Traceback" not in text
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{output / 'study.db'}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    (small,) = output.glob("s/trial-*.safetensors")
    assert small.stat().st_size < 1_500_000
    assert "The answer" in text


def test_a_full_disk_under_the_study_is_told_and_loses_nothing(tmp_path: Path) -> None:
    output, log = tmp_path / "output", tmp_path / "log"
    arguments = (*QUESTION, "--epochs", "1", "--output", str(output))
    output.mkdir()
    database = output / "study.db"
    # The last page of the table is all but full, so that the file has to grow.
    new_study(f"sqlite:///{database}")
    open_storage(f"sqlite:///{database}").set_study_system_attr(1, "filler", "x" * 3000)
    assert run(Command(arguments, log, limit=database.stat().st_size)) == EXIT_FAILED
    assert "The storage fails" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert run(Command(arguments, log)) == 0
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{database}")
    history = StudyRecords(study).history()
    assert len(history.accuracies) == 2
    assert Counter(history.shapes.values()) == dict.fromkeys(history.accuracies, 1)
    assert history.failures == history.losses == {}


# Poisoned trainings.


def test_poisoned_trainings_are_retired_and_the_search_goes_on(tmp_path: Path) -> None:
    problem = question()
    poisons: dict[Shape, Callable[[], float]] = {
        Shape(1, 4): lambda: float("nan"),
        Shape(1, 8): lambda: [][0],
        Shape(2, 4): lambda: torch.empty(1 << 60).sum().item(),
        Shape(2, 8): lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")),
    }
    shapes: list[Shape] = []

    def objective(trial: optuna.Trial) -> float:
        shape = problem.suggest(trial)
        shapes.append(shape)
        try:
            accuracy = poisons.get(shape, lambda: surface(shape))()
        except Exception as error:
            StudyRecords(trial.study).write_failure(trial._trial_id, repr(error))
            raise
        return problem.record(trial, accuracy)

    with serve("sqlite", tmp_path) as address:
        study = optuna.create_study(
            storage=open_storage(address),
            direction="maximize",
            sampler=ShapeSampler(problem, seed=0),
        )
        study.optimize(objective, catch=(Exception,))
        feasible = problem.feasible(study)
        assert Counter(shapes) == {shape: 1 + (shape in poisons) for shape in feasible}
        history = StudyRecords(study).history()
        assert history.retired == set(poisons)
        reasons: dict[Shape, set[str]] = {}
        for trial in study.trials:
            if trial.state == TrialState.FAIL:
                shape = records.shape_of(trial)
                assert shape is not None
                reasons.setdefault(shape, set()).add(trial.user_attrs["reason"])
        assert reasons[Shape(1, 4)] == {DIVERGED}
        assert "IndexError" in reasons[Shape(1, 8)].pop()
        assert "RuntimeError" in reasons[Shape(2, 4)].pop()
        assert "OutOfMemoryError" in reasons[Shape(2, 8)].pop()
        stop = StudyRecords(study).stop()
        assert stop is not None
        assert "4 whose trainings failed" in stop["reason"]


def test_a_shape_that_does_not_fit_ends_no_command(tmp_path: Path) -> None:
    output, log = tmp_path / "output", tmp_path / "log"
    arguments = ["search", "--family", "test_faults:greedy", "--depth", "1", "--width", "4,6"]
    arguments += ["--epochs", "1", "--max-noise", "100", "--constraint", "latency <= 1000 s"]
    assert run(Command((*arguments, "--output", str(output)), log)) == 0
    text = log.read_text()
    assert "OutOfMemoryError: CUDA out of memory" in text
    assert "1 whose trainings failed" in text
    assert "The answer" in text
