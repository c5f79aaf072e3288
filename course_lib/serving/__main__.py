"""`python -m course_lib.serving` fetches and converts the course's LLM, so that notebooks find it there."""

import sys

from course_lib.serving.weights import WeightsError, ensure_default_checkpoint

try:
    print(f"weights: {ensure_default_checkpoint()}")
except WeightsError as error:
    sys.exit(f"error: {error}")
