package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-serve-bare" { // the program starts itself for its baselines
		main()
		return
	}
	os.Exit(m.Run())
}

func TestEveryBenchmarkYieldsItsResults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	var shown bytes.Buffer
	say := io.Discard
	if testing.Verbose() {
		say = os.Stderr
	}
	if err := run(t.Context(), []string{"-quick", "-json", file}, &shown, say); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rep report
	if err := json.Unmarshal(text, &rep); err != nil {
		t.Fatal(err)
	}
	judged := map[int]int{}
	for _, r := range rep.Results {
		if r.Verdict != "" {
			judged[r.Benchmark]++
		}
		if r.Baseline > 0 && (r.Measured <= 0 || r.Ratio <= 0) {
			t.Errorf("%d. %s: nothing was measured: %+v", r.Benchmark, r.Name, r)
		}
	}
	for number, want := range map[int]int{1: 2, 2: 1, 3: 2, 4: 2, 5: 2, 6: 4} {
		if judged[number] != want {
			t.Errorf("benchmark %d has %d numbers that are held against a goal, want %d", number, judged[number], want)
		}
	}
	if !bytes.Contains(shown.Bytes(), []byte("verdict")) {
		t.Errorf("no table is shown:\n%s", &shown)
	}
}
