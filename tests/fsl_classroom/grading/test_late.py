"""The late policy: what is counted as late, what it costs, and times that cannot be used."""

from datetime import UTC, datetime, timedelta

import pytest

from fsl_classroom.grading.late import Lateness, Policy, read_lateness, read_policy

DUE = datetime(2026, 11, 30, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("later", "days"),
    [
        (timedelta(hours=-5), 0),
        (timedelta(0), 0),
        (timedelta(minutes=15), 0),
        (timedelta(minutes=15, seconds=1), 1),
        (timedelta(days=1), 1),
        (timedelta(days=1, seconds=1), 2),
        (timedelta(days=5, seconds=1), 6),
    ],
)
def test_every_day_that_has_begun_counts_and_the_grace_does_not(later, days):
    assert Policy(DUE, grace_minutes=15).days_late(DUE + later) == days


def test_what_is_left_of_the_points():
    policy = Policy(DUE, percent_per_day=10, most_days=5)
    assert [policy.left(4, 5, days) for days in (0, 1, 3, 5, 6)] == [4, 3.5, 2.5, 1.5, 0]
    assert policy.left(0.2, 5, 1) == 0  # never below nothing
    assert Policy(DUE, percent_per_day=100 / 3).left(5, 5, 1) == 3.33
    assert Policy(DUE).left(4, 5, 400) == 4  # without a limit and a percentage nothing is taken off


def files(tmp_path, policy, times):
    (tmp_path / "late.toml").write_text(policy)
    (tmp_path / "times.csv").write_text(times)
    return tmp_path / "late.toml", tmp_path / "times.csv"


def test_the_time_in_the_table_counts_under_any_spelling_of_the_name_and_in_any_zone(tmp_path):
    policy, times = files(
        tmp_path,
        "due = 2026-11-30T18:00:00+01:00\npercent_per_day = 10\n",
        "student;handed_in;due\nada-lovelace;2026-11-30T17:00:00Z;\n王小明;2026-11-30T17:00:01Z;\n"
        "Eve;2026-12-03 12:00:00+01:00;2026-12-03T18:00:00+01:00\nNo Body;;\n",
    )
    late = read_lateness(policy, times, ["Ada Lovelace", "王小明", "Eve"])
    assert [late.of(name) for name in ("Ada Lovelace", "王小明", "Eve")] == [0, 1, 0]  # Eve has a deadline of her own
    assert late.left("王小明", 5, 5) == 4.5


def test_without_a_policy_nothing_is_taken_off():
    late = read_lateness(None, None, ["a"])
    assert late == Lateness()
    assert (late.of("a"), late.left("a", 4, 5)) == (0, 4)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("due = 2026-11-30T18:00:00\nfree = 3\n", "has free. What can stand in it: due, grace_minutes"),
        ("grace_minutes = 3\n", "needs a deadline with a time.* got None"),
        ("due = 2026-11-30\n", "needs a deadline with a time"),
        ("due = 2026-11-30T18:00:00\npercent_per_day = 101\n", "percent_per_day is at most 100; got 101"),
        ("due = 2026-11-30T18:00:00\nmost_days = -1\n", "most_days is a number from 0 on; got -1"),
        ("due = 2026-11-30T18:00:00\nmost_days = true\n", "most_days is a number from 0 on; got True"),
        ("due = 2026-11-30T18:00:00\ngrace_minutes = inf\n", "grace_minutes is a number from 0 on; got inf"),
        ("due :", "is no TOML file"),
    ],
)
def test_a_policy_that_cannot_be_used_is_named(tmp_path, policy, words):
    with pytest.raises(ValueError, match=words):
        read_policy(files(tmp_path, policy, "")[0])
    with pytest.raises(ValueError, match="cannot be read"):
        read_policy(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ("student,handed_in\n", "has no time for Ada. Write when they handed in"),
        ("student,handed_in\nAda,\n", "has no time for Ada"),
        ("student,handed_in\nAda,yesterday\n", "line 2: 'yesterday' is no time such as"),
        ("student,handed_in\nAda,2026-11-30T17:00:00\n", "cannot be compared: either both have an offset"),
        ("student,handed_in\nAda,2026-11-30T17:00Z\nada,2026-12-30T17:00Z\n", "line 3: ada has a time already"),
        ("student,when\nAda,2026-11-30T17:00Z\n", "has no column handed_in"),
    ],
)
def test_times_that_cannot_be_used_are_named(tmp_path, times, words):
    with pytest.raises(ValueError, match=words):
        read_lateness(*files(tmp_path, "due = 2026-11-30T18:00:00+01:00\n", times), ["Ada"])


def test_policy_and_times_go_together(tmp_path):
    with pytest.raises(ValueError, match="go together"):
        read_lateness(tmp_path / "late.toml", None, [])
