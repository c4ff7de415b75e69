"""When the report may say "leaks" and "protected"."""

from dataclasses import replace
from typing import Any

from experiments.report import ReportInput, summarise
from experiments.report.answer import findings
from tests.experiments import synthetic
from tests.experiments.test_report import GAUSSIAN, ONE_IMAGE, WHOLE, change


def verdicts(report: ReportInput) -> dict[str, str]:
    return {f.setting.defense: f.verdict.word for f in findings(report, summarise(report))}


def reason(report: ReportInput) -> str:
    """Why nothing is shown for the noise."""
    (verdict,) = [f.verdict for f in findings(report, summarise(report)) if f.setting.defense == GAUSSIAN]
    assert verdict.word == "not shown"
    return verdict.reason


def reasons(report: ReportInput) -> dict[str, str]:
    return {f.setting.defense: f.verdict.reason for f in findings(report, summarise(report))}


def test_verdicts_follow_the_gains_that_were_put_in() -> None:
    assert verdicts(WHOLE) == {"none": "leaks", GAUSSIAN: "protected", "topk(0.1)": "leaks"}


def test_protected_needs_an_attack_that_knows_the_defense() -> None:
    assert "knows this defense" in reason(replace(WHOLE, adaptive=frozenset()))


def test_protected_needs_an_undefended_cell() -> None:
    assert "no undefended cell" in reason(synthetic.report(defenses=(GAUSSIAN,)))


def test_protected_needs_the_undefended_cell_to_fall() -> None:
    report = change(WHOLE, lambda r: {**r, "psnr": r["controls"]["unrelated_gradient"]["psnr"]}, defense="none")
    assert "proves nothing" in reason(report)
    assert verdicts(report)["none"] == "not shown"


def test_protected_needs_the_attack_that_succeeded_undefended() -> None:
    kept = [r for r in WHOLE.records if (r["defense"], r["attack"]) != (GAUSSIAN, "fast")]
    assert "Not run here" in reason(replace(WHOLE, records=kept))


def test_protected_needs_every_reconstruction() -> None:
    report = change(
        WHOLE, lambda r: synthetic.failed(r, "failed", "x"), defense=GAUSSIAN, attack="fast", round=1, seed=0
    )
    assert "1 of 8 reconstructions by fast were not judged" in reason(report)


def test_protected_needs_the_control() -> None:
    without = change(
        WHOLE,
        lambda r: {**r, "controls": {**r["controls"], "unrelated_gradient": None}},
        **{"defense": GAUSSIAN, "attack": "adaptive", "round": 1},
    )
    assert "lacks the unrelated-gradient control" in reason(without)


def test_one_recovered_image_is_enough_not_to_be_protected() -> None:
    raise_first = {"defense": GAUSSIAN, "attack": "fast", "round": 1, "seed": 0}
    report = change(WHOLE, lambda r: {**r, "psnr": [r["psnr"][0] + 7, *r["psnr"][1:]]}, **raise_first)
    assert "on one image" in reason(report)


def test_few_images_do_not_make_it_protected() -> None:
    assert "one image, which allows no interval" in reason(replace(ONE_IMAGE, records=_enough_undefended()))


def _enough_undefended() -> list[dict[str, Any]]:
    undefended = [{**r, "cell": "defense=none,seed=0"} for r in WHOLE.records if r["defense"] == "none"]
    return undefended + [r for r in ONE_IMAGE.records if r["defense"] != "none"]


def test_identification_above_the_control_is_not_protected() -> None:
    report = change(WHOLE, lambda r: {**r, "identification_rank": [1, 50, 50, 50]}, defense=GAUSSIAN, attack="fast")
    assert "identifies 8 of 32 images" in reason(report)


def test_identification_is_a_leak_where_the_attack_saw_more_than_its_prior() -> None:
    """Blurred pictures that a look-alike would match in PSNR, but that point to the right image."""

    def closer(r: dict[str, Any]) -> dict[str, Any]:
        nearest = {"psnr": [p + 5 for p in r["psnr"]]}
        unrelated = {"psnr": [p - 3 for p in r["psnr"]], "identification_rank": [9] * len(r["psnr"])}
        ranks = [1] * len(r["psnr"])
        return {
            **r,
            "identification_rank": ranks,
            "controls": {"unrelated_gradient": unrelated, "nearest_public": nearest},
        }

    told = change(WHOLE, closer, defense=GAUSSIAN, attack="fast")
    assert verdicts(told)[GAUSSIAN] == "leaks"
    unlucky = change(told, lambda r: {**r, "identification_rank": [50] * 4}, defense=GAUSSIAN, attack="fast")
    assert verdicts(unlucky)[GAUSSIAN] == "not shown"


def test_a_leak_that_no_informed_attack_was_run_against_says_so() -> None:
    blind = replace(WHOLE, adaptive=frozenset())
    asked, unasked = reasons(WHOLE), reasons(blind)
    words = "no attack that knows this defense and uses it was run"
    assert words in unasked["topk(0.1)"]
    assert words not in unasked["none"] + asked["topk(0.1)"]
    only = {**blind.study, "attacks": [{"name": "adaptive", "only": ["topk(0.1)"]}]}
    assert words not in reasons(replace(blind, study=only))["topk(0.1)"]


def test_what_knowing_the_defense_is_worth_is_against_the_best_that_does_not() -> None:
    """Also where the strongest of all is neither."""
    part = {"name": "inverting_gradients", "label": "sent", "support": "observed"}
    best = [{**r, "attack": "sent", "psnr": [p + 9 for p in r["psnr"]]} for r in WHOLE.records if r["attack"] == "fast"]
    three = replace(WHOLE, records=[*WHOLE.records, *best], study={**WHOLE.study, "attacks": [part]})
    (found,) = [f for f in findings(three, summarise(three)) if f.setting.defense == "topk(0.1)"]
    assert found.strongest is not None
    assert found.strongest["attack"] == "sent"
    assert found.strongest["stance"] == "sent"
    (told,) = [sentence for sentence in found.sentences if "Knowing the defense" in sentence]
    assert told.startswith("Knowing the defense is worth +4.")
    assert told.endswith("adaptive against fast.")


def test_the_answer_names_the_attack_that_identifies_most() -> None:
    blurred = change(WHOLE, lambda r: {**r, "identification_rank": [1] * 4}, defense=GAUSSIAN, attack="fast")
    sharp = change(blurred, lambda r: {**r, "psnr": [p + 1 for p in r["psnr"]]}, defense=GAUSSIAN, attack="adaptive")
    (found,) = [f for f in findings(sharp, summarise(sharp)) if f.setting.defense == GAUSSIAN]
    assert found.strongest is not None
    assert found.namer is not None
    assert (found.strongest["attack"], found.namer["attack"]) == ("adaptive", "fast")
    assert any(sentence.startswith("fast identifies 32 of 32 images") for sentence in found.sentences)


def test_updates_too_few_for_the_test_of_identification_do_not_pass_it() -> None:
    """Four differences of one sign are 1 in 16: above 5 %, and all that four can show."""
    few = synthetic.report(rounds=(1, 2), batch=4)
    named = change(few, lambda r: {**r, "identification_rank": [1] * 4}, defense=GAUSSIAN, attack="fast")
    (row,) = [r for r in summarise(named) if (r["defense"], r["attack"]) == (GAUSSIAN, "fast")]
    assert (row["psnr"]["groups"], row["identified"]["p"]) == (4, 1 / 16)
    assert verdicts(few)[GAUSSIAN] == "protected"
    assert "fast identifies 16 of 16 images" in reason(named)
