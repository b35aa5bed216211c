# What people do with this repository. Each target installs what it needs and the machine lacks.

# Arguments for demo, test and bench: make demo ARGS="--replicas 3 --orders 6 --kill-one"
ARGS ?=
BINARY = $${CARGO_TARGET_DIR:-target}/debug/archon-awo
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help demo build test ci fmt lint coverage bench faults faults-defaults retention-load upgrade-test fuzz clean

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

ci: ## Run what a change must pass
	@.ci/run

fmt: ## Format the code
	cargo fmt

lint: ## Check format, lints and licences
	@.ci/install build deny
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo deny --log-level error check bans licenses sources

coverage: ## Print the line coverage of the tests
	@.ci/install test tarpaulin
	.ci/with-postgres cargo tarpaulin --locked --engine llvm --follow-exec --skip-clean \
		--target-dir target/coverage --exclude-files 'tests/*' \
		--timeout 1800 --out Stdout --fail-under 80

bench: ## Measure: make bench ARGS="queue --json", or ARGS="sandbox --json"
	@.ci/install demo
	@cargo build --locked --release
	@AWO_PG_SYNC=on .ci/with-postgres $${CARGO_TARGET_DIR:-target}/release/archon-awo bench $(ARGS)

faults: ## Break everything at random and judge: make faults FAULTS=1100 SEED=7 ARGS="--report faults.md"
	@.ci/install test
	@cargo test --locked --test faults -- run $(ARGS)

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

clean: ## Delete what was built, after asking
	@printf 'Delete target/ and .demo/? [y/N] '; read answer; \
	if [ "$$answer" = y ]; then rm -rf target .demo; else echo kept; fi
