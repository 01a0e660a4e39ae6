"""The hidden solutions of a notebook's exercises, found in its text cells.

A solution is `<details><summary>Solution 1</summary>`, one or more fences of ```rust, and `</details>`.
"""

import re
from dataclasses import dataclass, field

OPENING = re.compile(r"<details>\s*<summary>\s*Solution\s+(\d+)[^<]*</summary>(.*?)</details>", re.DOTALL | re.IGNORECASE)
UNREAD = re.compile(r"<summary>\s*Solution", re.IGNORECASE)
FENCE = re.compile(r"^```rust[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass
class Solution:
    """One exercise's solution: the code of its fences, in order."""

    number: int
    fences: list = field(default_factory=list)


def of_text(text):
    """The solutions in one text cell."""
    found = [Solution(int(number), [code.strip() for code in FENCE.findall(body)]) for number, body in OPENING.findall(text)]
    if len(UNREAD.findall(text)) != len(found):
        raise ValueError("a solution is not `<details><summary>Solution N</summary> .. </details>`")
    return found


def of_cells(cells):
    """The solutions of all text cells, which must count up from 1 and have code each."""
    found = [one for cell in cells if cell["cell_type"] == "markdown" for one in of_text("".join(cell["source"]))]
    for place, solution in enumerate(found, 1):
        if solution.number != place:
            raise ValueError(f"solution {solution.number} stands where solution {place} should")
        if not solution.fences:
            raise ValueError(f"solution {solution.number} has no fence of ```rust")
    return found
