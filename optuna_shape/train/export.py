"""Trained networks as programs of ``torch.export``, which run without the code that built them.

A ``.pt2`` file is a zip archive of a graph in JSON and of weights in raw bytes. PyTorch alone
reads it, but perhaps not where another release of it wrote the file.

Reading is another matter than with the safetensors of :mod:`optuna_shape.train.checkpoint`:
:func:`torch.export.load` unpickles. By the source of PyTorch 2.15, in a file of plain tensors, as
those that are written here, that is the example input alone, and by ``weights_only``. But what to
unpickle is said by the file: where that fails, or where a file marks a weight or constant as
pickled, PyTorch unpickles without restriction, which may run any code. So :func:`read_program`
looks at the digest first, and reads only what :func:`export_program` returned.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim

from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.errors import ShapeError

SUFFIX = ".pt2"
#: Of what a program is traced with where the batch size stays open. Not 1: torch.export takes
#: that for a constant.
_EXAMPLE = 2


class ExportFailed(ShapeError, RuntimeError):
    """No program can be made of a network, or it cannot be written."""


def export_program(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> bytes:
    """Return the content of a ``.pt2`` file that runs a network in evaluation mode.

    Args:
        model:
            A network that makes one tensor of one tensor. It is moved to the device and left in
            evaluation mode.
        input_shape:
            Shape of one input, without the batch dimension; inputs are float32.
        batch_size:
            Inputs per call, the only number that the program will take; None for any number.
        device:
            Where the program will run. It stays bound to that.

    Raises:
        ExportFailed: ``torch.export`` has no program for the network. It may have printed a graph
            to :data:`sys.stderr` before.
    """
    model = model.to(device).eval()
    example = torch.zeros(batch_size or _EXAMPLE, *input_shape, device=device)
    file = io.BytesIO()
    try:
        program = torch.export.export(
            model,
            (example,),
            dynamic_shapes=({0: Dim("batch")},) if batch_size is None else None,
        )
        _forget_source(program)
        torch.export.save(program, file)
    except Exception as error:  # It has no class of its own for these.
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        text = f"{type(error).__name__}: {reason}".rstrip(".: ")
        if batch_size is None:
            raise ExportFailed(
                f"torch.export cannot export the network for any batch size: {text}. A fixed one "
                "may do, such as 32. (len(x) in a network fixes it, x.shape[0] does not.)"
            ) from error
        raise ExportFailed(
            f"torch.export cannot export the network for batches of {batch_size}: {text}."
        ) from error
    return file.getvalue()


def read_program(path: Path, sha256: str) -> nn.Module:
    """Return the network of a ``.pt2`` file that was written just now.

    Args:
        path: The file.
        sha256: Digest, in hexadecimal, of what :func:`export_program` returned.

    Raises:
        InvalidCheckpoint: The file cannot be read or holds something else, which is not loaded.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidCheckpoint(f"{path} cannot be read: {error.strerror}.") from error
    # The very bytes that are loaded below: the file might change in between.
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InvalidCheckpoint(
            f"{path} does not hold what was written to it. It is damaged, or another program "
            "wrote to it; export the network again."
        )
    return torch.export.load(io.BytesIO(content)).module()


def _forget_source(program: torch.export.ExportedProgram) -> None:
    """Drop the lines of source that each operation came from.

    They name folders of this machine, which are nobody else's business, and took half of the file
    of a small network.
    """
    for module in program.graph_module.modules():  # Branches of a graph are graphs themselves.
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
