"""Predictors against the Jacobian written out, in batches, and where they have nothing to say."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from experiments.linearised import STEPS
from experiments.report.predicted import MEANINGS
from experiments.risk import (
    PREDICTORS,
    Exposure,
    InfluenceBound,
    InversionInfluence,
    LinearisedPosterior,
    Predictor,
    SignalToNoise,
)
from experiments.risk.base import decibels, predictions
from fl_sim.core.contracts import AnyDefense
from fl_sim.core.errors import NoDensityError
from fl_sim.core.types import Protocol
from tests.conftest import TASK
from tests.experiments.risk.exposures import exposed, images, jacobian, named

STD = TASK.std[0]
NOISE = named("gaussian", std=0.05)
ALL = {name: made() for name, made in PREDICTORS.items()}


def by_image(errors: Tensor) -> Tensor:
    """PSNR from squared errors of normalised pixels ``(N d,)``."""
    return decibels(STD**2 * errors.view(-1, 64).mean(1))


@pytest.fixture
def exposure(model: nn.Module) -> Exposure:
    return exposed(model, images(2), NOISE)


def test_influence_is_the_dense_formulas(exposure: Exposure) -> None:
    dense = jacobian(exposure)
    square, pulled = dense.T @ dense, dense.T @ exposure.shift
    top = torch.linalg.eigvalsh(square)[-1]
    moved = torch.linalg.solve(square + 0.01 * top * torch.eye(128), pulled)
    assert torch.allclose(InversionInfluence(damping=0.01)(exposure), by_image(moved.square()), atol=1e-3)
    assert torch.allclose(InfluenceBound(steps=STEPS)(exposure), by_image((pulled / top).square()), atol=1e-3)


def test_the_bound_is_one_of_all_images_together(exposure: Exposure) -> None:
    errors = [10 ** (-p(exposure) / 10) for p in (InfluenceBound(), InversionInfluence(damping=1e-9, steps=128))]
    assert errors[0].sum() < errors[1].sum()


def test_the_posterior_is_the_dense_one_of_each_image(exposure: Exposure) -> None:
    """With many probes; their vectors are random."""
    dense = jacobian(exposure)
    covariance = (dense.T @ dense / 0.05**2 + torch.eye(128)).inverse()
    found = LinearisedPosterior(probes=16)(exposure)
    assert torch.allclose(found.double(), by_image(covariance.diagonal()), atol=0.3)


def test_each_record_of_a_batch_has_its_own_signal(exposure: Exposure, model: nn.Module) -> None:
    whole, split = exposure.batch, SignalToNoise()(exposure)
    for i in range(2):
        alone = exposed(model, type(whole)(whole.images[i : i + 1], whole.labels[i : i + 1]), NOISE)
        assert split[i].item() == pytest.approx(SignalToNoise()(alone).item() - 20 * torch.tensor(2.0).log10().item())


def test_local_steps_have_one_signal(model: nn.Module) -> None:
    local = exposed(model, images(2), NOISE, protocol=Protocol(mode="fedavg", batch_size=1, local_epochs=2))
    first, second = SignalToNoise()(local).tolist()
    assert first == second


def test_louder_noise_is_less_risk_to_all(model: nn.Module) -> None:
    quiet, loud = (exposed(model, images(1), named("gaussian", std=std)) for std in (0.01, 1.0))
    for predictor in ALL.values():
        assert predictor(quiet).item() > predictor(loud).item() + 3


def test_what_comes_before_the_noise_is_linearised_too(model: nn.Module) -> None:
    """A clip halves the gradient as twice the noise would, but that its norm no longer tells anything."""
    norm = 0.5 * exposed(model, images(1)).undefended.sent.norm().item()
    clipped = exposed(model, images(1), named("clip", norm=norm), NOISE)
    louder = exposed(model, images(1), named("gaussian", std=0.1))
    assert SignalToNoise()(clipped).item() == pytest.approx(SignalToNoise()(louder).item(), abs=1e-4)
    predicted = [LinearisedPosterior()(one).item() for one in (clipped, louder)]
    assert predicted[1] - 1 < predicted[0] <= predicted[1]


@pytest.mark.parametrize(
    ("stack", "silent", "reason"),
    [
        ((), set(ALL), "sent as it is|no noise"),
        ((named("topk", keep=0.1),), {"k15", "snr"}, "no noise"),
        ((named("soteria", rate=0.5),), set(ALL), "no density is known|sent as it is"),  # not applied here
        ((named("ats"),), set(ALL), "data defense"),
    ],
    ids=["none", "topk", "soteria", "ats"],
)
def test_those_that_cannot_say_anything_say_why(
    model: nn.Module, stack: tuple[AnyDefense, ...], silent: set[str], reason: str
) -> None:
    told, reasons = predictions(ALL, exposed(model, images(1), *stack))
    assert {name for name, values in told.items() if values is None} == set(reasons) == silent
    assert all(any(part in text for part in reason.split("|")) for text in reasons.values()), reasons


@pytest.mark.parametrize("predictor", ALL.values(), ids=ALL)
def test_sums_of_clients_are_left_alone(predictor: Predictor, exposure: Exposure) -> None:
    several = replace(exposure, seen=replace(exposure.seen, members=(0, 1)))
    with pytest.raises(NoDensityError, match="sum"):
        predictor(several)


def test_the_report_has_words_for_all() -> None:
    assert set(MEANINGS) == set(PREDICTORS)
