"""`audit`: reads the report of a project as a stranger would, and says in words where it leaks or claims too much (lesson 26)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

PARTS = ("train", "val", "test")
ENTRY = ("setting", "purpose", "classes", "episodes")
PURPOSES = ("choose", "test")
NEEDED = (*PARTS, "ledger", "least", "declared", "chosen", "gains", "failures", "not claimed")
FEW_CLASSES = 5  # with fewer test classes the choice of classes outweighs the interval over episodes
UNTRAINED = ("pixels", "words", "random net", "chance")  # what the names of settings without training begin with
Report = Mapping[str, Any]


def audit(report: Report) -> list[str]:
    """Prints whether a report stands, and returns what is wrong with it, one sentence each; [] if nothing is.

    A report that stands on few test classes still stands; a warning is printed, and is not among the sentences.

    report: train, val, test: names of classes; ledger: entries with setting, purpose ("choose" or "test"), classes and
            episodes; least: episodes that a look needs; declared: the settings that were named before the test; chosen;
            gains: name -> (difference, half width); failures; "not claimed": sentences
    """
    found = faults(report)
    print("✓ the report stands" if not found else "✗ the report does not stand yet:")
    for sentence in found:
        print(f"  {sentence}")
    if not found and len(_same(report["test"])) < FEW_CLASSES:
        print(
            f"  But it rests on {len(report['test'])} test classes: other classes may move it by more than its interval says."
        )
    return found


def faults(report: Report) -> list[str]:
    """Returns what is wrong with a report, one sentence each. Names of classes are equal whatever their case and outer blanks."""
    if not isinstance(report, Mapping):
        return [f"A report is a dict; this is a {type(report).__name__}."]
    if missing := [key for key in NEEDED if key not in report]:
        return [f"The report lacks {', '.join(missing)}."]
    if odd := _malformed(report):
        return [odd]
    return _of_classes(report) + _of_choices(report) + _of_test(report) + _of_claims(report)


def _malformed(report: Report) -> str:
    """Returns a sentence about entries that cannot be read, or ""."""
    for part in PARTS:
        if not _is_list(report[part]) or not all(isinstance(name, str) for name in report[part]):
            return f"{part} must be a list of the names of classes."
    if not _is_list(report["ledger"]) or not report["ledger"]:
        return "The ledger is empty: every evaluation belongs into it."
    for number, entry in enumerate(report["ledger"]):
        if not isinstance(entry, Mapping) or any(key not in entry for key in ENTRY):
            return f"Entry {number} of the ledger needs {', '.join(ENTRY)}."
        if entry["purpose"] not in PURPOSES:
            return f'Entry {number} of the ledger has the purpose {entry["purpose"]!r}; "choose" and "test" are known.'
    return ""


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _same(names: Sequence[str]) -> set[str]:
    """Returns names in the form in which they are compared."""
    return {name.strip().casefold() for name in names}


def _listed(names: Sequence[str] | set[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _entries(report: Report, purpose: str) -> list[Mapping[str, Any]]:
    return [entry for entry in report["ledger"] if entry["purpose"] == purpose]


def _of_classes(report: Report) -> list[str]:
    found = [f"{part} has no class." for part in ("val", "test") if not report[part]]
    for one, other in combinations(PARTS, 2):
        if shared := _same(report[one]) & _same(report[other]):
            found.append(f"{one} and {other} share {_listed(shared)}: the splits must be disjoint by class.")
    return found


def _of_choices(report: Report) -> list[str]:
    """Faults of how the setting was chosen."""
    test, found = _same(report["test"]), []
    choices = _entries(report, "choose")
    if seen := [entry for entry in choices if _same(entry["classes"]) & test]:
        classes = _same(seen[0]["classes"]) & test
        found.append(
            f"Test classes were used for choosing, {len(seen)} times: {seen[0]['setting']} was compared on {_listed(classes)}."
        )
    if report["chosen"] not in {entry["setting"] for entry in choices}:
        found.append(f"{report['chosen']} was chosen, and the ledger has no look at it on validation classes.")
    return found


def _of_test(report: Report) -> list[str]:
    """Faults of the one test."""
    test, looks, found = _same(report["test"]), _entries(report, "test"), []
    names = [entry["setting"] for entry in looks]
    if not looks:
        found.append("Nothing was tested: the ledger has no entry with the purpose test.")
    elif report["chosen"] not in names:
        found.append(f"{report['chosen']} was chosen and never tested.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        found.append(f"{_listed(twice)} looked at the test classes more than once.")
    if strange := sorted(set(names) - set(report["declared"])):
        found.append(f"{_listed(strange)} was tested, and nobody had declared it before.")
    if foreign := [entry["setting"] for entry in looks if _same(entry["classes"]) - test]:
        found.append(f"{foreign[0]} was tested on classes that are not those of the test.")
    few = [entry for entry in report["ledger"] if entry["episodes"] < report["least"]]
    if few:
        found.append(
            f"{len(few)} looks had fewer than {report['least']} episodes, e.g. {few[0]['setting']} with {few[0]['episodes']}."
        )
    return found


def _of_claims(report: Report) -> list[str]:
    """Faults of what is shown and said."""
    found, chosen = [], report["chosen"]
    tested = {entry["setting"] for entry in _entries(report, "test")}
    rivals = tested - {chosen, "chance"}
    if not any(name.startswith(UNTRAINED) for name in (rivals | {chosen}) - {"chance"}):
        found.append("No row needs no training: test pixels, words or a random net beside the chosen setting.")
    if hidden := sorted(tested - {chosen} - set(report["gains"])):
        found.append(f"The gain over {_listed(hidden)} was measured and is not reported.")
    if not report["failures"]:
        found.append("No failure is shown.")
    if not report["not claimed"]:
        found.append("The report does not say what it does not claim.")
    return found
