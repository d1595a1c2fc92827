package client

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAStreamIsReadAsTheStandardSays(t *testing.T) {
	type block struct {
		ID   int64
		Data string
	}
	tests := map[string]struct {
		text string
		want []block
	}{
		"an event":                            {"id: 7\ndata: {}\n\n", []block{{7, "{}"}}},
		"without the space, and with CRLF":    {"id:7\r\ndata:x\r\n\r\n", []block{{7, "x"}}},
		"data of two lines":                   {"data: a\ndata: b\n\n", []block{{0, "a\nb"}}},
		"a sign of life that moves the place": {": still here\nid: 9\n\n", []block{{9, ""}}},
		"an id stays until the next":          {"id: 7\ndata: a\n\ndata: b\n\n", []block{{7, "a"}, {7, "b"}}},
		"what is cut off is not told":         {"id: 7\ndata: a\n", nil},
		"unknown fields are passed over":      {"event: x\nretry: 5\ndata: a\n\n", []block{{0, "a"}}},
		"a comment tells nothing":             {": events follow\n\n", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []block
			err := readStream(strings.NewReader(test.text), func() {}, func(id int64, data string) error {
				got = append(got, block{id, data})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnEventThatNeverEndsIsNotKept(t *testing.T) {
	for name, text := range map[string]string{
		"one line":   "data: " + strings.Repeat("x", 2*maxLine) + "\n\n",
		"many lines": strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 1000) + "\n",
	} {
		if err := readStream(strings.NewReader(text), func() {}, func(int64, string) error { return nil }); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

func FuzzEventStream(f *testing.F) {
	for _, seed := range []string{"id: 7\ndata: {}\n\n", ": still here\nid: 9\n\n", "id: -1\ndata\n\n", "data: a\r\ndata: b\r\n\r\n", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size := 0
		err := readStream(strings.NewReader(text), func() {}, func(_ int64, data string) error {
			size += len(data)
			return nil
		})
		if size > len(text) {
			t.Errorf("%q gave %d bytes of data: %v", text, size, err)
		}
	})
}
