"""Workers started by hand or by a scheduler, as the README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import optuna
from test_cli import SMALL
from test_cli import run

from optuna_shape import Shape
from optuna_shape.cli import EXIT_BAD_INPUT
from optuna_shape.records import StudyRecords

README = Path(__file__).parents[1] / "README.md"
QUESTION = [*SMALL, "--constraint", "size <= 1 MB", "--constraint", "latency <= 1 s"]


def test_the_readmes_job_array_trains_every_shape_once(tmp_path: Path) -> None:
    (text,) = re.findall(r"```sh\n(#!/bin/bash\n#SBATCH.*?)```", README.read_text(), re.DOTALL)
    script = tmp_path / "array.sh"
    script.write_text(text)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STORAGE": storage,
        "SHARED": str(tmp_path / "shared"),
    }

    def start(task: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(script), *QUESTION],
            env={**environment, "SLURM_ARRAY_TASK_ID": str(task)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    waiting = start(1)
    assert waiting.stdout is not None
    said = ""
    while "Waiting for a worker that measures the shapes of 'shapes'" not in said:
        line = waiting.stdout.readline()
        assert line, f"it ended: {said}"
        said += line
    assert "There is no file" in said
    assert not (tmp_path / "study.db").exists()
    workers = [start(0), start(2), waiting]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], outputs
    study = optuna.load_study(study_name="shapes", storage=storage)
    history = StudyRecords(study).history()
    assert sorted(history.shapes[number] for number in history.trained) == [
        Shape(depth, width) for depth in (1, 2) for width in (4, 6, 8)
    ]


def test_a_worker_on_another_device_only_trains(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    question = [*QUESTION, "--storage", storage, "--study-name", "shapes", "--trials", "1"]
    assert run(*question, output=tmp_path)[0] == 0
    (study,) = [optuna.load_study(study_name="shapes", storage=storage)]
    measured = StudyRecords(study).screening()
    # Measured at another batch size, nothing would compare.
    assert run(*question, "--batch-size", "1", output=tmp_path)[0] == 0
    assert run(*question, "--batch-size", "1", "--train-only", output=tmp_path)[0] == 0
    assert StudyRecords(study).screening() == measured
    assert len(StudyRecords(study).history().trained) == 3


def test_who_only_trains_says_for_which_search(tmp_path: Path) -> None:
    code, text = run(*QUESTION, "--train-only", output=tmp_path)
    assert code == EXIT_BAD_INPUT
    assert "Give the --storage and --study-name of the worker that measures" in text
