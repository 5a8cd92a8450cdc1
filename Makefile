# Each target sets up what it needs and is quick when that is done.
#   make install   .venv with the project and everything its tests need
#   make demo      stream a few German sentences to English with the bundled model
#   make demo-thinking  a problem is read sentence by sentence, and thought about meanwhile
#   make demo-video     shapes appear in a video, and are named while it runs
#   make demo-llm  a language model of 135 million parameters, pulled, says when what it was asked about happens
#   make demo-speech  stream recordings to text in real time, with the bundled model that listens
#   make test      the tests, under the lowest and the newest transformers that are supported
#   make newest    the second half of it: the built wheel in an empty environment, with the newest
#                  libraries, streams a sentence, then passes the laws, sessions and a training
#   make simuleval SimulEval runs our agent; its scores, those of OmniSTEval and ours, side by side
#   make simuleval-speech  the same of recordings: each must agree within 1 ms
#   make compatibility  which causal LMs of the newest transformers can stream: the page of the docs
#   make live      a minute of 200 connections to the server, and a visit of its page in a browser
#   make browser   all of the page in a headless Chromium, which apt-get installs where there is none
#   make audit     are vulnerabilities known of what is installed? Asks a database on the network
#   make ray       replicas and workers on a Ray cluster of this machine, which is made for it
#   make mutants   changes the code in a thousand small ways; which of them no test notices
#   make lint      everything static: format, lint, types, import direction, size, docstrings, docs
#   make site      the documentation as a site, in out/site
#   make check     lint and live, then test: the gate that CI runs

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.proactivellm-installed
# Named in the stamp: an environment that was copied from elsewhere, or whose requirements have
# changed since, is installed again.
KEY := $(CURDIR) $(shell cat pyproject.toml constraints.txt | cksum)

# Python compiles a module when it is first imported; all of them at once would take a minute. Where
# it is told not to keep what it compiled, every process would compile torch again, for 15 seconds.
export PYTHONDONTWRITEBYTECODE :=
# The pip that comes with Python 3.11 takes twice as long to choose the same packages, hence a newer
# one in .venv, which fills the other environments, too.
PIP_FLAGS := --quiet --disable-pip-version-check --no-compile

# The interpreter that makes .venv. Choose one with: make install PYTHON=/path/to/python3.12
CAN_MAKE_VENV := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	"$$python" -c '$(CAN_MAKE_VENV)' 2>/dev/null && { echo "$$python"; break; }; done)

DEMO_SOURCE ?= src/proactivellm/assets/tatoeba-sample/demo.de
DEMO_SENTENCES ?= 6
DEMO_FLAGS ?= --policy learned:laal=3 --rate 240
DEMO_PROBLEM ?= Anna has 7 apples. Felix lives in Bonn. Peter gives 8 apples to Anna. Rosa plays golf. \
	Anna sells 4 apples.
DEMO_QUESTION ?= How many apples does Anna have at the end?
DEMO_THINKER ?= models/running-counts
DEMO_THINKING_FLAGS ?= --rate 150
DEMO_WATCH ?= models/watch-en/demo.txt
DEMO_WATCHER ?= models/watch-en
DEMO_WATCHING_FLAGS ?= --policy wait-k:1 --rate 240
DEMO_VIEWER ?= models/shapes
DEMO_VIDEO ?= out/shapes/test/000000.mkv
DEMO_VIDEO_QUESTION ?= what appears ?
DEMO_VIDEO_FLAGS ?= --real-time --times
DEMO_AUDIO ?= $(sort $(foreach kind,wav flac ogg opus mp3,\
	$(wildcard src/proactivellm/assets/speech-sample/*.$(kind))))
DEMO_SPEECH_FLAGS ?= --real-time --times
PYTEST_FLAGS ?=
# One thread of torch for each test process: more would only get in each other's way.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
JOBS ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)
# Files that take long come first, so that no process waits at the end.
LOWEST_TESTS ?= tests/train tests/study tests/interop tests/cli tests

# Made again each week, so that "newest" stays true.
NEWEST_VENV := .venv-newest
NEWEST_STAMP := $(NEWEST_VENV)/.proactivellm-installed
NEWEST_KEY := $(KEY) $(shell date +%G-%V)
NEWEST_INSTALL := $(BIN)/python -m pip --python $(NEWEST_VENV)/bin/python install $(PIP_FLAGS) \
	-c $(NEWEST_VENV)/torch.txt
SENTENCE := Ich habe gestern einen alten Freund getroffen.
MEANING := an old friend
# What meets transformers itself: the other tests of sessions meet only what these already have.
NEWEST_TESTS ?= tests/laws tests/session/test_session.py \
	tests/forward/test_watch.py tests/backbone/test_loading.py \
	tests/train/test_run.py::test_every_family_trains

SITE := -m mkdocs build --quiet --strict --site-dir out/site

# mutmut brings a user interface and a parser that nothing else here needs.
MUTANTS_VENV := .venv-mutants
MUTANTS_STAMP := $(MUTANTS_VENV)/.proactivellm-installed
MUTANTS_KEY := $(KEY) mutmut==3.8.1

# SimulEval pins an old tqdm, hence an environment of its own. It holds what .venv lacks or has in
# another version, and finds the rest in .venv: a second torch would take minutes and a gigabyte.
# Its own packages come first on the path (a .pth file only ever adds to the end), so that SimulEval
# gets what it pins; tools/simuleval_agreement.py refuses to run if it does not. pip sees .venv, but
# never touches packages outside the environment that it installs into; the conflict that it would
# warn of is that of `datasets`, in .venv, with the old tqdm, and nothing here imports `datasets`.
SIMULEVAL_VENV := .venv-simuleval
SIMULEVAL_PINS := simuleval==1.1.4 omnisteval==0.1.10
SIMULEVAL_STAMP := $(SIMULEVAL_VENV)/.proactivellm-installed
SIMULEVAL_KEY := $(KEY) $(SIMULEVAL_PINS)
SIMULEVAL_DATA ?= tests/data/multi30k-100
SIMULEVAL_OUT ?= out/simuleval
SIMULEVAL_FLAGS ?= --policy confidence:laal=3 --policy wait-k:3
# Ray and what it brings, beside .venv as for SimulEval.
RAY_VENV := .venv-ray
RAY_STAMP := $(RAY_VENV)/.proactivellm-installed
RAY_KEY := $(KEY)
# Of its own, as what looks is not to be looked at.
AUDIT_VENV := .venv-audit
AUDIT_STAMP := $(AUDIT_VENV)/.proactivellm-installed
AUDIT_KEY := $(CURDIR) pip-audit>=2.9
AUDIT_FLAGS ?=
# A manifest, or a list of recordings and their texts line by line.
SPEECH_LIST ?= tests/data/speech-50/manifest.jsonl
SPEECH_TARGET ?=
SPEECH_OUT ?= out/simuleval-speech
SPEECH_FLAGS ?= --policy wait-k:3,stride=2

.PHONY: install demo demo-llm demo-speech demo-thinking demo-video test lowest newest chromium live browser audit ray mutants simuleval \
	simuleval-speech compatibility environments site typed lint check format
.DEFAULT_GOAL := check

install: $(STAMP)

ifneq ($(shell cat $(STAMP) 2>/dev/null),$(KEY))
.PHONY: $(STAMP)
endif

$(STAMP):
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade; \
	elif [ -z "$(PYTHON)" ]; then \
		echo "make: found no Python >= 3.11 with the venv module;" \
			"name one: make install PYTHON=/path/to/python3.12" >&2; exit 1; \
	elif ! "$(PYTHON)" -c '$(CAN_MAKE_VENV)' 2>/dev/null; then \
		echo "make: PYTHON=$(PYTHON) cannot make the environment: Python >= 3.11 with the venv" \
			"module is needed; name one: make install PYTHON=/path/to/python3.12" >&2; exit 1; \
	else \
		echo "making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv --clear $(VENV); \
	fi
	@rm -f $(STAMP)
	$(BIN)/python -m pip install $(PIP_FLAGS) --upgrade 'pip>=25'
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@echo "$(KEY)" > $(STAMP)

demo: install
	@test -f $(DEMO_SOURCE) || { echo "make: no such file: $(DEMO_SOURCE)" >&2; exit 1; }
	@head -n $(DEMO_SENTENCES) $(DEMO_SOURCE) | $(BIN)/proactivellm stream --input - $(DEMO_FLAGS)

demo-thinking: install
	@test -f $(DEMO_THINKER)/config.json || { echo "make: no model in $(DEMO_THINKER):" \
		"recipes/thinking/running.toml says how to train it, or name one with DEMO_THINKER" >&2; exit 1; }
	@echo "$(DEMO_PROBLEM)" | $(BIN)/proactivellm stream --model $(DEMO_THINKER) --input - \
		--question "$(DEMO_QUESTION)" --thoughts $(DEMO_THINKING_FLAGS)

demo-llm: install
	@test -f $(DEMO_WATCHER)/adapter_config.json || { echo "make: no adapter in $(DEMO_WATCHER):" \
		"recipes/adapters/watch.toml says how to train it, or name one with DEMO_WATCHER" >&2; exit 1; }
	@$(BIN)/proactivellm pull smollm2-135m-instruct
	@$(BIN)/proactivellm stream --model $(DEMO_WATCHER) --input $(DEMO_WATCH) $(DEMO_WATCHING_FLAGS)

demo-video: install
	@test "$(DEMO_VIDEO)" != out/shapes/test/000000.mkv || \
		$(BIN)/proactivellm data shapes --count 1 --split test --out out/shapes/test.jsonl
	@$(BIN)/proactivellm stream --model $(DEMO_VIEWER) --input $(DEMO_VIDEO) \
		--question "$(DEMO_VIDEO_QUESTION)" $(DEMO_VIDEO_FLAGS)

demo-speech: install
	@test -n "$(DEMO_AUDIO)" || { echo "make: no recordings: name some with DEMO_AUDIO" >&2; exit 1; }
	@$(BIN)/proactivellm stream $(addprefix --input ,$(DEMO_AUDIO)) $(DEMO_SPEECH_FLAGS)

# In this order with `make -j` too: both use all cores.
test:
	@$(MAKE) lowest
	@$(MAKE) newest

# Under the constraints, which name the lowest transformers. Some of the tests let SimulEval run the
# agents.
lowest: install $(SIMULEVAL_STAMP)
	$(PYTEST) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_FLAGS) $(LOWEST_TESTS)

# What a user gets who installs the package today: a wheel, an empty environment, the newest
# libraries. Only torch is that of the constraints: a newer one may be a CUDA build of gigabytes.
newest: $(NEWEST_STAMP)
	$(PYTEST) $(NEWEST_VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile $(NEWEST_TESTS)

# Minutes, and other answers with each release of transformers, hence no part of `check`.
compatibility: $(NEWEST_STAMP)
	$(NEWEST_VENV)/bin/python tools/compatibility.py docs/guide/compatibility.md

# Both wait more than they compute, which is why `check` runs them beside what it installs.
live: install chromium
	$(PYTEST) $(BIN)/python -m pytest -p no:xdist \
		tests/serve/soak.py tests/serve/browser_page.py::test_a_visit

browser: install chromium
	$(PYTEST) $(BIN)/python -m pytest -p no:xdist tests/serve/browser_page.py $(PYTEST_FLAGS)

# Nothing is skipped where it cannot be had.
chromium:
	@for name in chromium chromium-browser google-chrome; do \
		command -v $$name > /dev/null && exit 0; \
	done; \
	echo "installing chromium"; \
	root=$$([ "$$(id -u)" = 0 ] || echo sudo -n); \
	export DEBIAN_FRONTEND=noninteractive; \
	$$root apt-get update -qq && $$root apt-get install -qq -y --no-install-recommends chromium \
		> /dev/null && command -v chromium > /dev/null || { \
		echo "make: no Chromium here, and apt-get could not install it: install chromium or" \
			"google-chrome, which the test of the page drives" >&2; exit 1; }

# No part of `check`: it needs pypi.org or, with AUDIT_FLAGS='-s osv', api.osv.dev, and finds new things in
# old code. A package that could not be asked about is a failure. The database knows no local versions,
# such as torch's +cpu.
audit: install $(AUDIT_STAMP)
	@$(BIN)/python -m pip list --format=freeze --exclude-editable | sed 's/+.*//' \
		> $(AUDIT_VENV)/installed.txt
	$(AUDIT_VENV)/bin/pip-audit --strict --disable-pip --no-deps -r $(AUDIT_VENV)/installed.txt $(AUDIT_FLAGS)

ifneq ($(shell cat $(AUDIT_STAMP) 2>/dev/null),$(AUDIT_KEY))
.PHONY: $(AUDIT_STAMP)
endif

$(AUDIT_STAMP): | install
	@echo "making $(AUDIT_VENV)"
	@rm -rf $(AUDIT_VENV)
	@$(BIN)/python -m venv --without-pip $(AUDIT_VENV)
	$(BIN)/python -m pip --python $(AUDIT_VENV)/bin/python install $(PIP_FLAGS) \
		'$(lastword $(AUDIT_KEY))'
	@echo "$(AUDIT_KEY)" > $@

# Minutes, most of which Ray takes to come up, hence no part of `check`. It uses what is deprecated.
ray: $(RAY_STAMP)
	$(PYTEST) $(RAY_VENV)/bin/python -m pytest -p no:xdist -W ignore::DeprecationWarning \
		tests/evaluation/ray_workers.py tests/serve/ray_replicas.py $(PYTEST_FLAGS)

ifneq ($(shell cat $(RAY_STAMP) 2>/dev/null),$(RAY_KEY))
.PHONY: $(RAY_STAMP)
endif

# Compiled here: Ray gives its own processes some seconds to come up.
$(RAY_STAMP): | install
	@echo "making $(RAY_VENV)"
	@rm -rf $(RAY_VENV)
	@$(BIN)/python -m venv --without-pip $(RAY_VENV)
	@paths="import sysconfig; print(sysconfig.get_path('purelib'))"; \
		{ $(BIN)/python -c "$$paths"; echo "$(CURDIR)/src"; } \
		> "$$($(RAY_VENV)/bin/python -c "$$paths")/proactivellm-core.pth"
	$(RAY_VENV)/bin/python -m pip install $(filter-out --no-compile,$(PIP_FLAGS)) \
		--no-warn-conflicts -c constraints.txt 'ray[serve]'
	@echo "$(RAY_KEY)" > $@

# Hours rather than minutes, hence no part of `check`; stopped, it goes on where it was. Which code
# is changed and which tests are asked, pyproject.toml says; docs/MUTANTS.md has the score.
mutants: $(MUTANTS_STAMP)
	$(PYTEST) $(MUTANTS_VENV)/bin/mutmut run --max-children $(JOBS)
	$(MUTANTS_VENV)/bin/mutmut results

ifneq ($(shell cat $(MUTANTS_STAMP) 2>/dev/null),$(MUTANTS_KEY))
.PHONY: $(MUTANTS_STAMP)
endif

$(MUTANTS_STAMP): | install
	@echo "making $(MUTANTS_VENV)"
	@rm -rf $(MUTANTS_VENV)
	@$(BIN)/python -m venv --without-pip $(MUTANTS_VENV)
	@paths="import sysconfig; print(sysconfig.get_path('purelib'))"; \
		$(BIN)/python -c "$$paths" > "$$($(MUTANTS_VENV)/bin/python -c "$$paths")/proactivellm-core.pth"
	$(MUTANTS_VENV)/bin/python -m pip install $(PIP_FLAGS) \
		-c constraints.txt $(lastword $(MUTANTS_KEY))
	@echo "$(MUTANTS_KEY)" > $@

simuleval: $(SIMULEVAL_STAMP)
	@rm -rf $(SIMULEVAL_OUT)
	$(SIMULEVAL_VENV)/bin/python tools/simuleval_agreement.py --source $(SIMULEVAL_DATA).de \
		--target $(SIMULEVAL_DATA).en --out $(SIMULEVAL_OUT) $(SIMULEVAL_FLAGS)

simuleval-speech: $(SIMULEVAL_STAMP)
	@rm -rf $(SPEECH_OUT)
	$(SIMULEVAL_VENV)/bin/python tools/simuleval_speech.py --source $(SPEECH_LIST) \
		$(addprefix --target ,$(SPEECH_TARGET)) --out $(SPEECH_OUT) $(SPEECH_FLAGS)

ifneq ($(shell cat $(SIMULEVAL_STAMP) 2>/dev/null),$(SIMULEVAL_KEY))
.PHONY: $(SIMULEVAL_STAMP)
endif

$(SIMULEVAL_STAMP): | install
	@echo "making $(SIMULEVAL_VENV)"
	@rm -rf $(SIMULEVAL_VENV)
	@$(BIN)/python -m venv --without-pip $(SIMULEVAL_VENV)
	@paths="import sysconfig; print(sysconfig.get_path('purelib'))"; \
		{ $(BIN)/python -c "$$paths"; echo "$(CURDIR)/src"; } \
		> "$$($(SIMULEVAL_VENV)/bin/python -c "$$paths")/proactivellm-core.pth"
	$(SIMULEVAL_VENV)/bin/python -m pip install $(PIP_FLAGS) \
		--no-warn-conflicts -c constraints.txt $(SIMULEVAL_PINS)
	@echo "$(SIMULEVAL_KEY)" > $@

ifneq ($(shell cat $(NEWEST_STAMP) 2>/dev/null),$(NEWEST_KEY))
.PHONY: $(NEWEST_STAMP)
endif

# The wheel alone comes first: what it needs to stream a sentence is among its requirements. It is
# run outside of the checkout, whose `src` it must not see. torch is linked from .venv, where it is
# the same, as unpacking it takes longer than all the rest.
$(NEWEST_STAMP): | install
	@echo "making $(NEWEST_VENV)"
	@rm -rf $(NEWEST_VENV) build dist
	@$(BIN)/python -m venv --without-pip $(NEWEST_VENV)
	@grep '^torch==' constraints.txt > $(NEWEST_VENV)/torch.txt
	@paths="import sysconfig; print(sysconfig.get_path('purelib'))"; \
		cd "$$($(BIN)/python -c "$$paths")" && cp -al torch torch-*.dist-info torchgen functorch \
		"$$($(CURDIR)/$(NEWEST_VENV)/bin/python -c "$$paths")"
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .
	$(NEWEST_INSTALL) dist/*.whl
	@cd $(NEWEST_VENV) && echo "$(SENTENCE)" | bin/proactivellm stream > said.txt
	@cat $(NEWEST_VENV)/said.txt; grep -q "$(MEANING)" $(NEWEST_VENV)/said.txt
	$(NEWEST_INSTALL) "$$(echo dist/*.whl)[train,speech,test]"
	@echo "$(NEWEST_KEY)" > $@

site: install
	$(BIN)/python $(SITE)

# Not in the gate, as it takes a minute: the types of the wheel as a user's checker sees them.
typed: install
	$(BIN)/python tools/check_typed.py

# All of them run, also after one has failed.
lint: install
	@status=0; for check in "-m ruff format --check ." "-m ruff check ." "-m mypy" \
		tools/check_imports.py tools/check_size.py tools/check_docstrings.py "$(SITE)"; do \
		echo "python $$check"; $(BIN)/python $$check || status=1; \
	done; exit $$status

# What waits for network, disk or clock runs beside what computes. In this order with `make -j` too,
# and with the tests run once.
check:
	@$(MAKE) -j 2 install chromium
	@$(MAKE) -j 4 lint environments live
	@$(MAKE) test

environments: $(SIMULEVAL_STAMP) $(NEWEST_STAMP)

format: install
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .
