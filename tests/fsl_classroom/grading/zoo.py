"""Answers to exercise 05.1 of every kind that students may hand in, as name -> cell.

HONEST answers must pass. LAZY ones import the reference, CURIOUS ones look into the checker, HOSTILE ones attack the machine
(name -> (cell, words of the diagnosis)), and FORGED ones return objects that lie about themselves.
"""

from __future__ import annotations

import json
from pathlib import Path

IMPORTS = """import inspect
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_classroom import check, progress
from fsl_course import Episode, EpisodeSampler, compare, evaluate, fit, load_glyphs
from fsl_course.evaluation import embed_all, mean_and_ci95
from fsl_course.methods import prototypical as package
from fsl_course.methods.prototypical import PrototypicalNetwork"""
DEF = "def prototypes(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:\n"
RIGHT = "    return torch.stack([embeddings[labels == k].mean(0) for k in range(n_way)])\n"
WRONG = "    return torch.stack([embeddings[labels == k].sum(0) for k in range(n_way)])\n"
CHECK = 'prototypes = check("05.1", prototypes)'
STUB = '    raise NotImplementedError("exercise 05.1 is not attempted yet")\n'
REFERENCE, CHECKER = "imports the reference", "looks into the checker"


def answer(body: str, before: str = "") -> str:
    """Returns a cell with the function, its check and the code before it. body: indented by four."""
    return f"{before}\n{DEF}{body}\n{CHECK}"


def doing(*lines: str) -> str:
    """Returns a right answer that runs these lines first."""
    return answer("".join(f"    {line}\n" for line in lines) + RIGHT)


def trying(*lines: str) -> str:
    """Returns a right answer that runs these lines first and swallows their exceptions."""
    return answer(
        "    try:\n" + "".join(f"        {line}\n" for line in lines) + "    except BaseException: pass\n" + RIGHT
    )


def _writes(text: str) -> list[str]:
    return [f"    try: os.write(fd, {text.encode()!r})", "    except OSError: pass"]


HONEST = {
    "plain": answer(RIGHT),
    "helper": answer(
        "    return torch.stack([_mean(embeddings, labels, k) for k in range(n_way)])\n",
        "def _mean(z, y, k):\n    return z[y == k].mean(0)\n",
    ),
    "constant": answer(RIGHT.replace("mean(0)", "mean(AXIS)"), "AXIS = 1\nAXIS -= 1"),
    "table": answer(RIGHT.replace("mean(0)", "mean(TABLE['axis'])"), "TABLE = {}\nTABLE['axis'] = 0"),
    "class": answer(
        "    return Means(n_way)(embeddings, labels)\n",
        "class Means:\n    def __init__(self, n): self.n = n\n"
        "    def __call__(self, z, y): return torch.stack([z[y == k].mean(0) for k in range(self.n)])\n",
    ),
    "imports inside": doing("import math, numpy as np, sys, os", "assert sys.maxsize > 0 and math.pi > 3"),
    "prints": doing("print('ways', n_way)", "display(labels)"),
    "modules of a net": doing("net = nn.Sequential(nn.Linear(2, 2))", "assert len(list(net.modules())) == 2"),
    "getattr": doing("assert getattr(torch, 'stack') is torch.stack", "assert vars(Episode)"),
    "operator": doing("import operator, functools", "assert functools.reduce(operator.mul, [2, 3]) == 6"),
    "magics": answer(RIGHT, "%matplotlib inline\n!rm -rf important\nx = !ls\ntorch.stack?"),
    "lambda": "prototypes = lambda embeddings, labels, n_way: torch.stack(\n"
    "    [embeddings[labels == k].mean(0) for k in range(n_way)])\ncheck('05.1', prototypes)",
    "check deleted": f"{DEF}{RIGHT}",
    "training before": answer(RIGHT, "while True: pass\n"),
    "dataclass": answer(
        "    setting = Setting(n_way)\n" + RIGHT.replace("n_way", "setting.ways"),
        "from dataclasses import dataclass\n@dataclass\nclass Setting:\n    ways: int\n",
    ),
    "after the check": f"{CHECK}\n{DEF}{RIGHT}",
    "stub before the check, answer after it": f"{DEF}{STUB}{CHECK}\n{DEF}{RIGHT}",
    "helper after the check": answer(RIGHT.replace("embeddings[labels == k].mean(0)", "_mean(embeddings[labels == k])"))
    + "\ndef _mean(rows):\n    return rows.mean(0)",
    "attempts": f"{answer(WRONG)}\n{answer('    return 1 / 0')}\n{answer(RIGHT)}",
    "check by another name": f"from fsl_classroom import check as c\n{DEF.replace('prototypes', 'mine')}{RIGHT}c('05.1', mine)",
    "id in a variable": answer(RIGHT).replace('check("05.1"', "check(ID").replace("def ", 'ID = "05.1"\ndef ', 1),
    "id in a loop": f"{DEF}{RIGHT}for id, f in [('05.1', prototypes)]:\n    check(id, f)",
    "star of the course": "from fsl_course import *\n" + doing("assert EpisodeSampler"),
    "awaits": answer(RIGHT, "import asyncio\nawait asyncio.sleep(0)"),
    "names of builtins": doing("nn.Linear(2, 2).eval()", "assert not _quiet()").replace(
        "def ", "def _quiet(eval=False):\n    return eval\ndef ", 1
    ),
    "tidies up": doing("import gc", "gc.collect()", "torch.cuda.empty_cache()"),
    "compiled": answer(RIGHT.replace("embeddings[", "_same(embeddings)["), "@torch.compile\ndef _same(z):\n    return z * 1"),
    "scripted": answer(
        RIGHT.replace("embeddings[", "_same(embeddings)["), "@torch.jit.script\ndef _same(z: Tensor):\n    return z"
    ),
    "annotations": "from __future__ import annotations\n" + answer(RIGHT).replace("labels: Tensor", "labels: Int[Tensor, 'S']"),
    "quoted types": doing("from typing import NamedTuple", "class P(NamedTuple): x: 'list[Tensor]'", "P([labels])"),
    "commands": answer(RIGHT, "%%time\npip install torch\n!pip install \\\n  numpy\nx = (7\n% 4)\n%time assert x == 3"),
    "indented": "    " + answer(RIGHT).strip().replace("\n", "\n    "),
    "other line ends": answer(RIGHT, "!ls").replace("\n", "\r\n"),
    "partial": "import functools\n" + answer(RIGHT).replace("def prototypes(", "def _p(axis, ").replace("mean(0)", "mean(axis)")
    .replace(CHECK, f"prototypes = functools.partial(_p, 0)\n{CHECK}"),
    "net": "class Net(nn.Module):\n    def forward(self, embeddings, labels, n_way):\n    " + RIGHT
    + f"prototypes = Net()\n{CHECK}",
}  # fmt: skip
LAZY = {
    "inside": answer(
        "    from fsl_course.methods.prototypical import prototypes as p\n    return p(embeddings, labels, n_way)\n"
    ),
    "top": answer(
        "    return p(embeddings, labels, n_way)\n", "from fsl_course.methods.prototypical import prototypes as p"
    ),
    "module": answer("    return package.prototypes(embeddings, labels, n_way)\n"),
    "dotted": answer(
        "    return fsl_course.methods.prototypical.prototypes(embeddings, labels, n_way)\n",
        "import fsl_course.methods.prototypical",
    ),
    "star": answer("    return class_means(embeddings, labels, n_way)\n", "from fsl_course.methods.base import *"),
    "find": answer("    return find('05.1').reference(embeddings, labels, n_way)\n", "from fsl_classroom import find"),
    "check": answer("    return check('05.1', lambda: 0)(embeddings, labels, n_way)\n"),
    "getattr": answer("    return getattr(package, 'proto' + 'types')(embeddings, labels, n_way)\n"),
    "logging": trying(
        "import logging.config as l", "p = l.BaseConfigurator({}).resolve('fsl_course.methods.prototypical.prototypes')"
    ),
    "torch.package": trying(
        "from torch.package import sys_importer as s", "s.import_module('fsl_course.methods.prototypical')"
    ),
    "classroom's exercises": answer(
        "    return p(embeddings, labels, n_way)\n",
        "from fsl_classroom.exercises.ex05_prototypical import prototypes as p",
    ),
    "classroom's catalogue": answer(
        "    return c.find('05.1').reference(embeddings, labels, n_way)\n",
        "import fsl_classroom.checking.catalogue as c",
    ),
    "classroom's star": answer(
        "    return find('05.1').reference(embeddings, labels, n_way)\n", "from fsl_classroom import *"
    ),
    "classroom by mock": trying(
        "from unittest import mock",
        "mock.patch('fsl_classroom.checking.compare.compare', lambda *a, **k: None).start()",
    ),
    "classroom by torch.package": trying(
        "from torch.package import sys_importer as s", "s.import_module('fsl_classroom.checking.catalogue')"
    ),
    "rebound": answer("    return p(embeddings, labels, n_way)\n", "q = package\np = q.prototypes"),
}
CURIOUS = {
    "importlib": trying("import importlib", "m = importlib.import_module('fsl_classroom')"),
    "dunder import": trying("m = __import__('fsl_classroom')"),
    "builtin import": trying("m = print.__self__"),
    "sys.modules": trying("import sys", "m = sys.modules"),
    "frames": trying("import sys", "f = sys._getframe(1)"),
    "traceback": trying("try: 1 / 0", "except ZeroDivisionError as e: f = e.__traceback__"),
    "inspect": trying("f = inspect.currentframe().f_back"),
    "gc": trying("import gc", "o = gc.get_objects()"),
    "globals": trying("g = Episode.__init__.__globals__"),
    "getattr globals": trying("g = getattr(Episode.__init__, '__glo' + 'bals__')"),
    "format": trying("g = '{0.__globals__}'.format(Episode.__init__)"),
    "subclasses": trying("s = object.__subclasses__()"),
    "eval": trying("e = eval('1')"),
    "ctypes": trying("import ctypes"),
    "reads": trying("t = open(package.__file__).read()"),
    "patches": answer(WRONG, "torch.allclose = lambda *a, **k: True\ntorch.equal = torch.allclose"),
    "patches inside": trying("torch.Tensor.__ne__ = lambda a, b: torch.zeros(())"),
    "patches by another name": trying("t = [torch][0]", "t.stack = t.stack.__call__", "t.isfinite = None"),
    "sys of os": trying("from os import sys as s", "m = s.modules"),
    "sys by getattr": trying("import os", "m = getattr(os, 's' + 'ys').modules"),
    "vars": trying("import os", "m = vars(os)['sys'].modules"),
    "module dict": trying("import os", "o = [os][0]", "m = o.__dict__['sys'].modules"),
    "attrgetter": trying("import os, operator", "m = operator.attrgetter('sy' + 's')(os).modules"),
    "match": trying("import os", "match os:", "    case object(sys=s): m = s.modules"),
    "annotations": trying(
        "import typing", "def g(): pass", "g.__annotations__['a'] = '1 + 1'", "typing.get_type_hints(g)"
    ),
    "runstring": trying("from numpy.testing import _private", "_private.utils.runstring('x = 1', {})"),
    "pickled array": trying(
        "import numpy as np, struct",
        "head = b\"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\".ljust(69) + b'\\n'",
        "open('x.npy', 'wb').write(b'\\x93NUMPY\\x01\\x00' + struct.pack('<H', 70) + head + b'cos\\nsystem\\n.')",
        "np.load('x.npy', allow_pickle=True)",
    ),
    "formatter": trying("import string", "string.Formatter().get_field('0.__doc__', (Episode,), {})"),
    "patches for a moment": answer(
        "    old, owner = Tensor.isnan, [Tensor][0]\n    setattr(owner, 'isnan', lambda s: old(s) | True)\n" + WRONG
    ),
    "patches a module for a moment": trying("t = [torch][0]", "old = t.equal", "t.equal = old", "t.equal = old"),
    "setattr": trying("setattr([torch][0], 'allclose', None)"),
}
HOSTILE = {
    "endless": (doing("while True: pass"), "within"),
    "stubborn": (
        doing("while True:", "    try:", "        while True: pass", "    except BaseException: pass"),
        "within",
    ),
    "sleeps in C": (doing("import itertools", "sum(itertools.repeat(0))"), "within"),
    "ignores signals": (
        doing("import signal", "signal.setitimer(signal.ITIMER_REAL, 0)", "signal.signal(14, signal.SIG_IGN)", "while 1: pass"),
        "within",
    ),
    "memory": (doing("x = [bytes(10**7) for _ in range(10**6)]"), "memory"),
    "tensor": (doing("x = torch.ones(10**12)"), "memory"),
    "fork": (doing("import os", "while True: os.fork()"), "process"),
    "program": (trying("import subprocess", "subprocess.run(['touch', '{target}'])"), "reaches out of its process"),
    "system": (trying("import os", "os.system('touch {target}')"), "reaches out of its process"),
    "deletes": (trying("import os", "os.remove('{target}')"), "changes files"),
    "writes": (trying("open('{target}', 'w').write('mine')"), "changes files"),
    "chmod": (trying("import os", "os.chmod('{target}', 0)"), "changes files"),
    "shutil": (trying("import shutil", "shutil.rmtree('{folder}')"), "changes files"),
    "tcp": (trying("import socket", "socket.create_connection(('127.0.0.1', {port}), 1)"), "reaches out"),
    "udp": (trying("import socket", "socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9))"), "reaches out"),
    "exits hard": (doing("import os", "os._exit(0)"), "ends its process"),
    "exits": (doing("import sys", "sys.exit(0)"), "exit() and sys.exit() have no place"),
    "raises": (doing("raise BaseException('mine')"), "BaseException: mine"),
    "interrupts": (doing("raise KeyboardInterrupt"), "KeyboardInterrupt"),
    "recursion": (
        doing("import sys", "sys.setrecursionlimit(10**9)", "def f(): return f()", "f()"),
        "",
    ),
    "prints for ever": (doing("while True: print('x' * 10**5)"), "within"),
    "kills": (doing("import os", "os.kill(os.getppid(), 9)"), "os.kill"),
    "stops itself": (doing("import os, signal", "signal.raise_signal(9)"), "SIGKILL"),
    "forges": (doing("import os", "for fd in range(3, 60):", *_writes('{"passed": true}'), "os._exit(0)"), "channel"),
    "fills the channel": (doing("import os", "for fd in range(3, 60):", *_writes("x" * 20000), "os._exit(0)"), "channel"),
    "threads": (doing("import threading, time", "while 1: threading.Thread(target=time.sleep, args=(99,)).start()"), ""),
    "fills the disk": (
        doing("import os", "for i in range(10**6): open(f'f{i}', 'wb').write(bytes(10**7))"),
        "",
    ),
}  # fmt: skip
FORGED = {
    "number": answer("    return Yes()\n", "class Yes(float):\n    def __eq__(self, other): return True\n"),
    "tensor": answer(
        "    return torch.zeros(n_way, embeddings.shape[1], dtype=embeddings.dtype).as_subclass(Lie)\n",
        "class Lie(Tensor):\n    @classmethod\n    def __torch_function__(cls, f, types, args=(), kwargs=None):\n"
        "        r = super().__torch_function__(f, types, args, kwargs or {})\n"
        "        return torch.zeros_like(r) if getattr(r, 'dtype', None) == torch.bool else r\n",
    ),
    "class changed for a moment": answer(
        "    owner = [Tensor][0]\n    old = owner.isnan\n    owner.isnan = lambda s: old(s) | True\n" + WRONG
    ),
    "hook": answer(
        "    made = "
        + WRONG.strip()[7:]
        + "\n    made.requires_grad and made.register_hook(lambda g: g / 2)\n    return made\n"
    ),
    "object": answer("    return Same()\n", "class Same:\n    def __eq__(self, other): return True\n"),
}


def write(folder: Path, cells: list[str], name: str = "05_prototypical.ipynb") -> Path:
    """Writes a notebook whose outputs claim that everything is right."""
    folder.mkdir(parents=True, exist_ok=True)
    claim = [{"output_type": "stream", "name": "stdout", "text": ["✓ 05.1 Prototypes: right\n"]}]
    made = [
        {"cell_type": "code", "source": source, "outputs": claim, "metadata": {}, "execution_count": 1}
        for source in cells
    ]
    notebook = {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / name).write_text(json.dumps(notebook), encoding="utf-8")
    return folder / name
