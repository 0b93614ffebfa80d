"""The interface for people: one HTML page made from the OpenAPI document.

The framework's own pages load their scripts from a CDN, which a service without egress has not; this one needs no
script at all.
"""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; } code, pre { font: 0.875rem/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; padding: 0.75rem 1rem; border-radius: 0.5rem;
      background: color-mix(in srgb, currentColor 7%, transparent); }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: 0.3rem 0.75rem 0.3rem 0; }
tr { border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); } .verb { font-weight: 600; }
"""


def docs_page(openapi: Mapping[str, Any]) -> str:
    """HTML for an OpenAPI 3.1 document: every operation, then every type with its fields."""
    operations = [
        _operation(path, verb, operation)
        for path, verbs in openapi["paths"].items()
        for verb, operation in verbs.items()
    ]
    types = [_type(name, schema) for name, schema in openapi["components"]["schemas"].items()]
    title = escape(openapi["info"]["title"])
    return "\n".join(
        [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
            f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style>',
            f"<h1>{title}</h1><p>{escape(openapi['info']['description'])}",
            '<p>For programs: <a href="openapi.json">openapi.json</a>.<h2>Operations</h2>',
            *operations,
            "<h2>Types</h2>",
            *types,
        ]
    )


def _operation(path: str, verb: str, operation: Mapping[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{escape(_kind(one['schema']))}"
        f"<td>{escape(one.get('description', ''))}"
        for one in operation.get("parameters", ())
    )
    answers = ", ".join(f"{status} {_linked(_content(reply))}" for status, reply in operation["responses"].items())
    body = _linked(_content(operation.get("requestBody", {})))
    return (
        f"<h3><code><span class=verb>{verb.upper()}</span> {escape(path)}</code></h3>"
        f"<p>{escape(operation.get('description', operation.get('summary', '')))}"
        + (f"<table>{parameters}</table>" if parameters else "")
        + (f"<p>Body: {body}." if body else "")
        + f"<p>Answers: {answers}."
    )


def _type(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code><td>{escape(_kind(one))}{'' if field in required else ', optional'}"
        f"<td>{escape(one.get('description', ''))}"
        for field, one in schema.get("properties", {}).items()
    )
    example = "".join(f"<pre>{escape(json.dumps(one, indent=2))}</pre>" for one in schema.get("examples", ()))
    about = escape(schema.get("description", ""))
    return f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3><p>{about}<table>{rows}</table>{example}'


def _content(holder: Mapping[str, Any]) -> str:
    schemas = [media.get("schema", {}) for media in holder.get("content", {}).values()]
    return next((_kind(schema) for schema in schemas if "$ref" in schema), "")


def _linked(name: str) -> str:
    return f'<a href="#{escape(name)}">{escape(name)}</a>' if name else ""


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives:
        return " or ".join(_kind(one) for one in alternatives)
    if "enum" in schema:
        return " or ".join(json.dumps(one) for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "any"))
