import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fl_sim.core.errors import ConfigError
from fl_sim.data import Partition, indices

LABELS = torch.arange(200) % 10

KINDS = [
    Partition(),
    Partition(kind="dirichlet", alpha=0.3),
    Partition(kind="pathological", classes_per_client=3),
    Partition(kind="linear"),
    Partition(kind="square"),
    Partition(kind="exponential"),
    Partition(kind="sizes", sizes=(7, 1, 50, 2)),
]


@pytest.mark.parametrize("partition", KINDS, ids=lambda partition: partition.kind)
def test_shares_are_disjoint_and_the_same_from_the_cache_and_afresh(
    partition: Partition, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = indices(LABELS, partition, 4, 0)
    everything = torch.cat(shares)
    assert len(shares) == 4
    assert everything.dtype == torch.int64
    assert len(set(everything.tolist())) == len(everything)
    assert everything.min() >= 0
    assert everything.max() < len(LABELS)
    kept = indices(LABELS, partition, 4, 0)
    monkeypatch.setenv("FL_SIM_CACHE", str(cache / "another"))
    afresh = indices(LABELS, partition, 4, 0)
    for first, second, third in zip(shares, kept, afresh, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


@pytest.mark.parametrize("partition", KINDS, ids=lambda partition: partition.kind)
def test_the_seed_decides(partition: Partition) -> None:
    first, second = indices(LABELS, partition, 4, 0), indices(LABELS, partition, 4, 1)
    assert torch.cat(first).tolist() != torch.cat(second).tolist()


def sizes(partition: Partition) -> list[int]:
    return [len(share) for share in indices(LABELS, partition, 4, 0)]


def test_sizes_are_as_asked() -> None:
    assert sizes(Partition()) == [50, 50, 50, 50]
    assert sizes(Partition(kind="linear")) == [20, 40, 60, 80]
    assert sizes(Partition(kind="sizes", sizes=(7, 1, 50, 2))) == [7, 1, 50, 2]
    assert sizes(Partition(kind="square")) == sorted(sizes(Partition(kind="square")))


def test_pathological_gives_few_classes() -> None:
    shares = indices(LABELS, Partition(kind="pathological", classes_per_client=3), 4, 0)
    assert [len(set(LABELS[share].tolist())) for share in shares] == [3, 3, 3, 3]


def test_a_small_alpha_is_more_skewed() -> None:
    def largest_class(alpha: float) -> float:
        shares = indices(LABELS, Partition(kind="dirichlet", alpha=alpha), 4, 0)
        return sum(LABELS[share].bincount().max().item() / len(share) for share in shares) / 4

    assert largest_class(0.1) > largest_class(100) + 0.1


def test_a_share_is_in_no_order_of_class() -> None:
    for share in indices(LABELS, Partition(kind="dirichlet", alpha=1), 4, 0):
        assert LABELS[share].tolist() != sorted(LABELS[share].tolist())


@pytest.mark.parametrize(
    ("partition", "clients", "message"),
    [
        (Partition(), 201, "201 clients cannot share 200 images"),
        (Partition(kind="dirichlet", alpha=0.001), 100, r"raise partition\.alpha"),
        (Partition(kind="pathological", classes_per_client=11), 4, r"change partition\.classes_per_client"),
        (Partition(kind="exponential"), 50, "lower clients"),
        (Partition(kind="sizes", sizes=(1, 2)), 4, "must be 4 numbers"),
        (Partition(kind="sizes", sizes=(100, 101)), 2, "of sum 200 at most"),
    ],
)
def test_what_cannot_be_is_refused(partition: Partition, clients: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        indices(LABELS, partition, clients, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.1}, "alpha belongs to kind = 'dirichlet'"),
        ({"kind": "dirichlet", "classes_per_client": 2}, "classes_per_client belongs to kind = 'pathological'"),
        ({"kind": "sizes"}, "needs sizes"),
        ({"kind": "dirichlet", "alpha": 0.0}, "greater than 0"),
        ({"kind": "zipf"}, "'iid', 'dirichlet'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Partition(**options)


def test_a_second_process_does_not_import_the_library() -> None:
    script = (
        "import sys, torch; from fl_sim.data import Partition, indices;"
        "print(torch.cat(indices(torch.arange(200) % 10, Partition(), 4, 0)).tolist());"
        "assert not {'datasets', 'flwr_datasets'} & set(sys.modules)"
    )
    shares = indices(LABELS, Partition(), 4, 0)
    answer = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == str(torch.cat(shares).tolist())
