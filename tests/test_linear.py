"""Weights that are packed once: the same products, the same tokens, and plain matrices where nothing packs."""

import pytest
import torch

from course_lib.serving import GrowingCache, greedy, linear
from course_lib.serving.weights import build_model, read_config, read_tensors

needs_packing = pytest.mark.skipif(not linear.PACKS, reason="this torch or processor does not pack weights")
BOTH = [pytest.param(True, marks=needs_packing), False]


@pytest.mark.parametrize("packs", BOTH)
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (48, 97), (576, 960)])
def test_a_product_is_the_textbooks(packs, shape):
    torch.manual_seed(0)
    weight = torch.randn(shape[1], shape[0])  # [out, in]
    laid = linear.lay_out(weight, packs=packs)
    assert laid.is_mkldnn == packs
    for rows in ((), (0,), (1,), (3,), (2, 5), (40,)):
        x = torch.randn(*rows, shape[0])
        exact = x.double() @ weight.double().t()
        found = linear.linear(x, laid)
        assert found.shape == (*rows, shape[1]) and found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("packs", BOTH)
def test_rows_that_do_not_lie_in_a_row_are_read_right(packs):
    torch.manual_seed(0)
    weight, wide = torch.randn(6, 4), torch.randn(9, 8)
    for x in (wide[:, ::2], wide[::2, 2:6], torch.randn(4, 5).t()):
        torch.testing.assert_close(linear.linear(x, linear.lay_out(weight, packs=packs)), x @ weight.t())


@needs_packing
def test_only_what_can_be_packed_is():
    weight = torch.randn(6, 4)
    assert linear.lay_out(weight).is_mkldnn
    for other in (weight.half(), weight.bfloat16(), weight.double(), weight.to("meta")):
        laid = linear.lay_out(other)
        assert not laid.is_mkldnn and laid.shape == (4, 6) and laid.is_contiguous()


@needs_packing
def test_packing_changes_no_token_and_no_count_of_parameters(tiny):
    config = read_config(tiny[0])
    models = [
        build_model(config, read_tensors(tiny[0], torch.device("cpu"), torch.float32), packs=packs)
        for packs in (True, False)
    ]
    assert models[0].num_parameters == models[1].num_parameters
    prompts = [[5, 9, 33], [70, 2, 8, 8, 41]]
    packed, plain = (greedy(model, prompts, GrowingCache(), 40) for model in models)
    assert packed == plain and len(plain[0]) == 40
    hidden = torch.randn(3, config.hidden_size)
    torch.testing.assert_close(models[0].logits(hidden), models[1].logits(hidden), rtol=1e-5, atol=1e-4)


def test_building_takes_the_matrices_out_so_that_no_layer_is_there_twice(tiny):
    config = read_config(tiny[0])
    tensors = read_tensors(tiny[0], torch.device("cpu"), torch.float32)
    build_model(config, tensors)
    assert not [name for name in tensors if "proj" in name]
