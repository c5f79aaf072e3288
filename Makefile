# Thin: every job is one call of course.py, which does the same where there is no make.
#   make lab PORT=8899 NO_BROWSER=1      make test ARGS="-k paged"      make setup PYTHON=python3.12
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help setup lab reset test notebooks check weights soak animation cheatsheet slides vllm test-colab bench

help setup lab reset test notebooks check weights soak animation cheatsheet slides vllm test-colab bench:
	@$(PYTHON) course.py $@
