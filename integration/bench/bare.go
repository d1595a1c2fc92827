package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"
)

// trivial is the script of the bare server: it does nothing.
const trivial = "return 1"

// serveBare is the baseline of the lease calls, a process of its own: a bare net/http server that does one trivial EVALSHA for
// each call. Its answer has what the caller looks for. It prints its address and serves until ctx ends.
func serveBare(ctx context.Context, redisAddr string, out io.Writer) error {
	rdb := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer rdb.Close()
	sha, err := rdb.ScriptLoad(ctx, trivial).Result()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "bare addr=%s \n", listener.Addr())
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := rdb.EvalSha(r.Context(), sha, []string{"bare"}).Err(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusCreated)
		}
		_, _ = io.WriteString(w, `{"id":"bench.1"}`)
	})}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
