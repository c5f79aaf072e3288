"""Numbers of the paper, to hold ours against: Kwon et al., "Efficient Memory Management for Large Language Model
Serving with PagedAttention", SOSP 2023. Figures are read as printed; allocators have this course's names."""

# Table 1: OPT-13B on one A100 40GB. 12 GiB for the KV cache, 800 KiB a token.
NUM_SLOTS = 12 * 2**30 // 819_200  # 15,728
SHAREGPT_RATE, ALPACA_RATE = 2.0, 30.0  # requests a second, Fig 13

# Fig 2: shares of the KV memory. For paging only the token states are printed; the rest is left as external here.
FIG_2 = {
    "reserve_max": {"token_states": 0.204, "reserved": 0.133, "internal": 0.573, "external": 0.089},
    "reserve_pow2": {"token_states": 0.268, "reserved": 0.179, "internal": 0.136, "external": 0.416},
    "reserve_exact": {"token_states": 0.382, "reserved": 0.252, "internal": 0.0, "external": 0.366},
    "paged": {"token_states": 0.963, "reserved": 0.0, "internal": 0.0, "external": 0.037},
}

# Fig 13: mean number of requests that run at once, OPT-13B.
FIG_13_SHAREGPT = {"reserve_max": 7.00, "reserve_pow2": 9.81, "reserve_exact": 13.62, "paged": 30.42}
FIG_13_ALPACA = {"reserve_max": 7.00, "reserve_pow2": 43.24, "reserve_exact": 72.75, "paged": 132.44}
