from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from optuna_shape import Shape
from optuna_shape.families import mlp
from optuna_shape.train.heads import HEADS
from optuna_shape.train.heads import LogLikelihoodRatio
from optuna_shape.train.heads import Softmax

GENERATOR = torch.Generator().manual_seed(0)
OUTPUTS = 3 * torch.randn(50, 4, generator=GENERATOR, dtype=torch.float64)
TEACHER = 3 * torch.randn(50, 4, generator=GENERATOR, dtype=torch.float64)
CLASSES = torch.randint(0, 4, (50,), generator=GENERATOR)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_llr_loss_is_its_formula(smoothing: float) -> None:
    total = 0.0
    for z, y in zip(OUTPUTS.tolist(), CLASSES.tolist()):
        for c in range(4):
            target = (1 - smoothing) * (c == y) + smoothing / 4
            log_odds = z[c] - math.log(3)
            total += target * math.log1p(math.exp(-log_odds))
            total += (1 - target) * math.log1p(math.exp(log_odds))
    loss = LogLikelihoodRatio().loss(OUTPUTS, CLASSES, smoothing)
    assert loss.item() == pytest.approx(total / 50)


def test_outputs_of_the_llr_head_are_log_likelihood_ratios() -> None:
    """Of two normal classes at +-1, log p(x | c) - log p(x | not c) is 2 x for one, -2 x else."""
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(0, 2, (20_000,), generator=generator)
    x = torch.randn(20_000, 1, generator=generator) + (2 * classes[:, None] - 1)
    layer = torch.nn.Linear(1, 2)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=50)

    def closure() -> float:
        optimizer.zero_grad()
        loss = LogLikelihoodRatio().loss(layer(x), classes, 0.0)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert layer.weight.flatten().tolist() == pytest.approx([-2, 2], abs=0.1)
    assert layer.bias.tolist() == pytest.approx([0, 0], abs=0.1)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_where_nothing_is_known_every_class_is_as_likely(classes: int) -> None:
    for head in HEADS.values():
        probabilities = head.probabilities(torch.zeros(5, classes))
        torch.testing.assert_close(probabilities, torch.full((5, classes), 1 / classes))


def test_a_shift_of_all_outputs_is_free_of_softmax_only() -> None:
    soft, llr = Softmax(), LogLikelihoodRatio()
    shifted = OUTPUTS + 5
    torch.testing.assert_close(soft.loss(OUTPUTS, CLASSES, 0), soft.loss(shifted, CLASSES, 0))
    assert llr.loss(shifted, CLASSES, 0) > llr.loss(OUTPUTS, CLASSES, 0) + 1


@pytest.mark.parametrize("name", HEADS)
def test_the_most_probable_class_has_the_largest_output(name: str) -> None:
    probabilities = HEADS[name].probabilities(OUTPUTS)
    assert torch.equal(probabilities.argmax(1), OUTPUTS.argmax(1))
    assert ((probabilities > 0) & (probabilities < 1)).all()


@pytest.mark.parametrize("name", HEADS)
@given(temperature=st.floats(1, 20))
def test_the_divergence_is_that_of_the_probabilities(name: str, temperature: float) -> None:
    head = HEADS[name]
    if name == "softmax":
        p, q = (F.softmax(z / temperature, dim=1) for z in (TEACHER, OUTPUTS))
        expected = (p * (p / q).log()).sum(1).mean()
    else:
        p, q = (((z - math.log(3)) / temperature).sigmoid() for z in (TEACHER, OUTPUTS))
        both = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        expected = both.sum(1).mean()
    torch.testing.assert_close(head.divergence(OUTPUTS, TEACHER, temperature), expected)
    assert head.divergence(TEACHER, TEACHER, temperature).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_gradients_of_extreme_outputs_are_finite(name: str, scale: float) -> None:
    outputs = (scale * OUTPUTS.float()).requires_grad_()
    HEADS[name].loss(outputs, CLASSES, 0.1).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


@pytest.mark.parametrize("name", HEADS)
def test_a_network_trained_by_a_head_keeps_its_promises(name: str) -> None:
    """Of four normal classes at the corners of a square."""
    generator = torch.Generator().manual_seed(2)
    classes = torch.randint(0, 4, (400,), generator=generator)
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    x = 2 * corners[classes] + torch.randn(400, 2, generator=generator)
    torch.manual_seed(0)
    model = mlp([1], [8], input_shape=(2,), classes=4).build(Shape(1, 8))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = HEADS[name].loss(model(x), classes, 0.0)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        outputs = model(x).double()  # In 32 bits, some probabilities round to 1.
    probabilities = HEADS[name].probabilities(outputs)
    told = probabilities.argmax(dim=1)
    assert torch.equal(told, outputs.argmax(dim=1))
    assert (told == classes).double().mean() > 0.9
    assert ((probabilities > 0) & (probabilities < 1)).all()
    # They are probabilities: the class told is right as often as it is said to be.
    top = probabilities.max(dim=1).values.mean().item()
    assert top == pytest.approx((told == classes).double().mean().item(), abs=0.05)
    sums = probabilities.sum(dim=1)
    if name == "softmax":
        torch.testing.assert_close(sums, torch.ones(400, dtype=torch.double))
    else:
        assert (sums - 1).abs().max() > 0.01, "each class is judged by itself"
