"""Softmax against log-likelihood ratios, with and without decay: do weights explode, and overfit?

    python benchmarks/heads.py --data-root DIR    # an hour on a busy core
    python benchmarks/heads.py --summary          # figures of what is there

[Liang2021]_ say that (a) the normalisation of softmax may be a major cause of parameter explosion,
that (b) log-likelihood ratios in the output layer reduce overfitting, and that (c) so do weight
decay and structural regularisation. Only their abstract was at hand, so this tests our reading of
it (:mod:`optuna_shape.train.heads`): both heads, each ``plain``, with ``weight`` decay, with
``group`` decay, and with ``both``. There is no label smoothing, which bounds outputs by itself,
and no augmentation, so that there is something to overfit. The digits are no subject: their
validation images are distorted, and training images that are not differ by more than chance.

Fairness. Both heads of a network have the same learning rate and the same group decay. First the
rate, of the optimizer's usual one, its half and its quarter: the best final validation accuracy of
``plain``, mean over heads and pilot seeds; then so the group decay, of :data:`GROUP_DECAYS`, at
that rate. Pilot seeds are not seeds of the comparison. Weight decay is the optimizer's usual one.
A rate for each head was tried first, and given up: by a single image of validation accuracy, the
pilot picked rates for the heads of a perceptron that differ fourfold, and norms follow the rate
more than the head. As a rate may suit one head better, the heads are compared at each rate of the
pilot as well.

Measures, on the validation set after the last epoch unless they say otherwise:

* ``gap`` is accuracy on the training set less that on the validation set. ``loss`` is the head's
  own, a different thing for each; ``nll``, the mean negative log of the normalised probability of
  the true class, means the same for both.
* ``ece`` [Guo2017]_ and ``brier`` [Brier1950]_ are of the probabilities as the head states them,
  those of log-likelihood ratios not summing to 1; ``..._normalised`` is after dividing by the sum.
* ``last_norm`` is the Frobenius norm of the last layer's weights, ``other_norm`` that of all other
  weights together; biases and normalisations are not counted. The outputs of the residual
  networks do not depend on the scale of the other weights, which are normalised, but for rounding.
* ``largest_output`` is the largest absolute output, ``empty`` the share of output channels before
  the last layer whose weights are all exactly zero.

Every training is a row of the CSV, written at once; run again, it goes on. Its curves begin with
the untrained network. Beside it: the summary with means and standard errors over seeds; the
differences between methods, paired by seed as weights and batches are the same, with 95 %
intervals of Student's t and no correction for their number; and a PNG of the means over seeds.

.. [Liang2021] Liang, Yi, Liu. On the efficiency of deep neural networks. 2021. OpenReview
   TlPNpabaoV.
.. [Guo2017] Guo, Pleiss, Sun, Weinberger. On calibration of modern neural networks. ICML 2017.
   With 15 bins of equal width.
.. [Brier1950] Brier. Verification of forecasts expressed in terms of probability. Mon. Weather
   Rev. 78, 1950. Of all classes, from 0 to 2.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields
from itertools import product
from pathlib import Path

import plotly.graph_objects as go
import tables
import torch
from plotly.subplots import make_subplots
from scipy import stats
from torch import nn

from optuna_shape import Shape
from optuna_shape.families import FAMILIES
from optuna_shape.train.data import Data
from optuna_shape.train.data import load
from optuna_shape.train.heads import HEADS
from optuna_shape.train.recipe import Recipe
from optuna_shape.train.recipe import decayed_weights
from optuna_shape.train.trainer import train

RESULTS = Path(__file__).parent / "results"
NETWORKS = "mlp:3x256:adamw,mlp:3x256:sgd,resnet:1x8:adamw"
REGULARISATIONS = ("plain", "weight", "group", "both")
CHOICE, COMPARISON = "choice", "comparison"
#: Of the optimizer's usual learning rate.
RATES = (1.0, 0.5, 0.25)
#: AdamW divides gradients by their size, and group decay acts beside them: other units.
GROUP_DECAYS = {"adamw": (0.003, 0.01, 0.03), "sgd": (0.0001, 0.0003, 0.001)}


# What is measured.


def calibration_error(probabilities: torch.Tensor, classes: torch.Tensor, bins: int = 15) -> float:
    """Expected calibration error of the largest probability, in bins of equal width.

    With the images of bin ``b``, their accuracy and their mean largest probability, it is the sum
    over bins of ``|b| / n |accuracy(b) - probability(b)|``. A bin includes its upper end.

    Args:
        probabilities: ``(n, c)`` tensor; rows need not sum to 1.
        classes: ``(n,)`` int64 tensor of the true classes.
        bins: How many.
    """
    top, told = probabilities.double().max(dim=1)
    index = ((top * bins).ceil() - 1).clamp(0, bins - 1).long()
    excess = (told == classes).double() - top
    return float(excess.new_zeros(bins).index_add(0, index, excess).abs().sum() / len(classes))


def brier_score(probabilities: torch.Tensor, classes: torch.Tensor) -> float:
    """Mean over images of the sum over classes of squared errors, from 0 to 2 if rows sum to 1."""
    truth = nn.functional.one_hot(classes, probabilities.shape[1])
    return float((probabilities.double() - truth).square().sum(dim=1).mean())


def normalised(probabilities: torch.Tensor) -> torch.Tensor:
    """Probabilities whose rows sum to 1, alike where all of a row are 0 to the last digit."""
    positive = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny)
    return positive / positive.sum(dim=1, keepdim=True)


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    """All weights that a recipe decays, the last layer's at the end."""
    return [weight.detach() for weight in decayed_weights(model)]


def norm(weights: Iterable[torch.Tensor]) -> float:
    """Root of the sum of squares of all entries."""
    return math.sqrt(sum(float(weight.double().square().sum()) for weight in weights))


def empty_share(weights: Iterable[torch.Tensor]) -> float:
    """Share of output channels, the rows of weights, that are exactly zero; NaN without any."""
    empty = [row for weight in weights for row in (weight.flatten(1) == 0).all(dim=1).tolist()]
    return statistics.fmean(empty) if empty else math.nan


@torch.inference_mode()
def outputs_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Outputs of a network in evaluation mode, in double precision, whatever its own."""
    return torch.cat([model(batch) for batch in images.split(500)]).double()


@dataclass(frozen=True)
class Fit:
    """How well outputs fit classes.

    Attributes:
        accuracy: Share of images whose class is told.
        loss: The head's own, without smoothing.
        nll: Mean negative log of the normalised probability of the true class.
        probabilities: As the head states them, ``(n, c)``.
    """

    accuracy: float
    loss: float
    nll: float
    probabilities: torch.Tensor


def fit_of(outputs: torch.Tensor, classes: torch.Tensor, head: str) -> Fit:
    probabilities = HEADS[head].probabilities(outputs)
    true = normalised(probabilities).gather(1, classes[:, None])
    return Fit(
        float((outputs.argmax(dim=1) == classes).double().mean()),
        float(HEADS[head].loss(outputs, classes, 0.0)),
        float(-true.log().mean()),
        probabilities,
    )


# A training, and how it went.


@dataclass(frozen=True)
class Setting:
    """Which training: what tells rows apart.

    Attributes:
        part: ``"choice"`` of learning rate and group decay, or ``"comparison"``.
        data: Name of the data.
        family: Of the network.
        shape: Of the network, ``depth x width``.
        optimizer: Of the recipe.
        head: Of the recipe.
        regularisation: One of :data:`REGULARISATIONS`.
        learning_rate: Of the recipe.
        weight_decay: Of the recipe.
        group_decay: Of the recipe.
        seed: Of weights and the order of images.
        epochs: How many.
    """

    part: str
    data: str
    family: str
    shape: str
    optimizer: str
    head: str
    regularisation: str
    learning_rate: float
    weight_decay: float
    group_decay: float
    seed: int
    epochs: int

    @property
    def network(self) -> tuple[str, str, str, str]:
        """What methods are compared within."""
        return self.data, self.family, self.shape, self.optimizer

    @property
    def recipe(self) -> Recipe:
        return Recipe.usual(
            self.optimizer,
            head=self.head,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            group_decay=self.group_decay,
            label_smoothing=0.0,
        )


@dataclass(frozen=True)
class Row(Setting):
    """A training; see the module for what is measured. NaN throughout if it diverged.

    Attributes:
        seconds: Wall time, on a shared machine.
        accuracies: Validation accuracy before the training and after each epoch, as all curves.
        train_accuracies: The same of the training set.
        last_norms: Of the last layer's weights.
        other_norms: Of all other weights.
        largest_outputs: Largest absolute outputs.
    """

    accuracy: float
    best_accuracy: float
    train_accuracy: float
    gap: float
    loss: float
    train_loss: float
    loss_gap: float
    nll: float
    train_nll: float
    nll_gap: float
    ece: float
    ece_normalised: float
    brier: float
    brier_normalised: float
    empty: float
    last_norm: float
    other_norm: float
    largest_output: float
    seconds: float
    accuracies: str
    train_accuracies: str
    last_norms: str
    other_norms: str
    largest_outputs: str

    @property
    def setting(self) -> Setting:
        return Setting(**{f.name: getattr(self, f.name) for f in fields(Setting)})


CURVES = ("accuracies", "train_accuracies", "last_norms", "other_norms", "largest_outputs")
MEASURES = tuple(
    f.name for f in fields(Row)[len(fields(Setting)) :] if f.name not in (*CURVES, "seconds")
)
#: Of these, ratios are compared.
SCALES = ("last_norm", "other_norm", "largest_output")


def measure(model: nn.Module, data: Data, head: str) -> dict[str, float]:
    """What a trained network in evaluation mode amounts to, whatever its training was like."""
    seen = fit_of(outputs_of(model, data.train_x), data.train_y, head)
    held = fit_of(outputs_of(model, data.validation_x), data.validation_y, head)
    one = normalised(held.probabilities)
    return {
        "accuracy": held.accuracy,
        "train_accuracy": seen.accuracy,
        "gap": seen.accuracy - held.accuracy,
        "loss": held.loss,
        "train_loss": seen.loss,
        "loss_gap": held.loss - seen.loss,
        "nll": held.nll,
        "train_nll": seen.nll,
        "nll_gap": held.nll - seen.nll,
        "ece": calibration_error(held.probabilities, data.validation_y),
        "ece_normalised": calibration_error(one, data.validation_y),
        "brier": brier_score(held.probabilities, data.validation_y),
        "brier_normalised": brier_score(one, data.validation_y),
        "empty": empty_share(weights_of(model)[:-1]),
    }


def train_row(setting: Setting, data: Data) -> Row:
    """Train a network and return how it went."""
    depth, width = map(int, setting.shape.split("x"))
    space = FAMILIES[setting.family](
        [depth], [width], input_shape=tuple(data.train_x.shape[1:]), classes=data.classes
    )
    torch.manual_seed(setting.seed)
    model = space.build(Shape(depth, width)).eval()
    curves: dict[str, list[float]] = {name: [] for name in CURVES}

    def watch(*_: object) -> None:
        *others, last = weights_of(model)
        outputs = outputs_of(model, data.validation_x)
        told = outputs_of(model, data.train_x).argmax(dim=1)
        for name, value in (
            ("accuracies", (outputs.argmax(dim=1) == data.validation_y).double().mean()),
            ("train_accuracies", (told == data.train_y).double().mean()),
            ("last_norms", norm([last])),
            ("other_norms", norm(others)),
            ("largest_outputs", outputs.abs().max()),
        ):
            curves[name].append(float(value))

    begin = time.perf_counter()
    watch()
    final = train(
        model,
        data,
        epochs=setting.epochs,
        seed=setting.seed,
        report=watch,
        recipe=setting.recipe,
    )
    seconds = time.perf_counter() - begin
    if math.isnan(final):
        measured = dict.fromkeys(MEASURES, math.nan)
    else:
        measured = measure(model, data, setting.head) | {
            "best_accuracy": max(curves["accuracies"]),
            "last_norm": curves["last_norms"][-1],
            "other_norm": curves["other_norms"][-1],
            "largest_output": curves["largest_outputs"][-1],
        }
    texts = {name: " ".join(f"{value:.5g}" for value in values) for name, values in curves.items()}
    return Row(**asdict(setting), **measured, seconds=seconds, **texts)


# Which trainings there are.


def settings_of(
    network: tuple[str, str, str, str],
    head: str,
    *,
    regularisation: str = "plain",
    rate: float,
    group_decay: float = 0.0,
    seed: int,
    epochs: int,
    part: str,
) -> Setting:
    """The training of a method; what the regularisation leaves out is 0."""
    usual = Recipe.usual(network[-1])
    return Setting(
        part,
        *network,
        head,
        regularisation,
        rate,
        usual.weight_decay if regularisation in ("weight", "both") else 0.0,
        group_decay if regularisation in ("group", "both") else 0.0,
        seed,
        epochs,
    )


def choose(
    network: tuple[str, str, str, str],
    heads: Sequence[str],
    seeds: Sequence[int],
    epochs: int,
    accuracy: Callable[[Setting], float],
) -> tuple[float, float]:
    """The learning rate and the group decay of all heads; see the module.

    Args:
        network: Data, family, shape and optimizer.
        heads: Names of the heads.
        seeds: The pilot seeds.
        epochs: Of each training.
        accuracy: Trains, and returns the final validation accuracy; NaN, a divergence, is worst.
    """

    def mean(regularisation: str, rate: float, group_decay: float) -> float:
        value = statistics.fmean(
            accuracy(
                settings_of(
                    network,
                    head,
                    regularisation=regularisation,
                    rate=rate,
                    group_decay=group_decay,
                    seed=seed,
                    epochs=epochs,
                    part=CHOICE,
                )
            )
            for head, seed in product(heads, seeds)
        )
        return -math.inf if math.isnan(value) else value

    usual = Recipe.usual(network[-1]).learning_rate
    rate = max((factor * usual for factor in RATES), key=lambda rate: mean("plain", rate, 0.0))
    decays = GROUP_DECAYS[network[-1]]
    return rate, max(decays, key=lambda group_decay: mean("group", rate, group_decay))


# What it comes to.


def summarise(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Of each method of each network, mean and standard error over seeds of all measures."""
    methods: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.part == COMPARISON:
            rates = (row.learning_rate, row.weight_decay, row.group_decay)
            methods.setdefault(
                (*row.network, row.head, row.regularisation, *rates, row.epochs), []
            ).append(row)
    columns = ("data", "family", "shape", "optimizer", "head", "regularisation")
    columns += ("learning_rate", "weight_decay", "group_decay", "epochs")
    result = []
    for method, own in methods.items():
        line: dict[str, object] = {**dict(zip(columns, method)), "seeds": len(own)}
        for name in MEASURES:
            mean, error = _mean([getattr(row, name) for row in own])
            line |= {name: f"{mean:.5g}", f"{name}_error": f"{error:.2g}"}
        for curve in ("last_norms", "other_norms"):
            growth = [values[-1] / values[0] for values in (curve_of(r, curve) for r in own)]
            line[curve.replace("norms", "growth")] = f"{_mean(growth)[0]:.4g}"
        result.append(line)
    return result


def differences(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Methods against others, paired by seed: differences, of norms and outputs ratios.

    ``llr`` against ``softmax`` for each regularisation, and each regularisation against ``plain``
    for each head; ``low`` and ``high`` end the 95 % interval of the mean. Then ``llr`` against
    ``softmax`` at each learning rate of the pilot, by its trainings.
    """
    found: dict[tuple[object, ...], dict[tuple[str, str], dict[int, Row]]] = {}
    for row in rows:
        if row.part == COMPARISON or row.regularisation == "plain":
            rate = f" at {row.learning_rate:g}" if row.part == CHOICE else ""
            methods = found.setdefault(row.network, {})
            methods.setdefault((row.head, row.regularisation + rate), {})[row.seed] = row
    result: list[dict[str, object]] = []
    for network, methods in found.items():
        kinds = [*REGULARISATIONS, *sorted({r for _, r in methods} - {*REGULARISATIONS})]
        pairs = [(("llr", r), ("softmax", r)) for r in kinds]
        pairs += [((h, r), (h, "plain")) for h, r in product(HEADS, REGULARISATIONS[1:])]
        for a, b in pairs:
            own, other = methods.get(a, {}), methods.get(b, {})
            seeds = sorted(own.keys() & other.keys())
            for name in MEASURES if seeds else ():
                values = [(getattr(own[s], name), getattr(other[s], name)) for s in seeds]
                result.append(
                    {
                        **dict(zip(("data", "family", "shape", "optimizer"), network)),
                        "method": " ".join(a),
                        "against": " ".join(b),
                        "measure": name,
                        **_compare(values, ratio=name in SCALES),
                        "seeds": len(seeds),
                    }
                )
    return result


def _compare(values: Sequence[tuple[float, float]], *, ratio: bool) -> dict[str, str]:
    """Mean of differences, or geometric mean of ratios, with its 95 % interval."""
    mean, error = _mean([math.log(a / b) if ratio else a - b for a, b in values])
    reach = error * float(stats.t.ppf(0.975, len(values) - 1)) if len(values) > 1 else math.nan
    ends = [math.exp(x) if ratio else x for x in (mean, mean - reach, mean + reach)]
    return {
        "kind": "ratio" if ratio else "difference",
        **{name: f"{end:.4g}" for name, end in zip(("mean", "low", "high"), ends)},
    }


def curve_of(row: Row, name: str) -> list[float]:
    return [float(value) for value in getattr(row, name).split()]


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


# Files.


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    convert: dict[str, Callable[[str], object]] = {"int": int, "float": float, "str": str}
    with path.open(newline="") as file:
        return [
            Row(**{f.name: convert[str(f.type)](line[f.name]) for f in fields(Row)})  # type: ignore[arg-type]
            for line in csv.DictReader(file)
        ]


def append(path: Path, row: Row) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        if new:
            writer.writeheader()
        numbers = {name: f"{getattr(row, name):.6g}" for name in MEASURES}
        writer.writerow({**asdict(row), **numbers, "seconds": f"{row.seconds:.3g}"})


def write(path: Path, lines: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


# The plot.

_COLOURS = dict(zip(REGULARISATIONS, ("#d62728", "#1f77b4", "#2ca02c", "#7f7f7f")))
_LABELS = dict(zip(REGULARISATIONS, ("plain", "weight decay", "group decay", "both")))
_PANELS = (
    "norm of the last layer",
    "norm of the other weights",
    "largest output",
    "training less validation accuracy",
    "validation accuracy",
)
_TICKS = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 1.5, 2, 3, 4, 6, 8)]


def plot(rows: Iterable[Row]) -> go.Figure:
    """Means over seeds after each epoch, a row of panels for each network."""
    methods: dict[tuple[str, str, str, str], dict[tuple[str, str], list[Row]]] = {}
    for row in rows:
        if row.part == COMPARISON and not math.isnan(row.accuracy):
            of_network = methods.setdefault(row.network, {})
            of_network.setdefault((row.head, row.regularisation), []).append(row)
    figure = make_subplots(
        len(methods),
        len(_PANELS),
        column_titles=list(_PANELS),
        row_titles=[f"{f} {s}, {o}" for _, f, s, o in methods],
        shared_xaxes=True,
        horizontal_spacing=0.045,
        vertical_spacing=0.05,
    )
    named = set()
    for index, of_network in enumerate(methods.values(), start=1):
        for (head, regularisation), own in of_network.items():
            curves = {
                name: torch.tensor([curve_of(row, name) for row in own], dtype=torch.double)
                for name in CURVES
            }
            panels = (
                curves["last_norms"],
                curves["other_norms"],
                curves["largest_outputs"],
                curves["train_accuracies"] - curves["accuracies"],
                curves["accuracies"],
            )
            name = f"{head}, {_LABELS[regularisation]}"
            line = {"color": _COLOURS[regularisation], "width": 1.7}
            for column, values in enumerate(panels, start=1):
                figure.add_scatter(
                    x=list(range(values.shape[1])),
                    y=values.mean(dim=0).tolist(),
                    mode="lines",
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1 and name not in named,
                    line={**line, "dash": "dash" if head == "llr" else "solid"},
                    row=index,
                    col=column,
                )
            named.add(name)
        for column in (1, 2, 3):
            figure.update_yaxes(type="log", tickvals=_TICKS, row=index, col=column)
        for column in (4, 5):
            figure.update_yaxes(tickformat=".0%", row=index, col=column)
        # What they all learn in the first epochs would hide what comes after.
        trained = [row for own in of_network.values() for row in own]
        low, high = _range(trained, "largest_outputs", skip=1)
        margin = (high / low) ** 0.05
        logs = [math.log10(low / margin), math.log10(high * margin)]
        figure.update_yaxes(range=logs, row=index, col=3)
        low, high = _range(trained, "accuracies", skip=trained[0].epochs // 3)
        margin = (high - low) / 20
        figure.update_yaxes(range=[low - margin, high + margin], row=index, col=5)
    figure.update_xaxes(title="epoch", row=len(methods))
    figure.update_layout(
        template="plotly_white",
        width=1400,
        height=140 + 250 * len(methods),
        margin={"t": 40, "b": 110, "l": 40, "r": 40},
        legend={"orientation": "h", "yanchor": "top", "yref": "container", "y": 0.07, "x": 0.05},
    )
    return figure


def _range(rows: Iterable[Row], curve: str, *, skip: int) -> tuple[float, float]:
    """Least and largest value after some epochs."""
    values = [value for row in rows for value in curve_of(row, curve)[skip:]]
    return min(values), max(values)


def write_plot(path: Path, figure: go.Figure) -> Path:
    """Write a PNG, or a page where there is no browser to draw it."""
    try:
        figure.write_image(path, scale=2)
    except Exception as error:  # Whatever kaleido and the browser may raise.
        print(f"no PNG, {type(error).__name__}: {str(error)[:80]}")
        path = path.with_suffix(".html")
        figure.write_html(path, include_plotlyjs="cdn")
    return path


# The script.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--data-root", type=Path, help="folder of torchvision's data sets")
    parser.add_argument("--networks", default=NETWORKS, help="family:shape:optimizer,...")
    parser.add_argument("--heads", default=",".join(HEADS), help="comma-separated")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", default="0,1,2,3,4", help="comma-separated")
    parser.add_argument("--pilot-seeds", default="100", help="comma-separated")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-plot", action="store_true", help="draw nothing")
    parser.add_argument("--summary", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "heads.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seeds, pilots = (
        [int(seed) for seed in text.split(",")]
        for text in (arguments.seeds, arguments.pilot_seeds)
    )
    if set(seeds) & set(pilots):
        parser.error("Pilot seeds choose the settings; compare with others.")
    out = arguments.out
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = read(out)

    if not arguments.summary:
        data = dataclasses.replace(load(arguments.data, root=arguments.data_root), augment=None)
        done = {row.setting: row for row in rows}

        def run(setting: Setting) -> Row:
            if setting not in done:
                row = train_row(setting, data)
                append(out, row)
                rows.append(row)
                done[setting] = row
                print(
                    f"{setting.part} {' '.join(setting.network)} {setting.head} "
                    f"{setting.regularisation} rate {setting.learning_rate:g} group decay "
                    f"{setting.group_decay:g} seed {setting.seed}: {row.accuracy:.4f}, gap "
                    f"{row.gap:.4f}, in {row.seconds:.0f} s",
                    flush=True,
                )
            return done[setting]

        heads = arguments.heads.split(",")
        chosen = {}
        for text in arguments.networks.split(","):
            network = (data.name, *text.split(":"))
            chosen[network] = choose(
                network, heads, pilots, arguments.epochs, lambda setting: run(setting).accuracy
            )
        tables.write_provenance(
            out,
            tables.provenance(
                training_images=len(data.train_x),
                validation_images=len(data.validation_x),
                image=list(data.train_x.shape[1:]),
                augmentation=None,
                epochs=arguments.epochs,
                pilot_seeds=pilots,
                chosen=[
                    {"network": " ".join(n), "learning_rate": rate, "group_decay": group}
                    for n, (rate, group) in chosen.items()
                ],
            ),
        )
        # Seed by seed, so that an interruption leaves all methods.
        for seed, (network, (rate, group)), regularisation, head in product(
            seeds, chosen.items(), REGULARISATIONS, heads
        ):
            run(
                settings_of(
                    network,
                    head,
                    regularisation=regularisation,
                    rate=rate,
                    group_decay=group,
                    seed=seed,
                    epochs=arguments.epochs,
                    part=COMPARISON,
                )
            )

    rows = read(out)  # As the file rounds them, run again or not.
    summary, compared = summarise(rows), differences(rows)
    for suffix, lines in (("summary", summary), ("differences", compared)):
        if lines:
            write(out.with_name(f"{out.stem}-{suffix}.csv"), lines)
    for line in summary:
        print("  ".join(f"{name} {value}" for name, value in line.items()))
    if summary and not arguments.no_plot:
        print(f"written: {write_plot(out.with_suffix('.png'), plot(rows))}")


if __name__ == "__main__":
    main()
