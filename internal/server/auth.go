package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"greenroom/lease"
)

// adminOwner is the team of callers that are no team's: the first admin token, and the user on the socket.
const adminOwner = "admin"

type peerKey struct{}

// identify finds out who calls: by the bearer token (RFC 6750), or by the user at the other end of the unix socket.
func (a *api) identify(r *http.Request) (lease.Caller, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		if who, ok := r.Context().Value(peerKey{}).(lease.Caller); ok {
			return who, nil
		}
		return lease.Caller{}, unauthorized("the call has no bearer token, which goes into a header: Authorization: Bearer <token>")
	}
	scheme, secret, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return lease.Caller{}, unauthorized("the Authorization header holds no bearer token")
	}
	who, ok := a.Tokens.Lookup(strings.TrimSpace(secret))
	if !ok {
		return lease.Caller{}, unauthorized("the bearer token is unknown, revoked or expired")
	}
	return who, nil
}

func unauthorized(detail string) error {
	return &fault{http.StatusUnauthorized, "unauthorized", detail}
}

// withPeer is the ConnContext of a server: it notes who is at the other end of a unix socket when that is the server's own
// user or root. Anybody else needs a token, as over TCP.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if below, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = below.NetConn()
	}
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	uid, err := peerUID(socket)
	if err != nil || uid != 0 && int(uid) != os.Geteuid() {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, lease.Caller{Name: userName(uid), Owner: adminOwner, Role: lease.Admin})
}

// peerUID asks the kernel; see SO_PEERCRED in unix(7).
func peerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var errOpt error
	err = raw.Control(func(fd uintptr) { cred, errOpt = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, errOpt); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}
