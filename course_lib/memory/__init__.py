"""Who owns which bytes of KV cache, and who runs next. Integers only: nothing here knows a tensor."""

from course_lib.memory.allocators import (
    ALLOCATORS,
    PagedAllocator,
    ReservingAllocator,
    SlotCounts,
    make_allocator,
)
from course_lib.memory.block_pool import BlockPool, OutOfBlocks
from course_lib.memory.block_table import Appended, BlockTable
from course_lib.memory.regions import BuddyRegion, FitRegion
from course_lib.memory.scheduler import Scheduler, Step
from course_lib.memory.simulator import Simulation, Stretch, serve, simulate
from course_lib.memory.workloads import (
    Request,
    alpaca_like,
    azure_conversation_like,
    load_trace,
    sharegpt_like,
)

__all__ = [
    "ALLOCATORS",
    "Appended",
    "BlockPool",
    "BlockTable",
    "BuddyRegion",
    "FitRegion",
    "OutOfBlocks",
    "PagedAllocator",
    "Request",
    "ReservingAllocator",
    "Scheduler",
    "Simulation",
    "SlotCounts",
    "Step",
    "Stretch",
    "alpaca_like",
    "azure_conversation_like",
    "load_trace",
    "make_allocator",
    "serve",
    "sharegpt_like",
    "simulate",
]
