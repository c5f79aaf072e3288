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

# Fig 11: mean tokens of prompt and output.
FIG_11_MEANS = {"ShareGPT": (161.31, 337.99), "Alpaca": (19.31, 58.45)}

# Figs 12 to 19. Shares are shares of 1, ratios are ratios.
FIG_12 = {"to reserve_exact": [1.7, 2.7], "to reserve_max": [2.7, 8.0]}  # ShareGPT, three models
FIG_14 = {"one sample": 1.3, "beam width 6": 2.3}  # Alpaca, to reserve_exact
FIG_15_ALPACA = {
    "sampling": {2: 0.0609, 4: 0.0853, 6: 0.0979},
    "beams": {2: 0.3756, 4: 0.5313, 6: 0.5516},
}
FIG_15_SHAREGPT = {"sampling": [0.162, 0.305], "beams": [0.443, 0.663]}  # from, to; 2 to 6 outputs
FIG_16 = {80: 1.67, 341: 3.58}  # LLaMA-13B, throughput to reserve_exact, which shares nothing
FIG_18A = [
    0.20,
    0.26,
]  # the paged kernel's latency above FasterTransformer's, batch 8 and 32, contexts 64 to 256
FIG_18B = {"ShareGPT": "best at 16 to 128", "Alpaca": "good at 16 and 32"}
FIG_19 = {"recompute above swap": "about 20% at most, at every block size", "comparable at": [16, 64]}
