"""Takes every plotly figure in a folder through the checks of plotly's Python package.

Origin: written for thalweg, MIT OR Apache-2.0. Run: python tests/figures/schema.py tests/figures/snapshots
"""

import json
import pathlib
import sys

import plotly.graph_objects

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    figure = json.loads(path.read_text())
    try:
        plotly.graph_objects.Figure(data=figure["data"], layout=figure["layout"])
    except ValueError as error:
        sys.exit(f"{path.name}: {error}")
    print(path.name)
