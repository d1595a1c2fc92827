package specs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
)

// Summaries of the faults that the language knows; the parser and the functions of HCL have others.
const (
	sumBadDuration      = "Invalid duration"
	sumBadLabel         = "Invalid label"
	sumBadModule        = "Invalid module source"
	sumBadName          = "Invalid name"
	sumBadShare         = "Invalid share"
	sumBadText          = "Invalid text"
	sumBlockLabels      = "Wrong number of block labels"
	sumCacheNamedAsPool = "Cache has the name of a pool"
	sumCycle            = "References form a cycle"
	sumDuplicateBlock   = "Duplicate block"
	sumDuplicateCache   = "Duplicate cache"
	sumDuplicateLocal   = "Duplicate local value"
	sumDuplicatePool    = "Duplicate pool"
	sumDuplicateProbe   = "Duplicate probe"
	sumDuplicateRef     = "Pool is listed twice"
	sumDurationRange    = "Duration out of range"
	sumFileTooLarge     = "File is too large"
	sumLeaves           = "Path leaves the spec directory"
	sumMaxOverPools     = "Cache max exceeds its pools"
	sumMissingAttribute = "Missing attribute"
	sumModuleNotAllowed = "Module path is not allowed here"
	sumModuleNotFound   = "Module not found"
	sumNoPools          = "Cache without pools"
	sumNoSpecs          = "No spec files"
	sumNotFound         = "File not found"
	sumNotRegular       = "Not a regular file"
	sumNotWhole         = "Not a whole number"
	sumOutOfRange       = "Number out of range"
	sumReserved         = "Reserved variable"
	sumSizeOverMax      = "Size exceeds max"
	sumSpareOverMax     = "Spare exceeds max"
	sumTTLOverMax       = "Lease ttl exceeds its max"
	sumTimeoutOverEvery = "Probe timeout exceeds its interval"
	sumTooDeep          = "Nested too deeply"
	sumTooLarge         = "Value is too large"
	sumTooManyFiles     = "Too many spec files"
	sumUnknownAttribute = "Unknown attribute"
	sumUnknownBlock     = "Unknown block type"
	sumUnknownCache     = "Unknown cache"
	sumUnknownFunction  = "Unknown function"
	sumUnknownLocal     = "Unknown local value"
	sumUnknownModule    = "Unknown bundled module"
	sumUnknownName      = "Unknown name"
	sumUnknownPool      = "Unknown pool"
	sumUnknownProbe     = "Unknown probe kind"
	sumUnreadable       = "Cannot read"
	sumWarmOverPools    = "More warm guests than the pools may have"
	sumWarmOverSize     = "Warm exceeds size"
	sumWrongType        = "Wrong type"
)

// WriteDiagnostics writes diags for people, each with its source underlined where it is in files. Lines are
// wrapped at width columns, 0 for no wrapping; color uses VT100 escape sequences.
func WriteDiagnostics(w io.Writer, files map[string]*hcl.File, diags hcl.Diagnostics, color bool, width uint) error {
	shown := slices.Clone(diags)
	for i, diag := range diags {
		if diag.Subject != nil && files[diag.Subject.Filename] == nil { // a directory, or a file that could not be read: its fault says which
			whole := *diag
			whole.Subject, whole.Context = nil, nil
			shown[i] = &whole
		}
	}
	return hcl.NewDiagnosticTextWriter(w, files, width, color).WriteDiagnostics(shown)
}

func fault(at hcl.Range, summary, detail string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(detail, args...), Subject: &at}
}

func (d *decoder) report(at hcl.Range, summary, detail string, args ...any) *hcl.Diagnostic {
	diag := fault(at, summary, detail, args...)
	d.diags = append(d.diags, diag)
	return diag
}

// fileStart is the range of a fault that is in no line of its file.
func fileStart(name string) hcl.Range {
	return hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
}

func unreadable(name string, err error) hcl.Diagnostics {
	return hcl.Diagnostics{fault(fileStart(name), sumUnreadable, "The spec directory %q can't be read: %v. Name a directory with .hcl files.", name, pathCause(err))}
}

// pathFault says why a file of the spec directory could not be read; what is its part in the spec.
func pathFault(at hcl.Range, what, name string, err error) *hcl.Diagnostic {
	switch {
	case errors.Is(err, errLeaves):
		return fault(at, sumLeaves, "The %s %q is outside of the spec directory, or is reached through \"..\" or a symbolic link that leads "+
			"out of it. Put the file into the directory and name it relative to that.", what, name)
	case errors.Is(err, ErrLink):
		return fault(at, sumNotRegular, "The %s %q is a symbolic link, or is reached through one. In a commit or an archive no link is followed: "+
			"put the file itself there.", what, name)
	case errors.Is(err, errTooLarge):
		return fault(at, sumFileTooLarge, "The %s %q is larger than %d bytes. Split it, or fetch what is large at run time.", what, name, MaxFileSize)
	case errors.Is(err, errNotRegular):
		return fault(at, sumNotRegular, "The %s %q is a directory or a special file. Name a regular file.", what, name)
	case errors.Is(err, fs.ErrNotExist):
		return fault(at, sumNotFound, "The %s %q does not exist in the spec directory. Create it, or correct the path, which is relative to that directory.", what, name)
	}
	return fault(at, sumUnreadable, "The %s %q can't be read: %v. Check its permissions.", what, name, pathCause(err))
}

// sortDiagnostics puts diags in the order of the source, so that the order of evaluation never shows.
func sortDiagnostics(diags hcl.Diagnostics) {
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		return cmp.Or(
			strings.Compare(a.Subject.Filename, b.Subject.Filename),
			cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte),
			strings.Compare(a.Summary, b.Summary),
			strings.Compare(a.Detail, b.Detail),
		)
	})
}

// hint is what to write instead of an unknown name: the nearest of the known ones, or all of them.
func hint(given string, known []string) string {
	if len(known) == 0 {
		return "There are none."
	}
	slices.Sort(known)
	for _, k := range known {
		if levenshtein.Distance(given, k, nil) < min(3, len(given)) {
			return fmt.Sprintf("Did you mean %q?", k)
		}
	}
	if len(known) > 20 {
		return fmt.Sprintf("There are %d, the first of them %s.", len(known), quoteAll(known[:20]))
	}
	return fmt.Sprintf("Known: %s.", quoteAll(known))
}

func quoteAll(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(quoted, ", ")
}
