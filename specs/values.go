package specs

import (
	"encoding/json"
	"time"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// The conversions below give zero for a value that is null or could not be computed.

func known(v cty.Value) bool { return v != cty.NilVal && v.IsKnown() && !v.IsNull() }

func asString(v cty.Value) string {
	if !known(v) {
		return ""
	}
	return v.AsString()
}

func asInt(v cty.Value) int {
	if !known(v) {
		return 0
	}
	n, _ := v.AsBigFloat().Int64()
	return int(n)
}

func asFloat(v cty.Value) float64 {
	if !known(v) {
		return 0
	}
	f, _ := v.AsBigFloat().Float64()
	return f
}

func asBool(v cty.Value) bool { return known(v) && v.True() }

func asDuration(v cty.Value) time.Duration {
	t, err := time.ParseDuration(asString(v))
	if err != nil {
		return 0
	}
	return t
}

func asMap(v cty.Value) map[string]cty.Value {
	if !known(v) {
		return nil
	}
	return v.AsValueMap()
}

func asList(v cty.Value) []cty.Value {
	if !known(v) {
		return nil
	}
	return v.AsValueSlice()
}

func asJSON(v cty.Value) json.RawMessage {
	if !known(v) {
		return nil
	}
	raw, err := ctyjson.Marshal(v, v.Type())
	if err != nil {
		return nil
	}
	return raw
}
