package main

import (
	"bytes"
	"io"

	"github.com/hashicorp/hcl/v2"

	"greenroom/modules"
	"greenroom/specs"
)

// writeFaults writes what is wrong with an edit. Nothing was written, so that a fault in a line which the edit leaves alone is
// shown where that line is now, for a reader to look up; what the edit itself would write is shown as it would be.
func writeFaults(w io.Writer, dir string, faults *specs.Faults) error {
	_, now, _ := specs.Load(dir, specs.Options{Bundled: modules.Names()})
	for _, diag := range faults.Diagnostics {
		files := faults.Files
		if d, there := asItStands(diag, now, faults.Files); there {
			files, diag = now, d
		}
		if err := writeDiagnostics(w, files, hcl.Diagnostics{diag}); err != nil {
			return err
		}
	}
	return nil
}

// asItStands moves a fault of an edited file to where its lines are in the file as it is now; false: they are not there.
func asItStands(diag *hcl.Diagnostic, now, edited map[string]*hcl.File) (*hcl.Diagnostic, bool) {
	if diag.Subject == nil || now[diag.Subject.Filename] == nil || edited[diag.Subject.Filename] == nil {
		return diag, false
	}
	moved := *diag
	before, after := now[diag.Subject.Filename].Bytes, edited[diag.Subject.Filename].Bytes
	for _, at := range []**hcl.Range{&moved.Subject, &moved.Context} {
		if *at == nil {
			continue
		}
		r, there := unedited(**at, before, after)
		if !there {
			return diag, false
		}
		*at = &r
	}
	return &moved, true
}

// unedited is where a range of after is in before; false: the edit wrote some of it.
func unedited(r hcl.Range, before, after []byte) (hcl.Range, bool) {
	head, tail := sharedLines(before, after)
	switch {
	case r.End.Byte <= head:
		return r, true
	case r.Start.Byte < len(after)-tail:
		return r, false
	}
	lines := bytes.Count(before, []byte("\n")) - bytes.Count(after, []byte("\n"))
	for _, at := range []*hcl.Pos{&r.Start, &r.End} {
		at.Byte, at.Line = at.Byte+len(before)-len(after), at.Line+lines
	}
	return r, true
}

// sharedLines counts the bytes of the lines that a and b both begin with and, beyond those, end with.
func sharedLines(a, b []byte) (head, tail int) {
	as, bs := bytes.SplitAfter(a, []byte("\n")), bytes.SplitAfter(b, []byte("\n"))
	for len(as) > 0 && len(bs) > 0 && bytes.Equal(as[0], bs[0]) {
		head, as, bs = head+len(as[0]), as[1:], bs[1:]
	}
	for len(as) > 0 && len(bs) > 0 && bytes.Equal(as[len(as)-1], bs[len(bs)-1]) {
		tail, as, bs = tail+len(as[len(as)-1]), as[:len(as)-1], bs[:len(bs)-1]
	}
	return head, tail
}
