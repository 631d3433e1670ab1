from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import optuna_shape
from optuna_shape import DesignSpace
from optuna_shape import InvalidCheckpoint
from optuna_shape.families import FAMILIES
from optuna_shape.families import densenet
from optuna_shape.families import mlp
from optuna_shape.families import nasnet
from optuna_shape.families import resnet
from optuna_shape.families import vit
from optuna_shape.train.export import ExportFailed
from optuna_shape.train.export import export_program
from optuna_shape.train.export import read_program

SMALL = (1, 12, 12)
SPACES = {
    "resnet plain": resnet([2], [4], input_shape=SMALL),
    "resnet bottleneck": resnet([1], [4], input_shape=SMALL, variant="bottleneck"),
    "resnet wide": resnet([1], [4], input_shape=SMALL, variant="wide"),
    "resnet imagenet": resnet([1], [4], input_shape=(3, 64, 64), stem="imagenet"),
    "densenet bc": densenet([2], [4], input_shape=SMALL),
    "densenet": densenet([2], [4], input_shape=SMALL, bc=False),
    "nasnet": nasnet([1], [24], input_shape=SMALL),
    "nasnet imagenet": nasnet([1], [96], input_shape=(3, 32, 32), stem="imagenet"),
    "vit": vit([2], [16], input_shape=SMALL, head_size=8),
    "vit, padded": vit([1], [16], input_shape=(3, 10, 13), head_size=8),
    "mlp": mlp([2], [8], input_shape=SMALL),
    "mlp of rows": mlp([1], [4], input_shape=(5,), classes=3),
}


def trained(space: DesignSpace) -> nn.Module:
    """A network whose statistics are no longer those of a fresh one, left in training mode."""
    torch.manual_seed(0)
    model = space.build(space.shapes[0])
    assert space.input_shape is not None
    model(torch.randn(4, *space.input_shape))
    return model


def loaded(content: bytes, folder: Path) -> nn.Module:
    path = folder / "a.pt2"
    path.write_bytes(content)
    return read_program(path, hashlib.sha256(content).hexdigest())


def test_every_family_is_among_those_exported() -> None:
    assert {space.name for space in SPACES.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", SPACES)
def test_networks_of_every_family_take_any_batch(name: str, tmp_path: Path) -> None:
    space = SPACES[name]
    assert space.input_shape is not None
    model = trained(space)
    program = loaded(export_program(model, space.input_shape), tmp_path)
    assert not model.training
    for size in (1, 2, 3, 17):
        x = torch.randn(size, *space.input_shape)
        with torch.inference_mode():
            torch.testing.assert_close(program(x), model(x))


def test_a_fixed_batch_is_the_only_one(tmp_path: Path) -> None:
    space = SPACES["resnet plain"]
    model = trained(space)
    program = loaded(export_program(model, SMALL, batch_size=1), tmp_path)
    x = torch.randn(2, *SMALL)
    torch.testing.assert_close(program(x[:1]), model(x[:1]))
    with pytest.raises(AssertionError, match="Guard failed"):
        program(x)


READ = """
import sys
import torch
network = torch.export.load(sys.argv[1]).module()
print(network(torch.ones(3, 1, 12, 12)).tolist())
assert not {"optuna_shape", "torchvision", "test_export"} & set(sys.modules)
"""


@pytest.mark.parametrize("name", ["vit", "own"])
def test_torch_alone_runs_a_program(name: str, tmp_path: Path) -> None:
    model = trained(SPACES["vit"]) if name == "vit" else Own()
    path = tmp_path / "a.pt2"
    path.write_bytes(export_program(model, SMALL))
    command = [sys.executable, "-I", "-c", READ, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    scores = torch.tensor(json.loads(result.stdout))
    torch.testing.assert_close(scores, model(torch.ones(3, *SMALL)).detach())


def test_a_program_unpickles_no_more_than_tensors() -> None:
    archive = zipfile.ZipFile(io.BytesIO(export_program(trained(SPACES["vit"]), SMALL)))
    members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    configurations = [json.loads(members[name]) for name in members if "config.json" in name]
    assert len(configurations) == 2  # Of weights and of constants.
    entries = [entry for each in configurations for entry in each["config"].values()]
    assert len(entries) >= len(trained(SPACES["vit"]).state_dict())
    assert not any(entry["use_pickle"] for entry in entries)
    # A pickle in a zip; PyTorch reads it by itself in the same way first.
    pickled = [name for name, content in members.items() if content.startswith(b"PK")]
    assert pickled == ["data/sample_inputs/model.pt"]
    ((example,), _) = torch.load(io.BytesIO(members[pickled[0]]), weights_only=True)
    assert example.shape == (2, *SMALL)


def test_a_program_names_no_folder_of_this_machine() -> None:
    content = export_program(trained(SPACES["vit"]), SMALL)
    assert b"site-packages" not in content
    assert str(Path(optuna_shape.__file__).parent).encode() not in content
    content = export_program(Branching(), SMALL)
    assert str(Path(__file__).parent).encode() not in content


class Own(nn.Module):
    """A network that only this file knows, with tied weights."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(4, 4)
        self.first = nn.Linear(144, 4)
        self.body = nn.ModuleList([layer, layer])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x.flatten(1))
        for layer in self.body:
            x = layer(x).relu()
        return x


class Branching(Own):
    """A branch that torch.export can express: a graph within the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        result: torch.Tensor = torch.cond(x.mean() > 0, lambda y: y + 1, lambda y: y - 1, (y,))
        return result


class Undecided(Own):
    """A branch in Python, on what only the input tells."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y + 1 if x.mean() > 0 else y


class Few(Own):
    """A branch in Python on the batch size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y + 1 if len(x) > 4 else y


def test_branches_within_the_graph_are_exported(tmp_path: Path) -> None:
    model = Branching()
    program = loaded(export_program(model, SMALL), tmp_path)
    for x in (torch.ones(3, *SMALL), -torch.ones(2, *SMALL)):
        torch.testing.assert_close(program(x), model(x))


def test_a_network_that_cannot_be_exported_says_why() -> None:
    with pytest.raises(ExportFailed, match="for any batch size: .*Could not guard") as error:
        export_program(Undecided(), SMALL)
    assert "\n" not in str(error.value)
    assert "A fixed one may do" in str(error.value)
    with pytest.raises(ExportFailed, match="for batches of 3: .*Could not guard") as error:
        export_program(Undecided(), SMALL, batch_size=3)
    assert "fixed" not in str(error.value)


def test_no_batch_size_is_taken_without_saying_so(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="Constraints violated \\(batch\\)"):
        export_program(Few(), SMALL)
    model = Few()
    for size in (3, 5):
        program = loaded(export_program(model, SMALL, batch_size=size), tmp_path)
        x = torch.randn(size, *SMALL)
        torch.testing.assert_close(program(x), model(x))


def test_only_what_was_written_is_read(tmp_path: Path) -> None:
    content = export_program(Own(), SMALL)
    digest = hashlib.sha256(content).hexdigest()
    path = tmp_path / "a.pt2"
    with pytest.raises(InvalidCheckpoint, match=re.escape("a.pt2 cannot be read: No such file")):
        read_program(path, digest)
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    for other in (damaged, content[:-1], export_program(Few(), SMALL, batch_size=3)):
        path.write_bytes(other)
        with pytest.raises(InvalidCheckpoint, match="does not hold what was written to it"):
            read_program(path, digest)
