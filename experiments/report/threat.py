"""The threat model as the study states it, in words."""

from collections.abc import Iterator
from typing import Any

from experiments.report.input import Json, ReportInput, attacks
from experiments.report.scope import Fact
from fl_sim.core.part import in_a_line

_KNOWN = {
    ("view", "client"): "every client's own update is seen, with its sender",
    ("view", "aggregate"): "only the sum over several clients is seen, as under secure aggregation",
    ("mode", "fedsgd"): "an update is the gradient of one batch",
    ("mode", "fedavg"): "an update is what local steps changed in the weights, one step for each batch a client holds",
    ("labels", False): "must be inferred, or searched for with the images",
    ("labels", True): "the true labels of the images are given to the attack",
    ("protocol", False): "learning rate, local steps and batch size are hidden",
    ("protocol", True): "learning rate, local steps and batch size are known, as a Flower server knows them",
    ("defense", "unknown"): "attacks take the update for undefended",
    ("defense", "kind"): "the mechanism is known, its strength is estimated from the update itself",
    ("defense", "parameters"): "the mechanism and its strength are known",
    ("defense", "randomness"): "the mechanism, its strength and what it drew (a pruning mask, say) are known",
}
_TITLES = {
    "view": "What the server sees",
    "mode": "What clients send",
    "rounds": "Attacked rounds",
    "records": "Attacked after so many used images",
    "clients": "Attacked clients",
    "labels": "Labels",
    "protocol": "Training protocol",
    "defense": "The defense",
}


def threat_model(study: Json) -> list[Fact]:
    """What is known of the adversary; everything the study's ``[adversary]`` says appears, known to us or not."""
    federation, adversary = study.get("federation") or {}, study.get("adversary") or {}
    mode = federation.get("mode") or (federation.get("protocol") or {}).get("mode")
    stated = {"view": adversary.get("view") or federation.get("view"), "mode": mode} | adversary
    facts = [_fact(name, value) for name, value in stated.items() if value is not None]
    return [Fact("The server", "honest but curious", "follows the protocol, keeps all it receives, inverts it"), *facts]


def _fact(name: str, value: Any) -> Fact:
    key = value if isinstance(value, str | bool) else None
    title = _TITLES.get(name, name.replace("_", " ").capitalize())
    return Fact(title, _shown(value), _KNOWN.get((name, key), "") if key is not None else "")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "given" if value else "not given"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return str(value)


def attacks_told(report: ReportInput) -> Iterator[Fact]:
    """The attacks run, by the name they have here: what each is, in a line, and what the study set."""
    from attacks import ALIASES, ATTACKS

    parts = {part.get("label") or part["name"]: part for part in report.study["attacks"]}
    for label in attacks(report):
        part = parts.get(label, {"name": label})
        kind = ATTACKS.get(ALIASES.get(part["name"], part["name"]))
        about = in_a_line(kind) if kind else ""
        yield Fact(label, f"{part['name']}: {about}" if label != part["name"] else about, ", ".join(_set(part)))


def _set(part: Json) -> Iterator[str]:
    """What the study gives an attack, written as it is there."""
    for name, value in part.items():
        if name == "tuned":
            yield from (f"behind {defense}: {', '.join(_set(own))}" for defense, own in value.items())
        elif name not in {"name", "label", "only", "tune"} and (name, value) != ("joint", False):
            yield f"{name} = {value}"
