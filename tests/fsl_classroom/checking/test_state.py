"""Global state that an answer changes is restored and, where it matters, reported."""

import os
import random
import signal
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fsl_classroom import check
from fsl_classroom.checking import judge
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
    ran = run(function, Clock(0.5, busy=4), Capture())
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


def _stacks_mean(embeddings, labels, n_way):
    return torch.stack([embeddings[labels == k].mean(0) for k in range(n_way)])


_kept = []


class _Raises(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        raise RuntimeError("not with this mode")


class _RaisesBelow(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        raise RuntimeError("not with this mode")


def _leaves_a_function_mode():
    _Raises().__enter__()


def _leaves_a_dispatch_mode():
    _RaisesBelow().__enter__()


def _leaves_a_transform():
    torch._C._functorch._grad_increment_nesting()
    torch._C._functorch._vmap_increment_nesting(3, "error")


def _leaves_autocast():
    torch.autocast("cpu").__enter__()


def _leaves_inference_mode():
    _kept.append(torch.inference_mode())  # without a reference it would end by itself
    _kept[-1].__enter__()


def _replaces_stack():
    torch.stack = lambda tensors: None


def _replaces_a_method():
    torch.Tensor.mean = torch.Tensor.sum


def _deletes_a_part_of_the_judge():
    del judge.first_fault


def _leaves_less_precision():
    torch.set_float32_matmul_precision("medium")


@pytest.mark.parametrize(
    ("leaves", "words"),
    [
        (_leaves_a_function_mode, "a mode of PyTorch"),
        (_leaves_a_dispatch_mode, "a mode of PyTorch"),
        (_leaves_a_transform, "a transform of torch.func"),
        (_leaves_autocast, "PyTorch's autocast"),
        (_leaves_inference_mode, "PyTorch's inference mode"),
        (_replaces_stack, "torch.stack"),
        (_replaces_a_method, "torch.Tensor.mean"),
        (_deletes_a_part_of_the_judge, "fsl_classroom.checking.judge.first_fault"),
        (_leaves_less_precision, "PyTorch's precision of matrix products"),
    ],
)
def test_what_an_answer_leaves_on_is_told_and_undone(toy, capsys, leaves, words):
    """A right answer that leaves something on is refused; the same answer without it is then accepted, in the same session."""

    def answer(embeddings, labels, n_way):
        result = _stacks_mean(embeddings, labels, n_way)
        leaves()
        return result

    toy = replace(toy, gradient=(), properties=())
    assert check(toy, answer) is toy.reference
    assert f"leaves {words}" in capsys.readouterr().out
    assert check(toy, _stacks_mean) is _stacks_mean
    assert "Note" not in capsys.readouterr().out
    weight = torch.ones(2, requires_grad=True)
    (weight @ weight).backward()
    assert weight.grad.tolist() == [2.0, 2.0]
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert torch.func.grad(lambda x: x * x)(torch.tensor(3.0)) == 6


def test_a_mode_that_was_on_before_stays_on():
    seen = []

    class Counts(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    with Counts():
        ran = run(_leaves_a_function_mode, Clock(5), Capture())
        before = len(seen)
        torch.add(torch.ones(1), 1)
        assert len(seen) > before
    assert ran.changes.spoils == ["a mode of PyTorch (TorchFunctionMode or TorchDispatchMode)"]


def test_what_pytorch_replaces_itself_is_no_change():
    def of_the_library():
        torch.stack = torch.functional.einsum  # another function of PyTorch, as its compiler does on first use

    kept = torch.stack
    try:
        assert run(of_the_library, Clock(5), Capture()).changes.spoils == []
    finally:
        torch.stack = kept
