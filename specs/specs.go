// Package specs is the language that a fleet is declared in: HCL files with pools and caches.
//
// It exists so that one place decides what a spec means. It reads files into a [Fleet] with every
// default filled in, or says everything that is wrong with them at once, as HCL diagnostics that
// point at the source. It is pure: it reads the files it is given and nothing else.
package specs
