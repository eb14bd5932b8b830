"""The table of what lessons import."""

import ast
import textwrap

from tools.classroom import allowed_imports


def test_the_table_is_up_to_date():
    assert allowed_imports.TABLE.read_bytes() == allowed_imports.content(), (
        "run `python -m tools.classroom.allowed_imports`"
    )


def test_imports_count_from_the_next_exercise_on_and_modules_not_at_all(tmp_path):
    (tmp_path / "lessons").mkdir()
    source = """
        # %%
        from fsl_classroom import check
        from fsl_course import Episode
        from fsl_course.methods import prototypical as package
        import torch
        f = check("05.1", f)
        # %%
        from fsl_course.methods.maml import adapt
        g = check("05.2", g)
        # %%
        from fsl_course import doctor
    """
    (tmp_path / "lessons" / "05_a.py").write_text(textwrap.dedent(source))
    expected = {
        "functions": {"05.1": "f", "05.2": "g"},
        "imports": {"fsl_course.Episode": "05.1", "fsl_course.methods.maml.adapt": "05.2"},
    }
    assert allowed_imports.allowed_imports(tmp_path) == {"05": expected}
    assert ast.literal_eval(allowed_imports.content(tmp_path).decode()) == {"05": expected}
