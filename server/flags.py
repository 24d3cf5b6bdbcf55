"""
The command line: `tiedlm serve|pull|inspect|generate|quantize` and their flags, told wrong in one
readable line.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import version
from typing import NoReturn

from pydantic import ValidationError

from server.settings import DEFAULT_MODEL, ENV_PREFIX, Settings

REPEATABLE = ("api_key", "allowed_host", "cors_origin")
OTHER_VARIABLES = {"TIEDLM_CACHE", "TIEDLM_API_KEYS"}
MAX_ECHO = 200


class UsageError(Exception):
    """One readable line; the command ends with status 2."""


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(" ".join(message.split())[: 2 * MAX_ECHO])


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser("tiedlm", description="Serve a language model with tied embeddings.")
    parser.add_argument("--version", action="version", version=f"tiedlm {version('tiedlm')}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    serve = commands.add_parser(
        "serve", help="answer over HTTP", allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    add_serve_flags(serve)
    pull = commands.add_parser("pull", help="fetch a checkpoint into the cache", allow_abbrev=False)
    pull.add_argument("name", help="catalogue name or hub id")
    inspect = commands.add_parser("inspect", help="say what a checkpoint is", allow_abbrev=False)
    inspect.add_argument("path", help="folder, .gguf file or catalogue name")
    generate = commands.add_parser(
        "generate", help="continue a prompt, without a server", allow_abbrev=False
    )
    generate.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    generate.add_argument("prompt")
    generate.add_argument("--max-tokens", type=positive, default=128)
    quantize = commands.add_parser(
        "quantize",
        help="write a checkpoint in fewer bits, which loads as it lies",
        allow_abbrev=False,
    )
    quantize.add_argument("source", help="catalogue name, folder, .gguf file or hub id")
    quantize.add_argument("target", help="folder to write; it must be empty or not exist")
    quantize.add_argument("--precision", required=True, choices=("int8", "int4"))
    return parser


def positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 2**24:
        raise argparse.ArgumentTypeError(f"{value} is not from 1 to {2**24}")
    return value


def add_serve_flags(parser: argparse.ArgumentParser) -> None:
    """
    A flag for every field of Settings; what a value may be is checked there, for both sources.
    """
    parser.add_argument("positional_model", nargs="?", metavar="MODEL")
    for name, field in Settings.model_fields.items():
        parser.add_argument(
            flag_of(name),
            dest=name,
            action="append" if name in REPEATABLE else "store",
            metavar=name.rpartition("_")[2].upper(),
            help=f"{field.description} [{ENV_PREFIX}{name.upper()}]".replace("%", "%%"),
        )


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def read_settings(given: dict[str, object]) -> Settings:
    """Flags as parsed (only those that were given), over the environment, over the defaults."""
    if "positional_model" in given:
        model = given.pop("positional_model")
        if given.setdefault("model", model) != model:
            raise UsageError(f"MODEL is {model!r} but --model is {given['model']!r}: give one")
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise UsageError(describe(error, given)) from None


def describe(error: ValidationError, given: dict[str, object]) -> str:
    """The first thing that is wrong, by the name the user wrote it under."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0]).lower().removeprefix(ENV_PREFIX.lower())
    source = flag_of(name) if name in given else ENV_PREFIX + name.upper()
    if name.startswith("api_key"):  # never echoed
        return f"{source if name in given else 'TIEDLM_API_KEYS'}: {message}"
    return f"{source}: {message}, not {str(first['input'])[:MAX_ECHO]!r}"


def warn_of_unknown_variables() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    for name in sorted(os.environ):
        if name.startswith(ENV_PREFIX) and name not in known:
            print(f"tiedlm: warning: {name} is no setting; it has no effect", file=sys.stderr)  # noqa: T201
