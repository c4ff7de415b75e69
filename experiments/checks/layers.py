"""K8 to K10: what a fully connected layer gives away, and two defenses that do not stop it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from attacks import ATTACKS
from attacks.likelihoods import Cosine, Layers
from defenses.noise import Gaussian
from defenses.precode import Precode
from defenses.soteria import Soteria
from experiments.checks.answer import Answer, near
from experiments.checks.world import cost_at, defended, network, normalised, random_batch, rows, watched
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat
from fl_sim.core.types import Batch, Observation, Tensors
from fl_sim.metrics.image import psnr
from fl_sim.metrics.matching import match
from fl_sim.training.local import State, gradient, state_of

_STD = 1e-3


def ratio_is_exact() -> Answer:
    """K8: without noise, weight gradient over bias gradient is the image."""
    batch = random_batch(1)
    guess = ATTACKS["ratio"]()(watched(network("mlp", widths=(32,)), batch), network("mlp", widths=(32,)), derive(0))
    return Answer(psnr(guess.images, batch.images).item(), 90.0, math.inf, "exact up to float32")


def ratio_uses_all_rows() -> Answer:
    """K8: with noise, the best image over all rows has error ``s^2 (1 + x^2) / |d|^2``, ``d`` the bias gradient."""
    ratios, model = [], network("mlp", widths=(32,))
    for i in range(60):
        drawn = random_batch(1, i)
        batch = drawn._replace(images=0.4 + 0.2 * drawn.images)  # near the mean: x is small, and so is what all share
        clean = watched(model, batch)
        guess = ATTACKS["ratio"]()(defended(clean, [Gaussian(std=_STD)], i), model, derive(0))
        truth = normalised(batch.images)
        height = rows(clean.update.delta)[1].square().sum()
        expected = _STD**2 * (1 + truth.square().mean()) / height
        ratios.append((normalised(guess.images) - truth).square().mean() / expected)
    ratio = torch.stack(ratios).mean().item()
    return near(ratio, 1.0, 0.2, "error over s^2 (1 + x^2) / |d|^2, 60 images")


def one_row_alone_is_worse() -> Answer:
    """K8: with noise, one row has error ``s^2 (1 + x^2) / d_i^2``, ``d_i`` its own bias gradient."""
    ratios, model = [], network("mlp", widths=(32,))
    for i in range(60):
        drawn = random_batch(1, i)
        batch = drawn._replace(images=0.4 + 0.2 * drawn.images)
        clean = watched(model, batch)
        guess = ATTACKS["ratio"](rows="best")(defended(clean, [Gaussian(std=_STD)], i), model, derive(0))
        truth = normalised(batch.images)
        expected = _STD**2 * (1 + truth.square().mean()) / rows(clean.update.delta)[1].square().max()
        ratios.append((normalised(guess.images) - truth).square().mean() / expected)
    return near(torch.stack(ratios).mean().item(), 1.0, 0.25, "error over s^2 (1 + x^2) / d_i^2, 60 images")


def rank_separates_a_batch() -> Answer:
    """K8: behind a ReLU the low rank of the gradient holds every image of a batch of 4."""
    batch, model = random_batch(4), network("mlp", widths=(512,))
    guess = ATTACKS["rank"]()(watched(model, batch), model, derive(0))
    found = guess.images[match(guess.images, batch.images)]
    return Answer(psnr(found, batch.images).min().item(), 80.0, math.inf, "exact up to float32, worst of 4 images")


def soteria_bounds_the_naive_attack() -> Answer:
    """K9: at the true image the plain cosine is not 0 but ``1 - |m g| / |g|``."""
    seen, batch, clean = _behind_soteria()
    expected = 1 - (flat(seen.update.delta).norm() / flat(clean).norm()).item()
    return near(_cosine_at(seen, batch) - expected, 0.0, 1e-5, "cost minus 1 - |m g| / |g|")


def soteria_leaves_the_rest() -> Answer:
    """K9: without the defended layer the cosine at the true image is 0."""
    seen, batch, _ = _behind_soteria()
    return near(_cosine_at(seen, batch, "net.head.weight"), 0.0, 1e-5, "defended layer dropped")


def soteria_does_not_reach_the_first_layer() -> Answer:
    """K9: a fully connected layer before the defended one is sent as it is, and gives the image."""
    seen, batch, _ = _behind_soteria()
    guess = ATTACKS["ratio"]()(seen, network("mlp", widths=(64, 64)), derive(0))
    return Answer(psnr(guess.images, batch.images).item(), 90.0, math.inf, "exact up to float32")


def soteria_prunes_what_it_says() -> Answer:
    """K9: zero are the columns of features whose score is below the quantile, and those that were zero before."""
    seen, batch, clean = _behind_soteria()
    scores = _scores(network("mlp", widths=(64, 64)), batch)
    pruned = (scores < torch.quantile(scores, 0.8)) | (clean["net.head.weight"].abs().sum(0) == 0)
    wrong = (seen.update.delta["net.head.weight"].abs().sum(0) == 0) != pruned
    live = (clean["net.head.weight"].abs().sum(0) > 0) & pruned
    return near(
        wrong.sum().item() if live.any() else math.nan, 0, 0, "wrong columns: zero where q is below its quantile"
    )


def bottleneck_hides_nothing_from_ratio() -> Answer:
    """K10: the first layer's ratio does not depend on what a variational bottleneck draws."""
    worst = math.inf
    for i in range(5):
        batch, model = random_batch(1), _drawing()
        guess = ATTACKS["ratio"]()(watched(model, batch, place=i), model, derive(0))
        worst = min(worst, psnr(guess.images, batch.images).item())
    return Answer(worst, 100.0, math.inf, "exact for each of 5 draws")


def bottleneck_moves_gradients() -> Answer:
    """K10: two draws give different gradients for one image: what a matching attack that ignores them stumbles over."""
    batch, model = random_batch(1), _drawing()
    first, second = (flat(watched(model, batch, place=i).update.delta) for i in (0, 1))
    return Answer(cosine_similarity(first, second, dim=0).item(), 0.0, 0.95, "cosine of two draws' gradients, below 1")


def matching_needs_the_draw() -> Answer:
    """K10: so an attack that leaves them at their mean stays far from the image."""
    return Answer(max(_matched(_drawing())), 0.0, 25.0, "PSNR, draws ignored, 300 steps, better of 2 images")


def matching_finds_the_image() -> Answer:
    """K10: where nothing is drawn, the same attack on the same network comes close."""
    return Answer(
        min(_matched(network("mlp", widths=(64, 64)))),
        30.0,
        math.inf,
        "PSNR, no bottleneck, 300 steps, worse of 2 images",
    )


def _matched(model: nn.Module) -> list[float]:
    attack, found = ATTACKS["inverting_gradients"], []
    for place in (0, 1):
        batch = random_batch(1, place)
        guess = attack(steps=300, tv=1e-4, restarts=2)(watched(model, batch, place=place), model, derive(0))
        found.append(psnr(guess.images, batch.images).item())
    return found


def _drawing() -> nn.Module:
    """Behind PRECODE."""
    return Precode(width=32).wrap(network("mlp", widths=(64, 64)), derive(0, "precode"))


def _behind_soteria() -> tuple[Observation, Batch, Tensors]:
    """One image's gradient, its last layer defended; the image; and the clean gradient."""
    batch, model = random_batch(1), network("mlp", widths=(64, 64)).eval()
    state = state_of(model)
    clean = gradient(model, State(*state), batch).tree
    sent = Soteria(rate=0.8).gradient(model, state.weights, state.buffers, batch, derive(0))
    seen = watched(model, batch)
    return replace(seen, update=replace(seen.update, delta=sent)), batch, clean


def _scores(model: nn.Module, batch: Batch) -> Tensor:
    """``|dr/dx| / (r + 0.1)`` of each feature before the last layer ``(64,)``, one backward pass each."""
    images, heard = batch.images.clone().requires_grad_(), list[Tensor]()
    model.get_submodule("net.head").register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0][0]))
    model.eval()(images)
    lengths = [torch.autograd.grad(r, images, retain_graph=True)[0].norm() for r in heard[0]]
    return torch.stack(lengths) / (heard[0].detach() + 0.1)


def _cosine_at(seen: Observation, batch: Batch, *dropped: str) -> float:
    return cost_at(batch, Cosine(layers=Layers(dropped=dropped)), seen, network("mlp", widths=(64, 64)))


CHECKS: Mapping[str, Callable[[], Answer]] = MappingProxyType(
    {
        "K8 ratio exact": ratio_is_exact,
        "K8 ratio under noise": ratio_uses_all_rows,
        "K8 one row": one_row_alone_is_worse,
        "K8 rank": rank_separates_a_batch,
        "K9 naive": soteria_bounds_the_naive_attack,
        "K9 adaptive": soteria_leaves_the_rest,
        "K9 first layer": soteria_does_not_reach_the_first_layer,
        "K9 mask": soteria_prunes_what_it_says,
        "K10 ratio": bottleneck_hides_nothing_from_ratio,
        "K10 draws": bottleneck_moves_gradients,
        "K10 naive": matching_needs_the_draw,
        "K10 matching": matching_finds_the_image,
    }
)
