# `make help` lists the targets.
BIN   := $(CURDIR)/bin
TOOLS := internal/tools
PAGES := integration/browser
FUZZ  := 5s

# The tools that the build fetched go first; the name that a shell exports for one machine's Terraform
# may point nowhere on this one.
export PATH := $(BIN):$(PATH)
unexport TF_CLI_CONFIG_FILE

.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/greenroom
	CGO_ENABLED=0 go build -trimpath -o $(BIN)/greenroom ./cmd/greenroom

.PHONY: demo
demo: build ## walk through the main job on this machine; flags by ARGS, as in ARGS=--exit
	$(BIN)/greenroom demo $(ARGS)

.PHONY: man
man: build ## write the man pages to bin/man
	$(BIN)/greenroom man $(BIN)/man

.PHONY: test
test: install lint vuln race ## install what is missing, then run everything; CI runs just this
	@echo
	@grep -h 'NOT CHECKED' $(BIN)/vuln.log || true
	@echo "make test: everything passed: lint, unit, property and integration tests with -race"

.PHONY: install
install: ## install the Debian packages and the Terraform that the tests need
	$(TOOLS)/install.sh $(BIN)

# The time is each package's own: the integration tests took 11 minutes on a slow machine.
.PHONY: race
race: ## run all tests with the race detector
	go test -race -count=1 -timeout 30m ./...
	go test -C $(TOOLS) ./...
	go test -C $(PAGES) -count=1 -timeout 5m ./...

.PHONY: lint
lint: $(BIN)/golangci-lint ## check format, vet and lint
	go vet ./...
	go vet -C $(PAGES) ./...
	golangci-lint config verify
	golangci-lint run
	cd $(PAGES) && golangci-lint run

.PHONY: fmt
fmt: $(BIN)/golangci-lint ## format the Go code
	golangci-lint fmt
	cd $(PAGES) && golangci-lint fmt

.PHONY: vuln
vuln: $(BIN)/govulncheck ## look for known vulnerabilities in what the code calls
	@$(TOOLS)/vuln.sh govulncheck ./... > $(BIN)/vuln.log; code=$$?; cat $(BIN)/vuln.log; exit $$code

.PHONY: fuzz-smoke
fuzz-smoke: ## run each fuzz target for FUZZ (5s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(grep -h -o '^func Fuzz[A-Za-z0-9]*' $$dir/*_test.go | cut -d' ' -f2); do \
			echo "$$dir $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ) $$dir || exit 1; \
		done; \
	done

.PHONY: bench
bench: ## measure the built server against baselines, into integration/bench/RESULTS.md and bin/bench.json; flags by ARGS
	@mkdir -p $(BIN)
	go run ./integration/bench -results integration/bench/RESULTS.md -json $(BIN)/bench.json $(ARGS)

.PHONY: microbench
microbench: ## run the benchmarks of packages
	go test -run '^$$' -bench . ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)

# The pins stand in internal/tools/go.mod.
$(BIN)/golangci-lint: $(TOOLS)/go.mod
	go build -C $(TOOLS) -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(BIN)/govulncheck: $(TOOLS)/go.mod
	go build -C $(TOOLS) -o $@ golang.org/x/vuln/cmd/govulncheck
