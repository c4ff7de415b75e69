"""A made-up run for the report: gains over the controls are chosen, so its verdicts are known."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from experiments.report import Picture, ReportInput

LEVELS = {
    ("none", "fast"): 15.0,
    ("none", "adaptive"): 16.0,
    ("topk(0.1)", "fast"): 3.0,
    ("topk(0.1)", "adaptive"): 8.0,
}
"""Mean gain over the unrelated-gradient control in dB, by defense and attack; 0 where nothing is said."""

STUDY: dict[str, Any] = {
    "name": "three-defenses",
    "seed": 7,
    "data": {"name": "digits", "clients": 4},
    "model": {"name": "lenet"},
    "federation": {"mode": "fedsgd", "rounds": 10, "learning_rate": 0.1},
    "defenses": [{"name": "gaussian", "std": 0.1}],
    "adversary": {"view": "client", "labels": True, "protocol": True, "defense": "parameters"},
    "attacks": [{"name": "fast", "steps": 400}],
    "evaluation": {"distractors": 100},
    "grid": {"defense": ["none", "gaussian"], "seed": [0, 1]},
}


def report(
    defenses: Sequence[str] = ("none", "gaussian(std=0.1)", "topk(0.1)"),
    attacks: Sequence[str] = ("fast", "adaptive"),
    rounds: Sequence[int] = (1, 2, 5, 10),
    seeds: Sequence[int] = (0, 1),
    batch: int = 4,
) -> ReportInput:
    """Every defense, attacked in every round, for every seed; without failures."""
    rng = np.random.default_rng(0)
    cells: list[dict[str, Any]] = [
        {"name": f"defense={d},seed={s}", "axes": {"defense": d, "seed": s}, "defense": d}
        for d in defenses
        for s in seeds
    ]
    records = [record(rng, cell, attack, r, batch) for cell in cells for attack in attacks for r in rounds]
    return ReportInput(
        study=STUDY,
        question="Do noise and top-k stop gradient inversion on digits?\n(Expected: noise does, top-k does not.)",
        study_hash="6f1c0ad2",
        attacks_hash="1d40a77e",
        versions={"fl-sim": "0.1.0", "torch": "2.14.1", "flwr": "1.41.0"},
        command="fl-sim run studies/three-defenses.toml",
        created="2026-01-02 03:04 UTC",
        cells=cells,
        records=records,
        training={cell["name"]: training(rng, cell["defense"], max(rounds)) for cell in cells},
        pictures=[picture(rng, cells[0]["name"], attack, r) for attack in attacks for r in rounds[:3]],
        adaptive=frozenset((cell["name"], "adaptive") for cell in cells),
    )


def record(rng: np.random.Generator, cell: dict[str, Any], attack: str, round_: int, batch: int) -> dict[str, Any]:
    """One judged observation; ranks follow the gain."""
    level = LEVELS.get((cell["defense"], attack), 0.0) * (1 - 0.03 * round_)
    control = 10 + rng.normal(0, 0.6, batch)
    psnr = control + level + rng.normal(0, 0.4 + 0.1 * level, batch)
    return {
        "study": STUDY["name"], "cell": cell["name"], "axes": cell["axes"], "round": round_, "client": round_ % 4,
        "members": [round_ % 4], "attack": attack, "defense": cell["defense"], "seed": cell["axes"]["seed"],
        "outcome": "out-of-steps", "reason": None, "labels": [(round_ + i) % 10 for i in range(batch)],
        "psnr": psnr.tolist(), "ssim": (psnr / 40).tolist(),
        "lpips": (0.8 - psnr / 50).tolist(), "mse": (10 ** (-psnr / 10)).tolist(),
        "distance": (80 * 10 ** (-psnr / 20)).tolist(), "delta": 8.0, "label_accuracy": 1.0,
        "identification_rank": [1 if level > 6 else int(rng.integers(2, 100)) for _ in range(batch)], "candidates": 103,
        "controls": {
            "unrelated_gradient": {"psnr": control.tolist(), "identification_rank": [7] * batch},
            "mean_image": {"psnr": (11.5 + rng.normal(0, 0.5, batch)).tolist()},
            "nearest_public": {"psnr": (13.0 + rng.normal(0, 0.5, batch)).tolist()},
        },
        "loss": 0.01, "iterations": 400, "seconds": 3.25, "device": "cpu", "notes": {},
    }  # fmt: skip


def failed(done: dict[str, Any], outcome: str, reason: str) -> dict[str, Any]:
    """The same observation, had the attack ended without an image."""
    metrics = (
        "labels",
        "psnr",
        "ssim",
        "lpips",
        "mse",
        "distance",
        "delta",
        "label_accuracy",
        "identification_rank",
        "candidates",
        "controls",
        "loss",
    )
    return {**done, **dict.fromkeys(metrics), "outcome": outcome, "reason": reason}


def with_failures(whole: ReportInput, every: int = 9) -> ReportInput:
    reasons = (("failed", "worker died twice (out of memory)"), ("non-finite", "the loss became NaN in step 12"))
    return replace(
        whole,
        records=[r if i % every else failed(r, *reasons[i // every % 2]) for i, r in enumerate(whole.records)],
    )


def training(rng: np.random.Generator, defense: str, rounds: int) -> list[dict[str, Any]]:
    sent = {"none": 48_000, "topk(0.1)": 9_600}.get(defense, 48_000)
    ceiling = {"none": 0.92, "topk(0.1)": 0.88}.get(defense, 0.71)
    refusal = {"client": 3, "reason": "update holds NaN in conv1.weight"}
    return [
        {
            "round": r, "accuracy": ceiling - (ceiling - 0.1) * 0.7**r + float(rng.normal(0, 0.005)),
            "loss": 2.3 * 0.8**r, "train_loss": 2.2 * 0.8**r if r else None, "bytes_up": 4 * sent if r else 0,
            "bytes_down": 192_000 if r else 0, "seconds": 0.8, "clients": [0, 1, 2, 3] if r else [],
            "refused": [refusal] if r == 4 and defense == "none" else [],
        }
        for r in range(rounds + 1)
    ]  # fmt: skip


def picture(rng: np.random.Generator, cell: str, attack: str, round_: int) -> Picture:
    place = np.add.outer(np.arange(8), np.arange(8))
    original = (127 + 120 * np.sin(place / (1 + round_))).astype(np.uint8)[:, :, None]
    return Picture(
        cell=cell,
        attack=attack,
        round=round_,
        client=round_ % 4,
        original=original,
        reconstruction=np.clip(original + rng.normal(0, 20, original.shape), 0, 255).astype(np.uint8),
        control=rng.integers(0, 255, original.shape, dtype=np.uint8) if round_ < 5 else None,
        psnr=24.3,
    )
