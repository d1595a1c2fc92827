// Command grafana writes the dashboards of Greenroom: one for each reader, as JSON that any Grafana imports. They are made by
// a program so that colours, units, selectors and the size of things are written down once, and a change of them is a small diff.
//
//	go run ./integration/grafana integration/grafana/dashboards
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

//go:generate go run . dashboards

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: grafana DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "grafana:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	for name, d := range dashboards() {
		text, err := render(d)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// dashboards are those that there are, by the name of the file.
func dashboards() map[string]Dashboard {
	return map[string]Dashboard{"team.json": team(), "admin.json": admin(), "capacity.json": capacity()}
}

func render(d Dashboard) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // queries compare with < and >, and people read them
	enc.SetIndent("", "  ")
	err := enc.Encode(d)
	return out.Bytes(), err
}
