"""The page that `classify --html` writes: every picture with its name and the nearest examples, and all examples by class."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image
from torch import Tensor

from fsl_course._system.files import replace_file
from fsl_course.classifier import FewShotClassifier


def write_page(path: Path, classifier: FewShotClassifier, rows: list[dict[str, Any]]) -> None:
    """Writes one HTML file that needs no other: pictures are inside, as the network sees them. classify.html is its frame."""
    seen, examples = classifier.pictures([row["picture"] for row in rows]), classifier.support_images_
    answers = "".join(_answer(row, image, examples) for row, image in zip(rows, seen, strict=True))
    sheet = ""
    for slot, name in enumerate(classifier.classes_):
        pictures = "".join(_figure(image, f"example of {name}") for image in examples[classifier.labels_ == slot])
        sheet += f"<h3>{_safe(name)}</h3>{pictures}"
    frame = Template((Path(__file__).parent / "classify.html").read_text(encoding="utf-8"))
    inverted = "as negatives of the files" if classifier.inverted_ else "not inverted"
    page = frame.substitute(weights=_safe(rows[0]["weights"]), inverted=inverted, answers=answers, sheet=sheet)
    replace_file(path, page.encode("utf-8"))


def _safe(text: str) -> str:
    return html.escape(text, quote=True)


def _answer(row: dict[str, Any], image: Tensor, examples: Tensor) -> str:
    """Returns a picture with its name, its likeliest classes (numbers say what the bars show) and its nearest examples."""
    likely = sorted(row["probabilities"].items(), key=lambda item: -item[1])[:5]
    bars = "".join(
        f'<tr><th scope="row">{_safe(name)}</th><td class="share">{share:.1%}</td>'
        f'<td class="track"><span class="bar" style="width:{share:.1%}"></span></td></tr>'
        for name, share in likely
    )
    file, name = Path(row["picture"]).name, row["name"] or "none of these"
    near = "".join(
        _figure(examples[n["index"]], f"example of {n['name']}", f"{n['name']}, {n['distance']:.3g}")
        for n in row["nearest"]
    )
    return (
        f"<section>{_figure(image, f'the picture {file}', file)}<div><h2>{_safe(name)}</h2><table>{bars}</table></div>"
        f"<div><h3>Nearest examples</h3>{near}</div></section>"
    )


def _figure(image: Tensor, alt: str, caption: str = "") -> str:
    """Returns a picture uint8 [c, H, W] as an <img> that holds its own PNG, with a caption."""
    pixels, buffer = image.permute(1, 2, 0).numpy(), io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    tag = f'<img alt="{_safe(alt)}" width="84" height="84" src="data:image/png;base64,{data}">'
    return f"<figure>{tag}<figcaption>{_safe(caption)}</figcaption></figure>"
