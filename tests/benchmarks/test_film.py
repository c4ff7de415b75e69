from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks import ATTACKS
from attacks.posterior import PosteriorSearch
from benchmarks.curves import Curve, by_iterations, by_seconds, curve
from benchmarks.film import Camera, Film, Frame
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation
from fl_sim.metrics.image import psnr


def test_a_filmed_attack_is_the_attack_and_its_frames_are_its_steps(
    seen: Observation, model: nn.Module, batch: Batch
) -> None:
    attack = ATTACKS["inverting_gradients"](steps=40)
    assert isinstance(attack, PosteriorSearch)
    camera = Camera(every=1)
    filmed = replace(attack, variables=Film(attack.variables, camera))(seen, model, derive(0))
    assert torch.equal(filmed.images, attack(seen, model, derive(0)).images)
    assert [frame.iteration for frame in camera.frames] == list(range(41))
    assert any(torch.equal(frame.images, filmed.images) for frame in camera.frames)
    found = curve(camera.frames, batch.images)
    assert found.psnr[-1] > found.psnr[0] + 5
    assert found.seconds == sorted(found.seconds)


def test_several_are_filmed_together_each_by_its_own_camera(seen: Observation, model: nn.Module, batch: Batch) -> None:
    attack, other = ATTACKS["inverting_gradients"](steps=6), replace(seen, client=1)
    assert isinstance(attack, PosteriorSearch)
    apart, together = [Camera(every=1), Camera(every=1)], [Camera(every=1), Camera(every=1)]
    for one, rng, camera in zip((seen, other), (derive(0), derive(1)), apart, strict=True):
        replace(attack, variables=Film(attack.variables, camera))(one, model, rng)
    filmed = replace(attack, variables=Film(attack.variables, *together))
    filmed.batched([seen, other], model, [derive(0), derive(1)])
    for mine, alone in zip(together, apart, strict=True):
        assert len(mine.frames) == len(alone.frames) == 7
        assert (mine.frames[0].images - alone.frames[0].images).abs().max() < 1e-6
    assert (together[0].frames[0].images - together[1].frames[0].images).abs().max() > 0.1
    with pytest.raises(ValueError, match="expected a trial for each of 2 cameras, got 1"):
        filmed(seen, model, derive(0))


def test_a_camera_keeps_clamped_copies_of_every_nth() -> None:
    camera, images = Camera(every=3), torch.full((1, 1, 2, 2), 1.5)
    for _ in range(8):
        camera.show(images)
    images.zero_()
    assert [frame.iteration for frame in camera.frames] == [0, 3, 6]
    assert all(torch.equal(frame.images, torch.ones(1, 1, 2, 2)) for frame in camera.frames)
    camera.start()
    assert camera.frames == []


def test_images_in_range_are_copied_too() -> None:
    camera, images = Camera(every=1), torch.full((1, 1, 2, 2), 0.5)
    camera.show(images)
    images.zero_()
    assert camera.frames[0].images.min() == 0.5


def test_a_curve_holds_the_psnr_of_each_frame() -> None:
    truth = torch.zeros(1, 1, 2, 2)
    frames = [Frame(0, 0.0, truth + 1), Frame(5, 0.5, truth + 0.1)]
    assert curve(frames, truth) == Curve([0, 5], [0.0, 0.5], [0.0, 20.0])
    assert curve(frames, truth).psnr[1] == pytest.approx(psnr(truth + 0.1, truth).item(), abs=1e-3)


def test_bands_are_quartiles_over_images() -> None:
    curves = [Curve([0, 10], [0.0, 1.0], [0.0, value]) for value in (10.0, 20.0, 30.0, 40.0, 50.0)]
    band = by_iterations(curves)
    assert band.at.tolist() == [0, 10]
    assert [values[1] for values in (band.low, band.median, band.high)] == [20, 30, 40]


def test_bands_over_seconds_end_with_the_fastest_and_interpolate() -> None:
    slow, fast = Curve([0, 10], [0.0, 4.0], [0.0, 40.0]), Curve([0, 10], [0.0, 2.0], [0.0, 40.0])
    band = by_seconds([slow, fast], places=3)
    assert band.at.tolist() == [0, 1, 2]
    assert band.median.tolist() == [0, 15, 30]
