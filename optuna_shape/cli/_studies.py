"""Studies and their storages, by what a user has: a URL, a file, or a folder of a search."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal

import optuna
import typer
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from sqlalchemy import create_engine
from sqlalchemy import inspect
from sqlalchemy.engine import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from optuna_shape.constraints import GOALS
from optuna_shape.errors import ShapeError
from optuna_shape.filters import Screening
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import StudyRecords
from optuna_shape.report.measured import check_writable
from optuna_shape.space import Shape

Storage = Annotated[
    str,
    typer.Argument(
        help="Where the study is, as --storage of the search has it, or the --output of a search "
        "without --storage."
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option(help="Name of the study; needed if there are several.", show_default=False),
]
#: Where a search keeps its study by default, and in which file of its --output.
OUTPUT = "optuna-shape-output"
_STUDY_FILE = "study.db"
#: How storages can be named.
STORAGES = (
    "a .db or .sqlite file for SQLite; a .log, .journal or .jsonl file for a journal, which many "
    "machines may share; a folder, for study.db in it; or a URL, such as "
    "postgresql+psycopg://user@host/database"
)
_SUFFIXES: dict[str, Literal["sqlite", "journal"]] = {
    ".db": "sqlite",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".log": "journal",
    ".journal": "journal",
    ".jsonl": "journal",
}
_SQLITE = b"SQLite format 3\0"
_JOURNAL = b'{"op_code"'
# Seconds to wait for an SQLite file that others write to; its own default is 5.
_SQLITE_TIMEOUT = 60
_LISTED = 20


class InvalidStorage(ShapeError, ValueError):
    """What was named can be no storage."""


class StudyUnavailable(ShapeError):
    """There is no such storage, or it holds no such study, or several without a name to choose."""


def open_study(address: str, name: str | None) -> Study:
    """Open a study that exists; a storage that does not is not created.

    Args:
        address: See :func:`open_storage`.
        name: Name of the study; None where there is but one.

    Raises:
        InvalidStorage: It can be no storage.
        StudyUnavailable: There is none; the message says what there is.
        SQLAlchemyError: The storage cannot be reached.
    """
    return find_study(open_storage(address, create=False), address, name)


def find_study(storage: BaseStorage, address: str, name: str | None) -> Study:
    """Find a study in the storage that was opened by an address.

    Raises:
        StudyUnavailable: There is none; the message says what there is.
    """
    names = sorted(optuna.get_all_study_names(storage))
    listed = ", ".join(map(repr, names[:_LISTED]))
    if len(names) > _LISTED:
        listed += f" and {len(names) - _LISTED} more"
    if not names:
        raise StudyUnavailable(f"{_shown(address)} holds no study yet.")
    if name is None and len(names) > 1:
        raise StudyUnavailable(
            f"{_shown(address)} holds several studies; choose one with --study-name: {listed}."
        )
    if name is not None and name not in names:
        raise StudyUnavailable(f"{_shown(address)} holds no study {name!r}. There is {listed}.")
    return optuna.load_study(study_name=name or names[0], storage=storage)


def as_json(problem: ShapeProblem, study: Study, **more: object) -> dict[str, object]:
    """What a study asks and what has come of it so far, for a program.

    Args:
        problem: What is asked.
        study: Where it is searched.
        more: What else is known of the answer, if there is one.
    """
    records = StudyRecords(study)
    known = records.is_screened()  # To ask the problem would be to measure.
    answer = problem.best(study) if known else None
    found = answer and {
        **answer.shape._asdict(),
        **{name: getattr(answer, name) for name in GOALS},
        **notes_of_estimates(problem.screen(study), answer.shape),
        "trial": answer.trial.number,
        "note": answer.note,
        **more,
    }
    return {
        "study": study.study_name,
        "goal": problem.goal,
        "constraints": [str(constraint) for constraint in problem.constraints],
        "shapes": len(problem.space),
        "feasible": len(problem.feasible(study)) if known else None,
        "trained": len(records.history().accuracies),
        "stop": records.stop(),
        "answer": found,
    }


def notes_of_estimates(screening: Screening, shape: Shape) -> dict[str, str]:
    """How what was not measured of a shape was estimated: ``{"energy_note": ...}``, for a program.

    A key of its own says so, lest a program take it for measured.
    """
    found = {name: known.get(shape) for name, known in screening.measurements.items()}
    return {f"{name}_note": m.note for name, m in found.items() if m is not None and m.is_estimate}


def open_storage(address: str, *, create: bool) -> BaseStorage:
    """Open a storage; Optuna's defaults do not fit searches of days on many workers.

    Args:
        address: A URL as Optuna takes it, a SQLite or journal file, or a folder that holds
            ``study.db``.
        create: Whether it is made where there is none.

    Raises:
        InvalidStorage: It can be no storage, or what it needs is not installed.
        StudyUnavailable: There is none, and none is to be made.
        SQLAlchemyError: It cannot be reached.
    """
    path = file_of(address)
    if path is None:
        if in_memory(address) and not create:
            raise InvalidStorage(
                f"{address} is no database that others can open: it is in the memory of the "
                f"process that made it. Give {STORAGES}."
            )
        return _open_database(address, create)
    kind = _kind(path)
    if "://" in address:
        if kind == "journal":
            raise InvalidStorage(f"{path} is a journal, no SQLite database. Name it without ://.")
        kind = "sqlite"
    if not path.exists() and not create:
        if path != Path(address) and "://" not in address:
            raise StudyUnavailable(
                f"{address} holds no {path.name}; if the search had --storage, give that."
            )
        raise StudyUnavailable(
            f"There is no file {path}, and so no study. Give the --storage of a search, or its "
            "--output if it had none."
        )
    if kind is None:
        raise InvalidStorage(f"{path} says nothing of its kind. Give {STORAGES}.")
    if create:
        try:
            check_writable(path)
        except OSError as error:
            raise InvalidStorage(
                f"The storage {path} cannot be written: {error.strerror}. Name a file in a folder "
                "that is there and your own."
            ) from None
    if kind == "journal":
        return JournalStorage(_Journal(str(path)))
    if "://" not in address:
        address = str(URL.create("sqlite", database=str(path.absolute())))
    return _open_database(address, create)


def file_of(address: str) -> Path | None:
    """Return the file that a storage is kept in, if it is one.

    Raises:
        InvalidStorage: The address is none.
    """
    if "://" not in address:
        path = Path(address)
        return path / _STUDY_FILE if path.is_dir() else path
    url = _parse(address)
    if url.get_backend_name() != "sqlite" or in_memory(address):
        return None
    return None if str(url.database).startswith("file:") else Path(str(url.database))


def in_memory(address: str) -> bool:
    """Return whether a storage is gone with the process that opened it."""
    return address.startswith("sqlite") and (
        _parse(address).database in (None, "", ":memory:") or "mode=memory" in address
    )


def _parse(address: str) -> URL:
    try:
        return make_url(address)
    except (ArgumentError, ValueError) as error:
        raise InvalidStorage(
            f"{_shown(address)} is no URL of a storage: {error}. Give {STORAGES}."
        ) from None


def _kind(path: Path) -> Literal["sqlite", "journal"] | None:
    """Tell what a file is by what it holds, and an empty or future one by its name.

    Raises:
        InvalidStorage: It is something else, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except FileNotFoundError:
        start = b""
    except OSError as error:
        raise InvalidStorage(
            f"{path} cannot be read: {error.strerror}. Give {STORAGES}."
        ) from None
    if start == _SQLITE:
        return "sqlite"
    if start.startswith(_JOURNAL):
        return "journal"
    if start:
        raise InvalidStorage(
            f"{path} is neither a SQLite database nor a journal of Optuna. Give {STORAGES}."
        )
    return _SUFFIXES.get(path.suffix.lower())


def _open_database(address: str, create: bool) -> RDBStorage:
    """Open a database; Optuna would make its tables in whatever it is given."""
    options: dict[str, Any] = {"pool_pre_ping": True}  # A server may have been restarted.
    if address.startswith("sqlite"):
        # Many workers write at once, and one of them has the file at a time.
        options = {"connect_args": {"timeout": _SQLITE_TIMEOUT}}
    try:
        if not create and not _has_tables(address):
            raise StudyUnavailable(
                f"{_shown(address)} is no storage of Optuna: it has no studies."
            )
        return RDBStorage(address, engine_kwargs=options, skip_table_creation=not create)
    except (ArgumentError, ImportError, RuntimeError) as error:
        raise InvalidStorage(
            f"{_shown(address)} cannot be opened: {error.__cause__ or error}. Give {STORAGES}, "
            "whose driver has to be installed."
        ) from error


def _has_tables(address: str) -> bool:
    engine = create_engine(address)
    try:
        # Optuna makes the second one last.
        return all(inspect(engine).has_table(name) for name in ("studies", "alembic_version"))
    finally:
        engine.dispose()


class _Journal(JournalFileBackend):
    """A journal whose troubles are told as those of any storage, not of a file of ours."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        try:
            yield from super().read_logs(log_number_from)
        except OSError as error:
            raise StorageInternalError(str(error)) from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            raise StorageInternalError(str(error)) from error


def _shown(address: str) -> str:
    """A storage without the password that its URL may hold."""
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:***@", address)
