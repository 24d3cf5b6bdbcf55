"""The perplexity of a file: python docs/examples/perplexity.py README.md"""

import json
import os
import sys
import urllib.request
from pathlib import Path

URL = os.environ.get("TIEDLM_URL", "http://127.0.0.1:8000")


def ask(path, **body):
    request = urllib.request.Request(
        URL + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


path = Path(sys.argv[1] if len(sys.argv) > 1 else "LICENSE")
# Longer texts than the window are scored by a sliding one: each token is scored once, with at
# least window - stride tokens before it.
[result] = ask("/surprisal", text=path.read_text(), window=512, stride=256)["results"]

totals = result["totals"]
print(f"{path.name}: {totals['tokens']} tokens, {totals['words']} words, {totals['bytes']} bytes")
print(f"  perplexity         {totals['perplexity']:.2f}")
print(f"  bits per byte      {totals['bits_per_byte']:.3f}")
print(f"  bits per character {totals['bits_per_character']:.3f}")
hardest = sorted(result["tokens"], key=lambda token: token["surprisal"] or 0.0)[-3:]
for token in reversed(hardest):
    print(f"  least expected: {token['text']!r} at {token['start']}, {token['surprisal']:.1f} bits")
