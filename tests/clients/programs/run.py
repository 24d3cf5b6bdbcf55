"""
Runs one client's program in that client's own virtual environment: every function of the program
that begins with `test_` is one thing that works, called with the server's URL in the order written.

The last line is a JSON list of what worked. A program stops at the first thing that does not.
"""

import importlib
import json
import sys


def main(name: str, url: str) -> None:
    program = importlib.import_module(f"with_{name.replace('-', '_')}")
    worked = []
    for own, function in vars(program).items():
        if own.startswith("test_"):
            print(f"{name}: {own}", file=sys.stderr, flush=True)
            function(url)
            worked.append(own.removeprefix("test_").replace("_", " "))
    print(json.dumps(worked))


if __name__ == "__main__":
    main(*sys.argv[1:])
