import torch

from fl_sim.core.seeds import derive, derive_int


def test_a_seed_stays_what_it_was_in_the_first_release() -> None:
    assert derive_int(0) == 6197007067532723406
    assert derive_int(0, "attack", 3, 1) == 727588590061047625


def test_a_seed_does_not_depend_on_what_was_derived_before() -> None:
    scopes = [("attack", 1), ("attack", 2), ("noise", 1)]
    forwards = {scope: torch.rand(4, generator=derive(5, *scope)).tolist() for scope in scopes}
    backwards = {scope: torch.rand(4, generator=derive(5, *scope)).tolist() for scope in reversed(scopes)}
    assert forwards == backwards


def test_every_place_has_a_seed_of_its_own() -> None:
    places = [
        (seed, kind, round_, client) for seed in (0, 1) for kind in "ab" for round_ in (1, 11) for client in (1, 2)
    ]
    assert len({derive_int(*place) for place in places}) == len(places)
    assert derive_int(0, "a", "b") != derive_int(0, "b", "a")
    assert derive_int(1, 11) != derive_int(11, 1)
    assert derive_int(0, "a/b") != derive_int(0, "a", "b")
    assert derive_int(0, "2") != derive_int(0, 2)


def test_torch_takes_every_seed() -> None:
    seeds = [derive_int(0, i) for i in range(200)]
    assert min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63


def test_torchs_own_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=derive(0))
    assert torch.equal(torch.get_rng_state(), before)
