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
    elif kind == "postgresql":
        with postgresql() as url:
            yield url
    elif kind == "mysql":
        with mariadb() as url:
            yield url
    elif kind == "grpc":
        with postgresql() as url, grpc(url) as address:
            yield address
    else:
        raise ValueError(kind)


def open_storage(address: str) -> BaseStorage:
    scheme, _, rest = address.partition(":")
    if scheme == "journal":
        return JournalStorage(JournalFileBackend(rest))
    if scheme == "grpc":
        return GrpcStorageProxy(host="127.0.0.1", port=int(rest))
    options = {"connect_args": {"timeout": 60}} if scheme == "sqlite" else {}
    return RDBStorage(address, engine_kwargs=options)


@dataclass(frozen=True)
class Server:
    """A server that can be stopped and started again where it was."""

    url: str
    control: tuple[str, ...]
    options: str
    user: str | None

    def start(self) -> None:
        self._run("-o", self.options, "start")

    def stop(self) -> None:
        self._run("-m", "immediate", "stop")

    def _run(self, *arguments: str) -> None:
        command = [*self.control, *arguments]
        subprocess.run(command, check=True, user=self.user, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of Debian's package ``postgresql``."""
    with postgresql_server() as server:
        yield server.url


@contextlib.contextmanager
def postgresql_server() -> Iterator[Server]:
    """The same, to stop and to start."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("no PostgreSQL in /usr/lib/postgresql; install Debian's package postgresql")
    port = free_port()
    with _folder("postgres") as (folder, user):
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        data = ("-D", str(folder / "data"))
        initdb = [str(binaries[-1] / "initdb"), *data, "-U", "optuna", "--auth=trust"]
        subprocess.run(initdb, check=True, user=user, stdout=subprocess.DEVNULL)
        control = (str(binaries[-1] / "pg_ctl"), *data, "-w", "-l", str(folder / "log"))
        url = f"postgresql+psycopg://optuna@127.0.0.1:{port}/postgres"
        server = Server(url, control, options, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """A MariaDB server of Debian's package ``mariadb-server``."""
    import pymysql

    server, install = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    if server is None or install is None:
        pytest.skip("no mariadbd; install Debian's package mariadb-server")
    port = free_port()
    with _folder("mysql") as (folder, user):
        common = ["--no-defaults", f"--datadir={folder / 'data'}"]
        prepare = [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(prepare, check=True, user=user, stdout=subprocess.DEVNULL)
        run = [server, *common, f"--port={port}", "--bind-address=127.0.0.1"]
        run += [f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(run, user=user, stdout=log, stderr=log)
        try:
            wait_for(port, process)
            with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection:
                connection.cursor().execute("create database optuna")
            yield f"mysql+pymysql://root@127.0.0.1:{port}/optuna"
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def grpc(url: str) -> Iterator[str]:
    """Optuna's proxy in front of another storage."""
    RDBStorage(url)  # Makes the tables, so that the server is quick to come up.
    port = free_port()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_proxy, args=(url, port), daemon=True)
    process.start()
    try:
        wait_for(port, process)
        yield f"grpc:{port}"
    finally:
        process.terminate()
        process.join()


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
