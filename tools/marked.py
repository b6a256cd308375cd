"""The parts of documents that commands write, each between two marks:

    <!-- NAME: written by `COMMAND` -->
    <!-- NAME end -->
"""

import re
import sys


def markdown(head, rows, column="--:"):
    """A table; every column but the first is set like `column`: numbers, unless it says otherwise."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "|".join([column] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def replaced(text, name, made):
    """The text with `made` between the marks of this name."""
    between = re.compile(rf"(<!-- {name}: [^\n]+ -->\n).*?(<!-- {name} end -->)", re.DOTALL)
    text, places = between.subn(lambda found: f"{found[1]}{made}\n{found[2]}", text)
    if places != 1:
        sys.exit(f"there are {places} places for {name}, and not one")
    return text
