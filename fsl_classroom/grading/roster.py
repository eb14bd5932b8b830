"""The teacher's list of the class: who is who on the learning platform.

Any CSV file with one student a line will do, such as the gradebook that Canvas exports or the grades that Moodle exports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsl_classroom.grading.expected import plain_name
from fsl_classroom.grading.tables import read_csv

# field -> headers that mean it, in lower case
_HEADERS = {
    "name": ("student", "name", "full name"),
    "first": ("first name", "firstname"),
    "last": ("last name", "lastname", "surname"),
    "email": ("email address", "email", "e-mail"),
    "idnumber": ("id number", "idnumber"),
    "username": ("username",),
    "id": ("id",),
    "sis_user_id": ("sis user id",),
    "sis_login_id": ("sis login id",),
    "section": ("section",),
}
_NAMES_SOMEBODY = ("email", "idnumber", "username", "id", "sis_user_id", "sis_login_id")


@dataclass(frozen=True)
class Person:
    """One line of the list. fields: as in _HEADERS; "" for what the list does not have."""

    fields: Mapping[str, str]

    @property
    def name(self) -> str:
        """Returns the name as the list writes it: "Lovelace, Ada" where it does."""
        return self.fields["name"] or " ".join(filter(None, (self.fields["first"], self.fields["last"])))

    def answers_to(self) -> set[str]:
        """Returns all names under which a folder may stand for this person, as `plain_name` writes them."""
        last, _, first = self.fields["name"].partition(",")
        both = self.fields["first"], self.fields["last"]
        names = [self.fields["name"], f"{first} {last}"]
        for order in (both, both[::-1]):
            names += [" ".join(order), "".join(order)]  # the second as Chinese names are written
        names += [self.fields[field] for field in _NAMES_SOMEBODY]
        return {plain for name in names if (plain := plain_name(name))}


def read_roster(path: Path) -> list[Person]:
    """Returns the persons of a list. Skips the rows "Points Possible" and those without a name or number.

    Raises ValueError for a file that is no table, or has no column that names a student.
    """
    rows = read_csv(path)
    headers = {name.casefold(): name for name in (rows[0] if rows else {})}
    places = {field: next((headers[h] for h in known if h in headers), None) for field, known in _HEADERS.items()}
    if not any(places[field] for field in ("name", "first", "last", *_NAMES_SOMEBODY)):
        raise ValueError(
            f"{path} has no column that names a student. Call one Student, or First name and Last name, Email address, "
            "ID number or Username."
        )
    people = [Person({field: row[place].strip() if place else "" for field, place in places.items()}) for row in rows]
    return [person for person in people if person.answers_to() and "Points Possible" not in person.name]


def matched(students: Sequence[str], people: Sequence[Person], path: Path) -> tuple[dict[str, Person], list[str]]:
    """Returns folder's name -> person, and a sentence about every student who cannot be found, or not without doubt."""
    by_name: dict[str, list[Person]] = {}
    for person in people:
        for name in person.answers_to():
            by_name.setdefault(name, []).append(person)
    found, lost, taken = {}, [], {}
    for student in students:
        candidates = by_name.get(plain_name(student), [])
        if len(candidates) != 1:
            what = "is not in" if not candidates else f"could be {len(candidates)} people of"
            lost.append(f"{student} {what} {path}")
        elif (other := taken.setdefault(id(candidates[0]), student)) != student:
            lost.append(f"{student} is the same person of {path} as {other}")
        else:
            found[student] = candidates[0]
    return found, lost
