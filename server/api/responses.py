"""
The statuses that a route may answer beside 200, for the OpenAPI document: all in the one error
body.
"""

from __future__ import annotations

from typing import Any

from server.api.schemas.answers import ErrorBody

Responses = dict[int | str, dict[str, Any]]

MEANINGS = {
    400: "The request is at fault: the message names the value and the limit",
    401: "Keys are set and none matches",
    404: "No such path",
    405: "No such method on this path; see Allow",
    408: "The request did not arrive whole within --read-timeout",
    413: "The body is larger than --max-body-bytes",
    415: "The body is not application/json in UTF-8, or is encoded",
    421: "Host is not allowed",
    429: "The queue is full; see Retry-After",
    431: "The headers are larger than --max-header-bytes",
    500: "A bug of this server",
    503: "The model is being loaded, or the server is shutting down; see Retry-After",
}


def errors(*statuses: int) -> Responses:
    return {status: {"model": ErrorBody, "description": MEANINGS[status]} for status in statuses}


PLAIN_ERRORS = errors(400, 401, 404, 405, 408, 421, 431, 500)
MODEL_ERRORS = errors(400, 401, 404, 405, 408, 413, 415, 421, 429, 431, 500, 503)
