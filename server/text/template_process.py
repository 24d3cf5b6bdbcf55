"""
The child process that renders a model's own chat template, in jinja2's immutable sandbox. The
template came with the weights and is not trusted: what it costs, it costs here.

The environment is the one that templates are written for (transformers' apply_chat_template): same
white space rules, same names.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from server.confined import Answer, Json, work

MAX_REASON = 1000  # characters of why it does not render: a template may say as much as it likes

# Of a template that takes its messages for something else.
FAILURES = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class RefusedByTemplate(Exception):
    pass


class GenerationBlocks(Extension):
    """`{% generation %}` marks what an assistant said, for training: here it is what it holds."""

    tags = {"generation"}  # noqa: RUF012  jinja2's own way of declaring them

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message: object) -> NoReturn:
    raise RefusedByTemplate(str(message))


def strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,  # noqa: ANN401  json.dumps' own
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's own it is not for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, LoopControlExtension]
    )
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = strftime_now
    return made


class Renderer:
    def __init__(self, setup: Json) -> None:
        self.names, self.source = setup["names"], setup["source"]
        self.template: Any = None

    def answer(self, request: Json) -> Answer:
        """`text`, or `error`: why the template does not render these messages."""
        try:
            # Compiled at the first call: what that costs is bounded as a call is.
            self.template = self.template or environment().from_string(self.source)
            return {"text": self.render(request["messages"], request["max_characters"])}, b""
        except RefusedByTemplate as refusal:
            return {"error": str(refusal)[:MAX_REASON]}, b""
        except FAILURES as error:
            return {"error": f"{type(error).__name__}: {error}"[:MAX_REASON]}, b""

    def render(self, messages: list[Json], max_characters: int) -> str:
        parts, size = [], 0
        for part in self.template.generate(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **self.names,
        ):
            parts.append(part)
            size += len(part)
            if size > max_characters:
                raise RefusedByTemplate(f"the text is longer than {max_characters} characters")
        return "".join(parts)


if __name__ == "__main__":
    work(lambda setup, _: Renderer(setup).answer)
