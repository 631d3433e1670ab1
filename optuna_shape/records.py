"""Everything this package reads from or writes to an Optuna storage.

This is the only module that knows the keys. Machinery lives in system attributes (``shape:...``),
what a person wants to see in user attributes (``accuracy``, ``latency``, ..., ``reason``).

Study                                 what
------------------------------------  -----------------------------------------------------------
``shape:problem``                     the description of the problem, written once
``shape:seed``                        seed of the decisions, the first sampler's
``shape:measured:<run>:<q>:<w>:<i>``  measurements of quantity q at width w, sixteen depths each
``shape:screening``                   verdicts on every shape: its presence lets trainings begin
``shape:unfit``                       why no shape may be trained, where that was found
``shape:lease:<worker>``              who measures; changes while its holder is alive
``shape:drawing:<worker>``            who writes what a dashboard shows; likewise
``shape:drawn``                       what the dashboard's pages were drawn from
``shape:stop``                        the decision to end the search
``shape:certainty:<trial number>``    probability of a better shape after that trial
user attributes                       the answer so far, in words, for a dashboard

Trial                                 what
------------------------------------  -----------------------------------------------------------
``shape:claim``                       the shape this trial is going to train, and by whom
``shape:found``                       that its end was missing, and another worker stored it
``shape:failure``                     why the training failed, or that it was interrupted

Claims. Attributes are last-write-wins, so a claim is written first and verified by reading all
trials afterwards. Two workers that collide have both written before either reads: at least one
sees the other, so a shape is never held twice. "The lower number wins" would be unsafe, since the
higher one may have verified before the lower one wrote.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import math
import os
import random
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import cast

from optuna.exceptions import StorageInternalError
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_shape.errors import StudyMismatch
from optuna_shape.measure.measurement import Measurement
from optuna_shape.space import Shape

_logger = logging.getLogger(f"optuna.{__name__}")

_PROBLEM = "shape:problem"
_SEED = "shape:seed"
_MEASURED = "shape:measured"
_SCREENING = "shape:screening"
_UNFIT = "shape:unfit"
_LEASE = "shape:lease"
_DRAWING = "shape:drawing"
_DRAWN = "shape:drawn"
_STOP = "shape:stop"
_CLAIM = "shape:claim"
_FOUND = "shape:found"
_FAILURE = "shape:failure"
_CERTAINTY = "shape:certainty"
_TRAINING = "shape:training"

#: Of everything that a study holds of this package.
_FORMAT = 1

ACCURACY = "accuracy"
REASON = "reason"
#: Of knowledge transfer: the trial that a network started from, what it has of it, and the trial
#: whose network taught it.
PARENT, INHERITED, TEACHER = "parent", "inherited", "teacher"
INTERRUPTED = "interrupted"
DIVERGED = "the training diverged: its accuracy is NaN. A lower learning rate may help"

NEWER = (
    "A newer version has written it: install that, by pip install --upgrade optuna_shape, or use "
    "another study_name."
)
#: What reading something that is not what it should be raises.
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

#: Longest attribute that every storage and the dashboard take.
_MAX_CHARACTERS = 2045
_DEPTHS_PER_ENTRY = 16
#: A shape is not tried again after so many failures, losses or cuts.
_MAX_FAILURES, _MAX_LOSSES, _MAX_CUTS = 2, 4, 2
#: A worker that measures but has not been heard of for so long (seconds) is taken for dead.
_LEASE_TIMEOUT = 300.0
_LEASE_POLL = 0.5
_CLAIM_TRIES = 6
_LEASE_BEAT = 10.0
#: The same for one that writes to a dashboard. Who waits for it has to have more patience.
DRAWING_TIMEOUT = 15.0
_DRAWING_BEAT = 3.0
#: A claim whose worker cannot be asked is given up after this, or five times the longest training.
_CLAIM_TIMEOUT = datetime.timedelta(days=1)

# Waiting times are drawn by chance of their own: the user's seeded generators stay untouched.
_chance = random.SystemRandom()
_IMPORT = uuid.uuid4().hex


def _name_host() -> str:
    """Name what gives processes their numbers: this machine, or a container on it."""
    parts = [socket.gethostname()]
    # Boards are often sold under one name, and containers may share that of their host.
    with contextlib.suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


_HOST = _name_host()


#: What a worker has heard of others: the last beat of each, and since when it is unchanged.
Heard = dict[str, tuple[int, float]]


@dataclass(frozen=True)
class Cut:
    """A training that was cut short, by whatever pruner or by the user.

    Attributes:
        shape: What was trained.
        curve: Reported accuracies, ``{step: accuracy}``.
    """

    shape: Shape
    curve: Mapping[int, float]


@dataclass(frozen=True)
class Objection:
    """What stands against a claim.

    Attributes:
        reason: In words, for the trial.
        final: The shape has been trained; otherwise somebody may yet withdraw from it.
    """

    reason: str
    final: bool


@dataclass(frozen=True)
class History:
    """What the trials of a study say, independent of the order in which they ended.

    Attributes:
        trained: Final accuracies of every fully trained shape, by trial number.
        curves: Reported accuracies ``{step: accuracy}`` of the fully trained, by trial number.
        shapes: Shape of each trial in ``trained``, ``curves`` or ``running``, by trial number.
        running: Trial numbers whose shape is claimed by a live worker.
        running_here: Those of them that other threads of this process train.
        cuts: Trainings cut short, by trial number.
        failures: How often the training of a shape failed for a reason that is known.
        losses: How often it failed for an unknown one: killed elsewhere, or an error of an
            objective that does not go through ``problem.objective``.
        spoilt: How often a deliberate second training of a shape gave no accuracy.
        divergences: How often the training of a shape diverged; they are among the failures.
        begun: Of shapes whose last training ended amid its epochs, other than by diverging, the
            number of that trial. It may be gone on with.
    """

    trained: Mapping[int, float] = field(default_factory=dict)
    curves: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    shapes: Mapping[int, Shape] = field(default_factory=dict)
    running: tuple[int, ...] = ()
    running_here: tuple[int, ...] = ()
    cuts: Mapping[int, Cut] = field(default_factory=dict)
    failures: Mapping[Shape, int] = field(default_factory=dict)
    losses: Mapping[Shape, int] = field(default_factory=dict)
    spoilt: Mapping[Shape, int] = field(default_factory=dict)
    divergences: Mapping[Shape, int] = field(default_factory=dict)
    begun: Mapping[Shape, int] = field(default_factory=dict)

    def trainings(self, shape: Shape) -> int:
        """How often a shape was trained in full, spoilt second trainings included."""
        return len(self.accuracies.get(shape, ())) + self.spoilt.get(shape, 0)

    @property
    def accuracies(self) -> dict[Shape, list[float]]:
        """Final accuracies of each fully trained shape; several where it was replicated."""
        result: dict[Shape, list[float]] = defaultdict(list)
        for number in sorted(self.trained):
            result[self.shapes[number]].append(self.trained[number])
        return dict(result)

    @property
    def retired(self) -> frozenset[Shape]:
        """Shapes not to be tried again: their trainings failed, or were cut short, repeatedly."""
        counts = Counter(cut.shape for cut in self.cuts.values())
        often_cut = {shape for shape, count in counts.items() if count >= _MAX_CUTS}
        return self.untrainable | (often_cut - set(self.accuracies))

    @property
    def untrainable(self) -> frozenset[Shape]:
        """Shapes whose trainings failed repeatedly, so that they can be no answer."""
        return frozenset(
            shape
            for shape in {*self.failures, *self.losses} - set(self.accuracies)
            if self.failures.get(shape, 0) >= _MAX_FAILURES
            or self.losses.get(shape, 0) >= _MAX_LOSSES
        )

    def left(self, shapes: Iterable[Shape]) -> list[Shape]:
        """Those shapes that are neither trained, nor in training, nor retired."""
        return sorted(set(shapes) - set(self.accuracies) - self.claimed - self.retired)

    @property
    def claimed(self) -> frozenset[Shape]:
        """Shapes in training now."""
        return frozenset(self.shapes[number] for number in self.running)


@dataclass(frozen=True)
class Drawn:
    """What of a study the pages of a dashboard show.

    Attributes:
        finished: How many trials had ended.
        stopped: Whether the search had.
    """

    finished: int = 0
    stopped: bool = False

    def covers(self, other: Drawn) -> bool:
        """Whether nothing has happened since that the other would show."""
        return self.finished >= other.finished and self.stopped >= other.stopped


class StudyRecords:
    """The records of one study.

    Works on every storage, and under :class:`optuna.pruners.HyperbandPruner`, whose stand-in for
    the study hides all but a few attributes.
    """

    def __init__(self, study: Study) -> None:
        self._storage: BaseStorage = study._storage
        self._study_id: int = study._study_id
        self._local: Any = getattr(study, "_thread_local", None)

    # The problem.

    def problem(self) -> dict[str, Any] | None:
        """The description of the problem that this study is about.

        Raises:
            StudyMismatch: A newer version of this package has written it.
        """
        stored = self._read_json(_PROBLEM)
        if stored is None:
            return None
        with reading("problem"):
            written = int(stored.get("format", _FORMAT))
            description = {name: value for name, value in stored.items() if name != "format"}
        if written > _FORMAT:
            raise StudyMismatch(
                f"The study has format {written}, and this version of optuna_shape reads up to "
                f"{_FORMAT}. {NEWER}"
            )
        return description

    def write_problem(self, description: Mapping[str, Any]) -> None:
        self._write_json(_PROBLEM, {"format": _FORMAT, **description})

    def training(self) -> dict[str, Any] | None:
        """How networks are trained, where that was written; JSON."""
        return cast("dict[str, Any] | None", self._read_json(_TRAINING))

    def write_training(self, training: Mapping[str, Any]) -> None:
        self._write_json(_TRAINING, training)

    def seed(self) -> int:
        """The study's seed; 0 before a sampler has given it one."""
        seed = self._attributes().get(_SEED, 0)
        with reading("seed"):
            return int(seed)

    def propose_seed(self, proposal: int) -> None:
        """Give the study its seed, unless it has one."""
        if _SEED not in self._attributes():
            self._set(_SEED, proposal)

    # Measurements and verdicts.

    def measurements(self, fingerprint: str) -> dict[str, dict[Shape, Measurement]]:
        """All stored measurements with this fingerprint, by quantity and shape."""
        prefix = f"{_MEASURED}:{_digest(fingerprint)}:"
        result: dict[str, dict[Shape, Measurement]] = defaultdict(dict)
        for key, entry in self._attributes().items():
            if key.startswith(prefix):
                with reading(f"measurements {key!r}"):
                    quantity, width, _ = key.removeprefix(prefix).split(":")
                    for depth, row in entry.items():
                        shape = Shape(int(depth), int(width))
                        result[quantity][shape] = _measurement_from_json(row, fingerprint)
        return dict(result)

    def write_measurements(self, quantity: str, measurements: Mapping[Shape, Measurement]) -> None:
        """Add measurements of a quantity; only the holder of the measuring lease may."""
        attributes = self._attributes()
        for fingerprint in {m.fingerprint for m in measurements.values()}:
            entries: dict[str, dict[str, Any]] = defaultdict(dict)
            for shape, measurement in measurements.items():
                if measurement.fingerprint == fingerprint:
                    block = shape.depth // _DEPTHS_PER_ENTRY
                    key = f"{_MEASURED}:{_digest(fingerprint)}:{quantity}:{shape.width}:{block}"
                    entries[key][str(shape.depth)] = _measurement_to_json(measurement)
            for key, entry in entries.items():
                self._set(key, {**attributes.get(key, {}), **entry})

    def screening(self) -> dict[str, Any] | None:
        """The verdicts on all shapes, or None while they are not known yet."""
        return cast("dict[str, Any] | None", self._read_json(_SCREENING))

    def is_screened(self) -> bool:
        """Whether the verdicts are known, without reading them."""
        return _SCREENING in self._attributes()

    def write_screening(self, screening: Mapping[str, Any]) -> None:
        self._write_json(_SCREENING, screening)

    def unfit(self) -> str | None:
        """Why no shape may be trained, if that is what was found instead of a screening."""
        return cast("str | None", self._read_json(_UNFIT))

    def write_unfit(self, reason: str | None) -> None:
        """Say why no shape may be trained; None takes that back."""
        if reason is not None or self.unfit() is not None:
            self._write_json(_UNFIT, reason)

    # The measuring lease.

    def write_lease(self, beat: int | None) -> None:
        """Announce that this worker wants to measure or is measuring; None gives the lease up."""
        self._announce(_LEASE, beat)

    def other_leases(self) -> dict[str, int]:
        """Live workers other than this one that want to measure, and their last beat."""
        return self._announced(_LEASE)

    @contextlib.contextmanager
    def lease_kept(self) -> Iterator[None]:
        """Let others hear from this worker while it measures, and give the lease up then."""
        with self._kept(_LEASE, _LEASE_BEAT):
            yield

    def take_lease(self, done: Callable[[], bool]) -> bool:
        """Wait until this worker alone may measure; False if another has measured meanwhile."""
        heard: Heard = {}
        said = False
        while not done():
            self.write_lease(1)
            rivals = self._rivals(_LEASE, heard, _LEASE_TIMEOUT)
            # Trainings that run would be timed along; only verdicts of another device meet them.
            if not rivals and not self.history().running:
                return True
            self.write_lease(None)
            if not said:
                said = True
                _logger.warning("Another worker measures the shapes, or trains: waiting for it.")
            time.sleep(_LEASE_POLL * _chance.uniform(0.5, 1.5))
        return False

    # The drawing lease: pages of a dashboard are stored in pieces, which two writers would mix.

    def take_drawing(self, heard: Heard) -> bool:
        """Become the one worker that writes to the dashboard; False while it is another.

        Args:
            heard: What this worker knows of others. It is kept up to date; pass it again.
        """
        self._announce(_DRAWING, time.time_ns())
        if self._rivals(_DRAWING, heard, DRAWING_TIMEOUT):
            self._announce(_DRAWING, None)
            return False
        return True

    @contextlib.contextmanager
    def drawing_kept(self) -> Iterator[None]:
        """Let others hear from this worker while it writes, and give the lease up then."""
        with self._kept(_DRAWING, _DRAWING_BEAT):
            yield

    def drawable(self) -> Drawn:
        """What could be drawn now."""
        finished = sum(trial.state.is_finished() for trial in self.trials())
        return Drawn(finished, self.stop() is not None)

    def drawn(self) -> Drawn:
        """What the dashboard shows."""
        stored = self._attributes().get(_DRAWN)
        return Drawn(**stored) if stored else Drawn()

    def write_drawn(self, drawn: Drawn) -> None:
        self._set(_DRAWN, asdict(drawn))

    def write_summary(self, summary: Mapping[str, str]) -> None:
        """Show what is known of the answer as the study's user attributes."""
        shown = self._storage.get_study_user_attrs(self._study_id)
        for name, text in summary.items():
            if shown.get(name) != text[:_MAX_CHARACTERS]:
                self._storage.set_study_user_attr(self._study_id, name, text[:_MAX_CHARACTERS])

    # Leases.

    @contextlib.contextmanager
    def _kept(self, lease: str, interval: float) -> Iterator[None]:
        """Announce a lease anew every so many seconds, however long the work under it takes."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(interval):
                # A storage that cannot be reached now may be later; the work goes on meanwhile.
                with contextlib.suppress(Exception):
                    self._announce(lease, time.time_ns())

        thread = threading.Thread(target=beat, daemon=True)
        # Python 3.12 starts none at the end of a process, where the work is short.
        with contextlib.suppress(RuntimeError):
            thread.start()
        try:
            yield
        finally:
            over.set()
            if thread.is_alive():
                thread.join()
            self._announce(lease, None)

    def _announce(self, lease: str, beat: int | None) -> None:
        holder = None if beat is None else {"beat": beat, **_identity()}
        self._set(f"{lease}:{_worker()}", holder)

    def _announced(self, lease: str) -> dict[str, int]:
        own, attributes = f"{lease}:{_worker()}", self._attributes()
        with reading("leases"):
            return {
                key.removeprefix(f"{lease}:"): int(holder["beat"])
                for key, holder in attributes.items()
                if key.startswith(f"{lease}:")
                and key != own
                and holder is not None
                and _worker_is_alive(holder) is not False
            }

    def _rivals(self, lease: str, heard: Heard, timeout: float) -> list[str]:
        """Others that have announced themselves, and are not taken for dead."""
        now = time.monotonic()
        # An announcement is as old as this worker has seen it unchanged: clocks are not compared.
        news = {
            worker: heard[worker] if heard.get(worker, (None,))[0] == beat else (beat, now)
            for worker, beat in self._announced(lease).items()
        }
        heard.clear()
        heard.update(news)
        return [worker for worker, (_, since) in heard.items() if now - since < timeout]

    # The stop.

    def stop(self) -> dict[str, Any] | None:
        """The stored decision to end the search: ``kind``, ``reason`` and its figures."""
        stop = self._attributes().get(_STOP)
        if stop is None:
            return None
        with reading("decision to stop"):
            decision = {**stop, "kind": str(stop["kind"]), "reason": str(stop["reason"])}
            if "answer" in decision:
                decision["answer"] = list(_shape_from_json(decision["answer"]))
            return decision

    def write_stop(self, decision: Mapping[str, Any]) -> None:
        self._set(_STOP, dict(decision))

    def clear_stop(self) -> None:
        """Take the decision to stop back, because what it rested on has changed."""
        if self.stop() is not None:
            self._set(_STOP, None)

    def certainties(self) -> dict[int, float]:
        """Probability of a better shape after each trial, by trial number."""
        prefix = f"{_CERTAINTY}:"
        attributes = self._attributes()
        with reading("probability of a better shape"):
            return {
                int(key.removeprefix(prefix)): float(probability)
                for key, probability in attributes.items()
                if key.startswith(prefix)
            }

    def write_certainty(self, trial_number: int, probability: float) -> None:
        # A finished trial takes no more attributes, so the study keeps it.
        self._set(f"{_CERTAINTY}:{trial_number}", probability)

    # Trials.

    def trials(self) -> list[FrozenTrial]:
        """All trials, as stored now. Not to be changed."""
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def history(self) -> History:
        """What the trials say; see :class:`History`."""
        return read_history(self.trials())

    def claim(self, trial_id: int, shape: Shape, *, replicate: bool = False) -> Objection | None:
        """Claim a shape for a trial.

        Args:
            trial_id: The trial that will train the shape.
            shape: The shape.
            replicate: The shape has been trained before and is repeated on purpose.

        Returns:
            None if the claim holds, else what stands against it, and the claim is withdrawn.
        """
        claim: dict[str, Any] = {
            "trial": trial_id,
            "shape": list(shape),
            "replicate": replicate,
            # Within optimize, a thread has one trial at a time, and the trial ends with it.
            "loop": getattr(self._local, "in_optimize_loop", False),
            **_identity(),
        }
        self._storage.set_trial_system_attr(trial_id, _CLAIM, claim)
        objection = self._objection(trial_id, shape, replicate)
        if objection is not None:
            self._storage.set_trial_system_attr(trial_id, _CLAIM, None)
        return objection

    def claim_patiently(self, trial_id: int, shape: Shape) -> Objection | None:
        """Claim a shape that was asked for by name: colliding workers withdraw and try again."""
        objection = None
        for attempt in range(_CLAIM_TRIES):
            objection = self.claim(trial_id, shape)
            if objection is None or objection.final:
                break
            time.sleep(_chance.uniform(0, 0.02 * 2**attempt))
        return objection

    def _objection(self, trial_id: int, shape: Shape, replicate: bool) -> Objection | None:
        while True:
            trials = self.trials()
            history = read_history(trials)
            others = [t for t in trials if t._trial_id != trial_id and shape_of(t) == shape]
            for trial in others:
                if trial.number in history.running:
                    reason = f"{shape} is being trained by trial {trial.number}"
                    return Objection(reason, final=False)
            for trial in others:
                if trial.number in history.trained and not replicate:
                    reason = f"{shape} has been trained by trial {trial.number}"
                    return Objection(reason, final=True)
            # Workers are looked for after the trials were read. One that ended in between looks
            # dead, but may have trained the shape.
            if not any(self._has_ended_since(trial) for trial in others):
                return None

    def _has_ended_since(self, trial: FrozenTrial) -> bool:
        """Whether a trial that was running when it was read is over now."""
        if trial.state != TrialState.RUNNING:
            return False
        return self._storage.get_trial(trial._trial_id).state.is_finished()

    def release_dead_claims(self, goal: str, trial_id: int | None = None) -> None:
        """End the trials that nobody trains any more: their workers are certainly dead.

        Where the accuracy is stored, only the end was missing, and the trial is complete.

        Args:
            goal: Name of the user attribute that is the value of a complete trial.
            trial_id: The trial that this thread is at. Within ``optimize`` it has left all others
                behind, as when the storage was gone at their end.
        """
        for trial in self.trials():
            claim = _claim_of(trial)
            if trial.state != TrialState.RUNNING or not claim:
                continue
            left = trial_id not in (None, trial._trial_id) and claim.get("loop")
            if _worker_is_alive(claim) is False or (left and _is_of_this_thread(claim)):
                # Another worker may be quicker, which is as good. The trial is read again: its
                # worker may have stored an accuracy before it died.
                with contextlib.suppress(UpdateFinishedTrialError):
                    self._end(self._storage.get_trial(trial._trial_id), goal)

    def _end(self, trial: FrozenTrial, goal: str) -> None:
        if ACCURACY in trial.user_attrs:
            with reading(f"{goal} of trial {trial.number}"):
                values = [float(trial.user_attrs[goal])]
            self._storage.set_trial_system_attr(trial._trial_id, _FOUND, True)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, values)
        else:
            self.write_failure(trial._trial_id, INTERRUPTED)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def write_properties(self, trial_id: int, properties: Mapping[str, float]) -> None:
        """Show measured properties of a trial, in SI units, as user attributes."""
        for name, value in properties.items():
            self._storage.set_trial_user_attr(trial_id, name, value)

    def write_reason(self, trial_id: int, reason: str) -> None:
        """Say in the trial why it was ended without being trained to the end."""
        self._storage.set_trial_user_attr(trial_id, REASON, reason[:_MAX_CHARACTERS])

    def write_failure(self, trial_id: int, reason: str) -> None:
        self._storage.set_trial_system_attr(trial_id, _FAILURE, reason[:_MAX_CHARACTERS])
        self.write_reason(trial_id, reason)

    # Attributes.

    def _attributes(self) -> dict[str, Any]:
        return self._storage.get_study_system_attrs(self._study_id)

    def _set(self, key: str, value: Any) -> None:
        self._storage.set_study_system_attr(self._study_id, key, value)

    def _write_json(self, key: str, value: Any) -> None:
        """Store a long value in pieces; the header, written last, makes them valid at once."""
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        pieces = [text[i : i + _MAX_CHARACTERS] for i in range(0, len(text), _MAX_CHARACTERS)]
        digest = _digest(text)
        for i, piece in enumerate(pieces):
            self._set(f"{key}:{digest}:{i}", piece)
        self._set(key, {"digest": digest, "pieces": len(pieces)})

    def _read_json(self, key: str) -> Any:
        attributes = self._attributes()
        header = attributes.get(key)
        if header is None:
            return None
        with reading(key.removeprefix("shape:")):
            digest = header["digest"]
            pieces = (attributes[f"{key}:{digest}:{i}"] for i in range(header["pieces"]))
            return json.loads("".join(pieces))


def read_history(trials: Iterable[FrozenTrial]) -> History:
    """Read what trials say. Trials that never had a shape say nothing."""
    trained: dict[int, float] = {}
    curves: dict[int, dict[int, float]] = {}
    shapes: dict[int, Shape] = {}
    cuts: dict[int, Cut] = {}
    failures: dict[Shape, int] = defaultdict(int)
    losses: dict[Shape, int] = defaultdict(int)
    spoilt: dict[Shape, int] = defaultdict(int)
    divergences: dict[Shape, int] = defaultdict(int)
    ended: dict[Shape, tuple[int, bool]] = {}  # The last trial, and whether amid its epochs.
    trials = list(trials)
    timeout = _claim_timeout(trials)
    running, running_here = [], []
    for trial in trials:
        shape = shape_of(trial)
        if shape is None:
            continue
        number, attributes, claim = trial.number, trial.system_attrs, _claim_of(trial)
        reason = attributes.get(_FAILURE)
        divergences[shape] += reason == DIVERGED
        whole = trial.state == TrialState.COMPLETE or reason == DIVERGED
        if whole or (trial.state.is_finished() and trial.intermediate_values):
            ended[shape] = max(ended.get(shape, (-1, False)), (number, not whole))
        if trial.state == TrialState.COMPLETE and ACCURACY in trial.user_attrs:
            trained[number] = _accuracy_of(trial)
            curves[number] = _finite(trial.intermediate_values)
        elif trial.state == TrialState.RUNNING and _is_live(trial, timeout):
            running.append(number)
            # A thread that asks ahead, for a batch, would wait for itself.
            if claim and claim["worker"] == _worker() and not _is_of_this_thread(claim):
                running_here.append(number)
        elif is_replicate(trial) and trial.state in (TrialState.PRUNED, TrialState.FAIL):
            spoilt[shape] += reason != INTERRUPTED
            continue
        elif trial.state == TrialState.PRUNED and claim:
            cuts[number] = Cut(shape, _finite(trial.intermediate_values))
        elif trial.state == TrialState.FAIL:
            if reason != INTERRUPTED:  # Which says nothing against the shape.
                (losses if reason is None else failures)[shape] += 1
            continue
        else:
            continue
        shapes[number] = shape
    return History(
        trained,
        curves,
        shapes,
        tuple(running),
        tuple(running_here),
        cuts,
        dict(failures),
        dict(losses),
        dict(spoilt),
        {shape: count for shape, count in divergences.items() if count},
        {shape: number for shape, (number, amid) in ended.items() if amid},
    )


def stop_loop(study: Study) -> None:
    """End this process's ``study.optimize``; outside of one (ask and tell) do nothing."""
    with contextlib.suppress(RuntimeError):
        study.stop()


def is_ending(study: Study) -> bool:
    """Whether this process's ``study.optimize`` runs no trial after the one at hand."""
    return bool(study._stop_flag)


def is_storage_failure(error: BaseException) -> bool:
    """Whether an error is the storage's, which says nothing against what was trained."""
    grpc = sys.modules.get("grpc")  # Where it is not loaded, no storage goes through it.
    return isinstance(error, StorageInternalError) or (
        grpc is not None and isinstance(error, grpc.RpcError)
    )


def shape_of(trial: FrozenTrial) -> Shape | None:
    """The shape that a trial trains or trained, or None before it is known."""
    if "depth" in trial.params and "width" in trial.params:
        with reading(f"shape of trial {trial.number}"):
            return Shape(int(trial.params["depth"]), int(trial.params["width"]))
    return claimed_shape(trial)


def claimed_shape(trial: FrozenTrial) -> Shape | None:
    """The shape that a trial holds a claim on."""
    claim = _claim_of(trial)
    return None if not claim else _shape_from_json(claim["shape"])


def is_replicate(trial: FrozenTrial) -> bool:
    """Whether a trial trains, or trained, a shape again on purpose."""
    claim = _claim_of(trial)
    return bool(claim and claim["replicate"])


def training_time(trial: FrozenTrial) -> datetime.timedelta | None:
    """How long a training took that ended by itself; None of any other trial.

    One whose worker was lost ends when somebody finds it, which may be days later.
    """
    pruned = trial.state == TrialState.PRUNED and trial.intermediate_values
    ended = trial.state == TrialState.COMPLETE or pruned
    return trial.duration if ended and _FOUND not in trial.system_attrs else None


def fixed_parameters(trial: FrozenTrial) -> dict[str, Any]:
    """What a user fixed by enqueueing this trial."""
    return dict(trial.system_attrs.get("fixed_params") or {})


def _claim_of(trial: FrozenTrial) -> dict[str, Any] | None:
    claim: dict[str, Any] | None = trial.system_attrs.get(_CLAIM)
    if not claim:
        return None
    with reading(f"claim of trial {trial.number}"):
        # A retried trial carries a copy of the claim of the trial that it retries.
        if claim["trial"] != trial._trial_id:
            return None
        _shape_from_json(claim["shape"])
        if not {"replicate", "loop", *_identity()} <= set(claim):
            raise ValueError(f"{claim!r} tells too little")
        return claim


def _is_live(trial: FrozenTrial, timeout: datetime.timedelta) -> bool:
    claim = _claim_of(trial)
    if claim is None:
        return False
    alive = _worker_is_alive(claim)
    if alive is not None:
        return alive
    started = trial.datetime_start
    return started is None or datetime.datetime.now() - started < timeout


def _claim_timeout(trials: Sequence[FrozenTrial]) -> datetime.timedelta:
    durations = [duration for trial in trials if (duration := training_time(trial))]
    return max([_CLAIM_TIMEOUT, *(5 * duration for duration in durations)])


def _worker_is_alive(identity: Mapping[str, Any]) -> bool | None:
    """Whether a worker lives; None for one of another machine, which cannot be asked."""
    with reading("worker"):
        if identity["host"] != _HOST:
            return None
        if identity["worker"] == _worker():
            threads = {thread.ident for thread in threading.enumerate()}
            return not identity.get("loop") or identity["thread"] in threads
        if identity["pid"] == os.getpid():
            return False  # This process is somebody else: the number was used again.
        try:
            os.kill(identity["pid"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        started = _start_of(identity["pid"])
        return started is None or identity["started"] in (None, started)


def _start_of(pid: int) -> str | None:
    """When a process began, in ticks; "" of one that has ended, None where nothing tells.

    A process that was killed keeps its number until its parent looks, and then another gets it.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if state in "ZX" else fields[18]


def _is_of_this_thread(claim: Mapping[str, Any]) -> bool:
    return bool(claim["worker"] == _worker() and claim["thread"] == threading.get_ident())


def _identity() -> dict[str, Any]:
    return {
        "worker": _worker(),
        "host": _HOST,
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "thread": threading.get_ident(),
    }


def _worker() -> str:
    """Name of this process among the workers of a study; a forked child has its own."""
    return f"{_IMPORT}-{os.getpid()}"


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Tell in one error of anything in a study that is not what it should be.

    Args:
        what: What of the study is read.

    Raises:
        StudyMismatch: It cannot be.
    """
    try:
        yield
    except StudyMismatch:
        raise
    except _MALFORMED as error:
        raise StudyMismatch(
            f"The study's {what} cannot be read: {type(error).__name__}: {error}. It is damaged, "
            "or another version of optuna_shape has written it: install the newest, or use "
            "another study_name."
        ) from error


def _accuracy_of(trial: FrozenTrial) -> float:
    with reading(f"accuracy of trial {trial.number}"):
        accuracy = float(trial.user_attrs[ACCURACY])
        if not 0 <= accuracy <= 1:
            raise ValueError(f"{accuracy} is no fraction in [0, 1]")
        return accuracy


def _shape_from_json(row: Sequence[Any]) -> Shape:
    depth, width = row
    return Shape(int(depth), int(width))


def _finite(values: Mapping[int, float]) -> dict[int, float]:
    return {step: value for step, value in sorted(values.items()) if math.isfinite(value)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _measurement_to_json(measurement: Measurement) -> list[Any]:
    # Infinity is not JSON: storages keep it, browsers choke on it.
    numbers = [
        None if math.isinf(x) else x
        for x in (measurement.value, measurement.low, measurement.high)
    ]
    return [*numbers, measurement.samples, measurement.note]


def _measurement_from_json(row: Sequence[Any], fingerprint: str) -> Measurement:
    value, low, high = (math.inf if x is None else float(x) for x in row[:3])
    if not low <= value <= high:
        raise ValueError(f"{value} is not within {low} and {high}")
    return Measurement(value, low, high, int(row[3]), fingerprint, str(row[4]))
