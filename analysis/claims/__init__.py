"""The study's statements, tested on a user's sweep: verdicts with intervals, or what is missing.

evidence: what is compared, with its noise. statistics: intervals and multiple testing. comparisons, ranks:
the tests. statements: the nine sentences. report, text: what is written and printed.
"""
