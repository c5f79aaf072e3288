"""The other side: vLLM, in an environment of its own. Started by beside_vllm.py, with vLLM's Python.

    python vllm_worker.py CHECKPOINT_FOLDER [--caching]

It writes one line of facts, and then answers line by line: {"prompts": [[token ids]], "new_tokens": n, "ignore_eos":
bool} in, {"seconds", "tokens", "cached"} out. Nothing of the course is imported here: the two share integers only.
"""

import inspect
import json
import sys
import time
from pathlib import Path


def facts(llm, vllm) -> dict:
    """What this vLLM has chosen for itself."""
    config = llm.llm_engine.vllm_config
    cache, schedule = config.cache_config, config.scheduler_config
    return {
        "version": vllm.__version__,
        "package": str(Path(inspect.getfile(vllm)).parent),
        "block_size": cache.block_size,
        "num_blocks": cache.num_gpu_blocks,  # its name, on a CPU too
        "cache_dtype": str(cache.cache_dtype),
        "prefix_caching": bool(cache.enable_prefix_caching),
        "prefix_hash": str(getattr(cache, "prefix_caching_hash_algo", "")),
        "max_num_batched_tokens": schedule.max_num_batched_tokens,
        "max_num_seqs": schedule.max_num_seqs,
        "chunked_prefill": bool(getattr(schedule, "enable_chunked_prefill", False)),
        "policy": str(getattr(schedule, "policy", "")),
    }


def main() -> None:
    import vllm

    llm = vllm.LLM(
        sys.argv[1],
        dtype="float32",
        max_model_len=2048,
        enforce_eager=True,
        enable_prefix_caching="--caching" in sys.argv,
    )
    print("FACTS" + json.dumps(facts(llm, vllm)), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        params = vllm.SamplingParams(
            max_tokens=asked["new_tokens"], temperature=0.0, ignore_eos=asked["ignore_eos"]
        )
        prompts = [{"prompt_token_ids": prompt} for prompt in asked["prompts"]]
        start = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        answer = {
            "seconds": time.perf_counter() - start,
            "tokens": [list(output.outputs[0].token_ids) for output in outputs],
            "cached": [output.num_cached_tokens or 0 for output in outputs],
        }
        print("RESULT" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
