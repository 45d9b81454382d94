"""Which of the engine's functions may run in a statement from outside.

An allow-list of two levels. The engine sorts its functions into categories (`system.functions`); categories
whose functions compute from their arguments alone are allowed, all others are not, so that a function which a
later ClickHouse brings in a new place (files, network, sleeping, dictionaries, introspection of the process)
is refused until somebody looked at it. From the mixed category `Other` single functions are allowed by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from spanseal_storage.errors import EngineError

__all__ = ["FunctionCatalog", "function_catalog"]

CATEGORIES = frozenset(
    {
        "Aggregate Functions",
        "Arithmetic",
        "Arrays",
        "Bit",
        "Bitmap",
        "Comparison",
        "Conditional",
        "Dates and Times",
        "Distance",
        "Encoding",
        "Financial",
        "Geo",
        "Geo Polygon",
        "Hash",
        "IP Address",
        "JSON",
        "Logical",
        "Map",
        "Mathematical",
        "Null",
        "Random Number",
        "Rounding",
        "String",
        "String Replacement",
        "String Search",
        "String Splitting",
        "Time Window",
        "Tuple",
        "Type Conversion",
        "URL",
        "UUID",
    }
)

ALLOWED = frozenset(
    {
        # of Other: about values
        "HMAC",
        "bar",
        "byteSize",
        "countDigits",
        "defaultValueOfArgumentType",
        "defaultValueOfTypeName",
        "digits",
        "finalizeAggregation",
        "formatReadableDecimalSize",
        "formatReadableQuantity",
        "formatReadableSize",
        "formatReadableTimeDelta",
        "getSizeOfEnumType",
        "getSubcolumn",
        "identity",
        "ignore",
        "indexHint",
        "isConstant",
        "isDecimalOverflow",
        "lowCardinalityIndices",
        "lowCardinalityKeys",
        "materialize",
        "neighbor",
        "parseISO8601Duration",
        "parseReadableSize",
        "parseReadableSizeOrNull",
        "parseReadableSizeOrZero",
        "parseTimeDelta",
        "rowNumberInAllBlocks",
        "rowNumberInBlock",
        "runningAccumulate",
        "runningDifference",
        "runningDifferenceStartingWithFirstValue",
        "toColumnTypeName",
        "toTypeName",
        "transform",
        "variantElement",
        "variantType",
        "visibleWidth",
        # of Other: about statements as text
        "formatQuery",
        "formatQueryOrNull",
        "formatQuerySingleLine",
        "formatQuerySingleLineOrNull",
        "normalizeQuery",
        "normalizedQueryHash",
        # of Other: what clients ask at their start
        "currentDatabase",
        "currentUser",
        "version",
        # of Internal: what the parser makes of casts, CASE and GROUPING
        "_CAST",
        "caseWithExpression",
    }
)

DENIED = frozenset(
    {
        "aggThrow",  # fails on purpose, for the engine's own tests
        # They take an aggregate function's name as text, made by whatever expression: arraySum and the like do not.
        "arrayReduce",
        "arrayReduceInRanges",
        "flameGraph",
        "formatRow",  # reaches formats that read schema and template files
        "formatRowNoNewline",
        "groupFormat",
        "initializeAggregation",  # as arrayReduce
    }
)

# What the parser makes that is in no list of functions.
_SYNTAX = frozenset({"exists", "grouping", "lambda"})
_IN = frozenset(
    f"{prefix}{name}{suffix}"
    for prefix in ("", "global")
    for name in (
        ("in", "notIn", "nullIn", "notNullIn") if not prefix else ("In", "NotIn", "NullIn", "NotNullIn")
    )
    for suffix in ("", "IgnoreSet")
)


@dataclass(slots=True)
class FunctionCatalog:
    """The functions of one version of the engine, and which of them may run."""

    known: set[str] = field(default_factory=set)
    allowed: set[str] = field(default_factory=set)
    aggregates: set[str] = field(default_factory=set)
    """Those of `allowed` that take combinators."""
    any_case: set[str] = field(default_factory=set)
    """Lower-case names of the functions whose case does not matter."""
    allowed_any_case: set[str] = field(default_factory=set)
    combinators: tuple[str, ...] = ()

    def knows(self, name: str) -> bool:
        """Tell whether the engine has a function of this name."""
        return name in self.known or name.lower() in self.any_case

    def allows(self, name: str) -> bool:
        """Tell whether a function may run; also an aggregate function with combinators, such as `sumIf`."""
        if name in _SYNTAX or name in self.allowed:
            return True
        if self.knows(name):
            return name not in self.known and name.lower() in self.allowed_any_case
        base = name
        while (shorter := self._without_combinator(base)) is not None:
            base = shorter
            if base in self.aggregates or base.lower() in self.aggregates:
                return True
        return False

    def takes_table(self, name: str) -> bool:
        """Tell whether an identifier among the arguments may be a table's name."""
        return name in _IN or name == "exists"

    def _without_combinator(self, name: str) -> str | None:
        for combinator in self.combinators:
            if name.endswith(combinator) and len(name) > len(combinator):
                return name[: -len(combinator)]
        return None


_CATALOGS: dict[str, FunctionCatalog] = {}


def function_catalog(client: Any) -> FunctionCatalog:
    """Return the catalog of a client's engine; asked once for each version.

    Raises:
        EngineError: the engine did not answer.

    """
    version = str(client.server_version)
    if version not in _CATALOGS:
        _CATALOGS[version] = _load(client)
    return _CATALOGS[version]


def _load(client: Any) -> FunctionCatalog:
    try:
        functions = client.query(
            "SELECT name, alias_to, categories, toBool(is_aggregate), toBool(case_insensitive), toString(origin) "
            "FROM system.functions"
        ).result_rows
        combinators = client.query("SELECT name FROM system.aggregate_function_combinators").result_rows
    except (ClickHouseError, OSError) as error:
        raise EngineError(f"the engine did not tell its functions: {error}") from error
    categories = {name: category for name, _, category, *_ in functions}
    catalog = FunctionCatalog(
        combinators=tuple(sorted((str(row[0]) for row in combinators), key=len, reverse=True))
    )
    for name, alias_to, _, is_aggregate, any_case, origin in functions:
        target = alias_to or name
        allowed = (
            origin == "System"
            and not {name, target} & DENIED
            and (target in ALLOWED or categories.get(target) in CATEGORIES)
        )
        catalog.known.add(name)
        if any_case:
            catalog.any_case.add(name.lower())
        if allowed:
            catalog.allowed.add(name)
            if any_case:
                catalog.allowed_any_case.add(name.lower())
            if is_aggregate:
                catalog.aggregates.add(name)
                if any_case:
                    catalog.aggregates.add(name.lower())
    return catalog
