// The idea of the kernel of 2023, as a sketch: ours, shortened, not compiled.
// A thread block takes one query head. With blocks of 16, a warp of 32 threads takes a block of keys, two threads a token.
// K is stored as [blocks, Hkv, D/x, block, x], x numbers in 16 bytes, so that neighbouring threads read neighbouring
// bytes; V as [blocks, Hkv, D, block]. Today's layout, ours too, is [blocks, block, Hkv, D].
__global__ void paged_attention_2023(half* out, const half* q, const half* k_cache, const half* v_cache,
                                     const int* tables, const int* context_lens, int max_blocks) {
  int head = blockIdx.x, kv_head = head / GROUP, seq = blockIdx.y;
  extern __shared__ float logits[];                  // one float a position: the wall
  const int* table = tables + seq * max_blocks;      // this sequence's row
  int len = context_lens[seq];
  for (int b = warp; b < ceil_div(len, 16); b += NUM_WARPS) {        // first walk: keys
    int64_t block = table[b];                        // 64 bits before the stride
    int t = lane / 2;                                // two threads a token, 16 tokens at once
    float s = pair_sum(dot(my_half(q, head), my_half(k_cache, block, kv_head, t))) * scale;
    if (lane % 2 == 0) logits[16 * b + t] = 16 * b + t < len ? s : -INFINITY;
  }
  __syncthreads();
  softmax_in_place(logits, len);                     // all scores at once
  __syncthreads();
  float acc[D / 32] = {0};
  for (int b = warp; b < ceil_div(len, 16); b += NUM_WARPS)          // second walk: values
    add_weighted(acc, logits + 16 * b, v_cache, table[b], kv_head);  // behind len: set to 0 after the load,
  store(out, sum_over_warps(acc));                   // which was forgotten at first: 0 x NaN (vLLM issue 641)
}
