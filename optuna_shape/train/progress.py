"""A training on disk after each epoch, so that one that was cut short or killed goes on.

One safetensors file holds all that the next epoch depends on. Nothing is pickled, so loading one
runs no code that came with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors import safe_open
from torch import nn

from optuna_shape.errors import InvalidCheckpoint
from optuna_shape.train.checkpoint import copied
from optuna_shape.train.checkpoint import write_whole

_logger = logging.getLogger(f"optuna.{__name__}")

# Format 1 had the parameters of some networks in another order.
_FORMAT = 2
# Keys of the file's metadata, whose values are strings.
_INFO, _DIGEST = "progress", "sha256"
# Names of the tensors, or how they begin.
_MODEL, _OPTIMIZER = "model.", "optimizer."
_GENERATOR, _GLOBAL, _GLOBAL_CUDA = "random.own", "random.global", "random.global_cuda"


class Progress:
    """Keeps one training in a file, and puts it back.

    Kept are parameters and buffers, the state of the optimizer, and the states of the training's
    own generator and of torch's global ones. The learning rate follows from the epoch. The file
    is a help, never a condition: one that cannot be read or written is logged as a warning.

    Args:
        path: The file, ending in ``.safetensors``; missing folders are made. None keeps nothing.
        identity: What tells this training from others, as JSON.
        model: The network, on the device that it is trained on.
        optimizer: Its optimizer, without a step so far. Its state is tensors.
        generator: What the training draws from, on the same device.
    """

    def __init__(
        self,
        path: Path | None,
        identity: Mapping[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        self._path = path
        self._identity = identity
        self._model = model
        self._optimizer = optimizer
        self._generator = generator
        self._warned = False

    def resume(self) -> list[float]:
        """Put the training back to where the file left it.

        Returns:
            Validation accuracies of the epochs done, fractions; none if there is no such file, or
            if it is damaged or of another training, and then nothing is changed.
        """
        if self._path is None:
            return []
        try:
            curve, tensors = _read(self._path, self._identity)
        except FileNotFoundError:
            return []
        except (OSError, SafetensorError, InvalidCheckpoint) as error:
            _logger.warning(
                f"The training does not go on from {self._path}, but starts anew and replaces "
                f"that file: {error}"
            )
            return []
        self._restore(tensors)
        _logger.info(f"The training goes on from {self._path}, after epoch {len(curve)}.")
        return curve

    def keep(self, curve: Sequence[float]) -> None:
        """Write the training as it stands after an epoch.

        Args:
            curve: Validation accuracies of the epochs done, fractions.
        """
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, _serialize(curve, self._identity, self._tensors()))
        except OSError as error:
            if not self._warned:  # Once per training: a full disk stays full for a while.
                self._warned = True
                _logger.warning(
                    f"The training goes on, but its progress cannot be kept in {self._path}: "
                    f"{error.strerror}. If it is interrupted, it starts anew; name a folder that "
                    "can be written to and has room."
                )

    def discard(self) -> None:
        """Delete the file, as the training came to nothing."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Everything to keep, as copies on the CPU."""
        device = self._generator.device
        tensors = {f"{_MODEL}{name}": t for name, t in self._model.state_dict().items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors.update({f"{_OPTIMIZER}{index}.{key}": t for key, t in state.items()})
        tensors[_GENERATOR] = self._generator.get_state()
        tensors[_GLOBAL] = torch.get_rng_state()
        if device.type == "cuda":
            tensors[_GLOBAL_CUDA] = torch.cuda.get_rng_state(device)
        return copied(tensors)

    def _restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._model.load_state_dict(_below(_MODEL, tensors))
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        for name, tensor in _below(_OPTIMIZER, tensors).items():
            index, key = name.split(".")
            parameter = parameters[int(index)]
            # A fused step needs its moments laid out in memory as the parameter is.
            like = parameter if tensor.shape == parameter.shape else tensor
            self._optimizer.state[parameter][key] = torch.empty_like(
                like, dtype=tensor.dtype, device=parameter.device, requires_grad=False
            ).copy_(tensor)
        self._generator.set_state(tensors[_GENERATOR])
        torch.set_rng_state(tensors[_GLOBAL])
        if _GLOBAL_CUDA in tensors:
            torch.cuda.set_rng_state(tensors[_GLOBAL_CUDA], self._generator.device)


def describe_network(model: nn.Module) -> str:
    """Return a digest of the names, shapes and types of a network's parameters and buffers."""
    layout = [[name, list(t.shape), str(t.dtype)] for name, t in model.state_dict().items()]
    return hashlib.sha256(json.dumps(layout).encode()).hexdigest()[:12]


def _serialize(
    curve: Sequence[float], identity: Mapping[str, Any], tensors: dict[str, torch.Tensor]
) -> bytes:
    info = json.dumps(
        {
            "format": _FORMAT,
            "epoch": len(curve),
            "curve": list(curve),
            "identity": identity,
        }
    )
    metadata = {_INFO: info, _DIGEST: _digest(info, tensors)}
    return safetensors.torch.save(tensors, metadata)


def _read(path: Path, identity: Mapping[str, Any]) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return the curve and the tensors of a file.

    Raises:
        InvalidCheckpoint: It is damaged or of another training.
        OSError: It cannot be read; :exc:`FileNotFoundError` if it does not exist.
        SafetensorError: It is no safetensors file.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = metadata.get(_INFO, "")
    if metadata.get(_DIGEST) != _digest(text, tensors):
        raise InvalidCheckpoint("it is damaged, or does not hold the progress of a training.")
    info = json.loads(text)
    if info["format"] != _FORMAT:
        raise InvalidCheckpoint(
            f"it has format {info['format']!r}, and this version of optuna_shape reads format "
            f"{_FORMAT}."
        )
    theirs = info["identity"]
    differences = [
        f"{key} is {theirs.get(key)!r} there and {identity.get(key)!r} here"
        for key in {**identity, **theirs}  # Either may have a teacher that the other has not.
        if theirs.get(key) != identity.get(key)
    ]
    if differences:
        raise InvalidCheckpoint(f"it is of another training: {'; '.join(differences)}.")
    return info["curve"], tensors


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Digest of all that a file holds, as safetensors has no checksum."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
