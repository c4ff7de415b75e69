"""The fast way to gradients against the slow one: equal for models it knows, refused for the others."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.gradients import Batched, Factors, Guess, Looped, Tree, dense, fastest, products
from defenses.precode import Precode
from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.stochastic import draw_noise
from fl_sim.core.trees import flat
from fl_sim.core.types import Task
from fl_sim.training.local import state_of

TASK = Task(image_shape=(3, 16, 16), classes=5, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
LARGE = Task(image_shape=(3, 32, 32), classes=5, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def guess_of(
    task: Task, model: nn.Module, trials: int = 2, examples: int = 3, dtype: torch.dtype = torch.float64
) -> Guess:
    rng = torch.Generator().manual_seed(1)
    images = torch.rand(trials, examples, *task.image_shape, generator=rng, dtype=dtype).requires_grad_()
    labels = torch.randint(0, task.classes, (trials, examples), generator=rng)
    noise = draw_noise(model, trials * examples, rng)
    return Guess(images, labels, {k: z.to(dtype).view(trials, examples, -1) for k, z in noise.items()})


def behind_precode(_: str, task: Task, seed: int, **options: Any) -> nn.Module:
    """A model that draws, and whose loss is more than cross-entropy."""
    return Precode(kl=0.1, **options).wrap(models.build("cnn", task, seed), derive(seed))


def slope(tree: Tree, guess: Guess) -> Tensor:
    """Of a number in which every entry of the gradients counts differently."""
    gradients = dense(tree)
    weights = [torch.linspace(-1, 2, g[0].numel(), dtype=g.dtype).view(g[0].shape) for g in gradients.values()]
    cost = sum(
        ((g * w).sum() + g.square().sum() for g, w in zip(gradients.values(), weights, strict=True)), torch.tensor(0.0)
    )
    return torch.autograd.grad(cost, guess.images)[0]


def largest(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize(
    ("name", "task", "options"),
    [
        ("cnn", TASK, {}),
        ("lenet", TASK, {}),
        ("convnet", TASK, {"width": 4}),
        ("convnet", LARGE, {"width": 64}),
        ("resnet18", TASK, {"width": 8}),
        ("mlp", TASK, {"widths": (12, 8), "dropout": 0.3}),
        ("softmax", TASK, {}),
        ("precode", TASK, {"width": 4}),
    ],
)
def test_gradients_and_their_slopes_are_the_reference_s(name: str, task: Task, options: dict[str, object]) -> None:
    model = (behind_precode if name == "precode" else models.build)(name, task, 3, **options).double().eval()
    state = state_of(model)
    batched, looped = Batched.of(model, state), Looped(model, state)
    assert batched is not None
    guess = guess_of(task, model) if task is TASK else guess_of(task, model, trials=1, examples=2)
    fast, slow = batched(guess), looped(guess)
    assert list(fast) == list(slow)
    for key, gradient in dense(fast).items():
        assert gradient.shape == slow[key].shape
        assert largest(gradient, slow[key]) < 1e-9, key
    assert largest(slope(fast, guess), slope(slow, guess)) < 1e-9


def test_soft_labels_and_single_examples() -> None:
    model = models.build("cnn", TASK, 3).double().eval()
    batched, looped = Batched.of(model, state_of(model)), Looped(model, state_of(model))
    assert batched is not None
    hard = guess_of(TASK, model)
    soft = hard._replace(labels=torch.rand(2, 3, 5, dtype=torch.float64).softmax(-1))
    for guess in (soft, hard.examples(), soft.examples()):
        assert largest(flat(dense(batched(guess))), flat(looped(guess))) < 1e-9


def test_what_is_not_differentiated_keeps_no_second_graph_and_is_the_same() -> None:
    model = models.build("cnn", TASK, 3).eval()
    batched, guess = Batched.of(model, state_of(model)), guess_of(TASK, model, dtype=torch.float32)
    assert batched is not None
    live, still = batched(guess), batched(guess._replace(images=guess.images.detach()))
    assert all(torch.equal(g, dense(still)[name]) for name, g in dense(live).items())
    assert all(g.requires_grad for g in dense(live).values())
    assert not any(g.requires_grad for g in still.values() if isinstance(g, Tensor))


def test_trials_do_not_meet() -> None:
    model = models.build("convnet", TASK, 3, width=8).eval()
    batched = Batched.of(model, state_of(model))
    assert batched is not None
    both = guess_of(TASK, model, dtype=torch.float32)
    alone = dense(batched(Guess(both.images[1:], both.labels[1:])))
    together = dense(batched(both))
    assert largest(flat({k: g[1] for k, g in together.items()}), flat({k: g[0] for k, g in alone.items()})) < 1e-5


@pytest.mark.parametrize("rank", [1, 3])
def test_products_of_factors(rank: int) -> None:
    rng = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 30, rank, generator=rng), torch.randn(2, 40, rank, generator=rng)
    factors, target = Factors(left, right, (30, 8, 5)), torch.randn(30, 8, 5, generator=rng)
    full = torch.einsum("tor,tir->toi", left, right).view(2, 30, 8, 5)
    assert largest(factors.dense(), full) < 1e-6
    for goal in (target, target[None], torch.stack([target, -2 * target])):
        for form in (factors, full):
            inner, squares = products(form, goal)
            assert largest(inner, (full * goal).flatten(1).sum(1)) < 1e-5
            assert largest(squares, full.square().flatten(1).sum(1)) < 1e-5
    assert isinstance(factors.kept(), Factors)
    assert isinstance(Factors(left, right[:, :rank], (30, rank)).kept(), Tensor)


def test_the_slope_of_products() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 4, 3, generator=rng, dtype=torch.float64).requires_grad_()
    target, weights = torch.randn(2, 4, 3, generator=rng, dtype=torch.float64), torch.tensor([0.3, -2.0]).double()
    inner, squares = products(rows, target)
    expected_inner, expected_squares = (rows * target).sum((1, 2)), rows.square().sum((1, 2))
    ours, expected = (
        torch.autograd.grad(((a.exp() + b.log()) * weights).sum(), rows)[0]
        for a, b in ((inner, squares), (expected_inner, expected_squares))
    )
    assert torch.allclose(ours, expected, atol=1e-12)


class Shared(nn.Module):
    """One layer, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(768, 5)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.mix(functional.relu(self.mix(images))).flatten(1))
        return out


class Beside(Shared):
    """A layer's parameter is used without the layer."""

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.mix(images).flatten(1)) * self.mix.weight.sum()
        return out


class InPlace(Shared):
    """What a layer puts out is written over by a function."""

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(functional.relu_(self.mix(images)).flatten(1))
        return out


class Own(Shared):
    """A parameter that belongs to no known layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.gain * self.mix(images).flatten(1))
        return out


class Asked(Shared):
    """A layer is asked for what only the layer itself knows."""

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.mix(images).flatten(1)[:, : self.head.in_features])
        return out


class Valid(nn.Sequential):
    """Padding is said in words."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 2, 3, padding="valid"), nn.Flatten(), nn.Linear(392, 5))


class Small(Shared):
    """Wrong in one small gradient only."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Linear(1, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        ones = images.new_ones(len(images), 1)
        out: Tensor = self.head(self.mix(images).flatten(1)) + 1e-4 * (self.shift(ones) + ones @ self.shift.weight.T)
        return out


@pytest.mark.parametrize("kind", [Shared, Beside, InPlace, Own, Asked, Valid, Small])
def test_models_that_layers_do_not_tell_whole_are_looped(kind: type[nn.Module]) -> None:
    model = kind()
    assert isinstance(fastest(model, state_of(model), TASK), Looped)


@pytest.mark.parametrize(("name", "width"), [("convnet", 4), ("resnet18", 8)])
def test_batch_statistics_are_of_each_trial_s_examples(name: str, width: int) -> None:
    model = models.build(name, TASK, 3, width=width).double().train()
    state = state_of(model)
    batched, looped, guess = fastest(model, state, TASK), Looped(model, state), guess_of(TASK, model)
    assert isinstance(batched, Batched)
    fast, slow = batched(guess), looped(guess)
    assert largest(flat(dense(fast)), flat(slow)) < 1e-8
    assert largest(slope(fast, guess), slope(slow, guess)) < 1e-8
    running = Batched.of(model.eval(), state)
    assert running is not None
    assert largest(flat(dense(running(guess))), flat(slow)) > 0.01  # else this would not tell one from the other


def test_layers_in_place_are_batched() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(196, 5))
    assert isinstance(fastest(model, state_of(model), TASK), Batched)
    assert model[1].inplace


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "convnet"])
def test_rounding_that_batch_norm_enlarges_is_no_reason_for_the_loop(name: str) -> None:
    """By the statistics of two images, in single precision, the two ways differ by a hundredth."""
    net = models.build(name, LARGE, 0).train()
    assert isinstance(fastest(net, state_of(net), LARGE), Batched)
