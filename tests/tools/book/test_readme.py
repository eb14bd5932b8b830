import json
from pathlib import Path

import pytest

from tools.book import readme

LESSON = """# %% [markdown]
# # 07 Inner loop
#
# You adapt a network
# by hand ([term](../lessons/GLOSSARY.md#task)).
#
# - Planned time: 50 minutes
# %%
print(1)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "lessons").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "lessons" / "07_inner.py").write_text(LESSON)
    (tmp_path / "data" / "lesson_times.json").write_text(json.dumps({"07_inner": {"seconds": 41.6, "peak_mb": 512.3}}))
    (tmp_path / "pyproject.toml").write_text(
        '[tool.fsl_course]\nrepository = "https://github.com/a/b"\nbranch = "main"\n'
    )
    (tmp_path / "README.md").write_text(
        "top\n<!-- badges -->\nold\n<!-- /badges -->\n<!-- lessons -->\n<!-- /lessons -->\n"
        "<!-- results -->\n<!-- /results -->\n<!-- benchmark -->\n<!-- /benchmark -->\nend\n"
    )
    return tmp_path


def test_a_row_comes_from_the_lesson_and_the_measurement(project):
    row = readme.lesson_table(project).splitlines()[-1]
    assert row == (
        "| [07 Inner loop](notebooks/07_inner.ipynb) ([solved](solutions/07_inner.ipynb)) "
        "| You adapt a network by hand ([term](lessons/GLOSSARY.md#task)). | 50 min | 42 s | 512 MB |"
    )


def test_only_the_marked_parts_change_and_twice_is_once(project):
    text = readme.rendered(project)
    assert text.startswith("top\n<!-- badges -->\n[![Open the course on Binder]")
    assert "mybinder.org/v2/gh/a/b/main?urlpath=lab/tree/notebooks/00_start.ipynb" in text
    assert "old" not in text
    assert text.endswith("<!-- /benchmark -->\nend\n")
    assert "| Pixels, cosine | 53.4" in text
    (project / "README.md").write_text(text)
    assert readme.rendered(project) == text


def test_a_lesson_without_a_promise_is_named(project):
    (project / "lessons" / "07_inner.py").write_text("# %% [markdown]\n# # 07 Inner loop\n# %%\n")
    with pytest.raises(SystemExit, match="07_inner.py: the first cell needs"):
        readme.lesson_table(project)


def test_the_readme_agrees_with_lessons_and_measured_times():
    assert readme.rendered(readme.ROOT) == (readme.ROOT / "README.md").read_text(encoding="utf-8")
