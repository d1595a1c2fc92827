package gitops

import (
	"path/filepath"
	"strings"
	"testing"

	"greenroom/reconcile/condition"
)

func TestAFaultShowsItsSourceWithoutSecrets(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "fleet.hcl"), "pool \"local\" {\n  module = \"local\"\n  max = \"many\"\n  variables = { word = \"hunter2\", other = local.nowhere }\n}\n")
	r := Load(dir)
	mustFault(t, r, condition.SpecInvalid, "fleet.hcl line 3", `max = "many"`, "fleet.hcl line 4", `variables = { word = "*******", other = local.nowhere }`)
	if strings.Contains(r.Fault.Message, "hunter2") {
		t.Errorf("the fault tells the variable: %v", r.Fault)
	}
}
