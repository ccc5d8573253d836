# One verb each. Every target creates .venv when it is missing; ./setup.sh TARGET also installs Debian's packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install dev up style types layers test check audit audited bench chaos fuzz proto metrics picture lock clean

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed tests/node/package-lock.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,cluster,profile,tracing]'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --silent --no-audit --no-fund --prefix tests/node
	touch $@

install: $(VENV)/installed
dev: $(VENV)/installed-dev

up: install ## the whole system on this machine, with the arena to play
	$(BIN)/warmfleet up fleets/examples/arena.yaml

style: dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: dev
	$(BIN)/mypy

layers: dev
	$(BIN)/lint-imports

test: dev ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: style types layers audited test

bench: dev ## the full benchmarks; their results belong in docs/performance.md
	$(BIN)/python -m bench

audit: dev ## known vulnerabilities of what is pinned; 3: could not be asked
	$(BIN)/python docker/audit.py

audited: dev ## the same as a gate: what is found fails, a service that cannot be asked is said and passes
	$(BIN)/python docker/audit.py --gate

chaos: dev ## break a whole system under players, half an hour at most; SEED=1 MINUTES=24
	$(BIN)/python -m bench.chaos --seed $(or $(SEED),1) --minutes $(or $(MINUTES),24)

fuzz: dev ## coverage-guided fuzzing of everything that bytes from outside reach; SECONDS=60 for each target, or TARGET=gate
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python tests/fuzz $(TARGET) $(or $(SECONDS),60)

proto: dev ## regenerate the gRPC stubs from our .proto files
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. gameserver/agones/pb/*.proto allocator/backends/pb/*.proto

metrics: install ## write docs/metrics.md and docs/alerts.md anew
	$(BIN)/python docs/metrics.py

picture: dev ## take docs/arena.png anew
	$(BIN)/python docs/picture.py

lock: ## resolve the newest releases anew and pin them
	$(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/python -m pip install --quiet -e '.[dev,cluster,profile,tracing]'
	$(VENV)-lock/bin/python -m pip freeze --exclude-editable > constraints.txt && rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) .warmfleet build dist *.egg-info
