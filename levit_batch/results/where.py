"""`score < 0.5 and label_name == "cat"`: a condition as a person types it, made an Arrow expression.

Parsed with Python's own grammar, of which only what is listed here is let through; nothing is ever evaluated.
"""

import ast
import difflib
import operator
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import ConfigError, brief

HELP = (
    'columns, numbers, "texts", True, False, None; == != < <= > >=, in, not in, is None, is not None, "part" in column; '
    "and, or, not, brackets"
)
COMPARE: dict[type, Callable] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip


class Where:
    """A condition on the rows of a table: `expression` for `Table.filter`, `columns` that it reads.

    Raises ConfigError naming what is wrong with `text`: its grammar, a column that is not in `schema`, types that do not fit.
    """

    def __init__(self, text: str, schema: pa.Schema):
        self.text, self.schema = text, schema
        self.columns: list[str] = []
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
            raise self._error(f"{getattr(e, 'msg', e)}; a condition is made of {HELP}") from None
        self.expression = self._condition(tree)
        try:
            schema.empty_table().filter(self.expression)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as e:
            raise self._error(brief(e)) from None

    def _error(self, why: str) -> ConfigError:
        return ConfigError(f"--where {self.text!r}: {why}")

    def _condition(self, node: ast.expr) -> pc.Expression:
        if isinstance(node, ast.BoolOp):
            join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
            parts = [self._condition(value) for value in node.values]
            return _fold(join, parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self._condition(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [self._compare(a, op, b) for a, op, b in zip(sides, node.ops, sides[1:], strict=False)]
            return _fold(operator.and_, parts)
        name = self._column_name(node)
        if name and self.schema.field(name).type == pa.bool_():
            return pc.field((name,))
        raise self._error(f"{ast.unparse(node)} is not a condition; one is made of {HELP}")

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pc.Expression:
        if isinstance(op, ast.In | ast.NotIn):
            inside = self._inside(left, right)
            return ~inside if isinstance(op, ast.NotIn) else inside
        if isinstance(op, ast.Is | ast.IsNot) or _is_none(left) or _is_none(right):
            return self._null(left, op, right)
        return COMPARE[type(op)](self._operand(left), self._operand(right))

    def _inside(self, left: ast.expr, right: ast.expr) -> pc.Expression:
        """`column in ["a", "b"]`, or `"part" in column`."""
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            return self._operand(left).isin([self._constant(item) for item in right.elts])
        if isinstance(left, ast.Constant) and isinstance(left.value, str) and self._column_name(right):
            return pc.match_substring(self._operand(right), left.value)
        raise self._error(f'{ast.unparse(right)}: after `in` comes a list, as in label_name in ["cat", "dog"]')

    def _null(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pc.Expression:
        if not (_is_none(right) and isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq)):
            raise self._error("`is` goes with None only: error is None")
        null = self._operand(left).is_null()
        return ~null if isinstance(op, ast.IsNot | ast.NotEq) else null

    def _operand(self, node: ast.expr) -> pc.Expression:
        name = self._column_name(node)
        return pc.field((name,)) if name else pc.scalar(self._constant(node))

    def _constant(self, node: ast.expr) -> str | int | float | bool:
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return -self._constant(node.operand)
        raise self._error(f"{ast.unparse(node)} is neither a column nor a value; a condition is made of {HELP}")

    def _column_name(self, node: ast.expr) -> str | None:
        """The column that `node` names (dots are part of a name), or None when it names none."""
        if not isinstance(node, ast.Name | ast.Attribute):
            return None
        name = ast.unparse(node)
        if name not in self.schema.names:
            near = difflib.get_close_matches(name, self.schema.names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"columns here: {', '.join(self.schema.names)}"
            raise self._error(f"there is no column {name}; {hint} (texts need quotes)")
        if name not in self.columns:
            self.columns.append(name)
        return name


def _fold(join: Callable, parts: list[pc.Expression]) -> pc.Expression:
    whole = parts[0]
    for part in parts[1:]:
        whole = join(whole, part)
    return whole


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
