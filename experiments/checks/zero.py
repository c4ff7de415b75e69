"""K1 to K6: softmax regression from zero weights, device Z, where posteriors have closed forms.

Its answer is 1/C to everything, so the weight gradient of one image is ``r x^T`` with ``r = 1/C - onehot(label)`` and
``x`` the normalised image: linear in the image. C = 10, hence ``|r|^2 = 0.9``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from attacks.likelihoods import L1, L2, Cosine, DefenseDensity, Likelihood
from attacks.priors import GaussianPixels, Prior, TotalVariation
from attacks.problem import Problem
from attacks.solvers import LBFGS, Adam, Solver
from experiments.checks.answer import Answer, near
from experiments.checks.world import QUASI_NEWTON, defended, made, network, pixels, rows, searched, watched
from fl_sim.core.contracts import Defense
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation

LABEL, NOISE, DRAWS, SPREAD, CENTRE = 4, 0.1, 60, 0.3, 0.5
PRIOR = GaussianPixels(mean=CENTRE, std=SPREAD)
UNKNOWN_MASK, PATIENT = DefenseDensity(randomness="ignored"), LBFGS(steps=100)  # it has several modes an entry
RESIDUAL = torch.full((10,), 0.1) - torch.nn.functional.one_hot(torch.tensor(LABEL), 10)
SQUARED = RESIDUAL.square().sum().item()


def gaussian_prior_and_noise() -> Answer:
    """K1: the posterior is Gaussian; mode, mean and Bayes-optimal guess are one."""
    expected = 1 / (1 / SPREAD**2 + SQUARED / NOISE**2)
    return near(_error(_gaussian(), DefenseDensity(), PRIOR), expected, 0.08 * expected, "s^2 = 1/(1/t^2 + |r|^2/s^2)")


def gaussian_noise_alone() -> Answer:
    """K1: without a prior, least squares."""
    expected = NOISE**2 / SQUARED
    return near(_error(_gaussian(), L2()), expected, 0.08 * expected, "MSE = s^2 / |r|^2")


def gaussian_risk() -> Answer:
    """K1: the risk at the distance ``sqrt(d s^2)`` is ``P(chi^2_64 > 64)``."""
    variance = 1 / (1 / SPREAD**2 + SQUARED / NOISE**2)
    misses = _errors(_gaussian(), DefenseDensity(), PRIOR, draws=200) > variance
    return near(misses.float().mean().item(), 0.477, 0.12, "P(chi^2_64 > 64), 200 draws")


def total_variation_is_a_filter() -> Answer:
    """K2: with periodic squared total variation, each frequency of the least-squares image is damped by its own factor;
    200 steps of Adam come near it.
    """
    weight, truth = 1.0, _truth(0)
    seen = defended(_seen(truth), _gaussian())
    sharpness = SQUARED / NOISE**2
    wave = 2 - 2 * torch.cos(2 * torch.pi * torch.arange(8) / 8)
    damping = sharpness / (sharpness + 2 * weight * (wave[:, None] + wave))
    image = (rows(seen.update.delta)[0].T @ RESIDUAL / SQUARED).view(8, 8)
    exact = torch.fft.ifft2(torch.fft.fft2(image) * damping).real
    prior = TotalVariation(weight=weight, power=2, reduction="sum", periodic=True)
    solver = Adam(steps=200, step_size=0.1, schedule="steps")
    found = searched(seen, network("softmax"), DefenseDensity(), prior, solver=solver)
    return Answer((found - exact).abs().max().item(), 0.0, 5e-3, "x = F^-1[F(z) a / (a + 2 w L)], 200 steps of Adam")


def total_variation_has_the_paper_s_unit() -> Answer:
    """K2: one pixel of 1 on 0 differs from its four neighbours by 1."""
    truth = torch.zeros(64).index_fill(0, torch.tensor(27), 1.0)
    seen, model = _seen(truth), network("softmax")
    prior = TotalVariation(weight=1.0, power=2, reduction="sum", periodic=True)
    cost = prior(pixels(truth)[None], Problem.of(seen, model, derive(0), "cpu"))
    return near(cost.item(), 4.0, 1e-4, "four squared differences of 1")


def laplace_mode() -> Answer:
    """K3: under Laplace noise ``g_y / r_y`` is always a most likely image, since ``|r_y|`` is half of all weights."""
    seen = defended(_seen(_truth(1)), [made("laplace", scale=NOISE)])
    gradient = rows(seen.update.delta)[0]
    exact = gradient[LABEL] / RESIDUAL[LABEL]
    solver = Adam(steps=600, step_size=0.1, schedule="exponential", decay=0.985)
    found = searched(seen, network("softmax"), L1(), solver=solver).flatten()
    costs = [(gradient - RESIDUAL[:, None] * x).abs().sum().item() for x in (found, exact)]
    return Answer(costs[0] / costs[1] - 1, -1e-6, 1e-3, "cost over that of x = g_y / r_y, minus 1")


def laplace_least_squares() -> Answer:
    """K4: the mode is not the best guess in PSNR: under Laplace noise least squares beats it by 0.46 dB."""
    stack = [made("laplace", scale=NOISE)]
    modes = [
        (rows(defended(_seen(_truth(i)), stack, i).update.delta)[0][LABEL] / RESIDUAL[LABEL] - _truth(i))
        .square()
        .mean()
        for i in range(DRAWS)
    ]
    gain = 10 * (torch.stack(modes).mean() / _error(stack, L2())).log10()
    return near(gain.item(), 0.46, 0.15, "10 log10(0.9 / 0.81) dB")


def pruning_with_known_mask() -> Answer:
    """K5: pruning and Gaussian noise, mask known: only kept entries count."""
    return near(_error(_pruned(), DefenseDensity(), PRIOR), 0.03751, 0.004, "E over masks of the posterior variance")


def pruning_blind() -> Answer:
    """K5: squared differences against an update that has been pruned."""
    return near(_error(_pruned(), L2()), 0.1651, 0.015, "(p^2 + p(1-p) sum r^4/|r|^4) E x^2 + s^2/|r|^2")


def pruning_blind_with_prior() -> Answer:
    """K5: the same, with the images' own prior and the noise known: as if nothing had been pruned."""
    prior, noise, square = 1 / SPREAD**2, SQUARED / NOISE**2, CENTRE**2 + SPREAD**2
    lost = (SQUARED**2 + RESIDUAL.pow(4).sum().item()) / 4 / NOISE**4  # p = 1/2: mean square of what pruning takes
    expected = (prior + noise * (1 + SPREAD**2 * prior) + square * lost) / (prior + noise) ** 2
    error = _errors(_pruned(), DefenseDensity(), PRIOR, told=_gaussian()).mean().item()
    return near(error, expected, 0.012, "(1/t^2 + 2 R/s^2 + E x^2 (R^2 + sum r^4) / 4 s^4) / (1/t^2 + R/s^2)^2")


def pruning_with_unknown_mask() -> Answer:
    """K5: the mask summed over: between the errors of the posterior's mean and of its global mode."""
    error = _errors(_pruned(), UNKNOWN_MASK, PRIOR, solver=PATIENT).mean().item()
    return Answer(error, 0.0523 - 0.004, 0.0604 + 0.006, "between posterior mean and global mode, simulated")


def knowing_more_helps() -> Answer:
    """K5: known mask < unknown mask < blind in error, on the same draws."""
    known, blind = (_errors(_pruned(), DefenseDensity(), PRIOR, draws=20, told=t).mean() for t in (None, _gaussian()))
    unknown = _errors(_pruned(), UNKNOWN_MASK, PRIOR, draws=20, solver=PATIENT).mean()
    gap = min(unknown - known, blind - unknown).item()
    return Answer(gap, 1e-3, math.inf, "smaller gap in MSE, 20 draws")


def cosine_optimum() -> Answer:
    """K6: the angle is smallest at ``v_x / v_1`` with ``v = [g_W | g_b]^T r``."""
    seen = defended(_seen(_truth(2)), _gaussian())
    weight, bias = rows(seen.update.delta)
    exact = (weight.T @ RESIDUAL) / (bias @ RESIDUAL)
    found = searched(seen, network("softmax"), Cosine()).flatten()
    return Answer((found - exact).abs().max().item(), 0.0, 5e-3, "x = v_x / v_1")


def cosine_sees_through_clipping() -> Answer:
    """K6: clipping alone changes no angle, so nothing is hidden, however small the norm."""
    worst = 0.0
    for norm in (1e-3, 0.1, 1.0):
        seen = defended(_seen(_truth(3)), [made("clip", norm=norm)])
        found = searched(seen, network("softmax"), Cosine()).flatten()
        worst = max(worst, (found - _truth(3)).abs().max().item())
    return Answer(worst, 0.0, 5e-3, "the image itself, clip norms 0.001, 0.1, 1")


def _truth(place: int) -> Tensor:
    return CENTRE + SPREAD * torch.randn(64, generator=derive(0, "truth", place))


def _seen(truth: Tensor) -> Observation:
    return watched(network("softmax"), Batch(pixels(truth), torch.tensor([LABEL])))


def _gaussian() -> list[Defense]:
    return [made("gaussian", std=NOISE)]


def _pruned() -> list[Defense]:
    return [made("random_prune", rate=0.5, mask="fresh"), made("gaussian", std=NOISE)]


def _error(stack: Sequence[Defense], likelihood: Likelihood, *priors: Prior, draws: int = DRAWS) -> float:
    return _errors(stack, likelihood, *priors, draws=draws).mean().item()


def _errors(
    stack: Sequence[Defense],
    likelihood: Likelihood,
    *priors: Prior,
    draws: int = DRAWS,
    solver: Solver = QUASI_NEWTON,
    told: Sequence[Defense] | None = None,
) -> Tensor:
    """Mean squared error of each of several images and draws of the defense, ``(draws,)``, in normalised units.

    The adversary is told the truth about the stack and what it drew, or that it was ``told``.
    """
    found = []
    for i in range(draws):
        seen = defended(_seen(_truth(i)), stack, i)
        if told is not None:
            seen = replace(seen, knowledge=replace(seen.knowledge, defenses=tuple(told), randomness={}))
        guess = searched(seen, network("softmax"), likelihood, *priors, solver=solver)
        found.append((guess.flatten() - _truth(i)).square().mean())
    return torch.stack(found)


CHECKS: Mapping[str, Callable[[], Answer]] = MappingProxyType(
    {
        "K1 gaussian posterior": gaussian_prior_and_noise,
        "K1 least squares": gaussian_noise_alone,
        "K1 risk": gaussian_risk,
        "K2 total variation": total_variation_is_a_filter,
        "K2 unit": total_variation_has_the_paper_s_unit,
        "K3 laplace mode": laplace_mode,
        "K4 mode against mean": laplace_least_squares,
        "K5 known mask": pruning_with_known_mask,
        "K5 unknown mask": pruning_with_unknown_mask,
        "K5 blind": pruning_blind,
        "K5 blind with prior": pruning_blind_with_prior,
        "K5 order": knowing_more_helps,
        "K6 cosine": cosine_optimum,
        "K6 clipping": cosine_sees_through_clipping,
    }
)
