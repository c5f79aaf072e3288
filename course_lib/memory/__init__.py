"""Who owns which bytes of KV cache. Integers only: nothing here knows a tensor."""

from course_lib.memory.block_pool import BlockPool, OutOfBlocks
from course_lib.memory.block_table import Appended, BlockTable
from course_lib.memory.workloads import (
    Request,
    alpaca_like,
    azure_conversation_like,
    load_trace,
    sharegpt_like,
)

__all__ = [
    "Appended",
    "BlockPool",
    "BlockTable",
    "OutOfBlocks",
    "Request",
    "alpaca_like",
    "azure_conversation_like",
    "load_trace",
    "sharegpt_like",
]
