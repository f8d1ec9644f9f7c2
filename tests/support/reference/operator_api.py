"""docs/reference/operator-api.md, from the OpenAPI document that the API serves."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.support.reference.markdown import bullet, described, section, sentence
from tests.support.reference.markdown import page as render
from worker.operator.openapi import document
from worker.operator.problems import PROBLEM_TYPES
from worker.operator.routes import OPERATIONS

INTRODUCTION: Final = """
The API that `python -m worker operator` serves; `GET /openapi.json` is the whole of it for programs, and
[the operator API](../operations/operator-api.md) says how it is run and used.
"""


def page() -> str:
    """Return the page."""
    made = document(OPERATIONS)
    introduction = f"{INTRODUCTION}\n\n{made['info']['description']}"
    operations = [
        _operation(path, method, operation)
        for path, methods in made["paths"].items()
        for method, operation in methods.items()
    ]
    return render("Operator API", introduction, [*operations, _problems(), *_types(made["components"]["schemas"])])


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    items = [bullet(_parameter(each)) for each in operation["parameters"]]
    if body := operation.get("requestBody"):
        items.append(bullet(f"body: {_type(body['content']['application/json']['schema'])}"))
    items += [bullet(_response(status, each)) for status, each in operation["responses"].items()]
    about = " ".join(sentence(operation[key]) for key in ("summary", "description") if operation[key])
    name = f"{method.upper()} {path}"
    return section(f"`{name}`", described(about, name), items)


def _parameter(parameter: Mapping[str, Any]) -> str:
    where = "in the path" if parameter["in"] == "path" else "query"
    return f"`{parameter['name']}` ({where}): {sentence(described(parameter['description'], parameter['name']))}"


def _response(status: str, response: Mapping[str, Any]) -> str:
    if int(status) >= 400:
        return f"{status}: {', '.join(part.partition(':')[0] for part in response['description'].split('; '))}"
    (content,) = response["content"].values()
    return f"{status}: {_type(content['schema'])}"


def _problems() -> str:
    items = [
        bullet(f"**`{code}`** ({kind.status}): {sentence(kind.title)}") for code, kind in sorted(PROBLEM_TYPES.items())
    ]
    return section("Problems", "Errors are `application/problem+json` (RFC 9457); `code` is for programs.", items)


def _types(schemas: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "## Types"
    for name, schema in sorted(schemas.items()):
        about = sentence(described(schema.get("description"), name))
        required = schema.get("required", ())
        items = [
            bullet(f"`{field}`{'' if field in required else ', optional'}: {_typed(of)}")
            for field, of in schema.get("properties", {}).items()
        ]
        items += [bullet(f"`{value}`") for value in schema.get("enum", ())]
        yield section(f"`{name}`", about, items, level=3)


def _typed(schema: Mapping[str, Any]) -> str:
    about = schema.get("description", "")
    return f"{_type(schema)}. {sentence(about)}" if about else _type(schema)


def _type(schema: Mapping[str, Any]) -> str:
    """Return a type in a few words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema.get("format") or schema.get("type") or "any value")
