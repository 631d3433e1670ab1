"""Servers of storages for tests: their own, on loopback, and gone afterwards."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.storages import GrpcStorageProxy
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages import run_grpc_proxy_server
from optuna.storages.journal import JournalFileBackend

#: Makes the storage, in whatever process.
OpenStorage = Callable[[str], BaseStorage]

KINDS = ("sqlite", "journal", "postgresql", "mysql", "grpc")


@contextlib.contextmanager
def serve(kind: str, folder: Path) -> Iterator[str]:
    """Start what a kind of storage needs, and yield an address for :func:`open_storage`."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'study.db'}"
    elif kind == "journal":
        yield f"journal:{folder / 'study.log'}"
    else:
        with running(kind) as server:
            yield server.url


def open_storage(address: str) -> BaseStorage:
    scheme, _, rest = address.partition(":")
    if scheme == "journal":
        return JournalStorage(JournalFileBackend(rest))
    if scheme == "grpc":
        return GrpcStorageProxy(host="127.0.0.1", port=int(rest))
    sqlite = {"connect_args": {"timeout": 60}}
    options = sqlite if scheme == "sqlite" else {"pool_pre_ping": True}
    return RDBStorage(address, engine_kwargs=options)


@dataclass(frozen=True)
class Server:
    """A server that can be stopped, at once and without notice, and started again where it was."""

    url: str
    start: Callable[[], None]
    stop: Callable[[], None]


@contextlib.contextmanager
def running(kind: str) -> Iterator[Server]:
    """A server of one of the kinds ``postgresql``, ``mysql`` and ``grpc``."""
    make = {"postgresql": _postgresql, "mysql": _mariadb, "grpc": _grpc_and_storage}[kind]
    with make() as server:
        yield server


@contextlib.contextmanager
def _postgresql() -> Iterator[Server]:
    """A PostgreSQL server of Debian's package ``postgresql``."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("no PostgreSQL in /usr/lib/postgresql; install Debian's package postgresql")
    port = free_port()
    with _folder("postgres") as (folder, user):
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        data = ("-D", str(folder / "data"))
        initdb = [str(binaries[-1] / "initdb"), *data, "-U", "optuna", "--auth=trust"]
        subprocess.run(initdb, check=True, user=user, stdout=subprocess.DEVNULL)
        control = [str(binaries[-1] / "pg_ctl"), *data, "-w", "-l", str(folder / "log")]

        def run(*arguments: str) -> None:
            command = [*control, *arguments]
            subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL)

        server = Server(
            f"postgresql+psycopg://optuna@127.0.0.1:{port}/postgres",
            start=lambda: run("-o", options, "start"),
            stop=lambda: run("-m", "immediate", "stop"),
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def _mariadb() -> Iterator[Server]:
    """A MariaDB server of Debian's package ``mariadb-server``."""
    import pymysql

    program, install = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    if program is None or install is None:
        pytest.skip("no mariadbd; install Debian's package mariadb-server")
    port = free_port()
    with _folder("mysql") as (folder, user):
        common = ["--no-defaults", f"--datadir={folder / 'data'}"]
        prepare = [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(prepare, check=True, user=user, stdout=subprocess.DEVNULL)
        command = [program, *common, f"--port={port}", "--bind-address=127.0.0.1"]
        command += [f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}"]
        processes: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            with (folder / "log").open("a") as log:
                processes.append(subprocess.Popen(command, user=user, stdout=log, stderr=log))
            wait_for(port, processes[-1])

        def stop() -> None:
            processes[-1].kill()
            processes[-1].wait()

        try:
            start()
            with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection:
                connection.cursor().execute("create database optuna")
            yield Server(f"mysql+pymysql://root@127.0.0.1:{port}/optuna", start, stop)
        finally:
            stop()


@contextlib.contextmanager
def _grpc_and_storage() -> Iterator[Server]:
    with _postgresql() as behind, _grpc(behind.url) as server:
        yield server


@contextlib.contextmanager
def _grpc(url: str) -> Iterator[Server]:
    """Optuna's proxy in front of another storage."""
    RDBStorage(url)  # Makes the tables, so that the server is quick to come up.
    port = free_port()
    context = multiprocessing.get_context("spawn")
    processes: list[multiprocessing.process.BaseProcess] = []

    def start() -> None:
        processes.append(context.Process(target=_proxy, args=(url, port), daemon=True))
        processes[-1].start()
        wait_for(port, processes[-1])

    def stop() -> None:
        processes[-1].kill()
        processes[-1].join()

    start()
    try:
        yield Server(f"grpc:{port}", start, stop)
    finally:
        stop()


def _proxy(url: str, port: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run_grpc_proxy_server(RDBStorage(url), host="127.0.0.1", port=port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(
    port: int, process: subprocess.Popen[bytes] | multiprocessing.process.BaseProcess
) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        ended = process.poll() if isinstance(process, subprocess.Popen) else process.exitcode
        assert ended is None, f"the server ended with exit code {ended}"
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port} after a minute")


@contextlib.contextmanager
def _folder(user: str) -> Iterator[tuple[Path, str | None]]:
    """A folder of a user's own, since these servers refuse to be run by root."""
    # Not below pytest's, which others may not enter. Sockets want a short path.
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name), None
            return
        shutil.chown(name, user)
        yield Path(name), user
