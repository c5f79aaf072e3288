"""How queries meet keys and values. Tensors only: nobody here decides where memory comes from.

One legend for every shape in the course:

    T    tokens in a flat batch, all sequences one after another
    B    sequences
    S    positions of one context: what the queries may look at
    Hq   query heads
    Hkv  key and value heads, Hq % Hkv == 0; each serves Hq // Hkv query heads (GQA)
    D    head_dim, the numbers in one head
    L    layers
"""

from course_lib.attention.dense import attention

__all__ = ["attention"]
