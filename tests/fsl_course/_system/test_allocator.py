import pytest

from fsl_course._system import allocator
from fsl_course._system.allocator import keep_memory


@pytest.fixture(autouse=True)
def _fresh():
    """The answer is remembered: each test asks anew, and leaves nothing behind."""
    keep_memory.cache_clear()
    yield
    keep_memory.cache_clear()


def test_it_says_whether_memory_is_kept_and_twice_is_fine():
    first = keep_memory()
    assert isinstance(first, bool)
    assert keep_memory() is first
    keep_memory.cache_clear()
    assert keep_memory() is first  # really set twice


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_platforms_are_left_alone(monkeypatch, platform):
    monkeypatch.setattr(allocator.sys, "platform", platform)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("no C library may be touched here"))
    assert keep_memory() is False


@pytest.mark.parametrize("error", [AttributeError("mallopt"), OSError("no such library")])
def test_another_c_library_is_no_error(monkeypatch, error):
    class Library:
        @property
        def mallopt(self):
            raise error

    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Library())
    assert keep_memory() is False


def test_a_refused_option_is_reported(monkeypatch):
    """mallopt returns 0 where it refuses."""
    asked = []

    class Library:
        @staticmethod
        def mallopt(name, value):
            asked.append((name, value))
            return name != allocator._TOP_PAD

    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Library())
    assert keep_memory() is False
    assert {name for name, _ in asked} == {allocator._TRIM_THRESHOLD, allocator._TOP_PAD, allocator._MMAP_MAX}
