"""
Every error a client can be shown. server/api turns them into JSON; nothing below names a status
code twice.

* ServeError                    500 server_error           internal_error
  x BadRequest                  400 invalid_request_error  invalid_value
    - InvalidJson               400                        invalid_json
    - UnknownField              400                        unknown_field
    - Unsupported               400                        unsupported_parameter
    - ContextLengthExceeded     400                        context_length_exceeded
    - EmptyPrompt               400                        empty_prompt
    - InvalidToken              400                        invalid_token
    - InvalidGrammar            400                        invalid_grammar
    - UntemplatedModel          400                        untemplated_model
    - NotFound                  404                        not_found
    - ModelNotFound             404                        model_not_found
    - MethodNotAllowed          405                        method_not_allowed
    - ReadTimeout               408                        read_timeout
    - BodyTooLarge              413                        body_too_large
    - UnsupportedMediaType      415                        unsupported_media_type
    - HostNotAllowed            421                        host_not_allowed
    - HeadersTooLarge           431                        headers_too_large
  x Unauthorized                401 authentication_error   invalid_api_key
  x QueueFull                   429 overloaded_error       queue_full, with Retry-After
    - RequestTimeout            429                        accepted, but not finished in time
  x Unavailable                 503 server_error           with Retry-After
    - Loading                   503                        loading
    - ShuttingDown              503                        shutting_down
"""

from __future__ import annotations


class ServeError(Exception):
    """
    `message` is for the client: it names the value and the limit, never a path, an address or a
    traceback.
    """

    status, type, code = 500, "server_error", "internal_error"
    retry_after: int | None = None  # seconds

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param = message, param


class BadRequest(ServeError):
    status, type, code = 400, "invalid_request_error", "invalid_value"


class InvalidJson(BadRequest):
    code = "invalid_json"


class UnknownField(BadRequest):
    code = "unknown_field"


class Unsupported(BadRequest):
    code = "unsupported_parameter"


class ContextLengthExceeded(BadRequest):
    code = "context_length_exceeded"


class EmptyPrompt(BadRequest):
    code = "empty_prompt"


class InvalidToken(BadRequest):
    code = "invalid_token"


class InvalidGrammar(BadRequest):
    code = "invalid_grammar"


class UntemplatedModel(BadRequest):
    code = "untemplated_model"


class NotFound(BadRequest):
    status, code = 404, "not_found"


class ModelNotFound(BadRequest):
    status, code = 404, "model_not_found"


class MethodNotAllowed(BadRequest):
    status, code = 405, "method_not_allowed"


class ReadTimeout(BadRequest):
    status, code = 408, "read_timeout"


class BodyTooLarge(BadRequest):
    status, code = 413, "body_too_large"


class UnsupportedMediaType(BadRequest):
    status, code = 415, "unsupported_media_type"


class HostNotAllowed(BadRequest):
    status, code = 421, "host_not_allowed"


class HeadersTooLarge(BadRequest):
    status, code = 431, "headers_too_large"


class Unauthorized(ServeError):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class QueueFull(ServeError):
    status, type, code, retry_after = 429, "overloaded_error", "queue_full", 1


class RequestTimeout(QueueFull):
    """
    Too much work for the time: like a full queue to its client, who may come back with it later.
    """


class Unavailable(ServeError):
    status, code, retry_after = 503, "loading", 1


class Loading(Unavailable):
    code = "loading"


class ShuttingDown(Unavailable):
    code = "shutting_down"
