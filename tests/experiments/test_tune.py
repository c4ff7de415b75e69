"""Tuning: on other images, argument by argument, the best by mean PSNR; nothing is run that could not be built."""

import tomllib
from pathlib import Path

import pytest

from attacks.posterior import PosteriorSearch
from experiments.check import check
from experiments.config import Study, load_dict
from experiments.parts import AttackPart, canonical
from experiments.tune import Plan, Tuning, as_toml, edges
from experiments.watch import Silent
from fl_sim.core.errors import ConfigError, FlSimError
from fl_sim.runtime.store import RunStore

TREE = {
    "name": "tuned",
    "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": [16]},
    "federation": {"clients": 3, "rounds": 1},
    "evaluation": {"lpips": False, "public_images": 20, "test_images": 20},
    "grid": {"defense": ["none", {"name": "gaussian", "std": 0.01}], "seed": [0]},
}


def study(**attack: object) -> Study:
    return load_dict({**TREE, "attacks": [{"name": "inverting_gradients", "steps": 30, **attack}]}, "test")


def tuning(of: Study, store: RunStore, seed: int = 7, oracle: bool = False, sweeps: int = 1) -> Tuning:
    return Tuning(
        study=of,
        store=store,
        plan=Plan(seed=seed, clients=2, sweeps=sweeps, oracle=oracle),
        command="fl-sim tune",
        data_dir=None,
        executor="inline",
    )


def test_the_best_value_is_found_for_each_defense(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        asked = tuning(study(tune={"step_size": [1e-6, 0.1], "tv": [1e-3]}), store)
        found = asked(Silent())
        by_label = {r["attack"] for r in store.records()}
    assert by_label == {
        "inverting_gradients step_size=1e-06",
        "inverting_gradients step_size=0.1",
        "inverting_gradients tv=0.001",
    }
    best = {"step_size": 0.1, "tv": 1e-3}
    assert found == {"inverting_gradients": {"none": best, "gaussian(std=0.01)": best}}
    assert '"gaussian(std=0.01)" = { step_size = 0.1, tv = 0.001 }' in as_toml(found)


def test_a_second_sweep_starts_from_the_best_of_the_first(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        tuning(study(tune={"step_size": [1e-6, 0.1], "tv": [1e-3]}), store, sweeps=2)(Silent())
        settings = {part["label"]: part["tuned"]["none"] for part in store.about()["study"]["attacks"]}
    assert settings["inverting_gradients tv=0.001"] == {"step_size": 0.1, "tv": 1e-3}
    assert settings["inverting_gradients step_size=1e-06"] == {"step_size": 1e-6}
    assert settings["inverting_gradients step_size=1e-06 again 1"] == {"step_size": 1e-6, "tv": 1e-3}


def test_a_trial_that_failed_names_no_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no memory")

    for way in ("_reconstruct", "_batched"):
        monkeypatch.setattr(PosteriorSearch, way, broken)
    with RunStore(tmp_path / "run") as store, pytest.raises(FlSimError, match=r"4 failed, such as .*no memory"):
        tuning(study(tune={"tv": [1e-3]}), store)(Silent())


def test_what_was_found_is_toml_also_of_tables() -> None:
    setting = {"tv": 0.1, "priors": [{"name": "clip", "weight": 3.0}], "box": False, "layers": "equal"}
    found = {"l2": {"random_prune(rate=0.5) + gaussian(std=0.1)": setting}}
    assert tomllib.loads(as_toml(found)) == {"attacks": {"tuned": found["l2"]}}


def test_a_winner_at_the_end_of_the_values_is_said() -> None:
    tune = {"tv": [1.0, 0.1, 0.01], "steps": [5, 6, 7], "init": ["dark", "light", "mean"], "anneal_from": [1.0, 0.1]}
    study = Study(name="t", attacks=[AttackPart(name="l2", tune=tune)])
    best = {"l2": {"none": {"tv": 0.01, "steps": 6, "init": "dark", "anneal_from": 1.0}}}
    assert list(edges(study, best)) == ["l2 against none: tv = 0.01 is at the end of the values tried"]


def test_reported_images_are_refused_unless_the_oracle_is_asked(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        with pytest.raises(ConfigError, match="choose another --seed"):
            tuning(study(tune={"tv": [1e-3]}), store, seed=0).refuse_reported_images()
        tuning(study(tune={"tv": [1e-3]}), store, seed=0, oracle=True).refuse_reported_images()


def test_what_cannot_be_built_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        with pytest.raises(ConfigError, match="step_sise"):
            tuning(study(tune={"step_sise": [0.1]}), store)(Silent())
        with pytest.raises(ConfigError, match="values to try"):
            tuning(study(), store)(Silent())
        assert not store.exists()


def test_settings_for_a_defense_that_no_cell_has_are_refused() -> None:
    for setting in ({"only": ["gaussian(std=0.02)"]}, {"tuned": {"gaussian(std=0.02)": {"tv": 0.1}}}):
        with pytest.raises(ConfigError, match=r"did you mean 'gaussian\(std=0.01\)'"):
            check(study(**setting))


def test_the_order_of_a_defenses_arguments_does_not_matter() -> None:
    assert canonical("a(x=1, y=2) + b") == canonical("a(y=2, x=1) + b") != canonical("a(y=1, x=2) + b")
