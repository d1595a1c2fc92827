//go:build race

package gitops

// raceDetector is in this process, and needs more memory than a reader may have.
const raceDetector = true
