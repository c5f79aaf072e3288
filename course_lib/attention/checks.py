"""What the functions of this room ask of their arguments. Shapes, dtypes and devices cost nothing to check; values
must be read, which makes a GPU wait, so the kernels check them only when they are told to."""

import torch


def check_write(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Shapes, dtypes and devices of `write_kv`."""
    check_caches(key_cache, value_cache)
    for name, cache in (("key_cache", key_cache), ("value_cache", value_cache)):
        if not cache.is_contiguous():
            raise ValueError(
                f"{name} {tuple(cache.shape)} is not contiguous: a slot could not be written in place"
            )
    if key.shape != value.shape or key.dim() != 3 or key.shape[1:] != key_cache.shape[2:]:
        raise ValueError(
            f"key {tuple(key.shape)} and value {tuple(value.shape)} must both be [T, Hkv, D], with the Hkv and D of "
            f"the cache {tuple(key_cache.shape)}"
        )
    if not key.dtype == value.dtype == key_cache.dtype:
        raise ValueError(
            f"key is {key.dtype}, value {value.dtype}, the cache {key_cache.dtype}: use one dtype"
        )
    if slot_mapping.shape != key.shape[:1] or slot_mapping.dtype != torch.int64:
        raise ValueError(
            f"slot_mapping must be [{len(key)}] int64, got {tuple(slot_mapping.shape)} {slot_mapping.dtype}"
        )
    _check_device(
        key=key, value=value, key_cache=key_cache, value_cache=value_cache, slot_mapping=slot_mapping
    )


def check_paged(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_tables: torch.Tensor,
    context_lens: torch.Tensor,
    query_start_loc: torch.Tensor | None,
) -> None:
    """Shapes, dtypes and devices of `paged_attention`."""
    check_caches(key_cache, value_cache)
    num_kv_heads, head_dim = key_cache.shape[2:]
    if query.dim() != 3 or query.shape[2] != head_dim:
        raise ValueError(f"query must be [T, Hq, {head_dim}] as the cache has it, got {tuple(query.shape)}")
    if query.shape[1] % num_kv_heads:
        raise ValueError(f"{query.shape[1]} query heads cannot share {num_kv_heads} KV heads evenly")
    if not query.is_floating_point() or query.dtype != key_cache.dtype:
        raise ValueError(f"query is {query.dtype}, the cache {key_cache.dtype}: use one float dtype")
    if context_lens.dim() == 0:
        raise ValueError(
            f"context_lens must be [B] int32, got {tuple(context_lens.shape)} {context_lens.dtype}"
        )
    num_seqs = len(context_lens)
    for name, tensor, shape in [
        ("block_tables", block_tables, (num_seqs, block_tables.shape[-1] if block_tables.dim() else 0)),
        ("context_lens", context_lens, (num_seqs,)),
        ("query_start_loc", query_start_loc, (num_seqs + 1,)),
    ]:
        if tensor is not None and (tensor.shape != shape or tensor.dtype != torch.int32):
            raise ValueError(f"{name} must be {list(shape)} int32, got {tuple(tensor.shape)} {tensor.dtype}")
    if query_start_loc is None and len(query) != num_seqs:
        raise ValueError(
            f"{len(query)} queries for {num_seqs} sequences: several a sequence need query_start_loc"
        )
    tensors = dict(query=query, key_cache=key_cache, value_cache=value_cache, block_tables=block_tables)
    tensors |= dict(context_lens=context_lens, query_start_loc=query_start_loc)
    _check_device(**{name: tensor for name, tensor in tensors.items() if tensor is not None})


def check_values(
    key_cache: torch.Tensor,
    block_tables: torch.Tensor,
    context_lens: torch.Tensor,
    query_start_loc: torch.Tensor | None,
    num_queries: int,
) -> None:
    """What the integers of `paged_attention` say: reads them, so a GPU is waited for."""
    num_blocks, block_size = key_cache.shape[:2]
    room = block_tables.shape[1] * block_size
    for sequence, context_len in enumerate(context_lens.tolist()):
        if not 0 <= context_len <= room:
            raise ValueError(
                f"sequence {sequence} has a context of {context_len}: its table of {block_tables.shape[1]} blocks of "
                f"{block_size} holds 0 to {room}"
            )
    position = torch.arange(block_tables.shape[1], device=block_tables.device) * block_size
    used = position < context_lens[:, None]  # [B, M]
    bad = used & ((block_tables < 0) | (block_tables >= num_blocks))
    if bad.any():
        sequence, entry = torch.nonzero(bad)[0].tolist()
        raise ValueError(
            f"block_tables[{sequence}, {entry}] is {int(block_tables[sequence, entry])}, within the context; blocks go "
            f"from 0 to {num_blocks - 1}"
        )
    if query_start_loc is None:
        return
    starts, contexts = query_start_loc.tolist(), context_lens.tolist()
    if starts[0] != 0 or starts[-1] != num_queries or starts != sorted(starts):
        raise ValueError(f"query_start_loc {starts} must rise from 0 to the number of queries, {num_queries}")
    for sequence, context_len in enumerate(contexts):
        if (count := starts[sequence + 1] - starts[sequence]) > context_len:
            raise ValueError(
                f"sequence {sequence} has {count} queries and a context of {context_len}: they are its end"
            )


def check_caches(key_cache: torch.Tensor, value_cache: torch.Tensor) -> None:
    """The two caches: shapes and dtypes."""
    if key_cache.dim() != 4 or key_cache.shape != value_cache.shape or key_cache.dtype != value_cache.dtype:
        raise ValueError(
            "key_cache and value_cache must both be [num_blocks, block_size, Hkv, D] of one dtype, got "
            f"{tuple(key_cache.shape)} {key_cache.dtype} and {tuple(value_cache.shape)} {value_cache.dtype}"
        )


def _check_device(**tensors: torch.Tensor) -> None:
    devices = {name: tensor.device for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"all tensors must be on one device: {listed}")
