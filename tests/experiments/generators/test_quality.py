"""Figures of generators whose quality is known."""

import pytest
import torch
from torch import Generator as Draws
from torch import Tensor

from attacks.generators import Generator, State
from attacks.generators.mlp import MLP
from experiments.generators import quality
from experiments.generators.quality import Held, figures, frechet, reach, trained_classifier
from fl_sim.core.seeds import derive
from fl_sim.data import Source, Split, load


class Copies(Generator):
    """Draws real digits of the class that comes ``shift`` after the one asked for."""

    classes, image_shape = 10, (1, 8, 8)

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.split, self.shift = load(Source(name="digits")).test, shift
        self.scale = torch.nn.Parameter(torch.ones(()))

    @property
    def depth(self) -> int:
        return 1

    def start(self, count: int, condition: Tensor, rng: Draws) -> State:
        asked = (condition.argmax(1) + self.shift) % 10
        places = torch.stack([torch.nonzero(self.split.labels == label)[:30, 0] for label in asked])
        chosen = places[torch.arange(count), torch.randint(30, (count,), generator=rng)]
        return {"latent": self.split.images[chosen] / 255}

    def stage(self, place: int, state: State) -> State:
        return {"feature": state["latent"]}

    def image(self, state: State) -> Tensor:
        return state["feature"].clamp(0, 1)


def test_frechet_distance_has_its_closed_form_where_covariances_commute() -> None:
    some = torch.randn(50, 6, generator=derive(0), dtype=torch.float64)
    assert frechet(some, some) == pytest.approx(0, abs=1e-6)
    expected = some.mean(0).square().sum() + some.T.cov().trace()  # tr(S + 4S - 2 * 2S)
    assert frechet(some, 2 * some) == pytest.approx(expected.item())


def test_reach_is_high_for_what_the_generator_makes_and_low_for_noise() -> None:
    torch.manual_seed(0)
    network = MLP((1, 8, 8), (6, 64), "sigmoid")
    with torch.no_grad():
        network.state_dict()["layers.0.weight"].mul_(8)
        made = network(network.start(5, torch.zeros(5, 0), derive(0)))
    noise = torch.rand(made.shape, generator=derive(1))
    nothing = torch.zeros(5, 0)
    own = reach(network, Held(made, nothing), 0, lambda _: None)
    other = reach(network, Held(noise, nothing), 0, lambda _: None)
    assert own.min() > 45
    assert other.max() < 20


def test_classes_and_features_are_held_against_real_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "STEPS", 1)
    monkeypatch.setattr(quality, "_CLASSIFIER_STEPS", 300)
    digits = load(Source(name="digits"))
    train, held = (Split(*(t[part] for t in digits.train)) for part in (slice(1200), slice(1200, None)))
    judge = trained_classifier(train, 10, 0)
    right, wrong = (figures(Copies(shift), judge, train, held, 0, lambda _: None) for shift in (0, 1))
    assert right["classifier_accuracy"] > 0.9
    assert right["class_agreement"] > 0.85
    assert wrong["class_agreement"] < 0.1
    assert wrong["classifier_accuracy"] == right["classifier_accuracy"]
    assert right["frechet"] < 3 * right["frechet_real"]
