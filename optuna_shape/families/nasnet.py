"""NASNet-A: depth is the normal cells per stack, width the filters of the penultimate layer.

    stem -> depth normal cells -> reduction -> depth -> reduction -> depth of width -> classes

"NASNet-A (N @ F)" of Zoph et al. [Zoph2018]_ is depth N at width F. A normal cell concatenates six
states; a reduction cell halves the image and doubles the filters of what follows. So the width is
24 times the filters of the first stack. Two stems:

* ``"cifar"``: a 3 x 3 convolution, for small images. 6 @ 768 has 3.3 million parameters.
* ``"imagenet"``: a 3 x 3 convolution of stride 2, then two reduction cells, of a quarter and half
  the filters. 4 @ 1056 and 6 @ 4032 (``stem_filters=96``) have the weights of their authors'
  implementation, TensorFlow Slim.

Paths are dropped while training, as published (scheduled drop-path): the probability rises in
proportion to a cell's place in the network and to the share of the training that is done. A
network cannot know that share, so its trainer tells it by :meth:`NASNetA.set_progress`. Without,
paths are dropped from the start as often as at the end.

Left out: the auxiliary classifier of the publication, which takes part in training only, and the
dropout before the last layer, which it has on ImageNet. An image of even size is padded on both
sides where TensorFlow pads it on one. The publication also counts 27.6 million parameters for
7 @ 2304, 10.9 for 5 @ 1538 and 22.6 for 7 @ 1920; the implementation has no settings for them, and
by its rules they have 32.6, (5 @ 1536) 12.2 and 24.6.

.. [Zoph2018] Zoph, Vasudevan, Shlens, Le. Learning transferable architectures for scalable image
   recognition. CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from typing import TypeAlias
from typing import get_args

import torch
from torch import nn

from optuna_shape.errors import InvalidProblem
from optuna_shape.errors import InvalidSpace
from optuna_shape.families._checks import check_choice
from optuna_shape.families._checks import check_classes
from optuna_shape.families._checks import check_image
from optuna_shape.families._checks import check_multiples
from optuna_shape.families._checks import check_positive
from optuna_shape.families._nasnet_cells import NORMAL
from optuna_shape.families._nasnet_cells import REDUCTION
from optuna_shape.families._nasnet_cells import Cell
from optuna_shape.families._nasnet_cells import DropPath
from optuna_shape.families._nasnet_cells import Relation
from optuna_shape.families._nasnet_cells import Wiring
from optuna_shape.space import DesignSpace
from optuna_shape.space import Shape

Stem: TypeAlias = Literal["cifar", "imagenet"]
STEMS: tuple[Stem, ...] = get_args(Stem)

_STACKS = 3
_WIDTH_PER_FILTER = 24  # Six states of the last stack, whose filters were doubled twice.
_SMALLEST_IMAGE = {"cifar": 4, "imagenet": 32}  # Halved by every reduction, it still has a pixel.
_IMAGENET_STEM_FILTERS = 32


@dataclass(frozen=True)
class NASNet:
    """Builds the NASNet-A of a shape, whose width is a multiple of ``width_step``.

    Attributes:
        input_shape: ``(channels, height, width)`` of one image; at least 4 x 4 pixels, or 32 x 32
            for the ImageNet stem.
        classes: Number of outputs.
        stem: ``"cifar"`` or ``"imagenet"``.
        stem_filters: Channels of the first convolution; None for the default of the stem.
        drop_path: Probability by which the last cell drops a path at the end of the training.
    """

    input_shape: tuple[int, ...]
    classes: int
    stem: Stem
    stem_filters: int | None
    drop_path: float

    def __post_init__(self) -> None:
        check_choice("stem", self.stem, STEMS)
        check_classes(self.classes)
        smallest = _SMALLEST_IMAGE[self.stem]
        image = check_image(self.input_shape, smallest, f"NASNet-A with the {self.stem!r} stem")
        object.__setattr__(self, "input_shape", image)
        if self.stem_filters is not None:
            check_positive("stem_filters", self.stem_filters)
        if (
            isinstance(self.drop_path, bool)
            or not isinstance(self.drop_path, int | float)
            or not 0 <= self.drop_path < 1
        ):
            raise InvalidSpace(
                f"drop_path={self.drop_path!r} is no probability below 1. "
                "Give, for example, 0.4, or 0 to drop nothing."
            )

    @property
    def width_step(self) -> int:
        """Widths are multiples of this."""
        # The first cell of the ImageNet stem has a quarter of the first stack's filters.
        return _WIDTH_PER_FILTER * (4 if self.stem == "imagenet" else 1)

    def __call__(self, shape: Shape) -> nn.Module:
        colours = self.input_shape[0]
        filters = shape.width // _WIDTH_PER_FILTER
        cells: list[tuple[Wiring, int]] = []
        if self.stem == "cifar":
            channels = self.stem_filters or 3 * filters
            convolution = nn.Conv2d(colours, channels, kernel_size=3, padding=1, bias=False)
        else:
            channels = self.stem_filters or _IMAGENET_STEM_FILTERS
            convolution = nn.Conv2d(colours, channels, kernel_size=3, stride=2, bias=False)
            cells += [(REDUCTION, filters // 4), (REDUCTION, filters // 2)]
        for stack in range(_STACKS):
            if stack > 0:
                cells.append((REDUCTION, filters * 2**stack))
            cells += [(NORMAL, filters * 2**stack)] * shape.depth
        return NASNetA(convolution, cells, classes=self.classes, drop_path=self.drop_path)


class NASNetA(nn.Module):
    """A network of cells, each of which sees the outputs of the two before it.

    Args:
        convolution: The first layer.
        cells: Wiring and filters of each cell.
        classes: Number of outputs.
        drop_path: Probability by which the last cell drops a path at the end of the training.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        cells: Sequence[tuple[Wiring, int]],
        *,
        classes: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        channels = previous = convolution.out_channels
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(channels))
        self.cells = nn.ModuleList()
        relation: Relation = "itself"
        for place, (wiring, filters) in enumerate(cells, start=1):
            cell = Cell(
                wiring,
                inputs=channels,
                previous=previous,
                filters=filters,
                relation=relation,
                drop_path=drop_path * place / len(cells),
            )
            self.cells.append(cell)
            channels, previous = cell.outputs, channels
            relation = "larger" if wiring is REDUCTION else "same"
        self.head = nn.Sequential(
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = previous = self.stem(x)
        for cell in self.cells:
            x, previous = cell(x, previous), x
        scores: torch.Tensor = self.head(x)
        return scores

    def set_progress(self, share: float) -> None:
        """Say how much of the training is done; paths are dropped in proportion to it.

        Args:
            share:
                From 0, where no path is dropped, to 1, which holds until this is called.

        Raises:
            InvalidProblem: It is no share.

        Example:
            >>> network = nasnet([1], [24]).build(Shape(1, 24))
            >>> for epoch in range(30):
            ...     network.set_progress(epoch / 30)  # then train for this epoch
        """
        if not 0 <= share <= 1:
            raise InvalidProblem(f"share={share!r} of a training is none. Give 0 to 1.")
        for module in self.modules():
            if isinstance(module, DropPath):
                module.progress = share


def nasnet(
    depth: Iterable[int] = (1, 2, 3, 4, 5, 6),
    width: Iterable[int] = (96, 192, 288, 384),
    *,
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    stem: Stem = "cifar",
    stem_filters: int | None = None,
    drop_path: float = 0.4,
    name: str = "nasnet",
) -> DesignSpace:
    """NASNet-A: depth is the normal cells per stack, width the filters of the penultimate layer.

    Args:
        depth:
            Normal cells in each of the three stacks to choose from.
        width:
            Filters of the penultimate layer to choose from: multiples of 24, or of 96 with the
            ImageNet stem.
        input_shape:
            ``(channels, height, width)`` of one image; at least 4 x 4 pixels, or 32 x 32 for the
            ImageNet stem.
        classes:
            Number of outputs.
        stem:
            ``"cifar"``: a 3 x 3 convolution. ``"imagenet"``: a convolution and two reduction
            cells, an eighth of the resolution.
        stem_filters:
            Channels of the first convolution. By default an eighth of the width with the CIFAR
            stem, and 32 with the ImageNet stem, where 6 @ 4032 was published with 96.
        drop_path:
            Probability by which the last cell drops a path at the end of the training; earlier
            cells and epochs drop fewer, see :meth:`NASNetA.set_progress`. Published are 0.4 for
            CIFAR-10, 0.3 for 6 @ 4032 and 0 for 4 @ 1056.
        name:
            What reports call this space.

    Raises:
        InvalidSpace: An argument makes no network.

    Example:
        >>> space = nasnet(depth=[6], width=[768])  # NASNet-A (6 @ 768)
        >>> sum(p.numel() for p in space.build(space.shapes[0]).parameters())
        3346538
    """
    build = NASNet(tuple(input_shape), classes, stem, stem_filters, drop_path)
    space = DesignSpace(depth, width, build, input_shape=build.input_shape, name=name)
    reason = "six states of the last stack, whose filters are four times those of the first"
    if stem == "imagenet":
        reason += " and sixteen times those of the stem"
    check_multiples(space.widths, build.width_step, reason)
    return space
