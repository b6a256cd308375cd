"""Figures over the rounds of a run, and the Markdown made of them."""

import statistics
from collections import defaultdict


class Results:
    """Values by row and column, one for each round."""

    def __init__(self):
        self.values = defaultdict(list)

    def add(self, row, **columns):
        for column, value in columns.items():
            self.values[row, column].append(value)

    def median(self, row, column):
        values = self.values.get((row, column))
        return statistics.median(values) if values else None

    def worst(self, column):
        return max((max(v) for (_, c), v in self.values.items() if c == column), default=0)

    def figure(self, row, column, digits=0):
        """The median, and how far the rounds are apart as a share of it."""
        values, median = self.values.get((row, column)), self.median(row, column)
        if median is None:
            return "-"
        if len(values) == 1 or not median:
            return f"{median:,.{digits}f}"
        return f"{median:,.{digits}f} ±{(max(values) - min(values)) / 2 / median:.0%}"

    def ratio(self, row, other, column):
        own, reference = self.median(row, column), self.median(other, column)
        return f"{own / reference:.2f}" if own is not None and reference else "-"
