"""Attention over blocks in torch: against fp64, held to PyTorch's own error; what is written, copied and refused."""

import pytest
import torch
from paged_cases import hold_against_fp64, make_problem

from course_lib.attention import paged_attention, paged_attention_blockwise

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
WALKS = [paged_attention, paged_attention_blockwise]


@pytest.mark.parametrize("function", WALKS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_decode_over_blocks_is_dense_attention(function, dtype):
    hold_against_fp64(function, make_problem(0, [17, 0, 1, 15, 16, 45], 6, 2, 64, 16, dtype))
