"""The OpenAPI document: what FastAPI derives from the routes, with our problem documents in place of its errors."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.errors import MEDIA_TYPE
from service.schemas import Problem

_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}
_EVERYWHERE = {"431": "Headers too large.", "500": "The service could not answer."}
_WITH_BODY = {
    "400": "Not JSON as we read it.",
    "413": "Body too large.",
    "415": "Not declared as JSON in UTF-8.",
    "422": "A value that does not fit; `pointer` says where.",
    "429": "Overloaded; see Retry-After.",
    "503": "Not ready.",
    "504": "The deadline came first.",
}
_BY_PATH = {
    "/ready": {"503": "Not ready."},
    "/info": {"503": "Not ready."},
    "/v1/items": {"422": "A parameter that does not fit.", "503": "Not ready."},
    "/v1/items/{item_id}": {"404": "No such item.", "503": "Not ready."},
    "/v1/items/{item_id}/similar": {
        "404": "No such item.",
        "422": "A parameter that does not fit.",
        "503": "Not ready.",
    },
}


def install_openapi(app: FastAPI) -> None:
    """Have `app` describe itself truthfully; the document is made once, when it is first asked for."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _truthful(
                get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _truthful(schema: dict[str, Any]) -> dict[str, Any]:
    for path, verbs in schema["paths"].items():
        for operation in verbs.values():
            problems = {
                **(_WITH_BODY if "requestBody" in operation else {}),
                **_BY_PATH.get(path, {}),
                **_EVERYWHERE,
            }
            operation["responses"].pop("422", None)
            operation["responses"] |= {
                status: {"description": text, "content": {MEDIA_TYPE: _PROBLEM}}
                for status, text in sorted(problems.items())
            }
    types = schema["components"]["schemas"]
    for foreign in ("HTTPValidationError", "ValidationError"):
        types.pop(foreign, None)
    types["Problem"] = Problem.model_json_schema()
    return schema
