"""How good a generator is, in figures held against images that it was not trained on."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks.generators import Generator
from attacks.generators.classifier import Classifier
from experiments.generators.networks import one_hot
from fl_sim.core.seeds import derive, derive_int
from fl_sim.data import Split
from fl_sim.data.transforms import to_unit
from fl_sim.metrics.image import psnr

REACHED, STARTS, STEPS = 32, 4, 200  # images, latents that each is searched from, steps of Adam
_STEP_SIZE = 0.1
CLASSIFIER_WIDTH, _CLASSIFIER_STEPS, _BATCH = 16, 1000, 64
_DRAWN = 1000  # samples, at most, of which classes and features are taken
_CHUNK = 250


class Held(NamedTuple):
    """Images in [0, 1], ``(M, C, H, W)``, and their classes one-hot, ``(M, classes)``."""

    images: Tensor
    conditions: Tensor

    @classmethod
    def of(cls, split: Split, classes: int) -> "Held":
        return cls(to_unit(split.images), one_hot(split.labels, classes))

    def first(self, count: int) -> "Held":
        return Held(self.images[:count], self.conditions[:count])


def figures(
    generator: Generator, classifier: Classifier, train: Split, held: Split, seed: int, tick: Callable[[str], None]
) -> dict[str, float]:
    """Of the generator, by name.

    ``reach_psnr``: mean PSNR in dB of the held-out images to which a latent was fitted, see :func:`reach`;
    ``reach_psnr_error``: its standard error. ``frechet``: :func:`frechet` of drawn and held-out images, in the features
    of the classifier; ``frechet_real``: of images that the generator was trained on and the classifier was not instead,
    as many of the same classes, for scale. ``class_agreement``: share of drawn images that the classifier takes for the
    class asked for, where there are classes; ``classifier_accuracy``: its share of held-out images taken for what they
    are.

    Args:
        classifier: As :func:`trained_classifier` makes it of ``train``.
        tick: Called after each of ``STEPS`` steps of the search, and once after the rest.
    """
    known = Held.of(held, classifier.head.out_features)
    reached = reach(generator, known.first(REACHED), seed, tick)
    found = {
        "reach_psnr": reached.mean().item(),
        "reach_psnr_error": reached.std().item() / math.sqrt(len(reached)),
        **_classified(generator, classifier, train, known, seed),
    }
    tick("figures")
    return found


def reach(generator: Generator, held: Held, seed: int, tick: Callable[[str], None]) -> Tensor:
    """PSNR ``(M,)`` of each image and what the generator makes of the best latent found for it, in dB.

    Adam on the squared error of the pixels themselves, with the right class, from ``STARTS`` random latents each: what
    a search of latents alone could reach at best, were the gradient to tell all; a better search might find more.
    """
    count = len(held.images)
    conditions, images = held.conditions.repeat(STARTS, 1), held.images.repeat(STARTS, 1, 1, 1)
    state = generator.start(len(images), conditions, derive(seed, "generator", "reach"))
    latent = state["latent"].clone().requires_grad_()
    adam = torch.optim.Adam([latent], _STEP_SIZE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
    for step in range(1, STEPS + 1):
        loss = (generator({**state, "latent": latent}) - images).square().sum()
        latent.grad = torch.autograd.grad(loss, latent)[0]
        adam.step()
        decay.step()
        tick(f"fitting latents to {count} held-out images: step {step} of {STEPS}")
    with torch.no_grad():
        return psnr(generator({**state, "latent": latent}), images).view(STARTS, count).amax(0)


def _classified(generator: Generator, classifier: Classifier, train: Split, held: Held, seed: int) -> dict[str, float]:
    half = len(train.labels) // 2
    others = Held.of(Split(*(t[half : half + _DRAWN] for t in train)), held.conditions.shape[1])
    rng, asked = derive(seed, "generator", "figures"), others.conditions
    with torch.no_grad():
        drawn = torch.cat([generator(generator.start(len(part), part, rng)) for part in torch.split(asked, _CHUNK)])
        features = [classifier.trunk(images) for images in (drawn, held.images, others.images)]
        made, real, unseen = (f.double() for f in features)
        answers, right = (classifier.head(f).argmax(1) for f in features[:2])
    agreement = {"class_agreement": (answers == asked.argmax(1)).double().mean().item()} if generator.classes else {}
    return {
        **agreement,
        "classifier_accuracy": (right == held.conditions.argmax(1)).double().mean().item(),
        "frechet": frechet(made, real),
        "frechet_real": frechet(unseen, real),
    }


def trained_classifier(train: Split, classes: int, seed: int) -> Classifier:
    """Trained on the first half of the images, whose order means nothing, for a fixed number of steps.

    Its weights are a function of ``seed`` and the images.
    """
    half = Split(*(t[: len(train.labels) // 2] for t in train))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_int(seed, "generator", "classifier"))
        channels, height, width = half.images.shape[1:]
        network = Classifier((channels, height, width), classes, CLASSIFIER_WIDTH)
    adam, rng = torch.optim.Adam(network.parameters(), 1e-3), derive(seed, "generator", "classifier")
    for _ in range(_CLASSIFIER_STEPS):
        chosen = torch.randint(len(half.labels), (_BATCH,), generator=rng)
        loss = cross_entropy(network(to_unit(half.images[chosen])), half.labels[chosen])
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return network.eval().requires_grad_(requires_grad=False)


def frechet(some: Tensor, others: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features, ``(n, d)`` and ``(m, d)`` float64; squared.

    As in FID (arXiv 1706.08500), whose features are Inception's: figures are comparable only in the same features.
    """
    roots = torch.linalg.eigvals(some.T.cov() @ others.T.cov()).real.clamp_min(0).sqrt().sum()
    spread = some.T.cov().trace() + others.T.cov().trace() - 2 * roots
    distance: Tensor = (some.mean(0) - others.mean(0)).square().sum() + spread
    return distance.item()
