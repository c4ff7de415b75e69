import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.metrics.image import mse, psnr, ssim, ssim_settings

SHAPES = [(3, 1, 8, 8), (2, 3, 16, 16), (4, 3, 32, 32), (1, 1, 28, 20)]


def pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Images, and the same with noise that differs from image to image."""
    truth = torch.rand(shape, generator=derive(0, "truth"))
    noise = torch.randn(shape, generator=derive(0, "noise")) * torch.linspace(0.02, 0.3, shape[0])[:, None, None, None]
    return (truth + noise).clamp(0, 1), truth


def skimage_psnr(pair: tuple[object, object]) -> float:
    value: float = peak_signal_noise_ratio(*pair, data_range=1)  # type: ignore[no-untyped-call]
    return value


@pytest.mark.parametrize("shape", SHAPES)
def test_mse_and_psnr_equal_skimage(shape: tuple[int, ...]) -> None:
    guess, truth = pair(shape)
    pairs = [(t.numpy(), g.numpy()) for t, g in zip(truth, guess, strict=True)]
    np.testing.assert_allclose(mse(guess, truth), [mean_squared_error(*p) for p in pairs], rtol=1e-5)
    np.testing.assert_allclose(psnr(guess, truth), [skimage_psnr(p) for p in pairs], rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_equals_skimage_on_reflected_borders(shape: tuple[int, ...]) -> None:
    guess, truth = pair(shape)
    gaussian = min(shape[-2:]) >= 16
    settings = {"gaussian_weights": True, "sigma": 1.5} if gaussian else {"win_size": 7}
    border = 5 if gaussian else 3  # skimage leaves out what it has no full window for: give it that much more
    expected = [
        structural_similarity(  # type: ignore[no-untyped-call]
            *padded, data_range=1, channel_axis=0, use_sample_covariance=False, **settings
        )
        for padded in (
            [np.pad(image.numpy(), ((0, 0), (border, border), (border, border)), mode="reflect") for image in images]
            for images in zip(truth, guess, strict=True)
        )
    ]
    np.testing.assert_allclose(ssim(guess, truth), expected, atol=1e-4)


def test_equal_images_reach_the_stated_ceilings() -> None:
    _, truth = pair((2, 3, 16, 16))
    assert psnr(truth, truth).tolist() == pytest.approx([150, 150])
    assert ssim(truth, truth).tolist() == pytest.approx([1, 1])


def test_a_known_error_has_the_known_psnr() -> None:
    assert psnr(torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.5)).item() == pytest.approx(20, abs=1e-4)


@pytest.mark.parametrize("metric", [mse, psnr, ssim])
def test_images_are_never_pooled(metric: object) -> None:
    assert callable(metric)
    guess, truth = pair((4, 3, 16, 16))
    alone = [metric(guess[i : i + 1], truth[i : i + 1]).item() for i in range(4)]
    assert metric(guess, truth).tolist() == pytest.approx(alone, rel=1e-5)
    assert len({round(value, 4) for value in alone}) == 4


@pytest.mark.parametrize("metric", [mse, psnr, ssim])
@pytest.mark.parametrize(
    ("guess", "said"),
    [
        (torch.zeros(2, 1, 8, 8), "one shape"),
        (torch.full((1, 1, 8, 8), 1.1), "reconstructions in"),
        (torch.full((1, 1, 8, 8), -0.1), "reconstructions in"),
        (torch.full((1, 1, 8, 8), torch.nan), "reconstructions in"),
    ],
)
def test_wrong_input_is_refused(metric: object, guess: Tensor, said: str) -> None:
    assert callable(metric)
    with pytest.raises(FlSimError, match=said):
        metric(guess, torch.zeros(1, 1, 8, 8))


def test_ssim_states_its_window_and_refuses_images_below_it() -> None:
    assert "11x11" in ssim_settings((3, 32, 32))
    assert "uniform 7x7" in ssim_settings((1, 8, 8))
    with pytest.raises(FlSimError, match="at least 7x7"):
        ssim(torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 6, 8))
