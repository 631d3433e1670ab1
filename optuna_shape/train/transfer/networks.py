"""Fill a network with what a trained one of another shape has learned."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from typing import Literal
from typing import TypeAlias
from typing import TypeGuard

import torch
from torch import nn

from optuna_shape.errors import InvalidProblem
from optuna_shape.families._nasnet_cells import NORMAL
from optuna_shape.families._nasnet_cells import Cell
from optuna_shape.families._nasnet_cells import _FactorizedReduction
from optuna_shape.families.densenet import _DenseLayer
from optuna_shape.families.nasnet import NASNetA
from optuna_shape.families.resnet import _PaddedShortcut
from optuna_shape.families.resnet import _PostActivationBlock
from optuna_shape.families.resnet import _PreActivationBlock
from optuna_shape.train.transfer.channels import Channels
from optuna_shape.train.transfer.channels import fill_norm
from optuna_shape.train.transfer.channels import fill_overlap
from optuna_shape.train.transfer.channels import fill_rows
from optuna_shape.train.transfer.channels import fill_weight

#: ``"function"``: the child computes what its parent computes. ``"overlap"``: it only has those
#: weights that both have a place for.
Inherited: TypeAlias = Literal["function", "overlap"]

_RESIDUAL = (_PostActivationBlock, _PreActivationBlock)
_PLAIN = {
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
    nn.BatchNorm2d,
    nn.Conv2d,
    nn.Flatten,
    nn.Linear,
    nn.MaxPool2d,
    nn.ReLU,
}


def inherit(child: nn.Module, parent: nn.Module, *, seed: int = 0) -> Inherited:
    """Fill a network with what one of another shape has learned.

    The function is preserved, to rounding, where the child is at least as deep and wide as the
    parent (Net2Net, see :mod:`optuna_shape.train.transfer.channels`):

    * perceptrons, residual and densely connected networks: always, but for wide residual networks
      where only the parent is as narrow as its stem (16), and so has no first shortcut;
    * NASNet-A: at the same depth, as no cell can pass its input on;
    * vision transformers: where the child's width is a multiple of the parent's, as the layer
      normalisation takes its mean over all channels.

    Otherwise, channels go in turn to those of the child as far as there are any, and layers
    likewise. Of networks that are no family's, tensors of the same name get the leading part that
    they have in common.

    Args:
        child:
            The network to fill, in place; fresh, as some layers keep the weights they have.
        parent:
            The trained network, of the same family and options.
        seed:
            Of the shares by which replicas divide a weight.

    Returns:
        What the child has of its parent.

    Raises:
        InvalidProblem: The networks differ in more than their shapes. The child is unchanged.

    Example:
        >>> from optuna_shape.families import mlp
        >>> space = mlp([1, 3], [8, 20], input_shape=(5,))
        >>> small, large = space.build(space.shapes[0]), space.build(space.shapes[-1])
        >>> inherit(large, small)
        'function'
        >>> x = torch.rand(2, 5)
        >>> torch.allclose(large(x), small(x), atol=1e-6)
        True
    """
    ours, theirs = _outline(child), _outline(parent)
    if ours != theirs:
        raise InvalidProblem(
            f"A {type(child).__name__} cannot inherit from this {type(parent).__name__}: they "
            "differ in more than depth and width. Transfer between networks of one design space."
        )
    heir = _Heir(seed)
    if isinstance(child, NASNetA) and isinstance(parent, NASNetA):
        heir.nasnet(child, parent)
    elif _is_perceptron(child):
        heir.perceptron(list(child.children()), list(parent.children()))
    elif (transformer := _transformer(child)) is not None:
        heir.transformer(transformer, _transformer(parent))
    elif _is_sequence(child) and _is_sequence(parent):
        heir.sequence(child, parent)
    else:
        if not fill_overlap(child, parent):
            raise InvalidProblem(
                f"No tensor of a {type(child).__name__} has the name of one of its parent's. "
                "Transfer between networks whose layers have the same names."
            )
        heir.preserved = False
    return "function" if heir.preserved else "overlap"


class _Heir:
    """Fills modules of a child from those of its parent, and knows whether that was exact.

    Attributes:
        preserved: Whether all that was filled so far computes what the parent computes.
    """

    def __init__(self, seed: int) -> None:
        self.preserved = True
        self._generator = torch.Generator().manual_seed(seed)

    def layers(
        self,
        child: Iterable[nn.Module],
        parent: Iterable[nn.Module],
        inputs: Channels,
        outputs: Channels | None = None,
    ) -> Channels:
        """Fill layers that follow one another.

        Args:
            child:
                The layers of the child; what is nested is taken apart.
            parent:
                The same layers of the parent.
            inputs:
                The channels that enter.
            outputs:
                The channels that have to leave, if others depend on which.

        Returns:
            The channels that leave.
        """
        ours, theirs = _leaves(child), _leaves(parent)
        alike = [type(layer) for layer in ours] == [type(layer) for layer in theirs]
        if not (alike and _takes(theirs, inputs.count)):
            # Cells of NASNet-A adapt what they take to their place. This one stays fresh.
            self.preserved = False
            assert outputs is not None
            return outputs
        pairs = list(zip(ours, theirs))
        # A depthwise convolution of a single channel looks like any other.
        maps = [i for i, pair in enumerate(pairs) if all(map(_mixes_channels, pair))]
        channels = inputs
        for index, (layer, other) in enumerate(pairs):
            if index in maps:
                target = outputs if index == maps[-1] else None
                channels = self.linear(layer, other, channels, target)
            elif isinstance(layer, nn.Conv2d):
                fill_rows(layer.weight, other.weight, channels)
            elif isinstance(layer, nn.BatchNorm2d):
                fill_norm(layer, other, channels)
            # All others treat channels alike.
        if outputs is not None and not torch.equal(channels.sources, outputs.sources):
            self.preserved = False  # Nothing was there to bring them into the order asked for.
            return outputs
        return channels

    def linear(
        self, child: Any, parent: Any, inputs: Channels, outputs: Channels | None = None
    ) -> Channels:
        """Fill a linear layer or a convolution that mixes channels."""
        if outputs is None:
            outputs = Channels.spread(len(child.weight), len(parent.weight))
        self.preserved &= inputs.complete and outputs.complete
        fill_weight(child.weight, parent.weight, outputs, inputs, self._generator)
        if child.bias is not None:
            fill_rows(child.bias, parent.bias, outputs)
        return outputs

    def perceptron(self, child: Sequence[nn.Module], parent: Sequence[nn.Module]) -> None:
        ours, theirs = ([m for m in net if isinstance(m, nn.Linear)] for net in (child, parent))
        channels = Channels.spread(ours[0].in_features, theirs[0].in_features)
        hidden = min(len(ours), len(theirs)) - 1
        for layer, other in zip(ours[:hidden], theirs[:hidden]):
            channels = self.linear(layer, other, channels)
        for layer in ours[hidden:-1]:
            # Net2DeeperNet: what enters came out of a ReLU, which lets it pass once more.
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.linear(ours[-1], theirs[-1], channels)
        self.preserved &= len(ours) >= len(theirs)

    def sequence(self, child: nn.Sequential, parent: nn.Sequential) -> None:
        """Fill a network of plain layers, residual blocks and dense layers in a row."""
        ours, theirs = _runs(child), _runs(parent)
        colours = next(child.parameters()).shape[1]
        channels = Channels.spread(colours, colours)
        for run, run_there in zip(ours, theirs):
            if isinstance(run[0], _DenseLayer):
                channels = self.dense(run, run_there, channels)
            elif isinstance(run[0], _RESIDUAL):
                channels = self.residual(run, run_there, channels)
            else:
                channels = self.layers(run, run_there, channels)

    def residual(
        self, child: Sequence[Any], parent: Sequence[Any], channels: Channels
    ) -> Channels:
        """Fill the blocks of a stage; those that the parent lacks add nothing to their input."""
        for block, other in zip(child, parent):
            if isinstance(block, _PostActivationBlock):
                outputs = self.shortcut(block, other, channels)
                self.layers([block.residual], [other.residual], channels, outputs)
                channels = outputs
            else:
                channels = self.pre_activation(block, other, channels)
        for block in child[len(parent) :]:
            # Net2DeeperNet. The input of a block with an activation at its end came out of one.
            if isinstance(block, _PostActivationBlock):
                last = _leaves([block.residual])[-1]
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            else:
                nn.init.zeros_(block.conv2.weight)
        self.preserved &= len(child) >= len(parent)
        return channels

    def shortcut(
        self, child: _PostActivationBlock, parent: _PostActivationBlock, channels: Channels
    ) -> Channels:
        ours, theirs = child.shortcut, parent.shortcut
        if isinstance(ours, nn.Identity):
            return channels
        if isinstance(ours, _PaddedShortcut) and isinstance(theirs, _PaddedShortcut):
            # Zeros have to meet channels that meet zeros in the parent.
            zeros = Channels.spread(ours.before + ours.after, theirs.before + theirs.after)
            inside = torch.where(zeros.sources < theirs.before, 0, channels.count)
            padding = zeros.sources + inside
            middle = torch.where(channels.old, channels.sources + theirs.before, channels.sources)
            sources = torch.cat([padding[: ours.before], middle, padding[ours.before :]])
            return Channels(sources, zeros.count + channels.count)
        return self.layers([ours], [theirs], channels)

    def pre_activation(
        self, child: _PreActivationBlock, parent: _PreActivationBlock, channels: Channels
    ) -> Channels:
        fill_norm(child.norm1, parent.norm1, channels)
        inner = self.linear(child.conv1, parent.conv1, channels)
        fill_norm(child.norm2, parent.norm2, inner)
        outputs = channels
        if child.shortcut is not None and parent.shortcut is not None:
            outputs = self.linear(child.shortcut, parent.shortcut, channels)
        elif child.shortcut is not None or parent.shortcut is not None:
            # The stem of one is as wide as its first stage. An identity after the activation
            # comes nearest to one before it.
            self.preserved = False
            outputs = Channels.spread(child.conv2.out_channels, parent.conv2.out_channels)
            if child.shortcut is not None:
                identity = torch.eye(outputs.count)[:, :, None, None]
                fill_weight(child.shortcut.weight, identity, outputs, channels, self._generator)
        return self.linear(child.conv2, parent.conv2, inner, outputs)

    def dense(self, child: Sequence[Any], parent: Sequence[Any], channels: Channels) -> Channels:
        """Fill the layers of a dense block; what the parent lacks adds channels nobody reads."""
        parts = [channels]
        for layer, other in zip(child, parent):
            parts.append(self.layers([layer.added], [other.added], Channels.joined(parts)))
        growths = [_leaves([block[0].added])[-1].out_channels for block in (child, parent)]
        parts += [Channels.new(growths[0]) for _ in child[len(parent) :]]
        parts += [Channels.spread(0, growths[1]) for _ in parent[len(child) :]]
        return Channels.joined(parts)

    def nasnet(self, child: NASNetA, parent: NASNetA) -> None:
        convolution, other = child.stem[0], parent.stem[0]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(other, nn.Conv2d)
        colours = Channels.spread(convolution.in_channels, other.in_channels)
        x = previous = self.layers([child.stem], [parent.stem], colours)
        for run, run_there in zip(_runs(child.cells), _runs(parent.cells)):
            self.preserved &= len(run) == len(run_there)
            for index, cell in enumerate(run):
                twin = run_there[min(index, len(run_there) - 1)]
                x, previous = self.cell(cell, twin, x, previous), x
        self.layers([child.head], [parent.head], x)

    def cell(self, child: Any, parent: Any, x: Channels, previous: Channels) -> Channels:
        """Fill a cell, all of whose states continue the parent's in the same order."""
        ours, theirs = (cell.outputs // len(cell.wiring.outputs) for cell in (child, parent))
        # Of a factorized reduction, either half of the channels sees other pixels.
        filters = Channels.joined(
            [
                Channels.spread(ours // 2, theirs // 2),
                Channels.spread(ours - ours // 2, theirs - theirs // 2),
            ]
        )
        self.layers([child.entry], [parent.entry], x, filters)
        states = [filters, filters, *[filters] * len(child.wiring.sums)]
        entry, other = child.previous_entry, parent.previous_entry
        if isinstance(entry, nn.Identity):
            states[1] = previous
        if isinstance(entry, _FactorizedReduction) and isinstance(other, _FactorizedReduction):
            # Its place is the first of a run, so the parent's takes the same channels.
            self.linear(entry.even, other.even, previous)
            self.linear(entry.odd, other.odd, previous)
            fill_norm(entry.norm, other.norm, filters)
        elif type(entry) is not type(other) or isinstance(entry, _FactorizedReduction):
            self.preserved = False
        elif not isinstance(entry, nn.Identity):
            self.layers([entry], [other], previous, filters)
        used = [state for pair in child.wiring.sums for _, state in pair]
        for term, twin, state in zip(child.terms, parent.terms, used):
            self.layers([term], [twin], states[state], filters)
        leaving = zip(child.exits, parent.exits, child.wiring.outputs)
        return Channels.joined(
            [self.layers([out], [twin], states[state], filters) for out, twin, state in leaving]
        )

    def transformer(self, child: Any, parent: Any) -> None:
        # In turn, so that every head continues a head.
        hidden = Channels.spread(child.hidden_dim, parent.hidden_dim)
        colours = Channels.spread(child.conv_proj.in_channels, parent.conv_proj.in_channels)
        # Means over all channels are the parent's if every channel is there equally often.
        self.preserved &= child.hidden_dim % parent.hidden_dim == 0
        self.linear(child.conv_proj, parent.conv_proj, colours, hidden)
        for ours, theirs in (
            (child.class_token, parent.class_token),
            (child.encoder.pos_embedding, parent.encoder.pos_embedding),
        ):
            fill_rows(ours.data.movedim(-1, 0), theirs.data.movedim(-1, 0), hidden)
        for block, other in zip(child.encoder.layers, parent.encoder.layers):
            fill_norm(block.ln_1, other.ln_1, hidden)
            self.attention(block.self_attention, other.self_attention, hidden)
            fill_norm(block.ln_2, other.ln_2, hidden)
            self.layers([block.mlp], [other.mlp], hidden, hidden)
        for block in list(child.encoder.layers)[len(parent.encoder.layers) :]:
            # Net2DeeperNet: a layer that adds nothing to its input.
            for last in (block.self_attention.out_proj, block.mlp[3]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        self.preserved &= len(child.encoder.layers) >= len(parent.encoder.layers)
        fill_norm(child.encoder.ln, parent.encoder.ln, hidden)
        self.layers([child.heads], [parent.heads], hidden)

    def attention(
        self, child: nn.MultiheadAttention, parent: nn.MultiheadAttention, hidden: Channels
    ) -> None:
        ours, theirs = child.in_proj_weight.data, parent.in_proj_weight.data
        for query, other in zip(ours.chunk(3), theirs.chunk(3)):  # And key, and value.
            fill_weight(query, other, hidden, hidden, self._generator)
        for bias, other in zip(child.in_proj_bias.data.chunk(3), parent.in_proj_bias.chunk(3)):
            fill_rows(bias, other, hidden)
        self.linear(child.out_proj, parent.out_proj, hidden, hidden)


def _leaves(modules: Iterable[nn.Module]) -> list[Any]:
    """The layers of modules that run their parts one after the other."""
    return [
        layer
        for module in modules
        for layer in module.modules()
        if not any(True for _ in layer.children())
    ]


def _takes(layers: Sequence[Any], channels: int) -> bool:
    """Whether layers in a row can take this number of channels."""
    taken = (
        getattr(layer, name)
        for layer in layers
        for name in ("in_channels", "num_features", "in_features")
        if hasattr(layer, name)
    )
    return next(taken, channels) == channels


def _mixes_channels(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _runs(modules: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """Modules in a row, apart where a dense block, a residual stage or a stack begins or ends."""
    return [list(run) for _, run in groupby(modules, _place)]


def _place(module: nn.Module) -> object:
    """What modules of one run have in common."""
    if isinstance(module, _PostActivationBlock):
        return int(_leaves([module.residual])[-1].num_features)
    if isinstance(module, _PreActivationBlock):
        return module.conv2.out_channels
    if isinstance(module, Cell):
        return module.wiring is NORMAL
    return isinstance(module, _DenseLayer)


def _is_perceptron(model: nn.Module) -> bool:
    kinds = [type(layer) for layer in model.children()]
    hidden = (len(kinds) - 2) // 2
    return kinds == [nn.Flatten, *[nn.Linear, nn.ReLU] * hidden, nn.Linear]


def _is_sequence(model: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether this is a residual or densely connected network, all parts of which are known."""
    blocks = (*_RESIDUAL, _DenseLayer)
    kinds = {type(layer) for layer in model.children()}
    return (
        type(model) is nn.Sequential
        and bool(kinds & {*blocks})
        and {type(m) for m in _leaves(m for m in model if not isinstance(m, blocks))} <= _PLAIN
    )


def _transformer(model: nn.Module) -> Any:
    """The vision transformer in a network, which may pad its input first, or None."""
    if isinstance(model, nn.Sequential) and len(model) and isinstance(model[0], nn.ZeroPad2d):
        model = model[-1]
    if not hasattr(model, "conv_proj"):
        return None
    from torchvision.models import VisionTransformer  # Here, as it takes a second.

    return model if isinstance(model, VisionTransformer) else None


def _outline(model: nn.Module) -> object:
    """What networks of all shapes of one design space have in common."""
    if _is_perceptron(model):
        weights = [layer.weight for layer in model.children() if isinstance(layer, nn.Linear)]
        return "perceptron", weights[0].shape[1], weights[-1].shape[0]
    transformer = _transformer(model)
    if transformer is not None:
        head = transformer.hidden_dim // transformer.encoder.layers[0].self_attention.num_heads
        inputs = transformer.conv_proj.weight.shape[1:]
        return "transformer", transformer.image_size, inputs, head, transformer.num_classes
    if isinstance(model, NASNetA):
        runs = tuple(run[0].wiring for run in _runs(model.cells))
        return "NASNet-A", runs, _input(model), model.head[-1].out_features
    if _is_sequence(model):
        parts = tuple(_first(run) for run in _runs(model))
        return "sequence", parts, _input(model), getattr(model[-1], "out_features", None)
    return type(model)


def _first(run: Sequence[nn.Module]) -> object:
    """What stages of all depths and widths have in common."""
    main = getattr(run[0], "residual", run[0])  # Shortcuts depend on the width.
    layers = [main] if isinstance(run[0], (*_RESIDUAL, _DenseLayer)) else run
    if isinstance(run[0], _PreActivationBlock):
        return type(run[0])
    return type(run[0]), *((type(m), getattr(m, "kernel_size", None)) for m in _leaves(layers))


def _input(model: nn.Module) -> object:
    return next(model.parameters()).shape[1:]
