import json
import re
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from fsl_course import EpisodeSampler, load_intents, load_texts
from fsl_course.data.texts import TextSet, decode, encode, text_set

ROWS = [
    ("turn it up", "volume", "music", "train"),
    ("play jazz", "play", "music", "train"),
    ("é" * 9, "play", "music", "train"),
]


@pytest.fixture(scope="module")
def intents() -> TextSet:
    return load_intents()


def test_bytes_and_back_and_never_half_a_character():
    assert encode(["ab"], 4).tolist() == [[97, 98, 0, 0]]
    assert decode(encode(["é" * 9], 7)[0]) == "ééé"
    assert decode(encode(["a\0b"], 4)[0]) == "a b"


def test_intents_are_what_the_card_says(intents):
    assert (len(intents), len(set(intents.groups)), set(intents.counts.tolist())) == (64, 10, {20})
    found = {name: intents.split(name) for name in ("train", "val", "test")}
    assert [len(part) for part in found.values()] == [40, 6, 18]
    assert not set(found["train"].groups) & set(found["test"].groups)
    assert not set(found["val"].groups) & set(found["train"].groups + found["test"].groups)


def test_no_sentence_is_there_twice_or_nearly(intents):
    words = [frozenset(re.findall(r"\w+", s.lower())) for row in intents.sentences for s in row]
    assert len(words) == 1280
    near = [(a, b) for i, a in enumerate(words) for b in words[:i] if len(a & b) > 0.9 * len(a | b)]
    assert not near
    assert all(4 <= len(s.split()) <= 20 for row in intents.sentences for s in row)


def test_no_word_gives_a_class_away(intents):
    """A word that stands in every sentence of a class, and outside it in none, would be a template."""
    for row in intents.sentences:
        common = Counter(w for s in row for w in set(re.findall(r"\w+", s.lower())))
        assert {w for w, n in common.items() if n == 20} <= {"the"}


@pytest.mark.parametrize("analyzer", ["word", "char_wb"])
def test_words_in_common_do_not_solve_it(intents, analyzer):
    """TF-IDF nearest mean stays below 75 % at 5-way 1-shot, and above chance."""
    test = intents.split("test")
    grams = (1, 2) if analyzer == "word" else (2, 4)
    table = (
        TfidfVectorizer(analyzer=analyzer, ngram_range=grams)
        .fit_transform(s for row in test.sentences for s in row)
        .toarray()
    )
    layout, hits = EpisodeSampler(test, 5, 1, 10).layout(0, 100), []
    for support, s_y, query, q_y in zip(layout.support, layout.support_y, layout.query, layout.query_y, strict=True):
        scores = table[query] @ table[support].T
        hits.append((s_y[torch.from_numpy(scores.argmax(1))] == q_y).double().mean())
    assert 0.3 < float(np.mean(hits)) < 0.75


def test_episodes_hold_whole_numbers_and_split_and_select_keep_the_kind(intents):
    episode = EpisodeSampler(intents.split("test"), 5, 2, 3)[0]
    assert episode.support_x.dtype == torch.int64
    assert episode.support_x.shape == (10, 120)
    part = intents.split("val").select([1, 0])
    assert isinstance(part, TextSet)
    assert part.sentences[0][0] == intents.split("val").sentences[1][0]
    assert decode(episode.query_x[0]) in {s for row in intents.sentences for s in row}


def test_csv_and_json_lines_load_alike(tmp_path):
    csv, jsonl = tmp_path / "a.csv", tmp_path / "a.jsonl"
    csv.write_text("text,label,group,split\n" + "\n".join(",".join(row) for row in ROWS), encoding="utf-8")
    records = [dict(zip(("text", "label", "group", "split"), row, strict=True)) for row in ROWS]
    jsonl.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    one, other = load_texts(csv), load_texts(jsonl)
    assert torch.equal(one.codes, other.codes)
    assert one.class_names == other.class_names == ["volume", "play"]
    assert one.counts.tolist() == [1, 2]
    assert one.splits == ["train", "train"]
    assert load_texts(csv, longest=9).codes.shape == (2, 2, 9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,intent\nhi,a\n", "label is missing"),
        ("text,label\nhi,a\n,b\n", "row 2 of x has no text"),
        ("text,label\nhi,\nho,b\n", "row 1 of x has no label"),
        ("text,label\nhi,a\nho,a\n", "1 class"),
        ("text,label,split\nhi,a,dev\nho,b,dev\n", "one of train, val, test; got 'dev'"),
        ("text,label,split\nhi,a,train\nho,b,\n", "some classes of x have a split"),
        ("text,label,group\nhi,a,g\nho,a,h\nhu,b,g\n", "second group or split"),
        ("", "text is missing"),
    ],
)
def test_files_that_cannot_be_used_are_explained(tmp_path, content, message):
    path = tmp_path / "x.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_texts(path)


def test_broken_json_names_its_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n[1]\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2 of x.jsonl is no JSON object"):
        load_texts(path)


def test_a_text_set_says_what_it_takes():
    with pytest.raises(ValueError, match=r"uint8 \[C, n, L\].*encode"):
        TextSet(torch.zeros(2, 3), torch.ones(2, dtype=torch.int64), ["a", "b"], ["g", "g"])
    assert "2 classes in 1 groups" in repr(text_set(ROWS))
