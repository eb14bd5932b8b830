"""`audit`: a sound report stands, and each fault of a report is named in words."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from fsl_classroom import audit
from fsl_classroom.checking.project import NEEDED, faults

Report = dict[str, Any]


def look(setting: str, purpose: str, classes: list[str], episodes: int = 100) -> Report:
    return {"setting": setting, "purpose": purpose, "classes": list(classes), "episodes": episodes}


def sound() -> Report:
    val, test = ["cup", "dog"], ["ear", "fish"]
    names = ("net, ridge", "pixels, mean")
    ledger = [look(name, "choose", val) for name in names] + [look(name, "test", test) for name in (*names, "chance")]
    return {
        "train": ["ant", "bell"],
        "val": val,
        "test": test,
        "ledger": ledger,
        "least": 100,
        "declared": [*names, "chance"],
        "chosen": "net, ridge",
        "gains": {"pixels, mean": (0.1, 0.01), "chance": (0.6, 0.01)},
        "failures": [("ear", "fish", 3)],
        "not claimed": ["that it holds elsewhere"],
    }


def test_a_sound_report_stands(capsys):
    assert audit(sound()) == []
    assert capsys.readouterr().out.splitlines()[0] == "✓ the report stands"


@pytest.mark.parametrize(("classes", "warned"), [(4, True), (5, False)])
def test_few_test_classes_are_warned_of_and_the_report_stands(classes: int, warned: bool, capsys):
    report = sound()
    report["test"] = [f"new {number}" for number in range(classes)]
    for entry in report["ledger"]:
        if entry["purpose"] == "test":
            entry["classes"] = report["test"]
    assert audit(report) == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "✓ the report stands"
    assert [f"rests on {classes} test classes" in line for line in lines[1:]] == [True] * warned


def test_a_sound_report_may_lack_training_classes_and_choose_a_row_without_training():
    report = sound() | {"train": [], "chosen": "pixels, mean", "gains": {"net, ridge": (0, 1), "chance": (0.5, 0.1)}}
    assert faults(report) == []


def change(**fields: Any) -> Callable[[Report], None]:
    return lambda report: report.update(fields)


FAULTS: dict[str, tuple[Callable[[Report], Any], str]] = {
    "overlap": (lambda r: r["train"].append(" Ear"), "train and test share ear"),
    "overlap of validation": (lambda r: r["val"].append("ANT"), "train and val share ant"),
    "no test classes": (change(test=[]), "test has no class"),
    "chosen on test": (lambda r: r["ledger"][0]["classes"].append("Fish "), "Test classes were used for choosing"),
    "never compared": (lambda r: r["ledger"].pop(0), "no look at it on validation classes"),
    "never tested": (lambda r: r["ledger"].pop(2), "was chosen and never tested"),
    "nothing tested": (lambda r: r["ledger"].__delitem__(slice(2, None)), "Nothing was tested"),
    "tested twice": (lambda r: r["ledger"].append(r["ledger"][2]), "more than once"),
    "not declared": (lambda r: r["declared"].remove("chance"), "nobody had declared it"),
    "tested elsewhere": (lambda r: r["ledger"][3]["classes"].append("cup"), "not those of the test"),
    "too few": (lambda r: r["ledger"][1].update(episodes=99), "fewer than 100 episodes"),
    "no plain row": (lambda r: r["ledger"].pop(3), "No row needs no training"),
    "hidden gain": (lambda r: r["gains"].pop("pixels, mean"), "is not reported"),
    "no failures": (change(failures=[]), "No failure is shown"),
    "no limits": (change(**{"not claimed": []}), "does not claim"),
    "empty ledger": (change(ledger=[]), "ledger is empty"),
    "unknown purpose": (lambda r: r["ledger"][0].update(purpose="look"), "purpose 'look'"),
    "entry without episodes": (lambda r: r["ledger"][0].pop("episodes"), "needs setting"),
    "a string of names": (change(val="cup"), "val must be a list"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(fault: str, capsys):
    report = deepcopy(sound())
    spoil, words = FAULTS[fault]
    spoil(report)
    found = audit(report)
    assert any(words in sentence for sentence in found), found
    printed = capsys.readouterr().out
    assert printed.startswith("✗ the report does not stand yet:")
    assert all(sentence in printed for sentence in found)


def test_a_report_that_lacks_fields_is_told_which():
    report = {key: value for key, value in sound().items() if key not in ("least", "gains")}
    assert faults(report) == ["The report lacks least, gains."]
    assert faults({})[0].startswith(f"The report lacks {NEEDED[0]}")
    assert "is a list" in faults([])[0]


def test_a_single_fault_brings_a_single_sentence():
    report = sound()
    report["ledger"][1]["episodes"] = 5
    assert len(faults(report)) == 1
