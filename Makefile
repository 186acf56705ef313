# Two commands do everything on a fresh machine with Python 3.11 and a C compiler:
#   make serve   make test
# Each creates or refreshes .venv; a stamp file per set of extras says what is installed.
PYTHON  ?= python3.11
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := pyproject.toml setup.py $(wildcard ipc/core/*.[ch] model/*/*.[ch] model/csrc/*.cc pipeline/*/*.[ch] \
    model/openvino/csrc/*)
CONFIG  ?= configs/demo.yaml
MODEL   ?= model/demo
# As the documentation calls it
DEMO_NAME := $(if $(MODEL:model/demo=),,ringserve-demo)

.PHONY: serve doctor test test-fast test-mccl explore lint format bench-ipc bench-overhead bench-serving bench-isolation
.PHONY: bench-front bench-waiting bench-model bench-linear bench-adapters bench-emulated bench-sampling bench-grammar
.PHONY: bench-startup bench-memory bench-engine-memory bench-scoring bench-speculation bench-routing bench-replicas
.PHONY: bench-shared-prompt bench-fairness bench-accounting bench-router bench-deterministic flips bench-nodes
.PHONY: bench-journal bench-sampled
.PHONY: bench-task1 bench-task2 compare-peers fuzz stress-ipc chaos soak verify schemas sanitize test-aarch64 clean
.PHONY: zoo test-clients train-demo fixtures fixtures-families fixtures-adapters fixtures-response
.PHONY: dashboard docs-page dist test-dist test-deployment serve-ray test-scale

# Python 3.11's own pip takes a minute longer to find out which versions fit
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

# llguidance has wheels for glibc 2.31 and newer only: an older machine serves without structured output
$(VENV)/.stamp-serve: $(SOURCES) | $(BIN)/python
	$(PIP) --only-binary llguidance --editable '.[grammar]' || $(PIP) --editable .
	touch $@

$(VENV)/.stamp-test: $(SOURCES) | $(BIN)/python
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/.stamp-serve

serve: $(VENV)/.stamp-serve
	$(BIN)/ringserve serve $(MODEL) $(DEMO_NAME:%=--served-model-name %) $(SERVE_FLAGS)

# Ray in an environment of its own: two nodes and a router on this machine, placed and watched by Ray Serve
RAY := .cache/ray

$(RAY)/.stamp: $(SOURCES)
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[ray]'
	touch $@

serve-ray: $(RAY)/.stamp
	$(RAY)/bin/python -m pipeline.ray $(MODEL) $(DEMO_NAME:%=--set pipeline.model_name=%) $(SERVE_FLAGS)

# An actor is killed, nodes come and go under load, and are upgraded: no stream may end
test-scale: $(RAY)/.stamp
	$(RAY)/bin/python -m scripts.verify.scale $(SCALE_FLAGS)

doctor: $(VENV)/.stamp-serve
	$(BIN)/python -m pipeline.doctor --config $(CONFIG) $(DOCTOR_FLAGS)

BY_FILE  := --dist loadfile --no-loadscope-reorder
PARALLEL := -n 2 $(BY_FILE)

# First what may run in parallel, and whether it reaches 80 % of each module's statements; then whole servers that mostly wait;
# then what must run alone. Status 5: there was nothing of the one kind.
test: $(VENV)/.stamp-test
	$(if $(PYTEST_FLAGS),,$(BIN)/python -m scripts.verify.coverage) $(BIN)/python -m pytest -m 'not serial and not survival' $(PARALLEL) $(PYTEST_FLAGS) || test $$? -eq 5
	$(BIN)/python -m pytest -m survival -n 4 $(BY_FILE) $(PYTEST_FLAGS) || test $$? -eq 5
	$(BIN)/python -m pytest -m serial $(PYTEST_FLAGS) || test $$? -eq 5

test-fast: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -m 'not serial and not survival and not engine and not server' $(PARALLEL) $(PYTEST_FLAGS)

# A model on two ranks by MindSpore's own collectives, which take half a minute to start
test-mccl: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -m mccl tests/model/mindspore_runner $(PYTEST_FLAGS)

# Random tests with other values than in `make test`
explore: $(VENV)/.stamp-test
	RINGSERVE_EXPLORE=1 $(BIN)/python -m pytest -m hypothesis $(PYTEST_FLAGS)
	RINGSERVE_EXPLORE=1 $(BIN)/python -m pytest tests/server/test_api.py -k schemathesis

$(VENV)/.stamp-plot: $(SOURCES) | $(BIN)/python
	$(PIP) --editable '.[bench]'
	touch $@ $(VENV)/.stamp-serve

# Rivals are optional: one that can't be built or has no wheel here is left out, and the benchmark says so.
RIVALS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["rivals"], sep="\n")

$(VENV)/.stamp-bench: $(VENV)/.stamp-plot
	$(BIN)/python -c '$(RIVALS)' | while read -r rival; do \
	    $(PIP) "$$rival" || echo "skipped: $$rival can't be installed here"; done
	touch $@

bench-ipc: $(VENV)/.stamp-bench
	$(BIN)/python -m scripts.bench.ipc --json bench-ipc.json --plot bench-ipc.png $(BENCH_FLAGS)

bench-overhead: $(VENV)/.stamp-plot
	$(BIN)/python -m scripts.bench.overhead --json bench-overhead.json --plot bench-overhead.png $(BENCH_FLAGS)

bench-serving: $(VENV)/.stamp-bench
	$(BIN)/python -m scripts.bench.serving --config configs/demo.yaml --max-concurrency 8 --num-prompts 200 \
	    --random-input-len 64 --random-output-len 64 --json bench-serving.json --plot bench-serving.png $(BENCH_FLAGS)

bench-isolation: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.isolation --json bench-isolation.json $(BENCH_FLAGS)

# What the front costs per token, without any other stage
bench-front: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.front $(BENCH_FLAGS)

# What it costs to know where a request's time and money went
bench-accounting: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.accounting $(BENCH_FLAGS)

# What it costs to write down what the next front needs
bench-journal: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.journal $(BENCH_FLAGS)

# A sampled step beside a greedy one, on engines that compute
bench-sampled: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.sampled $(BENCH_FLAGS)

# What deterministic requests cost
bench-deterministic: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.deterministic --json bench-deterministic.json $(BENCH_FLAGS)

# How many texts change when something happens that should not change them, by engine
flips: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.verify.flips $(FLIPS_FLAGS)

# Whether stages that wait take time from a model on the same CPUs
bench-waiting: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.waiting --json bench-waiting.json $(BENCH_FLAGS)

# The model's bare step: no server, no sampling
bench-model: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.model --json bench-model.json $(BENCH_FLAGS)

# One linear layer by the C++ operator, bfloat16 and float32, and by MatMul
bench-linear: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.linear --json bench-linear.json $(BENCH_FLAGS)

# How long the first start of a model takes, and the next one
bench-startup: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.startup --json bench-startup.json $(BENCH_FLAGS)

# What the scores of a prompt cost beside the prompt alone
bench-scoring: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.scoring $(BENCH_FLAGS)

# The first token behind a long system prompt that all share
bench-shared-prompt: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.shared_prompt --json bench-shared-prompt.json $(BENCH_FLAGS)

# What a greedy API key costs a modest one; BENCH_FLAGS=--server: a real server, too
bench-fairness: $(VENV)/.stamp-plot
	$(BIN)/python -m scripts.bench.fairness --json bench-fairness.json --plot bench-fairness.png $(BENCH_FLAGS)

# Memory of all processes but the model's, with 128,000 tokens
bench-memory: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.memory --json bench-memory.json $(BENCH_FLAGS)

# Memory of a process with the openvino engine, against its weights and KV cache
bench-engine-memory: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.engine_memory --json bench-engine-memory.json $(BENCH_FLAGS)

# What LoRA adapters add to a step
bench-adapters: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.adapters --json bench-adapters.json $(BENCH_FLAGS)

# How punctual the emulated device is, and what it costs the host
bench-emulated: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.emulated --json bench-emulated.json $(BENCH_FLAGS)

# One sampling call for a batch, on one core
bench-sampling: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.sampling --json bench-sampling.json $(BENCH_FLAGS)

# What guessed tokens gain, on replayed texts
bench-speculation: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.speculation --json bench-speculation.json $(BENCH_FLAGS)

# Several replicas behind one front: throughput, routing, and what a further one costs
bench-router: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.router --json bench-router.json $(BENCH_FLAGS)

bench-replicas: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.replicas --json bench-replicas.json $(BENCH_FLAGS)

# Which replica should get a request: the router beside other rules, in simulated time
bench-routing: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.routing --json bench-routing.json $(BENCH_FLAGS)

# From 16 nodes to 1,000 behind one router or several, in simulated time
bench-nodes: $(VENV)/.stamp-plot
	$(BIN)/python -m scripts.bench.nodes --json bench-nodes.json --plot bench-nodes.png $(BENCH_FLAGS)

# Compiling grammars, masks and tokens, for vocabularies of three sizes
bench-grammar: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.bench.grammar --json bench-grammar.json $(BENCH_FLAGS)

# The speed run of llm-serving's load, all 1500 requests at once, on an emulated device
bench-task1: $(VENV)/.stamp-bench
	$(BIN)/python -m scripts.bench.serving --config configs/emulated_910b.yaml --dataset-name task1 \
	    --set model_config.decode_batch_size=128 --set pipeline.max_queue=2048 --set pipeline.max_connections=2048 \
	    --set pipeline.log.level=warning --json bench-task1.json --plot bench-task1.png $(BENCH_FLAGS)

# Its accuracy run, twice on the demo model: the logits must not depend on how requests are batched
TASK2 := -m scripts.bench.serving --config configs/demo.yaml --dataset-name task2 --ignore-eos \
	--set pipeline.log.level=warning

bench-task2: $(VENV)/.stamp-serve
	rm -rf .cache/task2
	$(BIN)/python $(TASK2) --save-logits .cache/task2/base
	$(BIN)/python $(TASK2) --save-logits .cache/task2/new --base-logits .cache/task2/base \
	    --set model_config.decode_batch_size=5 --set pipeline.overlap=false --set pipeline.prefix_cache=false

# Both models; the second one also where goals were missed with the first
compare-peers: $(VENV)/.stamp-bench
	status=0; for size in 134m 1.1b; do \
	    $(BIN)/python -m scripts.bench.peers --install --model-size $$size --json bench-peers-$$size.json \
	        --markdown bench-peers-$$size.md --plot bench-peers-$$size.png $(BENCH_FLAGS) || status=1; \
	done; exit $$status

stress-ipc: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.verify.stress --messages 100000000 --ring slot,byte,broadcast,evict,end

chaos: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.verify.chaos $(CHAOS_FLAGS)

soak: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.verify.soak $(SOAK_FLAGS)

fuzz: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.verify.fuzz --cases 100000 $(FUZZ_FLAGS)

# The packages that people have, in environments of their own (.cache/clients), against a real server
test-clients: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.verify.clients $(CLIENTS_FLAGS)

# Random checkpoints of all families, in all the ways they are stored, served and compared with transformers
zoo: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.verify.zoo $(ZOO_FLAGS)

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

format: $(VENV)/.stamp-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Public JSON schemas, generated for and judged; SCHEMAS_FLAGS may give a directory that has them
schemas: $(VENV)/.stamp-test
	$(BIN)/python -m scripts.verify.schemas $(or $(SCHEMAS_FLAGS),--fetch)

verify: $(BIN)/python
	$(BIN)/python -m scripts.verify.rings

sanitize: $(VENV)/.stamp-test
	$(BIN)/python -m scripts.verify.sanitize

test-aarch64: $(VENV)/.stamp-test
	$(BIN)/python -m scripts.verify.aarch64

# What scripts make and the repository keeps: the demo model, reference values of tests, the dashboard, docs/page.png
$(VENV)/.stamp-train: $(SOURCES) | $(BIN)/python
	$(PIP) --editable '.[train]'
	touch $@ $(VENV)/.stamp-serve

train-demo: $(VENV)/.stamp-train
	$(BIN)/python -m scripts.train $(TRAIN_FLAGS)

fixtures: $(VENV)/.stamp-train
	$(BIN)/python -m scripts.tools.make_reference_logits
	$(BIN)/python -m scripts.tools.make_sampling_fixture

# It needs another transformers than the engine's
fixtures-response: | $(BIN)/python
	$(PYTHON) -m venv $(VENV)-transformers
	$(VENV)-transformers/bin/pip install --quiet 'transformers==5.13.*'
	$(VENV)-transformers/bin/python -m scripts.tools.make_response_fixture

# torch and another transformers than the engine's
fixtures-families: | $(BIN)/python
	$(PYTHON) -m venv $(VENV)-families
	$(VENV)-families/bin/pip install --quiet torch 'transformers>=5.13,<6' safetensors
	$(VENV)-families/bin/python -m scripts.tools.make_family_fixture

# Adapters as PEFT saves them, and its answers with them
fixtures-adapters: fixtures-families
	$(VENV)-families/bin/pip install --quiet 'peft>=0.21,<1'
	$(VENV)-families/bin/python -m scripts.tools.make_adapter_fixture

$(VENV)/.stamp-dist: $(SOURCES) | $(BIN)/python
	$(PIP) 'build>=1.2,<2'
	touch $@

# What can be installed elsewhere: dist/*.tar.gz, and a wheel made of it
dist: $(VENV)/.stamp-dist
	rm -rf build dist
	$(BIN)/python -m build

# Whether that wheel serves the demo model in an environment of its own; downloads all that it needs
test-dist: dist $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.verify.dist dist/*.whl

# The Dockerfile and the Kubernetes manifests, without a container engine or a cluster; downloads what the image has
test-deployment: $(VENV)/.stamp-test
	$(BIN)/python -m scripts.verify.deployment $(DEPLOYMENT_FLAGS)

dashboard: $(VENV)/.stamp-serve
	$(BIN)/python -m scripts.tools.dashboard configs/grafana.json

docs-page: $(VENV)/.stamp-test
	$(BIN)/python -m scripts.tools.screenshot_page $(PAGE_FLAGS)

clean:
	rm -rf $(VENV) build dist *.egg-info ipc/*.so model/*.so model/*/*.so pipeline/*/*.so
