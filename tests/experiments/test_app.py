"""What Flower's entry points make of a run's configuration."""

from pathlib import Path

import pytest

from experiments import app, config
from experiments.build import cells
from experiments.commands.deployment import text_of_study
from experiments.deploy import shares
from experiments.deploy.place import Place
from fl_sim.core.errors import ConfigError
from fl_sim.data.clients import ClientData
from tests.experiments.studies import TINY


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_a_study_that_travels_is_the_study(study: Path) -> None:
    overrides = ["federation.rounds=1", "grid.defense=['none', {name = 'topk', keep = 0.5}]", "data.name=digits"]
    text = text_of_study(study, overrides)
    asked = app.request_of({"study": "elsewhere.toml", "text": text})
    assert asked.study() == config.load(study, overrides)
    assert config.question_in(asked.text) == config.question(study)


def test_a_study_by_name_is_looked_up_here() -> None:
    asked = app.request_of({"study": "demo", "text": "", "overrides": "federation.rounds=1"})
    assert asked.study() == config.load(config.find("demo"), ["federation.rounds=1"])


def test_a_client_with_a_folder_reads_nothing_else(
    tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, cell = Place(tmp_path), cells(config.load(study))[0]
    for client in range(2):
        place.add_client(client, 2)
    shares.deal(place, [cell], None)
    expected = cell.job(None)
    images = [expected.data.batch(1, round_, 1).images for round_ in (1, 2)]
    monkeypatch.setattr(ClientData, "dataset", lambda _: pytest.fail("the whole data set was read"))
    job = app._job(app.request_of({"study": str(study)}), cell.folder, str(place.client(1)))
    assert [job.data.batch(1, round_, 1).images.tolist() for round_ in (1, 2)] == [i.tolist() for i in images]
    assert job.model == expected.model
    assert job.protocol == expected.protocol


def test_cells_that_divide_alike_share_a_file_and_each_client_has_its_own(tmp_path: Path, study: Path) -> None:
    place, grid = Place(tmp_path), cells(config.load(study))
    for client in range(2):
        place.add_client(client, 2)
    shares.deal(place, grid, None)
    files = [sorted((place.client(client) / "data").iterdir()) for client in range(2)]
    assert len(grid) == 2
    assert [len(some) for some in files] == [1, 1]
    assert files[0][0].read_bytes() != files[1][0].read_bytes()


def test_more_clients_than_folders(tmp_path: Path, study: Path) -> None:
    place = Place(tmp_path)
    place.add_client(0, 1)
    with pytest.raises(ConfigError, match="expected a study of at most 1 clients, got 2"):
        shares.deal(place, cells(config.load(study)), None)
