"""Studies that exist, found by what a user has: a URL, a file, or a folder of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import optuna
import typer
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
from sqlalchemy.exc import SQLAlchemyError

from optuna_shape.errors import ShapeError

Storage = Annotated[
    str,
    typer.Argument(
        help="Where the study is: a storage URL, a .db or journal file, or the --output of a "
        "search."
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option(help="Name of the study; needed if there are several.", show_default=False),
]
#: Where a search keeps its study by default, and in which file of its --output.
OUTPUT = "optuna-shape-output"
_STUDY_FILE = "study.db"
_SQLITE = b"SQLite format 3\0"
_JOURNAL = b'{"op_code"'
_LISTED = 20


class StudyUnavailable(ShapeError):
    """There is no such storage, or it holds no such study, or several without a name to choose."""


def open_study(storage: str, name: str | None) -> Study:
    """Open a study that exists; a storage that does not is not created.

    Args:
        storage: A URL as Optuna takes it, a SQLite or journal file, or a folder that holds
            ``study.db``.
        name: Name of the study; None where there is but one.

    Raises:
        StudyUnavailable: It cannot be opened; the message says what there is.
    """
    opened = open_storage(storage)
    names = sorted(optuna.get_all_study_names(opened))
    listed = ", ".join(map(repr, names[:_LISTED]))
    if len(names) > _LISTED:
        listed += f" and {len(names) - _LISTED} more"
    if not names:
        raise StudyUnavailable(f"{_shown(storage)} holds no study yet.")
    if name is None and len(names) > 1:
        raise StudyUnavailable(
            f"{_shown(storage)} holds several studies; choose one with --study-name: {listed}."
        )
    if name is not None and name not in names:
        raise StudyUnavailable(f"{_shown(storage)} holds no study {name!r}. There is {listed}.")
    return optuna.load_study(study_name=name or names[0], storage=opened)


def open_storage(storage: str) -> BaseStorage:
    """Open a storage that exists.

    Raises:
        StudyUnavailable: There is none, or it cannot be read.
    """
    if "://" in storage:
        return _open_database(storage)
    path = Path(storage)
    if path.is_dir():
        path = path / _STUDY_FILE
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except OSError as error:
        raise StudyUnavailable(
            f"{path} cannot be read: {error.strerror}. Name an Optuna storage, a .db or journal "
            "file, or the --output of a search."
        ) from None
    if start == _SQLITE:
        return _open_database(str(URL.create("sqlite", database=str(path.absolute()))))
    if start.startswith(_JOURNAL):
        return JournalStorage(JournalFileBackend(str(path)))
    raise StudyUnavailable(f"{path} is neither a SQLite database nor a journal of Optuna.")


def _open_database(address: str) -> RDBStorage:
    """Open a database that Optuna has been in before; it would make its tables in any other."""
    try:
        url = make_url(address)
    except ArgumentError:
        raise StudyUnavailable(
            f"{_shown(address)} is no URL of a storage; write it like sqlite:///shapes.db."
        ) from None
    file = url.database or ""
    is_file = url.get_backend_name() == "sqlite" and not file.startswith("file:")
    if is_file and not Path(file).is_file():  # SQLite would create it.
        raise StudyUnavailable(f"There is no database {file or address}.")
    try:
        engine = create_engine(url)
        known = inspect(engine).has_table("studies")
        engine.dispose()
        if known:
            return RDBStorage(address, skip_table_creation=True)
    except (SQLAlchemyError, ImportError, RuntimeError) as error:
        # SQLAlchemy's own messages have several lines, the first of which says it.
        reason = str(error).partition("\n")[0]
        raise StudyUnavailable(f"{_shown(address)} cannot be opened: {reason}") from None
    raise StudyUnavailable(f"{_shown(address)} is no storage of Optuna: it has no studies.")


def _shown(storage: str) -> str:
    """A storage without the password that its URL may hold."""
    if "://" not in storage:
        return storage
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except ArgumentError:
        return storage
