"""Global state that an answer changes is restored and, where it matters, reported."""

import os
import random
import signal
import sys
import warnings

import numpy as np
import pytest
import torch

from fsl_classroom import check
from fsl_classroom.checking.sandbox import Capture, Ran, run
from fsl_classroom.checking.timelimit import Clock


def world():
    """Returns the global state that the engine promises to restore."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "torch seed": torch.initial_seed(),
        "torch state": torch.get_rng_state().tolist(),
        "numpy state": str(np.random.get_state()),  # noqa: NPY002
        "python state": random.getstate(),
        # PyTorch itself sets the first kind when some of its parts are first used
        "environment": {k: v for k, v in os.environ.items() if not k.startswith("TORCHINDUCTOR_")},
        "folder": os.getcwd(),
        "recursion": sys.getrecursionlimit(),
        # libraries add filters for warnings of their own when they are first imported
        "filters": [one for one in warnings.filters if one[2].__module__ == "builtins"],
        "path": list(sys.path),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "handlers": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
        "functions": (random.seed, np.random.seed, input),
    }


def upset():
    torch.manual_seed(1)
    np.random.seed(2)  # noqa: NPY002
    random.seed(3)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    os.environ["FSL_TEST_ONLY"] = "1"
    os.environ.pop("HOME", None)
    os.chdir(os.sep)
    sys.setrecursionlimit(5000)
    warnings.simplefilter("ignore")
    sys.path.append("nowhere")
    sys.stdout = None
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("ending", ["returns", "raises", "loops"])
def test_global_state_is_put_back(ending):
    def function():
        upset()
        if ending == "raises":
            raise ValueError
        if ending == "loops":
            while True:
                pass

    before = world()
    ran = run(function, Clock(0.2), Capture())
    assert world() == before
    assert isinstance(ran, Ran)
    assert ran.late is (ending == "loops")
    assert ran.changes.spoils == [
        "the default dtype of PyTorch",
        "the default device of PyTorch",
        "the gradient mode of PyTorch",
    ]
    for word in (
        "NumPy's",
        "Python's",
        "PyTorch's global random seed",
        "environment",
        "folder",
        "recursion",
        "sys.path",
    ):
        assert any(word in note for note in ran.changes.notes), word


def test_drawing_from_a_global_generator_is_fine_and_repeatable():
    def draws():
        return torch.rand(3).tolist(), np.random.rand(700).tolist(), random.random()  # noqa: NPY002

    first, second = run(draws, Clock(5), Capture()), run(draws, Clock(5), Capture())
    assert first.result == second.result
    assert first.changes.notes == []


def test_seeding_is_forgiven_and_told_but_a_changed_dtype_is_refused(toy, capsys):
    def seeds(embeddings, labels, n_way):
        torch.manual_seed(0)
        return toy.reference(embeddings, labels, n_way)

    def widens(embeddings, labels, n_way):
        torch.set_default_dtype(torch.float64)
        return toy.reference(embeddings, labels, n_way)

    assert check(toy, seeds) is seeds
    assert "Note: your function changes PyTorch's global random seed. It was put back." in capsys.readouterr().out
    assert check(toy, widens) is toy.reference
    assert "leaves the default dtype of PyTorch changed" in capsys.readouterr().out


def test_what_pytorch_sets_on_first_use_is_not_held_against_the_learner(toy, capsys, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)

    def answer(embeddings, labels, n_way):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = "somewhere"  # as torch.func.grad does
        return toy.reference(embeddings, labels, n_way)

    assert check(toy, answer) is answer
    assert "Note" not in capsys.readouterr().out


def test_a_working_folder_that_was_deleted_is_survived(tmp_path):
    """An answer removes the folder in which the check began. There is nothing to return to, and no error."""
    home, gone = os.getcwd(), tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    try:
        ran = run(lambda: (os.chdir(tmp_path), gone.rmdir()), Clock(5), Capture())
        assert ran.error is None
        assert "the working folder" in ran.changes.notes
    finally:
        os.chdir(home)


def test_a_library_that_adds_a_filter_for_its_own_warnings_is_no_change():
    class Deprecated(DeprecationWarning):
        """Of a library."""

    Deprecated.__module__ = "some.library"

    def imports():
        warnings.simplefilter("once", Deprecated)

    kept = list(warnings.filters)
    try:
        assert run(imports, Clock(2.0), Capture()).changes.notes == []
        assert warnings.filters[0][2] is Deprecated
    finally:
        warnings.filters[:] = kept
