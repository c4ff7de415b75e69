"""What a report calls its settings."""

from experiments.report.input import Setting


def test_axes_are_named_by_their_keys() -> None:
    axes = (("federation.batch_size", "4"), ("model.name", "cnn"))
    assert Setting("none", axes, ("cell",)).label == "no defense, batch size 4, model cnn"


def test_axes_of_one_key_are_named_in_full() -> None:
    axes = (("data.partition.alpha", "1"), ("model.alpha", "2"))
    assert Setting("topk(0.1)", axes, ("cell",)).label == "topk(0.1), data.partition.alpha 1, model.alpha 2"
