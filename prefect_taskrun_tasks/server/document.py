"""From a GraphQL document to what it asks for: operations that are trees of selections."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLIncludeDirective,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLSkipDirective,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    get_named_type,
    parse,
    validate,
    value_from_ast_untyped,
)
from graphql.execution.values import get_argument_values, get_directive_values, get_variable_values

from .limits import Limits

#: Characters of a document that is kept, as it will be sent again. One with thousands of ids in it, which Prefect's
#: views write, will not, and takes some hundred times as much memory.
LONGEST_KEPT = 5_000

#: Errors of one document, or of its variables, that are looked for; each quotes what it is about, however long that is
MOST_ERRORS = 5


class InvalidDocument(Exception):
    """The document cannot be parsed, does not fit the schema, or lacks a variable."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = list(errors)


@dataclass
class Selection:
    """One field that was asked for."""

    #: the key of the answer: the alias, or the name
    key: str
    name: str
    #: the type that it is a field of, which is the answer to `__typename`
    parent: str
    #: arguments, coerced to the schema's types
    arguments: Dict[str, Any]
    #: what was asked for below; of an object that may be nothing
    fields: "List[Selection]" = field(default_factory=list)
    #: or else it is a scalar
    is_object: bool = False


@dataclass(frozen=True)
class Operation:
    is_mutation: bool
    selections: List[Selection]
    #: asks for the schema itself, which graphql-core answers
    is_introspection: bool


def _valid(schema: GraphQLSchema, text: str, limits: Limits) -> DocumentNode:
    return (_checked if len(text) > LONGEST_KEPT else _kept)(schema, text, limits)


def _checked(schema: GraphQLSchema, text: str, limits: Limits) -> DocumentNode:
    try:
        document = parse(text, max_tokens=limits.tokens)
    except GraphQLError as error:
        raise InvalidDocument([error]) from error
    # before it is validated, which for many fields takes long
    _measure(document, limits)
    errors = validate(schema, document, max_errors=MOST_ERRORS)
    if errors:
        raise InvalidDocument(errors)
    return document


_kept = lru_cache(maxsize=256)(_checked)


def _measure(document: DocumentNode, limits: Limits) -> None:
    """Refuses a document whose validation would take long, or that asks for too much.

    Each operation and each fragment is measured, whether it is used or not: all of them are validated. Fragments count
    wherever they are spread: a few that spread each other twice stand for millions of fields. One that spreads itself
    has no end, and so too many.
    """
    if len(document.definitions) > limits.definitions:
        raise InvalidDocument([GraphQLError(f"A document has at most {limits.definitions} operations and fragments.")])
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    for definition in document.definitions:
        selection_set = getattr(definition, "selection_set", None)
        if selection_set:
            _measure_fields(selection_set, fragments, limits)


def _measure_fields(
    selection_set: SelectionSetNode, fragments: Dict[str, FragmentDefinitionNode], limits: Limits
) -> None:
    left = [(selection_set, 1, _Place())]
    seen = 0
    while left:
        selection_set, level, parent = left.pop()
        if level > limits.depth:
            raise InvalidDocument([GraphQLError(f"Fields are at most {limits.depth} levels within each other.")])
        seen += len(selection_set.selections)
        if seen > limits.fields:
            raise InvalidDocument([GraphQLError(f"A document has at most {limits.fields} fields.")])
        for node in selection_set.selections:
            place, below, named = parent, level, node
            if isinstance(node, FieldNode):
                key = node.alias.value if node.alias else node.name.value
                place, below = parent.below.setdefault(key, _Place()), level + 1
                place.repeats += 1
                if place.repeats > limits.repeats:
                    message = f"A document selects the same field at most {limits.repeats} times: {key!r} is repeated."
                    raise InvalidDocument([GraphQLError(message)])
            elif isinstance(node, FragmentSpreadNode):
                # a fragment may be missing, which validation says better
                named = fragments.get(node.name.value)  # type: ignore[assignment]
            # a field of a scalar has no selections
            inner = getattr(named, "selection_set", None)
            if inner:
                left.append((inner, below, place))


@dataclass
class _Place:
    """A key of the answer, in the object that it belongs to."""

    #: how often the document selects it
    repeats: int = 0
    below: "Dict[str, _Place]" = field(default_factory=dict)


def read(
    schema: GraphQLSchema,
    text: str,
    variables: Dict[str, Any],
    operation_name: Optional[str] = None,
    limits: Limits = Limits(),  # noqa: B008 - a frozen value
) -> Operation:
    """The operation of a document that is to be executed.

    Args:
        schema: of the API.
        text: the document.
        variables: their values, by name.
        operation_name: which operation, if there are several.
        limits: how large the document may be.

    Raises:
        InvalidDocument: see there.
    """
    document = _valid(schema, text, limits)
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if operation_name:
        operations = [node for node in operations if node.name and node.name.value == operation_name]
    if len(operations) != 1:
        which = f"named {operation_name!r}" if operation_name else "(name one if there are several)"
        raise InvalidDocument([GraphQLError(f"The document must hold one operation {which}.")])
    operation = operations[0]
    if operation.operation is OperationType.SUBSCRIPTION:
        raise InvalidDocument([GraphQLError("Subscriptions are not served.")])

    values: Any = get_variable_values(schema, operation.variable_definitions or (), variables, max_errors=MOST_ERRORS)
    if isinstance(values, list):
        raise InvalidDocument(values)
    is_mutation = operation.operation is OperationType.MUTATION
    root = schema.mutation_type if is_mutation else schema.query_type
    assert root is not None
    fragments = {n.name.value: n for n in document.definitions if isinstance(n, FragmentDefinitionNode)}
    defaults = {
        each.variable.name.value: value_from_ast_untyped(each.default_value)
        for each in operation.variable_definitions or ()
        if each.default_value
    }
    reader = _Reader(fragments, values, {**defaults, **variables})
    asked = {node.name.value for node in reader.nodes(operation.selection_set)}
    introspects = bool(asked & {"__schema", "__type"})
    if introspects and asked - {"__schema", "__type", "__typename"}:
        raise InvalidDocument([GraphQLError("Ask for the schema (__schema, __type) in a request of its own.")])
    selections = [] if introspects else reader.selections(root, [operation.selection_set])
    return Operation(is_mutation, selections, introspects)


class _Reader:
    def __init__(
        self, fragments: Dict[str, FragmentDefinitionNode], variables: Any, given_variables: Dict[str, Any]
    ) -> None:
        self.fragments = fragments
        #: opaque: what get_variable_values made, which differs between releases of graphql-core
        self.variables = variables
        #: as the caller wrote them
        self.given_variables = given_variables

    def selections(self, parent: GraphQLObjectType, sets: List[SelectionSetNode]) -> List[Selection]:
        """The fields of selection sets, those with the same answer key merged."""
        merged: Dict[str, Tuple[FieldNode, List[SelectionSetNode]]] = {}
        for selection_set in sets:
            for node in self.nodes(selection_set):
                key = node.alias.value if node.alias else node.name.value
                _, below = merged.setdefault(key, (node, []))
                if node.selection_set:
                    below.append(node.selection_set)
        return [self.selection(parent, key, node, below) for key, (node, below) in merged.items()]

    def selection(
        self, parent: GraphQLObjectType, key: str, node: FieldNode, below: List[SelectionSetNode]
    ) -> Selection:
        name = node.name.value
        if name == "__typename":
            return Selection(key, name, parent.name, {})
        definition = parent.fields[name]
        try:
            arguments = get_argument_values(definition, node, self.variables)
        except GraphQLError as error:
            raise InvalidDocument([error]) from error
        for argument in node.arguments or ():
            if argument.name.value == "order_by" and "order_by" in arguments:
                written = value_from_ast_untyped(argument.value, self.given_variables)
                arguments["order_by"] = _as_written(arguments["order_by"], written)
        kind = get_named_type(definition.type)
        if not isinstance(kind, GraphQLObjectType):
            return Selection(key, name, parent.name, arguments)
        return Selection(key, name, parent.name, arguments, self.selections(kind, below), is_object=True)

    def nodes(self, selection_set: SelectionSetNode) -> Iterator[FieldNode]:
        for node in selection_set.selections:
            if self._left_out(node):
                continue
            if isinstance(node, FieldNode):
                yield node
            elif isinstance(node, FragmentSpreadNode):
                yield from self.nodes(self.fragments[node.name.value].selection_set)
            else:
                # an inline fragment, the third and last kind of selection
                yield from self.nodes(node.selection_set)  # type: ignore[attr-defined]

    def _left_out(self, node: Any) -> bool:
        if not node.directives:
            return False
        skip = get_directive_values(GraphQLSkipDirective, node, self.variables)
        include = get_directive_values(GraphQLIncludeDirective, node, self.variables)
        return bool(skip and skip["if"]) or bool(include and not include["if"])


def _as_written(value: Any, written: Any) -> Any:
    """A coerced value with the keys of its objects in the caller's order; graphql-core puts them in the schema's."""
    if isinstance(value, list):
        # one object stands for a list of one
        sources = written if isinstance(written, list) else [written] * len(value)
        return [_as_written(item, source) for item, source in zip(value, sources)]
    if isinstance(value, dict) and isinstance(written, dict):
        return {name: _as_written(value[name], written[name]) for name in written if name in value}
    return value


def terms_in(field: Selection) -> int:
    """Of how many terms the `where` and `order_by` of a field, and of those below it, are made."""
    own = sum(_terms(field.arguments.get(name)) for name in ("where", "order_by"))
    return own + sum(terms_in(each) for each in field.fields)


def _terms(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_terms, value.values()))
    if isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        return sum(map(_terms, value))
    return int(value is not None)


def rows_in(value: Any, fields: List[Selection]) -> int:
    """How many objects an answer to some fields holds; one that many refer to is written, and counts, as often."""
    known: Dict[Tuple[int, int], int] = {}

    def count(value: Any, fields: List[Selection]) -> int:
        if value is None:
            return 0
        rows = value if isinstance(value, list) else [value]
        total = len(rows)
        for each in fields:
            key, below = each.key, each.fields
            if any(deeper.fields for deeper in below):
                for row in rows:
                    # what many refer to is looked into once
                    same = (id(row[key]), id(below))
                    if same not in known:
                        known[same] = count(row[key], below)
                    total += known[same]
            elif below:
                values = [row[key] for row in rows]
                total += sum([len(one) if isinstance(one, list) else one is not None for one in values])
        return total

    return count(value, fields) if fields else 0


def pick(value: Any, asked: Selection) -> Any:
    """Of a value (dict, list of dicts, scalar) just what was asked for."""
    if not asked.is_object or value is None:
        return value
    if isinstance(value, list):
        return [pick(item, asked) for item in value]
    return {
        each.key: each.parent if each.name == "__typename" else pick(value.get(each.name), each)
        for each in asked.fields
    }
