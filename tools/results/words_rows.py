"""The rows of lesson 20 that need no training: TF-IDF, the nearest mean of any table of vectors, and pairs over frozen vectors.

A Row guesses the slots of queries from positions of sentences in a table. `correct` counts its right queries, episode by episode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from fsl_course import EpisodeSampler
from fsl_course.data.texts import TextSet

WAY, QUERY = 5, 10
Row = Callable[[Tensor, Tensor, Tensor], Tensor]  # support positions, labels, query positions -> slots


def correct(
    guess: Row, source: TextSet, episodes: int, shots: Sequence[int] = (1, 5), query: int = QUERY
) -> list[dict[str, Any]]:
    """Counts the right queries of every test episode."""
    results = []
    for shot in shots:
        drawn = EpisodeSampler(source, WAY, shot, query).layout(0, episodes)
        parts = zip(drawn.support, drawn.support_y, drawn.query, drawn.query_y, strict=True)
        counts = [int((guess(s, s_y, q) == q_y).sum()) for s, s_y, q, q_y in parts]
        results.append({"way": WAY, "shot": shot, "query": query, "correct": counts})
    return results


def nearest_mean(table: np.ndarray | Tensor) -> Row:
    """Returns the row that takes the class mean with the largest cosine. table: [C*n, D]."""
    rows = F.normalize(torch.as_tensor(np.asarray(table), dtype=torch.float32), dim=-1)

    def guess(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        means = F.one_hot(labels).T.float() @ rows[support]
        return (rows[query] @ F.normalize(means, dim=-1).T).argmax(1)

    return guess


def tfidf(source: TextSet, fitted_on: Sequence[str] | None, head: str) -> Row:
    """Returns a row of TF-IDF. fitted_on: sentences that give the weights of words; None: the support of each task alone."""
    sentences = flat(source)
    words = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    table = None if fitted_on is None else words.fit(fitted_on).transform(sentences).toarray()

    def guess(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        if table is None:
            words.fit([sentences[i] for i in support])
            s, q = (words.transform([sentences[i] for i in part]).toarray() for part in (support, query))
        else:
            s, q = table[support], table[query]
        if head == "logistic":
            return torch.from_numpy(LogisticRegression(C=10).fit(s, labels.numpy()).predict(q))
        both = nearest_mean(np.concatenate([s, q]))
        return both(torch.arange(len(s)), labels, torch.arange(len(s), len(s) + len(q)))

    return guess


def with_pairs(table: np.ndarray, steps: int = 50) -> Row:
    """Returns SetFit in small (Tunstall et al. 2022) over frozen vectors: a linear map by pairs, then logistic regression.

    The real one fine-tunes the sentence encoder; here only a map [D, D] that starts at the identity is trained.
    """
    rows = torch.as_tensor(table, dtype=torch.float32)

    def guess(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        z, same = rows[support], (labels[:, None] == labels).float()
        first, second = torch.triu_indices(len(z), len(z), 1)
        matrix = nn.Parameter(torch.eye(z.shape[1]))
        optimiser = torch.optim.Adam([matrix], lr=1e-3)
        for _ in range(steps):
            moved = F.normalize(z @ matrix, dim=-1)
            loss = ((moved[first] * moved[second]).sum(-1) - same[first, second]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            s, q = (F.normalize(part @ matrix, dim=-1).numpy() for part in (z, rows[query]))
        return torch.from_numpy(LogisticRegression(C=10).fit(s, labels.numpy()).predict(q))

    return guess


def flat(source: TextSet) -> list[str]:
    """Returns all sentences in the order of the table's rows, "" where a class has fewer than others."""
    most = source.images.shape[1]
    return [s for row in source.sentences for s in [*row, *[""] * (most - len(row))]]


def plain_rows(source: TextSet, base: TextSet, vectors: np.ndarray | None) -> dict[str, tuple[Row, tuple[int, ...]]]:
    """Returns the rows that need no training, each with the shots for which it is there."""
    train = [s for row in base.sentences for s in row]
    found: dict[str, tuple[Row, tuple[int, ...]]] = {
        "TF-IDF of the support, nearest mean": (tfidf(source, None, "mean"), (1, 5)),
        "TF-IDF of training intents, nearest mean": (tfidf(source, train, "mean"), (1, 5)),
        "TF-IDF of training intents, logistic": (tfidf(source, train, "logistic"), (1, 5)),
    }
    if vectors is not None:
        found["MiniLM, nearest mean"] = nearest_mean(vectors), (1, 5)
        found["MiniLM, pairs and logistic"] = with_pairs(vectors), (5,)
    return found
