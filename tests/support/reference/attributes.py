"""The descriptions of a class's attributes: the strings that follow them in the source."""

import ast
import inspect
from collections.abc import Mapping
from functools import cache
from itertools import pairwise


@cache
def own_descriptions(class_: type) -> Mapping[str, str]:
    """Return the descriptions of the attributes that the class itself declares; "" where there is none."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(class_) or class_))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == class_.__name__:
            return _read(node)
    raise LookupError(f"{class_.__name__} is not in its module's source")


def description(class_: type, attribute: str) -> str:
    """Return the description that the class, or the nearest of its bases, gives an attribute."""
    for each in class_.__mro__:
        is_ours = each.__module__.split(".")[0] in {"gateway", "worker", "shared"}
        if is_ours and (found := own_descriptions(each).get(attribute)):
            return found
    return ""


def _read(node: ast.ClassDef) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for statement, following in pairwise([*node.body, ast.Pass()]):
        targets: list[ast.expr] = [statement.target] if isinstance(statement, ast.AnnAssign) else []
        targets += statement.targets if isinstance(statement, ast.Assign) else []
        found |= {target.id: _string(following) for target in targets if isinstance(target, ast.Name)}
    return found


def _string(statement: ast.stmt) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
        case _:
            return ""
