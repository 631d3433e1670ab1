"""What the command line says to a mistake, in every option, to people and to programs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from test_cli import SMALL
from typer.testing import CliRunner
from typer.testing import Result

from optuna_shape.cli import EXIT_BAD_INPUT
from optuna_shape.cli import EXIT_NO_ANSWER
from optuna_shape.cli import EXIT_TOO_NOISY
from optuna_shape.cli import app
from optuna_shape.cli._common import cores

# Nothing here gets as far as measuring.
SEARCH = "search --depth 1 --width 4 --epochs 1 --constraint 'size <= 1 MB'"
MEASURE = "measure --depth 1 --width 4"
JOIN = f"{SEARCH} --train-only --study-name x --storage"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files that are not what they are taken for, to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTUNA_SHAPE_DATA", raising=False)
    Path("folder").mkdir()
    for name in ("notes.txt", "notes.npz", "net.json", "net.safetensors"):
        Path(name).write_text("{ notes")
    return tmp_path


def invoke(command: str, **environment: str) -> Result:
    result = CliRunner().invoke(app, shlex.split(command), env=environment)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("serch", "No such command 'serch'. Did you mean 'search'?"),
        ("--bogus", "No such option: --bogus"),
        ("families x", "unexpected extra argument(s) (x)"),
        (f"{SEARCH} --epoch 3", "No such option: --epoch (Possible options: --"),
        (f"{SEARCH} --quiet=1", "Option '--quiet' does not take a value"),
        (f"{SEARCH} --study-name ''", "--study-name is followed by nothing. Leave it out"),
        (f"{SEARCH} --output=", "--output is followed by nothing. Leave it out"),
        (f"{SEARCH} --family nets.py", "Unknown family 'nets.py'. Known are densenet,"),
        (f"{SEARCH} --data nothing", "Unknown data set 'nothing'. Known are cifar10,"),
        (f"{SEARCH} --data notes.npz", "notes.npz cannot be read as .npz"),
        (f"{SEARCH} --data folder", "folder/CLASS/NAME.png"),
        (f"{SEARCH} --data mnist --data-root notes.txt", "--data-root to the folder that holds"),
        (f"{SEARCH} --depth -1", "--depth '-1' is no list of integers; write it like 1-6"),
        (f"{SEARCH} --depth 3-1", "--depth '3-1' counts down; write it like 1-6"),
        (f"{SEARCH} --width 1-99999999", "--width '1-99999999' is too many; give fewer than"),
        (f"{SEARCH} --constraint 'latency <= 1 kB'", "Unknown unit 'kB' for latency"),
        (f"{SEARCH} --constraint 'latency <= -1 ms'", "it must be a number above 0"),
        (f"{SEARCH} --constraint 'latency >= 1 ms'", "can only be bounded by 'latency <= ...'"),
        (f"{SEARCH} --constraint 'accuracy >= 900 %'", "a percentage up to 100 %"),
        (f"{SEARCH} --constraint latency", "Write it like 'latency <= 2 ms'"),
        (f"{SEARCH} --epochs 0", "'--epochs': '0'. "),
        (f"{SEARCH} --epochs=1.5", "'--epochs': '1.5'. "),
        (f"{SEARCH} --recipe batch_size=0", "batch_size=0 is no setting of a training. Give 1"),
        (f"{SEARCH} --recipe learning_rate=nan", "Give a number above 0"),
        (f"{SEARCH} --device tpu", "it can be 'auto', 'cpu', 'cuda' or 'cuda:1'"),
        (f"{SEARCH} --batch-size x", "'--batch-size': 'x'. "),
        (f"{SEARCH} --threads 0", "'--threads': '0'. "),
        (f"{SEARCH} --workers -1", "'--workers': '-1'. "),
        (f"{SEARCH} --guard 5", "guard must be a share, like 0.05"),
        (f"{SEARCH} --max-noise nan", "max_noise must be a share above 0, like 0.1"),
        (f"{SEARCH} --watts 0", "watts must be the power of the device"),
        (f"{SEARCH} --watts inf", "'--watts': 'inf'. "),
        (f"{SEARCH} --trials 0", "'--trials': '0'. "),
        (f"{SEARCH} --seed 99999999999", "'--seed': '99999999999'. "),
        (f"{SEARCH} --wait nan", "'--wait': 'nan'. "),
        (f"{SEARCH} --output notes.txt", "Cannot write notes.txt: File exists. Name a place"),
        (f"{SEARCH} --output notes.txt/x", "Cannot write notes.txt/x: Not a directory. Name"),
        (f"{SEARCH} --storage shapes", "shapes says nothing of its kind. Give a .db or .sqlite"),
        (f"{SEARCH} --storage notes.txt", "neither a SQLite database nor a journal"),
        (f"{SEARCH} --storage sqlite:///notes.txt", "neither a SQLite database nor a journal"),
        (f"{SEARCH} --storage sqlite:///folder", "folder cannot be read: Is a directory"),
        (f"{SEARCH} --storage no/x.log", "The storage no/x.log cannot be written: No such file"),
        (f"{SEARCH} --storage sqlite:///no/x.db", "The storage no/x.db cannot be written: No"),
        (f"{SEARCH} --storage notes.txt/x.db", "notes.txt/x.db cannot be read: Not a directory"),
        (f"{SEARCH} --storage ://", ":// is no URL of a storage"),
        (f"{SEARCH} --storage a+b://u:secret@h:no/d", "a+b://u:***@h:no/d is no URL of a storage"),
        (f"{SEARCH} --storage a+b://u:secret@h/d", "a+b://u:***@h/d cannot be opened"),
        (f"{SEARCH} --train-only --storage x.db", "Give the --storage and --study-name"),
        (f"{JOIN} notes.txt", "neither a SQLite database nor a journal"),
        (f"{JOIN} sqlite://", "it is in the memory of the process that made it"),
        (f"{JOIN} a+b://u:secret@h/d", "a+b://u:***@h/d cannot be opened"),
        (f"{MEASURE} --input-shape x", "--input-shape 'x' is no shape of one input; write it"),
        (f"{MEASURE} --input-shape 12", "Give (channels, height, width)"),
        (f"{MEASURE} --classes -1", "classes=-1 is no number of classes. Give 2 or more"),
        (f"{MEASURE} --classes x", "'--classes': 'x'. "),
        (f"{MEASURE} --quantile 2", "quantile must be between 0 and 1, like 0.5"),
        (f"{MEASURE} --guard nan", "guard must be a share, like 0.05"),
        (f"{MEASURE} --dtype x", "dtype must be a floating point type of torch, like"),
        (f"{MEASURE} --timing x", "Unknown timing 'x'. Known are device, host"),
        (f"{MEASURE} --timing device --device cpu", "timing must be 'host' on a CPU"),
        (f"{MEASURE} --repeat 2 --energy", "leave --constraint and --energy out"),
        (f"{MEASURE} --seed -1", "'--seed': '-1'. "),
        (f"{MEASURE} --output folder", "names the CSV file; let it end in .csv"),
        (f"{MEASURE} --output notes.txt/x.csv", "Cannot write notes.txt: File exists. Name"),
        ("report", "There is no file optuna-shape-output, and so no study. Give the --storage"),
        ("report notes.txt", "neither a SQLite database nor a journal"),
        ("report folder", "folder holds no study.db; if the search had --storage"),
        ("report sqlite:///no.db", "There is no file no.db"),
        ("dashboard folder", "folder holds no study.db; if the search had --storage"),
        ("dashboard folder --port 99999", "'--port': '99999'. "),
        ("export net", "net.json does not describe a network"),
        ("export nothing", "nothing.json cannot be read"),
        ("export folder", "folder holds no answer"),
        ("export net --batch-size 0", "give 1 or more, or dynamic"),
        ("export net --family resnet", "Leave it out"),
        ("export net --family-option a=1", "--family-option is for --family module:function"),
        ("compress net", "Name them by --data"),
        ("compress net --accuracy-drop 2", "Write it like 0.2%"),
        ("compress net --data digits", "net.json does not describe a network"),
        ("compress net --data digits --trials 0", "'--trials': '0'. "),
        ("compress net --data digits --seed x", "'--seed': 'x'. "),
    ],
)
def test_a_mistake_is_told_in_a_line_and_makes_nothing(
    place: Path, command: str, said: str
) -> None:
    before = sorted(place.rglob("*"))
    result = invoke(command)
    assert result.exit_code == EXIT_BAD_INPUT
    (line,) = result.stderr.splitlines()
    assert re.match(r"\w+: ", line)
    assert said in line
    assert "secret" not in line
    assert result.stdout == ""
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (f"{SEARCH} --epochs 0", "BadParameter"),
        (f"{SEARCH} --goal beauty", "InvalidProblem"),
        (f"{MEASURE} --device tpu", "MeasurementUnavailable"),
        ("report folder", "StudyUnavailable"),
        ("export folder", "InvalidCheckpoint"),
        ("compress net --data nothing", "DataUnavailable"),
    ],
)
def test_a_program_reads_errors_as_an_object(place: Path, command: str, kind: str) -> None:
    result = invoke(f"{command} --json")
    assert result.exit_code == EXIT_BAD_INPUT
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == kind
    assert result.stderr == f"{kind}: {error['message']}\n"


def test_where_no_shape_fits_a_program_reads_why(tmp_path: Path) -> None:
    unfit = ["search", *SMALL, "--constraint", "size <= 1 B", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*unfit, "--json"])
    assert result.exit_code == EXIT_NO_ANSWER
    assert json.loads(result.stdout)["error"]["kind"] == "NoFeasibleShape"
    assert "The nearest, (1, 4)" in CliRunner().invoke(app, [*unfit, "--quiet"]).stderr


def test_a_long_message_is_wrapped_at_a_terminal_and_nothing_is_drawn_around(place: Path) -> None:
    result = invoke(f"{SEARCH} --storage shapes", FORCE_COLOR="1", COLUMNS="60")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", result.stderr).splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 60
    assert result.stderr.isascii()


def test_a_machine_that_is_too_noisy_has_a_code_of_its_own(tmp_path: Path) -> None:
    # No pace is so even.
    tiny = f"{MEASURE} --family mlp --input-shape 4 --max-noise 1e-12 --json"
    result = invoke(f"{tiny} --output {tmp_path / 'shapes.csv'}")
    assert result.exit_code == EXIT_TOO_NOISY
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "NoisyMachine"
    assert error["message"].endswith("Here: --max-noise 0.5, say.")


@pytest.mark.parametrize("command", [SEARCH, MEASURE, "compress net", "export net"])
def test_more_threads_than_cores_are_warned_of(place: Path, command: str) -> None:
    # The mistake beside it ends the command at once.
    warned = invoke(f"{command} --threads {cores() + 1} --device tpu").stderr.splitlines()
    assert len(warned) == 2
    assert warned[0].startswith(f"Warning: --threads {cores() + 1} on {cores()} CPU cores: ")
    assert len(invoke(f"{command} --threads {cores()} --device tpu").stderr.splitlines()) == 1


def test_the_help_lists_the_exit_codes() -> None:
    text = re.sub(r"\s+", " ", invoke("search --help").stdout)
    assert "3 no shape fits" in text
    assert "5 the machine is too busy to be measured on" in text
