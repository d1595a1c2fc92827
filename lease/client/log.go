package client

import (
	"context"
	"net/http"
)

// Log is how much the server logs, and the body of PUT /v1/log.
type Log struct {
	Level string `json:"level"` // debug, info, warn or error
}

// Log returns how much the server logs.
func (c *Client) Log(ctx context.Context) (Log, error) {
	return fetch[Log](ctx, c, get("/v1/log", nil))
}

// SetLog changes how much the server logs, until the next change or its end.
func (c *Client) SetLog(ctx context.Context, l Log) (Log, error) {
	return fetch[Log](ctx, c, call{method: http.MethodPut, path: "/v1/log", body: l})
}
