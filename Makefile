# `make repro` and `make test` install what they need into .venv. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help repro verify imagenet profile imagenette test slow kill status runtime runtime-compare speed recognised distill lint types readme picture docs fresh profiles requirements clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

repro: $(INSTALLED) ## the main job: every result on the embedded sample
	python -m benchmark.check
	dvc repro --quiet images
	python -m benchmark first
	dvc repro
	python -m benchmark verify --brief

verify: $(INSTALLED) ## compare what is here with the commit; computed anew: make verify FLAGS=--from-scratch
	python -m benchmark verify $(FLAGS)

imagenet: $(INSTALLED) ## the paper's scale: make imagenet DATA=/path/to/ImageNet
	@test -d "$(DATA)" || \
	  { echo "imagenet: DATA is '$(DATA)': expected the folder of ImageNet, DATA=/path"; exit 1; }
	cd profiles/imagenet && python -m benchmark index "$(abspath $(DATA))" \
	  && BENCHMARK_IMAGES="$(abspath $(DATA))" dvc repro

profile: $(INSTALLED) ## a profile of your own, see `python -m benchmark new`: make profile NAME=birds DATA=photographs/
	@test -f "profiles/$(NAME)/params.yaml" || \
	  { echo "profile: NAME is '$(NAME)': expected a folder of profiles/, see python -m benchmark new"; exit 1; }
	@test -d "$(DATA)" || { echo "profile: DATA is '$(DATA)': expected the folder of the photographs"; exit 1; }
	cd profiles/$(NAME) && export BENCHMARK_IMAGES="$(abspath $(DATA))" PYTHONPATH="$(CURDIR):$$PYTHONPATH" \
	  && python -m benchmark.check && dvc repro --quiet images && python -m benchmark first && dvc repro
	@echo "tables, figures and maps: open profiles/$(NAME)/results/index.html"

runtime-compare: REV = HEAD~1
imagenette: DATA = profiles/imagenette/data/imagenette2
imagenette: $(INSTALLED) ## ten classes of ImageNet on the paper's networks; downloads 1.5 GB
	test -d $(DATA)/val || python -c "from torchvision.datasets import Imagenette; \
	  Imagenette('profiles/imagenette/data', download=True)"
	cd profiles/imagenette && python -m benchmark index "$(abspath $(DATA))" \
	  && BENCHMARK_IMAGES="$(abspath $(DATA))" dvc repro

test: $(INSTALLED) ## the tests
	python -m pytest -n auto --dist loadgroup -m "not slow"

slow: $(INSTALLED) ## the tests that take minutes
	python -m pytest -n auto --dist loadgroup -m slow

kill: $(INSTALLED) ## kill the pipeline twenty times, and compare what comes of it (ten minutes)
	BENCHMARK_KILL=1 python -m pytest tests/test_kill.py

status: $(INSTALLED) ## which results are fresh, and why the others are not
	python -m benchmark status

runtime: $(INSTALLED) ## time every explainer anew, and keep this machine's figures (ten minutes, idle machine)
	python -m benchmark.runtime --again
	python -m benchmark track record
	dvc repro

runtime-compare: $(INSTALLED) ## what became slower since a commit: make runtime-compare REV=HEAD~1
	python -m benchmark track compare "$(REV)"

speed: $(INSTALLED) ## compare with other libraries in one run, on an idle machine (a quarter of an hour)
	python -m benchmark speed
	python -m benchmark readme

recognised: $(INSTALLED) ## list anew which compositions the classifier names (minutes), then what depends on it
	python data/sample/recognise.py
	$(MAKE) repro

distill: $(INSTALLED) ## train the sample's transformer anew (an hour), then everything that depends on it
	python data/sample/distill.py
	$(MAKE) repro

lint: $(INSTALLED) ## ruff, formatting and rules
	ruff check .
	ruff format --check .

types: $(INSTALLED) ## mypy, strict
	mypy

readme: $(INSTALLED) ## write the numbers of README and docs anew, from results/
	python -m benchmark readme

picture: $(INSTALLED) ## draw the first picture of the README anew
	python docs/first_map.py

docs: $(INSTALLED) ## the pages as a site, docs/_build/index.html; a warning is an error
	python -m sphinx --quiet --fail-on-warning -E -b html docs docs/_build

fresh: $(INSTALLED) ## the committed results are of the committed code and parameters
	python -m benchmark status --check

profiles: ## copy the sample's pipeline into the other profiles
	for profile in profiles/*; do cp dvc.yaml .dvcignore $$profile/; done

requirements: $(INSTALLED) ## resolve requirements.txt anew
	uv pip compile --universal --quiet --extra dev --no-header --no-annotate --no-emit-index-url \
	  --upgrade pyproject.toml --output-file requirements.txt

clean: ## remove the environment and unfinished work, keep results and cache
	rm -rf $(VENV) work

$(INSTALLED): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --requirement requirements.txt
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --editable .
	touch $@
