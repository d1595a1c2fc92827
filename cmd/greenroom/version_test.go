package main

import (
	"runtime/debug"
	"testing"
)

func TestTheVersionIsThatOfTheModuleOrItsCommit(t *testing.T) {
	commit := []debug.BuildSetting{{Key: "vcs.revision", Value: "3f786850"}, {Key: "vcs.modified", Value: "false"}}
	dirty := []debug.BuildSetting{{Key: "vcs.revision", Value: "3f786850"}, {Key: "vcs.modified", Value: "true"}}
	for want, info := range map[string]*debug.BuildInfo{
		"v1.2.3":         {Main: debug.Module{Version: "v1.2.3"}, Settings: commit},
		"3f786850":       {Main: debug.Module{Version: "(devel)"}, Settings: commit},
		"3f786850+dirty": {Settings: dirty},
		"unknown":        {Main: debug.Module{Version: "(devel)"}},
	} {
		if got := versionOf(info); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTheVersionIsOneLineHoweverItIsAskedFor(t *testing.T) {
	want := ended{0, "greenroom version " + version() + "\n", ""}
	for _, arg := range []string{"version", "--version"} {
		if got := execute(t.Context(), arg); got != want {
			t.Errorf("%s: %+v, want %+v", arg, got, want)
		}
	}
}
