"""The recipes of the papers, as values of the options of `python -m fsl_course train`. A new one is one entry of PRESETS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """One recipe.

    method:  the name of the method's file
    options: what differs from the defaults of the command line, by option name, e.g. {"halve_every": 2000}; "set" holds a
             list of KEY=VALUE words; data=None means that the user must give --data
    source:  paper and section, or the authors' code
    note:    what the paper does and this recipe does not
    """

    method: str
    options: Mapping[str, Any]
    source: str
    note: str = ""


_OMNIGLOT = {"data": "omniglot", "protocol": "random", "rotations": True}
_PICTURES = {"data": None, "size": 84, "channels": 3}
_CLASSES = "1100/100/423 characters of a seeded shuffle are not the paper's list of characters. "
_QUERIES = "In the paper's tests batch norm sees all queries at once (evaluate --transductive). "
_SUM = (
    "The code adds the support loss up over the classes, so that the paper's rate of {rate} counts {way} times: here the loss is "
    "a mean and the rate {product}. --set inner_lr={rate} takes the paper's number as it stands. "
)

_MATCHING = _OMNIGLOT | {"way": 20, "shot": 1, "query": 5, "steps": 10_000, "halve_every": 2000, "validate_every": 500}
_MAML = {"shot": 1, "query": 1, "steps": 60_000, "validate_every": 1000}
_MAML5 = _OMNIGLOT | _MAML | {"way": 5, "tasks": 32, "halving": "stride"}
_MAML20 = _OMNIGLOT | _MAML | {"way": 20, "tasks": 16, "halving": "stride"}
_REPTILE = _OMNIGLOT | {"shot": 10, "query": 1, "tasks": 5, "cosine": True, "halving": "stride", "validate_every": 1000}
_REPTILE_NOTE = (
    "The paper's inner loop is Adam without momentum, and its outer loop adds a share of the displacement that falls from 1 to 0 "
    "along a line; here plain gradient steps of 0.1 inside, Adam along a cosine outside. Its tests take steps on a few support "
    "pictures at a time, here each step takes all. Other shots: evaluate --shot. "
)
_TRANSFER = _OMNIGLOT | {"way": 60, "shot": 1, "query": 1, "steps": 10_000, "validate_every": 1000}
_TRANSFER_NOTE = (
    "The paper goes from Omniglot to EMNIST, and fits a task's head by SGD on mini-batches of 4, 100 times over; here new "
    "characters of Omniglot and 100 steps on all of the support. Number of steps and batches are the course's. "
)

PRESETS: dict[str, Preset] = {
    "glyphs-quick": Preset(
        "prototypical",
        {"data": "glyphs", "way": 20, "shot": 1, "query": 5, "steps": 300},
        "the course's own, for a first run",
    ),
    "glyphs-quick-maml": Preset(
        "maml",
        {"data": "glyphs", "way": 5, "shot": 1, "query": 5, "tasks": 4, "lr": 0.003, "steps": 300, "cosine": True}
        | {"set": ["inner_lr=0.4", "inner_steps=3"]},
        "the course's own, for a first run",
    ),
    "snell-omniglot": Preset(
        "prototypical",
        _OMNIGLOT | {"way": 60, "shot": 1, "query": 5, "steps": 20_000, "halve_every": 2000, "join_validation": True},
        "Snell et al. 2017, section 3.1, and its code",
        _CLASSES
        + "The paper stops when validation has not improved for 20,000 episodes, and trains again as long on training and "
        "validation classes; here the number of steps is fixed, and at its end the rate is 0.000002. Five shots: --shot 5. ",
    ),
    "snell-miniimagenet": Preset(
        "prototypical",
        _PICTURES | {"way": 30, "shot": 1, "query": 15, "steps": 20_000, "halve_every": 2000, "validate_every": 500},
        "Snell et al. 2017, section 3.2, and its code",
        "--data is your folder of miniImageNet, with train, val and test in it. The number of steps is fixed, as in "
        "snell-omniglot. Five shots: --way 20 --shot 5. ",
    ),
    "vinyals-omniglot": Preset(
        "matching",
        _MATCHING,
        "Vinyals et al. 2016, section 4.1",
        _CLASSES
        + "Optimiser, rate and number of steps are the course's: the paper names none. Cosines are multiplied by 10; the "
        "paper has no factor (--set scale=1). ",
    ),
    "vinyals-omniglot-fce": Preset(
        "matching",
        _MATCHING | {"set": ["full_context=true"]},
        "Vinyals et al. 2016, section 4.1 and appendix A",
        "vinyals-omniglot with full context embeddings. ",
    ),
    "koch-omniglot": Preset(
        "siamese",
        {"data": "omniglot", "protocol": "alphabets", "within_group": True, "way": 20, "shot": 1, "query": 5}
        | {"steps": 10_000, "halve_every": 2000, "validate_every": 500, "set": ["objective=bce"]},
        "Koch et al. 2015, sections 3 and 4",
        "The paper has a larger net for pictures of 105 pixels, SGD with a rate for each layer, and distorted copies; here "
        "Conv4, 28 pixels and Adam. Its test is 20-way within alphabets: evaluate --way 20 --within-group. ",
    ),
    "sung-omniglot": Preset(
        "relation",
        _OMNIGLOT
        | {"way": 5, "shot": 1, "query": 19, "steps": 1_000_000, "halve_every": 100_000, "clip": 0.5}
        | {"validate_every": 5000, "set": ["objective=mse", "shots=sum"]},
        "Sung et al. 2018, section 4.1, and its code",
        _CLASSES
        + _QUERIES
        + "Its other cells: --shot 5 --query 15; --way 20 --query 10; --way 20 --shot 5 --query 5. A million "
        "steps take days without a GPU. ",
    ),
    "finn-omniglot-5way": Preset(
        "maml",
        _MAML5 | {"set": ["inner_lr=2.0", "inner_steps=1", "test_steps=3"]},
        "Finn et al. 2017, section 5.2 and appendix A.1, and its code",
        _SUM.format(rate=0.4, way=5, product=2) + _QUERIES + "Five shots: --shot 5 --query 5. ",
    ),
    "finn-omniglot-5way-first-order": Preset(
        "maml",
        _MAML5 | {"set": ["inner_lr=0.4", "inner_steps=5", "test_steps=5", "first_order=true"]},
        "Finn et al. 2017, section 5.2",
        "finn-omniglot-5way without second derivatives; the paper has numbers of it for miniImageNet only. The inner rate and "
        "its steps are the course's: without second derivatives one step of 2.0 works badly. ",
    ),
    "finn-omniglot-20way": Preset(
        "maml",
        _MAML20 | {"set": ["inner_lr=2.0", "inner_steps=5", "test_steps=5"]},
        "Finn et al. 2017, section 5.2 and appendix A.1, and its code",
        _SUM.format(rate=0.1, way=20, product=2) + _QUERIES + "Five shots: --shot 5 --query 5. ",
    ),
    "finn-miniimagenet": Preset(
        "maml",
        _PICTURES
        | _MAML
        | {"way": 5, "query": 15, "tasks": 4, "width": 32, "clip": 10.0}
        | {"set": ["inner_lr=0.05", "inner_steps=5", "test_steps=10"]},
        "Finn et al. 2017, section 5.2 and appendix A.1, and its code",
        "--data is your folder of miniImageNet, with train, val and test in it. "
        + _SUM.format(rate=0.01, way=5, product=0.05)
        + _QUERIES
        + "The code cuts every entry of the gradient at 10, here its norm is cut. Five shots: --shot 5 --tasks 2. ",
    ),
    "nichol-omniglot-5way": Preset(
        "reptile",
        _REPTILE
        | {"way": 5, "steps": 100_000}
        | {"set": ["inner_lr=0.1", "inner_steps=5", "batch=10", "test_steps=50"]},
        "Nichol et al. 2018, section 6.1 and its table of settings",
        _REPTILE_NOTE,
    ),
    "nichol-omniglot-20way": Preset(
        "reptile",
        _REPTILE
        | {"way": 20, "steps": 200_000}
        | {"set": ["inner_lr=0.1", "inner_steps=10", "batch=20", "test_steps=50"]},
        "Nichol et al. 2018, section 6.1 and its table of settings",
        _REPTILE_NOTE,
    ),
    "li-omniglot": Preset(
        "meta_sgd",
        _MAML5 | {"set": ["inner_lr=0.1", "inner_steps=1"]},
        "Li et al. 2017, section 4, in the frame of finn-omniglot-5way",
        "The paper draws the rates at random to begin with; here all begin at 0.1. " + _QUERIES,
    ),
    "raghu-omniglot-20way": Preset(
        "anil",
        _MAML20 | {"set": ["inner_lr=2.0", "inner_steps=5", "test_steps=5"]},
        "Raghu et al. 2020, section 4, in the frame of finn-omniglot-20way",
        _SUM.format(rate=0.1, way=20, product=2) + _QUERIES,
    ),
    "chen-omniglot": Preset(
        "transfer",
        _TRANSFER | {"set": ["head=cosine", "classifier=cosine"]},
        "Chen et al. 2019, section 3 (Baseline++)",
        _TRANSFER_NOTE
        + "The code multiplies cosines by 10 for this many classes, by 2 in a task; here the factor begins at 10, "
        "is learned, and serves the tasks too. ",
    ),
    "chen-omniglot-baseline": Preset(
        "transfer",
        _TRANSFER | {"set": ["head=linear", "classifier=linear"]},
        "Chen et al. 2019, section 3 (Baseline)",
        _TRANSFER_NOTE,
    ),
}
