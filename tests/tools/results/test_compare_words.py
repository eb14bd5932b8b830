"""The comparison behind lesson 20: its rows, and that the committed file is whole. The real data lie only on some machines."""

import json

import numpy as np
import pytest
import torch

from fsl_course import EpisodeSampler, evaluate, load_intents
from fsl_course.data.texts import text_set
from fsl_course.evaluation import embed_all
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import ngram_encoder
from tools.data import sentence_vectors
from tools.results import compare_words
from tools.results.compare_words import real_rows, texts_folder
from tools.results.words_rows import correct, nearest_mean, tfidf, with_pairs


@pytest.fixture(scope="module")
def test_intents():
    return load_intents().split("test")


def test_nearest_mean_is_a_prototypical_network_of_unit_vectors(test_intents):
    torch.manual_seed(0)
    learner = PrototypicalNetwork(ngram_encoder(32), "cosine")
    table = embed_all(learner, test_intents.images.flatten(0, 1))
    found = correct(nearest_mean(table), test_intents, 20, shots=(1,))[0]["correct"]
    expected = evaluate(learner, EpisodeSampler(test_intents, 5, 1, 10), 20).per_episode
    assert found == (expected * 50).round().int().tolist()


@pytest.mark.parametrize("head", ["mean", "logistic"])
@pytest.mark.parametrize("own", [True, False])
def test_tf_idf_beats_chance(test_intents, head, own):
    train = None if own else [s for row in load_intents().split("train").sentences for s in row]
    counts = correct(tfidf(test_intents, train, head), test_intents, 20, shots=(5,))[0]["correct"]
    assert np.mean(counts) / 50 > 0.4


def test_pairs_separate_what_a_line_separates():
    table = torch.nn.functional.normalize(torch.eye(2).repeat_interleave(6, 0) + 0.1, dim=1).numpy()
    support, labels, query = torch.tensor([0, 1, 6, 7]), torch.tensor([0, 0, 1, 1]), torch.tensor([3, 9])
    assert with_pairs(table, 5)(support, labels, query).tolist() == [0, 1]


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(compare_words, "TRAINED", {"ProtoNet, n-grams": compare_words.TRAINED["ProtoNet, n-grams"]})
    monkeypatch.setattr(compare_words, "plain_rows", lambda *_: {})
    monkeypatch.setattr(compare_words, "texts_folder", lambda: None)
    words = ["--steps", "1", "--episodes", "2", "--out", str(tmp_path / "rows.json")]
    compare_words.main([*words, "--seeds", "1"])
    first = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))["rows"]
    compare_words.main([*words, "--seeds", "2"])
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))["rows"]
    assert rows[: len(first)] == first
    assert [row["seed"] for row in rows if row["data"] == "intents"] == [0, 1]
    assert [row["seed"] for row in rows if row["data"] == "memory"] == [0] * 9 + [1] * 9


def test_the_halves_of_the_training_intents_share_no_sentence(monkeypatch):
    asked = []
    monkeypatch.setattr(compare_words, "correct", lambda guess, source, *rest: asked.append(source) or [])
    options = compare_words.argparse.Namespace(steps=1, episodes=2)
    labels = [row["label"] for row in compare_words.memory_rows(0, load_intents(), options)]
    seen, other, test = (source.sentences for source in asked[::3])
    assert [len(row) for row in seen] == [len(row) for row in other] == [10] * 40
    assert not {s for row in seen for s in row} & {s for row in other for s in row}
    assert len(test) == 18
    assert labels[:3] == ["untrained, its sentences", "trained, its sentences", "TF-IDF, its sentences"]


def test_one_row_has_a_hidden_layer_and_the_others_are_made_by_name():
    codes = load_intents().split("test").images[:2, 0].long()
    bent = compare_words.learner_of("ProtoNet, n-grams and MLP").encoder
    assert bent(codes).shape == (2, 128)
    assert (bent[1](bent[0](codes)) >= 0).all()
    assert not isinstance(compare_words.learner_of("ProtoNet, n-grams").encoder, torch.nn.Sequential)


def test_the_committed_file_is_whole():
    there = json.loads(compare_words.OUT.read_text(encoding="utf-8"))
    for data in ("intents", *compare_words.REAL):
        seeds = {}
        for row in there["rows"]:
            if row["data"] == data:
                seeds.setdefault(row["label"], set()).add(row["seed"])
                assert all(len(result["correct"]) == there["episodes"] for result in row["results"])
        for label in compare_words.TRAINED:
            assert seeds.get(label, {0, 1, 2}) == {0, 1, 2}
        assert data != "intents" or set(compare_words.TRAINED) <= set(seeds)
        assert {"MiniLM, nearest mean", "TF-IDF of the support, nearest mean"} <= set(seeds)
    assert sorted(row["seed"] for row in there["rows"] if row["data"] == "memory") == [0] * 9 + [1] * 9 + [2] * 9


def test_the_real_data_have_their_classes_and_one_row_repeats():
    folder = texts_folder()
    if folder is None:
        pytest.skip("CLINC150 and BANKING77 do not lie here: FSL_DATA/texts, or ../shared/texts beside the checkout")
    there = json.loads(compare_words.OUT.read_text(encoding="utf-8"))["rows"]
    for name, classes in (("clinc150", 150), ("banking77", 77)):
        source = text_set(real_rows(name, folder), name)
        assert len(source) == classes
        row = next(r for r in there if r["data"] == name and r["label"].startswith("TF-IDF of the support"))
        found = correct(tfidf(source, None, "mean"), source, 10)
        assert all(f["correct"] == r["correct"][:10] for f, r in zip(found, row["results"], strict=True))


def test_vectors_stand_in_the_order_of_the_sentences():
    source = text_set([("a", "x", "", ""), ("b", "y", "", ""), ("c", "y", "", "")])
    table = sentence_vectors.vectors(source, lambda texts: np.array([[ord(t)] for t in texts], dtype=np.float32))
    assert table[:, 0].tolist() == [97, 0, 98, 99]
    stored = np.load(sentence_vectors.OUT)["vectors"].astype(np.float32)
    assert stored.shape == (1280, 384)
    assert np.allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-2)
