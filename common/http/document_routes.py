"""The API document of each server, and a page that shows it; every file comes from this server."""

from __future__ import annotations

import mimetypes
from importlib.resources import files

from flask import Response, current_app
from werkzeug.exceptions import NotFound

from common.http.openapi import document
from common.http.requirement import PUBLIC
from common.http.route import Call, Routes
from common.version import version_text

routes = Routes("documents", "bare")

ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_TITLES = {"ragkeeper-admin": "Ragkeeper admin server", "ragkeeper-user": "Ragkeeper user API"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<noscript>This page needs JavaScript; the document itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  validatorUrl: null,
});
"""


@routes.get("/openapi.json", requires=PUBLIC, data=dict[str, object], summary="The OpenAPI document of this server")
def openapi(call: Call) -> object:
    cache = current_app.extensions
    if "ragkeeper.document" not in cache:
        cache["ragkeeper.document"] = document(
            _TITLES[current_app.name],
            version_text(),
            cache["ragkeeper.routes"],
            names_tenant=current_app.name == "ragkeeper-user",
        )
    return cache["ragkeeper.document"]


@routes.get("/docs", requires=PUBLIC, data=str, media_type="text/html", summary="A page that shows the document")
def page(call: Call) -> Response:
    response = Response(_PAGE.format(title=_TITLES[current_app.name]), mimetype="text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@routes.get("/docs/<asset>", requires=PUBLIC, media_type="*/*", statuses=(404,), summary="A file of that page")
def asset_of_page(call: Call, asset: str) -> Response:
    if asset == "start.js":
        return Response(_START, mimetype="text/javascript")
    if asset not in ASSETS:
        raise NotFound
    content = (files("flask_swagger_ui") / "dist" / asset).read_bytes()
    kind = mimetypes.guess_type(asset)[0] or "application/octet-stream"
    return Response(content, mimetype=kind, headers={"Cache-Control": "public, max-age=86400"})
