package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// machine is where and of what a run was made.
type machine struct {
	Date      string   `json:"date"`
	Commit    string   `json:"commit"`
	Processor string   `json:"processor"`
	Cores     int      `json:"cores"`
	Memory    string   `json:"memory"`
	System    string   `json:"system"`
	Go        string   `json:"go"`
	Redis     string   `json:"redis"`
	Terraform string   `json:"terraform"`
	Load      []string `json:"load"` // averages of the last 1, 5 and 15 minutes before and after
}

func thisMachine(ctx context.Context) machine {
	return machine{
		Date: time.Now().UTC().Format("2006-01-02 15:04 MST"), Commit: commit(ctx), Cores: runtime.NumCPU(), Go: runtime.Version(),
		Processor: field("/proc/cpuinfo", "model name"), Memory: field("/proc/meminfo", "MemTotal"),
		System: says(ctx, "uname", "-sr"), Redis: says(ctx, "redis-server", "--version"), Terraform: says(ctx, "terraform", "version"),
		Load: []string{loadAverage()},
	}
}

// commit is what was measured, with a mark where files differ from it.
func commit(ctx context.Context) string {
	id := says(ctx, "git", "rev-parse", "--short", "HEAD")
	if says(ctx, "git", "status", "--porcelain", "--untracked-files=no") != "" {
		id += " (with changes)"
	}
	return id
}

// says is the first line that a command prints; empty: it can't be asked.
func says(ctx context.Context, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, _ := exec.CommandContext(ctx, name, args...).Output()
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return strings.TrimSpace(string(line))
}

// field is the value of the first line of a file that begins with a name.
func field(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	parts := strings.Fields(string(text))
	return strings.Join(parts[:min(3, len(parts))], " ")
}

const introduction = `# Results of the benchmarks

Written by "make bench"; README.md beside this file says what is measured and how.
Where there is a baseline, the goal is for the ratio: both were measured in turn, in the same run.

`

func (r report) markdown() string {
	var b strings.Builder
	b.WriteString(introduction)
	row := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	row(columns)
	row(strings.Split(strings.Repeat("-", len(columns)), ""))
	for _, res := range r.Results {
		row(res.cells())
	}
	m := r.Machine
	fmt.Fprintf(&b, "\n- %s, commit %s\n- %s, %d cores, memory %s, %s\n", m.Date, m.Commit, m.Processor, m.Cores, m.Memory, m.System)
	fmt.Fprintf(&b, "- %s, %s, %s\n- load averages before: %s; after: %s\n", m.Go, m.Redis, m.Terraform, m.Load[0], m.Load[len(m.Load)-1])
	return b.String()
}
