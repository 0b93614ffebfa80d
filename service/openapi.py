"""The OpenAPI document: what FastAPI derives from the routes, with our problem documents in place of its errors."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.errors import MEDIA_TYPE
from service.schemas import Problem

_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}
_EVERYWHERE = {
    "400": "Not a request as we read it.",
    "408": "It did not come whole in time.",
    "431": "Headers too large.",
    "500": "The service could not answer.",
    "503": "Not ready, or too many connections.",
}
_BEHIND_A_KEY = {
    "401": "No API key, or a wrong one, where keys are needed.",
    "429": "Overloaded, or too many wrong keys; see Retry-After.",
}
_PROBES = ("/health", "/ready")
_WITH_BODY = {
    "400": "Not JSON, or not a request, as we read it.",
    "413": "Body too large.",
    "415": "Not declared as JSON in UTF-8.",
    "422": "A value that does not fit; `pointer` says where.",
    "504": "The deadline came first.",
}
_BY_PATH = {
    "/v1/items": {"422": "A parameter that does not fit."},
    "/v1/items/{item_id}": {"404": "No such item."},
    "/v1/items/{item_id}/similar": {"404": "No such item.", "422": "A parameter that does not fit."},
    "/v1/tree": {"404": "No such prefix.", "422": "A parameter that does not fit."},
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
                **_EVERYWHERE,
                **({} if path in _PROBES else _BEHIND_A_KEY),
                **(_WITH_BODY if "requestBody" in operation else {}),
                **_BY_PATH.get(path, {}),
            }
            operation["responses"].pop("422", None)
            operation["responses"] |= {
                status: {"description": text, "content": {MEDIA_TYPE: _PROBLEM}}
                for status, text in sorted(problems.items())
            }
            operation["security"] = [{}] if path in _PROBES else [{"bearer": []}, {"api_key": []}, {}]
    schema["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, where keys are needed."},
        "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
    }
    types = schema["components"]["schemas"]
    for foreign in ("HTTPValidationError", "ValidationError"):
        types.pop(foreign, None)
    types["Problem"] = Problem.model_json_schema()
    return schema
