// Package gitops is where specs come from, and what is said about them before they count. It follows a git repository or a
// directory and hands each new revision on, good or bad; it reads any other revision, or an archive, for a preview; it keeps
// the previews; it checks the webhooks that ask for a look. What is in force is the reconciler's business.
package gitops
