"""Calls of the ledger are operations or queries: a batch has a list of each, and its answers are put in order again."""

from collections.abc import Iterable, Sequence

from shared.operations import AnyOperation, Operation
from shared.queries import Query
from shared.wire import Answer, Question


def split(questions: Iterable[Question]) -> tuple[list[AnyOperation], list[Query]]:
    """Return the operations and the queries, each in their order."""
    operations: list[AnyOperation] = []
    queries: list[Query] = []
    for question in questions:
        if isinstance(question, Operation):
            operations.append(question)
        else:
            queries.append(question)
    return operations, queries


def merged(questions: Sequence[Question], outcomes: Sequence[Answer], replies: Sequence[Answer]) -> Sequence[Answer]:
    """Return the outcomes of the operations and the replies to the queries, in the order of the questions."""
    if not replies:
        return outcomes
    of_operations, of_queries = iter(outcomes), iter(replies)
    return [next(of_operations if isinstance(one, Operation) else of_queries) for one in questions]
