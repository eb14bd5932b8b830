"""The page that `classify --html` writes: every picture with its name and the nearest examples, and all examples by class."""

import base64
import html
import io
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image, ImageOps
from torch import Tensor

from fsl_course._system.files import replace_file
from fsl_course.classifier import FewShotClassifier

_SIDE = 84  # pixels on the screen
_NONE = " “None of these” is a picture that is less like any class than the examples of a class are like each other."


def write_page(path: Path, classifier: FewShotClassifier, rows: list[dict[str, Any]]) -> None:
    """Writes one HTML file that needs no other: the pictures are inside, and beside each what the network sees of it.

    classify.html is its frame. Examples whose files are gone, because they came with --save, are shown as the network sees them.
    """
    seen, examples = classifier.pictures([row["picture"] for row in rows]), classifier.support_images_
    files, labels = classifier.sources_, classifier.labels_.tolist()
    answers = "".join(_answer(row, image, examples, files) for row, image in zip(rows, seen, strict=True))
    sheet = ""
    for slot, name in enumerate(classifier.classes_):
        rows_of = [row for row, label in enumerate(labels) if label == slot]
        pictures = "".join(_figure(examples[row], f"example of {name}", file=files[row]) for row in rows_of)
        sheet += f"<h3>{_safe(name)}</h3>{pictures}"
    frame = Template((Path(__file__).parent / "classify.html").read_text(encoding="utf-8"))
    inverted = "as negatives of the files" if classifier.inverted_ else "not inverted"
    words = {"inverted": inverted, "none": "" if classifier.threshold_ is None else _NONE}
    page = frame.substitute(words, weights=_safe(rows[0]["weights"]), answers=answers, sheet=sheet)
    replace_file(path, page.encode("utf-8"))


def _safe(text: str) -> str:
    return html.escape(text, quote=True)


def _answer(row: dict[str, Any], image: Tensor, examples: Tensor, files: list[str | None]) -> str:
    """Returns a picture with its name, its likeliest classes (numbers say what the bars show) and its nearest examples."""
    likely = sorted(row["probabilities"].items(), key=lambda item: -item[1])[:5]
    bars = "".join(
        f'<tr><th scope="row">{_safe(name)}</th><td class="share">{share:.1%}</td>'
        f'<td class="track"><span class="bar" style="width:{share:.1%}"></span></td></tr>'
        for name, share in likely
    )
    file, name = Path(row["picture"]).name, row["name"] or "none of these"
    near = "".join(
        _figure(examples[n["index"]], f"example of {n['name']}", f"{n['name']}, {n['distance']:.3g}", files[n["index"]])
        for n in row["nearest"]
    )
    return (
        f"<section>{_figure(image, f'the picture {file}', file, row['picture'])}"
        f"<div><h2>{_safe(name)}</h2><table>{bars}</table></div>"
        f"<div><h3>Nearest examples</h3>{near}</div></section>"
    )


def _figure(image: Tensor, alt: str, caption: str = "", file: str | None = None) -> str:
    """Returns a picture uint8 [c, H, W] with a caption, and before it the file that it was made from, if that is there."""
    pixels = image.permute(1, 2, 0).numpy()
    seen = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    tags = _tag(seen, f"{alt}, as the network sees it", "seen", "png")
    if file is not None and Path(file).is_file():
        with Image.open(file) as opened:
            whole = ImageOps.exif_transpose(opened).convert("RGBA")
        whole.thumbnail((2 * _SIDE, 2 * _SIDE))
        paper = Image.new("RGB", whole.size, "white")
        paper.paste(whole, mask=whole.getchannel("A"))
        tags = _tag(paper, alt, "file", "jpeg") + tags
    return f"<figure>{tags}<figcaption>{_safe(caption)}</figcaption></figure>"


def _tag(picture: Image.Image, alt: str, kind: str, form: str) -> str:
    """Returns an <img> that holds its own data."""
    buffer = io.BytesIO()
    picture.save(buffer, format=form)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img class="{kind}" alt="{_safe(alt)}" height="{_SIDE}" src="data:image/{form};base64,{data}">'
