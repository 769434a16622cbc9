"""Helm, as a library: lints or renders a chart, offline.

helm.py lint CHART             exit 1 and its messages, where it has more to say than that an icon is missing
helm.py render CHART VALUES    the manifests, with these values (JSON) over the chart's own; exit 1 where
                               its schema or a template refuses them
"""

import json
import sys

from helm_python import chart
from helm_python.errors import HelmError


def lint(path):
    report = chart.lint(path, strict=True)
    said = report["errors"] + [each["error"] for each in report["messages"] if each["severity"] != 1]
    if report["total_charts_linted"] != 1 or said:
        sys.exit("\n".join(said) or "nothing was linted")


def render(path, values):
    try:
        with chart.Chart.load(path) as loaded:
            rendered = loaded.render(json.loads(values), name="test", namespace="shop")
    except HelmError as error:
        sys.exit(str(error))
    print("\n---\n".join(text for name, text in sorted(rendered.items()) if not name.endswith(".txt")))


if __name__ == "__main__":
    {"lint": lint, "render": render}[sys.argv[1]](*sys.argv[2:])
