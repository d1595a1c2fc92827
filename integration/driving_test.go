package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cloud is a module of a provider that wants credentials: each guest notes what of the environment reached it.
const cloud = `
variable "guests" {
  type = map(object({ incarnation = number, user_data = string }))
}
variable "pool" { type = string }
variable "ssh_authorized_keys" { type = list(string) }
variable "port" { type = number }
variable "log" { type = string }
resource "terraform_data" "guest" {
  for_each         = var.guests
  triggers_replace = each.value.incarnation
  provisioner "local-exec" {
    command = "echo \"token=$CLOUD_TOKEN other=$CLOUD_OTHER\" >> ${var.log}"
  }
}
output "guests" {
  value = {
    for name, guest in terraform_data.guest : name => {
      id = guest.id, host = "127.0.0.1", port = var.port, user = "root", host_key = "", attributes = {}
    }
  }
}
`

func TestTerraformHasTheBackendAndTheCredentialsThatServeIsGiven(t *testing.T) {
	t.Parallel()
	guests := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer guests.Close()
	backend := filepath.Join(t.TempDir(), "backend.json")
	h := newHouse(t, options{
		args: []string{"--backend-file", backend, "--env", "CLOUD_TOKEN,CLOUD_ABSENT", "--concurrency", "1"},
		env:  []string{"CLOUD_TOKEN=s3cret", "CLOUD_OTHER=hidden"},
	})
	states, log := h.path("states"), h.path("log")
	noError(t, os.Mkdir(states, 0o700))
	noError(t, os.WriteFile(backend, fmt.Appendf(nil, `{"type": "local", "config": {"path": %q}}`, states+"/{shard}.tfstate"), 0o600))
	noError(t, os.Mkdir(h.path("specs/cloud"), 0o700))
	noError(t, os.WriteFile(h.path("specs/cloud/main.tf"), []byte(cloud), 0o600))
	spec := func(warm int) text {
		return text(fmt.Sprintf(`
pool "cloud" {
  module    = "./cloud"
  max       = 2
  variables = { port = %d, log = %q }
  probe "tcp" { every = "1s" }
}

cache "ci" {
  owner = "platform"
  pools = [pool.cloud]
  warm  = %d
  size  = 2
}
`, guests.Addr().(*net.TCPAddr).Port, log, warm))
	}
	h.write(spec(2))
	h.start()
	h.converged()
	h.shelved(2)
	if got := string(must(os.ReadFile(log))(t)); got != strings.Repeat("token=s3cret other=\n", 2) {
		t.Errorf("the guests were made with %q", got)
	}
	if found := must(filepath.Glob(states + "/cloud-*.tfstate"))(t); len(found) != 1 {
		t.Errorf("the states are %v, want one of a shard", found)
	}
	if local := must(filepath.Glob(filepath.Join(h.path("state/shards"), "*", "*", "terraform.tfstate")))(t); len(local) > 0 {
		t.Errorf("there is a state in %v, too", local)
	}
	h.acquire()
}

func TestServeRefusesWhatTerraformCanNotBeDrivenWith(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, body string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		noError(t, os.WriteFile(path, []byte(body), mode))
		return path
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a state for all shards": {[]string{"--backend-file", file("one", `{"type": "s3", "config": {"key": "x"}}`, 0o600)}, `"{shard}" in some string of its config`},
		"no JSON":                {[]string{"--backend-file", file("hcl", `backend "s3" {}`, 0o600)}, `want {"type": "s3", "config": {…}}`},
		"a typo":                 {[]string{"--backend-file", file("typo", `{"typ": "s3", "config": {"key": "{shard}"}}`, 0o600)}, `unknown field "typ"`},
		"an empty file":          {[]string{"--backend-file", file("empty", "", 0o600)}, "names none"},
		"null":                   {[]string{"--backend-file", file("null", "null", 0o600)}, "names none"},
		"runs below none":        {[]string{"--concurrency", "-1"}, "--concurrency -1, want a number from 1 on"},
		"a mark in a name":       {[]string{"--backend-file", file("name", `{"type": "s3", "config": {"{shard}": "x", "key": "one"}}`, 0o600)}, `"{shard}" in some string of its config`},
		"settings in a string":   {[]string{"--backend-file", file("string", `{"type": "s3", "config": "{shard}"}`, 0o600)}, `want {"type": "s3", "config": {…}}`},
		"two":                    {[]string{"--backend-file", file("two", `{"type": "s3", "config": {"key": "{shard}"}} {}`, 0o600)}, "there is more behind it"},
		"an open file":           {[]string{"--backend-file", file("open", `{}`, 0o644)}, "chmod 600 it"},
		"no file":                {[]string{"--backend-file", filepath.Join(dir, "none")}, "no such file"},
		"a value":                {[]string{"--env", "A=b"}, `environment variable "A=b": not a name`},
		"Terraform's own":        {[]string{"--env", "TF_LOG"}, "can't be handed to Terraform"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"serve", "--state-dir", filepath.Join(t.TempDir(), "s"), "--specs", t.TempDir(), "--listen", "127.0.0.1:0"}, test.args...)
			out, err := exec.CommandContext(t.Context(), plain, args...).CombinedOutput()
			if got := string(out); err == nil || !strings.Contains(got, test.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("ended with %v and %q, want one line with %q", err, got, test.want)
			}
		})
	}
}
