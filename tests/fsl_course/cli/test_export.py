"""The command `export`: an encoder that leaves PyTorch gives the same embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fsl_course import load_glyphs
from fsl_course.__main__ import main
from fsl_course.cli import export
from fsl_course.weights.checkpoints import pretrained, save_learner, shipped
from fsl_course.weights.learners import EMBEDS, MAKERS, make
from tests.fsl_course.cli.runs import train_tiny

onnx = pytest.importorskip("onnx", reason='export needs pip install "fsl-course[deploy]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='export needs pip install "fsl-course[deploy]"')
pytest.importorskip("onnxscript", reason='export needs pip install "fsl-course[deploy]"')


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder of the shipped prototypical network."""
    out = tmp_path_factory.mktemp("export") / "new folder" / "encoder.onnx"
    assert main(["export", "prototypical", "--out", str(out)]) == 0
    return out


def drawings(count: int) -> Tensor:
    """Drawings of unseen scripts, one a letter: float32 [count, 1, 28, 28]."""
    return load_glyphs().split("test").images[:count, 3].float() / 255


def embedded(path: Path, pictures: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"pictures": pictures.numpy()})[0])


def metadata(path: Path) -> dict[str, object]:
    return {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_the_exported_encoder_agrees_with_pytorch(exported: Path, batch: int):
    pictures = drawings(batch)
    with torch.no_grad():
        expected = pretrained("prototypical", "glyphs").embed(pictures)
    assert expected.std() > 0.1
    assert float((embedded(exported, pictures) - expected).abs().max()) < 1e-4


def test_the_file_holds_everything_and_brings_its_card(exported: Path):
    assert [path.name for path in exported.parent.iterdir()] == ["encoder.onnx"]
    onnx.checker.check_model(onnx.load(exported), full_check=True)
    found = metadata(exported)
    card = json.loads(Path("data/checkpoints/prototypical-glyphs.json").read_text(encoding="utf-8"))
    assert found == {"card": card, "besides": {}}


def test_nothing_in_the_file_is_pickled_or_names_a_place(exported: Path):
    """A pickle has its protocol mark and opcodes for globals; an absolute path would tell of the machine."""
    content = exported.read_bytes()
    assert content[:2] != b"PK"
    for mark in (b"torch.storage", b"_rebuild_tensor", b"cos\nsystem", b"builtins\n", str(Path.cwd()).encode()):
        assert mark not in content


def test_the_numbers_that_a_method_compares_with_come_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", "simple_shot", "--data", "omniglot", "--out", str(tmp_path / "e.onnx")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].endswith("the encoder of simple_shot-omniglot")
    assert len(out.splitlines()) == 3  # and nothing that the exporter says
    assert err == ""
    mean = pretrained("simple_shot", "omniglot").mean
    assert torch.allclose(torch.tensor(metadata(tmp_path / "e.onnx")["besides"]["mean"]), mean)


def test_a_run_is_exported_by_its_folder_with_its_card(tmp_path: Path, few_episodes: None):
    card = train_tiny("matching", tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "e.onnx")]) == 0
    assert metadata(tmp_path / "e.onnx")["card"] == card
    assert embedded(tmp_path / "e.onnx", drawings(3)).shape == (3, 4)


def test_a_file_without_a_card_is_exported_with_what_it_says_of_itself(tmp_path: Path):
    about = {"method": "unsupervised", "settings": {"width": 4, "size": 32, "in_channels": 3}}
    learner = make("unsupervised", **about["settings"]).eval()
    save_learner(tmp_path / "mine.safetensors", learner, about)
    assert main(["export", str(tmp_path / "mine.safetensors"), "--out", str(tmp_path / "e.onnx")]) == 0
    assert metadata(tmp_path / "e.onnx")["card"] == about
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert float((embedded(tmp_path / "e.onnx", pictures) - learner.embed(pictures)).abs().max()) < 1e-4


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["export", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


@pytest.mark.parametrize("method", sorted(set(MAKERS) - set(EMBEDS)))
def test_methods_whose_weights_are_no_encoder_are_refused(method: str, tmp_path: Path, capsys):
    words = refused([method, "--out", str(tmp_path / "e.onnx")], capsys)
    assert f"{method} does more than compare embeddings" in words
    assert "export prototypical" in words
    assert not (tmp_path / "e.onnx").exists()


@pytest.mark.parametrize(
    "words", [["graph"], ["hypernetwork"], ["matching", "--data", "omniglot", "--variant", "full_context"]]
)
def test_methods_that_read_embeddings_by_a_network_are_refused(words: list[str], tmp_path: Path, capsys):
    found = refused([*words, "--out", str(tmp_path / "e.onnx")], capsys)
    assert f"{words[0]} reads the embeddings by a trained network" in found


def test_a_file_of_another_method_is_refused_too(tmp_path: Path, capsys):
    found = refused(["data/checkpoints/maml-glyphs-5w1s.safetensors", "--out", str(tmp_path / "e.onnx")], capsys)
    assert "maml does more than compare embeddings" in found
    assert "maml-glyphs-5w1s" in shipped()


def test_a_file_that_exists_is_left_alone(tmp_path: Path, capsys):
    (tmp_path / "e.onnx").write_text("mine")
    assert "exists: name another file" in refused(["prototypical", "--out", str(tmp_path / "e.onnx")], capsys)
    assert (tmp_path / "e.onnx").read_text() == "mine"


def test_missing_packages_are_named_with_what_to_do(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    found = refused(["prototypical", "--out", str(tmp_path / "e.onnx")], capsys)
    assert found == 'error: export needs onnxscript: pip install "fsl-course[deploy]"\n'
