package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"greenroom/lease"
	"greenroom/lease/client"
)

// errFixed is what a server answers whose log was made without a level that can be changed.
var errFixed = &fault{http.StatusConflict, "conflict", "the level of this server's log is fixed; that of \"greenroom serve\" can be changed"}

func (a *api) getLog(context.Context, lease.Caller, request[none]) (answer, error) {
	if a.Level == nil {
		return answer{}, errFixed
	}
	return answer{body: client.Log{Level: levelName(a.Level.Level())}}, nil
}

// setLog changes the level of the log until the next change or the end of the process.
func (a *api) setLog(ctx context.Context, who lease.Caller, r request[client.Log]) (answer, error) {
	level, err := ParseLevel(r.Body.Level)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", lease.ErrInvalid, err)
	}
	if a.Level == nil {
		return answer{}, errFixed
	}
	before := a.Level.Level()
	a.Level.Set(min(before, level)) // so that the change is told when either level would tell it
	a.Log.Info(fmt.Sprintf("changed the log's level from %s to %s", levelName(before), levelName(level)), "by", who.Name)
	a.Level.Set(level)
	return a.getLog(ctx, who, request[none]{})
}

// ParseLevel reads debug, info, warn or error.
func ParseLevel(name string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if levelName(l) == name {
			return l, nil
		}
	}
	return 0, fmt.Errorf("the log has no level %.20q, want debug, info, warn or error", name)
}

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }
