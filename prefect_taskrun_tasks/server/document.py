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
)
from graphql.execution.values import get_argument_values, get_directive_values, get_variable_values


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
    #: arguments, coerced to the schema's types
    arguments: Dict[str, Any]
    #: what was asked for below; empty for a scalar
    fields: "List[Selection]" = field(default_factory=list)


@dataclass(frozen=True)
class Operation:
    is_mutation: bool
    root: GraphQLObjectType
    selections: List[Selection]
    #: asks for the schema itself, which graphql-core answers
    is_introspection: bool


@lru_cache(maxsize=256)
def _valid(schema: GraphQLSchema, text: str) -> DocumentNode:
    try:
        document = parse(text)
    except GraphQLError as error:
        raise InvalidDocument([error]) from error
    except RecursionError as error:
        raise InvalidDocument([GraphQLError("The document is nested too deeply.")]) from error
    errors = validate(schema, document)
    if errors:
        raise InvalidDocument(errors)
    return document


def read(
    schema: GraphQLSchema, text: str, variables: Dict[str, Any], operation_name: Optional[str] = None
) -> Operation:
    """The operation of a document that is to be executed.

    Raises:
        InvalidDocument: see there.
    """
    document = _valid(schema, text)
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if operation_name:
        operations = [node for node in operations if node.name and node.name.value == operation_name]
    if len(operations) != 1:
        which = f"named {operation_name!r}" if operation_name else "(name one if there are several)"
        raise InvalidDocument([GraphQLError(f"The document must hold one operation {which}.")])
    operation = operations[0]
    if operation.operation is OperationType.SUBSCRIPTION:
        raise InvalidDocument([GraphQLError("Subscriptions are not served.")])

    values: Any = get_variable_values(schema, operation.variable_definitions or (), variables)
    if isinstance(values, list):
        raise InvalidDocument(values)
    is_mutation = operation.operation is OperationType.MUTATION
    root = schema.mutation_type if is_mutation else schema.query_type
    assert root is not None
    fragments = {n.name.value: n for n in document.definitions if isinstance(n, FragmentDefinitionNode)}
    introspects = any(
        node.name.value in ("__schema", "__type") for node in _Reader(fragments, values).nodes(operation.selection_set)
    )
    selections = [] if introspects else _Reader(fragments, values).selections(root, [operation.selection_set])
    return Operation(is_mutation, root, selections, introspects)


class _Reader:
    def __init__(self, fragments: Dict[str, FragmentDefinitionNode], variables: Any) -> None:
        self.fragments = fragments
        #: opaque: what get_variable_values made, which differs between releases of graphql-core
        self.variables = variables

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
            return Selection(key, name, {})
        definition = parent.fields[name]
        try:
            arguments = get_argument_values(definition, node, self.variables)
        except GraphQLError as error:
            raise InvalidDocument([error]) from error
        kind = get_named_type(definition.type)
        fields = self.selections(kind, below) if isinstance(kind, GraphQLObjectType) else []
        return Selection(key, name, arguments, fields)

    def nodes(self, selection_set: SelectionSetNode) -> Iterator[FieldNode]:
        for node in selection_set.selections:
            if self._left_out(node):
                continue
            if isinstance(node, FieldNode):
                yield node
            elif isinstance(node, FragmentSpreadNode):
                yield from self.nodes(self.fragments[node.name.value].selection_set)
            else:
                yield from self.nodes(node.selection_set)  # type: ignore[attr-defined]

    def _left_out(self, node: Any) -> bool:
        if not node.directives:
            return False
        skip = get_directive_values(GraphQLSkipDirective, node, self.variables)
        include = get_directive_values(GraphQLIncludeDirective, node, self.variables)
        return bool(skip and skip["if"]) or bool(include and not include["if"])


def pick(value: Any, kind: str, fields: List[Selection]) -> Any:
    """Of a value (dict, list of dicts, scalar) just what was asked for."""
    if isinstance(value, list):
        return [pick(item, kind, fields) for item in value]
    if not fields or value is None:
        return value
    return {
        each.key: kind if each.name == "__typename" else pick(value.get(each.name), kind, each.fields)
        for each in fields
    }
