"""Which statements may reach the engine from outside: one read-only statement over the audit views.

The engine's own parser is asked, never a parser of ours, so that what is judged is what runs:

1. `formatQuerySingleLine` takes the statement as a bound string. It refuses several statements at once and
   gives back one normal form without comments. From here on only that text is used, and it is that text which
   runs.
2. The normal form must begin with SELECT, WITH, SHOW, DESCRIBE, EXISTS or EXPLAIN, and hold neither
   INTO OUTFILE nor PARALLEL WITH outside of literals, nor a quoted name with an escape in it (whose line break
   could forge a line of the next step's answer). A name that is bound to it must be plain for the same reason.
3. `EXPLAIN AST` of the normal form runs nothing and lists its nodes. Every node's kind, every function and
   every table must be on a list; what is not recognised is refused.

What the tree does not show is judged by the text or refused: SHOW keeps its WHERE and LIMIT to itself, a
SETTINGS clause its settings, `APPLY` its function. A function's bare name can stand as an argument
(`arrayMap(file, ['/etc/passwd'])`) and a table's on the right of IN, so identifiers are checked for both.

`EXPLAIN QUERY TREE` and the like fold constants, that is, run functions: they are let pass only with functions
that may run anyway. The client's database must be `audit`, for names without a database to mean what this
module takes them to mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from clickhouse_connect.driver.exceptions import ClickHouseError

from spanseal_storage.engine_errors import engine_words, unless_the_engine_failed
from spanseal_storage.errors import EngineError, StatementRefusedError
from spanseal_storage.raw_query import raw_query
from spanseal_storage.schema import DATABASE
from spanseal_storage.sql_formats import FORMATS
from spanseal_storage.sql_functions import FunctionCatalog, function_catalog

__all__ = ["FORMATS", "TABLES", "Statement", "check", "format_of", "inspect", "normal_form"]

TABLES = frozenset({"events", "records", "checkpoints", "quarantine", "schema_migrations"})
"""What may be read of the database `audit`."""

SYSTEM_TABLES = frozenset(
    f"system.{name}"
    for name in (
        "aggregate_function_combinators",
        "columns",
        "data_type_families",
        "databases",
        "formats",
        "functions",
        "numbers",
        "one",
        "settings",
        "tables",
        "time_zones",
    )
)
"""What clients and dashboards ask at their start; nothing about queries, users, processes or files."""

TABLE_FUNCTIONS = frozenset({"numbers"})

MAX_STATEMENT_CHARACTERS = 256 << 10

_TOKENS = re.compile(r"'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`", re.DOTALL)
_BEGINNINGS = re.compile(r"\(*(?:SELECT|WITH|SHOW|DESCRIBE|EXISTS|EXPLAIN)\b")
_FORBIDDEN = re.compile(r"\b(?:INTO\s+OUTFILE|PARALLEL\s+WITH)\b", re.IGNORECASE)

_FORMAT_CLAUSE = r"(?: FORMAT `?(?P<format>\w+)`?)?"
_FORMAT_AT_END = re.compile(r" FORMAT `?(?P<format>\w+)`?$")
_PATTERN = r"(?: (?:NOT )?I?LIKE '(?:[^'\\]|\\.)*')?(?: LIMIT \d+)?"
_TABLE = rf"(?:{DATABASE}\.)?(?:{'|'.join(sorted(TABLES))})"
_SHOWS = tuple(
    re.compile(pattern + _FORMAT_CLAUSE)
    for pattern in (
        rf"SHOW (?:FULL )?TABLES(?: FROM {DATABASE})?{_PATTERN}",
        rf"SHOW DATABASES{_PATTERN}",
        rf"SHOW CREATE (?:TABLE|VIEW) {_TABLE}",
        rf"EXISTS (?:TABLE|VIEW) {_TABLE}",
    )
)
_SHOW_KINDS = frozenset(
    {
        "ShowTables",
        "ShowCreateTableQuery",
        "ShowCreateViewQuery",
        "ExistsTableQuery",
        "ExistsViewQuery",
    }
)
_QUERY_KINDS = frozenset({"SelectWithUnionQuery", "DescribeQuery", "Explain"})
_EXPLAINS = re.compile(r"Explain EXPLAIN(?: (?:PIPELINE|SYNTAX|ESTIMATE|QUERY TREE))?(?: \(children \d+\))?")

# Nodes that only hold other nodes, every one of which is listed too.
_INNER_KINDS = frozenset(
    {
        "ArrayJoin",
        "Asterisk",
        "ColumnsExceptTransformer",
        "ColumnsListMatcher",
        "ColumnsRegexpMatcher",
        "ColumnsReplaceTransformer",
        "ColumnsReplaceTransformer::Replacement",
        "ColumnsTransformerList",
        "ExpressionList",
        "InterpolateElement",
        "Literal",
        "OrderByElement",
        "QualifiedAsterisk",
        "QualifiedColumnsListMatcher",
        "QualifiedColumnsRegexpMatcher",
        "SampleRatio",
        "SelectIntersectExceptQuery",
        "SelectQuery",
        "SelectWithUnionQuery",
        "Subquery",
        "TableExpression",
        "TableJoin",
        "TablesInSelectQuery",
        "TablesInSelectQueryElement",
        "WindowDefinition",
        "WindowListElement",
        "WithElement",
    }
)
_NODE = re.compile(r"(?P<indent> *)(?P<kind>[A-Za-z][A-Za-z:]*)(?: (?P<rest>.*))?", re.DOTALL)
_CHILDREN = re.compile(r" ?\(children \d+\)$")
_ALIAS = re.compile(r" ?\(alias .*\)$", re.DOTALL)
_FUNCTION = re.compile(r"[A-Za-z_]\w*")
_BOUND_NAME = re.compile(r"\{(\w+):Identifier\}")
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that may run."""

    text: str
    """The engine's normal form; this runs, not what was sent."""
    output_format: str | None
    """What its FORMAT clause names; None where it has none."""


@dataclass(frozen=True, slots=True)
class _Node:
    depth: int
    kind: str
    name: str
    """What follows the kind, without alias and count of children."""
    line: str


def check(client: Any, statement: str, parameters: Mapping[str, str] | None = None) -> str:
    """Return a statement as the engine itself writes it, if it may run.

    Args:
        client: a clickhouse-connect client of the embedded engine that will run it, in the database `audit`.
        statement: what somebody sent.
        parameters: values of its substitutions, such as `{actor:String}`, by bare name, escaped as in
            ClickHouse's HTTP interface.

    Raises:
        StatementRefusedError: it may not run; the message says why. Its cause is the engine's error where it
            is not a statement at all.
        EngineError: the engine did not answer.

    """
    return inspect(client, statement, parameters).text


def inspect(client: Any, statement: str, parameters: Mapping[str, str] | None = None) -> Statement:
    """Do what `check` does, and tell the output format too."""
    if len(statement) > MAX_STATEMENT_CHARACTERS:
        _refuse(f"it is longer than {MAX_STATEMENT_CHARACTERS} characters; bind long values as parameters")
    if "\x00" in statement:
        _refuse("it holds a NUL character")
    text = normal_form(client, statement)
    _check_text(text)
    _check_names(text, parameters or {})
    nodes = _nodes(client, text, parameters)
    catalog = function_catalog(client)
    if nodes[0].kind in _SHOW_KINDS:
        return Statement(text, _check_show(text))
    return Statement(text, _check_tree(client, text, nodes, catalog))


def _refuse(reason: str, cause: BaseException | None = None) -> NoReturn:
    raise StatementRefusedError(f"the statement is refused: {reason}") from cause


def normal_form(client: Any, statement: str) -> str:
    """Return a statement as the engine itself writes it: one statement, in one line, without comments.

    Args:
        client: a clickhouse-connect client, of the embedded engine or of a collector's endpoint.
        statement: what somebody wrote.

    Raises:
        StatementRefusedError: it is not one statement.
        EngineError: the engine did not answer.

    """
    try:
        rows = client.query(
            "SELECT formatQuerySingleLine({statement:String})", parameters={"statement": statement}
        ).result_rows
    except ClickHouseError as error:
        unless_the_engine_failed(error)
        _refuse(f"it is not one statement that can be parsed: {engine_words(error)}", error)
    except OSError as error:
        raise EngineError(f"the engine did not answer: {error}") from error
    return str(rows[0][0])


def _check_text(text: str) -> None:
    if not _BEGINNINGS.match(text):
        _refuse(
            f"{text.split(maxsplit=1)[0].lstrip('(')[:40]!r} is not a reading statement; "
            "use SELECT, SHOW TABLES, DESCRIBE or EXPLAIN"
        )
    for token in _TOKENS.findall(text):
        if token.startswith("`") and "\\" in token:
            _refuse("a quoted name holds a control character, quote or backslash")
    bare = _TOKENS.sub(" ", text)
    if "\\" in bare or "`" in bare or "'" in bare:
        _refuse("its quotation is not understood")
    if found := _FORBIDDEN.search(bare):
        _refuse(f"{found.group().upper()} is not allowed")


def _check_names(text: str, parameters: Mapping[str, str]) -> None:
    # The tree shows a bound name as it is: one with a line break would forge lines of the tree.
    for parameter in _BOUND_NAME.findall(_TOKENS.sub(" ", text)):
        if not _PLAIN_NAME.fullmatch(parameters.get(parameter, "")):
            _refuse(f"the value of {{{parameter}:Identifier}} is not a plain name")


def _nodes(client: Any, text: str, parameters: Mapping[str, str] | None) -> list[_Node]:
    try:
        # The FORMAT is the statement's own where it has none yet, and then the answer comes in the default
        # format, which is the same.
        answer = raw_query(client, f"EXPLAIN AST {text}", "TabSeparated", parameters or {}).decode()
    except ClickHouseError as error:
        unless_the_engine_failed(error)
        _refuse(engine_words(error), error)
    except OSError as error:
        raise EngineError(f"the engine did not answer: {error}") from error
    except UnicodeDecodeError as error:
        _refuse("it holds a name that is not UTF-8", error)
    return [_node(line.replace("\\'", "'")) for line in answer.split("\n") if line]


def _node(line: str) -> _Node:
    found = _NODE.fullmatch(line)
    if found is None:
        _refuse(f"a part of it is not recognised: {line.strip()[:80]!r}")
    rest = found["rest"] or ""
    # "name (alias x) (children 1)", or the children alone
    name = _ALIAS.sub("", _CHILDREN.sub("", rest)) if rest else ""
    return _Node(len(found["indent"]), found["kind"], name.strip(), line)


def _check_show(text: str) -> str | None:
    for pattern in _SHOWS:
        if found := pattern.fullmatch(text):
            return _check_format(found["format"])
    _refuse(
        f"of SHOW and EXISTS only SHOW TABLES [FROM {DATABASE}] [LIKE '…'], SHOW DATABASES, "
        f"SHOW CREATE TABLE and EXISTS TABLE of the audit tables are allowed"
    )


def format_of(text: str) -> str | None:
    """Return the format that a statement in its normal form names at its end; None where it names none."""
    clause = _FORMAT_AT_END.search(text)
    return clause["format"] if clause else None


def _check_format(name: str | None) -> str | None:
    if name is not None and name not in FORMATS:
        _refuse(f"FORMAT {name} is not allowed")
    return name


def _check_tree(client: Any, text: str, nodes: list[_Node], catalog: FunctionCatalog) -> str | None:
    root = nodes[0]
    if root.depth != 0 or root.kind not in _QUERY_KINDS:
        _refuse(f"{root.kind} is not a reading statement; use SELECT, SHOW TABLES, DESCRIBE or EXPLAIN")
    if root.kind == "Explain" and not _EXPLAINS.fullmatch(root.line):
        _refuse("of EXPLAIN only PLAN, PIPELINE, SYNTAX, ESTIMATE and QUERY TREE are allowed")
    has_names = any(node.kind == "WithElement" for node in nodes)
    above: list[_Node] = []  # the nodes that this one is in, outermost first
    for position, node in enumerate(nodes):
        del above[node.depth :]
        if len(above) != node.depth:
            _refuse(f"a part of it is not recognised: {node.line.strip()[:80]!r}")
        if position:
            if node.depth == 0:
                _refuse("it is more than one statement")
            if node.depth == 1 and node.kind == "Identifier":
                _check_format(node.name)
            else:
                _check_node(client, node, above, catalog, position=position, has_names=has_names)
        above.append(node)
    return _check_format(format_of(text))


def _check_node(
    client: Any,
    node: _Node,
    above: list[_Node],
    catalog: FunctionCatalog,
    *,
    position: int,
    has_names: bool,
) -> None:
    if node.kind == "Function":
        _check_function(node, above, catalog)
    elif node.kind == "TableIdentifier":
        _check_table(client, node.name, has_names=has_names)
    elif node.kind == "Identifier":
        _check_identifier(client, node, above, catalog)
    elif node.kind == "Set":
        # As the first child of EXPLAIN these are the options of EXPLAIN, such as indexes = 1.
        if not (above[0].kind == "Explain" and node.depth == 1 and position == 1):
            _refuse("a SETTINGS clause is not allowed")
    elif node.kind == "ColumnsApplyTransformer":
        _refuse("APPLY is not allowed; name the columns instead")
    elif node.kind == "Literal" and node.depth == 1:
        _refuse("INTO OUTFILE is not allowed")
    elif node.kind not in _INNER_KINDS:
        _refuse(f"{node.kind} is not allowed")


def _check_function(node: _Node, above: list[_Node], catalog: FunctionCatalog) -> None:
    name = node.name
    if not _FUNCTION.fullmatch(name):
        _refuse(f"the function's name {name[:80]!r} is not understood")
    if above[-1].kind == "TableExpression":
        if name not in TABLE_FUNCTIONS:
            _refuse(f"the table function {name} is not allowed")
    elif not catalog.allows(name):
        _refuse(
            f"the function {name} is not allowed" if catalog.knows(name) else f"there is no function {name}"
        )


def _check_table(client: Any, name: str, *, has_names: bool) -> None:
    if name in SYSTEM_TABLES or name in TABLES:
        return
    database, dot, table = name.partition(".")
    if dot:
        if database != DATABASE or table not in TABLES:
            _refuse(f"the table {name} is not one of those that may be read: {_table_names()}")
        return
    # Without a database it is a name that WITH gave (the tree does not tell which), or a table of `audit`.
    if not has_names or _is_table(client, name):
        _refuse(f"the table {name} is not one of those that may be read: {_table_names()}")


def _check_identifier(client: Any, node: _Node, above: list[_Node], catalog: FunctionCatalog) -> None:
    if catalog.knows(node.name) and not catalog.allows(node.name):
        # It could be an argument that the engine takes for the function: arrayMap(file, …).
        _refuse(
            f"{node.name} is the name of a function that is not allowed; give a column of that name an alias"
        )
    around = next((outer for outer in reversed(above) if outer.kind != "ExpressionList"), above[0])
    if around.kind != "Function" or not catalog.takes_table(around.name):
        return
    if "." in node.name:
        if node.name not in SYSTEM_TABLES:
            _check_table(client, node.name, has_names=False)
    elif node.name not in TABLES and _is_table(client, node.name):
        _refuse(f"the table {node.name} is not one of those that may be read: {_table_names()}")


def _is_table(client: Any, name: str) -> bool:
    try:
        rows = client.query(
            "SELECT count() FROM system.tables WHERE database = {database:String} AND name = {name:String}",
            parameters={"database": DATABASE, "name": name},
        ).result_rows
    except (ClickHouseError, OSError) as error:
        raise EngineError(f"the engine did not answer: {engine_words(error)}") from error
    return bool(rows[0][0])


def _table_names() -> str:
    return ", ".join(f"{DATABASE}.{name}" for name in sorted(TABLES))
