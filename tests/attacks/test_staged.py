"""Search inside a generator, phase by phase."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from attacks import ATTACKS
from attacks.generators import load
from attacks.likelihoods import DefenseDensity
from attacks.phases import Tuning, Untrained, Within, sizes
from attacks.problem import Problem
from attacks.solvers import Adam
from attacks.staged import Found, StagedSearch, chosen
from defenses.clipping import Clip
from defenses.noise import Gaussian
from defenses.quantization import Quantize
from defenses.sparsification import TopK
from fl_sim import models
from fl_sim.core.contracts import Attack, Defense, kind_of
from fl_sim.core.errors import ConfigError
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Outcome
from tests.attacks.problems import cost, guess_of
from tests.conftest import TASK, observe

DIGITS = load("digits")


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return models.build("mlp", TASK, 0, widths=[32])


def made(*labels: int, seed: int = 5) -> Batch:
    """Images that the bundled generator can make."""
    told = torch.tensor(labels)
    return Batch(DIGITS(DIGITS.start(len(labels), one_hot(told, 10).float(), derive(seed))), told)


def watched(net: nn.Module, batch: Batch) -> Observation:
    labels = Knowledge(labels=batch.labels.sort().values)
    return replace(observe(net, batch), knowledge=labels)


def attack(name: str, **options: Any) -> Attack:
    return ATTACKS[name](generator="digits", **{"steps": 25, "restarts": 2} | options)


def found(score: float, value: float = 0.0) -> Found:
    return Found(score, torch.full((1, 1, 2, 2), value), Outcome.OUT_OF_STEPS)


def test_the_best_restart_and_the_best_stage_are_returned_not_the_last() -> None:
    """arXiv 2308.04699's released code finds the best restart, and returns the last one's image."""
    tracks = [[found(3.0), found(1.0, 0.7), found(2.0)], [found(5.0), found(4.0), found(1.5, 0.2)]]
    assert chosen(tracks, "best").images.max() == pytest.approx(0.7)
    assert chosen(tracks, "last").images.max() == pytest.approx(0.2)
    assert chosen([[found(torch.nan), found(2.0, 0.4)]], "best").images.max() == pytest.approx(0.4)


def test_what_is_returned_is_the_best_of_all_chains_and_scores_as_it_says(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss is the angle of its own gradient, regularisers apart; the chain that found it is not the last."""
    found, chains = list[Found](), StagedSearch._chains

    def best_first(*args: Any) -> Any:
        (tracks,), steps = chains(*args)
        found.extend(one for track in tracks for one in track)
        return [sorted(tracks, key=lambda track: min(one.score for one in track))], steps

    monkeypatch.setattr(StagedSearch, "_chains", best_first)
    batch = made(2)
    guess = attack("gifd", tv=0.1, stages=2, restarts=3)(watched(net, batch), net, derive(0))
    best = min(found, key=lambda one: one.score)
    assert len(found) == 3 * 3
    assert guess.loss == best.score
    assert torch.equal(guess.images, best.images)
    again = observe(net, Batch(guess.images, batch.labels)).update.delta
    target = observe(net, batch).update.delta
    assert guess.loss == pytest.approx(1 - cosine(again, target), abs=1e-4)


def cosine(a: Any, b: Any) -> float:
    left, right = (torch.cat([t.flatten() for t in tree.values()]) for tree in (a, b))
    return float(left @ right / (left.norm() * right.norm()))


def test_later_stages_never_score_worse_than_the_latent_alone(net: nn.Module) -> None:
    for seed in range(3):
        seen = watched(net, Batch(torch.rand(1, 1, 8, 8, generator=derive(seed)), torch.tensor([seed])))
        latent, features = (attack(name)(seen, net, derive(7)) for name in ("gifd_z", "gifd"))
        assert features.loss <= latent.loss + 1e-6


def test_features_stay_in_their_ball(net: nn.Module) -> None:
    seen = watched(net, made(1, 4))
    problem = Problem.of(seen, net, derive(0), "cpu")
    start = DIGITS.run(DIGITS.start(4, one_hot(torch.tensor([1, 4, 1, 4]), 10).float(), derive(1)), 0, 1)
    variables = Within(solver=Adam(steps=1), place=1, feature=0.05).over(DIGITS, start, 2, derive(0))
    point = variables.start(problem, 2, derive(0))
    far = {name: v + torch.randn(v.shape, generator=derive(2)) for name, v in point.items()}
    moved = (variables.project(far, problem)["feature"] - point["feature"]).flatten(2).abs().sum(2)
    radius = 0.05 * sizes(DIGITS, 1, torch.device("cpu"))["feature"]
    assert torch.allclose(moved, torch.full((2, 2), radius), rtol=1e-3), "each image has a ball of its own"


def test_each_image_has_weights_of_its_own(net: nn.Module) -> None:
    """GIAS: one image's weights do not touch another image."""
    problem = Problem.of(watched(net, made(1, 4)), net, derive(0), "cpu")
    start = DIGITS.start(2, one_hot(torch.tensor([1, 4]), 10).float(), derive(1))
    variables = Tuning(solver=Adam(steps=1)).over(DIGITS, start, 2, derive(0))
    point = {name: w.clone() for name, w in variables.start(problem, 1, derive(0)).items()}
    before = variables.decode(point, problem).images
    assert torch.allclose(before[0], DIGITS(start), atol=1e-5)
    for weights in point.values():
        weights[:, 1] += 0.1
    after = variables.decode(point, problem).images
    assert torch.equal(after[0, 0], before[0, 0])
    assert not torch.allclose(after[0, 1], before[0, 1])


def test_untrained_weights_differ_from_trial_to_trial() -> None:
    network = Untrained(latents=4, width=16).build((1, 8, 8), 1)
    start, before = network.start(2, torch.zeros(2, 0), derive(0)), network.get_parameter("first.weight").clone()
    weights = Tuning(solver=Adam(steps=1), each="trial", fresh=True).over(network, start, 1, derive(0))
    drawn = weights.start(None, 2, derive(0))["first.weight"]  # type: ignore[arg-type]
    assert drawn.shape[:2] == (2, 1)
    assert not torch.allclose(drawn[0], drawn[1])
    assert torch.equal(network.get_parameter("first.weight"), before), "the network itself stays"


def test_an_untrained_network_outnumbers_the_pixels() -> None:
    wide = Untrained().build((1, 8, 8), 500)
    assert sum(w.numel() for w in wide.parameters()) > 4 * 500 * 64


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gifd", {"stages": 1}),
        ("gifd", {"stages": 0, "condition": "mapped", "coarse": 10}),
        ("gias", {"latent_steps": 10, "steps": 5}),
        ("ggl", {"steps": 6, "population": 8}),
    ],
)
def test_together_they_find_what_each_finds_alone(net: nn.Module, name: str, options: dict[str, Any]) -> None:
    seen = [watched(net, made(label, label + 1, seed=label)) for label in (1, 3, 6)]
    search = attack(name, **options)
    alone = [search(one, net, derive(0, i)) for i, one in enumerate(seen)]
    together = search.batched(seen, net, [derive(0, i) for i in range(3)])
    if name == "ggl":  # the draws of a population depend on its place
        assert together[0].loss == pytest.approx(alone[0].loss, rel=1e-3)
        return
    assert [one.loss for one in together] == pytest.approx([one.loss for one in alone], rel=1e-2, abs=1e-4)


def test_a_bayesian_gifd_needs_the_defense(net: nn.Module) -> None:
    seen = watched(net, made(2))
    search, short = (attack("gifd", match="defense", stages=0, steps=steps) for steps in (40, 2))
    assert "defense" in search.needs
    told = replace(seen, knowledge=Knowledge(defense_level=DefenseKnowledge.PARAMETERS, defenses=()))
    assert search(told, net, derive(0)).loss < short(told, net, derive(0)).loss


@pytest.mark.parametrize(
    "stack", [(Clip(norm=0.5), Gaussian(std=1e-3)), (TopK(keep=0.2),), (Quantize(bits=4),)], ids=repr
)
def test_its_likelihood_is_that_of_bayes_with_the_same_estimates(stack: tuple[Defense, ...], net: nn.Module) -> None:
    """Told the kinds of mechanisms: what it says of its own image is their density with estimated parameters."""
    seen = watched(net, made(2))
    update = seen.update
    for place, defense in enumerate(stack):
        update = defense.protect(update, derive(2, place)).update
    told = Knowledge(defense_level=DefenseKnowledge.KIND, defense_kinds=tuple(map(kind_of, stack)))
    seen = replace(seen, update=update, knowledge=told)
    guess = attack("gifd", match="defense", stages=1)(seen, net, derive(0))
    problem = Problem.of(seen, net, derive(0), "cpu")
    clean = problem.gradients(guess_of(guess.images[None], problem))
    assert guess.loss == pytest.approx(cost(DefenseDensity(), clean, problem).item(), rel=1e-4)


def test_published_radii_are_those_of_the_balls(net: nn.Module) -> None:
    """Around features, and around what was drawn, as of StyleGAN2; in their own units."""
    search = attack("gifd", stages=1, radii=[5.0], drawn=[1.0, 2.0])
    assert isinstance(search, StagedSearch)
    first, second = search.phases
    assert isinstance(first, Within)
    assert isinstance(second, Within)
    assert [(one.feature, one.drawn, one.relative) for one in (first, second)] == [(None, 1, False), (5, 2, False)]
    start = DIGITS.start(1, one_hot(torch.tensor([1]), 10).float(), derive(1))
    variables = first.over(DIGITS, start, 1, derive(0))
    far = {"latent": start["latent"][None] + 3}
    moved = variables.project(far, Problem.of(watched(net, made(1)), net, derive(0), "cpu"))["latent"] - start["latent"]
    assert moved.abs().sum().item() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gifd", {"stages": 2}),
        ("gifd", {"stages": 2, "condition": "mapped", "coarse": 10}),
        ("gias", {}),
        ("ggl", {}),
        ("gion", {}),
    ],
)
def test_seconds_are_of_all_restarts_and_phases(name: str, options: dict[str, Any]) -> None:
    """To a solver each restart is an observation, with seconds of its own."""
    source = {} if name == "gion" else {"generator": "digits"}
    search: Any = ATTACKS[name](**source, **options, restarts=4, seconds=12.0)
    assert 4 * sum(phase.solver.seconds for phase in (*search.coarse, *search.phases)) == pytest.approx(12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stages": 9}, "stages below"),
        ({"stages": 2, "radii": [1.0]}, "one for each of 2 stages"),
        ({"stages": 1, "drawn": [1.0, 1.0]}, "give both"),
        ({"stages": 1, "drawn": [1.0], "radii": [1.0]}, "one for each of 2 phases"),
    ],
)
def test_what_cannot_be_is_refused(net: nn.Module, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        attack("gifd", **options).check(watched(net, made(2)), net)
    other = replace(watched(net, made(2)), task=replace(TASK, classes=7))
    with pytest.raises(ConfigError, match="7 classes"):
        attack("gifd").check(other, net)
