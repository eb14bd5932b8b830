"""The command `export`: writes the encoder of trained weights as one ONNX file, which runs without PyTorch."""

from __future__ import annotations

import argparse
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsl_course.cli.options import named

if TYPE_CHECKING:  # PyTorch is imported by the functions, because the help works without it
    from fsl_course.methods.base import FewShotLearner

_INSTEAD = "prototypical, simple_shot, or matching without full context"


def add_parser(commands: Any) -> None:
    """Adds the command `export`."""
    export = commands.add_parser(
        "export",
        help="writes the encoder of trained weights as an ONNX file",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m fsl_course export simple_shot --data omniglot --out encoder.onnx\n"
        "  python -m fsl_course export runs/mine --out encoder.onnx\n"
        "docs/commands.md says more.",
    )
    which = "a method with shipped weights, or the folder or .safetensors file that train made"
    on = {"dest": "trained_on", "metavar": "DATA", "help": "which shipped weights of the method (glyphs)"}
    export.add_argument("method", metavar="WEIGHTS", type=named, help=which)
    export.add_argument("--out", metavar="FILE", type=named, required=True, help="the file to write; it must not exist")
    export.add_argument("--data", "--trained-on", **on)
    export.add_argument("--variant", help="of the shipped weights")
    export.add_argument("--shot", type=int, default=1, help="shots that they were trained for (1)")
    export.set_defaults(encoder=None, encoder_weights=None, way=None)


def run(options: argparse.Namespace) -> int:
    """Writes the file and prints what it takes and gives. Returns the exit status 0."""
    from fsl_course._system.files import replace_file
    from fsl_course.cli import evaluate
    from fsl_course.data.assets import asset
    from fsl_course.weights.learners import MAKERS, SETTINGS

    if (out := Path(options.out).expanduser()).exists():
        raise ValueError(f"{out} exists: name another file, or delete it.")
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise ImportError(f'export needs {", ".join(missing)}: pip install "fsl-course[deploy]"')
    if options.method in MAKERS:
        _refuse_unless_embeds(options.method)  # first, because there may be no weights with that name
    _, learner, weights, about = evaluate.trained(options)
    beside = (evaluate.weights_file(options.method) or asset(f"checkpoints/{weights}.safetensors")).with_suffix(".json")
    card = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else about
    made = SETTINGS | about["settings"]
    shape = [made["in_channels"], made["size"], made["size"]]
    blob, apart = _encoder(learner, shape, {"card": card, "besides": _besides(learner, about["method"])})
    replace_file(out, blob)
    print(f"{out}: {len(blob) / 1e6:.2f} MB, the encoder of {weights}")
    print(f"  pictures float32 [batch, {', '.join(map(str, shape))}] in [0, 1] -> embeddings float32 [batch, D]")
    print(f"  largest difference from PyTorch on random pictures: {apart:.0e}")
    return 0


def _refuse_unless_embeds(method: str) -> None:
    """Raises ValueError for a method whose weights are not those of an encoder."""
    from fsl_course.weights.learners import EMBEDS

    if method not in EMBEDS:
        raise ValueError(
            f"{method} does more than compare embeddings, so its weights are no encoder that one ONNX file could hold: "
            f"export {_INSTEAD}. `classify` runs {method} in PyTorch."
        )


def _besides(learner: FewShotLearner, method: str) -> dict[str, Any]:
    """Returns the few numbers that a method compares with, such as SimpleShot's mean. Raises ValueError for a trained network."""
    _refuse_unless_embeds(method)
    # without the head of pretraining, which is of no use for new classes
    found = {n: t for n, t in learner.state_dict().items() if not n.startswith(("encoder.", "head.")) and t.numel()}
    if parts := sorted({name.split(".")[0] for name, tensor in found.items() if tensor.dim() > 1}):
        raise ValueError(
            f"{method} reads the embeddings by a trained network ({', '.join(parts)}), without which they would answer "
            f"differently: export {_INSTEAD}. `classify` runs {method} in PyTorch."
        )
    return {name: tensor.tolist() for name, tensor in found.items()}


def _encoder(learner: FewShotLearner, shape: list[int], metadata: dict[str, Any]) -> tuple[bytes, float]:
    """Returns `embed` as an ONNX file for any batch, and how far it is from PyTorch. metadata: what goes with it, as JSON."""
    import onnxruntime
    import torch

    learner.forward = learner.eval().embed  # what the exporter reads
    pictures = torch.rand(4, *shape)  # a batch of 1 would be taken for a constant
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # those of the exporter about itself
        program = torch.onnx.export(
            learner, (pictures,), dynamo=True, verbose=False, external_data=False, input_names=["pictures"],
            output_names=["embeddings"], dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
        expected = learner(pictures)
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces, with the folders of this machine
    program.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})
    blob = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"pictures": pictures.numpy()})
    return blob, float((torch.from_numpy(got) - expected).abs().max())
