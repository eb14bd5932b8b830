"""Seeded variants of exercises, for graded work: find("05.1@7") is exercise 05.1 with requirements drawn from seed 7.

A variant keeps the idea of the public exercise and changes numbers and details, so that neither the public solution nor the
solution of a neighbour with another seed is right. A family is one function from a `Draw` to a `Variant`. The code is public like
the rest of the course: variants prevent copying, but they do not stop a student who reads this package.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from fsl_classroom.variants import distances, episodes, inner, meta, prototypical, scores, walks
from fsl_classroom.variants.build import IMPORTS, Draw, Variant

FAMILIES: dict[str, Callable[[Draw], Variant]] = {
    "01.3": episodes.batch,
    "01.4": episodes.interval,
    "02.2": distances.centroid,
    "03.4": distances.contrastive,
    "04.1": scores.attention,
    "05.1": prototypical.prototypes,
    "05.2": prototypical.distances,
    "05.3": scores.loss,
    "06.2": scores.relation,
    "07.3": inner.adapt,
    "08.1": meta.one_parameter,
    "08.2": inner.meta_loss,
    "09.1": meta.normalise,
    "10.1": walks.first_order,
    "10.2": walks.reptile,
}

__all__ = ["FAMILIES", "IMPORTS", "Variant", "variant"]


@lru_cache(maxsize=1024)  # check recognises a reference by identity, so a variant must be made once
def variant(exercise_id: str, seed: int) -> Variant:
    """Returns the variant of an exercise ("05.1") for a seed (0 or more). Raises LookupError if the exercise has none."""
    if exercise_id not in FAMILIES:
        raise LookupError(f"exercise {exercise_id} has no variants. These have: {', '.join(FAMILIES)}.")
    return FAMILIES[exercise_id](Draw(exercise_id, seed))
