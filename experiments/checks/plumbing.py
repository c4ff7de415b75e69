"""K16 and other small facts that every figure depends on."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor

from attacks.likelihoods import Layers
from attacks.objective import Annealing
from attacks.priors import Clip
from attacks.problem import Problem
from defenses.dpsgd import DpSgd
from defenses.noise import Gaussian
from defenses.quantization import Quantize
from defenses.sparsification import TopK
from experiments.checks.answer import Answer, near
from experiments.checks.world import network, random_batch, watched
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, subtract
from fl_sim.core.types import Update
from fl_sim.metrics.image import psnr
from fl_sim.metrics.matching import match
from fl_sim.metrics.risk import risk
from fl_sim.training.local import state_of

_MNIST_STD, _CIFAR_STD = (0.3081,), (0.2470, 0.2435, 0.2616)


def averaged_noise_shrinks_with_the_root() -> Answer:
    """K16: per-example noise of std 0.1, averaged over 4 examples, is sent with std 0.05."""
    update = Update(delta={"w": torch.zeros(100_000)}, num_examples=4)
    sent = Gaussian(std=0.1, averaging="per_example").protect(update, derive(0)).update.delta["w"]
    return near(sent.std().item(), 0.05, 0.0005, "s / sqrt(B)")


def dpsgd_noise_shrinks_with_the_batch() -> Answer:
    """K16: DP-SGD's noise, multiplier 2 and clip 0.5, is sent with std ``2 * 0.5 / 4``."""
    batch, model = random_batch(4), network("mlp", widths=(512,)).eval()
    state, defense = state_of(model), DpSgd(clip=0.5, noise_multiplier=2.0)
    quiet = DpSgd(clip=0.5, noise_multiplier=0.0).gradient(model, *state, batch, derive(0))
    loud = defense.gradient(model, *state, batch, derive(0))
    return near(flat(subtract(loud, quiet)).std().item(), 2 * 0.5 / 4, 0.005, "m S / B")


def matching_ignores_order() -> Answer:
    """K16: PSNR of a permuted batch, matched, is that of the batch."""
    images = random_batch(6).images
    shuffled = images[torch.randperm(6, generator=derive(1))]
    return Answer(psnr(shuffled[match(shuffled, images)], images).min().item(), 150.0, 150.0, "the same images")


def schedule_is_the_paper_s() -> Answer:
    """K16: annealing from 0.01 over 100 of 200 steps multiplies by 1.04713 a step, then stays at 1."""
    anneal = Annealing(first=0.01, until=0.5)
    apart = [abs(anneal(i / 200) - min(0.01 * 1.04713**i, 1.0)) for i in range(200)]
    return Answer(max(apart), 0.0, 2e-4, "f_0 = 0.01, a = 1.04713, f = 1 from step 100")


def layer_weights_fall() -> Answer:
    """K16: exponential layer weights are 1, e^-1, e^-2, one a layer, its bias included."""
    found = Layers(weights="exponential").of(["a.weight", "a.bias", "b.weight", "c.weight", "c.bias"])
    expected = [1.0, 1.0, math.exp(-1), math.exp(-2), math.exp(-2)]
    return Answer(max(abs(f - e) for f, e in zip(found.values(), expected, strict=True)), 0.0, 1e-6, "e^-l")


def clip_prior_pulls_back() -> Answer:
    """K16: the clip prior's gradient in [0, 1] pixels is ``2 (u - clip u)``: nothing inside, linear outside."""
    batch, model = random_batch(1), network("softmax")
    problem = Problem.of(watched(model, batch), model, derive(0), "cpu")
    pixels = (torch.rand(1, 1, 1, 8, 8, generator=derive(0, "wide")) * 3 - 1).requires_grad_()
    found: Tensor = torch.autograd.grad(Clip(weight=1.0)(pixels, problem).sum(), pixels)[0]
    return near((found - 2 * (pixels - pixels.clamp(0, 1))).abs().max().item(), 0.0, 1e-6, "2 (u - clip u)")


def risk_falls_with_the_radius() -> Answer:
    """K16: the share of images farther than delta never rises with delta."""
    distances = torch.rand(50, generator=derive(0, "distances")).tolist()
    risks = [risk(distances, delta / 20).value for delta in range(21)]
    return Answer(max(b - a for a, b in pairwise(risks)), -1.0, 0.0, "largest rise")


def mean_colour_floors() -> Answer:
    """K16: guessing the mean colour gives 10.2 dB on MNIST and 12.0 dB on CIFAR-10: near it nothing leaks."""
    apart = [abs(_floor_of(stds) - floor) for stds, floor in ((_MNIST_STD, 10.2), (_CIFAR_STD, 12.0))]
    return near(max(apart), 0.0, 0.1, "10.2 and 12.0 dB, of images with the data sets' stds")


def _floor_of(stds: tuple[float, ...]) -> float:
    """Measured PSNR, dB, of the mean colour against an image that is one standard deviation off everywhere."""
    colour = torch.full((1, len(stds), 8, 8), 0.5)
    signs = torch.randint(2, colour.shape, generator=derive(0, "signs")) * 2 - 1
    return psnr(colour, colour + torch.tensor(stds).view(-1, 1, 1) * signs).item()


def codec_gives_back() -> Answer:
    """What top-k and 8-bit rounding send, stacked, is what the server decodes."""
    stack = [TopK(keep=0.1), Quantize()]
    delta = {"w": torch.randn(64, 32, generator=derive(0)), "b": torch.randn(64, generator=derive(1))}
    update = Update(delta=delta, num_examples=1)
    for defense in stack:
        update = defense.protect(update, derive(2)).update
    sent = update.delta
    for defense in stack:
        sent = defense.codec.encode(sent)
    for defense in reversed(stack):
        sent = defense.codec.decode(sent, update.delta)
    return Answer(flat(subtract(sent, update.delta)).abs().max().item(), 0.0, 1e-6, "decode(encode(x)) = x")


CHECKS: Mapping[str, Callable[[], Answer]] = MappingProxyType(
    {
        "K16 averaged noise": averaged_noise_shrinks_with_the_root,
        "K16 dpsgd noise": dpsgd_noise_shrinks_with_the_batch,
        "K16 matching": matching_ignores_order,
        "K16 schedule": schedule_is_the_paper_s,
        "K16 layer weights": layer_weights_fall,
        "K16 clip prior": clip_prior_pulls_back,
        "K16 risk": risk_falls_with_the_radius,
        "K16 floors": mean_colour_floors,
        "codecs": codec_gives_back,
    }
)
