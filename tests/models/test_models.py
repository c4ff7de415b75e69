"""Every registered model, held to the same contract."""

import sys
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.core.types import Task
from fl_sim.models import MODELS, Model, build

GREY = Task(image_shape=(1, 28, 28), classes=10, mean=(0.1307,), std=(0.3081,))
COLOUR = Task(image_shape=(3, 32, 32), classes=10, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))

SMALL: dict[str, dict[str, Any]] = {
    "softmax": {},
    "mlp": {"widths": [20, 12]},
    "lenet": {},
    "cnn": {},
    "convbig": {},
    "convnet": {"width": 4},
    "resnet18": {"width": 4},
}


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters()}


def draw(task: Task, number: int) -> tuple[Tensor, Tensor]:
    images = torch.rand(number, *task.image_shape, generator=derive(0, "images"))
    return images, torch.arange(number) % task.classes


def registered(name: str, **options: object) -> Model:
    built = build(name, COLOUR, 0, **options)
    assert isinstance(built, Model)
    return built


@pytest.fixture(params=sorted(SMALL))
def model(request: pytest.FixtureRequest) -> Model:
    return registered(request.param, **SMALL[request.param]).eval()


def test_every_model_is_listed_here() -> None:
    assert sorted(SMALL) == sorted(MODELS)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_has_a_line_for_the_list(name: str) -> None:
    assert len((MODELS[name].__doc__ or "").splitlines()[0]) > 20


@pytest.mark.parametrize("task", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_logits(name: str, task: Task) -> None:
    built = build(name, task, 0, **SMALL[name])
    assert built.training
    assert built(draw(task, 3)[0]).shape == (3, task.classes)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_weights_are_a_function_of_the_seed(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (build(name, GREY, seed, **SMALL[name]).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert (name == "softmax") == all(torch.equal(first[key], other[key]) for key in first)


def test_the_state_is_weights_and_batch_statistics_only(model: Model) -> None:
    known = {name for name, _ in model.named_parameters()}
    rest = [key.rpartition(".")[2] for key in model.state_dict() if key not in known]
    assert set(rest) <= {"running_mean", "running_var", "num_batches_tracked"}
    assert "net.head.weight" in known


def test_the_image_can_be_found_through_the_gradient(model: Model) -> None:
    """Gradient matching: the derivative, by the image, of a function of the gradient."""
    images, labels = draw(COLOUR, 2)
    images.requires_grad_()
    live = {name: weight.requires_grad_() for name, weight in weights(model).items()}
    loss = cross_entropy(functional_call(model, live, (images,)), labels)
    gradient = torch.autograd.grad(loss, list(live.values()), create_graph=True)
    (by_image,) = torch.autograd.grad(torch.stack([g.square().sum() for g in gradient]).sum(), images)
    assert by_image.isfinite().all()
    assert by_image.abs().max() > 0


def test_gradients_of_single_images_average_to_that_of_the_batch(model: Model) -> None:
    images, labels = draw(COLOUR, 3)

    def loss(held: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, held, (image,)), label)

    held = weights(model)
    each = vmap(grad(loss), in_dims=(None, 0, 0))(held, images[:, None], labels[:, None])
    whole = grad(loss)(held, images, labels)
    for name in held:
        assert torch.allclose(each[name].mean(0), whole[name], atol=1e-5, rtol=1e-3), name


def test_images_are_normalised_first() -> None:
    built = registered("softmax")
    mean, std = torch.tensor(COLOUR.mean).view(3, 1, 1), torch.tensor(COLOUR.std).view(3, 1, 1)
    images, _ = draw(COLOUR, 2)
    assert torch.allclose(built.normalise(images), (images - mean) / std)
    built.net = nn.Flatten()
    assert torch.allclose(built(images), ((images - mean) / std).flatten(1))


def size(name: str, task: Task, **options: object) -> int:
    return sum(weight.numel() for weight in build(name, task, 0, **options).parameters())


def test_sizes_are_the_published_ones() -> None:
    assert size("cnn", GREY) == 333_526
    assert size("cnn", COLOUR) == 430_102
    assert len(list(build("convbig", COLOUR, 0).parameters())) == 10
    assert build("convbig", COLOUR, 0).get_parameter("net.fc1.weight").shape == (2000, 5184)
    assert build("lenet", COLOUR, 0).get_parameter("net.head.weight").shape == (10, 768)
    assert build("convnet", COLOUR, 0).get_parameter("net.head.weight").shape == (10, 2304)
    assert sum(isinstance(layer, nn.Conv2d) for layer in build("convnet", COLOUR, 0).modules()) == 8


def test_softmax_starts_at_zero() -> None:
    assert all((weight == 0).all() for weight in build("softmax", GREY, 0).parameters())


def test_lenet_starts_uniform() -> None:
    for weight in weights(build("lenet", COLOUR, 0)).values():
        assert weight.abs().max() <= 0.5
        assert weight.std().item() == pytest.approx(1 / 12**0.5, rel=0.35)


def test_cnn_starts_as_the_papers_where_asked_to() -> None:
    """LeCun's normal weights, zero biases; torch's own weights are sqrt(3) times smaller."""
    theirs, ours = weights(build("cnn", COLOUR, 0, init="lecun")), weights(build("cnn", COLOUR, 0))
    for name, weight in theirs.items():
        if name.endswith("bias"):
            assert bool((weight == 0).all())
        else:
            assert weight.std().item() == pytest.approx(weight[0].numel() ** -0.5, rel=0.1)
            assert ours[name].std().item() == pytest.approx((3 * weight[0].numel()) ** -0.5, rel=0.1)


def test_mlp_is_as_wide_as_asked() -> None:
    matrices = [weight for weight in build("mlp", GREY, 0, widths=[7, 5]).parameters() if weight.ndim == 2]
    assert [tuple(matrix.shape) for matrix in matrices] == [(7, 784), (5, 7), (10, 5)]
    assert all(first.shape[0] == second.shape[1] for first, second in pairwise(matrices))


def test_resnet18_agrees_with_torchvision() -> None:
    from torchvision.models import resnet18

    theirs = resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    ours = registered("resnet18")
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images, _ = draw(COLOUR, 2)
    with torch.no_grad():
        logits = ours.eval()(images)
        assert torch.allclose(logits, theirs.eval()(ours.normalise(images)), atol=1e-4, rtol=1e-4)


def test_small_images_are_refused_by_deep_models() -> None:
    digits = Task(image_shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.4,))
    for name in ("softmax", "mlp", "lenet", "cnn", "convbig", "resnet18"):
        assert build(name, digits, 0, **SMALL[name]).eval()(draw(digits, 1)[0]).shape == (1, 10)
    with pytest.raises(ConfigError, match=r"\(1, 8, 8\).*set data.image_size"):
        build("convnet", digits, 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenett", {}, "one of softmax, mlp.*did you mean 'lenet'"),
        ("mlp", {"width": 3}, "option width.*its options: widths"),
        ("mlp", {"widths": [0]}, r"option widths\.0.*greater than 0"),
        ("lenet", {"width": 3}, "its options: none"),
        ("no_such_package:net", {}, "importable function"),
        ("torch.nn:NoSuchLayer", {}, "importable function"),
        ("torch.nn:Linear", {"sides": 3}, r"takes the options \['sides'\]"),
        ("math:sqrt", {}, "importable function"),
        ("pathlib:PurePosixPath", {}, "should return a torch.nn.Module, got PurePosixPath"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, COLOUR, 0, **options)


def test_a_model_of_your_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ModuleType("own_models")
    own.__dict__["net"] = lambda hidden: nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.Linear(hidden, 10))
    monkeypatch.setitem(sys.modules, "own_models", own)
    first, again = (build("own_models:net", GREY, 5, hidden=4) for _ in range(2))
    assert first(draw(GREY, 2)[0]).shape == (2, 10)
    assert list(first.state_dict()) == ["1.weight", "1.bias", "2.weight", "2.bias"]  # names as its author knows them
    assert torch.equal(first.get_parameter("1.weight"), again.get_parameter("1.weight"))
    images, mean, std = draw(GREY, 2)[0], torch.tensor(GREY.mean)[0], torch.tensor(GREY.std)[0]
    expected = first.get_submodule("2")(first.get_submodule("1")(((images - mean) / std).flatten(1)))
    assert torch.allclose(first(images), expected, atol=1e-6)
