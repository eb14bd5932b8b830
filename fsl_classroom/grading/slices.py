"""Finds the statements of a notebook that an answer needs, by following names backwards from its check. Runs nothing.

For `prototypes = check("05.1", prototypes)` these are the latest definition of `prototypes` before that line and, in turn, all
that it refers to: imports, functions, classes, constants. A training cell is included only if an answer refers to its result.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fsl_classroom.grading.submissions import Cell

_ID = re.compile(r"\d\d\.\d+(@.*)?", re.DOTALL)
_CHECK_IN_TEXT = re.compile(r"\bcheck\(\s*[\"'](\d\d\.\d+)(?:@[^\"']*)?[\"']")
_CHANGES_ITS_OWNER = {"add", "append", "clear", "extend", "insert", "pop", "remove", "reverse", "setdefault", "sort"}
_CHANGES_ITS_OWNER |= {"discard", "popitem", "update"}
PACKAGES = ("fsl_course", "fsl_classroom")
_MAYBE = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.Match)  # names in them may stay unbound


@dataclass
class Statement:
    """One top-level statement of a notebook.

    certain: False if the names in it may stay unbound, as in an `if`
    binds:   names that it assigns
    touches: names whose objects it changes
    now:     names that it reads when it runs
    later:   names that the functions in it read when they are called
    """

    cell: int
    node: ast.stmt
    certain: bool = True
    binds: set[str] = field(default_factory=set)
    touches: set[str] = field(default_factory=set)
    now: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)


@dataclass
class Answer:
    """What a notebook hands in for one exercise.

    asked:      the id as the notebook writes it, "05.1" or a variant "05.1@7"
    cell:       number of the code cell with the check
    statements: (number of the code cell, statement) in the notebook's order
    expression: what was passed to check; None if `trouble` says why there is nothing to try
    later:      the answer with what the notebook defines after the check, for students who wrote it there by mistake
    checked:    False if the check was deleted, and the answer is a function with the lesson's name
    """

    asked: str
    cell: int
    statements: list[tuple[int, ast.stmt]] = field(default_factory=list)
    expression: ast.expr | None = None
    trouble: str = ""
    later: Answer | None = None
    checked: bool = True

    @property
    def exercise(self) -> str:
        """Returns the id without its variant."""
        return self.asked.partition("@")[0]


def answers_of(
    cells: Sequence[Cell],
    names: dict[str, str] | None = None,
    lessons: set[str] | None = None,
    expected: dict[str, str] | None = None,
) -> dict[str, Answer]:
    """Returns exercise id -> answer for every check in a notebook. Of several checks of one exercise the last counts.

    names:   exercise id -> the function's name in the lesson. It finds answers whose check was deleted; checks of exercises that
             it does not know are ignored.
    lessons: where to look for answers without a check, besides the lessons that a check in the notebook names
    expected: exercise id -> the id that an assignment handed out, "05.1@7". A check with that id counts before all others.
    """
    statements: list[Statement] = []
    checks: dict[str, tuple[str, int, ast.expr | None]] = {}
    broken: dict[str, Answer] = {}
    checkers, texts = _aliases(cells)
    for cell in cells:
        if cell.tree is None:
            broken |= {id: Answer(id, cell.number, trouble=cell.trouble) for id in _CHECK_IN_TEXT.findall(cell.source)}
            continue
        for node in cell.tree.body:
            rewrite = _Uncheck(checkers, texts)
            node = ast.fix_missing_locations(rewrite.visit(node))
            for asked, expression in rewrite.found:
                if names is not None and asked.partition("@")[0] not in names:
                    continue  # no such exercise
                wanted = (expected or {}).get(asked.partition("@")[0])
                if asked != wanted and checks.get(asked.partition("@")[0], ("",))[0] == wanted:
                    continue  # a check of another variant, beside the one that was handed out
                checks[asked.partition("@")[0]] = asked, len(statements), expression
                broken.pop(asked.partition("@")[0], None)  # this later cell can be read, so it counts
            statements.append(_statement(cell.number, node))
    answers = {}
    for id, (asked, position, expression) in checks.items():
        answers[id] = _answer(statements, asked, position, expression)
        if expression is not None:
            answers[id].later = _later(statements, asked, position, expression)
    lessons = {id[:2] for id in checks} | (lessons or set())
    bound = {name for statement in statements for name in statement.binds}
    for id, name in (names or {}).items():
        if id not in answers and id not in broken and name in bound and id[:2] in lessons:
            answers[id] = _answer(statements, id, len(statements), ast.Name(name, ast.Load()))
            answers[id].checked = False
    return answers | broken


def _answer(statements: list[Statement], asked: str, position: int, expression: ast.expr | None) -> Answer:
    cell = statements[min(position, len(statements) - 1)].cell
    if expression is None:
        return Answer(asked, cell, trouble=f'check("{asked}", ...) was called without a function')
    wanted = _Follower(statements).follow(expression, position)
    chosen = [(statements[i].cell, _trimmed(statements[i].node, wanted[i])) for i in sorted(wanted)]
    return Answer(asked, cell, chosen, ast.fix_missing_locations(expression))


def _later(statements: list[Statement], asked: str, position: int, expression: ast.expr) -> Answer | None:
    """Returns the answer as it stands at the notebook's end, or None if nothing that it needs is defined after the check."""
    wanted = _Follower(statements).follow(expression, len(statements))
    if not any(i > position and _defines(statements[i].node) for i in wanted):
        return None
    return _answer(statements, asked, len(statements), expression)


def _defines(node: ast.stmt) -> bool:
    """Returns True for the definition of a function or class."""
    is_lambda = isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda)
    return is_lambda or isinstance(node, (ast.FunctionDef, ast.ClassDef))


def _aliases(cells: Sequence[Cell]) -> tuple[set[str], dict[str, str]]:
    """Returns the names of `check`, and name -> text for variables that hold an id.

    Examples: `from fsl_classroom import check as c`, `verify = check`, `ID = "05.1"`.
    """
    checkers, texts = {"check"}, {}
    for node in [node for cell in cells if cell.tree is not None for node in cell.tree.body]:
        if isinstance(node, ast.ImportFrom):
            checkers |= {a.asname for a in node.names if a.name == "check" and a.asname}
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
            if (isinstance(value, ast.Name) and value.id in checkers) or getattr(value, "attr", "") == "check":
                checkers.add(name)
            elif isinstance(value, ast.Constant) and isinstance(value.value, str):
                texts[name] = value.value
    return checkers, texts


class _Uncheck(ast.NodeTransformer):
    """Replaces check("05.1", prototypes) by prototypes: the grader judges it, and no reference may stand in for it."""

    def __init__(self, checkers: set[str], texts: dict[str, str]) -> None:
        self.found: list[tuple[str, ast.expr | None]] = []
        self._checkers, self._texts = checkers, texts
        self._inside = 0

    def _function(self, node: ast.AST) -> ast.AST:
        self._inside += 1
        self.generic_visit(node)
        self._inside -= 1
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        first = node.args[0] if node.args else given.get("exercise")
        answer = node.args[1] if len(node.args) > 1 else given.get("answer")
        if name not in self._checkers or self._inside:
            return node
        asked = self._texts.get(first.id) if isinstance(first, ast.Name) else getattr(first, "value", None)
        if not isinstance(asked, str) or not _ID.fullmatch(asked):
            return answer or node  # a computed id, as in a loop: `answers_of` finds the answer by its function's name
        self.found.append((asked, answer))
        return answer or ast.copy_location(ast.Constant(None), node)


def _statement(cell: int, node: ast.stmt) -> Statement:
    made = Statement(cell, node, certain=not isinstance(node, _MAYBE))
    try:
        table = symtable.symtable(ast.unparse(node), "<cell>", "exec")
    except (SyntaxError, RecursionError, ValueError):  # e.g. a `return` outside a function, which cannot run either
        return made
    for symbol in table.get_symbols():
        if symbol.is_assigned() or symbol.is_imported():
            made.binds.add(symbol.get_name())
        if symbol.is_referenced():
            made.now.add(symbol.get_name())
    for child in table.get_children():
        _read_in(child, made, later=False)
    made.touches = {name for name in _touched(node) if name not in made.binds}
    made.binds |= _of_star(node)
    return made


def _of_star(node: ast.stmt) -> set[str]:
    """Returns the names that `from fsl_course import *` binds, because the rules check each. Empty for other statements."""
    if not isinstance(node, ast.ImportFrom) or node.names[0].name != "*":
        return set()
    module = sys.modules.get(node.module or "")
    if module is None or module.__name__.partition(".")[0] not in PACKAGES:
        return set()
    return set(getattr(module, "__all__", None) or (name for name in vars(module) if not name.startswith("_")))


def _read_in(table: symtable.SymbolTable, made: Statement, later: bool) -> None:
    """Adds the global names that an inner scope reads. Functions read them later, classes and comprehensions now."""
    runs_now = str(table.get_type()) in ("class", "SymbolTableType.CLASS") or table.get_name().endswith(
        ("comp", "expr")
    )
    later = later or not runs_now
    for symbol in table.get_symbols():
        if symbol.is_global() or (table.get_type() == "class" and symbol.is_referenced() and not symbol.is_assigned()):
            (made.later if later else made.now).add(symbol.get_name())
    for child in table.get_children():
        _read_in(child, made, later)


def _touched(node: ast.stmt) -> Iterator[str]:
    """Yields names whose objects the statement changes: table["a"] = 1, table.size = 2, table.append(3)."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return
    for inner in ast.walk(node):
        changed: ast.AST | None = None
        if isinstance(inner, (ast.Attribute, ast.Subscript)) and isinstance(inner.ctx, (ast.Store, ast.Del)):
            changed = inner.value
        elif isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Call):
            function = inner.value.func
            if isinstance(function, ast.Attribute) and function.attr in _CHANGES_ITS_OWNER:
                changed = function.value
        while isinstance(changed, (ast.Attribute, ast.Subscript)):
            changed = changed.value
        if isinstance(changed, ast.Name):
            yield changed.id


class _Follower:
    """Follows names backwards through the statements and collects position -> the names that are needed from there."""

    def __init__(self, statements: list[Statement]) -> None:
        self._statements = statements
        self._seen: set[tuple[str, int]] = set()
        self._wanted: dict[int, set[str]] = {}
        self._end = 0

    def follow(self, expression: ast.expr, position: int) -> dict[int, set[str]]:
        root, self._end = _statement(0, ast.Expr(expression)), position
        waiting = [(name, position) for name in root.now | root.later]
        while waiting:
            name, before = waiting.pop()
            if (name, before) not in self._seen:
                self._seen.add((name, before))
                waiting += self._names_behind(name, before)
        return self._wanted

    def _names_behind(self, name: str, before: int) -> list[tuple[str, int]]:
        more: list[tuple[str, int]] = []
        found = False
        for i in reversed(range(before)):
            statement = self._statements[i]
            star = not found and "*" in {
                a.name for a in getattr(statement.node, "names", []) if isinstance(a, ast.alias)
            }
            star = star and not hasattr(builtins, name) and not statement.binds
            if name not in statement.binds and name not in statement.touches and not star:
                continue
            self._wanted.setdefault(i, set()).add(name)
            more += [(other, i) for other in statement.now]
            more += [(other, before) for other in statement.later]
            found = found or name in statement.binds
            if name in statement.binds and statement.certain and not isinstance(statement.node, ast.AugAssign):
                break
        # A function may stand before what it calls, because it is called at the end.
        return more if found else [*more, (name, self._end)]


def _trimmed(node: ast.stmt, wanted: set[str]) -> ast.stmt:
    """Returns an import reduced to the names that are needed, and any other statement unchanged."""
    if not isinstance(node, (ast.Import, ast.ImportFrom)):
        return node
    if names := _of_star(node):
        again = ast.ImportFrom(node.module, [ast.alias(name) for name in sorted(names & wanted)], 0)
        return ast.fix_missing_locations(ast.copy_location(again, node))
    kept = [a for a in node.names if a.name == "*" or (a.asname or a.name.partition(".")[0]) in wanted]
    again = ast.Import(kept) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, kept, node.level)
    return ast.copy_location(again, node)
