"""``optuna-shape dashboard``."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from functools import partial
from socketserver import ThreadingMixIn
from typing import Annotated
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.simple_server import WSGIServer
from wsgiref.simple_server import make_server

import typer
from optuna.study import Study

from optuna_shape.cli._common import make_console
from optuna_shape.cli._common import say
from optuna_shape.cli._common import warn
from optuna_shape.cli._served import mending
from optuna_shape.cli._studies import OUTPUT
from optuna_shape.cli._studies import Storage
from optuna_shape.cli._studies import StudyName
from optuna_shape.cli._studies import open_study
from optuna_shape.dashboard import ShapeDashboard
from optuna_shape.errors import ShapeError
from optuna_shape.problem import ShapeProblem
from optuna_shape.records import StudyRecords

_PATH = "/dashboard/studies/"
# Names of this machine for itself.
_LOCAL = ("127.0.0.1", "localhost", "::1")
# Seconds between looks at the study; and how many times as long as drawing takes it rests.
_POLL = 5.0
_REST = 10.0


def dashboard(
    storage: Storage = OUTPUT,
    study_name: StudyName = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to serve on; whoever can reach it can change studies.")
    ] = "127.0.0.1",
) -> None:
    """Show a study in optuna-dashboard, with its figures and notes, until Ctrl-C.

    Unlike the command `optuna-dashboard`, it shows shapes that miss a constraint as infeasible.
    """
    console = make_console()
    study = open_study(storage, study_name)
    pages = _pages(study)
    with _server(study, host, port) as server, contextlib.suppress(KeyboardInterrupt):
        if StudyRecords(study).is_screened():
            with console.status("Drawing the figures ..."):
                pages.refresh(study)
        else:
            say(console, "No shape has been measured yet, so there is nothing to draw.")
        say(console, f"The study {study.study_name} is shown at:")
        say(console, f"http://{host}:{server.server_port}{_PATH}{study._study_id}")
        say(console, "Ctrl-C ends it.")
        threading.Thread(target=_follow, args=(study,), daemon=True).start()
        server.serve_forever()


class DashboardUnavailable(ShapeError):
    """The dashboard cannot be shown: something is not installed, or an address is taken."""


def _pages(study: Study) -> ShapeDashboard:
    try:
        return ShapeDashboard(ShapeProblem.from_study(study))
    except ImportError as error:
        raise DashboardUnavailable(str(error)) from None


def _follow(study: Study) -> None:
    """Draw anew what a search that still runs has found, at a small share of the time."""
    pages, rest, failing = None, _POLL, False
    while True:
        time.sleep(rest)
        start = time.monotonic()
        try:
            if pages is None and StudyRecords(study).is_screened():
                pages = _pages(study)  # Only now the study says on what it was measured.
            if pages is not None:
                pages.refresh(study, anew=False)
            failing = False
        except Exception as error:  # The storage may be away for a moment.
            if not failing:
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                warn(f"What the search finds cannot be read ({reason}). The pages follow later.")
            failing = True
        rest = max(_POLL, _REST * (time.monotonic() - start))


class _Server(ThreadingMixIn, WSGIServer):
    """Answers several requests at a time: browsers keep some waiting for others."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of every request."""


def _check_host(host: str) -> None:
    """Answer nobody who was led here under another name: a web page could change studies so."""
    from bottle import abort
    from bottle import request

    name = urlsplit(f"//{request.get_header('Host', '')}").hostname
    if host in _LOCAL and name not in _LOCAL:
        abort(403, "This server answers to its own address only.")


def _server(study: Study, host: str, port: int) -> WSGIServer:
    """A server that has taken its address, but answers nobody yet."""
    from optuna_dashboard import wsgi

    app = wsgi(study._storage)
    app.install(mending(study._storage))
    app.add_hook("before_request", partial(_check_host, host))
    try:
        return make_server(host, port, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise DashboardUnavailable(
                f"Port {port} of {host} is taken. Choose another with --port; 0 takes a free one."
            ) from None
        raise DashboardUnavailable(
            f"Nothing can be served on port {port} of {host}: {error.strerror or error}."
        ) from None
