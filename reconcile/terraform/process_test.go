package terraform

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestAStatLineIsReadWhateverTheCommandIsCalled(t *testing.T) {
	for _, test := range []struct {
		line string
		want process
	}{
		{"17 (sh) S 1 17 17 0 -1", process{17, 1, 17, 17}},
		{"17 (a) b (c) R 2 3 4 0", process{17, 2, 3, 4}},
	} {
		if got, err := parseStat([]byte(test.line)); err != nil || got != test.want {
			t.Errorf("%s: %v %v", test.line, got, err)
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("17 (a) b (c) R 2 3 4 0"))
	f.Add([]byte(") 1 ("))
	f.Fuzz(func(t *testing.T, line []byte) {
		if p, err := parseStat(line); err == nil && p == (process{}) && len(line) < 6 {
			t.Error("nothing was read from", line)
		}
	})
}

func FuzzAddress(f *testing.F) {
	f.Add(`module.guests.module.x["a"].t.n["b\"c"]`)
	f.Add(`data.x.y[0]`)
	f.Fuzz(func(t *testing.T, address string) {
		for _, key := range keysOf(address) {
			if ownerOf(address, []string{key}) != key {
				t.Errorf("%q does not belong to its own key %q", address, key)
			}
		}
	})
}

func FuzzLock(f *testing.F) {
	f.Add("Lock Info:\n  ID: 1\n  Who: a@b\n  Created: 2026-01-02 03:04:05.6 +0000 UTC\n")
	f.Fuzz(func(t *testing.T, detail string) {
		if _, ok := lockOf([]Diagnostic{{Summary: "Error acquiring the state lock", Detail: detail}}); !ok {
			t.Error("a lock conflict was not seen")
		}
	})
}

func TestASessionIsKilledWithEverythingInIt(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "sleep 1000 & exec sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	session := cmd.Process.Pid
	within := func() int { return len(processes(func(p process) bool { return p.session == session })) }
	eventually(t, "the session", func() bool { return within() == 2 })
	killSession(session)
	if err := cmd.Wait(); err == nil {
		t.Error("the leader has ended by itself")
	}
	eventually(t, "the end of the session", func() bool { return within() == 0 })
	for _, p := range processes(func(p process) bool { return p.parent == os.Getpid() }) {
		t.Errorf("process %d is left", p.pid)
	}
}
