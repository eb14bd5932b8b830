"""tools/book/links.py: links of the repository inside the book."""

import pytest

from tools.book.links import LinkError, Links, with_targets

PAGES = {
    "lessons/GLOSSARY.md": "glossary.md",
    "notebooks/05_proto.ipynb": "notebooks/05_proto.ipynb",
    "solutions/05_proto.ipynb": "notebooks/05_proto.ipynb",
    "fsl_course/nets.py": "api/fsl_course.nets.md",
    "fsl_course/methods/maml.py": "api/fsl_course.methods.md#maml",
}


@pytest.fixture
def links(tmp_path):
    for path in ("data/cards/a.json", "docs/picture.png", *PAGES):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    return Links(tmp_path, PAGES, "https://example.org/x/blob/main/")


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("../lessons/GLOSSARY.md#way", "#term-way"),
        ("../lessons/GLOSSARY.md", "/glossary.md"),
        ("../solutions/05_proto.ipynb", "/notebooks/05_proto.ipynb"),
        ("../fsl_course/nets.py", "/api/fsl_course.nets.md"),
        ("../fsl_course/methods/maml.py", "/api/fsl_course.methods.md#maml"),
        ("../data/cards/a.json", "https://example.org/x/blob/main/data/cards/a.json"),
        ("https://example.org/elsewhere", "https://example.org/elsewhere"),
        ("#here", "/notebooks/05_proto.ipynb#here"),
    ],
)
def test_a_link_in_a_source_page(links, target, wanted):
    assert links.for_sphinx(f"see [`a` b]({target}).", "notebooks/05_proto.ipynb") == f"see [`a` b]({wanted})."


def test_a_link_keeps_its_title(links):
    text = '[way](../lessons/GLOSSARY.md#way "类别数") and [nets](../fsl_course/nets.py)'
    assert links.for_sphinx(text, "notebooks/05_proto.ipynb") == (
        '[way](#term-way "类别数") and [nets](/api/fsl_course.nets.md)'
    )


def test_a_link_in_a_built_page(links):
    text = "[a](../lessons/GLOSSARY.md#way) [b](../fsl_course/nets.py)"
    made = links.for_html(text, "notebooks/05_proto.ipynb")
    assert made == "[a](../glossary.html#term-way) [b](../api/fsl_course.nets.html)"


@pytest.mark.parametrize(
    "code",
    ["`[a](nowhere.md)`", "``x ` [a](nowhere.md)``", "```\n[a](nowhere.md)\n```", "- x\n\n  ```\n  [a](n.md)\n  ```"],
)
def test_code_is_left_alone(links, code):
    assert links.for_sphinx(f"before\n\n{code}\n\nafter", "notebooks/05_proto.ipynb") == f"before\n\n{code}\n\nafter"


@pytest.mark.parametrize("target", ["../lessons/GLOSARY.md", "../../outside.md", "06_next.ipynb"])
def test_a_link_that_leads_nowhere_is_an_error(links, target):
    with pytest.raises(LinkError, match="leads nowhere"):
        links.for_sphinx(f"[a]({target})", "notebooks/05_proto.ipynb")


def test_pictures_are_collected(links):
    assert links.for_sphinx("![A b](docs/picture.png)", "README.md") == "![A b](/docs/picture.png)"
    assert links.images == {"docs/picture.png"}
    with pytest.raises(LinkError, match="no picture"):
        links.for_sphinx("![A b](docs/gone.png)", "README.md")


def test_glossary_terms_become_targets():
    row = '| <a id="support-set"></a>support set (S) | 支持集 | The rows. |'
    assert with_targets(row) == "| [support set (S)]{#term-support-set} | 支持集 | The rows. |"
