import sys
from pathlib import Path

import pytest

from tools.benchmark import checkouts, maml
from tools.benchmark.measure import Disagreement, Settings

FAKE = """
from learn2learn.algorithms.base_learner import BaseLearner
class MAML(BaseLearner):
    def __init__(self, model, lr):
        self.model, self.lr = model, lr
    def clone(self):
        return self
    def __call__(self, x):
        return self.model(x)
    def adapt(self, loss):
        pass
"""
HIGHER = """
from contextlib import contextmanager
from types import SimpleNamespace
__version__ = "0.0"
@contextmanager
def innerloop_ctx(model, optimiser, copy_initial_weights=True):
    assert not copy_initial_weights
    yield model, SimpleNamespace(step=lambda loss: None)
"""


@pytest.fixture
def folder(tmp_path):
    """A made-up checkout of both, whose inner steps do nothing; nothing of it stays imported."""
    inner = tmp_path / "learn2learn" / "algorithms"
    inner.mkdir(parents=True)
    for package in (inner, inner.parent):
        (package / "__init__.py").write_text("raise ImportError('compiled parts')")
    (inner / "maml.py").write_text(FAKE)
    (inner / "base_learner.py").write_text("class BaseLearner: pass")
    (inner.parent / "_version.py").write_text('__version__ = "1.2.3"')
    (tmp_path / "higher").mkdir()
    (tmp_path / "higher" / "__init__.py").write_text(HIGHER)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] in ("learn2learn", "higher")]:
        del sys.modules[name]


@pytest.mark.parametrize("load", [checkouts.learn2learn, checkouts.higher])
def test_a_folder_that_is_no_checkout_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match="source checkout"):
        load(tmp_path)


def test_learn2learn_is_loaded_without_its_compiled_parts(folder):
    assert checkouts.learn2learn(folder).version == "1.2.3"
    assert (
        Path(sys.modules["learn2learn.algorithms.maml"].__file__) == folder / "learn2learn" / "algorithms" / "maml.py"
    )


@pytest.mark.parametrize("name", ["learn2learn", "higher"])
def test_a_checkout_races_and_one_that_does_not_adapt_is_not_timed(folder, name):
    found = checkouts.found(Settings(**{name: str(folder)}))
    assert list(found) == [name]
    with pytest.raises(Disagreement, match="meta-gradient"):
        maml.agreement("mlp", 1, found)
    # without inner steps there is nothing to adapt: the whole path gives the course's gradient
    assert maml.agreement("mlp", 0, found)["largest_difference"] < 1e-10
