"""Mistakes that show only when train or evaluate runs: one sentence, exit status 1."""

from __future__ import annotations

import pytest

from fsl_course.__main__ import main
from fsl_course.data.assets import asset

SINES = asset("checkpoints/maml-sinusoids.safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "baselines", "--out", "x"], "nothing to train"),
        (["train", "protonet", "--out", "x"], "no trainable method 'protonet': choose one of"),
        (["train", "protonet", "--out", "x"], 'zero_shot. Did you mean "prototypical"?'),
        (["train", "prototypical", "--data", "glyps", "--out", "x"], 'is none of these. Did you mean "glyphs"?'),
        (["train", "matching", "--set", "full_contxt=1", "--out", "x"], 'Did you mean "full_context"?'),
        (["train", "matching", "--set", "width=100000000", "--out", "x"], "from 1 to 1024; got 100000000"),
        (["train", "maml", "--set", "inner_lr=NaN", "--out", "x"], "inner_lr must be a number from 0 to 1e30; got nan"),
        (["train", "maml", "--set", "inner_lr=1e300", "--out", "x"], "inner_lr must be a number from 0 to 1e30"),
        (["train", "maml", "--set", "net=mlp", "--out", "x"], "net=mlp does not go with these episodes"),
        (["train", "transfer", "--set", "size=84", "--out", "x"], "of pictures of 28 x 28 pixels and 1 channel"),
        (
            ["train", "maml", "--set", "n_way=3", "--out", "x"],
            "n_way=3 does not go with these episodes, which are 20-way",
        ),
        (["train", "maml", "--bfloat16", "--out", "x"], "maml adapts its weights"),
        (["train", "prototypical", "--query", "500", "--out", "x"], "need 501 pictures of every class, and "),
        (["train", "prototypical", "--device", "cuda:77", "--out", "x"], "there is no device 'cuda:77' here"),
        (["train", "prototypical", "--data", "omniglot", "--out", "x"], "where is Omniglot? Give --root DIR"),
        (["train", "prototypical", "--data", ".", "--out", "x"], "holds no class folders"),
        (["evaluate", "protonet"], 'Did you mean "prototypical-glyphs"?'),
        (["evaluate", "prototypical", "--trained-on", "glyps"], 'Did you mean "prototypical-glyphs"?'),
        (["evaluate", "prototypical", "--device", "tpu"], "there is no device 'tpu' here"),
        (
            ["train", "prototypical", "--data", "nowhere", "--out", "x"],
            "takes glyphs, icons, omniglot, intents, a folder or a file of sentences; 'nowhere'",
        ),
        (
            ["train", "prototypical", "--way", "5000", "--out", "x"],
            "--way 5000 needs 5000 classes, and glyphs/train has ",
        ),
        (
            ["train", "matching", "--set", "full_context", "--out", "x"],
            "--set takes KEY=VALUE, e.g. --set full_context=true",
        ),
        (
            ["train", "matching", "--set", "=true", "--out", "x"],
            "--set takes KEY=VALUE, e.g. --set full_context=true; got '",
        ),
        (["train", "matching", "--set", "shots=sum", "--out", "x"], "matching has no setting shots: choose from width"),
        (["train", "prototypical", "--set", "objective=mse", "--out", "x"], "prototypical has no setting objective"),
        (["train", "siamese", "--set", "objective=hinge", "--out", "x"], "objective must be one of bce, contrastive"),
        (["train", "transfer", "--set", "n_base=abc", "--out", "x"], "n_base must be a whole number from 0"),
        (["train", "transfer", "--set", "n_base=-1", "--out", "x"], "n_base must be a whole number from 0"),
        (["train", "siamese", "--set", "width=abc", "--out", "x"], "width must be a whole number from 1 to 1024"),
        (
            ["train", "matching", "--set", "scale=abc", "--out", "x"],
            "scale must be a number above 0, or None; got 'abc'",
        ),
        (["train", "matching", "--set", "full_context=yes", "--out", "x"], "full_context must be True or False"),
        (["train", "relation", "--set", "shots=", "--out", "x"], 'shots must be "mean" or "sum"; got \'\''),
        (["evaluate", "maml", "--way", "7"], "no weights are shipped as 'maml-glyphs-7w1s'"),
        (["evaluate", "gone.safetensors"], "no checkpoint at gone.safetensors"),
        (["evaluate", "prototypical", "--shot", "30"], "--shot 30 and --query 1 need 31 pictures of every class"),
        (["evaluate", "prototypical", "--data", "omniglot", "--root", "nowhere"], "nowhere"),
        (["evaluate", str(SINES)], "these weights predict sine curves, which evaluate does not test"),
        (
            ["evaluate", "prototypical", "--channels", "3"],
            "--channels goes with pictures of your own, --data FOLDER; --data glyphs",
        ),
        (["evaluate", "prototypical", "--size", "84"], "--size goes with pictures of your own"),
        (["train", "prototypical", "--invert", "no", "--out", "x"], "--invert goes with pictures of your own"),
        (
            ["evaluate", "prototypical", "--protocol", "random"],
            "--protocol goes with --data omniglot; --data glyphs has none",
        ),
        (["train", "prototypical", "--protocol", "random", "--out", "x"], "--protocol goes with --data omniglot"),
        (["evaluate", "baselines", "--trained-on", "glyphs"], "the baselines have none: leave them out"),
        (["evaluate", "baselines", "--variant", "x"], "the baselines have none: leave them out"),
    ],
)
def test_errors_are_one_sentence_and_status_1(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FSL_DATA", raising=False)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
