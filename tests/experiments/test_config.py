from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments import config
from experiments.build import cells
from experiments.check import check, load
from experiments.config import Study
from experiments.parts import AttackPart
from fl_sim.core.errors import ConfigError

Write = Callable[[str], Path]
SMALL = 'name = "t"\nmodel = "softmax"\nattack = "ratio"\n'


def problems(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(load(path, overrides))
    return "\n".join(caught.value.problems)


def test_bundled_studies_are_right_and_begin_with_a_question() -> None:
    assert {"demo", "mnist_noise", "cifar10_pruning"} <= set(config.bundled())
    for name in config.bundled():
        path = config.find(name)
        assert config.load(path).name == name
        assert "?" in config.question(path)
        assert "Expected:" in config.question(path)


def test_everything_has_a_default(study_file: Write) -> None:
    study = config.load(study_file('name = "t"'))
    assert study.federation.clients == 4
    assert study.adversary.labels is False


def test_attack_and_attacks_are_one_thing(study_file: Write) -> None:
    one = config.load(study_file('name = "t"\n[attack]\nname = "ig"\nsteps = 5'))
    many = config.load(study_file('name = "t"\n[[attacks]]\nname = "ig"\nsteps = 5'))
    assert one == many
    with pytest.raises(ConfigError, match="got both"):
        config.load(study_file('name = "t"\nattack = "ig"\n[[attacks]]\nname = "ratio"'))


def test_a_study_that_was_written_out_reads_the_same(study_file: Write) -> None:
    study = config.load(study_file(SMALL + "[grid]\nseed = [0, 1]"))
    assert config.load_dict(study.as_dict(), "again") == study


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("name = ", [], "expected TOML"),
        ('name = "t"\ncolour = 1', [], "colour is not a key"),
        (SMALL + "[federation]\nclient = 3", [], "federation.client is not a key; .*did you mean 'clients'"),
        (SMALL, ["federation.clients=0"], "federation.clients: .*greater than or equal to 1, got 0"),
        (SMALL, ["federation.clients=3.5"], "federation.clients: .*integer"),
        (SMALL, ["defenses=gausian"], "no defense 'gausian'; .*did you mean 'gaussian'"),
        (SMALL, ["defenses={name='gaussian'}"], "defense gaussian: expected std, which has no default"),
        (SMALL, ["defenses={name='gaussian', std=-1}"], "defense gaussian: std: .*greater than or equal to 0.*got -1"),
        (SMALL, ["defenses={name='topk', keep=2}"], "defense topk: keep: .*less than or equal to 1"),
        (SMALL, ["defenses={name='soteria', rate=0.5, layer='nix'}"], "soteria: layer must be one of .*got 'nix'"),
        (SMALL, ["attack={name='inverting_gradient'}"], "no attack .*did you mean 'inverting_gradients'"),
        (SMALL, ["attack={name='ig', steps=0}"], "attack inverting_gradients: steps: .*greater than 0"),
        (SMALL, ["attack={name='ig', speed=9}"], "attack inverting_gradients: speed is not an argument"),
        (SMALL, ["model=resnet19"], "resnet19.*did you mean 'resnet18'"),
        (SMALL, ["data.name=mnits"], "did you mean 'mnist'"),
        (SMALL, ["data.partition.kind=dirichlet", "data.partition.alpha=0"], "alpha|greater than 0"),
        (SMALL, ["federation.strategy=FedAvgg"], "no strategy 'FedAvgg'"),
        (SMALL, ["federation.cohort=9"], "federation.cohort: expected at most clients = 4, got 9"),
        (SMALL, ["adversary.rounds=[7]"], "adversary.rounds: expected numbers up to rounds = 3, got 7"),
        (SMALL, ["adversary.clients=[4]"], "adversary.clients: expected numbers below clients = 4, got 4"),
        (SMALL, ["adversary.view=all"], "adversary.view: .*'client' or 'aggregate'"),
        (SMALL, ["grid.seed=[]"], "at least one value"),
        (SMALL, ["grid.defense=['none', 'none']"], "different cells"),
        (SMALL, ["grid.'federation.speed'=[1]"], "speed"),
        (SMALL, ["attacks=['ratio', 'ratio']", "attack=[]"], "got both"),
        (SMALL, ["rounds"], "expected key=value"),
        (SMALL, ["federation.batch_size=300"], "at most 256 images in an update that is attacked, got 300"),
        (SMALL, ["federation.mode=fedavg"], "at most 256 images .* set data.per_client"),
        (SMALL, ["federation.clients=3000"], "3000 clients cannot share 1437 images"),
        (SMALL, ["attack=bayes"], 'attack bayes: .* needs to know defense.*set defense = "kind"'),
        (SMALL, ["model=cnn"], r"attack ratio: .*first layer that is Linear\(64, .*softmax or mlp"),
        (SMALL, ["model=mlp", "attack=grad_inversion"], "attack grad_inversion: .*batch norm.*resnet18 or convnet"),
        (SMALL, ["model=lenet", "attack=r_gap", "federation.batch_size=2"], "attack r_gap: .*batch_size = 1"),
        (
            SMALL,
            ["model=lenet", "attack=r_gap", "federation.mode='fedavg'", "data.per_client=2", "adversary.clients=[3]"],
            "attack r_gap: .* 2 are in this update",
        ),
        (SMALL, ["adversary.protocol=false", "federation.mode=fedavg", "attack=l2"], "grant protocol"),
        (SMALL, ["defenses=['signsgd', {name='gaussian', std=0.1}]"], r"defenses: signsgd \+ gaussian.*decode.*last"),
        (SMALL, ["defenses=[{name='powersgd', rank=2}, 'quantize']"], "put quantize, signsgd, powersgd or sketch last"),
        (SMALL, ["attack={name='bayes', tv=-1.0}"], r"attack bayes: TotalVariation\.weight: .*got -1"),
        (SMALL, ["attack='gieping'"], "no attack 'gieping'.*did you mean 'geiping'"),
        (SMALL, ["attack={name='l2', tune={tvv=[0.1]}}"], "tune: attack l2: .*tvv"),
        (SMALL, ["attack={name='l2', priors=[{name='gaussian', path='x'}]}"], "prior gaussian: path: .*[Uu]nexpected"),
        (SMALL, ["attack={name='bayes', form='exact'}"], "delta = 0 has none"),
        (SMALL, ["attack={name='bayes', decay=0.0}"], "decay: .*greater than 0"),
        (SMALL, ["attack={name='ig', init='image', image='nowhere.npy'}"], "no file nowhere.npy"),
        (
            SMALL,
            ["attack={name='l2', priors=[{name='dist_gmm', dim=9}]}"],
            r"attack l2: .*dist_gmm: dim = 64",
        ),
        (SMALL, ["adversary.defense='parameters'", "attack={name='bayes', draws='joint'}"], "no stochastic module"),
        (
            SMALL,
            ["model=tests.experiments.studies:with_dropout", "federation.batchnorm='train'"],
            "also trains with Dropout.*global generator",
        ),
        (SMALL, ["data.image_size=4"], "images of 7x7 pixels or more"),
        (SMALL, ["data.path=/x"], "expected only with npz or folder, got it with 'digits'"),
        (SMALL, ["model=torch.nn:Flatten"], "should give 10 logits an image, got .64"),
        (SMALL, ["model={name='torch.nn:Linear', in_features=3, out_features=10}"], "it raised RuntimeError"),
        (SMALL, ["name=../../etc"], "name"),
    ],
)
def test_what_is_wrong_is_said(study_file: Write, text: str, overrides: list[str], expected: str) -> None:
    import re

    assert re.search(expected, problems(study_file(text), *overrides), re.DOTALL)


def test_an_override_of_nothing_unsets(study_file: Write) -> None:
    """So that a study which names its rounds can be attacked by records instead."""
    path = study_file(SMALL + "[adversary]\nrounds = [1]\nlabels = true")
    changed = config.load(path, ["adversary.rounds=", "adversary.records=[0]"])
    assert (changed.adversary.rounds, changed.adversary.records, changed.adversary.labels) == (None, [0], True)


def test_all_problems_are_said_at_once(study_file: Write) -> None:
    found = problems(
        study_file(SMALL + '[[defenses]]\nname = "topk"\nkeep = 2\n[[defenses]]\nname = "gausian"'), "model=x"
    )
    assert all(word in found for word in ("keep", "gausian", "'x'"))


def test_parts_are_tried_also_where_keys_are_wrong(study_file: Write) -> None:
    text = SMALL + '[grid]\ndefense = ["none", {name = "topk", keep = 2}]\n[data]\nnme = "x"'
    found = problems(study_file(text.replace("ratio", "ratoi")), "federation.clients=0")
    assert all(word in found for word in ("keep", "ratoi", "nme", "federation.clients"))


def test_a_grid_makes_cells_in_order(study_file: Write) -> None:
    text = SMALL + '[grid]\ndefense = ["none", {name = "gaussian", std = 0.1}, ["topk-stack"]]\nseed = [0, 1]\n'
    study = config.load(study_file(text.replace('["topk-stack"]', '[{name = "topk", keep = 0.1}, "quantize"]')))
    found = cells(study)
    assert [c.name for c in found][:3] == [
        "defense=none, seed=0",
        "defense=none, seed=1",
        "defense=gaussian(std=0.1), seed=0",
    ]
    assert found[4].defense == "topk(keep=0.1) + quantize"
    assert [c.study.seed for c in found] == [0, 1] * 3
    assert all("/" not in c.folder and " " not in c.folder for c in found)


def test_the_attacks_hash_is_of_settings_and_files_but_not_of_values_to_try(tmp_path: Path) -> None:
    def of(**arguments: Any) -> str:
        return Study(name="t", attacks=[AttackPart(name="bayes", **arguments)]).attacks_hash()

    prior = tmp_path / "prior.safetensors"
    prior.write_bytes(b"one")
    with_file = {"priors": [{"name": "vae", "path": str(prior)}]}
    before = of(**with_file)
    assert before == of(**with_file, tune={"tv": [1, 2]})
    assert len({before, of(**with_file, tv=0.3), of(**with_file, tuned={"none": {"tv": 0.3}}), of()}) == 4
    prior.write_bytes(b"two")
    assert of(**with_file) != before


def test_the_hash_is_of_what_records_depend_on(study_file: Write) -> None:
    base = config.load(study_file(SMALL))
    assert base.hash() == config.load(study_file(SMALL), ["runtime.actors=7"]).hash()
    assert base.hash() != config.load(study_file(SMALL), ["federation.rounds=2"]).hash()


def test_a_missing_study_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'demo'"):
        config.find("dmo")
    with pytest.raises(ConfigError, match="no file"):
        config.find("nowhere.toml")


def test_clients_that_are_not_attacked_may_hold_many_images(study_file: Write) -> None:
    sizes = ["federation.mode=fedavg", "federation.clients=2", "data.partition={kind='sizes', sizes=[1, 400]}"]
    check(load(study_file(SMALL), [*sizes, "adversary.clients=[0]"]))
    assert "got 400" in problems(study_file(SMALL), *sizes, "adversary.clients=[1]")
