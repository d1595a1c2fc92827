package demo

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"greenroom/lease/client"
)

// A pool that is stuck stands for what a real one does on no demand.
func TestAStepThatTakesTooLongSaysWhatKeepsIt(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"pools": [{"pool": "local", "brake": "2 of 2 look dead", "conditions": [
			{"type": "Stalled", "status": true, "reason": "RunFailed", "message": "no provider is to be had"}, {"type": "Ready", "status": true, "reason": "All"}]}]}`)
	}))
	defer web.Close()
	c, err := client.New(client.Options{Addr: web.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d := &demo{client: c, patience: time.Millisecond}
	err = d.until(t.Context(), func() (bool, error) { return false, nil })
	want := "not done within 1ms\npool local: brake: 2 of 2 look dead\npool local: RunFailed: no provider is to be had"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestWhatCannotBeToldFailsOnce(t *testing.T) {
	gone := errors.New("nobody reads")
	r, w := io.Pipe()
	if err := r.CloseWithError(gone); err != nil {
		t.Fatal(err)
	}
	d := &demo{Options: Options{Out: w}}
	if err := d.tell(Step{Step: "a"}, time.Now()); !errors.Is(err, gone) || !strings.HasPrefix(err.Error(), "the output could not be written: ") {
		t.Error(err)
	}
	if err := d.tell(Step{Step: "b"}, time.Now()); err != nil {
		t.Error(err)
	}
}
