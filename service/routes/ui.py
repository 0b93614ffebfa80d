"""The playground over HTTP: files from memory, under a strict content security policy."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from service.playground import CONTENT_SECURITY_POLICY, PREFIX, Asset, read_assets


def ui_router() -> APIRouter:
    """The routes of the playground, with its files as they are now."""
    router = APIRouter(prefix=PREFIX, include_in_schema=False)
    assets = read_assets()

    @router.api_route("", methods=["GET", "HEAD"])
    async def door() -> Response:
        """The pages name their files relative to `/ui/`, so the slash is needed; relative, to keep a proxy's prefix."""
        return RedirectResponse("ui/", status_code=308)

    @router.api_route("/{name:path}", methods=["GET", "HEAD"])
    async def file(name: str, request: Request) -> Response:
        """One file, or 304 for a browser that has it."""
        if name not in assets:
            raise HTTPException(404)
        return _reply(assets[name], request)

    return router


def _reply(asset: Asset, request: Request) -> Response:
    headers = {
        "ETag": asset.etag,
        "Cache-Control": "no-cache",  # kept, and asked for again: a new version shows at once
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    if _names(request.headers.get("if-none-match", ""), asset.etag):
        return Response(status_code=304, headers=headers)
    body = b"" if request.method == "HEAD" else asset.body
    headers["Content-Length"] = str(len(asset.body))
    return Response(body, media_type=asset.media_type, headers=headers)


def _names(if_none_match: str, etag: str) -> bool:
    """Whether the header holds this tag, as RFC 9110 compares them (weak ones are as good)."""
    return any(tag.strip().removeprefix("W/") in ("*", etag) for tag in if_none_match.split(","))
