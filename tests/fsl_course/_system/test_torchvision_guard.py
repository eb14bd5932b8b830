"""The guard around torchvision: absent, broken, or built for another PyTorch."""

import subprocess
import sys

import pytest

from fsl_course._system.torchvision_guard import import_torchvision


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a torchvision of our own in front of any other; the test gives its source."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> None:
        (tmp_path / "torchvision.py").write_text(source, encoding="utf-8")

    yield write
    sys.modules.pop("torchvision", None)


def test_a_torchvision_that_works_is_returned_as_it_is(install):
    install("answer = 42")
    assert import_torchvision().answer == 42


def test_an_absent_torchvision_is_named_with_the_cure(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(ImportError, match=r"not installed.*pip install torchvision"):
        import_torchvision()


def test_something_else_missing_is_not_taken_for_torchvision(install):
    install("import a_module_that_is_nowhere")
    with pytest.raises(ImportError, match=r"is installed, but its import fails.*a_module_that_is_nowhere"):
        import_torchvision()


def test_other_errors_are_not_papered_over(install):
    install("raise RuntimeError('libcudart is missing')")
    with pytest.raises(ImportError, match="import fails: libcudart is missing"):
        import_torchvision()


def test_missing_operator_schemas_are_declared_and_the_import_tried_again(tmp_path):
    """In a process of its own, because a schema once declared stays for the whole process."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "extension.py").write_text(  # stays in sys.modules, half imported, unless it is dropped
        "import torch\nhere = hasattr(torch.ops.torchvision, 'nms') and hasattr(torch.ops.torchvision, 'qnms')\n",
        encoding="utf-8",
    )
    (package / "__init__.py").write_text(
        "from torchvision.extension import here\n"
        "if not here: raise RuntimeError('operator torchvision::nms does not exist')\n",
        encoding="utf-8",
    )
    program = (
        "import sys, gc; sys.path.insert(0, sys.argv[1])\n"
        "from fsl_course._system.torchvision_guard import import_torchvision\n"
        "first = import_torchvision(); gc.collect()\n"
        "import torch\n"
        "print(first.here, import_torchvision() is first, torch.ops.torchvision.nms.default._schema)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True True torchvision::nms(Tensor dets, Tensor scores, float iou_threshold)")
