package terraform

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// state is the part of Terraform's state (format 4) that the driver needs: who it is, what it
// holds, what is tainted, and the outputs. It is read in this form because it is the only one
// that tells lineage and serial, and because reading it starts no provider.
type state struct {
	Version   int             `json:"version"`
	Serial    int64           `json:"serial"`
	Lineage   string          `json:"lineage"`
	Outputs   stateOutputs    `json:"outputs"`
	Resources []stateResource `json:"resources"`

	raw []byte
}

type stateOutputs map[string]struct {
	Value json.RawMessage `json:"value"`
}

type stateResource struct {
	Module    string          `json:"module"`
	Mode      string          `json:"mode"`
	Type      string          `json:"type"`
	Name      string          `json:"name"`
	Instances []stateInstance `json:"instances"`
}

type stateInstance struct {
	Key     json.RawMessage `json:"index_key"`
	Status  string          `json:"status"`
	Deposed string          `json:"deposed"`
}

// parseState reads a state; no bytes are the empty state of a shard that never applied.
func parseState(raw []byte) (*state, error) {
	if len(raw) == 0 {
		return &state{Version: 4}, nil
	}
	s := state{raw: raw}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("reading the state: %w", err)
	}
	if s.Version != 4 {
		return nil, fmt.Errorf("the state has format %d; only 4 is known", s.Version)
	}
	return &s, nil
}

// instance is one managed resource instance of a state.
type instance struct {
	address string
	tainted bool // half made, or the deposed remains of a replacement
}

func (s *state) instances() []instance {
	var all []instance
	for _, r := range s.Resources {
		if r.Mode != "managed" {
			continue
		}
		for _, i := range r.Instances {
			all = append(all, instance{r.address(i.Key), i.Status == "tainted" || i.Deposed != ""})
		}
	}
	return all
}

func (r stateResource) address(key json.RawMessage) string {
	address := r.Type + "." + r.Name
	if r.Module != "" {
		address = r.Module + "." + address
	}
	var name string
	switch {
	case len(key) == 0:
		return address
	case json.Unmarshal(key, &name) == nil:
		return address + "[" + strings.ReplaceAll(strconv.Quote(name), "${", "$${") + "]"
	}
	return address + "[" + string(key) + "]"
}

// known returns the addresses of each of the guests that the state has, and which are tainted.
func (s *state) known(names []string) (known map[string][]string, tainted []string) {
	known = map[string][]string{}
	for _, i := range s.instances() {
		owner := ownerOf(i.address, names)
		if owner == "" {
			continue
		}
		if !slices.Contains(known[owner], i.address) {
			known[owner] = append(known[owner], i.address)
		}
		if i.tainted && !slices.Contains(tainted, owner) {
			tainted = append(tainted, owner)
		}
	}
	return known, tainted
}

// outputs returns the raw guests of the module's output.
func (s *state) outputs() (map[string]json.RawMessage, error) {
	out, ok := s.Outputs["guests"]
	if !ok {
		return nil, nil
	}
	var text string
	if json.Unmarshal(out.Value, &text) == nil { // else it is of an earlier root, whose output was the map itself
		out.Value = json.RawMessage(text)
	}
	var guests map[string]json.RawMessage
	if err := json.Unmarshal(out.Value, &guests); err != nil {
		return nil, fmt.Errorf("output \"guests\": a map by guest name is needed: %w", err)
	}
	return guests, nil
}

// seen is what a shard's state was when the driver last read it.
type seen struct {
	Lineage   string `json:"lineage"`
	Serial    int64  `json:"serial"`
	Resources int    `json:"resources"`
}

func (s *state) seen() seen {
	return seen{Lineage: s.Lineage, Serial: s.Serial, Resources: len(s.instances())}
}

// checkState refuses a state that is not a successor of the one seen last: planning on it would
// lose track of real machines.
func checkState(s *state, last seen, file string) *Fault {
	var what string
	switch {
	case last == seen{}:
		return nil
	case s.Lineage == "" && last.Resources > 0:
		what = fmt.Sprintf("the state is gone; it had %d resources", last.Resources)
	case s.Lineage == "":
		return nil
	case s.Lineage != last.Lineage:
		what = fmt.Sprintf("the state's lineage is %s; this shard's was %s", s.Lineage, last.Lineage)
	case s.Serial < last.Serial:
		what = fmt.Sprintf("the state's serial went back from %d to %d", last.Serial, s.Serial)
	default:
		return nil
	}
	return &Fault{
		Kind: FaultState, Message: what,
		Hint: "restore a state from the shard's backups directory, or remove " + file + " to accept it as it is",
	}
}

// readJSON reads a small file of ours into v; a missing file leaves v as it is.
func readJSON(file string, v any) error {
	raw, err := readBounded(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	return nil
}
