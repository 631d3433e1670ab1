"""Knowledge transfer: what a network inherits, and how a search hands it on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from optuna.distributions import IntDistribution
from torch import nn

from optuna_shape import DesignSpace
from optuna_shape import InvalidAccuracy
from optuna_shape import InvalidProblem
from optuna_shape import Shape
from optuna_shape import ShapeProblem
from optuna_shape.families import densenet
from optuna_shape.families import mlp
from optuna_shape.families import nasnet
from optuna_shape.families import resnet
from optuna_shape.families import vit
from optuna_shape.train.checkpoint import load_checkpoint
from optuna_shape.train.data import Data
from optuna_shape.train.data import digits
from optuna_shape.train.trainer import Teacher
from optuna_shape.train.trainer import train
from optuna_shape.train.transfer import INHERITED
from optuna_shape.train.transfer import PARENT
from optuna_shape.train.transfer import TEACHER
from optuna_shape.train.transfer import inherit
from optuna_shape.train.transfer import transfer
from optuna_shape.train.transfer.channels import Channels

IMAGE = (2, 8, 8)
DEPTHS, WIDTHS = range(1, 5), range(1, 40)
SEQUENCES: dict[str, DesignSpace] = {
    "plain": resnet(DEPTHS, WIDTHS, input_shape=IMAGE, classes=5),
    "bottleneck": resnet(DEPTHS, WIDTHS, input_shape=IMAGE, classes=5, variant="bottleneck"),
    "wide": resnet(DEPTHS, WIDTHS, input_shape=IMAGE, classes=5, variant="wide"),
    "densenet-bc": densenet(DEPTHS, WIDTHS, input_shape=IMAGE, classes=5),
    "densenet": densenet(DEPTHS, WIDTHS, input_shape=IMAGE, classes=5, bc=False),
    "mlp": mlp(DEPTHS, WIDTHS, input_shape=IMAGE, classes=5),
}


def trained(space: DesignSpace, shape: tuple[int, int], seed: int = 0) -> nn.Module:
    """A network whose every parameter and statistic differs from a fresh one's."""
    torch.manual_seed(seed)
    model = space.build(Shape(*shape))
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.normal_(1.0 if name.endswith("weight") else 0.0, 0.3)
        elif tensor.is_floating_point():
            tensor.normal_(0.0, max(1, tensor[0].numel()) ** -0.5)
    return model.eval()


def outputs(model: nn.Module, image: tuple[int, ...] = IMAGE, training: bool = False) -> Any:
    x = torch.randn(6, *image, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.train(training)(x)


def assert_inherits_function(
    space: DesignSpace, parent: tuple[int, int], child: tuple[int, int], *, training: bool = True
) -> nn.Module:
    source, heir = trained(space, parent), trained(space, child, seed=1)
    assert inherit(heir, source) == "function"
    assert space.input_shape is not None
    for mode in (False, True)[: 1 + training]:
        expected = outputs(source, space.input_shape, mode)
        found = outputs(heir, space.input_shape, mode)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())
    return heir


# Functions are preserved.


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize(
    ("parent", "child"),
    [((2, 6), (2, 15)), ((1, 6), (3, 6)), ((2, 3), (4, 11)), ((2, 17), (3, 24)), ((2, 5), (2, 5))],
    ids=["wider", "deeper", "both", "wide-both", "same"],
)
def test_a_larger_network_computes_what_its_parent_computes(
    name: str, parent: tuple[int, int], child: tuple[int, int]
) -> None:
    assert_inherits_function(SEQUENCES[name], parent, child)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(SEQUENCES)),
    depth=st.integers(1, 3),
    width=st.integers(1, 8),
    deeper=st.integers(0, 1),
    wider=st.integers(0, 8),
)
def test_any_larger_network_computes_what_its_parent_computes(
    name: str, depth: int, width: int, deeper: int, wider: int
) -> None:
    assert_inherits_function(SEQUENCES[name], (depth, width), (depth + deeper, width + wider))


@pytest.mark.parametrize("variant", ["plain", "bottleneck"])
def test_residual_networks_with_the_imagenet_stem(variant: Any) -> None:
    space = resnet([1, 2], [3, 5], input_shape=(3, 32, 32), variant=variant, stem="imagenet")
    assert_inherits_function(space, (1, 3), (2, 5))


def test_a_narrow_wide_network_has_no_shortcut_to_hand_on() -> None:
    space = SEQUENCES["wide"]  # Its stem has 16 channels.
    assert_inherits_function(space, (1, 9), (2, 16))
    heir = trained(space, (2, 20))
    assert inherit(heir, trained(space, (2, 9))) == "overlap"
    assert outputs(heir).isfinite().all()


@pytest.mark.parametrize("stem_filters", [None, 7])
def test_nasnet_of_the_same_depth(stem_filters: int | None) -> None:
    space = nasnet(
        [1, 2, 3], [24, 48, 72, 120], input_shape=IMAGE, classes=5, stem_filters=stem_filters
    )
    # Training drops paths by chance.
    assert_inherits_function(space, (2, 24), (2, 72), training=False)
    assert_inherits_function(space, (1, 48), (1, 120), training=False)


@pytest.mark.parametrize("image", [(3, 8, 8), (2, 8, 6)])
def test_vision_transformers_of_a_multiple_of_the_width(image: tuple[int, ...]) -> None:
    space = vit([1, 2, 4], [4, 8, 12, 24], input_shape=image, classes=5, patch_size=2, head_size=4)
    assert_inherits_function(space, (1, 4), (1, 12))
    assert_inherits_function(space, (2, 8), (4, 24))
    heir = trained(space, (2, 12))
    assert inherit(heir, trained(space, (2, 8))) == "overlap"


def test_replicas_learn_different_things() -> None:
    heir = assert_inherits_function(SEQUENCES["mlp"], (1, 4), (1, 8))
    first = heir[1].weight  # type: ignore[index]
    assert torch.equal(first[:4], first[4:])
    x, y = torch.randn(32, *IMAGE), torch.randint(5, (32,))
    F.cross_entropy(heir(x), y).backward()
    gradients = first.grad
    # Not in proportion either, which Adam would not tell apart.
    ratios = gradients[:4] / gradients[4:]
    assert ratios.std(dim=1).min() > 0.01


def test_added_layers_learn_from_the_first_step_on() -> None:
    for name in ("plain", "wide", "densenet", "mlp"):
        heir = assert_inherits_function(SEQUENCES[name], (1, 4), (2, 4)).train()
        before = {key: tensor.clone() for key, tensor in heir.state_dict().items()}
        optimizer = torch.optim.SGD(heir.parameters(), lr=0.1)
        for _ in range(2):  # What was zero lets nothing behind it learn in the first step.
            optimizer.zero_grad()
            F.cross_entropy(heir(torch.randn(16, *IMAGE)), torch.randint(5, (16,))).backward()
            optimizer.step()
        after = heir.state_dict()
        assert [key for key in before if torch.equal(before[key], after[key])] == []


def test_the_same_seed_gives_the_same_child() -> None:
    space = SEQUENCES["plain"]
    children = [trained(space, (2, 9), seed=1) for _ in range(3)]
    for child, seed in zip(children, (0, 0, 1)):
        inherit(child, trained(space, (2, 4)), seed=seed)
    first, second, third = (child.state_dict() for child in children)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)


# Overlap.


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize(
    ("parent", "child"), [((3, 12), (1, 5)), ((3, 5), (1, 9)), ((1, 9), (3, 5))]
)
def test_a_smaller_network_gets_what_it_has_a_place_for(
    name: str, parent: tuple[int, int], child: tuple[int, int]
) -> None:
    source, heir = trained(SEQUENCES[name], parent), trained(SEQUENCES[name], child, seed=1)
    assert inherit(heir, source) == "overlap"
    ours, theirs = next(heir.parameters()), next(source.parameters())
    common = min(len(ours), len(theirs))
    assert torch.equal(ours[:common], theirs[:common])
    assert outputs(heir).isfinite().all()


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
)
def test_nasnets_and_transformers_of_all_shapes(p: tuple[int, int], c: tuple[int, int]) -> None:
    for space, unit in (
        (nasnet([1, 2, 3], [24, 48, 72, 96], input_shape=IMAGE, stem_filters=2), 24),
        (vit([1, 2, 3], [4, 8, 12, 16], input_shape=IMAGE, patch_size=4, head_size=4), 4),
    ):
        source, heir = (trained(space, (depth, unit * width)) for depth, width in (p, c))
        how = inherit(heir, source)
        expected = outputs(source)
        if how == "function":
            torch.testing.assert_close(outputs(heir), expected, rtol=1e-4, atol=1e-4)
        assert outputs(heir).isfinite().all()


class OwnNetwork(nn.Module):
    """A network of a user's own, of which nothing is known but its names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(3, width)
        self.last = nn.Linear(width, 2)


def test_networks_of_ones_own_overlap_by_name() -> None:
    heir, source = OwnNetwork(5), OwnNetwork(3)
    fresh = heir.first.weight[3:].clone()
    assert inherit(heir, source) == "overlap"
    assert torch.equal(heir.first.weight[:3], source.first.weight)
    assert torch.equal(heir.first.weight[3:], fresh)
    assert torch.equal(heir.last.weight[:, :3], source.last.weight)


def test_a_sequence_of_ones_own_is_not_taken_for_a_family() -> None:
    def build(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(2, width, 3), nn.Flatten(), nn.Linear(36 * width, 5))

    heir, source = build(5), build(3)
    assert inherit(heir, source) == "overlap"
    assert torch.equal(heir[2].weight[:, :108], source[2].weight)


# Refusals.


@pytest.mark.parametrize(
    "other",
    [
        SEQUENCES["mlp"],
        SEQUENCES["densenet"],
        SEQUENCES["wide"],
        SEQUENCES["bottleneck"],
        resnet(DEPTHS, WIDTHS, input_shape=IMAGE, classes=6),
        resnet(DEPTHS, WIDTHS, input_shape=(1, 8, 8), classes=5),
        nasnet([1], [8 * 24], input_shape=IMAGE, classes=5),
        vit([1], [8], input_shape=IMAGE, classes=5, head_size=8),
    ],
    ids=["mlp", "densenet", "wide", "bottleneck", "classes", "colours", "nasnet", "vit"],
)
def test_another_family_is_refused_and_nothing_changes(other: DesignSpace) -> None:
    heir = trained(SEQUENCES["plain"], (2, 8))
    before = {key: tensor.clone() for key, tensor in heir.state_dict().items()}
    with pytest.raises(InvalidProblem, match="differ in more than depth and width"):
        inherit(heir, trained(other, other.shapes[0]))
    assert all(torch.equal(before[key], tensor) for key, tensor in heir.state_dict().items())


def test_networks_without_a_name_in_common_are_refused() -> None:
    with pytest.raises(InvalidProblem, match="same names"):
        inherit(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)))


# Channels.


@given(st.integers(1, 12), st.integers(1, 12))
def test_shares_divide_what_the_parent_has(child: int, parent: int) -> None:
    channels = Channels.joined([Channels.spread(child, parent), Channels.new(2)])
    shares = channels.shares(4, torch.Generator().manual_seed(0))
    assert (shares[:, -2:] == 0).all()
    for source in range(min(child, parent)):
        total = shares[:, channels.sources == source].sum(dim=1)
        torch.testing.assert_close(total, torch.ones(4))
    assert channels.complete == (child >= parent)


# Searches.

SPACE = mlp([1, 2, 3], [4, 8, 16], input_shape=(1, 8, 8))


@pytest.fixture(scope="module")
def data() -> Data:
    return digits(seed=0)


def transferred(train: Callable[..., float], **options: Any) -> Callable[..., float]:
    """A wrapped loop that inherits across all shapes, unless the options say otherwise."""
    return transfer(train, **{"reach": 100.0, **options})


def search(
    train: Callable[..., float],
    shapes: list[tuple[int, int]],
    networks: DesignSpace = SPACE,
    **options: Any,
) -> optuna.Study:
    """Train these shapes one after the other, with transfer."""
    problem = ShapeProblem(networks, "accuracy")
    study = optuna.create_study(direction=problem.direction)
    return proceed(study, problem, train, shapes, **options)


def proceed(
    study: optuna.Study,
    problem: ShapeProblem,
    train: Callable[..., float],
    shapes: list[tuple[int, int]],
    **options: Any,
) -> optuna.Study:
    for depth, width in shapes:
        study.enqueue_trial({"depth": depth, "width": width})
    objective = problem.objective(transferred(train, **options))
    study.optimize(objective, n_trials=len(shapes), catch=(ZeroDivisionError,))
    return study


def attributes(study: optuna.Study, name: str) -> list[Any]:
    return [trial.user_attrs.get(name) for trial in study.trials]


def test_a_search_hands_on_what_it_learned(data: Data) -> None:
    space = mlp([1, 2], [16, 32], input_shape=tuple(data.train_x.shape[1:]))
    before: list[float] = []

    def fit(model: nn.Module, trial: optuna.Trial) -> float:
        torch.manual_seed(0)
        model.eval()
        with torch.no_grad():
            right = model(data.validation_x).argmax(dim=1) == data.validation_y
        before.append(float(right.float().mean()))
        return train(model, data, epochs=2, seed=0)

    study = search(fit, [(1, 16), (1, 32), (2, 32)], space)
    assert attributes(study, PARENT) == [None, 0, 1]
    assert attributes(study, INHERITED) == [None, "function", "function"]
    assert [trial.value for trial in study.trials[:2]] == pytest.approx(before[1:])


def one(_: nn.Module, trial: optuna.Trial) -> float:
    return 0.5 + trial.number / 100


def test_the_nearest_parent_whose_function_fits() -> None:
    shapes = [(3, 16), (1, 4), (1, 8), (2, 16), (2, 8), (3, 8)]
    # The first two fit no other: the larger one is all there is for (1, 4).
    assert attributes(search(one, shapes), PARENT) == [None, 0, 1, 2, 2, 4]
    assert attributes(search(one, shapes), INHERITED)[:3] == [None, "overlap", "function"]


def test_a_parent_that_is_much_smaller_or_larger_is_none() -> None:
    # Of 682, 1482, 754 and 310 parameters.
    shapes = [(2, 8), (2, 16), (3, 8), (1, 4)]
    assert attributes(search(one, shapes, reach=2.15), PARENT) == [None, None, 0, None]
    assert attributes(search(one, shapes, reach=2.2), PARENT) == [None, 0, 0, 0]
    with pytest.raises(InvalidProblem, match="no ratio"):
        transfer(one, reach=0.5)


def test_failed_and_cut_trainings_hand_nothing_on() -> None:
    def fit(_: nn.Module, trial: optuna.Trial) -> float:
        if trial.number == 0:
            raise ZeroDivisionError
        if trial.number == 1:
            raise optuna.TrialPruned
        return math.nan if trial.number == 2 else 0.5

    study = search(fit, [(1, 4), (1, 8), (2, 4), (2, 8), (3, 16)])
    assert attributes(study, PARENT) == [None, None, None, None, 3]


def test_a_training_that_was_interrupted_goes_on_as_it_began() -> None:
    problem = ShapeProblem(SPACE, "accuracy")
    study = optuna.create_study(direction=problem.direction)

    def fit(_: nn.Module, trial: optuna.Trial) -> float:
        trial.report(0.5, 1)
        if trial.number in (0, 3):
            raise KeyboardInterrupt
        return 0.5

    loop = problem.objective(transferred(fit))
    for number, shape in enumerate([(1, 8), (1, 4), (1, 8), (2, 16), (2, 8), (2, 16)]):
        study.enqueue_trial({"depth": shape[0], "width": shape[1]})
        with contextlib.suppress(KeyboardInterrupt):
            study.optimize(loop, n_trials=1)
        assert len(study.trials) == number + 1
    # Trials 2 and 5 go on with 0 and 3, though a nearer parent was trained meanwhile.
    assert attributes(study, PARENT) == [None, None, None, 2, 2, 2]


def test_a_shape_that_is_trained_again_does_not_repeat_itself() -> None:
    study = optuna.create_study(direction="maximize")
    loop = transferred(one)
    for depth, width in [(1, 4), (1, 8), (1, 8)]:
        study.enqueue_trial({"depth": depth, "width": width})
        trial = study.ask(dict.fromkeys(("depth", "width"), IntDistribution(1, 16)))
        accuracy = loop(SPACE.build(Shape(depth, width)), trial)
        trial.set_user_attr("accuracy", accuracy)
        study.tell(trial, accuracy)
    assert attributes(study, PARENT) == [None, 0, 0]


def test_a_loop_that_returns_no_accuracy_is_refused_as_ever() -> None:
    with pytest.raises(InvalidAccuracy, match="fraction"):
        search(lambda model, trial: None, [(1, 4)])


def test_studies_do_not_share_networks() -> None:
    problem = ShapeProblem(SPACE, "accuracy")
    loop = transferred(one)
    for _ in range(2):
        study = optuna.create_study(direction="maximize", study_name="the same name")
        study.enqueue_trial({"depth": 1, "width": 4})
        study.optimize(problem.objective(loop), n_trials=1)
        assert attributes(study, PARENT) == [None]


def test_a_search_that_is_resumed_finds_its_networks_in_a_folder(tmp_path: Path) -> None:
    problem = ShapeProblem(SPACE, "accuracy")
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    for shape in ((1, 4), (2, 8)):
        study = optuna.create_study(
            storage=storage, study_name="s", direction="maximize", load_if_exists=True
        )
        proceed(study, problem, one, [shape], folder=tmp_path / "networks")
    assert attributes(study, PARENT) == [None, 0]
    _, info = load_checkpoint(tmp_path / "networks" / "trial-1")
    assert info.shape == Shape(2, 8)
    assert info.properties == {"accuracy": 0.51}


def test_a_folder_of_another_study_hands_nothing_on(tmp_path: Path) -> None:
    search(one, [(1, 4)], folder=tmp_path)
    problem = ShapeProblem(SPACE, "accuracy")
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"depth": 1, "width": 4})
    study.optimize(problem.objective(lambda model, trial: 0.9), n_trials=1)
    proceed(study, problem, one, [(2, 8)], folder=tmp_path)
    assert attributes(study, PARENT) == [None, None]


def test_networks_of_ones_own_in_a_folder_need_their_space(tmp_path: Path) -> None:
    space = DesignSpace([1], [2, 3], lambda shape: OwnNetwork(shape.width))
    shapes = [(1, 2), (1, 3)]
    with pytest.raises(InvalidProblem, match="space=problem.space"):
        search(one, shapes, space, folder=tmp_path)
    for options in ({}, {"folder": tmp_path, "space": space}):
        assert attributes(search(one, shapes, space, **options), INHERITED) == [None, "overlap"]


# Distillation.


def test_the_best_network_so_far_teaches() -> None:
    teachers: list[Teacher | None] = []

    def fit(model: nn.Module, trial: optuna.Trial, *, teacher: Teacher | None) -> float:
        teachers.append(teacher)
        return [0.7, 0.9, 0.8, 0.8][trial.number]

    study = search(fit, [(1, 4), (1, 8), (2, 4), (3, 16)], distil=0.3)
    assert attributes(study, TEACHER) == [None, 0, 1, 1]
    assert teachers[0] is None
    assert all(teacher is not None and teacher.weight == 0.3 for teacher in teachers[1:])


def test_distillation_needs_a_loop_that_takes_a_teacher() -> None:
    with pytest.raises(InvalidProblem, match="train\\(model, trial, \\*, teacher\\)"):
        transfer(one, distil=0.5)
    with pytest.raises(InvalidProblem, match="no share"):
        transfer(one, distil=1.5)


def test_a_network_learns_what_its_teacher_thinks(data: Data) -> None:
    space = mlp([1], [16, 32], input_shape=tuple(data.train_x.shape[1:]))
    torch.manual_seed(0)
    best = space.build(Shape(1, 32))
    train(best, data, epochs=3, seed=0)
    agreement = []
    for teacher in (None, Teacher(best, weight=1.0)):
        torch.manual_seed(1)
        model = space.build(Shape(1, 16))
        train(model, data, epochs=2, seed=0, teacher=teacher)
        with torch.no_grad():
            targets = F.softmax(best(data.validation_x), dim=1)
            scores = F.log_softmax(model(data.validation_x), dim=1)
        agreement.append(float(F.kl_div(scores, targets, reduction="batchmean")))
    assert agreement[1] < agreement[0]


@pytest.mark.parametrize("options", [{"weight": 1.5}, {"temperature": 0.0}])
def test_a_teacher_that_cannot_teach(options: dict[str, float]) -> None:
    with pytest.raises(InvalidProblem, match="cannot teach"):
        Teacher(nn.Identity(), **options)
