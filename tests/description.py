"""docs/openapi.yaml as tests see it: which endpoints there are, and requests by its examples."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


@cache
def description() -> Any:
    """Return the whole description."""
    path = Path(__file__).parent.parent / "docs" / "openapi.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def resolved(part: Any) -> Any:
    """Follow a $ref."""
    while "$ref" in part:
        found = description()
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


@dataclass(frozen=True)
class Operation:
    """One method of one path. `parameters` are those of its body, by name."""

    path: str
    method: str
    encoding: str  # a content type, or nothing
    parameters: Mapping[str, Any]
    about: Mapping[str, Any]

    @property
    def example(self) -> dict[str, Any]:
        """A request's values: all those that have examples."""
        return {
            name: resolved(schema)["examples"][0]
            for name, schema in self.parameters.items()
            if "examples" in resolved(schema)
        }

    def body(self, values: Any) -> bytes:
        """Encode values as this operation wants them."""
        if self.encoding == JSON or not isinstance(values, dict):
            return json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass")
        texts = {name: self._text(name, value) for name, value in values.items()}
        return urlencode(texts, errors="surrogatepass").encode()

    def _text(self, name: str, value: Any) -> str:
        schema = resolved(self.parameters.get(name, {}))
        is_json = schema.get("type") != "string" or "contentMediaType" in schema
        return json.dumps(value) if is_json or not isinstance(value, str) else value


@cache
def operations() -> list[Operation]:
    """Return all of them."""
    return list(_operations())


def _operations() -> Iterator[Operation]:
    for path, methods in description()["paths"].items():
        for method, about in methods.items():
            content = about.get("requestBody", {}).get("content", {"": {"schema": {}}})
            [(encoding, media)] = content.items()
            parameters = media["schema"].get("properties", {})
            yield Operation(path, method.upper(), encoding, parameters, about)
