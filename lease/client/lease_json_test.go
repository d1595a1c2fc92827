package client

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// Leases are made of all the fields that there are: one that AppendJSON does not know of fails this.
func TestALeaseIsWrittenAsEncodingJSONDoes(t *testing.T) {
	strange := rapid.OneOf(
		rapid.Just(""), rapid.String(), rapid.StringMatching(`[ -~]{0,40}`),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "bytes")) }),
		rapid.SampledFrom([]string{"</script>&", "a\x7fb", "\u2028\u2029", "\xed\xa0\x80", "\xff", "a\x00\b\f\n\r\t\"\\", "µ\uFFFD😀"}),
	)
	number := rapid.OneOf(rapid.Just(0), rapid.Int())
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		zones := []*time.Location{time.UTC, time.FixedZone("", 5400), time.FixedZone("", -86399)}
		at := time.Unix(rapid.Int64Range(-1<<35, 1<<37).Draw(t, "seconds"), rapid.Int64Range(0, 1e9).Draw(t, "nanoseconds"))
		return at.In(rapid.SampledFrom(zones).Draw(t, "zone"))
	})
	unsayable := rapid.SampledFrom([]time.Time{time.Unix(1<<38, 0), time.Unix(-1<<37, 0), time.Unix(0, 0).In(time.FixedZone("", 86400))})
	leases := rapid.MakeCustom[Lease](rapid.MakeConfig{
		Kinds: map[reflect.Kind]*rapid.Generator[any]{reflect.String: strange.AsAny(), reflect.Int: number.AsAny()},
		Types: map[reflect.Type]*rapid.Generator[any]{
			reflect.TypeFor[time.Time](): rapid.OneOf(rapid.Just(time.Time{}), moment, moment, moment, moment, moment, moment, unsayable).AsAny(),
			reflect.TypeFor[Duration]():  rapid.OneOf(rapid.Just(Duration(0)), rapid.Map(rapid.Int64(), func(n int64) Duration { return Duration(n) })).AsAny(),
		},
	})

	rapid.Check(t, func(t *rapid.T) {
		l := leases.Draw(t, "lease")
		want, failed := json.Marshal(l)
		got, err := l.AppendJSON([]byte("before "))
		if (err != nil) != (failed != nil) {
			t.Fatalf("the error is %v, and encoding/json's %v", err, failed)
		}
		if diff := cmp.Diff("before "+string(want), string(got)); err == nil && diff != "" {
			t.Errorf("(-encoding/json +AppendJSON):\n%s", diff)
		}
	})
}
