package modules_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// brittle is a module of which the guest "bad" can't be made, which shows in the apply only.
const brittle = `
variable "guests" {}
variable "pool" {}
variable "ssh_authorized_keys" {}
resource "terraform_data" "net" {
  input = "up"
}
resource "terraform_data" "guest" {
  for_each = var.guests
  input    = each.key
  lifecycle {
    precondition {
      condition     = terraform_data.net.output == "up" && each.key != "bad"
      error_message = "There is no room for it."
    }
  }
}
resource "terraform_data" "record" {
  for_each = var.guests
  input    = terraform_data.guest[each.key].output
}
`

// TestWhatAnOutputTellsAfterAGuestHasFailed proves on real Terraform what README.md says of outputs.
func TestWhatAnOutputTellsAfterAGuestHasFailed(t *testing.T) {
	for name, test := range map[string]struct {
		value string
		exit  int
		want  string
	}{
		"of the resource": {"{ for name, guest in terraform_data.guest : name => guest.output }", 0, `{"good":"good"}`},
		"of the names":    {"{ for name, _ in var.guests : name => terraform_data.guest[name].output }", 1, "Invalid index"},
		"of a second resource, which a failed guest keeps from all": {"{ for name, record in terraform_data.record : name => record.output }", 0, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &root{t: t, dir: t.TempDir(), guests: t.TempDir(), inputs: map[string]any{
				"pool": "p", "guests": map[string]any{}, "ssh_authorized_keys": []string{},
			}}
			must(t, os.WriteFile(filepath.Join(r.dir, "main.tf"), []byte(brittle+"output \"guests\" {\n  value = "+test.value+"\n}\n"), 0o600))
			r.terraform(0, "init")
			r.have("good", 1)
			r.have("bad", 1)
			r.terraform(1, "apply", "-auto-approve")
			got := r.terraform(test.exit, "apply", "-refresh-only", "-auto-approve")
			if test.exit == 0 {
				got = strings.TrimSpace(r.terraform(0, "output", "-json", "guests"))
			}
			if got != test.want && (test.exit == 0 || !strings.Contains(got, test.want)) {
				t.Errorf("it tells %s, want %s", got, test.want)
			}
		})
	}
}
