"""The small library behind the PagedAttention course.

Read it from the bottom up:

    memory/      who owns which block of KV cache       (integers only)
    attention/   how queries meet keys and values       (tensors only)
    serving/     a real LLM that answers many requests  (joins what lies below)
    teaching/    what a learner sees and touches        (nothing below imports it)

`lint-imports` keeps the arrows pointing one way.
"""
