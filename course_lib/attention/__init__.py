"""How queries meet keys and values. Tensors only: nobody here decides where memory comes from.

One legend for every shape in the course:

    T    tokens in a flat batch, all sequences one after another
    B    sequences
    N    num_blocks of a cache; P slots in each; M entries in a row of block tables
    S    positions of one context: what the queries may look at
    Hq   query heads
    Hkv  key and value heads, Hq % Hkv == 0; each serves Hq // Hkv query heads (GQA)
    D    head_dim, the numbers in one head
    L    layers
"""

from course_lib.attention.dense import attention
from course_lib.attention.paged import copy_blocks, paged_attention, paged_attention_blockwise, write_kv
from course_lib.attention.softmax import merge_states, online_softmax, safe_softmax

__all__ = [
    "attention",
    "copy_blocks",
    "merge_states",
    "online_softmax",
    "paged_attention",
    "paged_attention_blockwise",
    "safe_softmax",
    "write_kv",
]
