package gitops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"unicode"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"golang.org/x/crypto/ssh/knownhosts"

	"greenroom/reconcile/condition"
)

// refusal is an error whose reason is known where it comes up.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// explain says what an error of a look at a repository means, and what to do.
func (c *clone) explain(ctx context.Context, err error) *condition.Fault {
	reason, advice := c.meaning(ctx, err)
	message := fmt.Sprintf("%s: %s", c.Address, legible(c.redact(err.Error())))
	if advice != "" {
		message += "; " + advice
	}
	return &condition.Fault{Reason: reason, Message: message}
}

func (c *clone) meaning(ctx context.Context, err error) (reason, advice string) {
	var refused *refusal
	var hostKey *knownhosts.KeyError
	var answer *githttp.Err
	switch {
	case errors.As(err, &refused):
		return refused.reason, ""
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return condition.RefMissing, "push a first commit"
	case errors.As(err, new(git.NoMatchingRefSpecError)):
		return condition.RefMissing, ""
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed),
		errors.As(err, &answer) && answer.Response.StatusCode == http.StatusProxyAuthRequired:
		return condition.Unauthorized, c.adviseToken()
	case errors.As(err, &hostKey) && len(hostKey.Want) == 0:
		return condition.Unauthorized, fmt.Sprintf("the host's key is not in %s: fetch it with ssh-keyscan, compare its fingerprint with the one that the host's operator publishes, and add it", c.KnownHosts)
	case errors.As(err, &hostKey):
		return condition.Unauthorized, fmt.Sprintf("the host has another key than %s says: somebody may be in between, or the host has a new key, whose fingerprint its operator publishes", c.KnownHosts)
	case strings.Contains(err.Error(), "unable to authenticate"):
		return condition.Unauthorized, fmt.Sprintf("add the public key of %s to those that may read the repository", c.KeyFile)
	case errors.Is(err, transport.ErrRepositoryNotFound) && c.Address.Scheme == "https":
		return condition.Unreachable, "a forge says so too when the token may not read it, or there is none"
	case errors.Is(err, exec.ErrNotFound):
		return condition.Unreachable, "a file:// source needs the git command on the PATH of the server"
	case errors.Is(err, syscall.EFBIG):
		return condition.TooLarge, fmt.Sprintf("at most %d GiB are fetched at once; keep specs in a repository of their own", fileLimit>>30)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return condition.Unreachable, "make room for the clone in the state directory"
	case errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
		return condition.Unreachable, "it did not answer in time"
	}
	return condition.Unreachable, ""
}

func (c *clone) adviseToken() string {
	switch {
	case c.auth == nil:
		return fmt.Sprintf("put a token that may read the repository into a file and name it with --specs-token-file, or set %s", tokenVariable)
	case c.TokenFile != "":
		return fmt.Sprintf("the token in %s is refused: has it expired, and may it read the repository?", c.TokenFile)
	}
	return fmt.Sprintf("the token in %s is refused: has it expired, and may it read the repository?", tokenVariable)
}

const maxExplained = 500

// legible makes one short line of what a server may have had a part in.
func legible(text string) string {
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))), " ")
	if len(text) > maxExplained {
		text = strings.ToValidUTF8(text[:maxExplained], "") + "…"
	}
	return text
}
