"""
Labels for texts, without training: which label does the model expect after each text?

A model prefers some labels whatever the text says. What it would answer to a text without content
is the baseline, and is subtracted (Zhao et al. 2021, "Calibrate Before Use"; Holtzman et al. 2021,
"Surface Form Competition").
"""

import json
import os
import urllib.request

URL = os.environ.get("TIEDLM_URL", "http://127.0.0.1:8000")
LABELS = [" good", " bad"]
REVIEWS = [
    "A wonderful film. I laughed, I cried, and I would see it again tomorrow.",
    "The plot makes no sense and the actors look as bored as I was.",
    "Two hours of my life that I will never get back.",
    "The best ending I have seen in years.",
    "Dull from the first minute to the last.",
    "Charming, clever and beautifully shot.",
]


def ask(path, **body):
    request = urllib.request.Request(
        URL + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def prompt(review):
    return f"{review}\nIn short, it was"


def scores(**more):
    prompts = [prompt(review) for review in REVIEWS]
    return ask("/score", prompt=prompts, continuations=LABELS, **more)["results"]


for review, plain, calibrated in zip(REVIEWS, scores(), scores(baseline=prompt("N/A"))):
    print(review)
    for name, result in (("as it is", plain), ("calibrated", calibrated)):
        best = result["continuations"][result["best"]]
        print(f"  {name:10} {best['text']:10} {best['probability']:.2f}")
