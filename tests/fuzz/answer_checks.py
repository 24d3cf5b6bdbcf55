"""
What schemathesis checks of every answer, beside its own: it imports this file as its hooks.
"""

import json

import schemathesis

MAX_ERROR_BYTES = 8192


@schemathesis.check
def one_error_shape(ctx, response, case):
    """An id on everything; and on what is refused, the one small body, without internals."""
    assert response.headers.get("x-request-id"), "an answer without its id"
    if response.status_code < 400 or case.method.upper() == "HEAD":
        return
    assert len(response.content) <= MAX_ERROR_BYTES
    error = json.loads(response.content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in error["message"]
    if response.status_code in (429, 503):
        assert int(response.headers["retry-after"][0]) >= 1


@schemathesis.check
def strict_json(ctx, response, case):
    """No answer holds NaN or Infinity."""
    if response.headers.get("content-type", [""])[0] == "application/json":
        json.loads(response.content, parse_constant=refuse)


def refuse(name):
    raise AssertionError(f"an answer holds {name}")
