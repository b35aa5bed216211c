# What people do with this repository. Each target installs what it needs and the machine lacks.

# Arguments for demo, test and bench: make demo ARGS="--replicas 3 --orders 6 --kill-one"
ARGS ?=
# How many replicas `make up` starts.
REPLICAS ?= 3
COMPOSE = docker compose --profile awo
DEV = docker compose -f compose.yaml -f compose.dev.yaml --profile awo
BINARY = $${CARGO_TARGET_DIR:-target}/debug/archon-awo
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help demo build test test-claude ci fmt lint coverage bench faults commit-races faults-defaults retention-load upgrade-test fuzz \
	image up dev-awo awo-logs awo-restart awo-roll stop docker-test docker-clean clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 17

demo: ## Run a work order from SQL to pull request: no Docker, no account, no key
	@.ci/install demo
	@cargo build --locked
	@$(BINARY) demo $(ARGS)

build: ## Compile the debug binary
	@.ci/install build
	cargo build --locked

test: ## Run the tests against a private Postgres
	@.ci/test $(ARGS)

test-claude: ## Play the scenarios with both versions of the Claude CLI: make test-claude ARGS="bill/a_requeue@2.1.332", or --list
	@.ci/test-claude $(ARGS)

ci: ## Run what a change must pass
	@.ci/run

fmt: ## Format the code
	cargo fmt

lint: ## Check format, lints, licences, scripts, Dockerfile and Compose files
	@.ci/install build deny
	.ci/lint-files
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo deny --log-level error check bans licenses sources

coverage: ## Print the line coverage of the tests
	@.ci/install test tarpaulin
	.ci/with-postgres cargo tarpaulin --locked --engine llvm --follow-exec --skip-clean \
		--target-dir target/coverage --exclude-files 'tests/*' \
		--timeout 1800 --out Stdout --fail-under 80

bench: ## Measure: make bench ARGS="queue --json", or sandbox, or agent
	@.ci/install demo
	@cargo build --locked --release
	@AWO_PG_SYNC=on .ci/with-postgres $${CARGO_TARGET_DIR:-target}/release/archon-awo bench $(ARGS)

faults: ## Break everything at random and judge: make faults FAULTS=1100 SEED=7 ARGS="--report faults.md"
	@.ci/install test
	@cargo test --locked --test faults -- run $(ARGS)

commit-races: ## Read checkouts while a survivor moves their names: make commit-races RACES=200
	@.ci/install test
	@AWO_TEST_COMMIT_RACES=$${RACES:-200} cargo nextest run --locked --test git_layer --no-capture -E 'test(moving::)'

faults-defaults: ## Measure the promises about seconds, with default timings
	@.ci/install test
	@cargo test --locked --test faults -- defaults $(ARGS)

retention-load: ## Clean 200 sandboxes of 3,000 files with three replicas, measured against rm -rf
	@.ci/install test
	@.ci/with-postgres cargo test --locked --release --test bench_retention -- \
		--ignored --nocapture --test-threads 1

upgrade-test: ## Build the previous program and run it beside this one, on one database
	@.ci/upgrade $(ARGS)

fuzz: ## Feed anything to gates and filters, each for some seconds: make fuzz ARGS=300
	@.ci/install build fuzz
	@.ci/fuzz $(ARGS)

image: ## Build the container image
	@.ci/install docker
	$(COMPOSE) build archon-awo

up: .env ## Start Postgres and REPLICAS replicas with Docker Compose
	@.ci/install docker
	$(COMPOSE) up --detach --scale archon-awo=$(REPLICAS)

.env:
	cp .env.example .env && chmod 600 .env

dev-awo: .env ## Run a replica that is compiled again on every change of the source
	@.ci/install docker
	$(DEV) up --build

awo-logs: ## Follow the logs of the replicas
	$(COMPOSE) logs --follow --tail 100 archon-awo

awo-restart: ## Restart the replicas; running orders go on afterwards
	$(COMPOSE) restart archon-awo

awo-roll: ## Replace the replicas one by one by ones of the image as it is now
	ops/compose/roll

stop: ## Stop everything; volumes stay
	$(COMPOSE) down

docker-test: ## Walk through a deployment on the Docker engine: make docker-test ARGS="--partition 20"
	@AWO_DOCKER=required .ci/docker $(ARGS)

docker-clean: ## Remove the stand-ins for public base images that docker-test made
	@tests/docker/base-images remove

clean: ## Delete what was built and, where Compose runs, every volume; after asking
	@printf 'Delete target/ and .demo/? [y/N] '; read -r answer; \
	if [ "$$answer" = y ]; then rm -rf target .demo; else echo kept; fi
	@! docker info > /dev/null 2>&1 || { \
		printf 'Delete the containers and volumes of Docker Compose, with every order and sandbox? [y/N] '; read -r answer; \
		if [ "$$answer" = y ]; then $(COMPOSE) down --volumes; else echo kept; fi; }
