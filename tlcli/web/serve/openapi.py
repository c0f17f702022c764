"""The description of the HTTP interface, for programs (OpenAPI 3.1) and for the page with the documentation."""

from __future__ import annotations

from typing import Any

from tlcli.settings import DEFAULT_UNKNOWN_RATE
from tlcli.web.serve.uploads import MAX_BODY, MAX_IMAGES, PART

Schema = dict[str, Any]

PARAMETERS: dict[str, tuple[Schema, str]] = {
    "top": ({"type": "integer", "minimum": 1, "default": 1}, "Report the K most likely classes of each image."),
    "probabilities": ({"type": "boolean", "default": False}, "Add a key p:CLASS for each class."),
    "min_confidence": ({"type": "number", "minimum": 0, "maximum": 1}, "The status is review below this confidence."),
    "target_precision": (
        {"type": "array", "items": {"type": "string"}},
        "The status is review for as few images as needed so that at least this share of the others with each label is "
        "right: a number, or CLASS=NUMBER for one class. May be repeated.",
    ),
    "sets": (
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "Add the key set: classes, joined by |, that include the true one with this probability.",
    ),
    "unknown_rate": (
        {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "default": DEFAULT_UNKNOWN_RATE},
        "Share of images of the known kind that may be flagged as unknown; 0 disables the flag.",
    ),
}
ROW: dict[str, tuple[Schema, str]] = {
    "path": ({"type": ["string", "null"]}, "The filename in the form; null for a raw body."),
    "label": ({"type": ["string", "null"]}, "The predicted class; null if the image cannot be read."),
    "confidence": (
        {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "The calibrated probability of the label.",
    ),
    "status": (
        {"type": "string", "enum": ["ok", "review", "unknown", "failed"]},
        "review: the confidence is too low. unknown: unlike the training images. failed: the image cannot be read.",
    ),
    "error": ({"type": ["string", "null"]}, "Why the image cannot be read."),
    "novelty": (
        {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "Share of known images that look more typical; missing if the run has no novelty model.",
    ),
}
ERRORS = {
    "400": "The request is malformed, or a parameter is wrong.",
    "401": "The token is missing or wrong.",
    "403": "The Host or Origin header names another machine or site.",
    "408": "The body took too long to arrive.",
    "413": f"The body has more than {MAX_BODY:,} bytes.",
    "415": "The body is compressed.",
    "422": "None of the images can be used. The answer has the rows and the reason.",
    "503": "The server is overloaded; wait as many seconds as Retry-After says. Or files of the run changed.",
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "properties": {"kind": {"type": "string"}, "message": {"type": "string"}, "path": {"type": "null"}},
        }
    },
}


def describe_interface(run: str, classes: tuple[str, ...], version: str) -> Schema:
    """Return the OpenAPI description of the interface.

    Args:
        run: The name of the run.
        classes: Its classes.
        version: The version of tlcli.
    """
    row = {name: schema | {"description": about} for name, (schema, about) in ROW.items()}
    row["label"] = row["label"] | {"enum": [*classes, None]}
    healthy = {"summary": "Whether the server answers", "security": [], "responses": {"200": {"description": "Yes."}}}
    metrics = {"summary": "Metrics for Prometheus", "responses": {"200": {"description": "Its text format."}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": run, "version": version, "description": f"A tlcli run with {len(classes):,} classes."},
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Row": {"type": "object", "properties": row}, "Error": ERROR},
        },
        "paths": {
            "/v1/predict": {"post": _predict_operation()},
            "/healthz": {"get": healthy},
            "/metrics": {"get": metrics},
        },
    }


def _predict_operation() -> Schema:
    binary = {"type": "string", "format": "binary"}
    images = {"type": "array", "items": binary, "maxItems": MAX_IMAGES}
    form = {"type": "object", "required": [PART], "properties": {PART: images}}
    refused = {"$ref": "#/components/schemas/Error"}
    return {
        "summary": "Predict the class of each image",
        "description": f"The images, at most {MAX_IMAGES}, are parts named {PART} of a multipart form; a body of any "
        "other content type is one image. There is a row for each image, in order.",
        "parameters": [
            {"name": name, "in": "query", "schema": schema, "description": about}
            for name, (schema, about) in PARAMETERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, "image/*": {"schema": binary}},
        },
        "responses": {"200": _answer("The rows.", _predictions())}
        | {status: _answer(about, refused) for status, about in ERRORS.items()},
    }


def _predictions() -> Schema:
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}
    return {"type": "object", "required": ["predictions"], "properties": {"predictions": rows}}


def _answer(about: str, schema: Schema) -> Schema:
    return {"description": about, "content": {"application/json": {"schema": schema}}}
